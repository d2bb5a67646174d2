package iotest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	guuid "github.com/google/uuid"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// patience bounds what must come to an end but may take long on a busy machine: so many times what is prompt.
const patience = 9

// problems collects what a check found.
type problems struct {
	mu   sync.Mutex
	list []string
}

func (p *problems) addf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const enough = 10
	if len(p.list) < enough {
		p.list = append(p.list, fmt.Sprintf(format, args...))
	}
}

// sinkProbe is one check at work on one target.
type sinkProbe struct {
	problems
	Sink
	t      *testing.T
	ctx    context.Context
	target string
	prompt time.Duration // within which a cancelled call returns
	still  time.Duration // after which a writer without progress counts as blocked
}

// newSink opens the target; it is closed at the check's end.
func (p *sinkProbe) newSink() connector.Sink {
	s := p.New(p.t, p.target)
	p.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			p.t.Errorf("Close of the sink: %v", err)
		}
	})
	return s
}

// prepared is newSink with Prepare called; nil after an error.
func (p *sinkProbe) prepared() connector.Sink {
	s := p.newSink()
	if err := s.Prepare(p.ctx, p.run(), p.Schema, false); err != nil {
		p.addf("Prepare: %v", err)
		return nil
	}
	return s
}

// run names a run of its own.
func (p *sinkProbe) run() connector.Run {
	return connector.Run{ID: "iotest-" + guuid.NewString()[:13], Job: "iotest", Started: time.UnixMicro(Base).UTC()}
}

// ledger takes the results of one writer.
type ledger struct {
	p       *sinkProbe
	mu      sync.Mutex
	results map[*record.Record]connector.Result
	closed  bool
}

func (p *sinkProbe) ledger() *ledger {
	return &ledger{p: p, results: map[*record.Record]connector.Result{}}
}

func (l *ledger) settle(results []connector.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range results {
		switch {
		case r.Record == nil:
			l.p.addf("a result without its record: %+v", r)
			continue
		case l.closed:
			l.p.addf("%s was settled after Close", r.Record.KeyText())
		}
		if _, twice := l.results[r.Record]; twice {
			l.p.addf("%s was settled twice", r.Record.KeyText())
		}
		if r.Outcome >= record.NumOutcomes || r.Outcome == record.Filtered {
			l.p.addf("%s: outcome %d is none of a sink", r.Record.KeyText(), r.Outcome)
		}
		if (r.Err != nil) != (r.Outcome == record.Dead) {
			l.p.addf("%s: outcome %s with error %v", r.Record.KeyText(), r.Outcome, r.Err)
		}
		if r.Attempts < 1 {
			l.p.addf("%s: settled after %d attempts", r.Record.KeyText(), r.Attempts)
		}
		l.results[r.Record] = r
	}
}

func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.results)
}

// await waits until so many records are settled; it answers false when that takes too long.
func (l *ledger) await(limit time.Duration, n int) bool {
	for end := time.Now().Add(limit); l.len() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func (l *ledger) get(r *record.Record) (connector.Result, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	res, ok := l.results[r]
	return res, ok
}

// complete checks that exactly these records were settled, each with one of the outcomes.
func (l *ledger) complete(records []*record.Record, outcomes ...record.Outcome) {
	for _, r := range records {
		res, ok := l.get(r)
		if !ok {
			l.p.addf("%s was never settled", r.KeyText())
			continue
		}
		if !allowed(res.Outcome, outcomes) {
			l.p.addf("%s at version Base%+d: outcome %s (%v), want one of %v", r.KeyText(), r.Version-Base, res.Outcome,
				res.Err, outcomes)
		}
	}
	if n := l.len(); n > len(records) {
		l.p.addf("%d results for %d records", n, len(records))
	}
}

func allowed(o record.Outcome, among []record.Outcome) bool {
	for _, a := range among {
		if a == o {
			return true
		}
	}
	return false
}

// taken are the outcomes of a write that has its effect, now or earlier.
var taken = []record.Outcome{record.Written, record.Unchanged}

// written is the number of records with outcome Written.
func (l *ledger) written() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.results {
		if r.Outcome == record.Written {
			n++
		}
	}
	return n
}

// writeAll writes one bundle and checks the parts; false after an error.
func (p *sinkProbe) writeAll(
	s connector.Sink, run connector.Run, l *ledger, records []*record.Record,
) (parts [][]byte, ok bool) {
	w, err := s.Open(p.ctx, run, p.Schema, l.settle)
	if err != nil {
		p.addf("Open: %v", err)
		return nil, false
	}
	defer func() {
		if err := w.Close(); err != nil {
			p.addf("Close of the writer: %v", err)
		}
		l.close()
	}()
	for _, r := range records {
		if err := w.Write(p.ctx, r); err != nil {
			p.addf("Write: %v", err)
			return nil, false
		}
	}
	parts, err = w.Flush(p.ctx)
	if err != nil {
		p.addf("Flush: %v", err)
		return nil, false
	}
	p.checkParts(s, parts)
	return parts, true
}

func (p *sinkProbe) checkParts(s connector.Sink, parts [][]byte) {
	if _, commits := s.(connector.Committer); !commits && len(parts) > 0 {
		p.addf("Flush gave %d parts, but the sink has no Commit", len(parts))
	}
	for _, part := range parts {
		if len(part) > 1<<20 {
			p.addf("a part of %d bytes, more than 1 MiB", len(part))
		}
	}
}

// commit commits where the sink does so.
func (p *sinkProbe) commit(s connector.Sink, run connector.Run, parts [][]byte, want int64) {
	c, ok := s.(connector.Committer)
	if !ok {
		return
	}
	n, err := c.Commit(p.ctx, run, p.Schema, parts)
	if err != nil {
		p.addf("Commit: %v", err)
		return
	}
	if n != want {
		p.addf("Commit tells of %d records, %d were written", n, want)
	}
}

// put writes records as one run of one bundle and checks that each is settled once with one of the outcomes.
func (p *sinkProbe) put(s connector.Sink, records []*record.Record, outcomes ...record.Outcome) *ledger {
	return p.putAs(s, p.run(), records, outcomes...)
}

// putAs is put as a certain run.
func (p *sinkProbe) putAs(s connector.Sink, run connector.Run, records []*record.Record,
	outcomes ...record.Outcome) *ledger {
	l := p.ledger()
	if parts, ok := p.writeAll(s, run, l, records); ok {
		l.complete(records, outcomes...)
		p.commit(s, run, parts, l.written())
	}
	return l
}

// holds checks that the target holds exactly what these records say, the last one for a key counting.
func (p *sinkProbe) holds(when string, records ...*record.Record) {
	p.t.Helper()
	got := p.Read(p.t, p.target)
	want := map[string]string{}
	for _, r := range records {
		if r.Op == record.Delete {
			delete(want, r.KeyText())
		} else {
			want[r.KeyText()] = JSON(r)
		}
	}
	compare(&p.problems, when, p.Schema, got, want)
}

func compare(p *problems, when string, schema *record.Schema, got, want map[string]string) {
	for key, text := range want {
		found, ok := got[key]
		if !ok {
			p.addf("%s: %.100q is missing", when, key)
			continue
		}
		if found == text {
			continue
		}
		a, err := Canonical(schema, found)
		if err != nil {
			p.addf("%s: %.100q: %v", when, key, err)
			continue
		}
		if b, _ := Canonical(schema, text); a != b {
			p.addf("%s: %.100q is\n  %.600s, want\n  %.600s", when, key, a, b)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			p.addf("%s: %.100q is there and must not be", when, key)
		}
	}
}

// count is the number of entries, with repeated ones.
func (p *sinkProbe) count() int {
	if p.Count != nil {
		return p.Count(p.t, p.target)
	}
	return len(p.Read(p.t, p.target))
}

// within runs f and tells whether it returned in time; if not, f goes on.
func within(limit time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// refusal checks that a result is that of a dead letter: permanent and with a code.
func (p *sinkProbe) refusal(res connector.Result) {
	switch {
	case res.Outcome != record.Dead:
		p.addf("the refused record: outcome %s, want dead", res.Outcome)
	case fail.ClassOf(res.Err) != fail.Permanent:
		p.addf("the refused record: class %s, want permanent: %v", fail.ClassOf(res.Err), res.Err)
	case fail.CodeOf(res.Err) == "unknown" || fail.CodeOf(res.Err) == "":
		p.addf("the refused record: no code: %v", res.Err)
	}
}
