package kafkaio

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

var _ connector.Sharer = (*Source)(nil)

// Share implements connector.Sharer, by the group's own protocol: the group shares the partitions out, and each member
// shows itself from a goroutine of its own, so that work may take as long as it likes. While members come and go every
// one gives its partitions back and gets a share anew.
func (s *Source) Share(ctx context.Context, work func(ctx context.Context, partitions []string) error) error {
	if s.c.Group == "" {
		return fail.Job("kafka.no_group", "nothing tells which group shares the topic %s out", s.c.Topic).
			WithFix("name it in group")
	}
	c, err := settings(s.c.SASL, s.c.TLS)
	if err != nil {
		return err
	}
	c.Metadata.RefreshFrequency = 30 * time.Second // by which the group finds new partitions
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{
		ofRun{sarama.NewBalanceStrategySticky(), "reprise-" + s.need.Run}}
	c.ChannelBufferSize = 1
	client, err := dial(ctx, s.c.Brokers, c)
	if err != nil {
		return err
	}
	defer client.Close()
	group, err := sarama.NewConsumerGroupFromClient(s.c.Group, client)
	if err != nil {
		return classify(err, s.c.Topic)
	}
	defer group.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &member{source: s, group: group, work: work, fail: cancel}
	for ctx.Err() == nil {
		err := group.Consume(ctx, []string{s.c.Topic}, m)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if errors.Is(err, sarama.ErrInconsistentGroupProtocol) {
			return fail.New(fail.Fatal, "kafka.group_used", "the group %s has members that are not of run %s",
				s.c.Group, s.need.Run).WithFix("give the run a group of its own (group), or stop the others")
		}
		closed := errors.Is(err, sarama.ErrClosedConsumerGroup)
		if err = classify(err, s.c.Topic); fail.ClassOf(err) == fail.Fatal && !closed {
			return err
		}
		slog.WarnContext(ctx, "the group is asked again for a share", "group", s.c.Group, "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// ofRun is a strategy that the members of one run have. Brokers let nobody into a group who has no strategy in common
// with its members: another reader would get partitions that the run then leaves out.
type ofRun struct {
	sarama.BalanceStrategy
	name string
}

// Name implements sarama.BalanceStrategy.
func (o ofRun) Name() string { return o.name }

// member is a process among those that share a topic.
type member struct {
	source *Source
	group  sarama.ConsumerGroup
	work   func(ctx context.Context, partitions []string) error
	fail   context.CancelCauseFunc
	done   sync.WaitGroup
}

// Setup implements sarama.ConsumerGroupHandler: it begins to work on a share.
func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	var names []string
	for _, n := range slices.Sorted(slices.Values(session.Claims()[m.source.c.Topic])) {
		names = append(names, m.source.name(n))
	}
	m.source.group.join(session)
	m.done.Go(func() {
		if err := m.work(session.Context(), names); err != nil {
			m.fail(err)
		}
	})
	return nil
}

// ConsumeClaim implements sarama.ConsumerGroupHandler. The source reads by requests of its own: what sarama would read
// is not wanted.
func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	m.group.Pause(map[string][]int32{claim.Topic(): {claim.Partition()}})
	<-session.Context().Done()
	return nil
}

// Cleanup implements sarama.ConsumerGroupHandler: the share is given back once the work on it has ended.
func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.done.Wait()
	m.source.group.join(nil)
	return nil
}

// join makes a session the one by which offsets are committed; nil: none.
func (g *group) join(session sarama.ConsumerGroupSession) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.session = session
}
