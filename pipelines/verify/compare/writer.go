package compare

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// mostSuspects are kept by one writer, and read again for one sink: their list is held in memory.
const mostSuspects = 100_000

// Suspect is a row of a target that has been found wrong once.
type Suspect struct {
	Kind   Kind   `json:"kind"`
	Key    []byte `json:"key"`              // of the target's row, by encodeKey
	Source []byte `json:"source,omitempty"` // of the source's row; nil: not known
	Digest []byte `json:"digest"`           // of what was read on both sides
}

// Found is what a sink of a verification hands on to be committed.
type Found struct {
	Wrong    int64 // records that do not match
	Unkept   int64 // suspects that were too many to be kept
	Foreign  int64 // records that do not hold the key of their row at the source in fields of the same names
	Tally    Tally // of the target's keys
	Suspects []Suspect
}

// part is Found as it is stored.
type part struct {
	Wrong    int64     `json:"wrong,omitempty"`
	Unkept   int64     `json:"unkept,omitempty"`
	Foreign  int64     `json:"foreign,omitempty"`
	Tally    []byte    `json:"tally,omitempty"`
	Suspects []Suspect `json:"suspects,omitempty"`
}

// parts are what is to be committed, in pieces that every journal takes.
func (f *Found) parts() (bodies [][]byte, err error) {
	const enough = 100 // suspects: some 20 KB
	first := part{Wrong: f.Wrong, Unkept: f.Unkept, Foreign: f.Foreign}
	if first.Tally, err = f.Tally.MarshalBinary(); err != nil {
		return nil, err
	}
	for rest := f.Suspects; ; {
		n := min(enough, len(rest))
		first.Suspects, rest = rest[:n], rest[n:]
		body, err := json.Marshal(first)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
		if first = (part{}); len(rest) == 0 {
			return bodies, nil
		}
	}
}

// empty tells whether there is nothing to be committed.
func (f *Found) empty() bool { return f.Wrong+f.Foreign == 0 && len(f.Tally) == 0 }

// Collect adds up what the writers of a run have committed.
func Collect(bodies [][]byte) (*Found, error) {
	f := &Found{Tally: Tally{}}
	for _, body := range bodies {
		var p part
		var tally Tally
		if err := json.Unmarshal(body, &p); err != nil {
			return nil, fmt.Errorf("a part of a verification: %w", err)
		}
		if err := tally.UnmarshalBinary(p.Tally); err != nil {
			return nil, err
		}
		f.Tally.Merge(tally)
		f.Wrong, f.Unkept, f.Foreign = f.Wrong+p.Wrong, f.Unkept+p.Unkept, f.Foreign+p.Foreign
		room := max(0, mostSuspects-len(f.Suspects))
		if n := len(p.Suspects) - room; n > 0 {
			f.Unkept += int64(n)
			p.Suspects = p.Suspects[:room]
		}
		f.Suspects = append(f.Suspects, p.Suspects...)
	}
	return f, nil
}

// committed is the number of records that the parts of a run count as wrong.
func committed(bodies [][]byte) (int64, error) {
	f, err := Collect(bodies)
	if err != nil {
		return 0, err
	}
	return f.Wrong, nil
}

// look says how each record of a batch ended, and adds what it finds; its error is final.
type look func(ctx context.Context, batch []*record.Record) (ended []connector.Result, found *Found, err error)

// batchRows are looked at together, and so many batches at once.
const (
	batchRows   = 200
	batchesOnce = 3
)

// writer looks at records in batches. It settles them once they have been looked at; what was found is handed on by a
// checkpoint.
type writer struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	settle connector.Settle
	look   look
	batch  []*record.Record
	slots  chan struct{}
	flying sync.WaitGroup

	mu    sync.Mutex
	found *Found // since the last checkpoint
	kept  int    // suspects of the writer's whole life
}

func newWriter(ctx context.Context, settle connector.Settle, look look) *writer {
	w := &writer{settle: settle, look: look, slots: make(chan struct{}, batchesOnce), found: &Found{Tally: Tally{}}}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// Write implements connector.Writer.
func (w *writer) Write(ctx context.Context, r *record.Record) error {
	if w.batch = append(w.batch, r); len(w.batch) < batchRows {
		return nil
	}
	return w.send(ctx)
}

func (w *writer) send(ctx context.Context) error {
	if len(w.batch) == 0 {
		return context.Cause(w.ctx)
	}
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		w.cancel(context.Cause(ctx))
		return context.Cause(ctx)
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	batch := w.batch
	w.batch = make([]*record.Record, 0, batchRows)
	w.flying.Go(func() {
		defer func() { <-w.slots }()
		ended, found, err := w.look(w.ctx, batch)
		if err != nil {
			w.cancel(err)
			return
		}
		w.keep(found)
		w.settle(ended)
	})
	return nil
}

func (w *writer) keep(found *Found) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.found
	f.Tally.Merge(found.Tally)
	f.Wrong, f.Foreign = f.Wrong+found.Wrong, f.Foreign+found.Foreign
	for _, s := range found.Suspects {
		if w.kept++; w.kept > mostSuspects {
			f.Unkept++
			continue
		}
		f.Suspects = append(f.Suspects, s)
	}
}

// Checkpoint implements connector.Writer.
func (w *writer) Checkpoint(ctx context.Context) ([][]byte, error) {
	if err := w.send(ctx); err != nil {
		return nil, err
	}
	connector.Await(ctx, &w.flying, w.cancel)
	if w.ctx.Err() != nil {
		return nil, context.Cause(w.ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	found := w.found
	w.found = &Found{Tally: Tally{}}
	if found.empty() {
		return nil, nil
	}
	return found.parts()
}

// Flush implements connector.Writer.
func (w *writer) Flush(ctx context.Context) ([][]byte, error) { return w.Checkpoint(ctx) }

// Close implements connector.Writer.
func (w *writer) Close() error {
	w.cancel(context.Canceled)
	w.flying.Wait()
	return nil
}

// encodeKey is a key as bytes that keep its types.
func encodeKey(key []record.Value) []byte {
	return record.AppendValue(nil, record.Nested(record.Tuple, key))
}

func decodeKey(b []byte) ([]record.Value, error) {
	v, err := record.DecodeValue(b)
	return v.Elems(), err
}

// KeyRecord is a record with nothing but a key, as a Suspect has it.
func KeyRecord(s *record.Schema, key []byte) (*record.Record, error) {
	values, err := decodeKey(key)
	if err == nil && len(values) != len(s.Key) {
		err = fmt.Errorf("a key has %d parts, not %d", len(values), len(s.Key))
	}
	if err != nil {
		return nil, err
	}
	return keyRecord(s, values), nil
}

// keyValues are the values of a record's key.
func keyValues(r *record.Record) []record.Value {
	values := make([]record.Value, len(r.Schema.Key))
	for i, k := range r.Schema.Key {
		values[i] = r.Values[k]
	}
	return values
}
