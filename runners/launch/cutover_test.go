package launch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/google/go-cmp/cmp"

	"reprise/pipelines/cutover"
	"reprise/runners/launch"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

const cutoverJob = `
name: search-upgrade
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets}}
sinks:
  search:
    elasticsearch:
      urls: ["http://%[3]s"]
      index: %[4]s_v2
      alias: %[4]s
      create: {settings: {number_of_shards: 2, number_of_replicas: 0, refresh_interval: 200ms}}
      load: {refresh: off}
dead_letters: {files: {path: "%[5]s/dead"}}
verify: {settle: 2s}
journal: {sqlite: "%[5]s/journal.db"}
`

// platform is a table and the indices that live writers keep beside it: what is acknowledged is in the table and in
// each index.
type platform struct {
	t       *testing.T
	session *gocql.Session
	search  string // HOST:PORT of the cluster of the new index
	alias   string
	address atomic.Pointer[string] // that the application searches

	mu      sync.RWMutex // a writer holds it to change titles, a reader while it relies on them
	titles  map[string]string
	indices []string // that are written to, as es takes them
	version int64
	writes  int
	made    int
}

// es sends a request to an address, or a path of the cluster of the new index, and gives status and answer.
func (p *platform) es(ctx context.Context, method, at, body string) (int, string) {
	p.t.Helper()
	if strings.HasPrefix(at, "/") {
		at = "http://" + p.search + at
	}
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader([]byte(body)))
	if err != nil {
		p.t.Error(err)
		return 0, ""
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			p.t.Errorf("%s %s: %v", method, at, err)
		}
		return 0, ""
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil && ctx.Err() == nil {
		p.t.Error(err)
	}
	return res.StatusCode, string(text)
}

func (p *platform) must(method, at, body string) string {
	p.t.Helper()
	status, text := p.es(context.WithoutCancel(p.t.Context()), method, at, body)
	if status >= 300 {
		p.t.Fatalf("%s %s: %d %s", method, at, status, text)
	}
	return text
}

// write writes an asset everywhere; title "" deletes it. It is called with the lock held.
func (p *platform) write(id, title string) {
	p.version = max(p.version+1, time.Now().UnixMicro())
	var err error
	if title == "" {
		err = p.session.Query("DELETE FROM assets USING TIMESTAMP ? WHERE id = ?", p.version, id).Exec()
	} else {
		err = p.session.Query("INSERT INTO assets (id, title) VALUES (?, ?) USING TIMESTAMP ?", id, title,
			p.version).Exec()
	}
	if err != nil {
		p.t.Error(err)
	}
	for _, index := range p.indices {
		at := fmt.Sprintf("%s/_doc/%s?version_type=external_gte&version=%d", index, id, p.version)
		method, body := http.MethodDelete, ""
		if title != "" {
			text, _ := json.Marshal(map[string]string{"id": id, "title": title})
			method, body = http.MethodPut, string(text)
		}
		if status, text := p.es(context.WithoutCancel(p.t.Context()), method, at, body); status >= 300 &&
			status != 404 {
			p.t.Errorf("%s %s: %d %s", method, at, status, text)
		}
	}
	if title == "" {
		delete(p.titles, id)
	} else {
		p.titles[id] = title
	}
	p.writes++
}

// live creates, changes and deletes assets until ctx ends. The first hundred are never deleted.
func (p *platform) live(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		switch n := rand.IntN(10); {
		case n < 4:
			p.made++
			p.write(fmt.Sprintf("live%d", p.made), fmt.Sprint("created ", p.writes))
		case n < 8:
			p.write(fmt.Sprintf("asset%d", rand.IntN(100)), fmt.Sprint("changed ", p.writes))
		default:
			p.write(fmt.Sprintf("live%d", 1+rand.IntN(p.made+1)), "")
		}
		p.mu.Unlock()
	}
}

// searches looks where the application does until ctx ends: a search for the hundred finds them all, and each
// document that was acknowledged is there as it was written.
func (p *platform) searches(ctx context.Context, done *atomic.Int64) {
	var ids []string
	for n := range 100 {
		ids = append(ids, fmt.Sprintf("%q", fmt.Sprintf("asset%d", n)))
	}
	query := fmt.Sprintf(`{"size":0,"track_total_hits":true,"query":{"ids":{"values":[%s]}}}`, strings.Join(ids, ","))
	for ; ctx.Err() == nil; done.Add(1) {
		status, text := p.es(ctx, http.MethodPost, *p.address.Load()+"/_search", query)
		if ctx.Err() != nil {
			return
		}
		var found struct {
			Shards struct{ Failed int } `json:"_shards"`
			Hits   struct{ Total struct{ Value int } }
		}
		if err := json.Unmarshal([]byte(text), &found); err != nil || status != 200 || found.Shards.Failed > 0 ||
			found.Hits.Total.Value != 100 {
			p.t.Errorf("a search ended with %d: %.500s", status, text)
		}
		p.mu.RLock()
		for id, title := range p.titles { // any of them
			status, text := p.es(ctx, http.MethodGet, *p.address.Load()+"/_doc/"+id, "")
			if ctx.Err() == nil && (status != 200 || !strings.Contains(text, fmt.Sprintf("%q", title))) {
				p.t.Errorf("%s, which should be %q: %d %s", id, title, status, text)
			}
			break
		}
		p.mu.RUnlock()
	}
}

// documents are the titles in an index, by the server's own search.
func (p *platform) documents(at string) map[string]string {
	p.must(http.MethodPost, at+"/_refresh", "")
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string                 `json:"_id"`
				Source struct{ Title string } `json:"_source"`
			}
		}
	}
	if err := json.Unmarshal([]byte(p.must(http.MethodGet, at+"/_search?size=10000", "")), &found); err != nil {
		p.t.Fatal(err)
	}
	titles := map[string]string{}
	for _, h := range found.Hits.Hits {
		titles[h.ID] = h.Source.Title
	}
	return titles
}

// compared is a cut-over whose verification is proven in turn, by plain reads of both sides while no writer writes.
type compared struct {
	cutover.Work
	p *platform
}

func (c compared) Verify(ctx context.Context) (*cutover.Proof, error) {
	proof, err := c.Work.Verify(ctx)
	if err != nil {
		return nil, err
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	rows := map[string]string{}
	all := c.p.session.Query("SELECT id, title FROM assets").Iter()
	for id, title := "", ""; all.Scan(&id, &title); {
		rows[id] = title
	}
	if err := all.Close(); err != nil {
		return nil, err
	}
	if diff := cmp.Diff(rows, c.p.documents("/"+c.p.alias+"_v2")); diff != "" {
		return nil, fail.Job(cutover.NotClean, "%s", diff)
	}
	return proof, nil
}

// open is a cut-over of the platform, as a process of its own has it.
func (p *platform) open(t *testing.T, text string) *cutover.Cutover {
	t.Helper()
	x, err := cutover.New(parse(t, text), cutover.Options{Engine: launch.Runner{Name: "prism"},
		Watching: cutover.Watching{For: time.Second, Every: 100 * time.Millisecond, Come: time.Minute, Loss: 20,
			Near: 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	x.Work = compared{x.Work, p}
	return x
}

// next is a cut-over with its next step.
func (p *platform) next(t *testing.T, text string) (*cutover.Cutover, *cutover.View) {
	t.Helper()
	x := p.open(t, text)
	v, err := x.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return x, v
}

// follow does some steps, which must be the next ones, each as by a process of its own.
func (p *platform) follow(t *testing.T, text string, steps ...cutover.Step) {
	t.Helper()
	for _, want := range steps {
		x, v := p.next(t, text)
		if v.Next != want {
			t.Fatalf("%s comes next, want %s: %+v", v.Next, want, v)
		}
		proof, err := x.Do(t.Context(), v)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		t.Logf("%s: %s", want, proof.Told)
	}
}

// newPlatform has the old index on the cluster of the new one, or on another at an address.
func newPlatform(t *testing.T, rows int, old string) (*platform, string) {
	t.Helper()
	return newPlatformOn(t, services.Elasticsearch, rows, old)
}

func newPlatformOn(t *testing.T, search services.Service, rows int, old string) (*platform, string) {
	t.Helper()
	cassandra := services.Need(t, services.Cassandra)
	keyspace := services.Name(t)
	session := plainSession(t, cassandra, keyspace)
	if err := session.Query("CREATE TABLE assets (id text PRIMARY KEY, title text)").Exec(); err != nil {
		t.Fatal(err)
	}
	p := &platform{t: t, session: session, search: services.Need(t, search), alias: services.Name(t),
		titles: map[string]string{}}
	address := old + "/" + p.alias
	p.address.Store(&address)
	p.indices = []string{address + "_v1"}
	p.must(http.MethodPut, p.indices[0], `{"settings":{"number_of_replicas":0,"refresh_interval":"200ms"},"aliases":{"`+p.alias+`":{}}}`)
	t.Cleanup(func() {
		for _, v := range []string{"_v1", "_v2"} {
			p.es(context.WithoutCancel(t.Context()), http.MethodDelete, "/"+p.alias+v, "")
		}
		p.es(context.WithoutCancel(t.Context()), http.MethodDelete, address+"_v1", "")
	})
	for n := range rows {
		p.write(fmt.Sprintf("asset%d", n), fmt.Sprint("first ", n))
	}
	p.must(http.MethodPost, address+"/_refresh", "")
	return p, fmt.Sprintf(cutoverJob, cassandra, keyspace, p.search, p.alias, t.TempDir())
}

// TestCutover takes searches to a new index, back and there again, under live writes to both indices and under
// searches that must not notice. Each step is done as by a process of its own.
func TestCutover(t *testing.T) {
	for _, service := range []services.Service{services.Elasticsearch, services.OpenSearch} {
		t.Run(string(service), func(t *testing.T) { testCutover(t, service) })
	}
}

func testCutover(t *testing.T, service services.Service) {
	p, text := newPlatformOn(t, service, 400, "")
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var searched atomic.Int64
	work.Go(func() { p.live(ctx) })
	work.Go(func() { p.searches(ctx, &searched) })
	defer func() { stop(); work.Wait() }()

	next := func() (*cutover.Cutover, *cutover.View) { t.Helper(); return p.next(t, text) }
	follow := func(steps ...cutover.Step) { t.Helper(); p.follow(t, text, steps...) }
	open := func() *cutover.Cutover { t.Helper(); return p.open(t, text) }
	follow(cutover.Create)
	p.mu.Lock()
	p.indices = append(p.indices, "/"+p.alias+"_v2")
	p.mu.Unlock()
	follow(cutover.Backfill, cutover.CatchUp, cutover.Verify, cutover.Swap, cutover.Settle, cutover.Watch)
	if _, v := next(); v.Next != cutover.Retire || v.Points != p.alias+"_v2" || v.Old != p.alias+"_v1" {
		t.Fatalf("after the watch: %+v", v)
	}
	if told, err := open().Back(t.Context()); err != nil || !strings.Contains(told, p.alias+"_v1 again") {
		t.Fatal(told, err)
	}
	if _, err := open().Back(t.Context()); fail.CodeOf(err) != "cutover.not_swapped" {
		t.Errorf("a second time: %v", err)
	}
	follow(cutover.CatchUp, cutover.Verify, cutover.Swap, cutover.Settle, cutover.Watch)
	p.mu.Lock()
	p.indices = p.indices[1:] // else the server makes the old index anew
	p.mu.Unlock()
	follow(cutover.Retire)
	if _, v := next(); v.Next != "" {
		t.Errorf("%s is left to do", v.Next)
	}
	stop()
	work.Wait()
	if status, _ := p.es(t.Context(), http.MethodHead, "/"+p.alias+"_v1", ""); status != 404 {
		t.Errorf("the old index is there (%d)", status)
	}
	if diff := cmp.Diff(p.titles, p.documents("/"+p.alias)); diff != "" {
		t.Errorf("searches find something else than was written: %s", diff)
	}
	t.Logf("%d searches, %d writes", searched.Load(), p.writes)
	if searched.Load() < 100 || p.writes < 500 {
		t.Error("that shows nothing")
	}
}

// TestCutoverNotProven: what was deleted or written behind the runs' back stops a cut-over before the swap.
func TestCutoverNotProven(t *testing.T) {
	p, text := newPlatform(t, 120, "")
	x := p.open(t, text)
	step := func(want cutover.Step) error {
		t.Helper()
		v, err := x.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v.Next != want {
			t.Fatalf("%s comes next, want %s", v.Next, want)
		}
		_, err = x.Do(t.Context(), v)
		return err
	}
	for _, s := range []cutover.Step{cutover.Create, cutover.Backfill, cutover.CatchUp} {
		if err := step(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	extra := "/" + p.alias + "_v2/_doc/extra?refresh=true"
	p.must(http.MethodPut, extra, `{"id":"extra","title":"of nobody"}`)
	if err := step(cutover.Verify); fail.CodeOf(err) != cutover.NotClean || fail.ExitOf(err) != fail.ExitJob {
		t.Errorf("verification gives %v", err)
	}
	p.must(http.MethodDelete, extra, "")
	for _, s := range []cutover.Step{cutover.CatchUp, cutover.Verify} {
		if err := step(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	// The old index goes on under the same name, but is another one: there is no way back to it, and nothing to retire.
	if err := step(cutover.Swap); err != nil {
		t.Fatal(err)
	}
	p.must(http.MethodDelete, "/"+p.alias+"_v1", "")
	p.must(http.MethodPut, "/"+p.alias+"_v1", "")
	if _, err := x.Back(t.Context()); fail.CodeOf(err) != "cutover.no_old" {
		t.Errorf("the way back gives %v", err)
	}
	if got := slices.Sorted(maps.Keys(p.documents("/" + p.alias))); len(got) != 120 {
		t.Errorf("searches find %d documents", len(got))
	}
}

// TestCutoverAcross takes searches from an Elasticsearch 7.17 to an 8.19, and from an 8.19 to OpenSearch; back and
// there again. Production goes on with the table and the indices, searches go on at the address that the application
// has, and it is the application that is switched.
func TestCutoverAcross(t *testing.T) {
	t.Run("7.17 to 8.19", func(t *testing.T) {
		old := services.Own(t, services.Elasticsearch, services.Env("ELASTICSEARCH_VERSION=7.17.15"),
			services.Heap("512m")).Addr
		testCutoverAcross(t, "http://"+old, `"number" : "7.17.`, services.Elasticsearch)
	})
	t.Run("8.19 to OpenSearch", func(t *testing.T) {
		testCutoverAcross(t, "http://"+services.Need(t, services.Elasticsearch), `"number" : "8.19.`, services.OpenSearch)
	})
}

func testCutoverAcross(t *testing.T, old, is string, to services.Service) {
	p, text := newPlatformOn(t, to, 400, old)
	text = strings.Replace(text, "      alias:", `      replaces: {urls: ["`+old+`"]}
      alias:`, 1)
	there, here := old+"/"+p.alias, "/"+p.alias
	if version := p.must(http.MethodGet, old+"/", ""); !strings.Contains(version, is) {
		t.Fatal(version)
	}
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var searched atomic.Int64
	work.Go(func() { p.live(ctx) })
	work.Go(func() { p.searches(ctx, &searched) })
	defer func() { stop(); work.Wait() }()
	// move switches the application; no search at the address before is under way then.
	move := func(to string) {
		t.Helper()
		p.address.Store(&to)
		for done := searched.Load() + 2; searched.Load() < done; time.Sleep(time.Millisecond) {
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	follow := func(steps ...cutover.Step) { t.Helper(); p.follow(t, text, steps...) }
	patient := 500 * time.Millisecond // ten of these are enough for a search to come
	refused := func(want cutover.Step, code string) {
		t.Helper()
		x, v := p.next(t, text)
		x.Watching.Every, x.Watching.Come = patient, time.Second
		if v.Next != want {
			t.Fatalf("%s comes next, want %s", v.Next, want)
		}
		if _, err := x.Do(t.Context(), v); fail.CodeOf(err) != code {
			t.Errorf("%s gives %v, want %s", want, err, code)
		}
	}
	// within tells whether all acknowledged writes are in an index, while none is under way.
	within := func(at string) {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		if diff := cmp.Diff(p.titles, p.documents(at)); diff != "" {
			t.Errorf("%s has something else than was written: %s", at, diff)
		}
	}

	follow(cutover.Create)
	p.mu.Lock()
	p.indices = append(p.indices, here+"_v2")
	p.mu.Unlock()
	follow(cutover.Backfill, cutover.CatchUp, cutover.Verify)
	if status, _ := p.es(ctx, http.MethodHead, here, ""); status != 404 {
		t.Errorf("before the swap the alias is there (%d)", status)
	}
	follow(cutover.Swap)
	refused(cutover.Switch, "cutover.not_switched")
	move(here)
	follow(cutover.Switch, cutover.Settle, cutover.Watch)

	// The alias stays while the application uses it.
	x := p.open(t, text)
	x.Watching.Every = patient
	if _, err := x.Back(t.Context()); fail.CodeOf(err) != "cutover.searched" {
		t.Errorf("rolling back while the new cluster is searched gives %v", err)
	}
	move(there)
	if told, err := p.open(t, text).Back(t.Context()); err != nil || !strings.Contains(told, "is removed") {
		t.Fatal(told, err)
	}
	if status, _ := p.es(ctx, http.MethodHead, here, ""); status != 404 {
		t.Errorf("after the way back the alias is there (%d)", status)
	}
	within(there)

	follow(cutover.CatchUp, cutover.Verify, cutover.Swap)
	move(here)
	follow(cutover.Switch, cutover.Settle, cutover.Watch)
	within(here)
	move(there) // a part of the application has stayed behind
	refused(cutover.Retire, "cutover.searched")
	move(here)
	p.mu.Lock()
	p.indices = p.indices[1:]
	p.mu.Unlock()
	follow(cutover.Retire)
	if _, v := p.next(t, text); v.Next != "" {
		t.Errorf("%s is left to do", v.Next)
	}
	stop()
	work.Wait()
	if status, _ := p.es(t.Context(), http.MethodHead, there+"_v1", ""); status != 404 {
		t.Errorf("the old index is there (%d)", status)
	}
	within(here)
	t.Logf("%d searches, %d writes", searched.Load(), p.writes)
	if searched.Load() < 100 || p.writes < 500 {
		t.Error("that shows nothing")
	}
}
