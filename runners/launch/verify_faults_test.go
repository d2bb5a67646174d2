package launch_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/pipelines/verify"
	"reprise/pipelines/verify/compare"
	"reprise/runners/services"
	"reprise/transforms/record"
)

var faultSeed = flag.Uint64("fault-seed", 0, "of the records and faults of TestVerifyFaults; 0: another one each time")

// faultJob copies records of a file into a target of each kind.
const faultJob = `
name: %[1]s
source: {files: {path: "%[2]s/%[1]s.jsonl", key: [part, id], fields: %[3]s}}
sinks:
  cassandra: {cassandra: {connection: {hosts: ["%[4]s"]}, keyspace: %[5]s, table: records, create: true, partition_key: [part], clustering: [id]}}
  elasticsearch: {elasticsearch: {urls: ["http://%[6]s"], index: %[5]s%[8]s}}
  opensearch: {elasticsearch: {urls: ["http://%[9]s"], index: %[5]s%[8]s}}
  iceberg: {iceberg: {catalog: {sqlite: "%[2]s/catalog.db", warehouse: "%[2]s/warehouse"}, table: media.records, create: true, mode: upsert}}
  kafka: {kafka: {brokers: ["%[7]s"], topic: %[5]s, create: {partitions: 2}}}
  keys: {kafka: {brokers: ["%[7]s"], topic: %[5]s_keys, create: {partitions: 2}, value: key, processor: "{part}"}}
  bare: {kafka: {brokers: ["%[7]s"], topic: %[5]s_bare, create: {partitions: 2}, value: none}}
  jsonl: {files: {path: "%[2]s/jsonl", meta: true}}
  parquet: {files: {path: "%[2]s/parquet", format: parquet, meta: true}}
dead_letters: {files: {path: "%[2]s/dead"}}
journal: {sqlite: "%[2]s/journal.db"}
verify: {settle: 50ms, examples: 1000}
`

// faultKinds are what copies of a job may be wrong in; doubles need another writer.
var faultKinds = slices.DeleteFunc(slices.Clone(compare.Kinds),
	func(k compare.Kind) bool { return k == compare.Double })

// faults are random records, and what is wrong with them.
type faults struct {
	*rand.Rand
	schema *record.Schema
}

// faultSchema has a field of every type.
func faultSchema() *record.Schema {
	fields := []record.Field{{Name: "part", Type: record.Of(record.Text)}, {Name: "id",
		Type: record.Of(record.TimeUUID)}}
	for _, cql := range []string{"text", "blob", "boolean", "tinyint", "smallint", "int", "bigint", "varint", "decimal",
		"float", "double", "uuid", "timeuuid", "inet", "timestamp", "date",
		"time", "duration", "list<int>", "set<text>", "set<decimal>", "map<text, bigint>",
		"frozen<tuple<int, text, timestamp>>", "vector<float, 3>"} {
		typ, err := record.ParseType(cql, nil)
		if err != nil {
			panic(err)
		}
		fields = append(fields, record.Field{Name: fmt.Sprintf("f%d_%s", len(fields), typ.Kind), Type: typ})
	}
	return record.MustSchema(fields, "part", "id")
}

// record is the n-th record, some of its values null or empty.
func (f faults) record(n int, version int64) *record.Record {
	r := iotest.Record(f.schema, n, version)
	r.Values[0] = record.String(fmt.Sprint("p", n%7))
	for i := 2; i < len(r.Values); i++ {
		switch t := f.schema.Fields[i].Type; {
		case f.IntN(8) == 0:
			r.Values[i] = record.NullValue
		case f.IntN(8) == 0 && (t.Kind == record.List || t.Kind == record.Set || t.Kind == record.Map):
			r.Values[i] = record.Nested(t.Kind, nil)
		default:
			r.Values[i] = iotest.Value(t, f.Uint64())
		}
	}
	return r
}

// altered is the record with one other value, at a version.
func (f faults) altered(r *record.Record, version int64) *record.Record {
	r = r.Clone()
	r.Version = version
	i := 2 + f.IntN(len(r.Values)-2)
	t := f.schema.Fields[i].Type
	was := r.Values[i]
	if empty := was.IsNull() || t.Kind.Nested() && len(was.Elems()) == 0; !empty && f.IntN(4) == 0 {
		r.Values[i] = record.NullValue
		return r
	}
	for string(r.Values[i].AppendJSON(nil, t)) == string(was.AppendJSON(nil, t)) {
		r.Values[i] = iotest.Value(t, f.Uint64())
	}
	return r
}

func (f faults) file(t *testing.T, dir, name string, records []*record.Record) {
	t.Helper()
	var text bytes.Buffer
	for _, r := range records {
		line := r.AppendJSON(nil)
		op := "upsert"
		if r.Op == record.Delete {
			op = "delete"
		}
		fmt.Fprintf(&text, "%s, \"_meta\": {\"version\": %d, \"op\": %q}}\n", bytes.TrimSuffix(line, []byte("}")),
			r.Version, op)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".jsonl"), text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Random records of all types, written to a target of each kind, verify clean; of random faults, some put into the
// targets by another run, some made by changing the source, verify finds exactly those.
func TestVerifyFaults(t *testing.T) {
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: -fault-seed %d", seed)
	f := faults{rand.New(rand.NewPCG(seed, 0)), faultSchema()}
	const rows, version = 500, iotest.Base
	var copied, source, feed []*record.Record
	want := map[string]compare.Kind{}
	for n := range rows {
		r := f.record(n, version)
		kinds := append(slices.Clone(faultKinds), make([]compare.Kind, 20)...)
		kind, fed := kinds[f.IntN(len(kinds))], f.IntN(2) == 0
		if kind != "" {
			want[r.KeyText()] = kind
		}
		switch {
		case kind == compare.Missing && fed:
			gone := r.Clone()
			gone.Op, gone.Version = record.Delete, version+1_000_000
			for i := 2; i < len(gone.Values); i++ {
				gone.Values[i] = record.Value{}
			}
			copied, source, feed = append(copied, r), append(source, r), append(feed, gone)
		case kind == compare.Missing:
			source = append(source, r)
		case kind == compare.Extra && fed:
			feed = append(feed, r)
		case kind == compare.Extra:
			copied = append(copied, r)
		case kind == compare.Newer:
			copied, source, feed = append(copied, r), append(source, r), append(feed, f.altered(r, version+1_000_000))
		case kind == compare.Stale:
			copied, source = append(copied, r), append(source, f.altered(r, version+1_000_000))
		case kind == compare.Different:
			copied, source = append(copied, r), append(source, f.altered(r, version))
		case fed: // written again
			copied, source, feed = append(copied, r), append(source, r), append(feed, r)
		default:
			copied, source = append(copied, r), append(source, r)
		}
	}
	dir, name := t.TempDir(), services.Name(t)
	cassandra, search, kafka := services.Need(t, services.Cassandra), services.Need(t, services.Elasticsearch),
		services.Need(t, services.Kafka)
	if err := cassandraio.Execute(t.Context(), cassandraio.Connection{Hosts: []string{cassandra}},
		cassandraio.Statement{
			CQL: "CREATE KEYSPACE " + name +
				" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"}); err != nil {
		t.Fatal(err)
	}
	fields, err := json.Marshal(connector.Fields(f.schema.Fields))
	if err != nil {
		t.Fatal(err)
	}
	text := func(job, create string) string {
		return fmt.Sprintf(faultJob, job, dir, fields, cassandra, name, search, kafka, create, services.Need(t,
			services.OpenSearch))
	}
	run := func(job, create string) {
		t.Helper()
		if _, report, err := execute(t, text(job, create), nil); err != nil || len(report.Faults) > 0 ||
			report.DeadLetters > 0 {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	f.file(t, dir, "copy", copied)
	run("copy", ", create: {}")
	expect := func(want map[string]compare.Kind) {
		t.Helper()
		r := checked(t, text("copy", ""), verify.Options{})
		for _, sink := range slices.Sorted(maps.Keys(r.Sinks)) {
			s := r.Sinks[sink]
			got, differ := map[string]compare.Kind{}, map[string][]compare.Difference{}
			for _, e := range s.Examples {
				got[e.Key], differ[e.Key] = e.Kind, e.Fields
			}
			want := want
			if sink == "keys" || sink == "bare" { // their messages tell keys and versions alone
				want = maps.Clone(want)
				maps.DeleteFunc(want, func(_ string, kind compare.Kind) bool {
					return kind == compare.Different || kind == compare.Newer
				})
			}
			if diff := cmp.Diff(want, got); diff != "" || s.InFlight+s.Unsettled > 0 {
				t.Errorf("%s: %d in flight, %d unsettled; %s", sink, s.InFlight, s.Unsettled, diff)
				for key, kind := range got {
					if want[key] != kind {
						t.Errorf("%s: %s: %+v", sink, key, differ[key])
					}
				}
			}
		}
	}
	expect(map[string]compare.Kind{})
	f.file(t, dir, "feed", feed)
	run("feed", "")
	f.file(t, dir, "copy", source)
	expect(want)
	kinds := map[compare.Kind]int{}
	for _, kind := range want {
		kinds[kind]++
	}
	t.Logf("%d of %d rows wrong: %v", len(want), rows, kinds)
	if len(kinds) < len(faultKinds) {
		t.Errorf("not every kind of fault was made: %v", kinds)
	}
}
