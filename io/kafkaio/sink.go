package kafkaio

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Sink writes records to topics. Its writers share one producer.
type Sink struct {
	c     SinkConfig
	retry connector.Retry

	mu        sync.Mutex // not held while waiting for a broker
	producers map[limits]*producer

	lookUp sync.Mutex // held while a topic is looked up
	client sarama.Client
	topics sync.Map // name → *topic
}

var _ connector.Keyed = (*Sink)(nil)

// limits tell producers apart.
type limits struct {
	size  int
	alone bool
}

// topic is what writing to a topic needs.
type topic struct {
	name string
	size int    // of the largest message
	head []byte // that stands before each Avro value
}

// NewSink gives a sink of valid settings.
func NewSink(c SinkConfig) *Sink {
	return &Sink{c: c, retry: connector.DefaultRetry, producers: map[limits]*producer{}}
}

// Key implements connector.Keyed: the fields of the messages' keys.
func (s *Sink) Key(_ context.Context, schema *record.Schema) ([]string, error) {
	return s.c.KeyFields(schema)
}

// Close implements connector.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	producers := s.producers
	s.producers = nil
	s.mu.Unlock()
	for _, p := range producers {
		p.close()
	}
	s.lookUp.Lock()
	defer s.lookUp.Unlock()
	if s.client == nil {
		return nil
	}
	err := s.client.Close()
	s.client = nil
	return err
}

// Prepare checks the topic, where it is the same for all records, the schema in the registry, and
// that this user may write at all.
func (s *Sink) Prepare(ctx context.Context, run connector.Run, schema *record.Schema, dry bool) error {
	e, err := s.newEncoder(run, schema)
	if err != nil {
		return err
	}
	if dry || e.fixed == "" {
		return s.check(ctx, e)
	}
	t, err := s.topic(ctx, e, e.fixed)
	if err != nil {
		return ofJob(err)
	}
	_, err = s.producer(ctx, limits{size: t.size})
	return err
}

// ofJob makes what would be the fault of one record that of the job, whose topic is the same for all.
func ofJob(err error) error {
	if fail.ClassOf(err) != fail.Permanent {
		return err
	}
	return fail.Job(fail.CodeOf(err), "%w", err).WithFix("change topic")
}

// check is Prepare without changing anything.
func (s *Sink) check(ctx context.Context, e *encoder) error {
	s.lookUp.Lock()
	defer s.lookUp.Unlock()
	if err := s.connect(ctx); err != nil {
		return err
	}
	// What a producer begins with: only users that may write get an answer.
	if _, err := s.client.InitProducerID(); err != nil {
		return classify(err, "")
	}
	if e.fixed == "" {
		return nil
	}
	d, err := describe(s.client, e.fixed)
	switch {
	case err != nil:
		return ofJob(err)
	case !d.found && s.c.Create == nil:
		return noTopic(e.fixed)
	case !d.found:
		d.policy = s.c.Create.settings()[cleanupPolicy]
	}
	switch err := s.mayWrite(e.fixed, d); {
	case err != nil:
		return err
	case e.registry != nil:
		return e.registry.check(ctx, e.fixed)
	}
	return nil
}

func noTopic(name string) error {
	return fail.Job("kafka.no_topic", "there is no topic %s", name).
		WithFix("create it, or set create: {partitions: N}")
}

// mayWrite refuses a topic of whose messages Kafka keeps the last for each key, whichever its version.
func (s *Sink) mayWrite(name string, d description) error {
	const unless = "or, if nobody else writes it until the run has ended, and nothing in it is newer than the " +
		"source, set sole_writer: true"
	switch {
	case s.c.Value == valueNone:
		return mayLackValues(name, d)
	case s.c.SoleWriter:
		return nil
	case d.policy == "":
		return fail.Job("kafka.policy_unknown", "this user may not see whether the topic %s is compacted, and in a "+
			"compacted topic older records of a run take the place of newer messages of others", name).
			WithFix("allow the user DESCRIBE_CONFIGS on the topic, %s", unless)
	case strings.Contains(d.policy, compacted):
		return fail.Job("kafka.compacted", "the topic %s is compacted (%s=%s): of each key Kafka keeps the message "+
			"that comes last, so that an older record of a run "+
			"takes the place of a newer message of others", name, cleanupPolicy, d.policy).
			WithFix("write to a topic with %s=delete, whose readers compare versions, %s", cleanupPolicy, unless)
	}
	return nil
}

// connect gives the client for looking things up. The caller holds lookUp.
func (s *Sink) connect(ctx context.Context) error {
	if s.client != nil {
		return nil
	}
	c, err := producing(s.c)
	if err != nil {
		return err
	}
	// Nothing that is looked up takes long, and sarama asks a silent broker three times
	c.Net.ReadTimeout = 5 * time.Second
	// A topic that is not there is not there: asked once more, in case it is new.
	c.Metadata.Retry.Max, c.Metadata.Retry.Backoff = 1, 100*time.Millisecond
	s.client, err = dial(ctx, s.c.Brokers, c)
	return err
}

// topic looks a topic up, the first time at the broker and the registry; it creates it where the settings say so.
func (s *Sink) topic(ctx context.Context, e *encoder, name string) (*topic, error) {
	if t, ok := s.topics.Load(name); ok {
		return t.(*topic), nil
	}
	s.lookUp.Lock()
	defer s.lookUp.Unlock()
	if t, ok := s.topics.Load(name); ok {
		return t.(*topic), nil
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	d, err := describe(s.client, name)
	if err == nil && !d.found {
		if s.c.Create == nil {
			return nil, noTopic(name)
		}
		if err = s.mayWrite(name, description{policy: s.c.Create.settings()[cleanupPolicy]}); err != nil {
			return nil, err
		}
		if err = create(s.client, name, s.c.Create); err == nil {
			d, err = await(ctx, s.client, name)
		}
	}
	if err == nil {
		err = s.mayWrite(name, d)
	}
	if err != nil {
		return nil, err
	}
	t := &topic{name: name, size: d.limit}
	if e.registry != nil {
		if t.head, err = e.registry.register(ctx, name); err != nil {
			return nil, err
		}
	}
	s.topics.Store(name, t)
	return t, nil
}

// producer gives the producer of the limits, connecting it the first time.
func (s *Sink) producer(ctx context.Context, l limits) (*producer, error) {
	s.mu.Lock()
	p := s.producers[l]
	s.mu.Unlock()
	if p != nil {
		return p, nil
	}
	s.lookUp.Lock()
	defer s.lookUp.Unlock()
	s.mu.Lock()
	p, closed := s.producers[l], s.producers == nil
	s.mu.Unlock()
	if p != nil || closed {
		return p, closedError(closed)
	}
	p, err := newProducer(ctx, s.c, l.size, l.alone)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.producers == nil {
		go p.close()
		return nil, closedError(true)
	}
	s.producers[l] = p
	return p, nil
}

func closedError(closed bool) error {
	if closed {
		return fail.New(fail.Fatal, "kafka.closed", "the sink is closed")
	}
	return nil
}

// discard lets the next batch make a producer anew.
func (s *Sink) discard(l limits, p *producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.producers[l] == p {
		delete(s.producers, l)
		go p.close()
	}
}

// Open gives a writer of batches.
func (s *Sink) Open(ctx context.Context, run connector.Run, schema *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	e, err := s.newEncoder(run, schema)
	if err != nil {
		return nil, err
	}
	write := func(ctx context.Context, batch []*record.Record) []connector.Result { return s.write(ctx, e, batch) }
	return connector.NewBatcher(ctx, s.c.limits(), s.retry, write, settle), nil
}

// write writes one batch.
func (s *Sink) write(ctx context.Context, e *encoder, batch []*record.Record) []connector.Result {
	results := make([]connector.Result, len(batch))
	messages := make([]message, len(batch))
	groups := map[int][]int{} // size of the largest message → places in the batch
	buffer := make([]byte, 0, e.average.Load()*int64(len(batch)))
	for i, r := range batch {
		m := &messages[i]
		var err error
		if buffer, err = s.encode(ctx, e, m, buffer, r); err != nil {
			results[i].Err = err
			continue
		}
		groups[m.topic.size] = append(groups[m.topic.size], i)
	}
	e.average.Store(int64(len(buffer)/len(batch) + 64))
	for size, places := range groups {
		s.send(ctx, limits{size: size}, messages, places, results)
	}
	return results
}

// send sends the messages at some places of a batch.
func (s *Sink) send(ctx context.Context, l limits, messages []message, places []int, results []connector.Result) {
	all := func(err error) {
		for _, i := range places {
			results[i].Err = err
		}
	}
	p, err := s.producer(ctx, l)
	if err != nil {
		all(err)
		return
	}
	list := make([]*message, len(places))
	for i, place := range places {
		list[i] = &messages[place]
	}
	err = p.send(ctx, list)
	if errors.Is(err, errClosed) {
		all(fail.New(fail.Transient, "kafka.sequence", "%w", err))
		return
	}
	if err != nil {
		all(err)
		return
	}
	var tooLarge []int
	for i, m := range list {
		place := places[i]
		results[place].Err = nil
		switch {
		case m.err == nil:
		case errors.Is(m.err, sarama.ErrMessageSizeTooLarge) && !l.alone:
			tooLarge = append(tooLarge, place)
		default:
			results[place].Err = classify(m.err, m.topic.name)
			if sequenceLost(m.err) {
				s.discard(l, p)
			}
		}
	}
	// The broker refused a batch for its size, which says nothing about each of its messages.
	if len(tooLarge) > 0 {
		s.send(ctx, limits{size: l.size, alone: true}, messages, tooLarge, results)
	}
}

// encode makes the message of a record; what it holds goes to the buffer.
func (s *Sink) encode(ctx context.Context, e *encoder, m *message, buffer []byte, r *record.Record) ([]byte, error) {
	start := len(buffer)
	buffer, err := e.topic.Append(buffer, r)
	if err != nil {
		return buffer[:start], fail.New(fail.Permanent, "kafka.topic", "%w", err)
	}
	if known, ok := s.topics.Load(string(buffer[start:])); ok {
		m.topic = known.(*topic)
	} else if m.topic, err = s.topic(ctx, e, string(buffer[start:])); err != nil {
		return buffer[:start], err
	}
	buffer = buffer[:start]

	if buffer, err = e.key.Append(buffer, r); err != nil {
		return buffer[:start], fail.New(fail.Permanent, "kafka.key", "%w", err)
	}
	key := len(buffer)
	buffer = strconv.AppendInt(buffer, max(r.Version, e.floor), 10)
	version := len(buffer)
	if buffer, err = e.appendProcessor(buffer, r); err != nil {
		return buffer[:start], err
	}
	processor := len(buffer)
	valued := r.Op == record.Upsert && !e.empty
	switch {
	case valued && e.registry != nil:
		buffer = append(buffer, m.topic.head...)
		if buffer, err = appendAvro(buffer, e.content(r)); err != nil {
			return buffer[:start], fail.New(fail.Permanent, "kafka.avro",
				"the record does not fit its Avro schema: %w", err)
		}
	case valued:
		buffer = e.content(r).AppendJSON(buffer)
	}

	// The buffer may move when it grows; what is cut from it stays.
	m.key = content(buffer[start:key:key])
	m.headers = e.headers
	m.headers[0].Value = buffer[key:version:version]
	if e.processor != nil {
		m.headers[4].Value = buffer[version:processor:processor]
	}
	m.ProducerMessage = sarama.ProducerMessage{Topic: m.topic.name, Key: &m.key, Headers: m.headers[:e.count]}
	if m.headers[2].Value = deletion; r.Op == record.Upsert {
		m.headers[2].Value = upsert
	}
	if valued {
		m.value = content(buffer[processor:len(buffer):len(buffer)])
		m.ProducerMessage.Value = &m.value
	}
	const recordBatch = 2
	if n := m.ByteSize(recordBatch); n > m.topic.size {
		return buffer[:start], fail.New(fail.Permanent, "kafka.too_large",
			"the message has %d bytes, the topic %s takes %d", n, m.topic.name, m.topic.size).
			WithFix("raise max.message.bytes of the topic, or leave out large fields")
	}
	return buffer, nil
}
