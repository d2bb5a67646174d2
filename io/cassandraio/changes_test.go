package cassandraio

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const repairedTable = `CREATE TABLE %s (p text, c int, d text, title text, norm text, n bigint, tags set<text>, attrs map<text, text>, place tuple<int, text>,
	PRIMARY KEY (p, c, d))`

// repair is a table, a source that reads it and a sink that writes changes back.
type repair struct {
	*database
	source *Source
	sink   *Sink
}

func newRepair(t *testing.T, create string) *repair {
	t.Helper()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	r := &repair{database: db, sink: db.sink(t, create, func(c *SinkConfig) { c.Write = writeChanges })}
	r.source = NewSource(SourceConfig{Connection: Connection{Hosts: []string{db.addr}}, Keyspace: db.keyspace,
		Table: db.table}, connector.Need{Cells: true})
	t.Cleanup(func() { r.source.Close() })
	schema, err := r.source.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.sink.Prepare(t.Context(), connector.Run{}, schema, false); err != nil {
		t.Fatal(err)
	}
	return r
}

// read gives the rows of the table in order.
func (r *repair) read(t *testing.T) (all []*record.Record) {
	t.Helper()
	err := r.source.Plan(t.Context(), connector.PlanOptions{}, func(s connector.Split) error {
		return r.source.Read(t.Context(), s, func(p connector.Page) error {
			all = append(all, p.Records...)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b *record.Record) int { return strings.Compare(a.KeyText(), b.KeyText()) })
	return all
}

// set gives a record a value as the transforms do: with the write time and expiry of the record.
func set(r *record.Record, field string, v record.Value) {
	f := r.Schema.Index(field)
	r.Values[f] = v
	r.Cells[f] = record.Cell{Version: r.Version, Expires: r.Expires}
}

// outcomes are those of results, with the codes of dead letters.
func outcomes(results []connector.Result) (all []string) {
	for _, res := range results {
		text := res.Outcome.String()
		if res.Err != nil {
			text += " " + fail.CodeOf(res.Err)
		}
		all = append(all, text)
	}
	return all
}

func (r *repair) settles(t *testing.T, records []*record.Record, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, outcomes(put(t, r.sink, records...))); diff != "" {
		t.Fatalf("outcomes (-want +got):\n%s", diff)
	}
}

// Only what differs is written, a microsecond after what was there, with its expiry; and nothing the second time.
func TestChanges(t *testing.T) {
	t.Parallel()
	r := newRepair(t, repairedTable)
	for _, cql := range []string{
		"INSERT INTO %s (p, c, d, title, n, tags, attrs, place) VALUES ('a', 1, 'x', 'One', 1, {'b', 'a'}, {'k': " +
			"'v'}, (1, 'y')) USING TIMESTAMP 1000",
		"UPDATE %s USING TIMESTAMP 1500 AND TTL 5000 SET title = 'ONE' WHERE p = 'a' AND c = 1 AND d = 'x'",
		"INSERT INTO %s (p, c, d, title, norm, n, tags) VALUES ('a', 1, 'y', 'Two', null, 2, {'c'}) USING " +
			"TIMESTAMP 1000",
		"INSERT INTO %s (p, c, d, title, norm) VALUES ('b', 1, 'x', 'three', 'three') USING TIMESTAMP 1000",
		"INSERT INTO %s (p, c, d) VALUES ('b', 2, 'x') USING TIMESTAMP 1000",
	} {
		r.exec(t, cql)
	}
	mended := func() []*record.Record {
		rows := r.read(t)
		for _, row := range rows {
			if title := row.Get("title"); !title.IsNull() {
				set(row, "norm", record.String(strings.ToLower(title.Str())))
				set(row, "title", record.String(strings.ToLower(title.Str())))
			}
			if n := row.Get("n"); n.Kind() == record.BigInt && n.Int() == 1 {
				set(row, "tags", textsOf(record.Set, "z"))
				set(row, "attrs", record.NullValue)
				set(row, "place", record.Nested(record.Tuple, []record.Value{record.Number(record.Int, 2)}))
			}
		}
		return rows
	}
	r.settles(t, mended(), "written", "written", "unchanged", "unchanged")
	r.want(t, `{"p": "a", "c": 1, "d": "x", "attrs": null, "n": 1, "norm": "one", "place": [2, null], "tags": ["z"], "title": "one"}`,
		`{"p": "a", "c": 1, "d": "y", "attrs": null, "n": 2, "norm": "two", "place": null, "tags": ["c"], "title": "two"}`,
		`{"p": "b", "c": 1, "d": "x", "attrs": null, "n": null, "norm": "three", "place": null, "tags": null, "title": "three"}`,
		`{"p": "b", "c": 2, "d": "x", "attrs": null, "n": null, "norm": null, "place": null, "tags": null, "title": null}`)
	var title, norm, n, tags, place int64
	var ttl, normTTL, nTTL *int64
	r.scan(t, "SELECT WRITETIME(title), TTL(title), WRITETIME(norm), TTL(norm), WRITETIME(n), TTL(n), "+
		"MAXWRITETIME(tags), WRITETIME(place) FROM %s WHERE p = 'a' AND c = 1 AND d = 'x'",
		&title, &ttl, &norm, &normTTL, &n, &nTTL, &tags, &place)
	if got, want := []int64{title, norm, n, tags, place},
		[]int64{1501, 1501, 1000, 1001, 1001}; !slices.Equal(got, want) {
		t.Errorf("write times %v, want %v", got, want)
	}
	if ttl == nil || *ttl < 4000 || *ttl > 5000 || normTTL != nil || nTTL != nil {
		t.Errorf("title lives for %v, norm for %v, n for %v", ttl, normTTL, nTTL)
	}
	r.settles(t, mended(), "unchanged", "unchanged", "unchanged", "unchanged")
}

// What the live system does between read and write stays.
func TestChangesBesideLiveWrites(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, live, outcome, row string
	}{
		{"update of the same column",
			"UPDATE %s USING TIMESTAMP 2000 SET norm = 'live' WHERE p = 'a' AND c = 1 AND d = 'x'", "superseded",
			`{"p": "a", "c": 1, "d": "x", "attrs": null, "n": 1, "norm": "live", "place": null, "tags": null, "title": "One"}`},
		{"update of another column",
			"UPDATE %s USING TIMESTAMP 2000 SET title = 'Live' WHERE p = 'a' AND c = 1 AND d = 'x'",
			"dead cassandra.row_changed",
			`{"p": "a", "c": 1, "d": "x", "attrs": null, "n": 1, "norm": "old", "place": null, "tags": null, "title": "Live"}`},
		{"update to the value that the repair has",
			"UPDATE %s USING TIMESTAMP 2000 SET norm = 'one' WHERE p = 'a' AND c = 1 AND d = 'x'", "unchanged",
			`{"p": "a", "c": 1, "d": "x", "attrs": null, "n": 1, "norm": "one", "place": null, "tags": null, "title": "One"}`},
		{"element added to a collection",
			"UPDATE %s USING TIMESTAMP 2000 SET tags = tags + {'live'} WHERE p = 'a' AND c = 1 AND d = 'x'",
			"dead cassandra.row_changed",
			`{"p": "a", "c": 1, "d": "x", "attrs": null, "n": 1, "norm": "old", "place": null, "tags": ["live"], "title": "One"}`},
		{"delete of the row", "DELETE FROM %s USING TIMESTAMP 2000 WHERE p = 'a' AND c = 1 AND d = 'x'", "superseded",
			""},
		{"delete of the partition", "DELETE FROM %s USING TIMESTAMP 2000 WHERE p = 'a'", "superseded", ""},
		{"delete, and a new row of that key",
			"BEGIN BATCH DELETE FROM %s USING TIMESTAMP 2000 WHERE p = 'a' AND c = 1 AND d = 'x'; INSERT INTO %s (p, " +
				"c, d, n) VALUES ('a', 1, 'x', 9) USING TIMESTAMP 2001; APPLY BATCH",
			"dead cassandra.row_changed",
			`{"p": "a", "c": 1, "d": "x", "attrs": null, "n": 9, "norm": null, "place": null, "tags": null, "title": null}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRepair(t, repairedTable)
			r.exec(t, "INSERT INTO %s (p, c, d, title, norm, n) VALUES ('a', 1, 'x', 'One', 'old', 1) USING "+
				"TIMESTAMP 1000")
			rows := r.read(t)
			set(rows[0], "norm", record.String("one"))
			r.exec(t, test.live)
			r.settles(t, rows, test.outcome)
			if test.row == "" {
				r.want(t)
			} else {
				r.want(t, test.row)
			}
		})
	}
}

// A delete or an update that comes between the sink's own look and its write wins as well:
// the write is too early for it.
func TestChangesAreTooEarlyForLiveWrites(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, live, row string }{
		{"delete", "DELETE FROM %s USING TIMESTAMP 1001 WHERE p = 'a' AND c = 1 AND d = 'x'", ""},
		{"update", "UPDATE %s USING TIMESTAMP 1002 SET norm = 'live', tags = {'live'} WHERE p = 'a' AND c = 1 AND " +
			"d = 'x'",
			`{"p": "a", "c": 1, "d": "x", "attrs": null, "n": 5, "norm": "live", "place": null, "tags": ["live"], "title": "One"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRepair(t, repairedTable)
			r.exec(t, "INSERT INTO %s (p, c, d, title, norm, tags) VALUES ('a', 1, 'x', 'One', 'old', {'old'}) USING "+
				"TIMESTAMP 1000")
			rows := r.read(t)
			set(rows[0], "norm", record.String("one"))
			set(rows[0], "n", record.Number(record.BigInt, 5))
			set(rows[0], "tags", textsOf(record.Set, "one"))
			w, err := r.sink.writer(t.Context(), rows[0].Schema)
			if err != nil {
				t.Fatal(err)
			}
			b := w.binder()
			toCompare := []row{{index: 0}}
			current, err := w.current(t.Context(), b, rows, toCompare)
			if err != nil {
				t.Fatal(err)
			}
			statements, outcome, err := w.changes.compare(b, rows[0], current)
			if err != nil || outcome != record.Written {
				t.Fatalf("%s, %v", outcome, err)
			}
			r.exec(t, test.live)
			if err := w.execute(t.Context(), []row{{statements: statements}}); err != nil {
				t.Fatal(err)
			}
			if test.row == "" {
				r.want(t)
			} else {
				r.want(t, test.row)
			}
		})
	}
}

// Whole partitions are looked up by one request each, behind the gate that the batch has passed.
func TestChangesAreReadInBatches(t *testing.T) {
	t.Parallel()
	r := newRepair(t, "CREATE TABLE %s (p int, c int, v text, w text, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY "+
		"(c DESC)")
	const partitions, rows = 4, 250
	for p := range partitions {
		batch := r.session.NewBatch(0)
		for c := range rows {
			batch.Query(fmt.Sprintf("INSERT INTO %s.rows (p, c, v) VALUES (?, ?, ?) USING TIMESTAMP 1000", r.keyspace),
				p, c, fmt.Sprint(c))
		}
		if err := r.session.ExecuteBatch(batch); err != nil {
			t.Fatal(err)
		}
	}
	mended := r.read(t)
	for i, row := range mended {
		if i%2 == 0 {
			set(row, "w", row.Get("v"))
		}
	}
	gate := &counting{}
	count := map[record.Outcome]int{}
	for _, res := range putIn(t, connector.WithGate(t.Context(), gate), r.sink, mended...) {
		count[res.Outcome]++
	}
	if count[record.Written] != partitions*rows/2 || count[record.Unchanged] != partitions*rows/2 {
		t.Errorf("%v", count)
	}
	if gate.n.Load() != 2 { // to open, and to write
		t.Errorf("the gate was passed %d times", gate.n.Load())
	}
	for _, row := range r.read(t) {
		if w := row.Get("w"); !w.IsNull() && !w.Equal(row.Get("v")) {
			t.Errorf("%s: %v", row.KeyText(), w)
		}
	}
}

type counting struct{ n atomic.Int64 }

func (g *counting) Enter(context.Context, int, int64) (func(int, int64, error), error) {
	g.n.Add(1)
	return func(int, int64, error) {}, nil
}

// A table without clustering columns, deletes, records that are at fault, and cells without a known age.
func TestChangesOfOneRowPartitions(t *testing.T) {
	t.Parallel()
	r := newRepair(t, "CREATE TABLE %s (id text PRIMARY KEY, a text, b frozen<map<text, text>>)")
	for _, id := range []string{"1", "2", "3", "4"} {
		r.exec(t, "INSERT INTO %s (id, a, b) VALUES ('"+id+"', 'x', {'k': 'v', 'l': 'w'}) USING TIMESTAMP 1000")
	}
	rows := r.read(t)
	// The same map in another order.
	set(rows[0], "b", record.Nested(record.Map, []record.Value{record.String("l"), record.String("w"),
		record.String("k"), record.String("v")}))
	rows[1].Op, rows[1].Values[1], rows[1].Values[2] = record.Delete, record.Value{}, record.Value{}
	set(rows[2], "a", record.String("bad\xff"))
	rows[3].Values[1], rows[3].Cells[1] = record.NullValue, record.Cell{} // of an age that nobody knows
	missing, long := rows[0].Clone(), rows[0].Clone()
	missing.Values[0] = record.String("5")
	long.Values[0] = record.String(strings.Repeat("x", 70_000))
	null := rows[0].Clone()
	null.Values[0] = record.NullValue
	r.settles(t, append(rows, missing, long, null), "unchanged", "written", "dead cassandra.bad_value",
		"unchanged", "superseded",
		"dead cassandra.row_refused", "dead cassandra.key_null")
	var ids []string
	for _, row := range r.read(t) {
		ids = append(ids, row.KeyText())
	}
	if want := []string{"1", "3", "4"}; !slices.Equal(ids, want) {
		t.Errorf("rows %v, want %v", ids, want)
	}
}

// A cell that expires before it is written is not brought back.
func TestChangesDoNotProlong(t *testing.T) {
	t.Parallel()
	r := newRepair(t, "CREATE TABLE %s (id text PRIMARY KEY, a text, b text)")
	r.exec(t, "INSERT INTO %s (id, a) VALUES ('1', 'x') USING TIMESTAMP 1000 AND TTL 3000")
	rows := r.read(t)
	set(rows[0], "b", record.String("y"))
	r.settles(t, rows, "written")
	var ttl *int64
	r.scan(t, "SELECT TTL(b) FROM %s", &ttl)
	if ttl == nil || *ttl < 2000 || *ttl > 3000 {
		t.Errorf("a new column lives for %v", ttl)
	}
	rows = r.read(t)
	set(rows[0], "a", record.String("late"))
	w, err := r.sink.writer(t.Context(), rows[0].Schema)
	if err != nil {
		t.Fatal(err)
	}
	b := w.binder()
	current, err := w.current(t.Context(), b, rows, []row{{}})
	if err != nil {
		t.Fatal(err)
	}
	b.now = time.Now().Unix() + 4000
	if statements, outcome, err := w.changes.compare(b, rows[0], current); len(statements) > 0 ||
		outcome != record.Unchanged || err != nil {
		t.Errorf("%d statements, %s, %v", len(statements), outcome, err)
	}
}

func TestChangesRefused(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (p int, c int, s text static, v text, PRIMARY KEY (p, c))")
	s := NewSink(db.config(db.table, func(c *SinkConfig) { c.Write = writeChanges }))
	defer s.Close()
	schema := record.MustSchema([]record.Field{{Name: "p", Type: record.Of(record.Int)},
		{Name: "c", Type: record.Of(record.Int)}, {Name: "s", Type: record.Of(record.Text)}}, "p", "c")
	if err := s.Prepare(t.Context(), connector.Run{}, schema, true); err == nil ||
		!strings.Contains(err.Error(), `"s" is static`) {
		t.Errorf("a static column gives %v", err)
	}
	c := db.config("x", func(c *SinkConfig) {
		c.Write, c.Create, c.PartitionKey, c.Consistency = writeChanges, true, []string{"p"}, "ANY"
	})
	var paths []string
	for _, f := range c.Validate() {
		paths = append(paths, f.Path)
	}
	if want := []string{"create", "consistency"}; !slices.Equal(paths, want) {
		t.Errorf("faults at %v, want %v", paths, want)
	}
}

// Values are the same whatever the order of what has none; others are the same only if they are equal.
func TestSameValue(t *testing.T) {
	text := rapid.StringMatching("[ab]{0,2}")
	set := record.SetOf(record.Of(record.Text))
	nested := record.MapOf(record.Of(record.Text), set)
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfDistinct(text, rapid.ID).Draw(t, "parts")
		shuffled := rapid.Permutation(parts).Draw(t, "shuffled")
		of := func(parts []string) (record.Value, record.Value) {
			var pairs []record.Value
			for _, p := range parts {
				pairs = append(pairs, record.String(p), textsOf(record.Set, parts...))
			}
			return textsOf(record.Set, parts...), record.Nested(record.Map, pairs)
		}
		s1, m1 := of(parts)
		s2, m2 := of(shuffled)
		for _, c := range []struct {
			t    record.Type
			v, w record.Value
			want bool
		}{
			{set, s1, s2, true}, {nested, m1, m2, true},
			{record.ListOf(record.Of(record.Text)), textsOf(record.List, parts...), textsOf(record.List, shuffled...),
				slices.Equal(parts, shuffled)},
			{set, s1, textsOf(record.Set, append(parts, "c")...), false},
			{set, s1, record.NullValue, len(parts) == 0},
		} {
			if got, err := sameValue(c.t, c.v, c.w); got != c.want || err != nil {
				t.Errorf("%s: %s and %s: %t, %v", c.t, c.v.Text(c.t), c.w.Text(c.t), got, err)
			}
		}
	})
	empty := textsOf(record.Set)
	frozen := set
	frozen.Frozen = true
	for _, c := range []struct {
		t    record.Type
		v, w record.Value
		want bool
	}{
		{set, empty, record.NullValue, true},
		{frozen, empty, record.NullValue, false},
		{record.Of(record.BigInt), record.Number(record.Int, 7), record.Number(record.BigInt, 7), true},
		{record.Of(record.Text), record.String(""), record.NullValue, false},
		{record.TupleOf(record.Of(record.Int), record.Of(record.Int)),
			record.Nested(record.Tuple, []record.Value{record.Number(record.Int, 1)}),
			record.Nested(record.Tuple, []record.Value{record.Number(record.Int, 1), record.NullValue}), true},
	} {
		if got, err := sameValue(c.t, c.v, c.w); got != c.want || err != nil {
			t.Errorf("%s: %t, %v, want %t", c.t, got, err, c.want)
		}
	}
}
