package kafkaio

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A page ends at either of these.
const (
	pageRows  = 1000
	pageBytes = 1 << 20
)

// splitBytes is about the size of a split where the plan asks for no smaller ones.
const splitBytes = 64 << 20

// Source reads a topic. The partition of a split is TOPIC/NUMBER; positions are offsets, 8 bytes, big-endian.
type Source struct {
	c     SourceConfig
	need  connector.Need
	retry connector.Retry
	wait  time.Duration // for open transactions

	mu     sync.Mutex
	client sarama.Client
	closed bool

	group group // to which offsets are committed

	schemaOnce sync.Mutex
	schema     *record.Schema
	avro       *avroReader // nil: JSON
}

var _ connector.Source = (*Source)(nil)

// NewSource gives a source of valid settings. Kafka holds no write times of cells.
func NewSource(c SourceConfig, need connector.Need) *Source {
	return &Source{c: c, need: need, retry: connector.DefaultRetry, wait: maxOpen}
}

// Close implements connector.Source.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.client == nil {
		return nil
	}
	err := s.client.Close()
	s.client = nil
	return err
}

// Schema implements connector.Source.
func (s *Source) Schema(ctx context.Context) (*record.Schema, error) {
	s.schemaOnce.Lock()
	defer s.schemaOnce.Unlock()
	if s.schema != nil {
		return s.schema, nil
	}
	if _, err := s.partitions(ctx); err != nil {
		return nil, err
	}
	fields := s.c.Fields
	if s.c.Format == formatAvro {
		reader, err := newAvroReader(s.c, s.retry)
		if err != nil {
			return nil, err
		}
		if len(fields) == 0 {
			if fields, err = reader.fields(ctx, s.c.Topic); err != nil {
				return nil, err
			}
		}
		s.avro = reader
	}
	schema, err := record.NewSchema(fields, s.c.Key...)
	if err != nil {
		return nil, fail.Job("kafka.fields", "the fields of topic %s: %w", s.c.Topic, err).
			WithFix("there are %s", fields.Names())
	}
	if i := schema.Index(s.c.Version); s.c.Version != "" && (i < 0 || !connector.IsVersion(fields[i].Type)) {
		return nil, fail.Job("kafka.version", "the version %q is no field of type timestamp, timeuuid or bigint",
			s.c.Version).
			WithFix("name such a field in version")
	}
	s.schema = schema
	return schema, nil
}

func (s *Source) name(partition int32) string {
	return s.c.Topic + "/" + strconv.Itoa(int(partition))
}

// Plan cuts each partition by offsets, from where the settings say up to the end that it has now.
func (s *Source) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	if _, err := s.Schema(ctx); err != nil {
		return err
	}
	partitions, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	wanted, err := s.wanted(ctx, partitions)
	if err != nil {
		return err
	}
	average := int64(0) // bytes of a message
	for _, partition := range partitions {
		first, end, err := s.bounds(ctx, partition, wanted)
		if err != nil {
			return err
		}
		if s.c.Follow {
			if err := split(connector.Split{Partition: s.name(partition), Start: before(first),
				Rows: end - first}); err != nil {
				return err
			}
			continue
		}
		if first >= end {
			continue
		}
		if average == 0 {
			if average, err = s.averageSize(ctx, partition, first, end); err != nil {
				return err
			}
		}
		length := max(1, splitBytes/average)
		if o.Bytes > 0 {
			length = min(length, max(1, o.Bytes/average))
		}
		if o.Rows > 0 {
			length = min(length, o.Rows)
		}
		for at := first; at < end; at += length {
			rows := min(length, end-at)
			if err := split(connector.Split{Partition: s.name(partition), Start: before(at),
				End: position(at + rows - 1), Rows: rows, Bytes: rows * average}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bounds are the offsets of the first message to be read and behind the last one.
func (s *Source) bounds(ctx context.Context, partition int32, wanted map[int32]int64) (
	first, end int64, err error) {
	if s.c.Follow {
		end, err = s.offset(ctx, partition, sarama.OffsetNewest, sarama.ReadCommitted)
	} else {
		end, err = s.end(ctx, partition)
	}
	if err != nil {
		return 0, 0, err
	}
	first, err = s.first(ctx, partition, end, wanted)
	return first, end, err
}

// maxOpen is how long a transaction is waited for: Kafka's default for the longest that one may be open
// (transaction.max.timeout.ms).
const maxOpen = 15 * time.Minute

// end is the offset behind the last message that is there now. All up to it can be read, but where the settings say
// that what lies behind an open transaction is left.
func (s *Source) end(ctx context.Context, partition int32) (int64, error) {
	end, err := s.offset(ctx, partition, sarama.OffsetNewest, sarama.ReadUncommitted)
	if err != nil {
		return 0, err
	}
	for began, waited := time.Now(), false; ; {
		stable, err := s.offset(ctx, partition, sarama.OffsetNewest, sarama.ReadCommitted)
		if err != nil || stable >= end {
			return end, err
		}
		switch {
		case s.need.Again:
			return stable, nil
		case s.c.OnOpen == openLeave:
			slog.WarnContext(ctx, "messages are left out: they lie behind a transaction that is open", "topic",
				s.c.Topic, "partition", partition,
				"offset", stable, "messages", end-stable)
			return stable, nil
		case s.c.OnOpen == openStop || time.Since(began) >= s.wait:
			return 0, s.open(partition, stable, end)
		case !waited:
			waited = true
			slog.InfoContext(ctx, "waiting for an open transaction to end", "topic", s.c.Topic, "partition",
				partition, "offset", stable,
				"messages", end-stable, "longest", s.wait)
		}
		select {
		case <-time.After(min(time.Second, s.wait)):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// open is the error of a transaction that does not end.
func (s *Source) open(partition int32, from, end int64) error {
	return fail.Unreachable("kafka.open_transaction", "a transaction on %s is open since offset %d, and the "+
		"messages from there up to %d, %d at most, cannot be read until it ends",
		s.name(partition), from, end, end-from).
		WithFix("let its producer end it, or abort it: kafka-transactions.sh abort --topic %s --partition %d "+
			"--start-offset %d; or leave the messages out: on_open_transaction: leave", s.c.Topic, partition, from)
}

// averageSize is about what a message takes, by the first ones.
func (s *Source) averageSize(ctx context.Context, partition int32, first, end int64) (int64, error) {
	const unknown, overhead = 1 << 10, 50
	f, err := s.fetch(ctx, partition, first, end)
	if err != nil || len(f.messages) == 0 {
		return unknown, err
	}
	return f.bytes/int64(len(f.messages)) + overhead, nil
}

// before is the position at which reading begins with an offset.
func before(offset int64) []byte {
	if offset == 0 {
		return nil
	}
	return position(offset - 1)
}

func position(offset int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(offset)) }

// bound is the offset in a position; open where there is none.
func bound(position []byte, open int64) (int64, error) {
	if position == nil {
		return open, nil
	}
	if len(position) != 8 {
		return 0, fail.New(fail.Fatal, "kafka.position", "a position of %d bytes is none of a topic", len(position))
	}
	return int64(binary.BigEndian.Uint64(position)), nil
}

// Read implements connector.Source.
func (s *Source) Read(ctx context.Context, split connector.Split, give func(connector.Page) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	partition, err := s.number(split)
	if err != nil {
		return err
	}
	start, err := bound(split.Start, -1)
	if err != nil {
		return err
	}
	end, err := bound(split.End, -1)
	if err != nil {
		return err
	}
	if end++; split.End == nil && !s.c.Follow {
		if end, err = s.end(ctx, partition); err != nil {
			return err
		}
	}
	p := &pager{s: s, schema: schema, split: split, name: split.String(),
		rows: int64(s.need.Page(pageRows)), give: give,
		readings: connector.Readings(schema, s.c.Version, s.c.CutTimestamps)}
	if split.End == nil && s.c.Follow {
		return s.follow(ctx, partition, start+1, p)
	}
	for at := start + 1; at < end; {
		f, err := s.fetch(ctx, partition, at, end)
		if err != nil {
			return err
		}
		for i := range f.messages {
			if f.messages[i].Offset >= end {
				break
			}
			if err := p.add(ctx, &f.messages[i]); err != nil {
				return err
			}
		}
		at = f.next
	}
	return p.end(ctx)
}

// number is the number of a split's partition.
func (s *Source) number(split connector.Split) (int32, error) {
	number, ours := strings.CutPrefix(split.Partition, s.c.Topic+"/")
	partition, err := strconv.ParseInt(number, 10, 32)
	if !ours || err != nil {
		return 0, fail.New(fail.Fatal, "kafka.partition", "%s is no partition of topic %s", split.Partition, s.c.Topic)
	}
	return int32(partition), nil
}

// pager collects the records of a split into pages.
type pager struct {
	s      *Source
	schema *record.Schema
	split  connector.Split // Start moves on with each page

	readings []record.Reading // of the fields
	name     string
	rows     int64 // of a page
	give     func(connector.Page) error

	page connector.Page
	at   int64 // offset of the page's last message
}

// add adds the record or dead letter of a message.
func (p *pager) add(ctx context.Context, m *sarama.ConsumerMessage) error {
	if p.at = m.Offset; p.page.Event.IsZero() || m.Timestamp.Before(p.page.Event) {
		p.page.Event = m.Timestamp
	}
	r := &record.Record{Schema: p.schema}
	ours, err := p.s.c.takes(m)
	if ours {
		err = p.decode(ctx, r, m)
	}
	switch {
	case err != nil && fail.ClassOf(err) != fail.Permanent:
		return err
	case err != nil:
		p.dead(m, err)
	case !ours:
		p.page.Filtered++
	default:
		p.page.Records = append(p.page.Records, r)
		p.page.Bytes += int64(r.Size())
	}
	if p.page.Rows() < p.rows && p.page.Bytes < pageBytes {
		return nil
	}
	return p.end(ctx)
}

// end hands on the page, with everything up to its last message.
func (p *pager) end(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.page.Rows() == 0 {
		return nil
	}
	return p.hand()
}

// reach hands on the page with everything up to an offset, also where no message stands there, as at the end of a
// transaction: else the partition would seem to have more.
func (p *pager) reach(ctx context.Context, offset int64) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.page.Rows() == 0 && bytes.Equal(p.split.Start, position(offset)):
		return nil // the last page ended there
	}
	p.at = offset
	return p.hand()
}

func (p *pager) hand() error {
	p.page.Last = position(p.at)
	for _, r := range p.page.Records {
		r.Origin = record.Origin{Split: p.name, Position: p.split.Start}
	}
	page := p.page
	p.split.Start = page.Last
	p.page = connector.Page{}
	return p.give(page)
}

// dead adds a dead letter for a message that is no record. Raw is the value, of a tombstone the key.
func (p *pager) dead(m *sarama.ConsumerMessage, err error) {
	const most = 1 << 20
	raw := m.Value
	if raw == nil {
		raw = m.Key
	}
	if len(raw) > most {
		raw = raw[:most]
	}
	var what *fail.Error
	errors.As(err, &what)
	p.page.Dead = append(p.page.Dead, &record.DeadLetter{Raw: slices.Clone(raw),
		Class: fail.Permanent.String(), Code: what.Code,
		Message:  fmt.Sprintf("the message at offset %d of %s: %s", m.Offset, p.split.Partition, what.Message),
		Attempts: 1,
		Place:    &record.Place{Partition: p.split.Partition, Start: position(m.Offset - 1), End: position(m.Offset)}})
	p.page.Bytes += int64(len(raw))
}

func unreadable(code, format string, args ...any) error {
	return fail.New(fail.Permanent, "kafka."+code, format, args...)
}

// decode makes a record of a message; its error is of class Permanent where the message is to blame.
func (p *pager) decode(ctx context.Context, r *record.Record, m *sarama.ConsumerMessage) (err error) {
	switch {
	case len(p.schema.Fields) > len(p.schema.Key) && keyAlone(m):
		return unreadable("key_alone", "the event carries a key alone, and the source has further fields; look rows "+
			"up with a source of kind keys, or name nothing but the key in fields")
	case m.Value == nil:
		err = p.readKey(r, m)
	case p.s.avro != nil:
		err = p.s.avro.read(ctx, r, m.Value)
	default:
		err = p.readJSON(r, string(m.Value))
	}
	if err != nil {
		return err
	}
	for _, k := range p.schema.Key {
		if r.Values[k].IsNull() {
			return unreadable("no_key", "the key field %s has no value", p.schema.Fields[k].Name)
		}
	}
	return p.setVersion(r, m)
}

func (p *pager) setVersion(r *record.Record, m *sarama.ConsumerMessage) error {
	if i := p.schema.Index(p.s.c.Version); i >= 0 && r.Op == record.Upsert {
		if r.Values[i].IsNull() {
			return unreadable("no_version", "the version field %s has no value", p.s.c.Version)
		}
		r.Version = connector.Version(r.Values[i])
		return nil
	}
	r.Version = m.Timestamp.UnixMicro()
	for _, h := range m.Headers {
		if string(h.Key) != "version" {
			continue
		}
		var err error
		if r.Version, err = strconv.ParseInt(string(h.Value), 10, 64); err != nil {
			return unreadable("version", "the header version is %.60q, which is no number", h.Value)
		}
	}
	if r.Version <= 0 {
		return unreadable("no_version", "the message has no header version, and no time")
	}
	return nil
}

// readJSON reads the values of a record from an object.
func (p *pager) readJSON(r *record.Record, text string) error {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") {
		return unreadable("not_json", "no JSON object")
	}
	r.Values = make([]record.Value, len(p.schema.Fields))
	err := record.JSONParts(text, func(name, value string) (err error) {
		i := p.schema.Index(name)
		switch {
		case i < 0 && p.s.c.IgnoreUnknown:
			return nil
		case i < 0:
			return unknownField(name)
		case r.Values[i].Kind() != record.Unset:
			return unreadable("field_twice", "field %q stands twice", name)
		}
		if r.Values[i], err = p.readings[i].FromJSON(p.schema.Fields[i].Type, value); err != nil {
			return wrongType(name, err)
		}
		return nil
	})
	var known *fail.Error
	if err != nil && !errors.As(err, &known) {
		return unreadable("not_json", "%w", err)
	}
	return err
}

func unknownField(name string) error {
	return unreadable("unknown_field", "field %q is not among the fields; name it in fields, or set ignore_unknown",
		name)
}

func wrongType(name string, err error) error {
	if errors.Is(err, record.ErrFiner) {
		return unreadable("wrong_type",
			"field %q: %w; set cut_timestamps: true, or read it as text (in Avro as bigint)",
			name, err)
	}
	return unreadable("wrong_type", "field %q: %w", name, err)
}
