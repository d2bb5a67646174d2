package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/pipelines/pace"
)

const (
	loadRate   = 200              // reads a second of the live load
	loadWindow = 5 * time.Second  // over which the probe sees its p99
	loadTime   = 15 * time.Second // of the load alone
	runTime    = 60 * time.Second // of a run beside it, at most
	loadBound  = 2.0              // what is borne, by what the load has alone
)

// pace measures what a run does to a live load on the same Cassandra: single rows, read at a steady rate whatever the
// answers take, as users do. The run reads the corpus into Iceberg, at full speed and then with a probe of the load's
// p99.
func (b *bench) pace(ctx context.Context) error {
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	l := &load{session: session}
	if err := l.choose(ctx); err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { l.run(loading) })
	defer running.Wait()
	defer stop()
	probed := httptest.NewServer(l)
	defer probed.Close()

	var alone, free, paced []time.Duration
	var freeRate, pacedRate []float64
	for round := range b.Rounds {
		time.Sleep(loadWindow) // what was before passes, and servers get warm
		began := time.Now()
		time.Sleep(loadTime)
		own := l.p99(began)
		alone = append(alone, own)
		beside := func(name string, p pace.Config) (p99 time.Duration, rate float64, err error) {
			time.Sleep(loadWindow)
			j := &job.Job{Name: "bench-pace-" + name, Source: connector.From(b.source(skewed)),
				Sinks: map[string]job.Sink{"lake": {SinkSpec: connector.To(b.table(fmt.Sprintf("pace_%s_%d", name,
					round)))}}, Pace: p}
			limited, enough := context.WithTimeoutCause(ctx, runTime, errEnough)
			defer enough()
			began := time.Now()
			f, err := b.reprise(limited, j)
			p99, rate = l.p99(began), float64(f.report.Read)/f.took.Seconds()
			say("%-40s round %d  p99 of the load %s, alone %s, %.0f rows/s", "live load, run "+name, round+1,
				short(p99), short(own), rate)
			return p99, rate, err
		}
		p99, rate, err := beside("free", pace.Config{Adaptive: &pace.Adaptive{Off: true}})
		if err != nil {
			return err
		}
		free, freeRate = append(free, p99), append(freeRate, rate)
		p99, rate, err = beside("paced",
			pace.Config{Probe: &pace.Probe{Prometheus: &pace.Prometheus{URL: probed.URL, Query: "p99"},
				Bound: pace.Level(loadBound * own.Seconds()), Every: connector.Duration(500 * time.Millisecond)}})
		if err != nil {
			return err
		}
		paced, pacedRate = append(paced, p99), append(pacedRate, rate)
	}
	if l.failed > 0 {
		return fmt.Errorf("%d reads of the live load failed: %w", l.failed, l.err)
	}
	// Each round has its own bound, since what else the machine does changes.
	times := func(of []time.Duration) float64 {
		var ratios []float64
		for i := range of {
			ratios = append(ratios, float64(of[i])/float64(alone[i]))
		}
		return middle(ratios)
	}
	b.report.add(line{fmt.Sprintf("p99 of %d live reads a second, %s alone, beside a run with a probe bound at %g "+
		"times that", loadRate, short(middle(alone)), loadBound),
		short(middle(paced)), fmt.Sprintf("a run without pace: %s, %.1f times", short(middle(free)), times(free)),
		times(paced), atMost(loadBound, "")})
	b.report.add(line{what: "rows a second of these runs", ours: fmt.Sprintf("%.0f", middle(pacedRate)),
		theirs: fmt.Sprintf("%.0f", middle(freeRate))})
	return nil
}

func short(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

func middle[T cmp.Ordered](of []T) T { return slices.Sorted(slices.Values(of))[len(of)/2] }

// errEnough ends a run that has been measured for long enough.
var errEnough = errors.New("enough")

// load is a live load.
type load struct {
	session *gocql.Session
	keys    []key

	mu     sync.Mutex
	reads  []read
	failed int
	err    error // the first
}

type key struct {
	kind, bucket string
	id           gocql.UUID
}

type read struct {
	due  time.Time
	took time.Duration // from then on
}

// choose takes some rows of each bucket.
func (l *load) choose(ctx context.Context) error {
	buckets := l.session.Query("SELECT asset_type, bucket FROM " + skewed + ".asset_buckets").WithContext(ctx).Iter()
	for k := (key{}); buckets.Scan(&k.kind, &k.bucket); {
		rows := l.session.Query("SELECT id FROM "+skewed+".assets WHERE asset_type = ? AND bucket = ? LIMIT 100",
			k.kind, k.bucket).WithContext(ctx).Iter()
		for rows.Scan(&k.id) {
			l.keys = append(l.keys, k)
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	return buckets.Close()
}

// run reads until ctx ends. What is late counts from when it was due.
func (l *load) run(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	for due := time.Now(); ctx.Err() == nil; due = due.Add(time.Second / loadRate) {
		time.Sleep(time.Until(due))
		under.Go(func() {
			k := l.keys[rand.IntN(len(l.keys))]
			var title string
			err := l.session.Query("SELECT title FROM "+skewed+".assets WHERE asset_type = ? AND bucket = ? AND id = ?",
				k.kind, k.bucket, k.id).Scan(&title)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.reads = append(l.reads, read{due, time.Since(due)})
			if err != nil {
				l.failed++
				l.err = errors.Join(l.err, err)
			}
		})
	}
}

// p99 is that of the reads since a time.
func (l *load) p99(since time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var took []time.Duration
	for _, r := range slices.Backward(l.reads) {
		if r.due.Before(since.Add(-time.Minute)) {
			break // they are about in order
		}
		if !r.due.Before(since) {
			took = append(took, r.took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// ServeHTTP answers as Prometheus does.
func (l *load) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":"scalar","result":[%d,"%f"]}}`, now.Unix(),
		l.p99(now.Add(-loadWindow)).Seconds())
}
