package flow

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/iotest"
	"reprise/io/journal"
	"reprise/io/kafkaio"
	"reprise/pipelines/job"
	"reprise/transforms/record"
)

// stream is a source that goes on: what is added to its partitions comes in pages of two. It is shared by all that a
// run opens.
type stream struct {
	serve func(ctx context.Context, kind string, work func() error) error // nil: reads are answered at once
	page  int                                                             // rows of one; 0: two

	mu      sync.Mutex
	logs    map[string][]entry
	more    chan struct{} // closed when something is added
	acked   []connector.Split
	refuse  error // of Acknowledge
	lagging error // of Lags
}

type entry struct {
	record *record.Record // nil: a place without one
	at     time.Time
}

// following turns a world into one whose source goes on, with a partition for each of its tables.
func (w *world) following() *stream {
	s := &stream{logs: map[string][]entry{}, more: make(chan struct{})}
	path := w.job.Source.SourceConfig.(*fileio.SourceConfig).Path
	w.job.Source = connector.From(&kafkaio.SourceConfig{Topic: path, Follow: true})
	w.job.Limits.Unfinished, w.job.Limits.CommitEvery = "", nil
	w.job.SetDefaults()
	for _, part := range slices.Sorted(maps.Keys(w.tables)) {
		s.logs[part] = nil
	}
	w.source = func(connector.Source) connector.Source { return s }
	return s
}

// gap is no row, but a place without one, as at the end of a transaction.
const gap = -1

// add adds rows to a partition.
func (s *stream) add(part string, rows ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range rows {
		var r *record.Record
		if n != gap {
			r = iotest.Record(assets, n, iotest.Base)
		}
		s.logs[part] = append(s.logs[part], entry{r, time.Now()})
	}
	close(s.more)
	s.more = make(chan struct{})
}

// offset is the position of an entry of a partition.
func offset(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// next is the number of the first entry behind a position.
func next(position []byte) int {
	if position == nil {
		return 0
	}
	return int(binary.BigEndian.Uint64(position)) + 1
}

func (s *stream) Schema(context.Context) (*record.Schema, error) { return assets, nil }
func (s *stream) Close() error                                   { return nil }
func (s *stream) Follows() bool                                  { return true }

func (s *stream) Plan(context.Context, connector.PlanOptions, func(connector.Split) error) error {
	panic("the plan is in the journal")
}

func (s *stream) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	rows := cmp.Or(s.page, 2)
	for at := next(split.Start); split.End == nil || at < next(split.End); {
		s.mu.Lock()
		log, more := s.logs[split.Partition], s.more
		s.mu.Unlock()
		if split.End != nil {
			log = log[:min(len(log), next(split.End))]
		}
		if at >= len(log) {
			select {
			case <-more:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		log = log[at:min(len(log), at+rows)]
		at += len(log)
		p := connector.Page{Event: log[0].at, Last: offset(at - 1)}
		read := func() error {
			for _, e := range log {
				if e.record == nil {
					continue
				}
				p.Records = append(p.Records, e.record.Clone())
				p.Bytes += int64(e.record.Size())
			}
			return nil
		}
		var err error
		if s.serve != nil {
			err = s.serve(ctx, "read", read)
		} else {
			err = read()
		}
		if err == nil {
			err = page(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) Partitions(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(s.logs)), nil
}

func (s *stream) Position(at connector.Split) string { return fmt.Sprint(next(at.Start)) }

func (s *stream) Lags(_ context.Context, from []connector.Split) (lags []connector.Lag, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, split := range from {
		lags = append(lags, connector.Lag{Partition: split.Partition, Position: s.Position(split),
			Records: int64(len(s.logs[split.Partition]) - next(split.Start))})
	}
	return lags, s.lagging
}

func (s *stream) Acknowledge(_ context.Context, at []connector.Split) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse == nil {
		s.acked = at
	}
	return s.refuse
}

// told is up to where the source was last told that a run has come, by partition.
func (s *stream) told() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]string{}
	for _, split := range s.acked {
		all[split.Partition] = s.Position(split)
	}
	return all
}

// commitsEvery sets how often sinks commit.
func (w *world) commitsEvery(c job.CommitEvery) { w.job.Limits.CommitEvery = &c }

// committed is what a sink has been told to commit: by the name of each commit its parts.
type committed struct {
	mu     sync.Mutex
	of     map[string][]string
	runs   []connector.Run // in order
	before func(context.Context) error
	faults []string
}

// watch keeps what the sinks commit.
func (w *world) watch() map[string]*committed {
	all := map[string]*committed{}
	for _, name := range append(slices.Sorted(maps.Keys(w.sinks)), "queue") {
		all[name] = &committed{of: map[string][]string{}}
	}
	w.sink = func(name string, s connector.Sink) connector.Sink {
		if c, ok := s.(connector.Committer); ok {
			return watched{s, c, all[name]}
		}
		return s
	}
	return all
}

type watched struct {
	connector.Sink
	committer connector.Committer
	all       *committed
}

func (s watched) Commit(ctx context.Context, run connector.Run, schema *record.Schema, parts [][]byte) (int64, error) {
	var texts []string
	for _, p := range parts {
		texts = append(texts, string(p))
	}
	s.all.mu.Lock()
	if was, again := s.all.of[run.ID]; again && !slices.Equal(was, texts) {
		s.all.faults = append(s.all.faults, fmt.Sprintf("commit %s is of %q, and was of %q", run.ID, texts, was))
	}
	s.all.of[run.ID] = texts
	s.all.runs = append(s.all.runs, run)
	before := s.all.before
	s.all.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return 0, err
		}
	}
	return s.committer.Commit(ctx, run, schema, parts)
}

// names are those of the commits, in the order that they were made in, each as often as it was.
func (c *committed) names() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, run := range c.runs {
		names = append(names, run.ID)
	}
	return names
}

// uneven tells what does not stand in exactly one part that was committed, of the keys that a sink got.
func (c *committed) uneven(m *iotest.Memory, keys []string) (faults []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, in := map[string]int{}, map[string]string{}
	for commit, parts := range c.of {
		for _, p := range parts {
			if other, twice := in[p]; twice {
				faults = append(faults, fmt.Sprintf("part %q is in the commits %s and %s", p, commit, other))
			}
			in[p] = commit
			for _, key := range m.Staged([]byte(p)) {
				seen[key]++
			}
		}
	}
	for _, key := range keys {
		if seen[key] != 1 {
			faults = append(faults, fmt.Sprintf("row %s stands in %d committed parts", key, seen[key]))
		}
		delete(seen, key)
	}
	if len(seen) > 0 {
		faults = append(faults, fmt.Sprintf("nobody knows of %v", seen))
	}
	return append(faults, c.faults...)
}

// stopAfter stops the run after a while.
func (w *world) stopAfter(d time.Duration) { time.AfterFunc(d, func() { w.want(journal.Stop, "") }) }

// beat is the last one of an attempt's pass.
func (w *world) beat(attempt int) (last journal.Beat) {
	w.journal.mu.Lock()
	defer w.journal.mu.Unlock()
	for _, b := range w.journal.beats[attempt] {
		if b.Behind != nil && b.At.After(last.At) {
			last = b
		}
	}
	return last
}
