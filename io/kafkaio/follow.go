package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

var _ connector.Follower = (*Source)(nil)

// Follows implements connector.Follower.
func (s *Source) Follows() bool { return s.c.Follow }

// Partitions implements connector.Follower.
func (s *Source) Partitions(ctx context.Context) (names []string, err error) {
	numbers, err := s.partitions(ctx)
	for _, n := range numbers {
		names = append(names, s.name(n))
	}
	return names, err
}

// How long a reader waits before it asks again for messages, after it got none. Brokers answer the requests of a
// connection in order, so one that let them wait for messages of one partition would hold up the others.
const (
	leastWait = 20 * time.Millisecond
	mostWait  = 200 * time.Millisecond
)

// follow reads a partition from an offset on, as messages come, until ctx ends. What came with one request is at
// least one page.
func (s *Source) follow(ctx context.Context, partition int32, at int64, p *pager) error {
	wait := leastWait
	for {
		f, err := s.fetch(ctx, partition, at, at)
		if err != nil {
			return err
		}
		for i := range f.messages {
			if err := p.add(ctx, &f.messages[i]); err != nil {
				return err
			}
		}
		if f.next > at {
			if err := p.reach(ctx, f.next-1); err != nil {
				return err
			}
			at, wait = f.next, leastWait
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, mostWait)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wanted are the offsets at which the settings want reading to begin, in those partitions that they name. Offsets of
// partitions that are not there are refused: those meant would be read from their first message.
func (s *Source) wanted(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	wanted := map[int32]int64{}
	switch from := s.c.From; {
	case from == nil:
	case from.Group != "":
		group, err := s.committed(ctx, from.Group)
		if err != nil {
			return nil, err
		}
		for p, b := range group {
			if b.Offset >= 0 {
				wanted[p] = b.Offset
			}
		}
	default:
		for _, name := range slices.Sorted(maps.Keys(from.Offsets)) {
			n, err := strconv.ParseInt(name, 10, 32)
			if err != nil || !slices.Contains(partitions, int32(n)) {
				return nil, fail.Job("kafka.no_partition", "the topic %s has no partition %s", s.c.Topic, name).
					WithFix("there are %d, from 0 on: mend from.offsets", len(partitions))
			}
			wanted[int32(n)] = from.Offsets[name]
		}
	}
	return wanted, nil
}

// first is the offset at which reading a partition begins. end is that behind its last message.
func (s *Source) first(ctx context.Context, partition int32, end int64, named map[int32]int64) (int64, error) {
	from := s.c.From
	if from == nil {
		from = &From{}
	}
	at := sarama.OffsetOldest
	switch {
	case from.At == fromLatest:
		return end, nil
	case from.Time != nil:
		at = from.Time.UnixMilli()
	}
	first, err := s.offset(ctx, partition, at, sarama.ReadCommitted)
	if err != nil {
		return 0, err
	}
	if first < 0 { // all messages are older
		first = end
	}
	wanted, isNamed := named[partition]
	if from.Offset > first {
		wanted, isNamed = from.Offset, s.c.Follow // else nothing of the partition is read that has fewer
	}
	switch {
	case !isNamed:
		return max(first, from.Offset), nil
	case wanted < first || wanted > end:
		return 0, fail.Job("kafka.offset", "reading %s is to begin at offset %d, but it holds offsets %d to %d",
			s.name(partition), wanted, first, end-1).
			WithFix("messages that were not read are gone, or never were: begin elsewhere (from)")
	}
	return wanted, nil
}

const fromLatest = "latest"

// committed are the offsets that a group has committed in the topic, by partition; -1: none there. A group that has
// none at all is an error: its name may be wrong.
func (s *Source) committed(ctx context.Context, group string) (map[int32]*sarama.OffsetFetchResponseBlock, error) {
	all, err := s.groupOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	for _, b := range all {
		if b.Offset >= 0 {
			return all, nil
		}
	}
	return nil, fail.Job("kafka.no_group", "the group %s has committed nothing in topic %s", group, s.c.Topic).
		WithFix("check the name of the group, or begin elsewhere (from)")
}

// groupOffsets are what a group has committed in the topic, by partition.
func (s *Source) groupOffsets(ctx context.Context, group string) (map[int32]*sarama.OffsetFetchResponseBlock, error) {
	partitions, err := s.partitions(ctx)
	if err != nil {
		return nil, err
	}
	request := &sarama.OffsetFetchRequest{Version: 5, ConsumerGroup: group}
	for _, p := range partitions {
		request.AddPartition(s.c.Topic, p)
	}
	var all map[int32]*sarama.OffsetFetchResponseBlock
	err = s.coordinator(ctx, group, func(of *sarama.Broker) error {
		response, err := of.FetchOffset(request)
		switch {
		case err != nil:
			return err
		case response.Err != sarama.ErrNoError:
			return response.Err
		}
		all = map[int32]*sarama.OffsetFetchResponseBlock{}
		for _, p := range partitions {
			block := response.GetBlock(s.c.Topic, p)
			switch {
			case block == nil:
				return sarama.ErrIncompleteResponse
			case block.Err != sarama.ErrNoError:
				return block.Err
			}
			all[p] = block
		}
		return nil
	})
	return all, err
}

// coordinator sends a request to the broker that coordinates a group.
func (s *Source) coordinator(ctx context.Context, group string, send func(*sarama.Broker) error) error {
	return connector.Request(connector.Uncounted(ctx), s.retry, func() (int, int64, error) {
		client, err := s.connect(ctx)
		if err != nil {
			return 0, 0, err
		}
		_, err = abandon(ctx, func() (_ struct{}, err error) {
			of, err := client.Coordinator(group)
			if err == nil {
				err = send(of)
			}
			if errors.Is(err, sarama.ErrNotCoordinatorForConsumer) ||
				errors.Is(err, sarama.ErrConsumerCoordinatorNotAvailable) {
				_ = client.RefreshCoordinator(group)
			}
			return struct{}{}, err
		})
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, sarama.ErrGroupAuthorizationFailed):
			err = fail.Unreachable("kafka.denied", "Kafka denies the access to group %s: %w", group, err).
				WithFix("allow the user READ on the group")
		default:
			err = classify(err, s.c.Topic)
		}
		return 0, 0, err
	})
}

// Position implements connector.Follower: the offset of the next message.
func (s *Source) Position(at connector.Split) string {
	offset, err := bound(at.Start, -1)
	if err != nil {
		return "?"
	}
	return strconv.FormatInt(offset+1, 10)
}

// Lags implements connector.Follower.
func (s *Source) Lags(ctx context.Context, from []connector.Split) (lags []connector.Lag, err error) {
	for _, split := range from {
		partition, at, err := s.standing(split)
		if err != nil {
			return nil, err
		}
		end, err := s.offset(connector.Uncounted(ctx), partition, sarama.OffsetNewest, sarama.ReadCommitted)
		if err != nil {
			return nil, err
		}
		lags = append(lags, connector.Lag{Partition: split.Partition, Position: s.Position(split),
			Records: max(0, end-at)})
	}
	return lags, nil
}

// standing is where work on a split stands: the partition, and the offset of the first message that is not finished.
func (s *Source) standing(split connector.Split) (partition int32, offset int64, err error) {
	if partition, err = s.number(split); err != nil {
		return 0, 0, err
	}
	offset, err = bound(split.Start, -1)
	return partition, offset + 1, err
}

// group is what a source knows of the group to which it commits.
type group struct {
	mu      sync.Mutex
	session sarama.ConsumerGroupSession // of a member; nil: this process is none
	known   map[int32]mark              // what it had when the source last looked or committed; nil: it has not looked
}

// mark is what a group has for a partition.
type mark struct {
	offset   int64
	metadata string
}

// others gives the partition in which somebody else has committed since the last look.
func (g *group) others(now map[int32]mark) (partition int32, found bool) {
	for p, m := range now {
		if was, ok := g.known[p]; ok && was != m {
			return p, true
		}
	}
	return 0, false
}

// Acknowledge implements connector.Follower: it commits the offsets to the group, with the run as their metadata. A
// group that has members, or to which somebody else commits, is an error: whoever looks at its lag would be misled. So
// the first call only looks what the group has, and whoever comes second to a group finds out by the next.
func (s *Source) Acknowledge(ctx context.Context, at []connector.Split) error {
	if s.c.Group == "" {
		return nil
	}
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	ours := "reprise run " + s.need.Run
	if member := s.group.session; member != nil {
		for _, split := range at {
			partition, offset, err := s.standing(split)
			if err != nil {
				return err
			}
			member.MarkOffset(s.c.Topic, partition, offset, ours)
		}
		member.Commit()
		return nil
	}
	blocks, err := s.groupOffsets(ctx, s.c.Group)
	if err != nil {
		return err
	}
	now := map[int32]mark{}
	for p, b := range blocks {
		now[p] = mark{b.Offset, b.Metadata}
	}
	if p, found := s.group.others(now); found {
		return fail.New(fail.Fatal, "kafka.group_used",
			"somebody else (%q) commits offsets of %s to the group %s as well",
			now[p].metadata, s.name(p), s.c.Group).WithFix("give each run, and each other reader, a group of its own")
	}
	first := s.group.known == nil
	s.group.known = now
	if first {
		return nil
	}
	// No member and no generation: such a commit is taken where the group is empty.
	request := &sarama.OffsetCommitRequest{Version: 2, ConsumerGroup: s.c.Group, ConsumerGroupGeneration: -1,
		RetentionTime: -1}
	for _, split := range at {
		partition, offset, err := s.standing(split)
		if err != nil {
			return err
		}
		request.AddBlock(s.c.Topic, partition, offset, 0, ours)
		now[partition] = mark{offset, ours}
	}
	err = s.coordinator(ctx, s.c.Group, func(of *sarama.Broker) error {
		response, err := of.CommitOffset(request)
		if err != nil {
			return err
		}
		for _, errs := range response.Errors {
			for _, err := range errs {
				switch {
				case errors.Is(err, sarama.ErrUnknownMemberId), errors.Is(err, sarama.ErrIllegalGeneration),
					errors.Is(err, sarama.ErrRebalanceInProgress):
					return fail.New(fail.Fatal, "kafka.group_used", "the group %s has members: %w", s.c.Group, err).
						WithFix("give the run a group of its own (group), or stop the others")
				case err != sarama.ErrNoError:
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		s.group.known = nil // it is open what was committed
		return fmt.Errorf("committing offsets to group %s: %w", s.c.Group, err)
	}
	return nil
}
