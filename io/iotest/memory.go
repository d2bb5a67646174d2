package iotest

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Memory is a table in memory with a sink and a source, both full drivers: they keep the version rule, settle in
// batches and read in pages. It is also their server: it can be paused and stopped. Settings are made before first use.
type Memory struct {
	Schema     *record.Schema             // nil: AssetSchema
	Refuse     func(*record.Record) error // the error of a record that is refused for itself; nil: none is
	Committing bool                       // writes become visible by Commit
	PageRows   int                        // rows of a page that is read; 0: 100
	Retry      connector.Retry            // zero: from 1 ms to 20 ms, for a minute
	Batch      connector.BatchLimits      // zero: 100 rows, 1 MiB, 4 under way

	// Serve decides what becomes of each request ("schema", "plan", "read", "find", "prepare", "write" or "commit"): it
	// may wait, do the work or not, and answer as it likes, also that work failed which was done. nil: the work is done
	// and answered at once.
	Serve func(ctx context.Context, kind string, work func() error) error

	mu      sync.Mutex
	rows    map[string]*record.Record // newest of each key, deletes too
	raw     map[string][]byte         // rows that do not decode
	staged  map[string][]*record.Record
	commits map[string]bool // stages
	failing int
	failure error
	stopped bool
	gate    chan struct{} // closed while not paused

	apply func(m *Memory, r *record.Record) record.Outcome // replaces store in self-tests
}

// NewMemory gives an empty table.
func NewMemory() *Memory {
	m := &Memory{rows: map[string]*record.Record{}, raw: map[string][]byte{}, staged: map[string][]*record.Record{},
		commits: map[string]bool{}, gate: make(chan struct{}), apply: (*Memory).store}
	close(m.gate)
	return m
}

// Load puts records into the table, under the version rule.
func (m *Memory) Load(records ...*record.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		m.store(r)
	}
}

// LoadRaw puts a row into the table that the source cannot decode: a dead letter.
func (m *Memory) LoadRaw(key string, raw []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.raw[key] = raw
}

// Rows are the rows that are there: KeyText → JSON.
func (m *Memory) Rows() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := map[string]string{}
	for key, r := range m.rows {
		if r.Op == record.Upsert {
			rows[key] = JSON(r)
		}
	}
	return rows
}

// Fail lets the next n requests, of reads and writes, fail with err.
func (m *Memory) Fail(n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing, m.failure = n, err
}

// Pause lets requests wait.
func (m *Memory) Pause() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = make(chan struct{})
}

// Resume ends a Pause.
func (m *Memory) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.gate)
}

// Stop lets requests fail by a transient error.
func (m *Memory) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
}

// Start ends a Stop.
func (m *Memory) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = false
}

// request is one round trip: it takes the faults, then does the work.
func (m *Memory) request(ctx context.Context, kind string, work func() error) error {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	select {
	case <-gate:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Serve != nil {
		return m.Serve(ctx, kind, func() error { return m.serve(work) })
	}
	return m.serve(work)
}

func (m *Memory) serve(work func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return fail.Unreachable("memory.stopped", "the memory is stopped").WithFix("start it")
	}
	if m.failing > 0 {
		m.failing--
		return m.failure
	}
	return work()
}

// store keeps the version rule.
func (m *Memory) store(r *record.Record) record.Outcome {
	key := r.KeyText()
	old := m.rows[key]
	switch {
	case old != nil && old.Version > r.Version:
		return record.Superseded
	case old != nil && old.Version == r.Version && old.Op == r.Op &&
		slices.EqualFunc(old.Values, r.Values, record.Value.Equal):
		return record.Unchanged
	}
	m.rows[key] = r
	return record.Written
}

func (m *Memory) schema() *record.Schema {
	if m.Schema == nil {
		return AssetSchema()
	}
	return m.Schema
}

func (m *Memory) retry() connector.Retry {
	if m.Retry == (connector.Retry{}) {
		return connector.Retry{First: time.Millisecond, Max: 20 * time.Millisecond, Deadline: time.Minute}
	}
	return m.Retry
}

// Sink gives a sink into the table.
func (m *Memory) Sink() connector.Sink {
	if m.Committing {
		return committingSink{memorySink{m}}
	}
	return memorySink{m}
}

type memorySink struct{ m *Memory }

func (s memorySink) Prepare(ctx context.Context, _ connector.Run, schema *record.Schema, _ bool) error {
	if !schema.Same(s.m.schema()) {
		return fail.Job("memory.schema", "records of another schema do not fit")
	}
	return s.m.request(ctx, "prepare", func() error { return nil })
}

func (s memorySink) Close() error { return nil }

func (s memorySink) Open(ctx context.Context, run connector.Run, _ *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	return s.open(ctx, func(m *Memory, r *record.Record) record.Outcome { return m.apply(m, r.Raised(run.Floor)) },
		settle), nil
}

func (s memorySink) open(ctx context.Context, apply func(*Memory, *record.Record) record.Outcome,
	settle connector.Settle) connector.Writer {
	limits := s.m.Batch
	if limits == (connector.BatchLimits{}) {
		limits = connector.BatchLimits{Rows: 100, Bytes: 1 << 20, InFlight: 4}
	}
	return connector.NewBatcher(ctx, limits, s.m.retry(),
		func(ctx context.Context, batch []*record.Record) []connector.Result {
			results := make([]connector.Result, len(batch))
			err := s.m.request(ctx, "write", func() error {
				for i, r := range batch {
					if s.m.Refuse != nil {
						if results[i].Err = s.m.Refuse(r); results[i].Err != nil {
							continue
						}
					}
					results[i].Outcome = apply(s.m, r)
				}
				return nil
			})
			if err != nil {
				return connector.AllFailed(batch, err)
			}
			return results
		}, settle)
}

// committingSink stages what a writer takes; a part is the name of a writer's stage.
type committingSink struct{ memorySink }

type committingWriter struct {
	connector.Writer
	m     *Memory
	stage string // the last one handed out
	taken []*record.Record
}

func (s committingSink) Open(ctx context.Context, run connector.Run, _ *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	w := &committingWriter{m: s.m}
	// Runs under the table's lock.
	w.Writer = s.open(ctx, func(_ *Memory, r *record.Record) record.Outcome {
		w.taken = append(w.taken, r.Raised(run.Floor))
		return record.Written
	}, settle)
	return w, nil
}

func (w *committingWriter) Checkpoint(ctx context.Context) ([][]byte, error) { return w.Flush(ctx) }

func (w *committingWriter) Flush(ctx context.Context) ([][]byte, error) {
	if _, err := w.Writer.Flush(ctx); err != nil {
		return nil, err
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if len(w.taken) == 0 {
		return nil, nil
	}
	stage := "stage " + strconv.Itoa(len(w.m.staged))
	w.m.staged[stage], w.taken, w.stage = w.taken, nil, stage
	return [][]byte{[]byte(stage)}, nil
}

func (s committingSink) Commit(
	ctx context.Context, _ connector.Run, _ *record.Schema, parts [][]byte,
) (n int64, err error) {
	err = s.m.request(ctx, "commit", func() error {
		for _, part := range parts {
			stage := string(part)
			n += int64(len(s.m.staged[stage]))
			if s.m.commits[stage] {
				continue
			}
			s.m.commits[stage] = true
			for _, r := range s.m.staged[stage] {
				s.m.apply(s.m, r)
			}
		}
		return nil
	})
	return n, err
}

// Staged are the keys of the records in a part that a committing writer has handed out.
func (m *Memory) Staged(part []byte) (keys []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.staged[string(part)] {
		keys = append(keys, r.KeyText())
	}
	return keys
}

// Source gives a source of the table's rows. Positions are key texts; there is one partition.
func (m *Memory) Source() connector.Source { return memorySource{m} }

type memorySource struct{ m *Memory }

var _ connector.Finder = memorySource{}

func (s memorySource) Schema(ctx context.Context) (*record.Schema, error) {
	return s.m.schema(), s.m.request(ctx, "schema", func() error { return nil })
}

func (s memorySource) Close() error { return nil }

const memoryPartition = "memory"

func (s memorySource) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	var all []entry
	if err := s.m.request(ctx, "plan", func() error { all = s.m.sorted(); return nil }); err != nil {
		return err
	}
	part := connector.Split{Partition: memoryPartition}
	for _, e := range all {
		full := (o.Rows > 0 && part.Rows >= o.Rows) || (o.Bytes > 0 && part.Rows > 0 && part.Bytes+e.size() > o.Bytes)
		if full {
			if err := split(part); err != nil {
				return err
			}
			part = connector.Split{Partition: memoryPartition, Start: part.End}
		}
		part.End = []byte(e.key)
		part.Rows++
		part.Bytes += e.size()
	}
	part.End = nil
	return split(part)
}

func (s memorySource) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	after, started := split.Start, split.Start != nil
	for {
		var entries []entry
		err := connector.Request(ctx, s.m.retry(), func() (int, int64, error) {
			size := int64(0)
			err := s.m.request(ctx, "read", func() error {
				all := s.m.sorted()
				from := 0
				if started {
					from = sort.Search(len(all), func(i int) bool { return all[i].key > string(after) })
				}
				entries = all[from:min(len(all), from+cmp.Or(s.m.PageRows, 100))]
				for _, e := range entries {
					size += e.size()
				}
				return nil
			})
			return len(entries), size, err
		})
		if err != nil {
			return err
		}
		p := connector.Page{}
		position := bytes.Clone(after)
		for _, e := range entries {
			if !split.Contains([]byte(e.key)) {
				break
			}
			p.Last = []byte(e.key)
			e.add(&p, record.Origin{Split: split.String(), Position: position})
		}
		if p.Rows() == 0 {
			return nil
		}
		after, started = p.Last, true
		if err := page(p); err != nil {
			return err
		}
	}
}

// Find implements connector.Finder.
func (s memorySource) Find(ctx context.Context, keys []*record.Record,
	found func(i int, p connector.Page) error) error {
	for i, key := range keys {
		var p connector.Page
		err := connector.Request(ctx, s.m.retry(), func() (int, int64, error) {
			err := s.m.request(ctx, "find", func() error {
				e := entry{key: key.KeyText(), record: s.m.rows[key.KeyText()], raw: s.m.raw[key.KeyText()]}
				if e.raw != nil || e.record != nil && e.record.Op == record.Upsert {
					e.add(&p, key.Origin)
				}
				return nil
			})
			return int(p.Rows()), p.Bytes, err
		})
		if err == nil {
			err = found(i, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry is a row by its key.
type entry struct {
	key    string
	record *record.Record
	raw    []byte
}

func (e entry) size() int64 {
	if e.raw != nil {
		return int64(len(e.raw))
	}
	return int64(e.record.Size())
}

// add adds the row to a page.
func (e entry) add(p *connector.Page, origin record.Origin) {
	p.Bytes += e.size()
	if e.raw != nil {
		p.Dead = append(p.Dead, &record.DeadLetter{Raw: e.raw, Class: fail.Permanent.String(),
			Code: "memory.malformed", Message: "the row of key " + e.key + " does not decode"})
		return
	}
	r := e.record.Clone()
	r.Origin = origin
	p.Records = append(p.Records, r)
}

// sorted are the rows that are there, by key.
func (m *Memory) sorted() []entry {
	all := make([]entry, 0, len(m.rows)+len(m.raw))
	for key, r := range m.rows {
		if r.Op == record.Upsert {
			all = append(all, entry{key: key, record: r})
		}
	}
	for key, raw := range m.raw {
		all = append(all, entry{key: key, raw: raw})
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	return all
}
