package fileio

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/zstd"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/record"
)

// entry is what stands in a file, read without the code of this package.
type entry struct {
	key, op string
	version int64
	fields  string // JSON without _meta
}

func lineEntries(t *testing.T, path string) (entries []entry) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := io.Reader(f)
	switch {
	case strings.HasSuffix(path, ".gz"):
		in, err = gzip.NewReader(f)
	case strings.HasSuffix(path, ".zst"):
		in, err = zstd.NewReader(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		entries = append(entries, parseEntry(t, lines.Bytes()))
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return entries
}

func parseEntry(t *testing.T, line []byte) entry {
	t.Helper()
	var e entry
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(line, &fields); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if raw, ok := fields["_meta"]; ok {
		var meta struct {
			Key, Op string
			Version int64
		}
		if err := json.Unmarshal(raw, &meta); err != nil {
			t.Fatal(err)
		}
		e.key, e.op, e.version = meta.Key, meta.Op, meta.Version
		delete(fields, "_meta")
	}
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	e.fields = string(b)
	return e
}

// parquetEntries reads a file by the Parquet library alone.
func parquetEntries(t *testing.T, path string) (entries []entry) {
	t.Helper()
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	table, err := r.ReadTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	batches := array.NewTableReader(table, 0)
	defer batches.Release()
	for batches.Next() {
		batch := batches.RecordBatch()
		for i := range int(batch.NumRows()) {
			row := map[string]any{}
			for j, column := range batch.Columns() {
				row[batch.ColumnName(j)] = column.GetOneForMarshal(i)
				if m, ok := column.(*array.Map); ok && m.IsValid(i) {
					row[batch.ColumnName(j)] = mapRow(m, i)
				}
			}
			b, err := json.Marshal(row)
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, parseEntry(t, b))
		}
	}
	return entries
}

func mapRow(m *array.Map, i int) map[string]any {
	row := map[string]any{}
	from, to := m.ValueOffsets(i)
	for j := int(from); j < int(to); j++ {
		row[m.Keys().ValueStr(j)] = m.Items().GetOneForMarshal(j)
	}
	return row
}

func folderEntries(t *testing.T, folder string) (entries []entry) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		switch {
		case strings.HasSuffix(path, partSuffix):
		case strings.HasSuffix(path, ".parquet"):
			entries = append(entries, parquetEntries(t, path)...)
		default:
			entries = append(entries, lineEntries(t, path)...)
		}
	}
	return entries
}

func newest(entries []entry) map[string]string {
	last := map[string]entry{}
	for _, e := range entries {
		if old, ok := last[e.key]; !ok || e.version >= old.version {
			last[e.key] = e
		}
	}
	fields := map[string]string{}
	for key, e := range last {
		if e.op != "delete" {
			fields[key] = e.fields
		}
	}
	return fields
}

func TestSink(t *testing.T) {
	for _, c := range []SinkConfig{{}, {Compress: "gzip", FileSize: 10_000}, {Compress: "zstd"}, {Format: "parquet"},
		{Format: "parquet", Compress: "snappy", FileSize: 10_000}} {
		t.Run(c.format()+" "+c.compress(), func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			c.Meta = true
			folder := func(target string) string { return filepath.Join(root, target) }
			iotest.TestSink(t, iotest.Sink{
				New: func(_ *testing.T, target string) connector.Sink {
					c.Path = folder(target)
					return NewSink(c)
				},
				Read: func(t *testing.T, target string) map[string]string {
					return newest(folderEntries(t, folder(target)))
				},
				Count:   func(t *testing.T, target string) int { return len(folderEntries(t, folder(target))) },
				Deletes: true,
			})
		})
	}
}

// writeFiles writes records by the sink and commits them.
func writeFiles(t *testing.T, c SinkConfig, schema *record.Schema, records []*record.Record) {
	t.Helper()
	s := NewSink(c)
	run := connector.Run{ID: "run-" + filepath.Base(t.TempDir())}
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	w, err := s.Open(t.Context(), run, schema, func(results []connector.Result) {
		for _, r := range results {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	parts, err := w.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Commit(t.Context(), run, schema, parts); err != nil || n != int64(len(records)) {
		t.Fatal(n, err)
	}
}

func TestSource(t *testing.T) {
	schema := iotest.AssetSchema()
	records := iotest.Records(schema, 0, 3000, iotest.Base)
	want := map[string]string{}
	for _, r := range records {
		want[r.KeyText()] = iotest.JSON(r)
	}
	for _, c := range []SinkConfig{{FileSize: 100_000}, {Compress: "gzip"}, {Compress: "zstd", Meta: true},
		{Format: "parquet", Meta: true, FileSize: 10_000}} {
		t.Run(c.format()+" "+c.compress(), func(t *testing.T) {
			t.Parallel()
			c.Path = t.TempDir()
			writeFiles(t, c, schema, records)
			iotest.TestSource(t, iotest.Source{
				New: func(t *testing.T) connector.Source {
					return NewSource(SourceConfig{Path: filepath.Join(c.Path, "*"), Key: []string{"id"},
						Fields: schema.Fields}, connector.Need{})
				},
				Want: want,
			})
		})
	}
}

// read gives all that a source holds, in the order of its splits.
func read(t *testing.T, s *Source, o connector.PlanOptions) (records []*record.Record, dead []*record.DeadLetter) {
	t.Helper()
	var splits []connector.Split
	if err := s.Plan(t.Context(), o,
		func(split connector.Split) error { splits = append(splits, split); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, split := range splits {
		if err := s.Read(t.Context(), split, func(p connector.Page) error {
			if !split.Contains(p.Last) {
				t.Errorf("page end %x is outside of %s", p.Last, split)
			}
			records, dead = append(records, p.Records...), append(dead, p.Dead...)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	iotest.Places(t, s, dead)
	return records, dead
}

// What the sink writes with meta the source reads as it was: all types, version, operation and expiry.
func TestWhatIsWrittenIsRead(t *testing.T) {
	schema := allTypes(t)
	var records []*record.Record
	for i := range 2000 {
		r := iotest.Record(schema, i, iotest.Base+int64(i))
		switch i % 10 {
		case 1:
			r = iotest.Deletion(schema, i, iotest.Base+int64(i))
		case 2:
			r.Expires = 1_900_000_000
		case 3:
			for j := 1; j < len(r.Values); j++ {
				r.Values[j] = record.NullValue
			}
		}
		records = append(records, r)
	}
	for _, c := range []SinkConfig{{}, {Format: "parquet"}} {
		t.Run(c.format(), func(t *testing.T) {
			c.Path, c.Meta = t.TempDir(), true
			writeFiles(t, c, schema, records)
			s := NewSource(SourceConfig{Path: filepath.Join(c.Path, "*"), Key: []string{"id"}, Fields: schema.Fields},
				connector.Need{})
			got, dead := read(t, s, connector.PlanOptions{Rows: 100})
			if len(dead) > 0 || len(got) != len(records) {
				t.Fatalf("%d records, %d dead, want %d: %+v", len(got), len(dead), len(records), dead)
			}
			for i, r := range got {
				w := *records[i]
				r.Origin, w.Origin = record.Origin{}, record.Origin{}
				if !bytes.Equal(record.AppendRecord(nil, r), record.AppendRecord(nil, &w)) {
					t.Fatalf("record %d is\n%s, want\n%s", i, iotest.JSON(r), iotest.JSON(&w))
				}
			}
		})
	}
}

func allTypes(t *testing.T) *record.Schema {
	t.Helper()
	var fields []record.Field
	for i, text := range []string{"bigint", "boolean", "tinyint", "smallint", "int", "varint", "decimal", "float",
		"double", "text", "blob", "uuid", "timeuuid",
		"inet", "timestamp", "date", "time", "duration", "list<uuid>", "set<int>",
		"map<text, decimal>", "map<int, list<text>>",
		"tuple<int, text>", "udt<a:int, b:list<udt<c:double>>>", "vector<float, 3>"} {
		typ, err := record.ParseType(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		name := "id"
		if i > 0 {
			name = string(rune('a'+i-1)) + "_" + typ.Kind.String()
		}
		fields = append(fields, record.Field{Name: name, Type: typ})
	}
	return record.MustSchema(fields, "id")
}
