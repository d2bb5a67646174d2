package kafkaio

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// fetched is what one request brought.
type fetched struct {
	messages []sarama.ConsumerMessage // from the offset asked for on, those of aborted transactions left out
	next     int64                    // offset to go on from
	bytes    int64
}

const fetchBytes = 1 << 20

// fetch asks for the messages of a partition from an offset on. Where nothing more is there before end, next is end:
// the offsets up to it were deleted by compaction, or are those of transactions.
//
// sarama's own consumer is of no use for that: it hands on messages alone, and waits for the one at
// the end, which may never come.
func (s *Source) fetch(ctx context.Context, partition int32, from, end int64) (f fetched, err error) {
	for size := int32(fetchBytes); ; size *= 2 {
		var block *sarama.FetchResponseBlock
		if block, f, err = s.ask(ctx, partition, from, end, size); err != nil {
			return f, err
		}
		switch {
		case f.next > from:
			return f, nil
		case old(block):
			return f, fail.New(fail.Fatal, "kafka.old_format",
				"the messages at offset %d of %s are in a form older than that of Kafka 0.11", from, s.name(partition)).
				WithFix("begin later (from), or let them be written again")
		case cut(block):
			if size > sarama.MaxResponseSize/2 {
				return f, fail.New(fail.Fatal, "kafka.too_large",
					"the messages at offset %d of %s are too large to be read", from, s.name(partition))
			}
		default:
			f.next = end
			return f, nil
		}
	}
}

// ask sends one request to the partition's leader, through the gate, until it is answered.
func (s *Source) ask(ctx context.Context, partition int32, from, end int64,
	size int32) (block *sarama.FetchResponseBlock, f fetched, err error) {
	request := &sarama.FetchRequest{Version: 11, MaxBytes: size, Isolation: sarama.ReadCommitted, SessionEpoch: -1}
	request.AddBlock(s.c.Topic, partition, from, size, -1)
	err = s.request(ctx, partition, func(leader *sarama.Broker) (int, int64, error) {
		response, err := leader.Fetch(request)
		if err != nil {
			_ = leader.Close() // what else comes from it is of unknown state
			return 0, 0, err
		}
		block = response.GetBlock(s.c.Topic, partition)
		switch {
		case response.ThrottleTime > 0 && (block == nil || len(block.RecordsSet) == 0):
			return 0, 0, sarama.ErrThrottlingQuotaExceeded
		case block == nil:
			return 0, 0, sarama.ErrIncompleteResponse
		case errors.Is(block.Err, sarama.ErrOffsetOutOfRange):
			return 0, 0, fail.New(fail.Fatal, "kafka.expired", "the messages of %s at offset %d are not there any more",
				s.name(partition), from).
				WithFix("raise retention.ms of the topic while it is read, or start a new run that begins later (from)")
		case block.Err != sarama.ErrNoError:
			return 0, 0, block.Err
		}
		f = committed(block, from)
		if f.next == from && block.LastStableOffset < end && !cut(block) && !old(block) {
			return 0, 0, fail.New(fail.Transient, "kafka.behind",
				"the leader of %s has messages up to offset %d only, and there were some up to %d", s.name(partition),
				block.LastStableOffset, end)
		}
		return len(f.messages), f.bytes, nil
	})
	return block, f, err
}

// request sends a request to a partition's leader.
func (s *Source) request(ctx context.Context, partition int32,
	send func(leader *sarama.Broker) (records int, bytes int64, err error)) error {
	type came struct {
		records int
		bytes   int64
	}
	return connector.Request(ctx, s.retry, func() (int, int64, error) {
		client, err := s.connect(ctx)
		if err != nil {
			return 0, 0, err
		}
		got, err := abandon(ctx, func() (c came, err error) {
			leader, err := client.Leader(s.c.Topic, partition)
			if err == nil {
				c.records, c.bytes, err = send(leader)
			}
			if movedOn(err) {
				_ = client.RefreshMetadata(s.c.Topic)
			}
			return c, err
		})
		if err != nil && ctx.Err() == nil {
			err = classify(err, s.c.Topic)
		}
		return got.records, got.bytes, err
	})
}

// movedOn tells whether another broker may lead the partition by now.
func movedOn(err error) bool {
	for _, e := range []error{sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable,
		sarama.ErrReplicaNotAvailable, sarama.ErrUnknownTopicOrPartition,
		sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch, sarama.ErrKafkaStorageError} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// abandon calls do and returns early when the context ends; do then goes on alone.
func abandon[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := do()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// committed takes from an answer the messages at an offset and after it, but those of transactions that were aborted.
func committed(block *sarama.FetchResponseBlock, from int64) fetched {
	f := fetched{next: from}
	aborted := slices.Clone(block.AbortedTransactions)
	slices.SortFunc(aborted, func(a, b *sarama.AbortedTransaction) int { return int(a.FirstOffset - b.FirstOffset) })
	aborting := map[int64]bool{} // producers in a transaction that will be aborted
	for _, set := range block.RecordsSet {
		b := set.RecordBatch
		if b == nil || b.PartialTrailingRecord {
			break
		}
		for len(aborted) > 0 && aborted[0].FirstOffset <= b.LastOffset() {
			aborting[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		switch {
		case b.Control:
			if isAbort(b) {
				delete(aborting, b.ProducerID)
			}
		case b.IsTransactional && aborting[b.ProducerID]:
		default:
			f.take(b, from)
		}
		f.next = max(f.next, b.LastOffset()+1)
	}
	if len(block.RecordsSet) == 0 {
		f.next = max(f.next, behindEmpty(block))
	}
	return f
}

func (f *fetched) take(b *sarama.RecordBatch, from int64) {
	for _, r := range b.Records {
		m := sarama.ConsumerMessage{Key: r.Key, Value: r.Value, Headers: r.Headers,
			Offset: b.FirstOffset + r.OffsetDelta, Timestamp: b.FirstTimestamp.Add(r.TimestampDelta)}
		if b.LogAppendTime {
			m.Timestamp = b.MaxTimestamp
		}
		if m.Offset >= from {
			f.messages = append(f.messages, m)
			f.bytes += int64(len(m.Key) + len(m.Value))
		}
	}
}

// isAbort tells the two kinds of marks at a transaction's end apart: the key is a version and a type of 16 bits each.
func isAbort(b *sarama.RecordBatch) bool {
	return len(b.Records) > 0 && len(b.Records[0].Key) >= 4 && b.Records[0].Key[2] == 0 &&
		b.Records[0].Key[3] == byte(sarama.ControlRecordAbort)
}

// behindEmpty is the offset behind an answer of batches whose messages have all been deleted by compaction; 0 where
// there are none. sarama leaves such batches out, and keeps that offset to itself.
func behindEmpty(block *sarama.FetchResponseBlock) int64 {
	next := reflect.ValueOf(block).Elem().FieldByName("recordsNextOffset")
	if block.Partial || next.IsNil() {
		return 0
	}
	return next.Elem().Int()
}

// cut tells whether an answer holds a part of a batch alone.
func cut(block *sarama.FetchResponseBlock) bool {
	return block.Partial ||
		(len(block.RecordsSet) > 0 && block.RecordsSet[0].RecordBatch != nil &&
			block.RecordsSet[0].RecordBatch.PartialTrailingRecord)
}

// old tells whether an answer holds messages in a form older than that of Kafka 0.11.
func old(block *sarama.FetchResponseBlock) bool {
	return slices.ContainsFunc(block.RecordsSet, func(r *sarama.Records) bool { return r.MsgSet != nil })
}

// connect gives the client, connecting it the first time.
func (s *Source) connect(ctx context.Context) (sarama.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fail.New(fail.Fatal, "kafka.closed", "the source is closed")
	}
	if s.client != nil {
		return s.client, nil
	}
	c, err := settings(s.c.SASL, s.c.TLS)
	if err != nil {
		return nil, err
	}
	c.Net.ReadTimeout = 10 * time.Second
	c.Metadata.Retry.Max, c.Metadata.Retry.Backoff = 1, 100*time.Millisecond
	s.client, err = dial(ctx, s.c.Brokers, c)
	if err != nil {
		s.client = nil
	}
	return s.client, err
}

// partitions are those of the topic.
func (s *Source) partitions(ctx context.Context) (partitions []int32, err error) {
	err = connector.Request(ctx, s.retry, func() (int, int64, error) {
		client, err := s.connect(ctx)
		if err != nil {
			return 0, 0, err
		}
		partitions, err = abandon(ctx, func() ([]int32, error) {
			if err := client.RefreshMetadata(s.c.Topic); err != nil {
				return nil, err
			}
			return client.Partitions(s.c.Topic)
		})
		switch {
		case err == nil || ctx.Err() != nil:
			return 0, 0, err
		case errors.Is(err, sarama.ErrUnknownTopicOrPartition):
			return 0, 0, fail.Job("kafka.no_topic", "there is no topic %s", s.c.Topic).
				WithFix("check topic and brokers")
		}
		return 0, 0, classify(err, s.c.Topic)
	})
	return partitions, err
}

// offset is that of the first message at or after a time, in milliseconds since 1970, or with sarama.OffsetNewest that
// behind the last one, with sarama.ReadCommitted the last one whose transaction has ended, as those before it have; -1:
// there is none.
func (s *Source) offset(ctx context.Context, partition int32, at int64,
	isolation sarama.IsolationLevel) (offset int64, err error) {
	request := sarama.NewOffsetRequest(sarama.V2_8_0_0)
	request.IsolationLevel = isolation
	request.AddBlock(s.c.Topic, partition, at, 1)
	err = s.request(ctx, partition, func(leader *sarama.Broker) (int, int64, error) {
		response, err := leader.GetAvailableOffsets(request)
		if err != nil {
			_ = leader.Close()
			return 0, 0, err
		}
		block := response.GetBlock(s.c.Topic, partition)
		if block == nil {
			return 0, 0, sarama.ErrIncompleteResponse
		}
		offset = block.Offset
		if block.Err != sarama.ErrNoError {
			return 0, 0, block.Err
		}
		return 0, 0, nil
	})
	return offset, err
}
