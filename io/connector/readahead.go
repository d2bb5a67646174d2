package connector

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Window bounds what is read and not yet done with.
type Window struct {
	Readers int   // queues read at once
	Bytes   int64 // of pages in memory: read, and not released
}

// Item is what ReadAhead hands on: a page, or the end of a split.
type Item struct {
	Queue int // of those given to ReadAhead
	Split int // of the queue
	Page  Page
	Held  int64 // bytes that the page takes of the window until it is released
	End   bool  // the split has been read to its end; Page is empty
	Err   error
}

// Ahead reads ahead of whoever takes its items.
type Ahead struct {
	Items <-chan Item // closed after the last one; one with an Err is the last, and has nothing else

	items   chan Item
	cancel  context.CancelFunc
	readers sync.WaitGroup
	window  Window
	bytes   *semaphore.Weighted
	waiting atomic.Int32
	dropped []atomic.Bool
	next    atomic.Int64
	failed  sync.Once
	err     error // the first; to be read once the readers have ended
}

// ReadAhead reads queues of splits side by side: the splits of one queue one after the other, its pages in order,
// those of different queues as they come. Each page stays within the window until it is released. Whoever takes items
// takes all of them, or calls Stop.
func ReadAhead(ctx context.Context, source Source, queues [][]Split, w Window) *Ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &Ahead{items: make(chan Item), cancel: cancel, window: w, bytes: semaphore.NewWeighted(w.Bytes),
		dropped: make([]atomic.Bool, len(queues))}
	a.Items = a.items
	for range min(max(1, w.Readers), len(queues)) {
		a.readers.Add(1)
		go a.read(ctx, source, queues)
	}
	go func() {
		a.readers.Wait()
		if a.err != nil {
			a.items <- Item{Err: a.err}
		}
		close(a.items)
	}()
	return a
}

func (a *Ahead) read(ctx context.Context, source Source, queues [][]Split) {
	defer a.readers.Done()
	for {
		q := int(a.next.Add(1)) - 1
		if q >= len(queues) {
			return
		}
		for i, split := range queues[q] {
			err := source.Read(ctx, split, func(p Page) error {
				if a.dropped[q].Load() {
					return errDropped
				}
				if p.Asked.IsZero() {
					p.Asked = time.Now()
				}
				held, err := a.acquire(ctx, p)
				if err != nil {
					return err
				}
				return a.hand(ctx, Item{Queue: q, Split: i, Page: p, Held: held})
			})
			if errors.Is(err, errDropped) {
				break
			}
			if err == nil {
				err = a.hand(ctx, Item{Queue: q, Split: i, End: true})
			}
			if err != nil {
				a.failed.Do(func() { a.err = err })
				a.cancel()
				return
			}
		}
	}
}

var errDropped = errors.New("the rest of the queue is not wanted")

func (a *Ahead) hand(ctx context.Context, it Item) error {
	select {
	case a.items <- it:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// acquire waits until there is room for a page. One that is larger than the window takes all of it.
func (a *Ahead) acquire(ctx context.Context, p Page) (int64, error) {
	held := min(p.Bytes, a.window.Bytes)
	if a.bytes.TryAcquire(held) {
		return held, nil
	}
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	return held, a.bytes.Acquire(ctx, held)
}

// Release tells that nobody holds the records of a page any more, with what its item held.
func (a *Ahead) Release(held int64) { a.bytes.Release(held) }

// Waits tells whether a reader has a page that does not fit into the window.
func (a *Ahead) Waits() bool { return a.waiting.Load() > 0 }

// Drop ends the reading of a queue; items of it that were read already may still come.
func (a *Ahead) Drop(queue int) { a.dropped[queue].Store(true) }

// Stop ends all reading and returns when it has ended.
func (a *Ahead) Stop() {
	a.cancel()
	for range a.items {
	}
}
