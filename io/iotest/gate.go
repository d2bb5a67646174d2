package iotest

import (
	"context"
	"sync"

	"reprise/io/connector"
)

// Gate is a gate that counts what passes, and can be shut.
type Gate struct {
	mu    sync.Mutex
	opens chan struct{} // closed while the gate is open
	count Passed
	moved chan struct{} // closed when something is counted
}

// Passed is what a gate has seen so far.
type Passed struct {
	Waiting int   // requests that wait
	Entered int   // requests
	Left    int   // of those, the ended ones
	Twice   int   // calls of leave too many
	Records int64 // as told at Enter and at leave
	Bytes   int64
	Errors  []error // told at leave
}

// NewGate gives an open gate.
func NewGate() *Gate {
	g := &Gate{opens: make(chan struct{}), moved: make(chan struct{})}
	close(g.opens)
	return g
}

// Shut lets requests wait until Open.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opens = make(chan struct{})
}

// Open ends a Shut.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.opens)
}

// Passed is what the gate has seen so far.
func (g *Gate) Passed() Passed {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}

// Wait waits until what has passed is enough, or ctx ends.
func (g *Gate) Wait(ctx context.Context, enough func(Passed) bool) error {
	for {
		g.mu.Lock()
		count, moved := g.count, g.moved
		g.mu.Unlock()
		if enough(count) {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// note changes the count.
func (g *Gate) note(change func(*Passed)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.count)
	close(g.moved)
	g.moved = make(chan struct{})
}

// Enter implements connector.Gate.
func (g *Gate) Enter(ctx context.Context, records int, bytes int64) (func(int, int64, error), error) {
	g.mu.Lock()
	opens := g.opens
	g.mu.Unlock()
	g.note(func(p *Passed) { p.Waiting++ })
	select {
	case <-opens:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		g.note(func(p *Passed) { p.Waiting-- })
		return nil, context.Cause(ctx)
	}
	g.note(func(p *Passed) {
		p.Waiting--
		p.Entered++
		p.Records, p.Bytes = p.Records+int64(records), p.Bytes+bytes
	})
	left := false
	return func(records int, bytes int64, err error) {
		g.note(func(p *Passed) {
			if left {
				p.Twice++
				return
			}
			left = true
			p.Left++
			p.Records, p.Bytes = p.Records+int64(records), p.Bytes+bytes
			if err != nil {
				p.Errors = append(p.Errors[:len(p.Errors):len(p.Errors)], err)
			}
		})
	}, nil
}

var _ connector.Gate = (*Gate)(nil)
