package compose

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// memory is a table in memory with n assets from the first on, at a version.
func memory(first, n int, version int64) *iotest.Memory {
	m := iotest.NewMemory()
	m.Load(iotest.Records(iotest.AssetSchema(), first, n, version)...)
	return m
}

// plain hides that a source is a Finder.
type plain struct{ connector.Source }

// partial is a Finder that finds more than it reads.
type partial struct{ connector.Finder }

func (partial) Partial() bool { return true }

// all is everything a source gives.
func all(t interface {
	Helper()
	Fatal(...any)
	Context() context.Context
}, s connector.Source) (sum connector.Page) {
	t.Helper()
	err := s.Plan(t.Context(), connector.PlanOptions{Rows: 30}, func(split connector.Split) error {
		return s.Read(t.Context(), split, func(p connector.Page) error {
			sum.Records, sum.Dead, sum.Filtered = append(sum.Records, p.Records...), append(sum.Dead, p.Dead...),
				sum.Filtered+p.Filtered
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func ids(records []*record.Record) (all []string) {
	for _, r := range records {
		all = append(all, r.KeyText())
	}
	slices.Sort(all)
	return all
}

func codes(letters []*record.DeadLetter) (all []string) {
	for _, l := range letters {
		all = append(all, l.Code)
	}
	slices.Sort(all)
	return all
}

// refused checks that the schema is refused with some words.
func refused(t *testing.T, s connector.Source, code string, words ...string) {
	t.Helper()
	_, err := s.Schema(t.Context())
	if fail.CodeOf(err) != code || fail.ExitOf(err) != fail.ExitJob {
		t.Fatalf("the error is %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not stand in %v", w, err)
		}
	}
}

var now = time.Now()

func TestKeysSource(t *testing.T) {
	table, list := memory(0, 500, iotest.Base), memory(0, 500, iotest.Base)
	iotest.TestSource(t, iotest.Source{Want: table.Rows(), New: func(*testing.T) connector.Source {
		return NewKeys(list.Source(), table.Source().(connector.Finder), MissingDead, "")
	}})
}

func TestUnionSource(t *testing.T) {
	// Each row lies in two of three tables; the latest version is that of the last one that has it.
	want := iotest.NewMemory()
	var tables []*iotest.Memory
	for i := range 3 {
		records := append(iotest.Records(iotest.AssetSchema(), 100*i, 100, iotest.Base+int64(i)),
			iotest.Records(iotest.AssetSchema(), 100*((i+1)%3), 100, iotest.Base+int64(i))...)
		m := iotest.NewMemory()
		m.Load(records...)
		want.Load(records...)
		tables = append(tables, m)
	}
	iotest.TestSource(t, iotest.Source{Want: want.Rows(), New: func(*testing.T) connector.Source {
		return NewUnion([]connector.Source{tables[0].Source(), tables[1].Source(), tables[2].Source()}, true, now)
	}})
}

func TestJoinSource(t *testing.T) {
	assets := memory(0, 500, iotest.Base)
	side := iotest.NewMemory()
	side.Schema = licences
	for i := range 250 { // the others have none
		side.Load(licence(iotest.Record(iotest.AssetSchema(), 2*i, iotest.Base).KeyText(), int64(i)))
	}
	for _, broadcast := range []bool{false, true} {
		name := map[bool]string{false: "keyed", true: "broadcast"}[broadcast]
		t.Run(name, func(t *testing.T) {
			join := func() connector.Source {
				return NewJoin(assets.Source(),
					Side{Name: "licences", Of: side.Source(), On: map[string]string{"id": "licence"},
						Fields:  map[string]string{"expires": "until", "licensed": "licence"},
						Missing: MissingEmpty, Broadcast: broadcast, Memory: 1 << 20, Cache: 10_000,
						CacheFor: time.Minute})
			}
			want := map[string]string{}
			sum := all(t, join())
			for _, r := range sum.Records {
				want[r.KeyText()] = iotest.JSON(r)
			}
			if len(want) != 500 || len(sum.Dead) > 0 || sum.Filtered > 0 {
				t.Fatalf("%d records, %d dead letters, %d filtered", len(want), len(sum.Dead), sum.Filtered)
			}
			iotest.TestSource(t, iotest.Source{Want: want, New: func(*testing.T) connector.Source { return join() }})
		})
	}
}

var licences = record.MustSchema([]record.Field{{Name: "licence", Type: record.Of(record.Text)},
	{Name: "until", Type: record.Of(record.BigInt)}}, "licence")

func licence(id string, until int64) *record.Record {
	return &record.Record{Schema: licences, Version: iotest.Base + until,
		Values: []record.Value{record.String(id), record.Number(record.BigInt, until)}}
}

// A key without a row is told or filtered, what is no key is told, and one that stands twice does no harm.
func TestKeysWithoutRows(t *testing.T) {
	number := record.MustSchema([]record.Field{{Name: "n", Type: record.Of(record.Int)},
		{Name: "name", Type: record.Of(record.Text)}}, "n")
	table := iotest.NewMemory()
	table.Schema = number
	for i := range 3 {
		table.Load(&record.Record{Schema: number, Version: iotest.Base,
			Values: []record.Value{record.Number(record.Int, int64(i)), record.String("x")}})
	}
	texts := record.MustSchema([]record.Field{{Name: "line", Type: record.Of(record.Text)},
		{Name: "n", Type: record.Of(record.Text)}}, "line")
	list := iotest.NewMemory()
	list.Schema = texts
	for line, n := range []string{"0", "1", "0", "seven", "7", "2"} {
		list.Load(&record.Record{Schema: texts, Version: iotest.Base,
			Values: []record.Value{record.String(string(rune('a' + line))), record.String(n)}})
	}
	list.Load(&record.Record{Schema: texts, Version: iotest.Base,
		Values: []record.Value{record.String("z"), record.NullValue}})
	list.LoadRaw("y", []byte("no line"))
	for missing, want := range map[string][]string{
		MissingDead:   {"keys.gone", "keys.no_key", "keys.no_key", "memory.malformed"},
		MissingFilter: {"keys.no_key", "keys.no_key", "memory.malformed"},
	} {
		sum := all(t, NewKeys(list.Source(), table.Source().(connector.Finder), missing, ""))
		if diff := cmp.Diff([]string{"0", "1", "2"}, ids(sum.Records)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, codes(sum.Dead)); diff != "" {
			t.Errorf("missing %s: %s", missing, diff)
		}
		if sum.Rows() != 8 {
			t.Errorf("missing %s: %d of 8 keys are accounted for", missing, sum.Rows())
		}
		for _, l := range sum.Dead {
			// By its record the row is looked up again.
			if gone := l.Code == CodeGone; gone != (l.Record != nil) || gone &&
				(l.Record.KeyText() != "7" || l.Record.Origin.Split == "") {
				t.Errorf("%s: the record is %v", l.Code, l.Record)
			}
		}
	}
}

func TestKeysDoNotFit(t *testing.T) {
	table := memory(0, 1, iotest.Base).Source().(connector.Finder)
	list := iotest.NewMemory()
	list.Schema = record.MustSchema([]record.Field{{Name: "ident", Type: record.Of(record.Text)}}, "ident")
	refused(t, NewKeys(list.Source(), table, MissingDead, ""), "keys.fields", `no field "id"`, "there are ident")
	list.Schema = record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Double)}}, "id")
	refused(t, NewKeys(list.Source(), table, MissingDead, ""), "keys.fields",
		`the field "id" is a double, the key field "id" a text`)
}

// All that does not fit is told at once.
func TestUnionDoesNotFit(t *testing.T) {
	other := iotest.NewMemory()
	other.Schema = record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "title", Type: record.Of(record.Blob)}, {Name: "size", Type: record.Of(record.Int)}}, "id", "title")
	u := NewUnion([]connector.Source{memory(0, 1, iotest.Base).Source(), other.Source()}, false, now)
	refused(t, u, "union.fields", `key of part 2 is id, title, that of part 1 is id`,
		`"title" is a blob in part 2, a text in part 1`, `"size" is a int in part 2, a bigint in part 1`)
}

// Fields that a part does not have are unset; the order of a part's fields does not matter.
func TestUnionOfOtherFields(t *testing.T) {
	other := iotest.NewMemory()
	other.Schema = record.MustSchema([]record.Field{{Name: "colour", Type: record.Of(record.Text)},
		{Name: "id", Type: record.Of(record.Text)}}, "id")
	other.Load(&record.Record{Schema: other.Schema, Version: iotest.Base,
		Values: []record.Value{record.String("red"), record.String("new")},
		Cells:  []record.Cell{{Version: 1}, {Version: 2}}})
	sum := all(t, NewUnion([]connector.Source{memory(0, 2, iotest.Base).Source(), other.Source()}, true, now))
	for _, r := range sum.Records {
		red := r.KeyText() == "new"
		if red && (r.Get("colour").Str() != "red" || r.Get("title").Kind() != record.Unset ||
			r.Cells[r.Schema.Index("id")].Version != 2) || !red && r.Get("colour").Kind() != record.Unset {
			t.Errorf("%s %v", iotest.JSON(r), r.Cells)
		}
	}
	if len(sum.Records) != 3 {
		t.Errorf("%d records", len(sum.Records))
	}
}

// Rows give way only to those that another source is sure to read.
func TestUnionGivesWay(t *testing.T) {
	started := time.UnixMicro(iotest.Base).Add(time.Hour)
	live := started.UnixMicro()
	for name, c := range map[string]struct {
		first, second int64 // versions
		wrap          func(connector.Source) connector.Source
		want          []int64
	}{
		"later":              {iotest.Base, iotest.Base + 1, nil, []int64{iotest.Base + 1}},
		"earlier":            {iotest.Base + 1, iotest.Base, nil, []int64{iotest.Base + 1}},
		"equal":              {iotest.Base, iotest.Base, nil, []int64{iotest.Base}},
		"written since":      {iotest.Base, live, nil, []int64{iotest.Base, live}},
		"both written since": {live, live, nil, []int64{live, live}},
		"no Finder, later": {iotest.Base, iotest.Base + 1,
			func(s connector.Source) connector.Source { return plain{s} }, []int64{iotest.Base, iotest.Base + 1}},
		"no Finder, earlier": {iotest.Base + 1, iotest.Base,
			func(s connector.Source) connector.Source { return plain{s} }, []int64{iotest.Base + 1}},
		"finds more, earlier": {iotest.Base + 1, iotest.Base,
			func(s connector.Source) connector.Source { return partial{s.(connector.Finder)} },
			[]int64{iotest.Base + 1}},
		"finds more, later": {iotest.Base, iotest.Base + 1,
			func(s connector.Source) connector.Source { return partial{s.(connector.Finder)} },
			[]int64{iotest.Base, iotest.Base + 1}},
	} {
		t.Run(name, func(t *testing.T) {
			second := memory(0, 1, c.second).Source()
			if c.wrap != nil {
				second = c.wrap(second)
			}
			sum := all(t, NewUnion([]connector.Source{memory(0, 1, c.first).Source(), second}, true, started))
			var got []int64
			for _, r := range sum.Records {
				got = append(got, r.Version)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || sum.Rows() != 2 {
				t.Errorf("%s %d rows", diff, sum.Rows())
			}
		})
	}
}

// What has no row in the table becomes what the settings say, also for the next page, which takes it from the cache.
func TestJoinMissing(t *testing.T) {
	assets := memory(0, 3, iotest.Base)
	assets.LoadRaw("raw", []byte("no asset"))
	has := iotest.Record(iotest.AssetSchema(), 1, iotest.Base).KeyText()
	broken := iotest.Record(iotest.AssetSchema(), 2, iotest.Base).KeyText()
	side := iotest.NewMemory()
	side.Schema = licences
	side.Load(licence(has, 5))
	side.LoadRaw(broken, []byte("no licence"))
	for missing, want := range map[string]struct {
		records  int
		dead     []string
		filtered int64
	}{
		MissingEmpty:  {2, []string{"memory.malformed", "memory.malformed"}, 0},
		MissingDead:   {1, []string{"join.missing", "memory.malformed", "memory.malformed"}, 0},
		MissingFilter: {1, []string{"memory.malformed", "memory.malformed"}, 1},
	} {
		j := NewJoin(assets.Source(), Side{Name: "licences", Of: side.Source(), On: map[string]string{"id": "licence"},
			Fields: map[string]string{"expires": "until"}, Missing: missing, Cache: 1 << 20, CacheFor: time.Hour})
		for range 2 {
			sum := all(t, j)
			if diff := cmp.Diff(want.dead, codes(sum.Dead)); diff != "" || len(sum.Records) != want.records ||
				sum.Filtered != want.filtered {
				t.Errorf("missing %s: %d records, %d filtered, dead letters %s", missing, len(sum.Records),
					sum.Filtered, diff)
			}
			for _, r := range sum.Records {
				if got := r.Get("expires"); r.Version != iotest.Base || (r.KeyText() == has) != (got.Int() == 5) ||
					got.Kind() == record.Unset {
					t.Errorf("missing %s: %s has %v at %d", missing, r.KeyText(), got, r.Version)
				}
			}
		}
	}
}

func TestJoinDoesNotFit(t *testing.T) {
	side := iotest.NewMemory()
	side.Schema = licences
	j := NewJoin(memory(0, 1, iotest.Base).Source(),
		Side{Name: "licences", Of: side.Source(), On: map[string]string{"title": "until"},
			Fields: map[string]string{"size": "until", "x": "none"}})
	refused(t, j, "join.fields", `licences: "until" is not a field of the table's key, which is licence`,
		`on does not name the field "licence"`, `no field "none"`, `there is a field "size" already`)
}

// A table that does not fit into its memory is refused by the plan where it tells its size, else while it is read.
func TestJoinTooLarge(t *testing.T) {
	side := iotest.NewMemory()
	side.Schema = licences
	for i := range 100 {
		side.Load(licence(strings.Repeat("x", i), 1))
	}
	j := NewJoin(memory(0, 1, iotest.Base).Source(),
		Side{Name: "licences", Of: sized{side.Source(), 5000}, On: map[string]string{"id": "licence"},
			Fields: map[string]string{"expires": "until"}, Broadcast: true, Memory: 4096})
	if err := j.Plan(t.Context(), connector.PlanOptions{},
		func(connector.Split) error { return nil }); fail.CodeOf(err) != "join.too_large" {
		t.Errorf("the plan gave %v", err)
	}
	j = NewJoin(memory(0, 1, iotest.Base).Source(),
		Side{Name: "licences", Of: sized{side.Source(), 0}, On: map[string]string{"id": "licence"},
			Fields: map[string]string{"expires": "until"}, Broadcast: true, Memory: 4096})
	err := j.Plan(t.Context(), connector.PlanOptions{}, func(s connector.Split) error {
		return j.Read(t.Context(), s, func(connector.Page) error { return nil })
	})
	if fail.CodeOf(err) != "join.too_large" {
		t.Errorf("Read gave %v", err)
	}
}

// sized tells a size in its plan.
type sized struct {
	connector.Source
	bytes int64
}

func (s sized) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	return s.Source.Plan(ctx, o, func(x connector.Split) error {
		x.Bytes = s.bytes
		return split(x)
	})
}

// Deletes look for nothing and get no fields.
func TestJoinOfDeletes(t *testing.T) {
	side := iotest.NewMemory()
	side.Schema = licences
	side.Load(licence(iotest.Record(iotest.AssetSchema(), 0, iotest.Base).KeyText(), 1))
	j := NewJoin(deletes{memory(0, 3, iotest.Base).Source()},
		Side{Name: "licences", Of: side.Source(), On: map[string]string{"id": "licence"},
			Fields: map[string]string{"expires": "until"}, Missing: MissingDead})
	sum := all(t, j)
	for _, r := range sum.Records {
		if r.Op != record.Delete || r.Get("expires").Kind() != record.Unset || len(r.Values) != len(r.Schema.Fields) {
			t.Errorf("%s has %v", r.Op, r.Values)
		}
	}
	if len(sum.Records) != 3 {
		t.Errorf("%d records", len(sum.Records))
	}
}

// deletes gives each row as its delete.
type deletes struct{ connector.Source }

func (s deletes) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	return s.Source.Read(ctx, split, func(p connector.Page) error {
		for _, r := range p.Records {
			r.Op = record.Delete
			clear(r.Values[1:])
		}
		return page(p)
	})
}

// A row that was looked up is used again for a while, and the cache holds no more than it may.
func TestCache(t *testing.T) {
	const each = rowBytes + 1
	c, at := newCache(3*each, time.Minute), now
	for _, key := range []string{"a", "b", "c"} {
		r := newRow(key, nil)
		r.at = at
		c.put(key, r)
	}
	c.get("a", at)
	r := newRow("d", nil)
	r.at = at
	c.put("d", r) // b goes, which was used longest ago
	var held []string
	for _, key := range []string{"a", "b", "c", "d"} {
		if c.get(key, at.Add(59*time.Second)) != nil {
			held = append(held, key)
		}
		if c.get(key, at.Add(time.Minute)) != nil {
			t.Errorf("%s is used after a minute", key)
		}
	}
	if diff := cmp.Diff([]string{"a", "c", "d"}, held); diff != "" || c.bytes != 3*each {
		t.Errorf("%s %d bytes", diff, c.bytes)
	}
	c.put("large", newRow(strings.Repeat("x", 3*each), nil))
	if c.bytes > c.most {
		t.Errorf("the cache holds %d of %d bytes", c.bytes, c.most)
	}
}

// At the gate a row counts once, whatever else is looked up for it.
func TestRowsCountOnce(t *testing.T) {
	table := memory(0, 100, iotest.Base)
	side := iotest.NewMemory()
	side.Schema = licences
	for name, s := range map[string]connector.Source{
		"keys": NewKeys(memory(0, 100, iotest.Base).Source(), table.Source().(connector.Finder), MissingDead, ""),
		"union": NewUnion([]connector.Source{memory(0, 50, iotest.Base).Source(), memory(0, 50, iotest.Base).Source()},
			true, now),
		"join": NewJoin(table.Source(),
			Side{Name: "licences", Of: side.Source(), On: map[string]string{"id": "licence"},
				Fields: map[string]string{"expires": "until"}, Missing: MissingEmpty}),
	} {
		gate := iotest.NewGate()
		ctx := connector.WithGate(t.Context(), gate)
		rows := int64(0)
		err := s.Plan(ctx, connector.PlanOptions{}, func(split connector.Split) error {
			return s.Read(ctx, split, func(p connector.Page) error {
				rows += p.Rows()
				return nil
			})
		})
		if passed := gate.Passed(); err != nil || rows != 100 || passed.Records != rows ||
			passed.Left != passed.Entered {
			t.Errorf("%s: %d rows, %+v, %v", name, rows, passed, err)
		}
	}
}
