package flow

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// request is one that waits for its answer.
type request struct {
	name  string // "sink b: write 2", the same in each run of the same order
	work  func() error
	reply chan error
}

// changes tells whether the request leaves something behind, also when its process is gone.
func (r *request) changes() bool { return !strings.Contains(r.name, ": read ") }

// scheduler holds the requests of one attempt.
type scheduler struct {
	mu      sync.Mutex
	waiting []*request
	seen    map[string]int
	free    bool   // requests are answered at once
	gone    bool   // the process is, and does nothing any more
	down    string // does not answer: "sink a"
}

func (s *scheduler) begin(free bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting, s.seen, s.free, s.gone, s.down = nil, map[string]int{}, free, false, ""
}

var errGone = fmt.Errorf("the process is gone: %w", context.Canceled)

// held are the kinds of requests that wait for the scheduler; others are answered at once.
var held = []string{"read", "write", "record", "commit", "finish"}

func (s *scheduler) serve(who string) func(context.Context, string, func() error) error {
	return func(ctx context.Context, kind string, work func() error) error {
		s.mu.Lock()
		switch {
		case s.gone:
			s.mu.Unlock()
			return errGone
		case s.down == who && kind == "write":
			s.mu.Unlock()
			return errDown
		case s.free || who == "queue" || !slices.Contains(held, kind):
			s.mu.Unlock()
			return work()
		}
		of := who + ": " + kind
		s.seen[of]++
		r := &request{name: fmt.Sprint(of, " ", s.seen[of]), work: work, reply: make(chan error, 1)}
		s.waiting = append(s.waiting, r)
		s.mu.Unlock()
		select {
		case err := <-r.reply:
			return err
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.waiting = slices.DeleteFunc(s.waiting, func(other *request) bool { return other == r })
			return ctx.Err()
		}
	}
}

// requests are those that wait, by name.
func (s *scheduler) requests() []*request {
	s.mu.Lock()
	defer s.mu.Unlock()
	byName := func(a, b *request) int { return strings.Compare(a.name, b.name) }
	return slices.SortedFunc(slices.Values(s.waiting), byName)
}

// answer answers a request: with what its work gives, or without doing it.
func (s *scheduler) answer(r *request, do bool, err error) {
	s.mu.Lock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *request) bool { return other == r })
	s.mu.Unlock()
	if do {
		if e := r.work(); err == nil {
			err = e
		}
	}
	r.reply <- err
}
