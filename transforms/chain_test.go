package transforms_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/golden"
	"reprise/transforms/record"
)

// misbehave is a team's own transform that does what it is told, none of it good.
type misbehaveConfig struct {
	Do string `json:"do"`
}

func init() {
	transforms.Register(transforms.Transform{
		Name: "misbehave", Summary: "For tests.", Config: new(misbehaveConfig),
		Compile: func(config json.RawMessage, in *record.Schema, _ transforms.Options) (transforms.Step, *record.Schema,
			error) {
			var c misbehaveConfig
			if err := json.Unmarshal(config, &c); err != nil {
				return nil, nil, err
			}
			if c.Do == "refuse" {
				return nil, nil, errors.Join(&transforms.FaultError{Path: "do", Message: "no"}, errors.New("never"))
			}
			return misbehave(c.Do), in, nil
		},
	})
}

type misbehave string

func (m misbehave) Apply(r *record.Record, emit func(*record.Record)) error {
	change := func() {
		r.Values[0], r.Values[1] = record.String("changed"), record.NullValue
		r.Version, r.Op = 99, record.Delete
	}
	switch m {
	case "panic":
		change()
		panic("at the disco")
	case "nil":
		var none *record.Record
		change()
		emit(none)
	case "fail":
		change()
		r.Values = append(r.Values, record.NullValue)
		return io.ErrUnexpectedEOF
	case "class":
		return fail.New(fail.Fatal, "team.broken", "nothing works")
	case "shape":
		emit(&record.Record{Schema: record.MustSchema(nil)})
	case "emit and fail":
		emit(r.Clone())
		return io.EOF
	case "two":
		emit(r.Clone())
		emit(r)
	}
	return nil
}

func TestMisbehaviour(t *testing.T) {
	in := schema(t, "id text", "n int")
	for _, x := range []struct {
		do   string
		want []string
	}{
		{"panic", []string{`dead in transforms.0.misbehave: at the disco, in reprise/transforms_test.misbehave.Apply ` +
			`(chain_test.go:`}},
		{"nil", []string{`dead in transforms.0.misbehave: runtime error: invalid memory address or nil pointer ` +
			`dereference, in`}},
		{"fail", []string{`dead in transforms.0.misbehave: unexpected EOF [transform.failed]`}},
		{"class", []string{`dead in transforms.0.misbehave: nothing works [team.broken]`}},
		{"shape", []string{`dead in transforms.0.misbehave: the step emitted a record that is not of the schema that ` +
			`its Compile gave [transform.schema]`}},
		{"emit and fail", []string{`k {"id":"k","n":1}`, `dead in transforms.0.misbehave: EOF [transform.failed]`}},
		{"two", []string{`k {"id":"k","n":1}`, `k {"id":"k","n":1}`}},
		{"nothing", []string{`filtered`}},
	} {
		t.Run(x.do, func(t *testing.T) {
			chain := compile(t, in, "- misbehave: {do: "+x.do+"}")
			for range 2 { // it works after that as before
				got := outcomes(t, chain, fromJSON(t, in, `{"id":"k","n":1}`))
				if len(got) == len(x.want) && strings.HasPrefix(got[0], x.want[0]) {
					got[0] = x.want[0]
				}
				if diff := cmp.Diff(x.want, got); diff != "" {
					t.Error(diff)
				}
			}
			r := fromJSON(t, in, `{"id":"k","n":1}`)
			before := r.Clone()
			if err := chain.Steps[0].Apply(r, func(*record.Record) {}); err != nil {
				if diff := cmp.Diff(before, r, sameRecord); diff != "" {
					t.Errorf("alone, the record is not as it entered:\n%s", diff)
				}
			}
		})
	}
}

func TestPermanentUnlessClassed(t *testing.T) {
	in := schema(t, "id text", "n int")
	for do, want := range map[string]fail.Class{"panic": fail.Permanent, "fail": fail.Permanent, "class": fail.Fatal} {
		compile(t, in, "- misbehave: {do: "+do+"}").Apply(fromJSON(t, in, `{"id":"k"}`), nil,
			func(_ *record.Record, _ string, err error) {
				if got := fail.ClassOf(err); got != want {
					t.Errorf("%s: class %s, want %s", do, got, want)
				}
			})
	}
}

// A panic of what the caller does with records is not the step's: it must reach the caller.
func TestCallersPanicCrosses(t *testing.T) {
	in := schema(t, "id text", "tags list<text>")
	crosses := func(config string, emit func(*record.Record), dead func(*record.Record, string, error)) {
		chain := compile(t, in, config)
		defer func() {
			if got := recover(); got != "caller" {
				t.Errorf("%s: recovered %v", config, got)
			}
			// The chain works on.
			n := 0
			chain.Apply(fromJSON(t, in, `{"id":"k","tags":["a","b"]}`), func(*record.Record) { n++ },
				func(*record.Record, string, error) { n++ })
			if n == 0 {
				t.Errorf("%s: after that nothing comes out", config)
			}
		}()
		chain.Apply(fromJSON(t, in, `{"id":"k","tags":["a","b"]}`), emit, dead)
		t.Errorf("%s: no panic", config)
	}
	crosses("- explode: {field: tags}\n- filter: id != \"\"\n- misbehave: {do: two}",
		func(*record.Record) { panic("caller") },
		func(_ *record.Record, _ string, err error) { t.Errorf("dead: %v", err) })
	calls := 0
	crosses("- explode: {field: tags}\n- misbehave: {do: fail}",
		nil, func(*record.Record, string, error) {
			if calls++; calls > 1 {
				t.Error("dead is called again for its own panic")
			}
			panic("caller")
		})
}

// Workers compile and run chains of their own at the same time; run with -race.
func TestChainsSideBySide(t *testing.T) {
	in := schema(t, everything.fields...)
	list := specs(t, "- filter: size > 5 && title.lower() != \"\"\n- derive: {x: 'tags.map(t, t + title)'}\n- cast: "+
		"{size: text}")
	var group sync.WaitGroup
	for range 8 {
		r := fromJSON(t, in, everything.json)
		group.Go(func() {
			chain, err := transforms.Compile(list, in, now)
			if err != nil {
				t.Error(err)
				return
			}
			for range 50 {
				chain.Apply(r.Clone(), func(*record.Record) {},
					func(_ *record.Record, _ string, err error) { t.Error(err) })
			}
		})
	}
	group.Wait()
}

func TestNoSteps(t *testing.T) {
	in := schema(t, "id text")
	chain := compile(t, in, "[]")
	if got := outcomes(t, chain, fromJSON(t, in, `{"id":"k"}`)); len(got) != 1 || got[0] != `k {"id":"k"}` ||
		chain.Out != in {
		t.Errorf("got %v", got)
	}
}

// Records of an equal schema are taken, those of another end the run.
func TestSchemaOfRecords(t *testing.T) {
	in := schema(t, "id text", "n int")
	chain := compile(t, in, "- filter: n > 0")
	for range 2 {
		if got := outcomes(t, chain,
			fromJSON(t, schema(t, "id text", "n int"), `{"id":"k","n":1}`)); got[0] != `k {"id":"k","n":1}` {
			t.Errorf("got %v", got)
		}
	}
	chain.Apply(fromJSON(t, schema(t, "id text", "n text"), `{"id":"k","n":"1"}`),
		func(*record.Record) { t.Error("emitted") }, func(_ *record.Record, _ string, err error) {
			if fail.ClassOf(err) != fail.Fatal || fail.CodeOf(err) != "transform.schema" {
				t.Errorf("got %v", err)
			}
		})
}

func TestCells(t *testing.T) {
	in := schema(t, "id text", "a int", "b int", "u udt<x:int, y:int>", "l list<int>")
	cell := func(n int64) record.Cell { return record.Cell{Version: n, Expires: 10 * n} }
	for config, want := range map[string][]record.Cell{
		`- rename: {a: b, b: a}`:     {cell(1), cell(2), cell(3), cell(4), cell(5)},
		`- project: {keep: [id, u]}`: {cell(1), cell(4)},
		`- cast: {a: text}`:          {cell(1), cell(2), cell(3), cell(4), cell(5)},
		`- derive: {a: b, z: a}`: {cell(1), cell(9), cell(3), cell(4), cell(5),
			cell(9)},
		`- nest: {into: n, fields: [b, a]}`: {cell(1), {Version: 3, Expires: 20}, cell(4),
			cell(5)},
		`- flatten: {field: u}`: {cell(1), cell(2), cell(3), cell(4), cell(4),
			cell(5)},
		`- explode: {field: l}`: {cell(1), cell(2), cell(3), cell(4), cell(5),
			cell(5)},
		`- route: {field: r, cases: [{when: "true", value: x}]}`: {cell(1), cell(2), cell(3), cell(4), cell(5),
			cell(9)},
	} {
		r := fromJSON(t, in, `{"id":"k","a":1,"b":2,"u":{"x":1,"y":2},"l":[7]}`)
		r.Version, r.Expires = 9, 90
		r.Cells = []record.Cell{cell(1), cell(2), cell(3), cell(4), cell(5)}
		n := 0
		compile(t, in, config).Apply(r, func(out *record.Record) {
			n++
			if diff := cmp.Diff(want, out.Cells); diff != "" {
				t.Errorf("%s: want -, got +:\n%s", config, diff)
			}
		}, func(_ *record.Record, _ string, err error) { t.Errorf("%s: %v", config, err) })
		if n != 1 {
			t.Errorf("%s: %d records", config, n)
		}
	}
}

func TestSpecJSON(t *testing.T) {
	var s transforms.Spec
	if err := json.Unmarshal([]byte(`{"derive": {"b": "1", "a": "2"}}`), &s); err != nil || s.Name != "derive" {
		t.Fatalf("got %+v, %v", s, err)
	}
	b, err := json.Marshal([]transforms.Spec{s})
	if want := `[{"derive":{"b":"1","a":"2"}}]`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	for _, text := range []string{`{}`, `{"a":1,"b":2}`, `"filter"`, `null`} {
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestRegister(t *testing.T) {
	valid := transforms.All()[0]
	for want, change := range map[string]func(*transforms.Transform){
		"registered twice": func(*transforms.Transform) {},
		"lower_snake_case": func(x *transforms.Transform) { x.Name = "My-Own" },
		"needs Compile":    func(x *transforms.Transform) { x.Name, x.Compile = "mine", nil },
		"and Config":       func(x *transforms.Transform) { x.Name, x.Config = "mine", nil },
	} {
		x := valid
		change(&x)
		func() {
			defer func() {
				if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), want) {
					t.Errorf("panic %v, want %s", p, want)
				}
			}()
			transforms.Register(x)
		}()
	}
}

// A transform's own faults get their place.
func TestFaultsOfOwnTransforms(t *testing.T) {
	_, err := transforms.Compile(specs(t, "- filter: \"true\"\n- misbehave: {do: refuse}"), schema(t, "id text"), now)
	want := "transforms.1.misbehave.do: no\ntransforms.1.misbehave: never"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestDiff(t *testing.T) {
	a := fromJSON(t, schema(t, "id text", "gone int", "same int", "was int", "wide int", "new text"),
		`{"id":"k","gone":1,"same":2,"was":3,"wide":4}`)
	b := fromJSON(t, schema(t, "id text", "same int", "was int", "wide bigint", "new text", "more int"),
		`{"id":"l","same":2,"was":null,"wide":4,"new":"x","more":5,"_op":"delete"}`)
	b.Version++
	var got []string
	for _, c := range transforms.Diff(a, b) {
		got = append(got, c.String())
	}
	want := []string{`id: "k" → "l"`, `- gone: 1`, `was: 3 → null`, `wide: 4 (int) → 4 (bigint)`, `+ new: "x"`,
		`+ more: 5`, `_key: "k" → "l"`,
		`_version: 1714557600000000 → 1714557600000001`, `_op: upsert → delete`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if changes := transforms.Diff(a, a.Clone()); len(changes) != 0 {
		t.Errorf("a clone differs: %v", changes)
	}
}

// The reference that `reprise transforms` prints.
func TestDescribe(t *testing.T) {
	var b strings.Builder
	for _, x := range transforms.All() {
		if x.Name == "misbehave" || x.Name == "slugify" {
			continue
		}
		if x.Summary == "" || x.Example.Config == "" {
			t.Errorf("%s needs a summary and an example", x.Name)
		}
		if err := transforms.Describe(&b, x); err != nil {
			t.Error(err)
		}
		b.WriteString("\n")
	}
	golden.Compare(t, "testdata/reference.golden", b.String())
}

func TestDescribeBadExample(t *testing.T) {
	bad := transforms.All()[0]
	bad.Example.Config = "filter: nothing"
	if err := transforms.Describe(os.Stdout, bad); err == nil {
		t.Error("an example that does not compile was described")
	}
}

func TestCompileWhen(t *testing.T) {
	in := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "size", Type: record.Of(record.BigInt)}}, "id")
	specs := []transforms.Spec{{Name: "derive", Config: []byte(`{"kb": "size / 1024"}`)}}
	chain, err := transforms.CompileWhen("size > 1", specs, in, transforms.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"when", "transforms.0.derive"} {
		if got := chain.Steps[i].Label(); got != want {
			t.Errorf("step %d is %q, want %q", i, got, want)
		}
	}
	r := &record.Record{Schema: in, Values: []record.Value{record.String("a"), record.Number(record.BigInt, 1)}}
	if filtered := chain.Apply(r, func(*record.Record) { t.Error("a record got past the condition") },
		nil); filtered != 1 {
		t.Errorf("%d filtered, want 1", filtered)
	}
	if _, err = transforms.CompileWhen("sise > 1", nil, in, transforms.Options{}); err == nil ||
		!strings.HasPrefix(err.Error(), "when: ") {
		t.Errorf("a wrong condition: %v", err)
	}
}
