package corpusio

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/record"
)

func TestConformance(t *testing.T) {
	for _, c := range []SourceConfig{{Rows: 1200, Seed: 1}, {Rows: 300, Layout: "even"}, {Rows: 1}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			iotest.TestSource(t, iotest.Source{
				New:  func(*testing.T) connector.Source { return NewSource(c, connector.Need{}) },
				Want: NewModel(c).Rows,
			})
		})
	}
}

// Every row is made from seed and number alone: it is the same in a larger corpus, and other with another seed.
func TestRowsStandAlone(t *testing.T) {
	small, large, other := NewModel(SourceConfig{Rows: 2000, Seed: 7}), NewModel(SourceConfig{Rows: 5000, Seed: 7}),
		NewModel(SourceConfig{Rows: 2000, Seed: 8})
	for key, text := range small.Rows {
		if large.Rows[key] != text {
			t.Fatalf("%s is\n%s in the larger corpus, not\n%s", key, large.Rows[key], text)
		}
		if other.Rows[key] != "" {
			t.Fatalf("%s is there with another seed too", key)
		}
	}
	versions := map[int64]bool{}
	for row := range Rows(SourceConfig{Rows: 2000, Seed: 7}) {
		versions[row.Record.Version] = true
	}
	for row := range Rows(SourceConfig{Rows: 2000, Seed: 8}) {
		if versions[row.Record.Version] {
			t.Fatalf("%s is written at the same microsecond with another seed", row.Record.KeyText())
		}
	}
	if n := len(small.Rows) + len(small.Deleted); n != 2000 {
		t.Errorf("%d keys, want 2000", n)
	}
}

// The corpus has what its description promises, about as often.
func TestContent(t *testing.T) {
	const n = 40_000
	var deleted, malformed, expiring, huge, nulls, unset, bytes, raw, expired, licensed float64
	versions, kinds, perBucket := map[int64]int{}, map[record.Kind]bool{}, map[string]int{}
	newest, oldest := int64(0), int64(1<<62)
	var text []byte
	for row := range Rows(SourceConfig{Rows: n, Seed: 3}) {
		r := row.Record
		if row.Deletion != nil {
			deleted++
			if row.Deletion.Version <= r.Version || row.Deletion.KeyText() != r.KeyText() ||
				row.Deletion.Op != record.Delete {
				t.Fatalf("%s is deleted by %+v", r.KeyText(), row.Deletion)
			}
		}
		if row.Malformed {
			malformed++
		}
		if json.Valid([]byte(r.Values[payload].Str())) == row.Malformed {
			t.Fatalf("malformed %t: %s", row.Malformed, r.Values[payload].Str())
		}
		if r.Expires != 0 {
			expiring++
		}
		if r.Values[description].Size() > hugeLeast/2 {
			huge++
		}
		for i, v := range r.Values {
			switch {
			case v.Kind() == record.Null:
				nulls++
			case v.Kind() == record.Unset:
				unset++
			case v.Kind() != r.Schema.Fields[i].Type.Kind:
				t.Fatalf("%s is a %s", r.Schema.Fields[i].Name, v.Kind())
			}
			kinds[v.Kind()] = true
		}
		if text = r.AppendJSON(text[:0]); !utf8.Valid(text) || !json.Valid(text) {
			t.Fatalf("%q is not JSON", text)
		}
		if l := r.Values[rights]; !l.IsNull() {
			licensed++
			if l.Elems()[2].Time().Year() < 2026 {
				expired++
			}
		}
		bytes += float64(r.Size())
		for _, v := range r.Values {
			raw += float64(rawSize(v))
		}
		versions[r.Values[schemaVersion].Int()]++
		perBucket[r.Values[assetType].Str()+"/"+r.Values[bucket].Str()]++
		if got := r.Values[id].Time().Format("2006-01"); got != r.Values[bucket].Str() {
			t.Fatalf("id of %s in bucket %s", got, r.Values[bucket].Str())
		}
		newest, oldest = max(newest, r.Version), min(oldest, r.Version)
	}
	for what, x := range map[string]struct{ got, least, most float64 }{
		"deleted":               {deleted / n, 0.003, 0.007},
		"malformed":             {malformed / n, 0.0005, 0.002},
		"expiring":              {expiring / n, 0.007, 0.013},
		"huge":                  {huge, 1, 12},
		"nulls of a row":        {nulls / n, 0.1, 1},
		"unset of a row":        {unset / n, 0.1, 2},
		"licences expired":      {expired / licensed, 0.4, 0.6},
		"hot bucket":            {float64(perBucket[hotBucket]) / n, 0.499, 0.501},
		"buckets with assets":   {float64(len(perBucket)), 44, 44},
		"bytes in memory":       {bytes / n, 0.8 * rowBytes, 1.2 * rowBytes},
		"bytes of data":         {raw / n, 300, 500},
		"days between versions": {float64(newest-oldest) / 86400e6, 300, 400},
	} {
		if x.got < x.least || x.got > x.most {
			t.Errorf("%s: %g, want %g to %g", what, x.got, x.least, x.most)
		}
	}
	t.Logf("a row has %.0f bytes of data, %.0f in memory", raw/n, bytes/n)
	if len(versions) != 3 {
		t.Errorf("schema versions %v", versions)
	}
	for k := record.Boolean; k <= record.Vector; k++ {
		if !kinds[k] {
			t.Errorf("no value is a %s", k)
		}
	}
}

// rawSize is the number of bytes of a value alone.
func rawSize(v record.Value) int {
	n := len(v.Str())
	for _, e := range v.Elems() {
		n += rawSize(e)
	}
	switch v.Kind() {
	case record.Boolean, record.TinyInt:
		n++
	case record.SmallInt:
		n += 2
	case record.Int, record.Float, record.Date, record.Decimal:
		n += 4
	case record.BigInt, record.Double, record.Timestamp, record.Time:
		n += 8
	}
	return n
}

// The even layout gives each bucket the same number of rows.
func TestEvenLayout(t *testing.T) {
	for _, b := range Buckets(SourceConfig{Rows: 4800, Layout: "even"}) {
		if b.Rows != 100 {
			t.Errorf("%s has %d rows", b.Name(), b.Rows)
		}
	}
}

func TestBucketRecords(t *testing.T) {
	if n := len(BucketRecords(SourceConfig{Rows: 10})); n != 48 {
		t.Errorf("%d buckets", n)
	}
}

func TestValidate(t *testing.T) {
	if faults := (SourceConfig{Rows: 1, Layout: "even", Expires: "2040-02-29"}).Validate(); len(faults) > 0 {
		t.Errorf("%v", faults)
	}
	faults := SourceConfig{Layout: "round", Expires: "soon"}.Validate()
	var paths []string
	for _, f := range faults {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{"rows", "layout", "expires"}, paths); diff != "" {
		t.Error(diff)
	}
	s := NewSource(SourceConfig{Rows: 10}, connector.Need{})
	for _, split := range []connector.Split{{Partition: "image/1999-01"}, {Partition: hotBucket, Start: []byte("x")}} {
		if err := s.Read(context.Background(), split, func(connector.Page) error { return nil }); err == nil {
			t.Errorf("%s is read", split)
		}
	}
}

var (
	createType  = regexp.MustCompile(`(?s)CREATE TYPE IF NOT EXISTS media\.(\w+) \((.*?)\n\);`)
	createTable = regexp.MustCompile(
		`(?s)CREATE TABLE IF NOT EXISTS media\.(\w+) \((.*?)\n    PRIMARY KEY \((.*?)\)\n\)`)
	column = regexp.MustCompile(`(?m)^    (\w+) (.*?),?$`)
)

// testdata/corpus.cql has the columns and types of the schemas.
func TestCQL(t *testing.T) {
	text, err := os.ReadFile("../../testdata/corpus.cql")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]record.Type{}
	columns := func(text string) (fields []record.Field) {
		for _, m := range column.FindAllStringSubmatch(text, -1) {
			typ, err := record.ParseType(m[2], types)
			if err != nil {
				t.Fatal(err)
			}
			fields = append(fields, record.Field{Name: m[1], Type: typ})
		}
		return fields
	}
	for _, m := range createType.FindAllStringSubmatch(string(text), -1) {
		types[m[1]] = record.UDTOf(m[1], columns(m[2])...)
	}
	tables := map[string]*record.Schema{}
	for _, m := range createTable.FindAllStringSubmatch(string(text), -1) {
		key := strings.FieldsFunc(m[3], func(c rune) bool { return strings.ContainsRune("(), ", c) })
		if tables[m[1]], err = record.NewSchema(columns(m[2]), key...); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]*record.Schema{"assets": Schema(), "asset_buckets": BucketSchema()}
	for name, schema := range want {
		if tables[name] == nil || !tables[name].Same(schema) {
			t.Errorf("table %s: columns differ: %s", name, cmp.Diff(describe(schema), describe(tables[name])))
			continue
		}
		if diff := cmp.Diff(describe(schema), describe(tables[name])); diff != "" {
			t.Errorf("table %s: %s", name, diff)
		}
	}
	if len(tables) != len(want) {
		t.Errorf("tables %v", maps.Collect(maps.All(tables)))
	}
}

// describe is a schema as text, frozen types too.
func describe(s *record.Schema) string {
	var b strings.Builder
	for _, f := range s.Fields {
		fmt.Fprintf(&b, "%s %s\n", f.Name, f.Type)
	}
	return b.String() + strings.Join(s.KeyNames(), ", ")
}

func BenchmarkRead(b *testing.B) {
	s := NewSource(SourceConfig{Rows: 100_000}, connector.Need{})
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		err := s.Read(b.Context(), connector.Split{Partition: hotBucket},
			func(p connector.Page) error { rows += len(p.Records); return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
