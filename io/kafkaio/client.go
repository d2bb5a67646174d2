package kafkaio

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

var codecs = map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD, "": sarama.CompressionLZ4}

// producing are sarama's settings for an idempotent producer that waits for all replicas.
func producing(c SinkConfig) (*sarama.Config, error) {
	s, err := settings(c.SASL, c.TLS)
	if err != nil {
		return nil, err
	}
	s.Net.MaxOpenRequests = 1
	s.Producer.Idempotent = true
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
	s.Producer.Compression = codecs[c.Compress]
	s.Producer.Partitioner = newPartitioner
	// A new leader is found within these four seconds, in order; what takes longer comes back to be written
	// again. A silent broker is given up after about four minutes, most of which the looks for a leader take,
	// so that the gate learns of it.
	s.Producer.Retry.Max = 3
	s.Producer.Retry.BackoffFunc = func(retries, _ int) time.Duration {
		return 500 * time.Millisecond << max(0, retries-1)
	}
	s.Producer.Timeout = 5 * time.Second
	s.Net.ReadTimeout = 10 * time.Second
	return s, nil
}

// settings are sarama's settings for a client that never makes a topic by asking for it.
func settings(login *SASL, encryption *connector.TLS) (*sarama.Config, error) {
	s := sarama.NewConfig()
	s.Version = sarama.V2_8_0_0
	s.ClientID = "reprise"
	s.Net.DialTimeout = 10 * time.Second
	s.Metadata.AllowAutoTopicCreation = false
	s.Metadata.Full = false
	// A broker that accepts connections and says nothing is asked for its topics once: else each
	// look for a leader takes minutes.
	s.Metadata.Timeout = 10 * time.Second

	tlsConfig, err := encryption.Config()
	if err != nil {
		return nil, err
	}
	s.Net.TLS.Enable = tlsConfig != nil
	s.Net.TLS.Config = tlsConfig
	if login == nil {
		return s, nil
	}
	password, err := login.Password.Resolve()
	if err != nil {
		return nil, fail.Job("kafka.password", "the password for Kafka: %w", err)
	}
	s.Net.SASL.Enable = true
	s.Net.SASL.User = login.User
	s.Net.SASL.Password = password
	switch login.Mechanism {
	case "plain":
		s.Net.SASL.Mechanism = sarama.SASLTypePlaintext
	case "scram-sha-256":
		s.Net.SASL.Mechanism = sarama.SASLTypeSCRAMSHA256
		s.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA256} }
	case "scram-sha-512":
		s.Net.SASL.Mechanism = sarama.SASLTypeSCRAMSHA512
		s.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA512} }
	}
	return s, nil
}

// scramClient gives the library's conversation the form that sarama asks for.
type scramClient struct {
	hash scram.HashGeneratorFcn
	*scram.ClientConversation
}

func (c *scramClient) Begin(user, password, authzID string) error {
	client, err := c.hash.NewClient(user, password, authzID)
	if err == nil {
		c.ClientConversation = client.NewConversation()
	}
	return err
}

// dial connects; it returns early when the context ends.
func dial(ctx context.Context, brokers []string, s *sarama.Config) (sarama.Client, error) {
	type dialled struct {
		client sarama.Client
		err    error
	}
	done := make(chan dialled, 1)
	go func() {
		client, err := sarama.NewClient(brokers, s)
		done <- dialled{client, err}
	}()
	select {
	case d := <-done:
		if d.err != nil {
			return nil, classify(d.err, "")
		}
		return d.client, nil
	case <-ctx.Done():
		go func() {
			if d := <-done; d.err == nil {
				_ = d.client.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// classify gives an error of sarama its class; topic may be "".
func classify(err error, topic string) error {
	var classified *fail.Error
	if errors.As(err, &classified) {
		return err
	}
	fatal := func(code, what, fix string) error {
		e := fail.New(fail.Fatal, code, "%s: %w", what, err).WithFix("%s", fix)
		e.Exit = fail.ExitUnreachable
		return e
	}
	of := ""
	if topic != "" {
		of = " for topic " + topic
	}
	var badCertificate *tls.CertificateVerificationError
	var unknownAuthority x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	switch {
	case errors.Is(err, sarama.ErrSASLAuthenticationFailed), errors.Is(err, sarama.ErrUnsupportedSASLMechanism),
		errors.Is(err, sarama.ErrIllegalSASLState):
		return fatal("kafka.login", "Kafka refuses the login", "check user, password and mechanism in sasl")
	case errors.As(err, &badCertificate), errors.As(err, &unknownAuthority), errors.As(err, &wrongHost):
		return fatal("kafka.certificate", "Kafka's certificate does not stand the check",
			"set ca or server_name in tls")
	case errors.Is(err, sarama.ErrTopicAuthorizationFailed), errors.Is(err, sarama.ErrClusterAuthorizationFailed):
		return fatal("kafka.denied", "Kafka denies the access"+of,
			"allow the user DESCRIBE on the topic; to read also READ; to write also WRITE and DESCRIBE_CONFIGS, "+
				"IDEMPOTENT_WRITE on the cluster, and CREATE where create is set")
	case errors.Is(err, sarama.ErrInvalidTopic):
		return fail.New(fail.Permanent, "kafka.topic_name",
			"%q is no name of a topic: letters, digits, . _ and -, at most 249", topic)
	case errors.Is(err, sarama.ErrMessageSizeTooLarge):
		return fail.New(fail.Permanent, "kafka.too_large",
			"the message is larger than the topic %s takes: %w", topic, err).
			WithFix("raise max.message.bytes of the topic, or leave out large fields")
	case errors.Is(err, sarama.ErrInvalidRecord), errors.Is(err, sarama.ErrInvalidTimestamp):
		return fail.New(fail.Permanent, "kafka.refused", "Kafka refuses the message%s: %w", of, err)
	case sequenceLost(err):
		return fail.New(fail.Transient, "kafka.sequence", "the producer lost its place%s: %w", of, err)
	case errors.Is(err, sarama.ErrThrottlingQuotaExceeded):
		return fail.New(fail.Throttled, "kafka.throttled", "Kafka asks for less%s: %w", of, err)
	}
	return fail.Unreachable("kafka.unavailable", "Kafka is not available%s: %w", of, err).
		WithFix("check brokers, tls and sasl, and that the brokers run")
}

// sequenceLost tells whether a producer can go on only as a new one.
func sequenceLost(err error) bool {
	for _, e := range []error{sarama.ErrOutOfOrderSequenceNumber, sarama.ErrUnknownProducerID,
		sarama.ErrInvalidProducerEpoch, sarama.ErrProducerFenced,
		sarama.ErrInvalidProducerIDMapping} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// content is a key or value that is ready to be sent.
type content []byte

func (c *content) Encode() ([]byte, error) { return *c, nil }
func (c *content) Length() int             { return len(*c) }

// message is a message on its way.
type message struct {
	sarama.ProducerMessage
	key, value content
	headers    headers
	topic      *topic
	err        error
	done       func()
}

// producer is a sarama producer whose batches can be waited for.
type producer struct {
	client sarama.Client
	async  sarama.AsyncProducer
	ended  chan struct{} // closed when nothing comes back any more

	mu     sync.RWMutex // held for reading while messages are handed over
	closed bool
}

// newProducer connects. limit is the size of the largest message and of a batch for one partition;
// alone sends each message by itself.
func newProducer(ctx context.Context, c SinkConfig, limit int, alone bool) (*producer, error) {
	s, err := producing(c)
	if err != nil {
		return nil, err
	}
	s.Producer.MaxMessageBytes = limit
	if alone {
		s.Producer.Flush.MaxMessages = 1
	}
	client, err := dial(ctx, c.Brokers, s)
	if err != nil {
		return nil, err
	}
	async, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		_ = client.Close()
		return nil, classify(err, "")
	}
	p := &producer{client: client, async: async, ended: make(chan struct{})}
	var both sync.WaitGroup
	both.Go(func() {
		for m := range async.Successes() {
			m.Metadata.(*message).done()
		}
	})
	both.Go(func() {
		for e := range async.Errors() {
			m := e.Msg.Metadata.(*message)
			m.err = e.Err
			m.done()
		}
	})
	go func() { both.Wait(); close(p.ended) }()
	return p, nil
}

var errClosed = errors.New("the producer was closed")

// send sends messages, in order, and returns when each has its answer in err. Its own error is that of the context, or
// errClosed; some messages may then have been written.
func (p *producer) send(ctx context.Context, messages []*message) error {
	var left atomic.Int64
	left.Store(int64(len(messages)))
	answered := make(chan struct{})
	done := func() {
		if left.Add(-1) == 0 {
			close(answered)
		}
	}
	if err := p.handOver(ctx, messages, done); err != nil {
		return err
	}
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *producer) handOver(ctx context.Context, messages []*message, done func()) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return errClosed
	}
	for _, m := range messages {
		m.err, m.done = nil, done
		m.ProducerMessage.Metadata = m
		select {
		case p.async.Input() <- &m.ProducerMessage:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// close ends the producer. What is under way and not answered soon is given up.
func (p *producer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.async.AsyncClose()
	soon := time.NewTimer(5 * time.Second)
	defer soon.Stop()
	select {
	case <-p.ended:
	case <-soon.C:
	}
	_ = p.client.Close()
}

var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// The settings of a topic that matter to who writes it.
const (
	maxMessage    = "max.message.bytes"
	cleanupPolicy = "cleanup.policy"
	compacted     = "compact" // within the policy
)

// description is what Kafka tells of a topic.
type description struct {
	found  bool   // there is such a topic
	limit  int    // bytes of its largest message
	policy string // "delete", "compact" or both; "": this user may not ask
}

func describe(client sarama.Client, name string) (d description, err error) {
	if !topicName.MatchString(name) || strings.Trim(name, ".") == "" {
		return d, classify(sarama.ErrInvalidTopic, name)
	}
	err = client.RefreshMetadata(name)
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		return d, nil
	}
	if err != nil {
		return d, classify(err, name)
	}
	const byDefault = 1_000_000 // a little less than Kafka's own
	d.found, d.limit = true, byDefault
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return d, classify(err, name)
	}
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: name,
		ConfigNames: []string{maxMessage, cleanupPolicy}})
	switch {
	case errors.Is(err, sarama.ErrTopicAuthorizationFailed), errors.Is(err, sarama.ErrClusterAuthorizationFailed):
		return d, nil // not every user may ask
	case err != nil:
		return d, classify(err, name)
	}
	for _, e := range entries {
		switch e.Name {
		case maxMessage:
			if limit, err := strconv.Atoi(e.Value); err == nil && limit > 0 {
				d.limit = min(limit, int(sarama.MaxRequestSize)-1<<20)
			}
		case cleanupPolicy:
			d.policy = e.Value
		}
	}
	return d, nil
}

// await describes a topic that was just created, as soon as the brokers know it and its leaders.
func await(ctx context.Context, client sarama.Client, name string) (d description, err error) {
	for tries := 0; tries < 100; tries++ {
		if d, err = describe(client, name); err == nil && d.found || err != nil && fail.ClassOf(err) != fail.Transient {
			return d, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return d, context.Cause(ctx)
		}
	}
	return d, fail.New(fail.Transient, "kafka.new_topic", "the new topic %s is not known to all brokers yet", name)
}

func create(client sarama.Client, name string, c *Create) error {
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return classify(err, name)
	}
	detail := &sarama.TopicDetail{NumPartitions: c.Partitions, ReplicationFactor: c.Replication,
		ConfigEntries: map[string]*string{}}
	if detail.ReplicationFactor == 0 {
		detail.ReplicationFactor = -1
	}
	for key, value := range c.settings() {
		detail.ConfigEntries[key] = &value
	}
	err = admin.CreateTopic(name, detail, false)
	switch {
	case err == nil, errors.Is(err, sarama.ErrTopicAlreadyExists):
		return nil
	case errors.Is(err, sarama.ErrInvalidReplicationFactor), errors.Is(err, sarama.ErrInvalidPartitions),
		errors.Is(err, sarama.ErrInvalidConfig),
		errors.Is(err, sarama.ErrPolicyViolation), errors.Is(err, sarama.ErrInvalidRequest):
		return fail.Job("kafka.create", "the topic %s cannot be created: %w", name, err).
			WithFix("change create, or create the topic yourself")
	}
	return classify(err, name)
}
