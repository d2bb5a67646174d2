package icebergio

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// proxy stands before a REST catalog; around sees each commit, with forward to hand it on.
func proxy(t *testing.T, addr string, around func(w http.ResponseWriter,
	forward func() *httptest.ResponseRecorder)) string {
	target := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !strings.Contains(r.URL.Path, "/tables/") {
			target.ServeHTTP(w, r)
			return
		}
		around(w, func() *httptest.ResponseRecorder {
			answer := httptest.NewRecorder()
			target.ServeHTTP(answer, r)
			return answer
		})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// What the catalog answers to a commit is one thing, whether it happened another: the run is
// in the table once in any case.
func TestAmbiguousCommit(t *testing.T) {
	t.Parallel()
	addr := services.Need(t, services.IcebergREST)
	for name, broken := range map[string]func(w http.ResponseWriter, forward func() *httptest.ResponseRecorder){
		"cut after the commit": func(w http.ResponseWriter,
			forward func() *httptest.ResponseRecorder) {
			forward()
			cut(w)
		},
		"cut before the commit": func(w http.ResponseWriter, _ func() *httptest.ResponseRecorder) { cut(w) },
		"500 after the commit": func(w http.ResponseWriter, forward func() *httptest.ResponseRecorder) {
			forward()
			http.Error(w, `{"error":{"message":"broken","type":"ServerError","code":500}}`, 500)
		},
		"409 after the commit": func(w http.ResponseWriter, forward func() *httptest.ResponseRecorder) {
			forward()
			http.Error(w, `{"error":{"message":"somebody was first","type":"CommitFailedException","code":409}}`, 409)
		},
		"503 before the commit": func(w http.ResponseWriter, _ func() *httptest.ResponseRecorder) {
			http.Error(w, "a page", 503)
		},
	} {
		for _, mode := range []string{"", modeUpsert} {
			t.Run(strings.TrimSpace(name+" "+mode), func(t *testing.T) { ambiguousCommit(t, addr, mode, broken) })
		}
	}
}

func ambiguousCommit(t *testing.T, addr, mode string,
	broken func(w http.ResponseWriter, forward func() *httptest.ResponseRecorder)) {
	direct := SinkConfig{Table: services.Name(t) + ".assets", Create: true, Mode: mode,
		Catalog: CatalogConfig{REST: "http://" + addr}}
	schema, run := simpleSchema(), newRun()
	put(t, newSink(t, direct), simple(schema, "a", 1, "x"))
	want := 3
	if mode == modeUpsert {
		put(t, newSink(t, direct), simple(schema, "a", 2, "older")) // which the run replaces
	} else {
		put(t, newSink(t, direct), simple(schema, "a", 4, "x"))
		want++
	}
	// A table may tell iceberg-go to try commits again by itself, which must not happen behind our back.
	tx := current(t, newSink(t, direct)).NewTransaction()
	if err := tx.SetProperties(iceberg.Properties{table.CommitNumRetriesKey: "4"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	var commits atomic.Int64
	through := direct
	through.Catalog.REST = proxy(t, addr, func(w http.ResponseWriter, forward func() *httptest.ResponseRecorder) {
		if commits.Add(1) == 1 {
			broken(w, forward)
			return
		}
		answer := forward()
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	})
	s := newSink(t, through)
	parts, _ := stage(t, s, run, simple(schema, "a", 2, "y"), simple(schema, "a", 3, "z"))
	for range 2 {
		if n, err := s.Commit(t.Context(), run, schema, parts); n != 2 || err != nil {
			t.Fatalf("%d records, %v", n, err)
		}
	}
	if got := len(current(t, newSink(t, direct)).Metadata().Snapshots()); got != 3 {
		t.Errorf("%d snapshots, want 3", got)
	}
	if got := len(rows(t, reader(direct))); got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
}

// cut ends a connection without an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// A catalog that does not come back leaves an error that tells what to do, and the files,
// so that the run can be resumed.
func TestCatalogGoneAtCommit(t *testing.T) {
	t.Parallel()
	server := services.Own(t, services.IcebergREST)
	c := SinkConfig{Table: "media.assets", Create: true, Catalog: CatalogConfig{REST: "http://" + server.Addr}}
	schema, run := simpleSchema(), newRun()
	s := newSink(t, c)
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	parts, _ := stage(t, s, run, simple(schema, "a", 1, "x"))
	server.Stop()
	s.deadline = time.Second
	_, err := s.Commit(t.Context(), run, schema, parts)
	wantError(t, err, "iceberg.unreachable", "resume the run")
	if fail.ExitOf(err) != fail.ExitUnreachable {
		t.Errorf("exit %d", fail.ExitOf(err))
	}
	err = newSink(t, c).Prepare(t.Context(), run, schema, false)
	wantError(t, err, "iceberg.unreachable", "check that the catalog")
	if fail.ExitOf(err) != fail.ExitUnreachable {
		t.Errorf("exit %d", fail.ExitOf(err))
	}
	server.Start()
	s.deadline = defaultDeadline
	if n, err := s.Commit(t.Context(), run, schema, parts); n != 1 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
	if n := len(rows(t, reader(c))); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// The summary of a run's snapshot tells where it comes from; other files of the same run are refused, not dropped.
func TestCommitSummary(t *testing.T) {
	t.Parallel()
	c := local(t)
	s := newSink(t, c)
	schema, run := simpleSchema(), connector.Run{ID: "run-7", Job: "backfill"}
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	first, _ := stage(t, s, run, simple(schema, "a", 1, "x"), simple(schema, "a", 2, "x"))
	second, _ := stage(t, s, run, simple(schema, "a", 3, "x"))
	if n, err := s.Commit(t.Context(), run, schema, append(first, first...)); n != 2 || err != nil {
		t.Fatalf("%d records, %v", n, err)
	}
	_, err := s.Commit(t.Context(), run, schema, second)
	wantError(t, err, "iceberg.run_committed", "a table of its own")

	snapshots := services.IcebergSnapshots(t, reader(c))
	if len(snapshots) != 1 {
		t.Fatalf("%d snapshots", len(snapshots))
	}
	for key, want := range map[string]string{"reprise.run-id": "run-7", "reprise.job": "backfill",
		"reprise.records": "2", "added-records": "2"} {
		if got := snapshots[0].Summary[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	files, err := filepath.Glob(filepath.Join(current(t, s).Location(), "data",
		"*-"+tables.FilePrefix("run-7")+"-*.parquet"))
	if err != nil || len(files) != 2 {
		t.Errorf("files of the run by their names: %v, %v", files, err)
	}
}

// A run that went on after a commit adds what is new alone, also when the table does not hold
// what it committed first any more.
func TestCommitAgainWithMore(t *testing.T) {
	t.Parallel()
	c := local(t)
	s := newSink(t, c)
	schema, run := simpleSchema(), connector.Run{ID: "run-8", Job: "backfill"}
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	var parts [][]byte
	for id := 1; id <= 3; id++ {
		more, _ := stage(t, s, run, simple(schema, "a", id, "x"), simple(schema, "b", 10+id, "x"))
		parts = append(parts, more...)
		for range 2 {
			if n, err := newSink(t, c).Commit(t.Context(), run, schema, parts); n != int64(2*id) || err != nil {
				t.Fatalf("%d records, %v", n, err)
			}
		}
		if _, err := current(t, s).Delete(t.Context(),
			iceberg.EqualTo(iceberg.Reference("id"), int32(id)), nil); err != nil {
			t.Fatal(err)
		}
	}
	// A commit that comes late, with what there was before.
	if n, err := newSink(t, c).Commit(t.Context(), run, schema, parts[:len(parts)/3]); n != 2 || err != nil {
		t.Fatalf("%d records, %v", n, err)
	}
	var ids []string
	for _, row := range rows(t, reader(c)) {
		ids = append(ids, fmt.Sprint(row["id"]))
	}
	slices.Sort(ids)
	if diff := cmp.Diff([]string{"11", "12", "13"}, ids); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	var counts []string
	for _, snapshot := range services.IcebergSnapshots(t, reader(c)) {
		if snapshot.Summary[tables.RunProperty] != "" {
			counts = append(counts, snapshot.Summary[recordsProperty]+" "+snapshot.Summary["added-records"])
		}
	}
	if diff := cmp.Diff([]string{"2 2", "4 2", "6 2"}, counts); diff != "" {
		t.Errorf("records of the run and of the snapshot (-want +got):\n%s", diff)
	}
}

// A table that was made anew while the job ran is another table.
func TestTableMadeAnew(t *testing.T) {
	c := local(t)
	s := newSink(t, c)
	schema, run := simpleSchema(), newRun()
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	parts, _ := stage(t, s, run, simple(schema, "a", 1, "x"))
	cat, err := s.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.DropTable(t.Context(), s.ident); err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(t.Context(), run, schema, parts)
	wantError(t, err, "iceberg.no_table")
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(t.Context(), run, schema, parts)
	wantError(t, err, "iceberg.other_table", "run the job again")
}

// A schema that grows while the job runs leaves its files readable.
func TestSchemaGrowsBeforeCommit(t *testing.T) {
	t.Parallel()
	c := local(t)
	s := newSink(t, c)
	schema, run := simpleSchema(), newRun()
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	parts, _ := stage(t, s, run, simple(schema, "a", 1, "x"))
	tx := current(t, s).NewTransaction()
	if err := tx.UpdateSchema(true, false).AddColumn([]string{"added"}, stringType, "", false, nil).
		Commit(); err != nil {
		t.Fatal(err)
	}
	if err := tx.UpdateSpec(true).AddField("kind", iceberg.IdentityTransform{}, "kind").Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), run, schema, parts); err != nil {
		t.Fatal(err)
	}
	put(t, s, simple(schema, "b", 2, "y"))
	found := rows(t, reader(c))
	if len(found) != 2 {
		t.Fatalf("%d rows", len(found))
	}
	for _, row := range found {
		if added, there := row["added"]; !there || added != nil {
			t.Errorf("row %v", row)
		}
	}
}

// Damaged parts are an error, never a smaller commit.
func TestDamagedPart(t *testing.T) {
	s := newSink(t, local(t))
	schema, run := simpleSchema(), newRun()
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	parts, _ := stage(t, s, run, simple(schema, "a", 1, "x"))
	for i, damaged := range [][]byte{nil, []byte("{}"), parts[0][:len(parts[0])-10]} {
		if n, err := s.Commit(t.Context(), run, schema, append(parts, damaged)); err == nil ||
			fail.ClassOf(err) != fail.Fatal {
			t.Errorf("part %d: %d records, %v", i, n, err)
		}
	}
	if n := len(current(t, s).Metadata().Snapshots()); n != 0 {
		t.Errorf("%d snapshots", n)
	}
}
