package kafkaio

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"reprise/io/connector"
)

// SinkConfig are the settings of Kafka as a sink.
type SinkConfig struct {
	Brokers  []string       `json:"brokers" reprise:"tuning" jsonschema:"required,minItems=1" jsonschema_description:"Brokers to begin with, HOST:PORT."`
	Topic    string         `json:"topic" jsonschema:"required" jsonschema_description:"Topic, or a template such as assets-{asset_type}."`
	Key      string         `json:"key,omitempty" jsonschema_description:"Template of the message's key. Default: {key}, the record's key."`
	Value    string         `json:"value,omitempty" jsonschema:"enum=row,enum=key,enum=none" jsonschema_description:"What a message holds: row (default), all fields of the record; key, those of its key alone, for consumers that look up the rest; none, no value: then the header op alone tells an upsert from a delete, and the topic must not be compacted. A delete has no value whatever is set here."`
	Format   string         `json:"format,omitempty" jsonschema:"enum=json,enum=avro" jsonschema_description:"json (default) or avro, for which a registry is needed."`
	Registry *Registry      `json:"registry,omitempty" jsonschema_description:"Schema registry for Avro."`
	Compress string         `json:"compress,omitempty" reprise:"tuning" jsonschema:"enum=none,enum=gzip,enum=snappy,enum=lz4,enum=zstd" jsonschema_description:"Compression of the messages. Default: lz4."`
	Batch    Batch          `json:"batch,omitempty" reprise:"tuning" jsonschema_description:"Limits of what is under way."`
	Create   *Create        `json:"create,omitempty" reprise:"tuning" jsonschema_description:"Create a topic that is missing. Default: a missing topic is an error."`
	SASL     *SASL          `json:"sasl,omitempty" reprise:"tuning" jsonschema_description:"Login. Default: none."`
	TLS      *connector.TLS `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Encryption; {} for a server whose certificate the system trusts. Default: none."`

	Processor string `json:"processor,omitempty" jsonschema_description:"Whom a message is for, such as thumbnails, or a template such as {asset_type}: the header processor. Default: no such header."`

	SoleWriter bool `json:"sole_writer,omitempty" reprise:"tuning" jsonschema_description:"Lets the topic be compacted (cleanup.policy=compact). It says that nobody else, no other run and no redrive beside this one, writes the topic until the run has ended, and that nothing in it is newer than the source: Kafka keeps the message of a key that comes last, whichever its version. Only for jobs that write each key once. Default: false, a compacted topic is refused, also one of which this user may not see whether it is (DESCRIBE_CONFIGS)."`
}

// SourceConfig are the settings of a topic that is read.
type SourceConfig struct {
	Brokers       []string         `json:"brokers" reprise:"tuning" jsonschema:"required,minItems=1" jsonschema_description:"Brokers to begin with, HOST:PORT."`
	Topic         string           `json:"topic" jsonschema:"required" jsonschema_description:"The topic. It is read up to the end that it has when the run is planned, or with follow on and on."`
	Key           []string         `json:"key" jsonschema:"required,minItems=1" jsonschema_description:"The fields that make up a record's key. A tombstone's key is read from the message's key, which must be the fields' texts joined by |, as the sink writes it. So is that of an event without a value whose header op is upsert, which the sink writes with value: none; its other fields are not set."`
	Format        string           `json:"format,omitempty" jsonschema:"enum=json,enum=avro" jsonschema_description:"json (default) or avro, for which a registry is needed."`
	Registry      *Registry        `json:"registry,omitempty" jsonschema_description:"Schema registry for Avro."`
	Fields        connector.Fields `json:"fields,omitempty" jsonschema_description:"Name and CQL type of each field, such as {id: uuid, tags: set<text>}. JSON needs them. Default for Avro: those of the latest schema of the registry's subject."`
	IgnoreUnknown bool             `json:"ignore_unknown,omitempty" jsonschema_description:"Leave out what fields does not name. Default: false, a record with an unknown field is a dead letter."`
	Version       string           `json:"version,omitempty" jsonschema_description:"Field with the record's version: a timestamp, a timeuuid, or a bigint of microseconds since 1970. Default: the message's header version, else its time."`
	CutTimestamps bool             `json:"cut_timestamps,omitempty" jsonschema_description:"Cut timestamps to whole milliseconds, which is all that a timestamp holds; those of the key and the version stay whole. Default: false, one with microseconds is a dead letter."`
	Follow        bool             `json:"follow,omitempty" jsonschema_description:"Go on with what comes later, until the run is stopped. Partitions that are added to the topic join within a minute. Default: false, read up to the end."`
	Group         string           `json:"group,omitempty" reprise:"tuning" jsonschema_description:"With follow: consumer group to which finished offsets are committed, for tools that watch lag. A run goes on where its journal says, whatever the group has. No member may be in the group, and no other run may commit to it. Default: none."`
	Processor     string           `json:"processor,omitempty" jsonschema_description:"Read only events for this processor, by their header processor. Those for one of others are filtered, all others are dead letters. Default: all messages."`
	Others        []string         `json:"others,omitempty" jsonschema_description:"With processor: the other processors that read the topic."`
	From          *From            `json:"from,omitempty" jsonschema_description:"Where to begin. Default: the first message that is there."`
	OnOpen        string           `json:"on_open_transaction,omitempty" reprise:"tuning" jsonschema:"enum=wait,enum=stop,enum=leave" jsonschema_description:"What to do about messages behind a transaction that is open when the run is planned, which cannot be read until it ends: wait for it (default), at most 15 minutes, the longest that brokers let one be open unless told otherwise, then stop; stop at once; or leave them and what the transaction writes, with a warning that says how many."`
	SASL          *SASL            `json:"sasl,omitempty" reprise:"tuning" jsonschema_description:"Login. Default: none."`
	TLS           *connector.TLS   `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Encryption; {} for a server whose certificate the system trusts. Default: none."`
}

// From is where reading begins.
type From struct {
	At      string           `json:"at,omitempty" jsonschema:"enum=earliest,enum=latest" jsonschema_description:"earliest (default) is the first message that is there, latest is behind the last one."`
	Group   string           `json:"group,omitempty" jsonschema_description:"A consumer group: where it has committed; in partitions where it has not, the first message."`
	Offsets map[string]int64 `json:"offsets,omitempty" jsonschema_description:"An offset for each partition, as in {0: 1200, 1: 3400}; in others the first message. It must be there."`
	Offset  int64            `json:"offset,omitempty" jsonschema:"minimum=0" jsonschema_description:"An offset in each partition; where it is no more there, the first one that is."`
	Time    *connector.Time  `json:"time,omitempty" jsonschema_description:"A time such as 2026-05-01T12:00:00Z: the first message that is not older."`
}

// Registry are the settings of a schema registry with Confluent's interface.
type Registry struct {
	URL      string           `json:"url" jsonschema:"required" jsonschema_description:"Address, such as http://registry:8081."`
	User     string           `json:"user,omitempty" reprise:"tuning" jsonschema_description:"User, where it asks for a login."`
	Password connector.Secret `json:"password,omitempty" reprise:"tuning" jsonschema_description:"Password of the user: env:NAME or file:PATH."`
	Subject  string           `json:"subject,omitempty" jsonschema:"enum=topic,enum=record,enum=topic_record" jsonschema_description:"Subject of the schema: topic (default) is TOPIC-value, record is the record's name, topic_record is TOPIC-NAME."`
	Name     string           `json:"name,omitempty" jsonschema_description:"Full name of the Avro record, such as com.example.Asset. Default: made from the topic."`
	TLS      *connector.TLS   `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Settings of an https address; default: those of the system."`
}

// Batch are the limits of what is under way.
type Batch struct {
	Rows     int             `json:"rows,omitempty" jsonschema:"minimum=1" jsonschema_description:"Records of a batch. Default: 2000."`
	Bytes    connector.Bytes `json:"bytes,omitempty" jsonschema_description:"Bytes of a batch. Default: 2MiB."`
	InFlight int             `json:"in_flight,omitempty" jsonschema:"minimum=1,maximum=64" jsonschema_description:"Batches of one writer under way at once. 1 keeps the messages of a key in order; more is faster only where brokers are far away. Default: 1."`
}

// Create is how a missing topic is created.
type Create struct {
	Partitions  int32             `json:"partitions" jsonschema:"required,minimum=1" jsonschema_description:"Number of partitions."`
	Replication int16             `json:"replication,omitempty" jsonschema:"minimum=1" jsonschema_description:"Number of replicas. Default: the broker's."`
	Config      map[string]string `json:"config,omitempty" jsonschema_description:"Settings of the topic, such as {cleanup.policy: compact}."`
}

// settings are those of the topic. It is never compacted but by name, whatever the broker's default is.
func (c *Create) settings() map[string]string {
	all := map[string]string{cleanupPolicy: "delete"}
	maps.Copy(all, c.Config)
	return all
}

// SASL is a login.
type SASL struct {
	Mechanism string           `json:"mechanism" jsonschema:"required,enum=plain,enum=scram-sha-256,enum=scram-sha-512" jsonschema_description:"plain, scram-sha-256 or scram-sha-512."`
	User      string           `json:"user" jsonschema:"required" jsonschema_description:"User."`
	Password  connector.Secret `json:"password" jsonschema:"required" jsonschema_description:"Password: env:NAME or file:PATH."`
}

const formatAvro = "avro"

// What on_open_transaction may be; wait is the default.
const (
	openStop  = "stop"
	openLeave = "leave"
)

// Validate finds what the schema of the settings cannot say.
func (c SinkConfig) Validate() (faults []connector.Fault) {
	faults = validateBrokers(c.Brokers)
	if c.Topic == "" {
		faults = append(faults, connector.Faultf("topic", "name the topic"))
	}
	for path, text := range map[string]string{"topic": c.Topic, "key": c.Key} {
		if _, err := connector.ParseTemplate(text, nil); err != nil {
			faults = append(faults, connector.Faultf(path, "%v", err))
		}
	}
	if c.SoleWriter && c.Batch.InFlight > 1 {
		faults = append(faults, connector.Faultf("batch.in_flight",
			"with more than 1 an older message of a key may come last, and a compacted topic keeps that; leave it out"))
	}
	if faults = append(faults, c.validateEvents()...); c.Value == valueNone {
		return faults
	}
	return append(faults, validateFormat(c.Format, c.Registry)...)
}

// Validate finds what the schema of the settings cannot say.
func (c SourceConfig) Validate() (faults []connector.Fault) {
	faults = validateBrokers(c.Brokers)
	if !topicName.MatchString(c.Topic) {
		faults = append(faults, connector.Faultf("topic",
			"%q is no name of a topic: letters, digits, . _ and -, at most 249", c.Topic))
	}
	faults = append(faults, validateFormat(c.Format, c.Registry)...)
	if len(c.Key) == 0 {
		faults = append(faults, connector.Faultf("key", "name the fields that make up a record's key"))
	}
	if len(c.Fields) == 0 && c.Format != formatAvro {
		faults = append(faults, connector.Faultf("fields", "name the fields and their types, which JSON does not tell"))
	}
	if c.From != nil {
		faults = append(faults, connector.Below("from", c.From.validate())...)
	}
	if len(c.Others) > 0 && c.Processor == "" {
		faults = append(faults, connector.Faultf("others", "name the processor itself as well"))
	}
	if slices.Contains(c.Others, c.Processor) && c.Processor != "" {
		faults = append(faults, connector.Faultf("others", "%s is the processor itself", c.Processor))
	}
	if c.Group != "" && !c.Follow {
		faults = append(faults, connector.Faultf("group", "offsets are committed only with follow: true"))
	}
	if c.Follow && c.OnOpen != "" {
		faults = append(faults, connector.Faultf("on_open_transaction",
			"with follow messages wait for the end of their transaction; leave it out"))
	}
	return append(faults, c.Fields.Check(c.Key, c.Version)...)
}

func (f From) validate() (faults []connector.Fault) {
	n := 0
	for _, set := range []bool{f.At != "", f.Group != "", len(f.Offsets) > 0, f.Offset != 0, f.Time != nil} {
		if set {
			n++
		}
	}
	if n > 1 {
		faults = append(faults, connector.Faultf("", "at, group, offsets, offset and time exclude each other"))
	}
	for partition, offset := range f.Offsets {
		if _, err := strconv.ParseUint(partition, 10, 31); err != nil {
			faults = append(faults, connector.Faultf("offsets."+partition, "%q is no number of a partition", partition))
		}
		if offset < 0 {
			faults = append(faults, connector.Faultf("offsets."+partition, "an offset is 0 or more"))
		}
	}
	return faults
}

func validateBrokers(brokers []string) (faults []connector.Fault) {
	if len(brokers) == 0 {
		faults = append(faults, connector.Faultf("brokers", "name at least one broker, HOST:PORT"))
	}
	for _, broker := range brokers {
		if _, port, err := net.SplitHostPort(broker); err != nil || port == "" {
			faults = append(faults, connector.Faultf("brokers", "%q is no HOST:PORT", broker))
		}
	}
	return faults
}

func validateFormat(format string, r *Registry) (faults []connector.Fault) {
	switch {
	case format == formatAvro && r == nil:
		faults = append(faults, connector.Faultf("registry",
			"Avro needs a schema registry: registry: {url: http://...}"))
	case format != formatAvro && r != nil:
		faults = append(faults, connector.Faultf("registry", "only Avro uses a registry; set format: avro"))
	case r != nil && !strings.HasPrefix(r.URL, "http://") && !strings.HasPrefix(r.URL, "https://"):
		faults = append(faults, connector.Faultf("registry.url", "%q does not begin with http:// or https://", r.URL))
	}
	if r != nil && r.Name != "" && !validName(r.Name) {
		faults = append(faults, connector.Faultf("registry.name",
			"%q is no name of an Avro record such as com.example.Asset", r.Name))
	}
	return faults
}

func (c SinkConfig) keyTemplate() string {
	if c.Key == "" {
		return "{key}"
	}
	return c.Key
}

func (c SinkConfig) limits() connector.BatchLimits {
	l := connector.BatchLimits{Rows: 2000, Bytes: int(c.Batch.Bytes.Or(2 << 20)), InFlight: 1}
	if c.Batch.Rows > 0 {
		l.Rows = c.Batch.Rows
	}
	if c.Batch.InFlight > 0 {
		l.InFlight = c.Batch.InFlight
	}
	return l
}
