package cutover

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"reprise/io/connector"
	"reprise/io/elasticsearchio"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var schema = record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)}}, "id")

// scene is a cut-over on a real server whose runs of the job are the test's own.
type scene struct {
	Cutover
	t    *testing.T
	url  string
	sink elasticsearchio.SinkConfig
	run  string // that makes the new index

	whole   bool        // the backfill is
	wrong   error       // what verification finds
	caught  []time.Time // since when it has caught up
	filling int
}

func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneOn(t, services.Elasticsearch)
}

func newSceneOn(t *testing.T, service services.Service) *scene {
	t.Helper()
	s := &scene{t: t, url: "http://" + services.Need(t, service), run: "r1"}
	name := services.Name(t)
	s.sink = elasticsearchio.SinkConfig{URLs: []string{s.url}, Index: name + "-new", Alias: name,
		Create: &elasticsearchio.Create{Settings: map[string]any{"number_of_replicas": 0}}}
	admin, err := elasticsearchio.NewAdmin(s.sink)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		admin.Close()
		for _, index := range []string{"-new", "-old", "-other"} {
			s.es(http.MethodDelete, "/"+name+index, "")
		}
	})
	s.Cutover = Cutover{Admin: admin, Job: "job", Index: s.sink.Index, Alias: name, Work: s,
		Watching: Watching{Every: 10 * time.Millisecond}}
	return s
}

func (s *scene) es(method, path, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// old makes an index that the alias points to, with a filter.
func (s *scene) old(name string) {
	s.t.Helper()
	if status, text := s.es(http.MethodPut, "/"+name, `{"settings":{"number_of_replicas":0},"aliases":{"`+s.Alias+`":{"filter":{"exists":{"field":"id"}}}}}`); status != 200 {
		s.t.Fatal(text)
	}
}

func (s *scene) Create(ctx context.Context) error {
	sink := elasticsearchio.NewSink(s.sink)
	defer sink.Close()
	return sink.Prepare(ctx, connector.Run{ID: s.run, Job: s.Job}, schema, false)
}

func (s *scene) Backfilled(_ context.Context, run string) (*Proof, error) {
	if run != s.run {
		s.t.Errorf("asked for run %s", run)
	}
	if !s.whole {
		return nil, nil
	}
	return &Proof{Run: run, Began: time.Now(), Told: "filled"}, nil
}

func (s *scene) Backfill(context.Context, string) error {
	s.filling++
	s.whole = s.filling > 1 // the first time it ends early
	return nil
}

func (s *scene) CatchUp(_ context.Context, since time.Time) (*Proof, error) {
	s.caught = append(s.caught, since)
	return &Proof{Told: "caught up"}, nil
}

func (s *scene) Verify(context.Context) (*Proof, error) {
	return &Proof{Told: "the same"}, s.wrong
}

// do does the next step, which must be this one.
func (s *scene) do(want Step) error {
	s.t.Helper()
	v, err := s.Look(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if v.Next != want {
		s.t.Fatalf("%q comes next, want %q", v.Next, want)
	}
	if s.Describe(v, v.Next) == "" {
		s.t.Errorf("%s is not described", want)
	}
	_, err = s.Do(s.t.Context(), v)
	return err
}

func (s *scene) follow(steps ...Step) {
	s.t.Helper()
	for _, step := range steps {
		if err := s.do(step); err != nil {
			s.t.Fatalf("%s: %v", step, err)
		}
	}
}

// points is where the alias points, by the server's own word.
func (s *scene) points() string {
	s.t.Helper()
	_, text := s.es(http.MethodGet, "/_cat/aliases/"+s.Alias+"?h=index,filter", "")
	return strings.Join(strings.Fields(text), " ")
}

func TestSteps(t *testing.T) {
	t.Parallel()
	for _, service := range []services.Service{services.Elasticsearch, services.OpenSearch} {
		t.Run(string(service), func(t *testing.T) {
			t.Parallel()
			testSteps(t, newSceneOn(t, service))
		})
	}
}

func testSteps(t *testing.T, s *scene) {
	s.old(s.Alias + "-old")
	s.follow(Create)
	if err := s.do(Backfill); fail.CodeOf(err) != "cutover.backfill" {
		t.Errorf("a backfill that is not whole gives %v", err)
	}
	s.follow(Backfill, CatchUp)
	s.wrong = fail.Job(NotClean, "3 documents differ")
	if err := s.do(Verify); !errors.Is(err, s.wrong) {
		t.Error(err)
	}
	s.wrong = nil
	s.follow(CatchUp, Verify)
	if got := s.points(); got != s.Alias+"-old *" {
		t.Errorf("before the swap the alias points to %q", got)
	}
	s.follow(Swap)
	if got := s.points(); got != s.Alias+"-new *" {
		t.Errorf("after the swap the alias points to %q, with its filter", got)
	}
	s.follow(Settle, Watch)
	if len(s.caught) != 3 || !s.caught[2].After(s.caught[1]) {
		t.Errorf("caught up since %v", s.caught)
	}

	// The old index is kept while an alias points to it, and another one of its name is not deleted.
	s.es(http.MethodPut, "/"+s.Alias+"-old/_alias/"+s.Alias+"-too", "")
	if err := s.do(Retire); fail.CodeOf(err) != "cutover.in_use" {
		t.Errorf("retiring an index in use gives %v", err)
	}
	s.es(http.MethodDelete, "/"+s.Alias+"-old/_alias/*", "")
	s.follow(Retire)
	if status, _ := s.es(http.MethodHead, "/"+s.Alias+"-old", ""); status != 404 {
		t.Errorf("the old index is there (%d)", status)
	}
	if v, err := s.Look(t.Context()); err != nil || v.Next != "" {
		t.Error(v, err)
	}
	s.es(http.MethodPut, "/"+s.Alias+"-old", "")
	if _, err := s.Back(t.Context()); fail.CodeOf(err) != "cutover.no_old" {
		t.Errorf("rolling back to another index of the same name gives %v", err)
	}
}

// TestCrashes: a process may die between what a step does and its note.
func TestCrashes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.old(s.Alias + "-old")
	s.whole = true
	s.follow(Create, CatchUp, Verify)
	v, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Died with the old index noted, before the alias moved: verification still holds.
	v.Old = v.Points
	if err := s.remember(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	s.follow(Swap)
	// Died before the note that it moved: the alias itself tells.
	before, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	delete(before.Proven, Swap)
	if err := s.remember(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	s.follow(Settle)
	told, err := s.Back(t.Context())
	if err != nil || s.points() != s.Alias+"-old *" {
		t.Fatal(told, err, s.points())
	}
	// Died in Back before its note: nothing after verify counts as proven, since the alias is not there.
	if err := s.remember(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	s.follow(Swap, Settle, Watch)
	// Somebody moves the alias elsewhere in the middle of it.
	s.es(http.MethodDelete, "/"+s.Alias+"-new/_alias/*", "")
	s.old(s.Alias + "-other")
	v, err = s.Look(t.Context())
	if err != nil || v.Next != Swap {
		t.Fatal(v, err)
	}
	v.Points = s.Alias + "-old"
	if _, err := s.Do(t.Context(), v); fail.CodeOf(err) != "cutover.moved" {
		t.Errorf("a swap of an alias that was moved gives %v", err)
	}
	if got := s.points(); got != s.Alias+"-other *" {
		t.Errorf("the alias points to %q", got)
	}
}

func TestBadTargets(t *testing.T) {
	t.Parallel()
	refused := func(s *scene, code string, parts ...string) {
		t.Helper()
		_, err := s.Look(t.Context())
		if fail.CodeOf(err) != code || fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("got %v, want %s", err, code)
			return
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not in: %v", part, err)
			}
		}
	}
	s := newScene(t)
	refused(s, "cutover.no_alias", "--new-alias", "replaces")
	s.NewAlias = true
	s.whole = true
	s.follow(Create, CatchUp, Verify, Swap)
	if got := s.points(); got != s.Alias+"-new -" {
		t.Errorf("the new alias points to %q", got)
	}

	s = newScene(t)
	s.old(s.Alias + "-old")
	s.old(s.Alias + "-other")
	refused(s, "cutover.alias_of_many", "2 indices", s.Alias+"-old, "+s.Alias+"-other")

	s = newScene(t)
	s.old(s.Alias + "-old")
	index := s.Alias + "-old"
	s.Alias = index
	refused(s, "cutover.alias_is_index", "is an index, not an alias")

	s = newScene(t)
	s.old(s.Alias + "-old")
	s.es(http.MethodPut, "/"+s.Index+"/_doc/1?refresh=true", `{"id":"1"}`)
	refused(s, "cutover.not_ours", "holds 1 documents")

	s = newScene(t)
	s.old(s.Alias + "-old")
	s.Index = s.Alias
	refused(s, "elasticsearch.is_alias", s.Alias+"-old")

	// The new index must bear searches as the old one does.
	s = newScene(t)
	s.old(s.Alias + "-old")
	s.whole = true
	s.follow(Create, CatchUp, Verify)
	s.es(http.MethodPut, "/"+s.Index+"/_settings", `{"index.refresh_interval":"-1"}`)
	if err := s.do(Swap); fail.CodeOf(err) != "cutover.no_refresh" {
		t.Errorf("an index that does not refresh gives %v", err)
	}
	if got := s.points(); got != s.Alias+"-old *" {
		t.Errorf("the alias points to %q", got)
	}
}

// TestFrom has what searches use until then at an address of its own, here by the same server; package launch takes
// searches from one server to another.
func TestFrom(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	there := s.Alias + "-there"
	s.From = &From{Admin: s.Admin, Name: there}
	s.Watching.Come = time.Millisecond
	refused := func(code string) {
		t.Helper()
		if _, err := s.Look(t.Context()); fail.CodeOf(err) != code || fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("got %v, want %s", err, code)
		}
	}
	refused("cutover.no_old")
	s.old(s.Alias + "-old")
	s.old(s.Alias + "-other")
	s.es(http.MethodDelete, "/"+s.Alias+"-o*/_alias/*", "")
	s.es(http.MethodPost, "/_aliases", `{"actions":[{"add":{"index":"`+s.Alias+`-o*","alias":"`+there+`","filter":{"exists":{"field":"id"}}}}]}`)
	refused("cutover.alias_of_many")
	s.es(http.MethodPost, "/_aliases", `{"actions":[{"remove":{"index":"`+s.Alias+`-other","alias":"`+there+`"}},{"add":{"index":"`+s.Alias+`-other","alias":"`+s.Alias+`"}}]}`)
	refused("cutover.alias_taken")
	s.es(http.MethodDelete, "/"+s.Alias+"-other", "")

	s.whole = true
	s.follow(Create, CatchUp, Verify, Swap)
	if got := s.points(); got != s.Alias+"-new *" {
		t.Errorf("the alias points to %q, with the filter of the one that it replaces", got)
	}
	if err := s.do(Switch); fail.CodeOf(err) != "cutover.not_switched" {
		t.Errorf("a switch that nobody makes gives %v", err)
	}
	if told, err := s.Back(t.Context()); err != nil || s.points() != "" {
		t.Error(told, err, s.points())
	}
	s.From.Name = s.Alias + "-old" // searches may name the index itself
	s.follow(CatchUp, Verify, Swap)
	if got := s.points(); got != s.Alias+"-new -" {
		t.Errorf("the alias points to %q", got)
	}
	s.Watching.Come = time.Minute
	ctx, stop := context.WithCancel(t.Context())
	var searching sync.WaitGroup
	searching.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			s.es(http.MethodGet, "/"+s.Alias+"/_search", "")
		}
	})
	s.follow(Switch)
	stop()
	searching.Wait()
	s.follow(Settle, Watch)
	if err := s.do(Retire); fail.CodeOf(err) != "cutover.in_use" { // by the alias that is not what is replaced
		t.Errorf("retiring an index in use gives %v", err)
	}
	s.es(http.MethodDelete, "/"+s.Alias+"-old/_alias/*", "")
	s.follow(Retire)
	if v, err := s.Look(t.Context()); err != nil || v.Next != "" {
		t.Error(v, err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.old(s.Alias + "-old")
	s.whole = true
	s.follow(Create, CatchUp, Verify, Swap, Settle)
	var looks atomic.Int64
	probe := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := looks.Add(1); n == 3 || n == 5 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer probe.Close()
	for name, test := range map[string]struct {
		watching Watching
		want     string
	}{
		"a query that the index does not take": {Watching{Query: []byte(`{"query":{"no":{}}}`)}, "unknown query"},
		"a probe that fails": {Watching{Probe: probe.URL, MaxFailures: 1, For: 5 * time.Second},
			"2 of 5 looks"},
		"nobody at the probe": {Watching{Probe: "http://127.0.0.1:1/"}, "refused"},
	} {
		s.Watching = test.watching
		s.Watching.Every = time.Millisecond
		if err := s.do(Watch); fail.CodeOf(err) != "cutover.watch" || !strings.Contains(err.Error(), test.want) ||
			!strings.Contains(err.Error(), "--rollback") {
			t.Errorf("%s gives %v", name, err)
		}
	}
	s.es(http.MethodPost, "/_bulk?refresh=true", `{"index":{"_index":"`+s.Index+`","_id":"1"}}
{"id":"1"}
{"index":{"_index":"`+s.Index+`","_id":"2"}}
{"id":"2"}
`)
	s.Watching = Watching{Every: time.Millisecond, For: time.Hour, Loss: 10, Probe: probe.URL}
	looks.Store(5)
	go func() {
		for looks.Load() < 7 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		s.es(http.MethodDelete, "/"+s.Index+"/_doc/1?refresh=true", "")
	}()
	if err := s.do(Watch); err == nil || !strings.Contains(err.Error(), "find 1 documents, 2 when the watch began") {
		t.Errorf("documents that go away give %v", err)
	}
	s.Watching = Watching{Every: time.Millisecond}
	s.follow(Watch)
}
