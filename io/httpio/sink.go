package httpio

import (
	"context"
	"net/http"
	"sync"

	"golang.org/x/sync/semaphore"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// Sink triggers a workflow for each record.
type Sink struct {
	config   SinkConfig
	underWay chan struct{} // of all writers together

	mu        sync.Mutex
	client    *client    // made by the first method that needs it
	callbacks *callbacks // the same; nil: no topic tells what became of workflows
}

var _ connector.Sink = (*Sink)(nil)

// NewSink gives a sink of valid settings; it does not connect.
func NewSink(c SinkConfig) *Sink {
	underWay := orDefault(c.UnderWay, 1000)
	if c.Completion == nil {
		underWay = c.settings().inFlight // it ends with its answer
	}
	return &Sink{config: c, underWay: make(chan struct{}, underWay)}
}

func (s *Sink) connect() (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		c, err := newClient(s.config.settings())
		if err != nil {
			return nil, err
		}
		s.client = c
	}
	return s.client, nil
}

// Prepare checks the templates against the schema and the secrets, that the host answers, to a HEAD of its root
// whatever the status, and that a topic with the outcome of workflows is there. It triggers nothing.
func (s *Sink) Prepare(ctx context.Context, run connector.Run, schema *record.Schema, _ bool) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	w, err := s.newWriter(c, run, schema)
	if err != nil {
		return err
	}
	origin, _ := cutOrigin(s.config.URL)
	if _, err := c.do(ctx, message{method: http.MethodHead, url: origin + "/", header: http.Header{}}); err != nil {
		return err
	}
	if w.polls == nil && s.config.Completion != nil {
		return s.config.Completion.checkTopic(ctx)
	}
	return nil
}

// Open implements connector.Sink.
func (s *Sink) Open(ctx context.Context, run connector.Run, schema *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	w, err := s.newWriter(c, run, schema)
	if err != nil {
		return nil, err
	}
	if w.polls == nil && s.config.Completion != nil {
		s.mu.Lock()
		if s.callbacks == nil {
			s.callbacks = newCallbacks(s.config.Completion, run)
		}
		w.callbacks = s.callbacks
		s.mu.Unlock()
	}
	w.settle = settle
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w, nil
}

func (s *Sink) newWriter(c *client, run connector.Run, schema *record.Schema) (w *writer, err error) {
	w = &writer{config: s.config, client: c, underWay: s.underWay, room: semaphore.NewWeighted(room),
		waiting: map[string][]*record.Record{}}
	if w.format, err = newFormat(s.config, run, schema); err != nil {
		return nil, err
	}
	if o := s.config.Completion; o != nil && o.Poll != nil {
		w.polls, err = newPoller(o, c, w.format.schema)
	}
	return w, err
}

// Close implements connector.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.close()
	}
	if s.callbacks != nil {
		return s.callbacks.close()
	}
	return nil
}

// room is how many bytes of records a writer takes before Write blocks. What a pass reads ahead is less, so that one
// slow sink does not keep it from writing down what others have finished.
const room = 128 << 20

// writer triggers the workflows of the records of one bundle, of which under_way are at work, each in a goroutine of
// its own; records of the same key one after the other.
type writer struct {
	config    SinkConfig
	client    *client
	format    *format
	polls     *poller    // nil: workflows are not asked for
	callbacks *callbacks // nil: no topic tells of them
	settle    connector.Settle
	underWay  chan struct{}

	ctx    context.Context
	cancel context.CancelCauseFunc
	room   *semaphore.Weighted
	flying sync.WaitGroup // records that are not done with

	mu      sync.Mutex
	queue   []*record.Record
	waiting map[string][]*record.Record // by key: records that come after one that is in the queue or at work
	workers int
}

// Write implements connector.Writer.
func (w *writer) Write(ctx context.Context, r *record.Record) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if !w.room.TryAcquire(held(r)) {
		either, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })()
		if w.room.Acquire(either, held(r)) != nil {
			w.cancel(context.Cause(either)) // a later Flush must not claim that all is settled
			return context.Cause(either)
		}
	}
	w.flying.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	key := r.KeyText()
	if later, busy := w.waiting[key]; busy {
		w.waiting[key] = append(later, r)
		return nil
	}
	w.waiting[key] = nil
	w.queue = append(w.queue, r)
	if w.workers < cap(w.underWay) {
		w.workers++
		go w.work()
	}
	return nil
}

// held is what a record takes of the room.
func held(r *record.Record) int64 { return min(int64(r.Size()), room) }

// work takes records in turn until there are none.
func (w *writer) work() {
	for r := w.next(); r != nil; r = w.next() {
		if err := w.one(r); err != nil {
			w.cancel(err)
		}
		w.release(r.KeyText())
		w.room.Release(held(r))
		w.flying.Done()
	}
}

// release lets the next record of a key into the queue: those of a key are at work one after the other, as they came.
func (w *writer) release(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	later := w.waiting[key]
	if len(later) == 0 {
		delete(w.waiting, key)
		return
	}
	w.queue = append(w.queue, later[0])
	w.waiting[key] = later[1:]
}

// next is the next record, or nil, with which the worker ends.
func (w *writer) next() *record.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.workers--
		return nil
	}
	r := w.queue[0]
	w.queue[0] = nil
	w.queue = w.queue[1:]
	return r
}

// one brings a record to its end. Its error ends the writer.
func (w *writer) one(r *record.Record) error {
	if err := take(w.ctx, w.underWay); err != nil {
		return err
	}
	defer func() { <-w.underWay }()
	res, err := w.workflow(w.ctx, r)
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if err != nil {
		return err
	}
	res.Record = r
	if res.Err != nil {
		res.Outcome = record.Dead
	}
	w.settle([]connector.Result{res})
	return nil
}

// workflow triggers the workflow of a record, unless it is there already, and waits for
// its end where that is asked for.
func (w *writer) workflow(ctx context.Context, r *record.Record) (res connector.Result, err error) {
	res.Attempts = 1
	if r.Op == record.Delete { // what is gone needs no workflow
		res.Outcome = record.Unchanged
		return res, nil
	}
	t, dead := w.format.trigger(r)
	if dead != nil {
		res.Err = dead
		return res, nil
	}
	var waits *expected
	if w.callbacks != nil {
		var forget func()
		waits, forget = w.callbacks.expect(t)
		defer forget()
	}
	s, there, err := w.check(ctx, t)
	if err == nil && s.dead == nil && !there {
		s, err = w.client.send(ctx, t.message, w.judge)
	}
	res.Attempts = max(1, s.attempts)
	if res.Err = s.dead; err != nil || s.dead != nil {
		return res, err
	}
	if there || w.config.meaning(s.answer.status) == answerUnchanged {
		res.Outcome = record.Unchanged
	}
	o := w.config.Completion
	switch {
	case o == nil:
	case there && o.read(s.answer).ended:
		res.Err = o.read(s.answer).err
	case waits != nil:
		res.Err, err = w.callbacks.await(ctx, waits)
	default:
		res.Err, err = w.polls.await(ctx, t, s.answer)
	}
	return res, err
}

// check asks whether a workflow is there already.
func (w *writer) check(ctx context.Context, t trigger) (s sent, there bool, err error) {
	if w.format.check == nil {
		return s, false, nil
	}
	m := message{method: http.MethodGet, header: t.header}
	if m.url, s.dead = address(w.format.check, t.record); s.dead != nil {
		return s, false, nil
	}
	s, err = w.client.send(ctx, m, unknownIsNone)
	return s, err == nil && s.dead == nil && s.answer.status != http.StatusNotFound, err
}

// judge takes the answer to a trigger.
func (w *writer) judge(a answer) error {
	switch means := w.config.meaning(a.status); means {
	case answerWritten, answerUnchanged:
		return nil
	default:
		return statusError(a, means)
	}
}

// Checkpoint implements connector.Writer: every record is on its way, or will be as soon as others have ended.
func (w *writer) Checkpoint(context.Context) ([][]byte, error) {
	return nil, context.Cause(w.ctx)
}

// Flush implements connector.Writer.
func (w *writer) Flush(ctx context.Context) ([][]byte, error) {
	connector.Await(ctx, &w.flying, w.cancel)
	return nil, context.Cause(w.ctx)
}

// Close implements connector.Writer.
func (w *writer) Close() error {
	w.cancel(context.Canceled)
	w.flying.Wait()
	return nil
}
