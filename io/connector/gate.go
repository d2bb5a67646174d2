package connector

import "context"

// Gate is what every request to one system passes, also one that is tried again. It holds requests back while the run
// is paused, faster than its rate, or while the system is down.
type Gate interface {
	// Enter waits until a request may be sent that carries some records and bytes. It fails when ctx ends, or when the
	// system has been down for longer than the run waits for it; the error is then that of the last request.
	//
	// The caller calls leave once the request has ended: with its error (nil: it went well), and with the records and
	// bytes that came back, where they were not known before.
	Enter(ctx context.Context, records int, bytes int64) (leave func(records int, bytes int64, err error), err error)
}

// Measure is a Gate that says how large requests should be, so that a rate is kept from one moment to the next as well.
type Measure interface {
	Gate

	// Largest is what a request should carry at most; 0: it may be as large as it likes.
	Largest() (records int, bytes int64)
}

// Largest asks the gate of a context.
func Largest(ctx context.Context) (records int, bytes int64) {
	if m, ok := ctx.Value(gateKey{}).(Measure); ok {
		return m.Largest()
	}
	return 0, 0
}

type gateKey struct{}

// WithGate gives a context whose requests pass a gate. It travels in the context, as a deadline does, since it concerns
// the requests alone. A sink's writer uses that of the context it was opened with, a source that of Read.
func WithGate(ctx context.Context, g Gate) context.Context {
	return context.WithValue(ctx, gateKey{}, g)
}

// Enter passes the gate of a context, which is open where there is none. gated tells which: behind a gate it is the
// gate that says when a system has been down for too long; without one whoever tries again keeps a deadline of its own.
func Enter(ctx context.Context, records int,
	bytes int64) (leave func(records int, bytes int64, err error), gated bool, err error) {
	g, ok := ctx.Value(gateKey{}).(Gate)
	if !ok {
		return func(int, int64, error) {}, false, nil
	}
	leave, err = g.Enter(ctx, records, bytes)
	return leave, true, err
}

// Uncounted gives a context whose requests pass the gate as others do, but whose records do not count: of a source that
// asks a second system about rows it has read, a row counts once.
func Uncounted(ctx context.Context) context.Context {
	if g, ok := ctx.Value(gateKey{}).(Gate); ok {
		return WithGate(ctx, uncounted{g})
	}
	return ctx
}

type uncounted struct{ gate Gate }

func (u uncounted) Enter(ctx context.Context, _ int, bytes int64) (func(int, int64, error), error) {
	leave, err := u.gate.Enter(ctx, 0, bytes)
	if err != nil {
		return nil, err
	}
	return func(_ int, bytes int64, err error) { leave(0, bytes, err) }, nil
}
