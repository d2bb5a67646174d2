package connector_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// pages is a source whose splits have as many pages as their Rows say, each of a row and some
// bytes; it counts what it has read.
type pages struct {
	connector.Source
	bytes int64
	fail  error // of the third page of a split
	read  atomic.Int64
}

func (s *pages) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	for i := range int(split.Rows) {
		if s.fail != nil && i == 2 {
			return s.fail
		}
		s.read.Add(1)
		if err := page(connector.Page{Last: []byte{byte(i + 1)}, Bytes: s.bytes,
			Records: []*record.Record{{}}}); err != nil {
			return err
		}
	}
	return nil
}

// queues are n queues of as many splits with as many pages each.
func queues(n, splits, pages int) [][]connector.Split {
	all := make([][]connector.Split, n)
	for q := range all {
		for i := range splits {
			all[q] = append(all[q], connector.Split{Partition: fmt.Sprint(q, ".", i), Rows: int64(pages)})
		}
	}
	return all
}

// TestReadAhead releases pages at random moments and in a random order: every page comes once and in order within its
// queue, and no more is read than the window and one page of each reader.
func TestReadAhead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		work := make([][]connector.Split, rapid.IntRange(0, 5).Draw(t, "queues"))
		type page struct{ split, last int }
		want := make([][]page, len(work))
		for q := range work {
			for i, n := range rapid.SliceOfN(rapid.IntRange(0, 6), 1, 3).Draw(t, "pages") {
				work[q] = append(work[q], connector.Split{Partition: fmt.Sprint(q), Rows: int64(n)})
				for p := range n {
					want[q] = append(want[q], page{i, p + 1})
				}
				want[q] = append(want[q], page{i, 0}) // its end
			}
		}
		w := connector.Window{Readers: rapid.IntRange(1, 4).Draw(t, "readers"),
			Bytes: rapid.Int64Range(1, 60).Draw(t, "bytes")}
		source := &pages{bytes: 10}
		room := max(1, w.Bytes/10) // pages
		a := connector.ReadAhead(t.Context(), source, work, w)
		var held []int64
		released := int64(0)
		free := func() {
			i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
			// Before the release, which lets readers go on.
			if read := source.read.Load(); read-released > room+int64(w.Readers) {
				t.Fatalf("%d pages were read and not released", read-released)
			}
			released++
			a.Release(held[i])
			held = append(held[:i], held[i+1:]...)
		}
		for {
			for len(held) > 0 && rapid.Bool().Draw(t, "release") {
				free()
			}
			for int64(len(held)) >= room {
				free()
			}
			it, more := <-a.Items
			if !more {
				break
			}
			last := 0
			if !it.End {
				last = int(it.Page.Last[0])
				held = append(held, it.Held)
			}
			if it.Err != nil || len(want[it.Queue]) == 0 || want[it.Queue][0] != (page{it.Split, last}) {
				t.Fatalf("%+v came, not %v", it, want[it.Queue])
			}
			want[it.Queue] = want[it.Queue][1:]
		}
		for q := range want {
			if len(want[q]) > 0 {
				t.Errorf("queue %d: %v did not come", q, want[q])
			}
		}
		a.Stop()
	})
}

// What does not fit into the window waits, and tells so, until there is room.
func TestReadAheadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const readers, room = 2, 4
		source := &pages{bytes: 10}
		a := connector.ReadAhead(t.Context(), source, queues(readers, 1, 20),
			connector.Window{Readers: readers, Bytes: 49})
		comes := func() bool {
			synctest.Wait()
			select {
			case <-a.Items:
				return true
			default:
				return false
			}
		}
		var held int64
		for range room {
			held = (<-a.Items).Held
		}
		if comes() || !a.Waits() || source.read.Load() != room+readers {
			t.Errorf("the window is full: %d pages were read, waits: %t", source.read.Load(), a.Waits())
		}
		a.Release(held)
		if !comes() {
			t.Error("bytes were released, and no page comes")
		}
		a.Stop()
		if a.Waits() {
			t.Error("a reader waits after Stop")
		}
	})
}

// A page larger than the window passes, alone.
func TestReadAheadLargePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := connector.ReadAhead(t.Context(), &pages{bytes: 1000}, queues(3, 1, 5),
			connector.Window{Readers: 3, Bytes: 10})
		for n := 0; ; {
			it, more := <-a.Items
			if !more {
				if n != 15 {
					t.Errorf("%d pages came", n)
				}
				return
			}
			if it.End {
				continue
			}
			n++
			synctest.Wait()
			select {
			case it := <-a.Items:
				if !it.End {
					t.Error("two large pages are held at once")
				}
			default:
			}
			a.Release(it.Held)
		}
	})
}

// Of a dropped queue at most what was read already comes; the others come whole.
func TestReadAheadDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := connector.ReadAhead(t.Context(), &pages{bytes: 10}, queues(5, 2, 50),
			connector.Window{Readers: 3, Bytes: 1000})
		pages, ends := map[int]int{}, map[int]int{}
		for it := range a.Items {
			if it.End {
				ends[it.Queue]++
				continue
			}
			pages[it.Queue]++
			a.Release(it.Held)
			if it.Queue == 1 {
				a.Drop(1)
			}
		}
		for q := range 5 {
			if q == 1 {
				if pages[q] > 2 || ends[q] > 0 {
					t.Errorf("of the dropped queue came %d pages and %d ends", pages[q], ends[q])
				}
			} else if pages[q] != 100 || ends[q] != 2 {
				t.Errorf("queue %d: %d pages and %d ends", q, pages[q], ends[q])
			}
		}
	})
}

// Stop returns once nobody reads any more, whatever the readers wait for; synctest finds those that stay behind.
func TestReadAheadStop(t *testing.T) {
	for name, taken := range map[string]int{"nothing taken": 0, "some taken": 2, "the window full": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := &pages{bytes: 10}
				a := connector.ReadAhead(t.Context(), source, queues(4, 2, 9), connector.Window{Readers: 4, Bytes: 30})
				for range taken {
					<-a.Items
				}
				synctest.Wait()
				a.Stop()
				n := source.read.Load()
				synctest.Wait()
				if source.read.Load() != n {
					t.Error("it is still read after Stop")
				}
				a.Stop() // again changes nothing
				if _, more := <-a.Items; more {
					t.Error("an item comes after Stop")
				}
			})
		})
	}
}

// An error is the last item, and the first error is that one.
func TestReadAheadErrors(t *testing.T) {
	broken := errors.New("broken")
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a := connector.ReadAhead(t.Context(), &pages{bytes: 10, fail: broken}, queues(5, 2, 9),
				connector.Window{Readers: 3, Bytes: 1000})
			var last connector.Item
			for it := range a.Items {
				if last.Err != nil {
					t.Fatalf("%+v comes after an error", it)
				}
				last = it
			}
			if !errors.Is(last.Err, broken) {
				t.Errorf("the last item: %+v", last)
			}
		})
	}
}

func TestReadAheadCancelled(t *testing.T) {
	for name, w := range map[string]connector.Window{"room": {Readers: 2, Bytes: 1000},
		"full": {Readers: 2, Bytes: 10}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				a := connector.ReadAhead(ctx, &pages{bytes: 10}, queues(5, 2, 9), w)
				<-a.Items
				synctest.Wait()
				cancel()
				var err error
				for it := range a.Items {
					err = it.Err
				}
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the last error: %v", err)
				}
			})
		})
	}
}
