package iotest

import (
	"context"
	"testing"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// Sink is what a sink's own test gives to the suite.
type Sink struct {
	// Schema is that of the records; nil is AssetSchema. The suite's special texts go to its text fields outside the
	// key.
	Schema *record.Schema
	// New gives a sink to the target of that name (lower-case letters); the same name is the same target. The suite
	// calls Prepare, on one of the sinks of a target.
	New func(t *testing.T, target string) connector.Sink
	// Read is what an independent client finds: KeyText → JSON of the fields as Record.AppendJSON writes them, deleted
	// keys absent. Of several entries for a key it is the one with the highest version. A target that was prepared and
	// never written gives an empty map.
	Read func(t *testing.T, target string) map[string]string
	// Count is the number of entries, with repeated ones; nil: those of Read.
	Count func(t *testing.T, target string) int
	// Superseded: the sink tells when a newer version was there (else such a write only has no effect).
	Superseded bool
	// Triggers: the sink triggers something once for each version, and holds no rows that an earlier run could have
	// left stale.
	Triggers bool
	// Deletes: the sink applies deletes.
	Deletes bool
	// Refused is a new record that this system refuses for itself alone; nil: none exists.
	Refused func() *record.Record
	// Server is a server of the test's own that may be disturbed; nil: none.
	Server Server
}

// Server is a server that a check may disturb. Each method returns when its effect is there.
type Server interface {
	Pause()
	Resume()
	Stop()
	Start()
}

// TestSink checks that a sink keeps the contract of package connector, one subtest for each ability.
func TestSink(t *testing.T, s Sink) { testSink(t, s, 20*time.Second, 2*time.Second) }

func testSink(t *testing.T, s Sink, prompt, still time.Duration) {
	for _, c := range sinkChecks {
		if c.needs != nil && !c.needs(t, s) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, problem := range s.check(t, c, prompt, still) {
				t.Error(problem)
			}
		})
	}
}

// check runs one check on a target of its own.
func (s Sink) check(t *testing.T, c sinkCheck, prompt, still time.Duration) []string {
	if s.Schema == nil {
		s.Schema = AssetSchema()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience*prompt)
	defer cancel()
	p := &sinkProbe{Sink: s, t: t, ctx: ctx, target: c.name, prompt: prompt, still: still}
	c.run(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list
}

type sinkCheck struct {
	name  string
	needs func(t *testing.T, s Sink) bool
	run   func(p *sinkProbe)
}

var sinkChecks = []sinkCheck{
	{"prepare", nil, checkPrepare},
	{"write", nil, checkWrite},
	{"values", nil, checkValues},
	{"replace", nil, checkReplace},
	{"again", nil, checkAgain},
	{"versions", nil, checkVersions},
	{"floor", func(_ *testing.T, s Sink) bool { return !s.Triggers }, checkFloor},
	{"deletes", func(_ *testing.T, s Sink) bool { return s.Deletes }, checkDeletes},
	{"live", nil, checkLive},
	{"refused", func(_ *testing.T, s Sink) bool { return s.Refused != nil }, checkRefused},
	{"many", nil, checkMany},
	{"writers", nil, checkWriters},
	{"cancel", nil, checkCancel},
	{"commit", commits, checkCommit},
	{"checkpoint", nil, checkCheckpoint},
	{"shut", nil, checkShut},
	{"gate", nil, checkGate},
	{"outage", disturbs, checkOutage},
	{"pause", disturbs, checkPause},
	{"stop", disturbs, checkStop},
	{"bound", disturbs, checkBound},
}

func disturbs(_ *testing.T, s Sink) bool { return s.Server != nil }

func commits(t *testing.T, s Sink) bool {
	sink := s.New(t, "commit")
	defer sink.Close()
	_, ok := sink.(connector.Committer)
	return ok
}
