package httpio

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// TestConformance takes a service for a store of what was received: of each record the highest version.
func TestConformance(t *testing.T) {
	t.Parallel()
	s := services.NewWorkflows(t, services.WorkflowOptions{Answer: func(_ int, r *http.Request) int {
		if strings.HasSuffix(r.URL.Path, "/refused") {
			return http.StatusUnprocessableEntity
		}
		return 0
	}})
	iotest.TestSink(t, iotest.Sink{
		Triggers: true,
		New: func(t *testing.T, target string) connector.Sink {
			return NewSink(SinkConfig{URL: s.URL + "/start/" + target + "/{id}"})
		},
		Read: func(t *testing.T, target string) map[string]string {
			held, versions := map[string]string{}, map[string]int64{}
			for _, w := range s.All() {
				if !strings.HasPrefix(w.Path, "/start/"+target+"/") {
					continue
				}
				version, err := strconv.ParseInt(w.Header.Get("Reprise-Version"), 10, 64)
				if err != nil {
					t.Error(err)
				}
				var row struct{ ID string }
				if err := json.Unmarshal([]byte(w.Body), &row); err != nil {
					t.Error(err)
				}
				key := strings.NewReplacer(`\`, `\\`, `|`, `\|`).Replace(row.ID)
				if version >= versions[key] {
					held[key], versions[key] = w.Body, version
				}
			}
			return held
		},
		Refused: func() *record.Record {
			r := iotest.Record(iotest.AssetSchema(), 1000, iotest.Base)
			r.Values[0] = record.String("refused")
			return r
		},
		Server: s,
	})
}

// results are what a sink settles.
type results struct {
	mu  sync.Mutex
	all map[string]connector.Result
}

func (r *results) settle(results []connector.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, res := range results {
		r.all[res.Record.KeyText()] = res
	}
}

// counts are the results by outcome, dead ones by code.
func (r *results) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := map[string]int{}
	for _, res := range r.all {
		what := res.Outcome.String()
		if res.Err != nil {
			what = fail.CodeOf(res.Err)
		}
		n[what]++
	}
	return n
}

func (r *results) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// start opens a writer of a sink, and gives it records.
func start(t *testing.T, ctx context.Context, c SinkConfig, records []*record.Record) (connector.Writer, *results) {
	t.Helper()
	if faults := c.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	sink, run := NewSink(c), connector.Run{ID: "run-" + services.Name(t), Job: "test", Started: time.Now()}
	t.Cleanup(func() { sink.Close() })
	if err := sink.Prepare(ctx, run, records[0].Schema, true); err != nil {
		t.Fatal(err)
	}
	got := &results{all: map[string]connector.Result{}}
	w, err := sink.Open(ctx, run, records[0].Schema, got.settle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	for _, r := range records {
		if err := w.Write(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	return w, got
}

// write writes records to their end.
func write(t *testing.T, c SinkConfig, records []*record.Record) *results {
	t.Helper()
	w, got := start(t, t.Context(), c, records)
	if _, err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return got
}

func assets(n int) []*record.Record { return iotest.Records(iotest.AssetSchema(), 0, n, iotest.Base) }

func want(t *testing.T, got *results, outcomes map[string]int) {
	t.Helper()
	if diff := cmp.Diff(outcomes, got.counts()); diff != "" {
		t.Errorf("outcomes, -want +got:\n%s", diff)
		for _, key := range slices.Sorted(maps.Keys(got.all))[:min(3, len(got.all))] {
			t.Log(key, got.all[key].Err)
		}
	}
}

// TestIdempotencyKey: the key depends on job, purpose, key and version alone.
func TestIdempotencyKey(t *testing.T) {
	const known = "ac69c4d8-c6a1-81c0-abad-7060c2e1c790"
	if got := idempotencyKey("job", "/thumbnails/{id}", "a|b", 1700000000000000); got != known {
		t.Errorf("the key is %s, it was %s: runs of other builds would trigger everything again", got, known)
	}
	seen := map[string]bool{}
	for _, job := range []string{"a", "b", `a" "`} {
		for _, purpose := range []string{"", "x", `" 1`} {
			for _, key := range []string{"k", "1 k", `" "`} {
				for version := range int64(3) {
					seen[idempotencyKey(job, purpose, key, version)] = true
				}
			}
		}
	}
	if len(seen) != 81 {
		t.Errorf("%d different keys of 81", len(seen))
	}
}

// TestTrigger shows what is sent.
func TestTrigger(t *testing.T) {
	t.Setenv("API_KEY", "swordfish")
	t.Setenv("TOKEN", "sesame")
	s := services.NewWorkflows(t, services.WorkflowOptions{})
	r := assets(1)
	r[0].Values[2] = record.String("Grüße")
	write(t, SinkConfig{URL: s.URL + "/start/{id}/{title}?k={idempotency_key}", Method: http.MethodPut,
		Fields: []string{"size", "id"}, Headers: map[string]string{"x-kind": "asset {asset_type}"},
		Login: &Login{Token: "env:TOKEN", Headers: map[string]connector.Secret{"X-API-Key": "env:API_KEY"}}}, r)
	for id, w := range s.All() {
		h := w.Header
		got := []string{w.Path, w.Body, h.Get("X-Kind"), h.Get("X-Api-Key"), h.Get("Authorization"),
			h.Get("Content-Type"), h.Get("Reprise-Job"), h.Get("Reprise-Key"), h.Get("Reprise-Version")}
		expected := []string{"/start/text-000000/Gr%C3%BC%C3%9Fe",
			fmt.Sprintf(`{"id":"text-000000","size":%s}`, r[0].Get("size").Text(record.Of(record.BigInt))),
			"asset " + r[0].Get("asset_type").Str(),
			"swordfish", "Bearer sesame", "application/json", "test", "text-000000", "1700000000000000"}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if id != idempotencyKey("test", "/start/{id}/{title}?k={idempotency_key}", "text-000000", iotest.Base) {
			t.Errorf("the idempotency key is %s", id)
		}
	}
}

// TestAnswers: what each class of answers makes of a record, and that a record that fails alone is
// given up while others go through.
// TestAKeyKeepsItsOrder: a slow event holds up those of its key, and nobody else's.
func TestAKeyKeepsItsOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string][]string{}
	slow := make(chan struct{})
	var others atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version := r.Header.Get("Reprise-Version")
		if strings.HasSuffix(r.URL.Path, "/slow") {
			<-slow
		} else if others.Add(1) == 40 {
			close(slow) // all of the others have come while it waits
		}
		mu.Lock()
		defer mu.Unlock()
		seen[r.URL.Path] = append(seen[r.URL.Path], version)
	}))
	defer s.Close()
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)}}, "id")
	var records []*record.Record
	for version := range int64(10) {
		for _, key := range []string{"slow", "a", "b", "c", "d"} {
			records = append(records, &record.Record{Schema: schema, Values: []record.Value{record.String(key)},
				Version: version + 1})
		}
	}
	want(t, write(t, SinkConfig{URL: s.URL + "/{id}", InFlight: 3}, records), map[string]int{"written": 5}) // by key
	for _, key := range []string{"slow", "a", "b", "c", "d"} {
		if got := strings.Join(seen["/"+key], " "); got != "1 2 3 4 5 6 7 8 9 10" {
			t.Errorf("%s: versions %v", key, got)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tries := map[string]int{}
	s := services.NewWorkflows(t, services.WorkflowOptions{Again: http.StatusConflict,
		Answer: func(_ int, r *http.Request) int {
			mu.Lock()
			defer mu.Unlock()
			name := r.URL.Path[strings.LastIndex(r.URL.Path, "-")+1:]
			n, _ := strconv.Atoi(name)
			tries[name]++
			status := []int{0, 404, 422, 408, 425, 429, 500, 502, 503, 504, -1, 418}[n%12]
			if status < 400 || status >= 408 && status != 418 && status != 422 {
				if tries[name] > 2 { // it passes
					return 0
				}
			}
			return status
		}})
	c := SinkConfig{URL: s.URL + "/start/{id}", Answers: map[string]Answer{"418": answerUnchanged}}
	got := write(t, c, assets(120))
	// Those whose connection was cut had started before.
	want(t, got, map[string]int{"written": 80, "http.refused": 20, "unchanged": 20})
	for key, res := range got.all {
		if res.Err != nil && !strings.Contains(res.Err.Error(), "no, since this is trigger") {
			t.Errorf("%s: the error tells nothing of the answer: %v", key, res.Err)
		}
	}
	if _, _, runs, most := s.Seen(); runs != 90 || most > 8 {
		t.Errorf("%d workflows ran, want 90; %d requests at once, want at most 8", runs, most)
	}
}

// TestOneFails: a record that the service never answers well is a dead letter, while others go through.
func TestOneFails(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]string{500: "http.server", -2: "http.timeout", -1: "http.unreachable"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := services.NewWorkflows(t, services.WorkflowOptions{Answer: func(_ int, r *http.Request) int {
				if strings.HasSuffix(r.URL.Path, "-000000") {
					return status
				}
				return 0
			}})
			ctx := connector.WithGate(t.Context(), iotest.NewGate())
			c := SinkConfig{URL: s.URL + "/start/{id}", RetryFor: connector.Duration(time.Millisecond),
				Timeout: connector.Duration(200 * time.Millisecond)}
			w, got := start(t, ctx, c, assets(1))
			for n := 1; got.counts()[code] == 0; n++ {
				if err := w.Write(ctx, iotest.Record(iotest.AssetSchema(), n, iotest.Base)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			if _, err := w.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			want(t, got, map[string]int{code: 1, "written": got.len() - 1})
			if res := got.all["text-000000"]; res.Attempts < 4 {
				t.Errorf("given up after %d attempts, fewer than tell a bad record from a bad service", res.Attempts)
			}
		})
	}
}

// TestAllFail: a service that answers nothing well is down: no record is given up, and without a gate
// the writer ends at the deadline.
func TestAllFail(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]string{500: "http.server", 503: "http.throttled", -2: "http.timeout"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := services.NewWorkflows(t,
				services.WorkflowOptions{Answer: func(int, *http.Request) int { return status }})
			w, got := start(t, t.Context(), SinkConfig{URL: s.URL + "/start/{id}",
				RetryFor: connector.Duration(time.Second), Timeout: connector.Duration(200 * time.Millisecond)},
				assets(50))
			_, err := w.Flush(t.Context())
			if fail.CodeOf(err) != code || fail.ExitOf(err) != fail.ExitUnreachable {
				t.Errorf("Flush gave %v, exit code %d", err, fail.ExitOf(err))
			}
			want(t, got, map[string]int{})
		})
	}
}

// TestEndsTheRun: what no record can help ends the run, with what to do.
func TestEndsTheRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		to     string
		code   string
	}{
		{401, "", "http.auth"}, {302, "/start/b", "http.redirect"}, {303, "http://127.0.0.2:1/login", "http.redirect"},
		{307, "http://127.0.0.2:1/start", "http.redirect"}, {308, "", "http.redirect"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead {
				if c.to != "" {
					w.Header().Set("Location", c.to)
				}
				w.WriteHeader(c.status)
			}
		}))
		defer server.Close()
		// With more, Write may fail already
		w, got := start(t, t.Context(), SinkConfig{URL: server.URL + "/start/{id}"}, assets(1))
		_, err := w.Flush(t.Context())
		var known *fail.Error
		if !errors.As(err, &known) || known.Code != c.code || known.Class != fail.Fatal || known.Fix == "" {
			t.Errorf("%d to %s: %v", c.status, c.to, err)
		}
		want(t, got, map[string]int{})
	}
}

// TestRedirect: a redirect that keeps host and method is followed, with the body.
func TestRedirect(t *testing.T) {
	t.Parallel()
	var bodies atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
			http.Redirect(w, r, to, http.StatusPermanentRedirect)
			return
		}
		if body, _ := io.ReadAll(r.Body); r.Method == http.MethodPost && strings.HasPrefix(string(body), "{") &&
			r.Header.Get("Idempotency-Key") != "" {
			bodies.Add(1)
		}
	}))
	defer server.Close()
	want(t, write(t, SinkConfig{URL: server.URL + "/old/{id}"}, assets(10)), map[string]int{"written": 10})
	if bodies.Load() != 10 {
		t.Errorf("%d bodies came, want 10", bodies.Load())
	}
}

// TestRetryAfter: nothing is sent before the time that the service asks for.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var refused, next time.Time
	s := services.NewWorkflows(t, services.WorkflowOptions{Answer: func(n int, _ *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		if n == 1 {
			refused = time.Now()
			return http.StatusTooManyRequests // with Retry-After: 1
		}
		if next.IsZero() {
			next = time.Now()
		}
		return 0
	}})
	want(t, write(t, SinkConfig{URL: s.URL + "/start/{id}", InFlight: 1}, assets(5)), map[string]int{"written": 5})
	if paused := next.Sub(refused); paused < time.Second {
		t.Errorf("the next trigger came after %s, want at least 1s", paused)
	}
}

// TestBadRecords: what cannot be sent is a dead letter before anything is asked.
func TestBadRecords(t *testing.T) {
	t.Parallel()
	s := services.NewWorkflows(t, services.WorkflowOptions{})
	records := assets(5)
	records[0].Values[2] = record.String("..")
	records[1].Values[2] = record.NullValue
	records[2].Values[1] = record.String("line\nbreak")
	records[3] = iotest.Deletion(iotest.AssetSchema(), 3, iotest.Base)
	c := SinkConfig{URL: s.URL + "/start/{id}/{title}", Headers: map[string]string{"X-Type": "{asset_type}"}}
	want(t, write(t, c, records), map[string]int{"http.url": 2, "http.header": 1, "unchanged": 1, "written": 1})
	if triggers, _, _, _ := s.Seen(); triggers != 1 {
		t.Errorf("%d triggers", triggers)
	}
}

// TestPrepareErrors: what is wrong with the job is told before anything is sent.
func TestPrepareErrors(t *testing.T) {
	t.Parallel()
	s := services.NewWorkflows(t, services.WorkflowOptions{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	start := s.URL + "/start/{id}"
	for name, c := range map[string]struct {
		config SinkConfig
		code   string
	}{
		"no field":      {SinkConfig{URL: s.URL + "/start/{nope}"}, "http.template"},
		"no header":     {SinkConfig{URL: start, Headers: map[string]string{"X": "{nope}"}}, "http.template"},
		"no body field": {SinkConfig{URL: start, Fields: []string{"nope"}}, "http.field"},
		"no poll field": {SinkConfig{URL: start, Completion: &Completion{Poll: &Poll{URL: start + "/{nope}"}}},
			"http.template"},
		"no secret":   {SinkConfig{URL: start, Login: &Login{Token: "env:REPRISE_NO_SUCH"}}, "http.secret"},
		"nobody":      {SinkConfig{URL: "http://" + listener.Addr().String() + "/start"}, "http.unreachable"},
		"no https":    {SinkConfig{URL: "https" + strings.TrimPrefix(s.URL, "http") + "/start"}, "http.tls"},
		"certificate": {SinkConfig{URL: secure.URL + "/start"}, "http.tls"},
	} {
		sink := NewSink(c.config)
		err := sink.Prepare(t.Context(), connector.Run{ID: "r", Job: "j", Started: time.Now()},
			iotest.AssetSchema(), true)
		if fail.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		sink.Close()
	}
	if triggers, _, _, _ := s.Seen(); triggers > 0 {
		t.Errorf("%d triggers", triggers)
	}
	trusted := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(trusted,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	sink := NewSink(SinkConfig{URL: secure.URL + "/start", TLS: &connector.TLS{CA: trusted}})
	defer sink.Close()
	if err := sink.Prepare(t.Context(), connector.Run{ID: "r", Job: "j"}, iotest.AssetSchema(), true); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
}
