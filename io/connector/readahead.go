package connector

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Ahead bounds what ReadAhead fetches before it is asked for.
type Ahead struct {
	Readers int   // splits read at once
	Bytes   int64 // of pages not yet taken
}

// ReadAhead reads splits side by side and hands their pages to take, one at a time, on the caller's goroutine: pages of one split
// in order, those of different splits as they come. end marks the end of a split (the page is then empty). When take
// answers false, the rest of that split is not read. It returns the first error of a read or of take.
func ReadAhead(ctx context.Context, source Source, splits []Split, o Ahead, take func(split int, p Page, end bool) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()

	type item struct {
		split int
		page  Page
		held  int64
		end   bool
		err   error
	}
	var (
		pages   = make(chan item)
		budget  = semaphore.NewWeighted(o.Bytes)
		dropped = make([]atomic.Bool, len(splits))
		next    atomic.Int64
	)
	hand := func(it item) error {
		select {
		case pages <- it:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	read := func() {
		defer readers.Done()
		for {
			i := int(next.Add(1)) - 1
			if i >= len(splits) || ctx.Err() != nil {
				return
			}
			err := source.Read(ctx, splits[i], func(p Page) error {
				if dropped[i].Load() {
					return errDropped
				}
				held := min(p.Bytes, o.Bytes)
				if err := budget.Acquire(ctx, held); err != nil {
					return err
				}
				return hand(item{split: i, page: p, held: held})
			})
			if errors.Is(err, errDropped) {
				err = nil
			}
			if hand(item{split: i, end: true, err: err}) != nil {
				return
			}
		}
	}
	for range min(max(1, o.Readers), len(splits)) {
		readers.Add(1)
		go read()
	}
	for left := len(splits); left > 0; {
		select {
		case it := <-pages:
			if it.err != nil {
				return it.err
			}
			if it.end {
				left--
			}
			if dropped[it.split].Load() {
				budget.Release(it.held)
				continue
			}
			more, err := take(it.split, it.page, it.end)
			if err != nil {
				return err
			}
			dropped[it.split].Store(!more)
			budget.Release(it.held)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

var errDropped = errors.New("the rest of the split is not wanted")
