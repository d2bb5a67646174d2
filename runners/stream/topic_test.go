package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"reprise/runners/services"
)

// event is a version of a key.
type event struct {
	key     string
	version int64
}

const firstVersion = 1_700_000_000_000_000

// topic is a topic to which the test produces.
type topic struct {
	t    *testing.T
	addr string
	name string

	client   sarama.Client
	admin    sarama.ClusterAdmin
	producer sarama.SyncProducer
	random   *rand.Rand

	newest map[string]int64 // version of each key that was sent
	sent   map[event]int    // how often
	last   map[string]int64 // version of each key that was made
	pool   []event          // made and not sent yet
	late   []event          // held back until the end
	recent []event
}

func newTopic(t *testing.T, addr string, partitions int32, random *rand.Rand) *topic {
	t.Helper()
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	c.Producer.RequiredAcks, c.Producer.Return.Successes = sarama.WaitForAll, true
	c.Producer.Retry.Max = 0 // send does it
	p := &topic{t: t, addr: addr, name: services.Name(t), random: random, newest: map[string]int64{},
		sent: map[event]int{}, last: map[string]int64{}}
	var err error
	if p.client, err = sarama.NewClient([]string{addr}, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.client.Close() })
	if p.admin, err = sarama.NewClusterAdminFromClient(p.client); err != nil {
		t.Fatal(err)
	}
	details := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}
	if err := p.admin.CreateTopic(p.name, details, false); err != nil {
		t.Fatal(err)
	}
	if p.producer, err = sarama.NewSyncProducerFromClient(p.client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.producer.Close() })
	return p
}

// source is a job's source that follows the topic.
func (p *topic) source(more string) string {
	return fmt.Sprintf("source: {kafka: {brokers: [%q], topic: %s, key: [id], "+
		"fields: {id: text, n: bigint, body: text}, follow: true%s}}\n", p.addr, p.name, more)
}

func (e event) message(topic string) *sarama.ProducerMessage {
	value, _ := json.Marshal(map[string]any{"id": e.key, "n": e.version, "body": strings.Repeat(e.key, 10)})
	return &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(e.key), Value: sarama.ByteEncoder(value),
		Headers: []sarama.RecordHeader{{Key: []byte("version"), Value: strconv.AppendInt(nil, e.version, 10)}}}
}

func (p *topic) send(events ...event) {
	p.t.Helper()
	var messages []*sarama.ProducerMessage
	for _, e := range events {
		messages = append(messages, e.message(p.name))
		p.sent[e]++
		p.newest[e.key] = max(p.newest[e.key], e.version)
	}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		var failed sarama.ProducerErrors
		err := p.producer.SendMessages(messages)
		if err == nil {
			return
		}
		if !errors.As(err, &failed) || time.Since(began) > time.Minute {
			p.t.Error(err)
			return
		}
		messages = nil
		for _, f := range failed {
			messages = append(messages, f.Msg)
		}
	}
}

// make makes the next version of a random key.
func (p *topic) make(keys int) event {
	key := fmt.Sprintf("k%05d", p.random.IntN(keys))
	if p.last[key] == 0 {
		p.last[key] = firstVersion
	}
	p.last[key]++
	return event{key, p.last[key]}
}

// some sends some events: shuffled, some of them twice, and some are held back.
func (p *topic) some(n, keys int) {
	p.t.Helper()
	const pool, recent = 300, 1000
	var batch []event
	for range n {
		switch e := p.make(keys); {
		case p.random.IntN(100) == 0:
			p.late = append(p.late, e)
		default:
			p.pool = append(p.pool, e)
		}
		for len(p.pool) > pool {
			i := p.random.IntN(len(p.pool))
			batch = append(batch, p.pool[i])
			p.pool[i] = p.pool[len(p.pool)-1]
			p.pool = p.pool[:len(p.pool)-1]
		}
	}
	for range len(p.recent) / recent * n / 30 {
		batch = append(batch, p.recent[p.random.IntN(len(p.recent))])
	}
	if p.recent = append(p.recent, batch...); len(p.recent) > 2*recent {
		p.recent = p.recent[len(p.recent)-recent:]
	}
	p.send(batch...)
}

// produce sends events all the time until it is told to end, then all that was held back.
func (p *topic) produce(perSecond, keys int) (end func()) {
	quit := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		const each = 50 * time.Millisecond
		tick := time.NewTicker(each)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.some(int(time.Duration(perSecond)*each/time.Second), keys)
			case <-quit:
				p.send(append(p.pool, p.late...)...)
				return
			}
		}
	})
	end = sync.OnceFunc(func() { close(quit); all.Wait() })
	p.t.Cleanup(end)
	return end
}

// total is how many messages the topic has got.
func (p *topic) total() (n int64) {
	p.t.Helper()
	for _, end := range p.ends() {
		n += end
	}
	return n
}

// ends are the offsets behind the last messages.
func (p *topic) ends() map[int32]int64 {
	p.t.Helper()
	partitions, err := p.client.Partitions(p.name)
	if err != nil {
		p.t.Fatal(err)
	}
	ends := map[int32]int64{}
	for _, n := range partitions {
		if ends[n], err = p.client.GetOffset(p.name, n, sarama.OffsetNewest); err != nil {
			p.t.Fatal(err)
		}
	}
	return ends
}

// lag is what a group has not read, as other tools see it.
func (p *topic) lag(group string) (lag int64) {
	p.t.Helper()
	response, err := p.admin.ListConsumerGroupOffsets(group, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for n, end := range p.ends() {
		lag += end
		if block := response.GetBlock(p.name, n); block != nil && block.Offset > 0 {
			lag -= block.Offset
		}
	}
	return lag
}

// grow gives the topic more partitions.
func (p *topic) grow(partitions int32) {
	p.t.Helper()
	if err := p.admin.CreatePartitions(p.name, partitions, nil, false); err != nil {
		p.t.Fatal(err)
	}
	await(p.t, "the new partitions", nil, func() bool {
		all, err := p.client.Partitions(p.name)
		return p.client.RefreshMetadata(p.name) == nil && err == nil && len(all) == int(partitions)
	})
}

// expire deletes the messages of the first partition before an offset, as retention does.
func (p *topic) expire(before int64) {
	p.t.Helper()
	if err := p.admin.DeleteRecords(p.name, map[int32]int64{0: before}); err != nil {
		p.t.Fatal(err)
	}
}
