package fileio

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func writeFile(t *testing.T, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func fieldsOf(t *testing.T, text string) (f connector.Fields) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func wantCode(t *testing.T, err error, code string, class fail.Class) {
	t.Helper()
	if fail.CodeOf(err) != code || fail.ClassOf(err) != class {
		t.Fatalf("%v, want a %s error %s", err, class, code)
	}
}

// However a file is cut, by the plan or by a runner between any two bytes, each line is read once.
func TestEachLineIsReadOnce(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		var b strings.Builder
		n := rapid.IntRange(0, 40).Draw(rt, "lines")
		for i := range n {
			fmt.Fprintf(&b, `{"id":%d,"text":%q}`, i, strings.Repeat("x", rapid.IntRange(0, 300).Draw(rt, "length")))
			b.WriteString(rapid.SampledFrom([]string{"\n", "\r\n", "\n\n \n"}).Draw(rt, "end"))
		}
		content := b.String()
		if rapid.Bool().Draw(rt, "open end") {
			content = strings.TrimRight(content, "\r\n ")
		}
		path := filepath.Join(folder, "file.jsonl")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			rt.Fatal(err)
		}
		s := NewSource(SourceConfig{Path: path, Key: []string{"id"}, Fields: fieldsOf(t, `{"id":"int","text":"text"}`)},
			connector.Need{})
		var splits []connector.Split
		o := connector.PlanOptions{Bytes: rapid.Int64Range(1, 2000).Draw(rt, "bytes"),
			Rows: rapid.Int64Range(0, 10).Draw(rt, "rows")}
		if err := s.Plan(t.Context(), o, func(split connector.Split) error {
			from, _ := offset(split.Start)
			to, _ := offset(split.End)
			if to > from+1 && rapid.Bool().Draw(rt, "cut") {
				done, rest := split.Cut(position(rapid.Int64Range(from+1, to-1).Draw(rt, "at")))
				splits = append(splits, done, rest)
				return nil
			}
			splits = append(splits, split)
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
		var ids []int64
		for _, split := range splits {
			if err := s.Read(t.Context(), split, func(p connector.Page) error {
				for _, r := range p.Records {
					ids = append(ids, r.Values[0].Int())
				}
				return nil
			}); err != nil {
				rt.Fatal(err)
			}
		}
		if len(ids) != n {
			rt.Fatalf("read %v of %d lines", ids, n)
		}
		for i, id := range ids {
			if id != int64(i) {
				rt.Fatalf("read %v", ids)
			}
		}
	})
}

func TestBadLinesAreDeadLetters(t *testing.T) {
	content := "\ufeff" + `{"id":1,"n":1}
not json
{"id":2,"n":1.5}
{"id":null,"n":1}
{"id":3,"n":1,"more":true}
{"id":4,"n":1,"n":2}
{"id":5,"n":1
[1]
{"id":6,"n":` + strings.Repeat(" ", 1<<20) + `1}
{"id":7,"n":"` + "\xff" + `"}

{"id":8,"_meta":{"op":"upsert","version":7,"expires":9}}
{"id":9,"n":5,"_meta":{"op":"delete","version":8}}
{"id":10,"_meta":{"op":"explode"}}
{"id":11,"n":1}`
	s := NewSource(SourceConfig{Path: writeFile(t, "a.jsonl", content), Key: []string{"id"}, MaxLine: 1 << 19,
		Fields: fieldsOf(t, `{"id":"int","n":"int"}`)}, connector.Need{})
	records, dead := read(t, s, connector.PlanOptions{})
	var got []string
	for _, r := range records {
		got = append(got, r.Op.String()+" "+iotest.JSON(r))
	}
	want := []string{`upsert {"id":1,"n":1}`, `upsert {"id":8}`, `delete {"id":9}`, `upsert {"id":11,"n":1}`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if r := records[1]; r.Version != 7 || r.Expires != 9 {
		t.Errorf("version %d, expires %d of the line with _meta", r.Version, r.Expires)
	}
	if v := records[0].VersionTime(); time.Since(v) > time.Hour || time.Since(v) < 0 {
		t.Errorf("version %s, want the time at which the file was written", v)
	}
	got = nil
	for _, l := range dead {
		got = append(got, l.Code)
		if l.Raw == nil || len(l.Raw) > 1<<20 || l.Class != "permanent" || l.Attempts != 1 ||
			!strings.Contains(l.Message, "at byte ") {
			t.Errorf("dead letter %+v", l)
		}
	}
	want = []string{"files.not_json", "files.wrong_type", "files.no_key", "files.unknown_field",
		"files.field_twice", "files.not_json",
		"files.not_json", "files.line_too_long", "files.not_json", "files.wrong_type"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if line := string(dead[1].Raw); line != `{"id":2,"n":1.5}`+"\n" {
		t.Errorf("the raw line is %q", line)
	}
	if !strings.Contains(dead[1].Message, fmt.Sprint(strings.Index(content, `{"id":2`))) {
		t.Errorf("%q does not tell where the line begins", dead[1].Message)
	}
}

func TestFieldsAreGuessed(t *testing.T) {
	content := `{"id":"a","size":1,"price":1,"on":true,"tags":["x"],"attrs":{"a":"b"},"owner":{"name":"n","age":3},"big":1,"none":null,"empty":[],"nested":[{"a":1,"b":"c"}]}
broken
{"price":1.5,"id":"b","late":"x","big":123456789012345678901,"attrs":{"z":null,"y":"z"},"_meta":{"version":1},"owner":{"age":null,"more":true}}`
	s := NewSource(SourceConfig{Path: writeFile(t, "a.jsonl", content), Key: []string{"id"}}, connector.Need{})
	schema, err := s.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := connector.Fields(schema.Fields).MarshalJSON()
	want := `{"id":"text","size":"bigint","price":"double","on":"boolean","tags":"list<text>","attrs":"map<text, text>",` +
		`"owner":"udt<name:text, age:bigint, more:boolean>","big":"varint","none":"text","empty":"list<text>","nested":"list<udt<a:bigint, b:text>>","late":"text"}`
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
	records, dead := read(t, s, connector.PlanOptions{})
	if len(records) != 2 || len(dead) != 1 {
		t.Errorf("%d records, dead letters %+v", len(records), dead)
	}

	for content, code := range map[string]string{
		`{"id":1,"a":1}` + "\n" + `{"id":1,"a":{"b":1}}`: "files.mixed_types",
		"broken":   "files.empty",
		`{"a": 1}`: "files.fields",
	} {
		_, err := NewSource(SourceConfig{Path: writeFile(t, "a.jsonl", content), Key: []string{"id"}},
			connector.Need{}).Schema(t.Context())
		wantCode(t, err, code, fail.Fatal)
	}
}

func TestSourceErrors(t *testing.T) {
	fields := fieldsOf(t, `{"id":"int","at":"text"}`)
	plan := func(c SourceConfig) error {
		c.Key, c.Fields = []string{"id"}, fields
		return NewSource(c, connector.Need{}).Plan(t.Context(), connector.PlanOptions{},
			func(connector.Split) error { return nil })
	}
	wantCode(t, plan(SourceConfig{Path: filepath.Join(t.TempDir(), "*")}), "files.none", fail.Fatal)
	good := writeFile(t, "a.jsonl", `{"id":1}`)
	wantCode(t, plan(SourceConfig{Path: good, Version: "at"}), "files.version", fail.Fatal)
	wantCode(t, plan(SourceConfig{Path: good, Format: "parquet"}), "files.read", fail.Fatal)

	readAll := func(path, partition string, end []byte) error {
		s := NewSource(SourceConfig{Path: path, Key: []string{"id"}, Fields: fields}, connector.Need{})
		return s.Read(t.Context(), connector.Split{Partition: partition, End: end},
			func(connector.Page) error { return nil })
	}
	wantCode(t, readAll(good, good+".gone", nil), "files.read", fail.Fatal)
	wantCode(t, readAll(good, good, position(100)), "files.changed", fail.Fatal)
	wantCode(t, readAll(good, good, []byte("x")), "files.position", fail.Fatal)

	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprintln(z, strings.Repeat(`{"id":1}`+"\n", 1000))
	_ = z.Close()
	cut := writeFile(t, "a.jsonl.gz", b.String()[:b.Len()/2])
	wantCode(t, readAll(cut, cut, nil), "files.read", fail.Fatal)
}

func TestVersionOfAField(t *testing.T) {
	for _, c := range []struct {
		typ, json string
		want      int64
	}{
		{"timestamp", `"2024-05-01T00:00:00.123Z"`, 1714521600123000},
		{"bigint", "1714521600123456", 1714521600123456},
		{"timeuuid", `"5ff11a80-075b-11ef-9a9d-6b1a5c7d8e9f"`, 1714527450482956},
	} {
		s := NewSource(SourceConfig{Path: writeFile(t, "a.jsonl", `{"id":1,"v":`+c.json+"}\n"+`{"id":2}`),
			Key: []string{"id"}, Version: "v",
			Fields: fieldsOf(t, `{"id":"int","v":"`+c.typ+`"}`)}, connector.Need{})
		records, dead := read(t, s, connector.PlanOptions{})
		if len(records) != 1 || len(dead) != 1 || dead[0].Code != "files.no_version" {
			t.Fatalf("%s: %v, %+v", c.typ, records, dead)
		}
		if got := records[0].Version; got != c.want {
			t.Errorf("%s: version %d, want %d", c.typ, got, c.want)
		}
	}
}

func TestIgnoreUnknown(t *testing.T) {
	s := NewSource(SourceConfig{Path: writeFile(t, "a.jsonl", `{"id":1,"more":[{}]}`),
		Key: []string{"id"}, IgnoreUnknown: true,
		Fields: fieldsOf(t, `{"id":"int"}`)}, connector.Need{})
	records, dead := read(t, s, connector.PlanOptions{})
	if len(records) != 1 || len(dead) != 0 {
		t.Errorf("%v %+v", records, dead)
	}
}

// Without fields a Parquet file's own types count.
func TestParquetTypes(t *testing.T) {
	folder := t.TempDir()
	schema := allTypes(t)
	writeFiles(t, SinkConfig{Path: folder, Format: "parquet", Meta: true}, schema,
		iotest.Records(schema, 0, 10, iotest.Base))
	s := NewSource(SourceConfig{Path: filepath.Join(folder, "*"), Key: []string{"id"}}, connector.Need{})
	got, err := s.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range strings.Split("bigint boolean tinyint smallint int text text float double text blob text "+
		"text text timestamp date time text"+
		" list<text> list<int> map<text,text> map<int,list<text>> udt<f0:int,f1:text> "+
		"udt<a:int,b:list<udt<c:double>>> list<float>", " ") {
		if g := strings.ReplaceAll(got.Fields[i].Type.String(), " ", ""); g != want {
			t.Errorf("%s is read as %s, want %s", schema.Fields[i].Type, g, want)
		}
	}
	records, dead := read(t, s, connector.PlanOptions{})
	if len(records) != 10 || len(dead) != 0 {
		t.Errorf("%d records, %+v", len(records), dead)
	}

	wrong := connector.Fields{{Name: "id", Type: record.Of(record.BigInt)},
		{Name: "i_text", Type: record.Of(record.Int)}}
	s = NewSource(SourceConfig{Path: filepath.Join(folder, "*"), Key: []string{"id"}, Fields: wrong,
		IgnoreUnknown: true}, connector.Need{})
	records, dead = read(t, s, connector.PlanOptions{})
	if len(records) != 0 || len(dead) != 10 || dead[0].Code != "files.wrong_type" ||
		!bytes.Contains(dead[0].Raw, []byte("text-")) {
		t.Errorf("%d records, %+v", len(records), dead)
	}
	s = NewSource(SourceConfig{Path: filepath.Join(folder, "*"), Key: []string{"id"}, Fields: wrong}, connector.Need{})
	wantCode(t, s.Plan(t.Context(), connector.PlanOptions{}, nil), "files.unknown_column", fail.Fatal)
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config interface{ Validate() []connector.Fault }
		want   []string
	}{
		{SinkConfig{Path: "x"}, nil},
		{SinkConfig{Compress: "snappy"}, []string{"path", "compress"}},
		{SourceConfig{Path: "x", Key: []string{"id"}}, nil},
		{SourceConfig{Path: "[", IgnoreUnknown: true, MaxLine: 1 << 40},
			[]string{"path", "key", "max_line", "ignore_unknown"}},
		{SourceConfig{Path: "x", Key: []string{"id", "no"}, Version: "v",
			Fields: fieldsOf(t, `{"id":"int","id":"int","_meta":"text"}`)},
			[]string{"fields._meta", "fields.id", "key[1]", "version"}},
	} {
		var got []string
		for _, f := range c.config.Validate() {
			got = append(got, f.Path)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%+v: %s", c.config, d)
		}
	}
	var f connector.Fields
	for _, text := range []string{`{"a":"nonsense"}`, `["int"]`, `{"a":1}`, `1`} {
		if err := json.Unmarshal([]byte(text), &f); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

// No value at the edge of its kind comes back as another one, as JSON or as Parquet.
func TestEdges(t *testing.T) {
	for _, format := range []string{"jsonl", "parquet"} {
		t.Run(format, func(t *testing.T) {
			folder := t.TempDir()
			iotest.TestEdges(t, NewSink(SinkConfig{Path: folder, Format: format}), func() connector.Source {
				schema := iotest.Edges()[0].Schema
				return parquetSource(filepath.Join(folder, "*"), func(c *SourceConfig) { c.Fields = schema.Fields })
			})
		})
	}
}
