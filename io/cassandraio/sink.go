package cassandraio

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Sink writes records to a table.
//
// Every write carries the write time of its record (of each cell, where the source gives them) as USING TIMESTAMP,
// and Cassandra itself keeps the latest: a live write that is newer always wins, whichever comes first, and a
// delete removes nothing newer. The server does not tell which one won, so the outcome is Written in either case;
// nothing is read before a write.
//
// Writing a record again changes nothing: the same cells at the same time. A collection that is not frozen is
// replaced: the server marks what it held until a microsecond before the version as deleted, and adds the new
// elements at the version. (Elements of lists get a random place on each write, so a repeated one would append; lists
// must be frozen, Prepare says so.)
//
// Two different writes with the same time are settled by Cassandra's own rules: a null or delete wins over a value, of
// two values the greater bytes; collections that are not frozen are merged element by element. Whoever writes changed
// data back to the table it came from must therefore raise the version, as write: changes does (see changes).
//
// An expiry becomes a TTL by the clock of the worker when the write is sent, and an expiry again by the
// server's, so it is as exact as the two clocks agree; a repeated write may prolong it by the time that lies
// between sending and executing.
type Sink struct {
	config  SinkConfig
	slots   chan struct{} // one for each request under way
	texts   texts
	deletes *tombstones // nil: as many as come

	mu      sync.Mutex
	session *gocql.Session
	target  *target
	changes *changes       // nil: all is written
	schema  *record.Schema // that target was made for
}

var _ connector.Keyed = (*Sink)(nil)

// NewSink makes a sink; it connects when it is used first.
func NewSink(c SinkConfig) *Sink {
	c = c.withDefaults()
	return &Sink{config: c, slots: make(chan struct{}, c.InFlight), deletes: newTombstones(c.Deletes)}
}

// Prepare implements connector.Sink. It names every field that has no column of a fitting type, and
// every key column without a field.
func (s *Sink) Prepare(ctx context.Context, _ connector.Run, schema *record.Schema, dry bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.connect(ctx); err != nil {
		return err
	}
	columns, err := loadTable(ctx, s.session, s.config.Keyspace, s.config.Table)
	if s.config.Create && fail.CodeOf(err) == "cassandra.no_table" {
		statements, err := createStatements(s.config, schema)
		if err != nil || dry {
			return err
		}
		for _, cql := range statements {
			if err := s.session.Query(cql).WithContext(ctx).Exec(); err != nil {
				return fail.Job("cassandra.create_failed", "%s: %w", cql, err)
			}
		}
		columns, err = loadTable(ctx, s.session, s.config.Keyspace, s.config.Table)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	t, err := newTarget(s.config, columns, schema)
	if err == nil && s.config.Write == writeChanges {
		_, err = newChanges(ctx, s.session, s.config, t)
	}
	return err
}

// Open implements connector.Sink. It waits for a cluster that went away.
func (s *Sink) Open(ctx context.Context, run connector.Run, schema *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	var w *writer
	err := retry(ctx, connector.DefaultRetry.Deadline, func() (_ came, err error) {
		w, err = s.writer(ctx, schema)
		return came{}, err
	})
	if err != nil {
		return nil, err
	}
	w.floor = run.Floor
	// What is collected is cut into a request for each partition, so it is worth as much as all requests under way.
	limits := connector.BatchLimits{Rows: s.config.BatchRows * s.config.InFlight,
		Bytes: int(s.config.BatchBytes) * s.config.InFlight, InFlight: 2}
	return connector.NewBatcher(ctx, limits, connector.DefaultRetry, w.write, settle), nil
}

func (s *Sink) writer(ctx context.Context, schema *record.Schema) (*writer, error) {
	level, err := s.config.consistency()
	if err != nil {
		return nil, fail.Job("cassandra.consistency", "consistency: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	if s.target == nil || !s.schema.Same(schema) {
		columns, err := loadTable(ctx, s.session, s.config.Keyspace, s.config.Table)
		if err != nil {
			return nil, err
		}
		t, err := newTarget(s.config, columns, schema)
		if err != nil {
			return nil, err
		}
		if s.config.Write == writeChanges {
			if s.changes, err = newChanges(ctx, s.session, s.config, t); err != nil {
				return nil, err
			}
		}
		s.target, s.schema = t, schema
	}
	return &writer{sink: s, session: s.session, target: s.target, changes: s.changes, level: level}, nil
}

// Key implements connector.Keyed: the fields of the table's key, of a table that is there.
func (s *Sink) Key(ctx context.Context, schema *record.Schema) (fields []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	columns, err := loadTable(ctx, s.session, s.config.Keyspace, s.config.Table)
	if err != nil {
		return nil, err
	}
	t, err := newTarget(s.config, columns, schema)
	if err != nil {
		return nil, err
	}
	for _, c := range t.columns {
		if c.key {
			fields = append(fields, c.field)
		}
	}
	return fields, nil
}

// connect is called with mu held.
func (s *Sink) connect(ctx context.Context) (err error) {
	if s.session == nil {
		s.session, err = connect(ctx, s.config.Connection)
	}
	return err
}

// Close implements connector.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		s.session.Close()
		s.session, s.target, s.changes = nil, nil, nil
	}
	return nil
}

// writer writes batches of records of one schema.
type writer struct {
	sink    *Sink
	session *gocql.Session
	target  *target
	changes *changes // nil: all is written
	floor   int64    // of all cells, since the server does not tell what it keeps
	level   gocql.Consistency
	binders sync.Pool // of *binder
}

// row is a record as statements; rows of one partition make up a request.
type row struct {
	index      int // of the record in its batch
	statements []statement
}

type request struct {
	rows  []row
	bytes int
}

// write implements connector.WriteBatch.
func (w *writer) write(ctx context.Context, batch []*record.Record) []connector.Result {
	results := make([]connector.Result, len(batch))
	if w.floor > 0 {
		batch = slices.Clone(batch)
		for i, r := range batch {
			batch[i] = r.Raised(w.floor)
		}
	}
	b := w.binder()
	defer w.binders.Put(b)
	requests := w.requests(b, batch, results)
	var sending sync.WaitGroup
	for _, q := range requests {
		select {
		case w.sink.slots <- struct{}{}:
		case <-ctx.Done():
			sending.Wait()
			return connector.AllFailed(batch, ctx.Err())
		}
		sending.Go(func() {
			if w.changes == nil {
				w.send(ctx, q.rows, results)
			} else {
				w.change(ctx, batch, q.rows, results)
			}
			<-w.sink.slots
		})
	}
	sending.Wait()
	if w.sink.deletes != nil {
		for i, res := range results {
			if res.Err == nil || fail.ClassOf(res.Err) == fail.Permanent {
				w.sink.deletes.settle(batch[i])
			}
		}
	}
	return results
}

// binder is an empty binder, to be put back into binders.
func (w *writer) binder() *binder {
	b, ok := w.binders.Get().(*binder)
	if !ok {
		b = newBinder(w.target, &w.sink.texts)
	}
	b.reset(time.Now().Unix())
	return b
}

// requests cuts a batch into requests, each for rows of one partition; the results get the records that cannot be
// encoded. Rows that are to be compared first have no statements yet.
func (w *writer) requests(b *binder, batch []*record.Record, results []connector.Result) []*request {
	var all []*request
	open := map[string]*request{} // by partition
	var key []byte
	for i, r := range batch {
		before := len(b.data)
		compare := w.changes != nil && r.Op == record.Upsert
		var statements []statement
		var err error
		if key, err = b.partition(key[:0], r); err == nil {
			if compare {
				err = b.keyed(r)
			} else {
				statements, err = b.statements(r)
			}
		}
		if err == nil && r.Op == record.Delete && w.sink.deletes != nil {
			err = w.sink.deletes.take(key, r)
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		if len(statements) == 0 && !compare {
			results[i].Outcome = record.Unchanged
			continue
		}
		size, most := len(b.data)-before, int(w.sink.config.BatchBytes)
		if compare {
			size, most = r.Size(), compareBytes
		}
		q := open[string(key)]
		if q == nil || len(q.rows) >= w.sink.config.BatchRows || q.bytes+size > most {
			q = &request{}
			all = append(all, q)
			open[string(key)] = q
		}
		q.rows = append(q.rows, row{index: i, statements: statements})
		q.bytes += size
	}
	return all
}

// send writes rows of one partition. Where the server refuses them together it writes each
// alone, to find the one at fault.
func (w *writer) send(ctx context.Context, rows []row, results []connector.Result) {
	err := w.execute(ctx, rows)
	if len(rows) > 1 && err != nil && fail.ClassOf(err) == fail.Permanent {
		for i := range rows {
			w.send(ctx, rows[i:i+1], results)
		}
		return
	}
	for _, r := range rows {
		results[r.index].Err = err
	}
}

func (w *writer) execute(ctx context.Context, rows []row) error {
	if len(rows) == 1 && len(rows[0].statements) == 1 {
		s := rows[0].statements[0]
		return failure(lost(ctx, w.session.Query(s.cql, s.args...).WithContext(ctx).Consistency(w.level).Exec()))
	}
	// Statements for one partition are one mutation, so an unlogged batch of them is applied as a whole.
	batch := w.session.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
	batch.SetConsistency(w.level)
	for _, r := range rows {
		for _, s := range r.statements {
			batch.Entries = append(batch.Entries, gocql.BatchEntry{Stmt: s.cql, Args: s.args})
		}
	}
	return failure(lost(ctx, w.session.ExecuteBatch(batch)))
}

// failure gives the error of a write its class. What the server calls invalid is a matter of the values, since Open has
// found the table to fit; unless the table has changed since.
func failure(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, gocql.ErrFrameTooBig) {
		return errTooLarge(err)
	}
	var refused gocql.RequestError
	if !errors.As(err, &refused) {
		return classify(err)
	}
	message := refused.Message()
	says := func(text string) bool { return strings.Contains(message, text) }
	switch {
	// The words of Cassandra 5, of 4 and 3, and of the protocol's frames.
	case says("oversized mutation"), says("too large for the maximum size"), says("Request is too big"):
		return errTooLarge(err)
	case refused.Code() != gocql.ErrCodeInvalid:
		return classify(err)
	case says("does not exist"), says("unconfigured table"), says("Undefined column name"), says("Unknown identifier"):
		return fail.New(fail.Fatal, "cassandra.table_changed", "the table changed while it was written to: %w", err).
			WithFix("check the table, then resume the run")
	}
	return fail.New(fail.Permanent, "cassandra.row_refused", "Cassandra refuses the row: %w", err)
}

func errTooLarge(err error) error {
	return fail.New(fail.Permanent, "cassandra.row_too_large", "the row is larger than the server takes: %w", err).
		WithFix("make it smaller by a transform, or raise commitlog_segment_size (and " +
			"native_transport_max_frame_size) in cassandra.yaml")
}
