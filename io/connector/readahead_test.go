package connector_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// pages is a source of splits with a number of pages each; it counts the bytes of pages handed over and not yet taken.
type pages struct {
	connector.Source
	perSplit int
	held     atomic.Int64
	most     atomic.Int64
	fail     error
}

func (s *pages) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	for i := range s.perSplit {
		if s.fail != nil && i == 2 {
			return s.fail
		}
		n := s.held.Add(1)
		for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
		}
		if err := page(connector.Page{Last: []byte{byte(i + 1)}, Bytes: 10, Records: []*record.Record{{}}}); err != nil {
			return err
		}
	}
	return nil
}

func splits(n int) []connector.Split {
	all := make([]connector.Split, n)
	for i := range all {
		all[i].Partition = fmt.Sprint(i)
	}
	return all
}

func TestReadAhead(t *testing.T) {
	s := &pages{perSplit: 20}
	last, ends := map[int]byte{}, map[int]int{}
	err := connector.ReadAhead(t.Context(), s, splits(9), connector.Ahead{Readers: 4, Bytes: 30}, func(i int, p connector.Page, end bool) (bool, error) {
		if end {
			ends[i]++
			return true, nil
		}
		s.held.Add(-1)
		if p.Last[0] != last[i]+1 {
			t.Errorf("split %d: page %d after %d", i, p.Last[0], last[i])
		}
		last[i] = p.Last[0]
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if last[i] != 20 || ends[i] != 1 {
			t.Errorf("split %d: %d pages, %d ends", i, last[i], ends[i])
		}
	}
	// Three pages fit the budget; beside those each of the four readers may hold one, and one is being taken.
	if most := s.most.Load(); most > 3+4+1 {
		t.Errorf("%d pages were held at once", most)
	}
}

func TestReadAheadDropsSplit(t *testing.T) {
	taken := map[int]int{}
	err := connector.ReadAhead(t.Context(), &pages{perSplit: 50}, splits(3), connector.Ahead{Readers: 3, Bytes: 1000}, func(i int, _ connector.Page, end bool) (bool, error) {
		if !end {
			taken[i]++
		}
		return i != 1, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if taken[0] != 50 || taken[2] != 50 || taken[1] != 1 {
		t.Errorf("taken: %v", taken)
	}
}

func TestReadAheadErrors(t *testing.T) {
	broken := errors.New("broken")
	for name, err := range map[string]error{
		"of the source": connector.ReadAhead(t.Context(), &pages{perSplit: 9, fail: broken}, splits(5), connector.Ahead{Readers: 2, Bytes: 100},
			func(int, connector.Page, bool) (bool, error) { return true, nil }),
		"of take": connector.ReadAhead(t.Context(), &pages{perSplit: 9}, splits(5), connector.Ahead{Readers: 2, Bytes: 100},
			func(int, connector.Page, bool) (bool, error) { return true, broken }),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	err := connector.ReadAhead(ctx, &pages{perSplit: 9}, splits(5), connector.Ahead{Readers: 2, Bytes: 100},
		func(int, connector.Page, bool) (bool, error) { once.Do(cancel); return true, nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
