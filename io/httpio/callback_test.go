package httpio

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"reprise/io/connector"
	"reprise/io/kafkaio"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var callbackSchema = record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
	{Name: "state", Type: record.Of(record.Text)}, {Name: "error", Type: record.Of(record.Text)}}, "id")

// topic is where a service tells of its workflows.
type topic struct {
	t      *testing.T
	name   string
	addr   string
	mu     sync.Mutex
	writer connector.Writer
}

func newTopic(t *testing.T) *topic {
	t.Helper()
	p := &topic{t: t, name: services.Name(t), addr: services.Need(t, services.Kafka)}
	sink := kafkaio.NewSink(kafkaio.SinkConfig{Brokers: []string{p.addr}, Topic: p.name,
		Create: &kafkaio.Create{Partitions: 3}})
	t.Cleanup(func() { sink.Close() })
	run := connector.Run{ID: "service", Job: "service", Started: time.Now()}
	if err := sink.Prepare(t.Context(), run, callbackSchema, false); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.writer, err = sink.Open(context.WithoutCancel(t.Context()), run, callbackSchema,
		func([]connector.Result) {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.writer.Close() })
	return p
}

// tell writes what became of a workflow.
func (p *topic) tell(id, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &record.Record{Schema: callbackSchema, Version: 1,
		Values: []record.Value{record.String(id), record.String(state), record.String("out of ink")}}
	if err := p.writer.Write(context.Background(), r); err != nil {
		p.t.Error(err)
	}
	if _, err := p.writer.Flush(context.Background()); err != nil {
		p.t.Error(err)
	}
}

func (p *topic) completion() *Completion {
	return &Completion{Topic: &Topic{Kafka: kafkaio.SourceConfig{Brokers: []string{p.addr}, Topic: p.name,
		Key: []string{"id"}, Fields: connector.Fields(callbackSchema.Fields)}},
		State: "state", Done: []string{"succeeded"}, Failed: []string{"failed"}, Reason: "error"}
}

// TestCallbacks: a record is settled once the topic tells of its workflow.
func TestCallbacks(t *testing.T) {
	t.Parallel()
	p := newTopic(t)
	p.tell("somebody else's", "succeeded")
	s := services.NewWorkflows(t, services.WorkflowOptions{
		Takes: func(w services.Workflow) time.Duration { return time.Duration(len(w.Body)%5) * 10 * time.Millisecond },
		Ended: func(w services.Workflow) {
			state := "succeeded"
			if strings.HasSuffix(w.Path, "7") {
				state = "failed"
			}
			p.tell(w.ID, "running")
			p.tell(w.ID, state)
		}})
	got := write(t, SinkConfig{URL: s.URL + "/start/{id}", Completion: p.completion()}, assets(50))
	want(t, got, map[string]int{"written": 45, "http.workflow_failed": 5})
	if err := got.all["text-000007"].Err; !strings.Contains(err.Error(), "ended as failed: out of ink") {
		t.Errorf("the reason is not told: %v", err)
	}
}

// TestCallbacksBefore: what the topic told while nobody waited, before a crash, is found;
// what it never tells of is overdue.
func TestCallbacksBefore(t *testing.T) {
	t.Parallel()
	p := newTopic(t)
	s := services.NewWorkflows(t, services.WorkflowOptions{})
	c := SinkConfig{URL: s.URL + "/start/{id}", Purpose: "x", Completion: p.completion()}
	c.Completion.Timeout = connector.Duration(100 * time.Millisecond)
	records := assets(10)
	for i, r := range records {
		if i != 3 {
			p.tell(idempotencyKey("test", "x", r.KeyText(), r.Version), "succeeded")
		}
	}
	p.tell("the last", "succeeded")

	source := &watched{Source: kafkaio.NewSource(c.Completion.Topic.Kafka, connector.Need{}), seen: make(chan struct{})}
	sink := NewSink(c)
	sink.callbacks = follow(c.Completion, source, 10*time.Millisecond, 50*time.Millisecond)
	defer sink.Close()
	// The topic's end is reached for somebody else before the records come.
	_, forget := sink.callbacks.expect(trigger{id: "another"})
	for range 3 {
		<-source.seen
	}
	forget()
	got := &results{all: map[string]connector.Result{}}
	w, err := sink.Open(t.Context(), connector.Run{ID: "run", Job: "test", Started: time.Now()},
		records[0].Schema, got.settle)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, got, map[string]int{"written": 9, "http.workflow_timeout": 1})
	if err := got.all["text-000003"].Err; err == nil || !strings.Contains(err.Error(), "no message about it has come") {
		t.Errorf("the third: %v", err)
	}
}

// watched tells when a source has been planned.
type watched struct {
	connector.Source
	seen chan struct{}
}

func (w *watched) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	err := w.Source.Plan(ctx, o, split)
	select {
	case w.seen <- struct{}{}:
	default:
	}
	return err
}

// TestNoTopic: a topic that is not there, or lacks the field, is told before anything is triggered.
func TestNoTopic(t *testing.T) {
	t.Parallel()
	s := services.NewWorkflows(t, services.WorkflowOptions{})
	p := newTopic(t)
	for code, change := range map[string]func(c *Completion){
		"kafka.no_topic": func(c *Completion) { c.Topic.Kafka.Topic += "-none" },
		"http.topic":     func(c *Completion) { c.State = "nope" },
	} {
		c := p.completion()
		change(c)
		sink := NewSink(SinkConfig{URL: s.URL + "/start", Completion: c})
		if err := sink.Prepare(t.Context(), connector.Run{ID: "r", Job: "j", Started: time.Now()}, callbackSchema,
			true); fail.CodeOf(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
		sink.Close()
	}
}

// TestTopicFails: a topic that cannot be read any more ends the writer, and settles nothing.
func TestTopicFails(t *testing.T) {
	s := services.NewWorkflows(t, services.WorkflowOptions{})
	c := SinkConfig{URL: s.URL + "/start/{id}", Completion: &Completion{Topic: &Topic{}, State: "state",
		Done: []string{"d"}, Failed: []string{"f"}}}
	sink := NewSink(c)
	sink.callbacks = follow(c.Completion, broken{}, time.Millisecond, time.Millisecond)
	defer sink.Close()
	got := &results{all: map[string]connector.Result{}}
	w, err := sink.Open(t.Context(), connector.Run{ID: "run", Job: "test"}, assets(1)[0].Schema, got.settle)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, r := range assets(5) {
		if err := w.Write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Flush(t.Context()); fail.CodeOf(err) != "kafka.broken" || got.len() > 0 {
		t.Errorf("Flush gave %v with %d settled", err, got.len())
	}
}

// broken is a topic that cannot be read.
type broken struct{ connector.Source }

func (broken) Plan(context.Context, connector.PlanOptions, func(connector.Split) error) error {
	return fail.New(fail.Fatal, "kafka.broken", "no")
}
func (broken) Close() error { return nil }
