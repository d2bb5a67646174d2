package httpio

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/kafkaio"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// callbacks reads the topic to which a service writes what became of workflows, for those that are waited for.
type callbacks struct {
	*Completion
	source connector.Source
	every  time.Duration // between two looks at the topic's end
	missed time.Duration // after which a workflow may have ended before it was waited for
	cancel context.CancelFunc
	ended  chan struct{} // closed when nobody reads the topic any more
	failed error         // why; to be read after that

	mu      sync.Mutex
	waiting map[string][]*expected // by the topic's key
	came    chan struct{}          // somebody waits
}

// expected is a workflow that is waited for.
type expected struct {
	key    string
	since  time.Time
	looked bool         // the topic was looked through, from the beginning, since it is waited for
	ends   chan verdict // gets one
}

// clocks is how far those of a broker and of this machine may differ.
const clocks = 5 * time.Minute

// newCallbacks begins to read the topic, from the beginning of the run on.
func newCallbacks(c *Completion, run connector.Run) *callbacks {
	kafka := c.Topic.Kafka
	if kafka.From == nil {
		began := connector.Time{Time: run.Started.Add(-clocks)}
		kafka.From = &kafkaio.From{Time: &began}
	}
	return follow(c, kafkaio.NewSource(kafka, connector.Need{Run: run.ID, Again: true}), time.Second, 30*time.Second)
}

func follow(c *Completion, source connector.Source, every, missed time.Duration) *callbacks {
	ctx, cancel := context.WithCancel(context.Background())
	b := &callbacks{Completion: c, source: source, every: every, missed: missed, cancel: cancel,
		ended:   make(chan struct{}),
		waiting: map[string][]*expected{}, came: make(chan struct{}, 1)}
	go b.run(ctx)
	return b
}

func (b *callbacks) close() error {
	b.cancel()
	<-b.ended
	return b.source.Close()
}

// key is what the topic's key is for a workflow.
func (b *callbacks) key(t trigger) string {
	if b.Topic.Match == matchKey {
		return t.record.KeyText()
	}
	// As KeyText escapes it: a UUID has nothing to escape.
	return t.id
}

// expect waits for a workflow, which is triggered only afterwards. Whoever waits no more calls forget.
func (b *callbacks) expect(t trigger) (e *expected, forget func()) {
	e = &expected{key: b.key(t), since: time.Now(), ends: make(chan verdict, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting[e.key] = append(b.waiting[e.key], e)
	select {
	case b.came <- struct{}{}:
	default:
	}
	return e, func() { b.forget(e) }
}

func (b *callbacks) forget(e *expected) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var others []*expected
	for _, other := range b.waiting[e.key] {
		if other != e {
			others = append(others, other)
		}
	}
	if b.waiting[e.key] = others; others == nil {
		delete(b.waiting, e.key)
	}
}

// await waits until a workflow has ended, or too long has passed.
func (b *callbacks) await(ctx context.Context, e *expected) (dead, err error) {
	select {
	case v := <-e.ends:
		return v.err, nil
	case <-b.ended:
		return nil, b.failed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run looks at what has come to the topic, again and again while somebody waits.
func (b *callbacks) run(ctx context.Context) {
	defer close(b.ended)
	b.failed = context.Canceled
	read := map[string][]byte{} // by partition: as far as this
	looked, took := time.Now(), time.Duration(0)
	for {
		select {
		case <-b.came:
		case <-ctx.Done():
			return
		}
		for again := true; again; {
			began := time.Now()
			err := b.look(ctx, read)
			if through := time.Now(); err == nil && b.missing() && through.Sub(looked) > max(b.missed, 20*took) {
				// Whoever is triggered again after a crash may wait for what has come long ago.
				if err = b.look(ctx, map[string][]byte{}); err == nil {
					b.seen(through)
				}
				looked, took = time.Now(), time.Since(through)
			}
			if err != nil {
				b.failed = err
				return
			}
			again = b.expire(began)
			if sleep(ctx, b.every) != nil {
				return
			}
		}
	}
}

// look reads what the topic holds behind some positions, which it moves.
func (b *callbacks) look(ctx context.Context, read map[string][]byte) error {
	return b.source.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		last := read[s.Partition]
		if bytes.Compare(s.End, last) <= 0 {
			return nil
		}
		if bytes.Compare(s.Start, last) < 0 {
			s.Start = last
		}
		err := b.source.Read(ctx, s, func(p connector.Page) error {
			for _, r := range p.Records {
				b.tell(r)
			}
			for _, d := range p.Dead {
				slog.WarnContext(ctx, "a message about a workflow cannot be read", "topic", b.Topic.Kafka.Topic,
					"split", s.String(), "code", d.Code)
			}
			read[s.Partition] = p.Last
			return nil
		})
		if err == nil {
			read[s.Partition] = s.End
		}
		return err
	})
}

// tell takes in a message.
func (b *callbacks) tell(r *record.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.waiting[r.KeyText()]
	if len(all) == 0 || r.Op == record.Delete {
		return
	}
	text := func(field string) string {
		i := r.Schema.Index(field)
		if i < 0 || r.Values[i].IsNull() {
			return ""
		}
		return r.Values[i].Text(r.Schema.Fields[i].Type)
	}
	v := b.verdict(text(b.State), text(b.Reason))
	if !v.ended {
		return
	}
	for _, e := range all {
		e.ends <- v
	}
	delete(b.waiting, r.KeyText())
}

// missing tells whether somebody has waited for long, and the topic was not looked through since.
func (b *callbacks) missing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, all := range b.waiting {
		for _, e := range all {
			if !e.looked && time.Since(e.since) > b.missed {
				return true
			}
		}
	}
	return false
}

// seen tells that the topic was looked through from the beginning, after a time.
func (b *callbacks) seen(began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, all := range b.waiting {
		for _, e := range all {
			e.looked = e.looked || e.since.Before(began)
		}
	}
}

// expire gives up whom it was too late for when the last look at the topic began, and
// tells whether anybody still waits.
func (b *callbacks) expire(began time.Time) (waits bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, all := range b.waiting {
		var rest []*expected
		for _, e := range all {
			if e.looked && began.Sub(e.since) >= b.timeout() {
				e.ends <- verdict{ended: true, err: b.overdue("no message about it has come")}
			} else {
				rest = append(rest, e)
			}
		}
		if b.waiting[key] = rest; len(rest) == 0 {
			delete(b.waiting, key)
		}
	}
	return len(b.waiting) > 0
}

// checkTopic checks that the topic is there and tells what is needed.
func (c *Completion) checkTopic(ctx context.Context) error {
	source := kafkaio.NewSource(c.Topic.Kafka, connector.Need{})
	defer source.Close()
	schema, err := source.Schema(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{c.State, c.Reason} {
		if name != "" && schema.Index(name) < 0 {
			return fail.Job("http.topic", "the topic %s has no field %q", c.Topic.Kafka.Topic, name).
				WithFix("there are %v", schema.Names())
		}
	}
	return nil
}
