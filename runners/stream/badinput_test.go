package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"

	"reprise/runners/services"
)

// TestWrongSourcesAreRefused finds out before anything is written that a run cannot begin where its job says.
func TestWrongSourcesAreRefused(t *testing.T) {
	t.Parallel()
	topic := newTopic(t, services.Need(t, services.Kafka), 1, draws(t, 9))
	topic.some(400, 100)
	topic.expire(20)
	name, end := topic.name, topic.total()
	for what, c := range map[string]struct {
		more string
		args []string
		code int
		says string
	}{
		"a group that never was": {", from: {group: nobody}", nil, 2,
			"the group nobody has committed nothing in topic " + name + " [kafka.no_group]; " +
				"check the name of the group, or begin elsewhere (from)"},
		"an offset that is gone": {`, from: {offsets: {"0": 10}}`, nil, 2,
			fmt.Sprintf("reading %s/0 is to begin at offset 10, but it holds offsets 20 to %d [kafka.offset]; "+
				"messages that were not read are gone, or never were: begin elsewhere (from)", name, end-1)},
		"an offset that is not there yet": {`, from: {offsets: {"0": 5000}}`, nil, 2,
			fmt.Sprintf("reading %s/0 is to begin at offset 5000, but it holds offsets 20 to %d [kafka.offset]; "+
				"messages that were not read are gone, or never were: begin elsewhere (from)", name, end-1)},
		"a partition that is not there": {`, from: {offsets: {"7": 1}}`, nil, 2,
			"the topic " + name + " has no partition 7 [kafka.no_partition]; there are "},
		"no group to share by": {"", []string{"--join"}, 2,
			"nothing tells which group shares the topic " + name + " out [kafka.no_group]; name it in group"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := newFollow(t, topic.source(c.more))
			says(t, p.start(append([]string{"run", "job.yaml"}, c.args...)...).end(c.code), c.says)
			if found, err := filepath.Glob(p.dir + "/lines/*"); err != nil || len(found) > 0 {
				t.Errorf("it has written %v", found)
			}
		})
	}
	t.Run("a topic that is not there", func(t *testing.T) {
		t.Parallel()
		p := newFollow(t, strings.ReplaceAll(topic.source(""), name, name+"x"))
		says(t, p.start("run", "job.yaml").end(2), "there is no topic "+name+"x [kafka.no_topic]")
	})
}

func says(t *testing.T, said, want string) {
	t.Helper()
	if !strings.Contains(said, want) {
		t.Errorf("it says\n%s\nwant\n%s", said, want)
	}
}

// TestAGroupIsOfOneRun lets others use a run's group: whoever comes second is refused, before anything is left out.
func TestAGroupIsOfOneRun(t *testing.T) {
	t.Parallel()
	kafka := services.Need(t, services.Kafka)
	newRun := func(t *testing.T) (*topic, *place) {
		topic := newTopic(t, kafka, 4, draws(t, 10))
		topic.some(500, 100)
		return topic, newFollow(t, topic.source(", group: "+topic.name))
	}
	t.Run("another tool is in it", func(t *testing.T) {
		for how, args := range map[string][]string{"alone": nil, "shared": {"--join"}} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				topic, p := newRun(t)
				joined := make(chan error, 100)
				go topic.consume(t.Context(), topic.name, joined)
				if err := <-joined; err != nil {
					t.Fatal(err)
				}
				said := p.start(append([]string{"run", "job.yaml"}, args...)...).end(1)
				says(t, said, "the group "+topic.name+" has members")
				says(t, said, "[kafka.group_used]; give the run a group of its own (group), or stop the others")
			})
		}
	})
	t.Run("another tool comes", func(t *testing.T) {
		t.Parallel()
		topic, p := newRun(t)
		c := p.start("run", "job.yaml", "--join")
		await(t, "all messages", []*child{c}, func() bool { return p.read() == topic.total() })
		joined := make(chan error, 100)
		go topic.consume(t.Context(), topic.name, joined)
		if err := <-joined; err != sarama.ErrInconsistentGroupProtocol {
			t.Errorf("it may join: %v", err)
		}
		topic.some(500, 100)
		await(t, "all messages", []*child{c}, func() bool { return p.read() == topic.total() })
	})
	t.Run("two runs", func(t *testing.T) {
		for how, args := range map[string][]string{"alone": nil, "shared": {"--join"}} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				topic, p := newRun(t)
				first := p.start(append([]string{"run", "job.yaml"}, args...)...)
				await(t, "all messages", []*child{first}, func() bool { return p.read() == topic.total() })
				await(t, "no lag", []*child{first}, func() bool { return topic.lag(topic.name) == 0 })
				other := newPlace(t, "name: other\n"+topic.source(", group: "+topic.name)+
					"sinks: {lines: {files: {path: lines}}}")
				c := other.start(append([]string{"run", "job.yaml"}, args...)...)
				// Alone, one of both finds the other out; which one is open.
				select {
				case <-c.ended:
				case <-first.ended:
					c = first
				}
				says(t, c.end(1), "[kafka.group_used]")
			})
		}
	})
}

// consume is another tool that takes part in a group. It tells how each try to join ended.
func (p *topic) consume(ctx context.Context, group string, joined chan<- error) {
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky(),
		sarama.NewBalanceStrategyRange()}
	g, err := sarama.NewConsumerGroup([]string{p.addr}, group, c)
	if err != nil {
		joined <- err
		return
	}
	defer g.Close()
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{p.name}, tool{joined}); err != nil && ctx.Err() == nil {
			joined <- err
			return
		}
	}
}

type tool struct{ joined chan<- error }

func (g tool) Setup(sarama.ConsumerGroupSession) error {
	select {
	case g.joined <- nil:
	default:
	}
	return nil
}
func (g tool) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (g tool) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for m := range c.Messages() {
		s.MarkMessage(m, "")
	}
	return nil
}

// TestBadMessagesAreDeadLettersAndThePartitionGoesOn sends messages that are no records among others.
func TestBadMessagesAreDeadLettersAndThePartitionGoesOn(t *testing.T) {
	t.Parallel()
	topic := newTopic(t, services.Need(t, services.Kafka), 1, draws(t, 11))
	p := newFollow(t, topic.source(", processor: thumbnails, others: [indexer]"))
	message := func(key, value, processor string) *sarama.ProducerMessage {
		m := event{key, firstVersion}.message(topic.name)
		m.Value = sarama.StringEncoder(value)
		if key == "" {
			m.Key = nil
		}
		if value == "null" {
			m.Value = nil
		}
		if processor != "" {
			m.Headers = append(m.Headers,
				sarama.RecordHeader{Key: []byte("processor"), Value: []byte(processor)})
		}
		return m
	}
	good := func(id string) string {
		return fmt.Sprintf(`{"id": %q, "n": %d, "body": %q}`, id, firstVersion, strings.Repeat(id, 10))
	}
	bad := []struct {
		m    *sarama.ProducerMessage
		code string // "": none
	}{
		{message("", good("no key"), "thumbnails"), ""}, // the key is read from the value
		{message("", "null", "thumbnails"), "kafka.key"},
		{message("cut", `{"id": "cut", "n": 1, "bo`, "thumbnails"), "kafka.not_json"},
		{message("empty", "", "thumbnails"), "kafka.not_json"},
		{message("list", "[1]", "thumbnails"), "kafka.not_json"},
		{message("null", `{"id": null, "n": 1}`, "thumbnails"), "kafka.no_key"},
		{message("type", `{"id": "type", "n": "many"}`, "thumbnails"), "kafka.wrong_type"},
		{message("more", `{"id": "more", "m": 1}`, "thumbnails"), "kafka.unknown_field"},
		{message("nobody", good("nobody"), "thumbnail"), "kafka.processor"},
		{message("none", good("none"), ""), "kafka.processor"},
		{message("filtered", good("filtered"), "indexer"), ""},
	}
	c := p.start("run", "job.yaml")
	var want []string
	sent := map[event]int{{"no key", firstVersion}: 1}
	for i, b := range bad {
		after := fmt.Sprintf("after%d", i)
		sent[event{after, firstVersion}] = 1
		both := []*sarama.ProducerMessage{b.m, message(after, good(after), "thumbnails")}
		if err := topic.producer.SendMessages(both); err != nil {
			t.Fatal(err)
		}
		if b.code != "" {
			want = append(want, fmt.Sprintf("%s at offset %d", b.code, 2*i))
		}
	}
	await(t, "all messages", []*child{c}, func() bool { return p.read() == topic.total() })
	p.stop()
	c.end(130)
	if s := p.balanced(topic.total()); s.DeadLetters != int64(len(want)) {
		t.Errorf("%d dead letters, want %d", s.DeadLetters, len(want))
	}
	topic.sent = sent
	p.once(topic)
	slices.Sort(want)
	if diff := cmp.Diff(want, p.letters()); diff != "" {
		t.Error(diff)
	}
}

// letters are the codes and offsets of the dead letters, sorted.
func (p *place) letters() (all []string) {
	p.t.Helper()
	files, err := filepath.Glob(p.dir + "/dead/*.jsonl")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			p.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var l struct{ Code, Message string }
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				p.t.Fatal(err)
			}
			_, at, _ := strings.Cut(l.Message, "the message ")
			at, _, _ = strings.Cut(at, " of ")
			all = append(all, l.Code+" "+at)
		}
	}
	slices.Sort(all)
	return all
}
