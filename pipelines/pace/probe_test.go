package pace

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
)

func TestGuard(t *testing.T) {
	now := time.Unix(0, 0)
	g := newGuard(Probe{HTTP: &HTTP{URL: "http://shop"}, Bound: 0.05})
	see := func(times int, found float64, err error) {
		for range times {
			now = now.Add(time.Second)
			g.see(now, found, err)
		}
	}
	check := func(what string, least, most float64, far bool, why string) {
		t.Helper()
		if g.factor < least-1e-9 || g.factor > most+1e-9 || g.far != far || g.why != why {
			t.Errorf("%s: factor %v, far %v, %q; want %v to %v, %v, %q", what, g.factor, g.far, g.why, least, most, far,
				why)
		}
	}
	check("at first", careful, careful, false, "")
	see(10, 0.01, nil)
	check("climbing", careful+0.2, careful+0.22, false, "")
	see(100, 0.05, nil)
	check("at the bound", 1, 1, false, "")
	see(1, 0.07, nil)
	check("above it", 0.7, 0.7, false, "production is too slow: http://shop takes 70ms, bound 50ms")
	see(1, 0.2, nil)
	check("far above it", 0.49, 0.49, true, "production is too slow: http://shop takes 200ms, bound 50ms")
	see(1, 0.06, nil)
	check("above it again", 0.3, 0.4, false, "production is too slow: http://shop takes 60ms, bound 50ms")
	see(50, 0.06, nil)
	check("long above it", creep, creep, false, "production is too slow: http://shop takes 60ms, bound 50ms")
	see(100, math.NaN(), nil)
	check("no traffic", 1, 1, false, "")
	see(10, 0, errors.New("no route"))
	check("failing for 9 s", 1, 1, false, "")
	see(1, 0, errors.New("no route"))
	check("failing for 10 s", careful, careful, false, "the production probe fails: no route")
	see(5, 0.01, nil)
	check("back", careful, careful+0.2, false, "")
}

// TestGuardFindsTheBound: where production suffers from the run's load, it stays about the bound and the run moves.
func TestGuardFindsTheBound(t *testing.T) {
	now := time.Unix(0, 0)
	g := newGuard(Probe{HTTP: &HTTP{}, Bound: 0.05})
	above, worst, moved := 0, 0.0, 0.0
	const seconds = 600
	for range seconds {
		now = now.Add(time.Second)
		latency := 0.01 / (1 - 0.95*g.factor) // 200 ms at full speed, 50 ms at 84 %
		g.see(now, latency, nil)
		if latency > 0.05 {
			above++
			worst = max(worst, latency)
		}
		moved += g.factor
	}
	if above > seconds/10 || worst > 0.1 || moved/seconds < 0.5 {
		t.Errorf("above the bound in %d of %d s, at worst %v s, at %.0f %% of the full speed", above, seconds, worst,
			100*moved/seconds)
	}
}

// until waits for something that takes a moment.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func TestProductionThatAnswersSlowly(t *testing.T) {
	var takes atomic.Int64
	var status atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Duration(takes.Load()))
		if s := status.Load(); s != 0 {
			w.WriteHeader(int(s))
		}
	}))
	defer server.Close()
	var log lockedBuffer
	p := New(Config{Probe: &Probe{HTTP: &HTTP{URL: server.URL}, Bound: 0.1,
		Every: connector.Duration(10 * time.Millisecond)}}, "w",
		Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer p.Close()
	gate := p.Gate("sink")
	p.Apply(journal.Control{}, nil)
	must(t, gate, 1)(0, 0, nil)

	takes.Store(int64(150 * time.Millisecond))
	until(t, "slowed down", func() bool { return strings.HasPrefix(p.Waiting(), "slowed to ") })
	takes.Store(int64(300 * time.Millisecond))
	until(t, "paused", func() bool {
		return strings.HasPrefix(p.Waiting(), "paused: production is too slow: "+server.URL+" takes ")
	})
	entered := make(chan error)
	go func() {
		leave, err := gate.Enter(context.Background(), 1, 1)
		if err == nil {
			leave(0, 0, nil)
		}
		entered <- err
	}()
	takes.Store(0)
	if err := <-entered; err != nil {
		t.Error(err)
	}
	until(t, "well again", func() bool { return p.Waiting() == "" })
	status.Store(http.StatusServiceUnavailable)
	until(t, "paused for errors", func() bool { return strings.HasPrefix(p.Waiting(), "paused: ") })
	for _, want := range []string{"slowed to", "paused: production", "production is well again", "going on"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.String())
		}
	}
}

// lockedBuffer may be written while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPrometheusAnswers(t *testing.T) {
	const query = `histogram_quantile(0.99, sum by (le) (rate(http_seconds_bucket{job="shop"}[30s])))`
	var answer string
	status := http.StatusOK
	var got *http.Request
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TOKEN", "open sesame")
	c := Probe{Prometheus: &Prometheus{URL: server.URL + "/", Query: query}, Bound: 1, Token: "env:TOKEN",
		TLS: &connector.TLS{CA: ca}}
	for _, x := range []struct {
		answer string
		status int
		want   float64
		fails  string
	}{
		{`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"0.25"]}]}}`,
			200, 0.25, ""},
		{`{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"42"]}}`, 200, 42, ""},
		{`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"+Inf"]}]}}`,
			200, math.Inf(1), ""},
		{`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"NaN"]}]}}`,
			200, math.NaN(), ""},
		{`{"status":"success","data":{"resultType":"vector","result":[]}}`, 200, 0, "0 samples"},
		{`{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"1"]},{"value":[1,"2"]}]}}`, 200, 0,
			"2 samples"},
		{`{"status":"success","data":{"resultType":"matrix","result":[]}}`, 200, 0, "a matrix"},
		{`{"status":"success","data":{"resultType":"scalar","result":["1"]}}`, 200, 0, "other than a sample"},
		{`{"status":"error","errorType":"bad_data","error":"parse error"}`, 400, 0, "parse error"},
		{`<html>not found</html>`, 404, 0, "status 404: <html>"},
	} {
		answer, status = x.answer, x.status
		var a asker
		v, err := a.ask(t.Context(), c)
		if x.fails != "" {
			if err == nil || !strings.Contains(err.Error(), x.fails) {
				t.Errorf("%s: got %v, %v", x.answer, v, err)
			}
			continue
		}
		if err != nil || v != x.want && !(math.IsNaN(v) && math.IsNaN(x.want)) {
			t.Errorf("%s: got %v, %v", x.answer, v, err)
		}
		if got.URL.Path != "/api/v1/query" || got.URL.Query().Get("query") != query ||
			got.Header.Get("Authorization") != "Bearer open sesame" {
			t.Errorf("asked for %s with %v", got.URL, got.Header)
		}
	}

	c.Token, c.User, c.Password = "", "reprise", "env:TOKEN"
	answer, status = `{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}`, 200
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if user, password, _ := got.BasicAuth(); user != "reprise" || password != "open sesame" {
		t.Errorf("login %q %q", user, password)
	}
	c.TLS = nil
	if err := c.Check(t.Context()); err == nil {
		t.Error("a certificate of nobody is taken")
	}
	c.Password = "env:NOT_THERE"
	if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "NOT_THERE") {
		t.Errorf("got %v", err)
	}
}
