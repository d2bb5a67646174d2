package iotest

import (
	"context"
	"errors"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// A checkpoint sends everything on its way: it is settled without a Flush, and Checkpoint does not wait for it. A sink
// that commits has settled it when Checkpoint returns, and what was handed out outlives the writer.
func checkCheckpoint(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	if _, commits := s.(connector.Committer); commits {
		p.checkpointParts(s)
	} else {
		p.checkpointSends(s)
	}
}

func (p *sinkProbe) checkpointSends(s connector.Sink) {
	gate, l := NewGate(), p.ledger()
	w, err := s.Open(connector.WithGate(p.ctx, gate), p.run(), p.Schema, l.settle)
	if err != nil {
		p.addf("Open: %v", err)
		return
	}
	records := Records(p.Schema, 0, 10, Base)
	gate.Shut()
	p.writeTo(w, records)
	var parts [][]byte
	if !within(p.prompt, func() { parts, err = w.Checkpoint(p.ctx) }) {
		p.addf("Checkpoint waits for the system for more than %s", p.prompt)
		gate.Open()
		_ = w.Close() // no more is written beside the Checkpoint
		return
	}
	if err != nil || len(parts) > 0 {
		p.addf("Checkpoint gave %d parts and %v, want none", len(parts), err)
	}
	gate.Open()
	if !l.await(p.prompt, len(records)) {
		p.addf("after Checkpoint %d of %d records are settled without a Flush within %s", l.len(), len(records),
			p.prompt)
	}
	more := Records(p.Schema, 10, 10, Base)
	p.writeTo(w, more)
	p.finish(s, p.run(), w, l, append(records, more...))
	p.holds("after a checkpoint", append(records, more...)...)
}

func (p *sinkProbe) checkpointParts(s connector.Sink) {
	const each = 100
	at := func(from, windows int) []*record.Record { return Records(p.Schema, from*each, windows*each, Base) }
	// attempt writes windows from one on, each with a checkpoint; where it crashes, some more records, which are lost.
	attempt := func(run connector.Run, from, windows int, crash bool) (parts [][][]byte) {
		l := p.ledger()
		w, err := p.newSink().Open(p.ctx, run, p.Schema, l.settle)
		if err != nil {
			p.addf("Open: %v", err)
			return make([][][]byte, windows)
		}
		for i := range windows {
			records := at(from+i, 1)
			p.writeTo(w, records)
			more, err := w.Checkpoint(p.ctx)
			if err != nil {
				p.addf("Checkpoint: %v", err)
			}
			for _, r := range records {
				if _, ok := l.get(r); !ok {
					p.addf("%s was not settled when Checkpoint returned", r.KeyText())
				}
			}
			p.checkParts(s, more)
			parts = append(parts, more)
		}
		if crash {
			p.writeTo(w, at(1000, 1))
		} else if more, err := w.Flush(p.ctx); err != nil || len(more) > 0 {
			p.addf("Flush after a checkpoint gave %d parts and %v", len(more), err)
		}
		if err := w.Close(); err != nil {
			p.addf("Close of the writer: %v", err)
		}
		return parts
	}
	join := func(windows ...[][]byte) (all [][]byte) {
		for _, parts := range windows {
			all = append(all, parts...)
		}
		return all
	}

	run := p.run()
	first := attempt(run, 0, 3, true)
	p.commit(p.newSink(), run, join(first[:2]...), 2*each)
	p.holds("after a Commit of the first two checkpoints", at(0, 2)...)

	// The run goes on after that, and commits again with all parts.
	second := attempt(run, 2, 2, true)
	all := join(append(first[:2:2], second...)...)
	p.commit(p.newSink(), run, all, 4*each)
	p.holds("after a Commit of two attempts", at(0, 4)...)
	third := attempt(run, 4, 1, false)
	all = join(append([][][]byte{all}, third...)...)
	var committing sync.WaitGroup
	for range 3 {
		c := p.newSink()
		committing.Go(func() { p.commit(c, run, all, 5*each) })
	}
	committing.Wait()
	p.commit(p.newSink(), run, all, 5*each)
	p.holds("after concurrent Commits of three attempts", at(0, 5)...)
	if n := p.count(); n != 5*each {
		p.addf("%d entries after Commits of %d records", n, 5*each)
	}
}

// No request passes a gate that is shut, and waiting for it can be cancelled.
func checkShut(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	records := Records(p.Schema, 0, 50, Base)
	gate := NewGate()
	gate.Shut()
	ctx, cancel := context.WithCancel(connector.WithGate(p.ctx, gate))
	defer cancel()
	l := p.ledger()
	var writing sync.WaitGroup
	var failure error
	writing.Go(func() {
		w, err := s.Open(ctx, p.run(), p.Schema, l.settle)
		if err != nil {
			failure = err
			return
		}
		defer w.Close()
		for _, r := range records {
			if failure = w.Write(ctx, r); failure != nil {
				return
			}
		}
		_, failure = w.Flush(ctx)
	})
	if err := gate.Wait(p.ctx, func(c Passed) bool { return c.Waiting > 0 }); err != nil {
		p.addf("nothing comes to the gate: %v", err)
	}
	if n := l.len(); n > 0 {
		p.addf("%d records were settled behind a gate that is shut", n)
	}
	p.holds("behind a gate that is shut")
	cancel()
	if !within(p.prompt, writing.Wait) {
		p.addf("a writer that waits for the gate does not end within %s of its cancellation", p.prompt)
		return
	}
	if failure == nil {
		p.addf("Flush returned without an error although the gate was shut")
	}
	l.close()
	if n := l.len(); n > 0 {
		p.addf("%d records were settled although the gate was shut", n)
	}
	p.put(s, records, taken...)
	p.holds("after a cancellation at the gate", records...)
}

// The gate is told of every record, and of the end of every request.
func checkGate(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	gate := NewGate()
	p.ctx = connector.WithGate(p.ctx, gate)
	records := Records(p.Schema, 0, 1000, Base)
	p.put(s, records, taken...)
	size := int64(0)
	for _, r := range records {
		size += int64(r.Size())
	}
	p.passed(gate, int64(len(records)), size)
	if errs := gate.Passed().Errors; len(errs) > 0 {
		p.addf("the gate was told of errors: %v", errs)
	}
	p.holds("after writing behind a gate", records...)
}

// passed checks what a gate counted when all requests had ended.
func (p *problems) passed(gate *Gate, records, bytes int64) {
	c := gate.Passed()
	if c.Records < records || c.Bytes < bytes {
		p.addf("the gate was told of %d records and %d bytes, there were %d and %d", c.Records, c.Bytes, records, bytes)
	}
	if c.Entered == 0 || c.Left != c.Entered || c.Twice > 0 {
		p.addf("of %d requests %d have left the gate, %d times again", c.Entered, c.Left, c.Twice)
	}
}

// The gate is told of requests that fail, and of those that are tried again.
func checkOutage(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	gate := NewGate()
	p.ctx = connector.WithGate(p.ctx, gate)
	records := Records(p.Schema, 0, 100, Base)
	run, l := p.run(), p.ledger()
	w, err := s.Open(p.ctx, run, p.Schema, l.settle)
	if err != nil {
		p.addf("Open: %v", err)
		return
	}
	p.Server.Stop()
	var writing sync.WaitGroup
	writing.Go(func() {
		p.writeTo(w, records)
		p.finish(s, run, w, l, records)
	})
	if err := gate.Wait(p.ctx, func(c Passed) bool { return len(c.Errors) > 1 }); err != nil {
		p.addf("the gate does not learn that requests fail: %v", err)
	}
	p.Server.Start()
	writing.Wait()
	p.passed(gate, int64(len(records))+1, 0)
	for _, err := range gate.Passed().Errors {
		if errors.Is(err, context.Canceled) {
			p.addf("the gate was told of %v", err)
		}
	}
	p.holds("after requests that failed", records...)
}

func (p *sinkProbe) writeTo(w connector.Writer, records []*record.Record) {
	for _, r := range records {
		if err := w.Write(p.ctx, r); err != nil {
			p.addf("Write: %v", err)
			return
		}
	}
}

// Nothing is read behind a gate that is shut, and the gate is told of what was read.
func checkReadGate(p *sourceProbe) {
	splits := p.plan(connector.PlanOptions{})
	if len(splits) == 0 {
		return
	}
	gate := NewGate()
	gate.Shut()
	ctx, cancel := context.WithCancel(connector.WithGate(p.ctx, gate))
	defer cancel()
	var reading sync.WaitGroup
	var failure error
	pages := 0
	reading.Go(func() {
		for _, s := range splits {
			if failure = p.source.Read(ctx, s, func(connector.Page) error { pages++; return nil }); failure != nil {
				return
			}
		}
	})
	if err := gate.Wait(p.ctx, func(c Passed) bool { return c.Waiting > 0 }); err != nil {
		p.addf("nothing comes to the gate: %v", err)
	}
	cancel()
	if !within(p.prompt, reading.Wait) {
		p.addf("Read does not end within %s of its cancellation at the gate", p.prompt)
		return
	}
	if failure == nil || pages > 0 {
		p.addf("%d pages came through a gate that is shut, and %v", pages, failure)
	}

	gate = NewGate()
	p.ctx = connector.WithGate(p.ctx, gate)
	got := p.sightings()
	for _, s := range splits {
		p.read(s, got)
	}
	p.complete("behind a gate", got)
	records := int64(0)
	for _, n := range got.seen {
		records += int64(n)
	}
	p.passed(gate, records, min(records, 1))
}
