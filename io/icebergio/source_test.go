package icebergio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// source gives the settings that read the table of a sink.
func source(c SinkConfig) SourceConfig {
	return SourceConfig{Catalog: c.Catalog, S3: c.S3, Table: c.Table}
}

func newSource(t testing.TB, c SourceConfig) *Source {
	t.Helper()
	s := NewSource(c, connector.Need{})
	s.retry = connector.Retry{First: time.Millisecond, Max: 50 * time.Millisecond, Deadline: time.Second}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// read reads all that the plan holds.
func read(t testing.TB, s *Source, o connector.PlanOptions) (records []*record.Record, dead []*record.DeadLetter) {
	t.Helper()
	if err := s.Plan(t.Context(), o, func(split connector.Split) error {
		return s.Read(t.Context(), split, func(p connector.Page) error {
			records, dead = append(records, p.Records...), append(dead, p.Dead...)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	iotest.Places(t, s, dead)
	return records, dead
}

// same checks that records were read as they were written, but for the order and where they
// come from; what was unset is null.
func same(t testing.TB, got, want []*record.Record) {
	t.Helper()
	wire := func(records []*record.Record) map[string]string {
		all := map[string]string{}
		for _, r := range records {
			c := *r.Clone()
			c.Origin = record.Origin{}
			for i, v := range c.Values {
				if v.IsNull() {
					c.Values[i] = record.NullValue
				}
			}
			all[fmt.Sprint(r.KeyText(), r.Version)] = iotest.JSON(&c) + string(record.AppendRecord(nil, &c))
		}
		return all
	}
	if len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	if d := cmp.Diff(wire(want), wire(got)); d != "" {
		t.Error(d)
	}
}

// keysOf are the keys of records, sorted.
func keysOf(records []*record.Record) (all []string) {
	for _, r := range records {
		all = append(all, r.KeyText())
	}
	slices.Sort(all)
	return all
}

func TestSource(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.Partition, c.RowGroup = []string{"bucket(3, id)"}, 1<<20
	schema := iotest.AssetSchema()
	records := iotest.Records(schema, 0, 3000, iotest.Base)
	want := map[string]string{}
	for _, r := range records {
		want[r.KeyText()] = iotest.JSON(r)
	}
	s := newSink(t, c)
	put(t, s, records...)
	again := iotest.Records(schema, 500, 100, iotest.Base+1)
	for _, r := range again {
		want[r.KeyText()] = iotest.JSON(r)
	}
	put(t, s, again...)
	iotest.TestSource(t, iotest.Source{Want: want,
		New: func(*testing.T) connector.Source { return NewSource(source(c), connector.Need{PageRows: 100}) }})
}

// manyGroups writes some files of several row groups and gives what they hold.
func manyGroups(t testing.TB, c SinkConfig) []*record.Record {
	t.Helper()
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.BigInt)},
		{Name: "blob", Type: record.Of(record.Blob)}}, "id")
	var records []*record.Record
	for i := range 3000 {
		var noise []byte // that is not compressed much
		for x := uint64(i + 1); len(noise) < 5000; x = x*6364136223846793005 + 1442695040888963407 {
			noise = fmt.Appendf(noise, "%x", x)
		}
		records = append(records, &record.Record{Schema: schema, Version: iotest.Base + int64(i),
			Values: []record.Value{record.Number(record.BigInt, int64(i)), record.Bytes(record.Blob, string(noise))}})
	}
	put(t, newSink(t, c), records...)
	return records
}

// A file is cut at its row groups, and read from any position again.
func TestRowGroups(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.RowGroup, c.FileSize = 1<<20, 64<<20
	records := manyGroups(t, c)
	s := newSource(t, source(c))
	count := func(o connector.PlanOptions) (splits []connector.Split) {
		if err := s.Plan(t.Context(), o,
			func(split connector.Split) error { splits = append(splits, split); return nil }); err != nil {
			t.Fatal(err)
		}
		return splits
	}
	if n := len(count(connector.PlanOptions{})); n != 1 {
		t.Errorf("%d splits of one small file", n)
	}
	groups := count(connector.PlanOptions{Rows: 1})
	if len(groups) < 4 {
		t.Fatalf("%d splits, want one for each row group", len(groups))
	}
	if n := len(count(connector.PlanOptions{Bytes: 3 << 20})); n >= len(groups) || n < 2 {
		t.Errorf("%d splits of 3 MiB, %d row groups", n, len(groups))
	}
	for _, o := range []connector.PlanOptions{{}, {Rows: 1}, {Bytes: 3 << 20}} {
		got, dead := read(t, s, o)
		if len(dead) > 0 {
			t.Fatal(dead[0])
		}
		same(t, got, records)
	}
	want := map[string]string{}
	for _, r := range records {
		want[r.KeyText()] = iotest.JSON(r)
	}
	iotest.TestSource(t, iotest.Source{Want: want,
		New: func(*testing.T) connector.Source { return NewSource(source(c), connector.Need{PageRows: 70}) }})
}

func allTypes(t testing.TB) *record.Schema {
	t.Helper()
	var fields []record.Field
	for i, text := range []string{"bigint", "boolean", "tinyint", "smallint", "int", "varint", "decimal", "float",
		"double", "text", "blob", "uuid", "timeuuid",
		"inet", "timestamp", "date", "time", "duration", "list<uuid>", "set<int>",
		"map<text, decimal>", "map<int, list<text>>",
		"tuple<int, text>", "udt<a:int, b:list<udt<c:double>>>", "vector<float, 3>", "decimal", "varint"} {
		typ, err := record.ParseType(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		fields = append(fields, record.Field{Name: fmt.Sprintf("f%d", i), Type: typ})
	}
	return record.MustSchema(fields, "f0")
}

// What the sink writes the source reads as it was, without being told the types.
func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	schema := allTypes(t)
	var records []*record.Record
	for i := range 500 {
		r := iotest.Record(schema, i, iotest.Base+int64(i))
		for j := range r.Values {
			switch {
			case j > 0 && i%10 == 1:
				r.Values[j] = record.NullValue
			case j > 0 && i%10 == 2:
				r.Values[j] = record.Value{}
			case i%10 == 3 && (schema.Fields[j].Type.Kind == record.List || schema.Fields[j].Type.Kind == record.Map ||
				schema.Fields[j].Type.Kind == record.Set):
				r.Values[j] = record.Nested(schema.Fields[j].Type.Kind, nil)
			}
		}
		records = append(records, r)
	}
	rest := SinkConfig{Table: services.Name(t) + ".assets", Create: true,
		Catalog: CatalogConfig{REST: "http://" + services.Need(t, services.IcebergREST)}}
	for _, c := range []SinkConfig{local(t), rest} {
		c.Columns = map[string]string{"f25": "decimal(20,2)", "f26": "decimal(38,0)"}
		put(t, newSink(t, c), records...)
		s := newSource(t, source(c))
		got, dead := read(t, s, connector.PlanOptions{})
		if len(dead) > 0 {
			t.Errorf("%d dead letters, such as %+v", len(dead), dead[0])
		}
		if found, err := s.Schema(t.Context()); err != nil || !found.Same(schema) {
			t.Errorf("the schema is %v: %v", found, err)
		}
		same(t, got, records)
	}
}

// Dead letters come back from a table as they were.
func TestDeadLettersAreRead(t *testing.T) {
	t.Parallel()
	schema := iotest.AssetSchema()
	var letters []*record.DeadLetter
	var records []*record.Record
	for i := range 100 {
		l := &record.DeadLetter{Run: "r", Step: "sink search", Sink: "search", Class: "permanent", Code: "x.y",
			Message: fmt.Sprintf("no %d \" ü", i), Attempts: i, Split: "s(..00]", At: 1e12 + int64(i)}
		switch i % 3 {
		case 0:
			l.Record = iotest.Record(schema, i, iotest.Base)
		case 1:
			l.Record = iotest.Deletion(schema, i, iotest.Base)
		case 2:
			l.Raw = []byte{0, 0xff, byte(i)}
		}
		letters, records = append(letters, l), append(records, deadletter.ToRecord(l))
	}
	c := local(t)
	put(t, newSink(t, c), records...)
	s := newSource(t, source(c))
	got, dead := read(t, s, connector.PlanOptions{})
	if len(dead) > 0 || len(got) != len(letters) {
		t.Fatalf("%d letters, want %d; %d of them dead again", len(got), len(letters), len(dead))
	}
	if found, err := s.Schema(t.Context()); err != nil || !found.Same(deadletter.Schema()) {
		t.Errorf("the schema is %v: %v", found, err)
	}
	for _, r := range got {
		l, err := deadletter.FromRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := letters[l.At-1e12]; !iotest.SameLetter(l, want) {
			t.Fatalf("%+v became %+v", want, l)
		}
	}
}

// deleteRows deletes rows by iceberg-go alone: by new data files, or by files that name their positions or their ids.
func deleteRows(t testing.TB, from *table.Table, kind string, ids []int64) {
	t.Helper()
	tx := from.NewTransaction()
	var err error
	switch kind {
	case "equality":
		column, _ := from.Schema().FindFieldByName("id")
		b := array.NewRecordBuilder(memory.DefaultAllocator,
			arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil))
		b.Field(0).(*array.Int64Builder).AppendValues(ids, nil)
		err = tx.CommitEqualityDeletes(t.Context(), []int{column.ID},
			func(yield func(arrow.RecordBatch, error) bool) { yield(b.NewRecordBatch(), nil) }, nil)
	case "position":
		err = tx.SetProperties(iceberg.Properties{table.WriteDeleteModeKey: table.WriteModeMergeOnRead})
		fallthrough
	default:
		err = errors.Join(err, tx.Delete(t.Context(), iceberg.IsIn(iceberg.Reference("id"), ids...), nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Rows that the snapshot has deleted are not read, whichever way they were deleted, and neither are they by row groups.
func TestDeletedRows(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"copy", "position", "equality"} {
		t.Run(kind, func(t *testing.T) {
			c := local(t)
			c.RowGroup, c.FileSize = 1<<20, 64<<20
			records := manyGroups(t, c)
			sink := newSink(t, c)
			gone := func(id int64) bool { return id%7 == 3 || (id >= 1000 && id < 1600) }
			var ids []int64
			var want []*record.Record
			for _, r := range records {
				if id := r.Values[0].Int(); gone(id) {
					ids = append(ids, id)
				} else {
					want = append(want, r)
				}
			}
			deleteRows(t, current(t, sink), kind, ids)
			summary := current(t, sink).CurrentSnapshot().Summary.Properties
			if n := summary["total-"+kind+"-deletes"]; kind != "copy" && n != fmt.Sprint(len(ids)) {
				t.Fatalf("the table has %s deletes, want %d: %v", n, len(ids), summary)
			}
			s := newSource(t, source(c))
			for _, o := range []connector.PlanOptions{{}, {Rows: 1}} {
				got, dead := read(t, s, o)
				if len(dead) > 0 {
					t.Fatal(dead[0])
				}
				same(t, got, want)
			}
			if t.Failed() {
				return
			}
			wanted := map[string]string{}
			for _, r := range want {
				wanted[r.KeyText()] = iotest.JSON(r)
			}
			iotest.TestSource(t, iotest.Source{Want: wanted,
				New: func(*testing.T) connector.Source { return NewSource(source(c), connector.Need{PageRows: 90}) }})
		})
	}
}

// Another snapshot than the current one is read by its id, a time or a name; a run goes on
// with the one that was planned.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	c := local(t)
	schema := simpleSchema()
	sink := newSink(t, c)
	s := newSource(t, source(c))
	put(t, sink, simple(schema, "a", 1, "x"))
	first := current(t, sink).CurrentSnapshot()
	if _, _, err := sink.catalog.CommitTable(t.Context(), sink.ident, nil,
		[]table.Update{table.NewSetSnapshotRefUpdate("before", first.SnapshotID, table.TagRef, 0, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	var planned []connector.Split
	if err := s.Plan(t.Context(), connector.PlanOptions{},
		func(split connector.Split) error { planned = append(planned, split); return nil }); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond) // snapshots are told apart by milliseconds
	put(t, sink, simple(schema, "b", 2, "y"))

	at := time.UnixMilli(first.TimestampMs)
	for _, snapshot := range []*SnapshotConfig{{ID: first.SnapshotID}, {Time: &connector.Time{Time: at}},
		{Ref: "before"}, nil, {Ref: "main"}} {
		c := source(c)
		c.Snapshot = snapshot
		want := []string{"1"}
		if snapshot == nil || snapshot.Ref == "main" {
			want = []string{"1", "2"}
		}
		got, _ := read(t, newSource(t, c), connector.PlanOptions{})
		if d := cmp.Diff(want, keysOf(got)); d != "" {
			t.Errorf("%+v: %s", snapshot, d)
		}
	}
	// Here, in a process that has looked before, and in one that looks now.
	for _, s := range []*Source{s, newSource(t, source(c))} {
		var got []*record.Record
		for _, split := range planned {
			if err := s.Read(t.Context(), split,
				func(p connector.Page) error { got = append(got, p.Records...); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff([]string{"1"}, keysOf(got)); d != "" {
			t.Error(d)
		}
	}
	none := source(c)
	long := at.AddDate(-1, 0, 0)
	for _, none.Snapshot = range []*SnapshotConfig{{ID: 7}, {Time: &connector.Time{Time: long}}, {Ref: "none"}} {
		_, err := newSource(t, none).Schema(t.Context())
		wantError(t, err, "iceberg.no_snapshot", "check snapshot")
	}

	// What is read later than it is kept.
	split := planned[0]
	_, file, _ := strings.Cut(split.Partition, "/")
	split.Partition = "7/" + file
	wantError(t, newSource(t, source(c)).Read(t.Context(), split, nil), "iceberg.expired", "keep snapshots")
	if err := os.Remove(filepath.Join(current(t, sink).Location(), file)); err != nil {
		t.Fatal(err)
	}
	wantError(t, newSource(t, source(c)).Read(t.Context(), planned[0], nil), "iceberg.expired", file)
}

// A table that grew: columns that are new, renamed or wider are read as the table has them now.
func TestEvolvedTable(t *testing.T) {
	t.Parallel()
	c := local(t)
	schema := simpleSchema()
	sink := newSink(t, c)
	put(t, sink, simple(schema, "a", 1, "x"))
	tx := current(t, sink).NewTransaction()
	update := tx.UpdateSchema(true, false)
	update.RenameColumn([]string{"title"}, "name")
	update.UpdateColumn([]string{"id"},
		table.ColumnUpdate{FieldType: iceberg.Optional[iceberg.Type]{Valid: true, Val: longType}})
	update.AddColumn([]string{"more"}, stringType, "", false, nil)
	if err := update.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, dead := read(t, newSource(t, source(c)), connector.PlanOptions{})
	if len(dead) > 0 || len(got) != 1 {
		t.Fatalf("%d records, %+v", len(got), dead)
	}
	if text := iotest.JSON(got[0]); text != `{"kind":"a","id":1,"name":"x"}` {
		t.Errorf("read as %s", text)
	}
}

// Tables of others: types that the sink does not write, keys and versions by the settings, rows that are no records.
func TestTablesOfOthers(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.Create = false
	makeTable(t, c, iceberg.NewSchema(0, field(1, "id", intType, false),
		field(2, "at", iceberg.PrimitiveTypes.Timestamp, false),
		field(3, "day", iceberg.PrimitiveTypes.Date, false), field(4, "clock", iceberg.PrimitiveTypes.Time, false),
		field(5, "who", iceberg.PrimitiveTypes.UUID, false),
		field(6, "hash", iceberg.FixedTypeOf(2), false), field(7, "price", iceberg.DecimalTypeOf(10, 2), false)))
	appendJSON(t, current(t, newSink(t, c)), `[
		{"id": 1, "at": "2024-01-02T03:04:05.678", "day": "2024-01-02", "clock": "03:04:05.000006", "who": "f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "hash": "AQI=", "price": "12.50"},
		{"id": 2, "at": "2024-01-02T03:04:05.678901"},
		{"id": null, "at": "2024-01-02T03:04:05"},
		{"id": 4}]`)
	s := source(c)
	_, err := newSource(t, s).Schema(t.Context())
	wantError(t, err, "iceberg.no_key", "name the fields")
	s.Key, s.Version = []string{"id"}, "at"
	got, dead := read(t, newSource(t, s), connector.PlanOptions{})
	if len(got) != 1 || len(dead) != 3 {
		t.Fatalf("%d records and %d dead letters", len(got), len(dead))
	}
	want := `{"id":1,"at":"2024-01-02T03:04:05.678Z","day":"2024-01-02","clock":"03:04:05.000006000","who":"f81d4fae-7dec-41d0-a765-00a0c91e6bf6","hash":"AQI=","price":"12.50"}`
	if text := iotest.JSON(got[0]); text != want || got[0].Version != 1704164645678000 {
		t.Errorf("%s of version %d, want %s", text, got[0].Version, want)
	}
	for i, code := range []string{"iceberg.wrong_type", "iceberg.no_key", "iceberg.no_version"} {
		if l := dead[i]; l.Code != code || !bytes.HasPrefix(l.Raw, []byte("{")) ||
			!strings.HasPrefix(l.Message, "a row of ") {
			t.Errorf("%+v, want %s", l, code)
		}
	}
	if !strings.Contains(dead[0].Message, "cut_timestamps") {
		t.Errorf("%q does not say what to do", dead[0].Message)
	}
	s.CutTimestamps = true // but never the version
	if got, dead = read(t, newSource(t, s), connector.PlanOptions{}); len(got) != 1 || len(dead) != 3 {
		t.Errorf("%d records and %d dead letters", len(got), len(dead))
	}
	s.Version = ""
	if got, dead = read(t, newSource(t, s), connector.PlanOptions{}); len(got) != 3 || len(dead) != 1 ||
		!strings.Contains(iotest.JSON(got[1]), `"at":"2024-01-02T03:04:05.678Z"`) {
		t.Errorf("%d records and %d dead letters", len(got), len(dead))
	}
	s.Fields = connector.Fields{{Name: "id", Type: record.Of(record.Int)}, {Name: "at", Type: record.Of(record.BigInt)}}
	_, err = newSource(t, s).Schema(t.Context())
	wantError(t, err, "iceberg.unknown_column", "day")
	s.IgnoreUnknown = true
	got, dead = read(t, newSource(t, s), connector.PlanOptions{})
	if len(got) != 3 || len(dead) != 1 || iotest.JSON(got[1]) != `{"id":2,"at":1704164645678901}` ||
		time.Since(got[1].VersionTime()).Abs() > time.Hour {
		t.Errorf("%d records, such as %s of %s, %d dead letters", len(got), iotest.JSON(got[1]),
			got[1].VersionTime(), len(dead))
	}
	s.Fields = append(s.Fields, record.Field{Name: "none", Type: record.Of(record.Int)})
	_, err = newSource(t, s).Schema(t.Context())
	wantError(t, err, "iceberg.no_column", "none", "there are id, at, day")
	s.Fields, s.IgnoreUnknown, s.Version = nil, false, "price"
	_, err = newSource(t, s).Schema(t.Context())
	wantError(t, err, "iceberg.version")
	s.Key = []string{"none"}
	_, err = newSource(t, s).Schema(t.Context())
	wantError(t, err, "iceberg.fields", "there are id, at")
}

// appendJSON appends rows to a table by iceberg-go alone.
func appendJSON(t testing.TB, to *table.Table, rows string) {
	t.Helper()
	schema, err := table.SchemaToArrowSchema(to.Schema(), nil, false, false)
	if err != nil {
		t.Fatal(err)
	}
	batch, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := array.NewRecordReader(schema, []arrow.RecordBatch{batch})
	if err != nil {
		t.Fatal(err)
	}
	tx := to.NewTransaction()
	if err := tx.Append(t.Context(), reader, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSourceErrors(t *testing.T) {
	t.Parallel()
	c := local(t)
	s := newSource(t, source(c))
	_, err := s.Schema(t.Context())
	wantError(t, err, "iceberg.no_catalog")
	makeTable(t, c, iceberg.NewSchemaWithIdentifiers(0, []int{1}, field(1, "id", intType, true)))
	if got, dead := read(t, s, connector.PlanOptions{}); len(got)+len(dead) > 0 {
		t.Errorf("%d records of an empty table", len(got))
	}
	other := source(c)
	other.Table = "media.none"
	_, err = newSource(t, other).Schema(t.Context())
	wantError(t, err, "iceberg.no_table")
	for _, partition := range []string{"x/y", "5/none", ""} {
		if err := s.Read(t.Context(), connector.Split{Partition: partition}, nil); fail.ClassOf(err) != fail.Fatal {
			t.Errorf("%q: %v", partition, err)
		}
	}
	unreachable := SourceConfig{Table: "a.b", Catalog: CatalogConfig{REST: "http://127.0.0.1:1"}}
	down := newSource(t, unreachable)
	down.retry.Deadline = 0
	_, err = down.Schema(t.Context())
	wantError(t, err, "iceberg.unreachable")
	if fail.ExitOf(err) != fail.ExitUnreachable {
		t.Error(fail.ExitOf(err))
	}
}

// Each request passes the gate, and the records are told once.
func TestSourceGate(t *testing.T) {
	t.Parallel()
	c := local(t)
	schema := iotest.AssetSchema()
	put(t, newSink(t, c), iotest.Records(schema, 0, 2000, iotest.Base)...)
	gate := iotest.NewGate()
	ctx := connector.WithGate(t.Context(), gate)
	s := newSource(t, source(c))
	if err := s.Plan(ctx, connector.PlanOptions{}, func(split connector.Split) error {
		return s.Read(ctx, split, func(connector.Page) error { return nil })
	}); err != nil {
		t.Fatal(err)
	}
	if p := gate.Passed(); p.Records != 2000 || p.Bytes < 2000*50 || p.Entered < 6 || p.Left != p.Entered ||
		p.Twice > 0 || len(p.Errors) > 0 {
		t.Errorf("the gate saw %+v", p)
	}
	gate.Shut()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := newSource(t, source(c)).Schema(ctx); err == nil {
		t.Error("the table was read through a shut gate")
	}
}

// flaky are files of which every so many reads one fails.
type flaky struct {
	iceio.IO
	reads atomic.Int64
	every int64
}

type flakyFile struct {
	iceio.File
	from *flaky
}

func (f *flaky) Open(name string) (iceio.File, error) {
	file, err := f.IO.Open(name)
	return flakyFile{file, f}, err
}

func (f flakyFile) ReadAt(b []byte, at int64) (int, error) {
	if f.from.reads.Add(1)%f.from.every == 0 {
		return 0, errors.New("connection reset by peer")
	}
	return f.File.ReadAt(b, at)
}

// A read that fails is taken up where it was: nothing is lost, nothing comes twice.
func TestReadFailures(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.RowGroup, c.FileSize = 1<<20, 64<<20
	records := manyGroups(t, c)
	s := newSource(t, source(c))
	s.need.PageRows = 100
	id, err := s.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from, err := s.snapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	files, err := from.table.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broken := &flaky{IO: files, every: 11}
	from.table = table.New(from.table.Identifier(), from.table.Metadata(), from.table.MetadataLocation(),
		func(context.Context) (iceio.IO, error) { return broken, nil }, nil)
	gate := iotest.NewGate()
	ctx := connector.WithGate(t.Context(), gate)
	var got []*record.Record
	if err := s.Plan(ctx, connector.PlanOptions{Bytes: 4 << 20}, func(split connector.Split) error {
		return s.Read(ctx, split, func(p connector.Page) error { got = append(got, p.Records...); return nil })
	}); err != nil {
		t.Fatal(err)
	}
	same(t, got, records)
	if p := gate.Passed(); len(p.Errors) == 0 || p.Records != int64(len(records)) {
		t.Errorf("%d of %d reads failed, the gate saw %+v", len(p.Errors), broken.reads.Load(), p)
	}
}

func TestSourceConfig(t *testing.T) {
	now := time.Now()
	good := CatalogConfig{SQLite: "c.db"}
	for _, c := range []struct {
		config SourceConfig
		want   []string
	}{
		{SourceConfig{Catalog: good, Table: "a.b"}, nil},
		{SourceConfig{Catalog: good, Table: "a.b", Key: []string{"id"},
			Snapshot: &SnapshotConfig{Time: &connector.Time{Time: now}}}, nil},
		{SourceConfig{Table: "b", Snapshot: &SnapshotConfig{}, IgnoreUnknown: true, S3: &S3Config{AccessKey: "env:A"}},
			[]string{"catalog", "table", "s3", "snapshot", "ignore_unknown"}},
		{SourceConfig{Catalog: good, Table: "a.b", Snapshot: &SnapshotConfig{ID: 1, Ref: "x"},
			Key: []string{"x"}, Version: "v",
			Fields: connector.Fields{{Name: "id", Type: record.Of(record.Int)}}},
			[]string{"snapshot", "key[0]", "version"}},
	} {
		var got []string
		for _, f := range c.config.Validate() {
			got = append(got, f.Path)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%+v: %s", c.config, d)
		}
	}
}

// No value at the edge of its kind comes back as another one.
func TestEdges(t *testing.T) {
	t.Parallel()
	c := local(t)
	iotest.TestEdges(t, newSink(t, c), func() connector.Source { return newSource(t, source(c)) })
}
