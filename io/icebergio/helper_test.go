package icebergio

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// local gives the settings of a table in a folder of its own, with an SQLite catalog.
func local(t testing.TB) SinkConfig {
	dir := t.TempDir()
	return SinkConfig{Table: "media.assets", Create: true,
		Catalog: CatalogConfig{SQLite: filepath.Join(dir, "catalog.db"), Warehouse: filepath.Join(dir, "warehouse")}}
}

// reader is how the independent reader finds the table.
func reader(c SinkConfig) services.IcebergTable {
	r := services.IcebergTable{Catalog: c.Catalog.SQLite, Table: c.Table}
	if c.Catalog.REST != "" {
		r.Catalog = c.Catalog.REST
	}
	return r
}

func newSink(t testing.TB, c SinkConfig) *Sink {
	t.Helper()
	s := NewSink(c)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newRun() connector.Run { return connector.Run{ID: uuid.NewString(), Job: "test"} }

// outcomes collects results.
type outcomes struct {
	mu   sync.Mutex
	all  []connector.Result
	dead map[string]string // key → code
}

func (o *outcomes) settle(results []connector.Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range results {
		o.all = append(o.all, r)
		if r.Err != nil {
			if o.dead == nil {
				o.dead = map[string]string{}
			}
			o.dead[r.Record.KeyText()] = fail.CodeOf(r.Err)
		}
	}
}

func (o *outcomes) errors() (errs []error) {
	for _, r := range o.all {
		if r.Err != nil {
			errs = append(errs, r.Err)
		}
	}
	return errs
}

// stage writes records as one bundle and gives the parts.
func stage(t testing.TB, s *Sink, run connector.Run, records ...*record.Record) ([][]byte, *outcomes) {
	t.Helper()
	o := &outcomes{}
	w, err := s.Open(t.Context(), run, records[0].Schema, o.settle)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := w.Write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	parts, err := w.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if len(o.all) != len(records) {
		t.Fatalf("%d results for %d records", len(o.all), len(records))
	}
	return parts, o
}

// put prepares, writes and commits records as one run.
func put(t testing.TB, s *Sink, records ...*record.Record) *outcomes {
	t.Helper()
	run := newRun()
	if err := s.Prepare(t.Context(), run, records[0].Schema, false); err != nil {
		t.Fatal(err)
	}
	parts, o := stage(t, s, run, records...)
	n, err := s.Commit(t.Context(), run, records[0].Schema, parts)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(records) - len(o.dead)); n != want {
		t.Fatalf("%d records committed, want %d", n, want)
	}
	return o
}

// current is the table as the sink sees it.
func current(t testing.TB, s *Sink) *table.Table {
	t.Helper()
	now, err := s.find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// rows are those that the independent reader finds, without the version.
func rows(t testing.TB, r services.IcebergTable) []map[string]any {
	t.Helper()
	var all []map[string]any
	for _, line := range services.ReadIceberg(t, r) {
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		var row map[string]any
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		delete(row, defaultVersionColumn)
		all = append(all, row)
	}
	return all
}

// simpleSchema is (kind text, id int, title text), key id.
func simpleSchema() *record.Schema {
	return record.MustSchema([]record.Field{{Name: "kind", Type: record.Of(record.Text)},
		{Name: "id", Type: record.Of(record.Int)},
		{Name: "title", Type: record.Of(record.Text)}}, "id")
}

func simple(s *record.Schema, kind string, id int, title string) *record.Record {
	return &record.Record{Schema: s, Version: int64(1000 + id), Origin: record.Origin{Split: "test"},
		Values: []record.Value{record.String(kind), record.Number(record.Int, int64(id)), record.String(title)}}
}

// wantError checks the code of an error, that it tells what to do, and words of it.
func wantError(t testing.TB, err error, code string, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	if fail.CodeOf(err) != code {
		t.Fatalf("code %s, want %s: %v", fail.CodeOf(err), code, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error lacks %q: %v", w, err)
		}
	}
	t.Log(err)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	settings := func(target string) SinkConfig {
		return SinkConfig{Table: "iotest." + target, Create: true,
			Catalog: CatalogConfig{SQLite: filepath.Join(dir, "catalog.db"), Warehouse: dir}}
	}
	// Each reading starts a Java machine, so what has not changed is not read again.
	lines, at := map[string][]string{}, map[string]string{}
	read := func(t *testing.T, target string) []string {
		now := current(t, newSink(t, settings(target))).MetadataLocation()
		if at[target] != now {
			lines[target], at[target] = services.ReadIceberg(t, reader(settings(target))), now
		}
		return lines[target]
	}
	iotest.TestSink(t, iotest.Sink{
		New:   func(t *testing.T, target string) connector.Sink { return NewSink(settings(target)) },
		Read:  func(t *testing.T, target string) map[string]string { return latest(t, read(t, target)) },
		Count: func(t *testing.T, target string) int { return len(read(t, target)) },
		Refused: func() *record.Record {
			r := iotest.Record(iotest.AssetSchema(), 99999, iotest.Base)
			r.Values[2] = record.String("not \xff UTF-8")
			return r
		},
	})
}

// latest gives, for each key, the row with the highest version.
func latest(t *testing.T, lines []string) map[string]string {
	found, versions := map[string]string{}, map[string]int64{}
	for _, line := range lines {
		var row map[string]json.RawMessage
		var head struct {
			ID      string `json:"id"`
			Version int64  `json:"_version"`
		}
		for _, into := range []any{&row, &head} {
			if err := json.Unmarshal([]byte(line), into); err != nil {
				t.Fatal(err)
			}
		}
		delete(row, defaultVersionColumn)
		r := &record.Record{Schema: iotest.AssetSchema(), Values: make([]record.Value, 6)}
		r.Values[0] = record.String(head.ID)
		if key := r.KeyText(); head.Version >= versions[key] {
			versions[key] = head.Version
			text, err := json.Marshal(row)
			if err != nil {
				t.Fatal(err)
			}
			found[key] = string(text)
		}
	}
	return found
}
