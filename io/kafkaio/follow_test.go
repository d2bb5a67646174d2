package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// followed gives the settings that go on reading what a sink writes.
func followed(c SinkConfig) SourceConfig {
	from := source(c, iotest.AssetSchema())
	from.Follow = true
	return from
}

// planned are the splits of a source.
func planned(t testing.TB, s *Source) (splits []connector.Split) {
	t.Helper()
	err := s.Plan(t.Context(), connector.PlanOptions{Rows: 2}, func(split connector.Split) error {
		splits = append(splits, split)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return splits
}

// following is a split that is being read.
type following struct {
	t     testing.TB
	pages chan connector.Page
	done  chan error
	last  []byte
	stop  context.CancelFunc
}

func follow(t testing.TB, s *Source, split connector.Split) *following {
	ctx, stop := context.WithCancel(t.Context())
	f := &following{t: t, pages: make(chan connector.Page), done: make(chan error, 1), stop: stop, last: split.Start}
	go func() {
		f.done <- s.Read(ctx, split, func(p connector.Page) error {
			select {
			case f.pages <- p:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(stop)
	return f
}

// to takes pages until one ends behind an offset, and gives their records.
func (f *following) to(offset int64) (records []*record.Record) {
	f.t.Helper()
	for {
		if at, err := bound(f.last, -1); err != nil || at+1 >= offset {
			return records
		}
		select {
		case p := <-f.pages:
			for _, l := range p.Dead {
				f.t.Errorf("a dead letter: %s", l.Message)
			}
			if p.Rows() > 0 && time.Since(p.Event) > time.Hour {
				f.t.Errorf("the events are of %s", p.Event)
			}
			records, f.last = append(records, p.Records...), p.Last
		case err := <-f.done:
			f.t.Fatalf("reading has ended: %v", err)
		case <-f.t.Context().Done():
			f.t.Fatal("nothing comes")
		}
	}
}

// ends ends it.
func (f *following) ends() {
	f.t.Helper()
	f.stop()
	if err := <-f.done; !errors.Is(err, context.Canceled) {
		f.t.Errorf("it ends with %v", err)
	}
}

// lags are those of splits, as "partition: position + records".
func lags(t testing.TB, s *Source, at ...connector.Split) (all []string) {
	t.Helper()
	lags, err := s.Lags(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lags {
		partition := strings.TrimPrefix(l.Partition, s.c.Topic+"/")
		all = append(all, fmt.Sprintf("%s: %s + %d", partition, l.Position, l.Records))
	}
	return all
}

// A topic that is followed gives what is there and then what comes, each once and in order, until its context ends;
// from where that was it goes on.
func TestATopicIsFollowed(t *testing.T) {
	t.Parallel()
	schema := iotest.AssetSchema()
	c := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
		Create: &Create{Partitions: 1}, Batch: Batch{Rows: 7}}
	all := iotest.Records(schema, 0, 3000, iotest.Base)
	send := func(records []*record.Record) {
		t.Helper()
		if _, err := write(t, newSink(t, c), schema, records); err != nil {
			t.Fatal(err)
		}
	}
	check := func(got, want []*record.Record) {
		t.Helper()
		if d := cmp.Diff(keyTexts(want), keyTexts(got)); d != "" {
			t.Error(d)
		}
	}
	send(all[:2500])
	s := newSource(t, followed(c))
	splits := planned(t, s)
	if len(splits) != 1 || splits[0].End != nil || splits[0].Rows != 2500 {
		t.Fatalf("%+v", splits)
	}
	f := follow(t, s, splits[0])
	check(f.to(2500), all[:2500])
	for at := 2500; at < 2700; at += 20 {
		send(all[at : at+20])
		check(f.to(int64(at+20)), all[at:at+20])
	}
	f.ends()
	send(all[2700:])
	rest := connector.Split{Partition: s.name(0), Start: f.last}
	if d := cmp.Diff([]string{"0: 2700 + 300"}, lags(t, s, rest)); d != "" {
		t.Error(d)
	}
	f = follow(t, s, rest)
	check(f.to(3000), all[2700:])
	f.ends()
}

func keyTexts(records []*record.Record) (keys []string) {
	for _, r := range records {
		keys = append(keys, r.KeyText())
	}
	return keys
}

// A topic that is followed waits at a transaction that is open, and reads on once it ends. Behind its end nothing is
// left, though a mark of it stands there: neither when it was aborted.
func TestFollowingWaitsAtAnOpenTransaction(t *testing.T) {
	t.Parallel()
	for _, commit := range []bool{true, false} {
		t.Run(map[bool]string{true: "committed", false: "aborted"}[commit], func(t *testing.T) {
			t.Parallel()
			c, all, p := opened(t, time.Minute)
			s := newSource(t, followed(c))
			splits := planned(t, s)
			f := follow(t, s, splits[0])
			same(t, f.to(10), all[:10])
			at := connector.Split{Partition: splits[0].Partition, Start: f.last}
			if d := cmp.Diff([]string{"0: 10 + 0"}, lags(t, s, at)); d != "" {
				t.Error(d)
			}
			end, want := p.CommitTxn, all[10:]
			if !commit {
				end, want = p.AbortTxn, all[20:]
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			same(t, f.to(31), want) // offset 30 is the mark
			at.Start = f.last
			if d := cmp.Diff([]string{"0: 31 + 0"}, lags(t, s, at)); d != "" {
				t.Error(d)
			}
			begin(t, p, c.Topic, all[0], all[1]) // one that is aborted and has nothing beside it
			if err := p.AbortTxn(); err != nil {
				t.Fatal(err)
			}
			if got := f.to(34); len(got) > 0 {
				t.Errorf("%d records of an aborted transaction", len(got))
			}
			at.Start = f.last
			if d := cmp.Diff([]string{"0: 34 + 0"}, lags(t, s, at)); d != "" {
				t.Error(d)
			}
			f.ends()
		})
	}
}

// topicOf makes a topic with some messages in each partition, one a minute from noon on.
func topicOf(t testing.TB, counts ...int) SinkConfig {
	t.Helper()
	c := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
		Create: &Create{Partitions: int32(len(counts)), Config: map[string]string{"retention.ms": "-1"}}}
	if err := newSink(t, c).Prepare(t.Context(), run, iotest.AssetSchema(), false); err != nil {
		t.Fatal(err)
	}
	var messages []*sarama.ProducerMessage
	for partition, n := range counts {
		for i := range n {
			r := iotest.Record(iotest.AssetSchema(), i, iotest.Base)
			messages = append(messages, &sarama.ProducerMessage{Partition: int32(partition),
				Key: sarama.StringEncoder(r.KeyText()), Value: sarama.StringEncoder(iotest.JSON(r)),
				Timestamp: noon.Add(time.Duration(i) * time.Minute)})
		}
	}
	produce(t, c, messages...)
	return c
}

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func admin(t testing.TB, c SinkConfig) sarama.ClusterAdmin {
	t.Helper()
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	a, err := sarama.NewClusterAdmin(c.Brokers, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// Reading begins where the settings say, with one open split for each partition.
func TestWhereFollowingBegins(t *testing.T) {
	t.Parallel()
	c := topicOf(t, 5, 3, 0)
	if err := admin(t, c).DeleteRecords(c.Topic, map[int32]int64{0: 2}); err != nil {
		t.Fatal(err)
	}
	group := followed(c)
	group.Group = services.Name(t) + "-group"
	other := newSource(t, group)
	for range 2 { // the first time it only looks
		err := other.Acknowledge(t.Context(), []connector.Split{{Partition: other.name(0), Start: before(4)},
			{Partition: other.name(2)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(minutes time.Duration) *connector.Time {
		return new(connector.Time{Time: noon.Add(minutes * time.Minute)})
	}
	for name, w := range map[string]struct {
		from *From
		want []string // lags
		code string
	}{
		"default":  {want: []string{"0: 2 + 3", "1: 0 + 3", "2: 0 + 0"}},
		"earliest": {from: &From{At: "earliest"}, want: []string{"0: 2 + 3", "1: 0 + 3", "2: 0 + 0"}},
		"latest":   {from: &From{At: "latest"}, want: []string{"0: 5 + 0", "1: 3 + 0", "2: 0 + 0"}},
		"group":    {from: &From{Group: group.Group}, want: []string{"0: 4 + 1", "1: 0 + 3", "2: 0 + 0"}},
		"no group": {from: &From{Group: group.Group + "x"}, code: "kafka.no_group"},
		"offsets": {from: &From{Offsets: map[string]int64{"0": 3, "2": 0}},
			want: []string{"0: 3 + 2", "1: 0 + 3", "2: 0 + 0"}},
		"offsets at ends": {from: &From{Offsets: map[string]int64{"0": 5, "1": 3}},
			want: []string{"0: 5 + 0", "1: 3 + 0", "2: 0 + 0"}},
		"offset is gone":  {from: &From{Offsets: map[string]int64{"0": 1}}, code: "kafka.offset"},
		"offset to come":  {from: &From{Offsets: map[string]int64{"2": 1}}, code: "kafka.offset"},
		"no partition":    {from: &From{Offsets: map[string]int64{"3": 0}}, code: "kafka.no_partition"},
		"offset of all":   {from: &From{Offset: 1}, code: "kafka.offset"}, // partition 2 has none yet
		"time":            {from: &From{Time: at(1)}, want: []string{"0: 2 + 3", "1: 1 + 2", "2: 0 + 0"}},
		"time of a few":   {from: &From{Time: at(4)}, want: []string{"0: 4 + 1", "1: 3 + 0", "2: 0 + 0"}},
		"time before all": {from: &From{Time: at(-9)}, want: []string{"0: 2 + 3", "1: 0 + 3", "2: 0 + 0"}},
		"time behind all": {from: &From{Time: at(99)}, want: []string{"0: 5 + 0", "1: 3 + 0", "2: 0 + 0"}},
		"time with a rest": {from: &From{Time: new(connector.Time{Time: noon.Add(90 * time.Second)})},
			want: []string{"0: 2 + 3", "1: 2 + 1", "2: 0 + 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			config := followed(c)
			config.From = w.from
			s := newSource(t, config)
			if w.code != "" {
				err := s.Plan(t.Context(), connector.PlanOptions{}, func(connector.Split) error { return nil })
				wantCode(t, err, w.code, fail.Fatal, fail.ExitJob)
				return
			}
			splits := planned(t, s)
			for _, split := range splits {
				if split.End != nil {
					t.Errorf("%s has an end", split)
				}
			}
			if d := cmp.Diff(w.want, lags(t, s, splits...)); d != "" {
				t.Error(d)
			}
		})
	}
	config := followed(c)
	config.From = &From{Offset: 1}
	config.Follow = false // what a partition without so many has is not read
	if n := len(planned(t, newSource(t, config))); n != 3 {
		t.Errorf("%d splits of two messages at most, want 3", n)
	}
}

// New partitions of a topic are found.
func TestNewPartitionsAreFound(t *testing.T) {
	t.Parallel()
	c := topicOf(t, 1)
	s := newSource(t, followed(c))
	is := func(n int) bool {
		t.Helper()
		names, err := s.Partitions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint(c.Topic, "/", i))
		}
		return slices.Equal(names, want)
	}
	if !is(1) {
		t.Error("it does not have one partition")
	}
	if err := admin(t, c).CreatePartitions(c.Topic, 3, nil, false); err != nil {
		t.Fatal(err)
	}
	for !is(3) { // a broker learns of them a little later
		if t.Context().Err() != nil {
			t.Fatal("the new partitions are not found")
		}
	}
}

// grouped is what a group has committed, as "partition: offset (metadata)".
func grouped(t testing.TB, s *Source) (all []string) {
	t.Helper()
	blocks, err := s.groupOffsets(t.Context(), s.c.Group)
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(len(blocks)) {
		all = append(all, fmt.Sprintf("%d: %d (%s)", p, blocks[p].Offset, blocks[p].Metadata))
	}
	return all
}

// A run tells its group how far it has come, once it has looked, and ends when somebody else does so too.
func TestAGroupIsToldHowFarARunHasCome(t *testing.T) {
	t.Parallel()
	config := followed(topicOf(t, 5, 3))
	tell := func(s *Source, zero, one int64) error {
		return s.Acknowledge(t.Context(), []connector.Split{{Partition: s.name(0), Start: before(zero)},
			{Partition: s.name(1), Start: before(one)}})
	}
	s := newSource(t, config)
	if err := tell(s, 1, 1); err != nil {
		t.Fatal(err)
	}
	config.Group = services.Name(t) + "-group"
	s, second := newSource(t, config), newSource(t, config)
	s.need.Run, second.need.Run = "one", "two"
	for i, want := range [][]string{{"0: -1 ()", "1: -1 ()"}, {"0: 2 (reprise run one)", "1: 1 (reprise run one)"},
		{"0: 3 (reprise run one)", "1: 0 (reprise run one)"}} {
		if err := tell(s, int64(1+i), []int64{0, 1, 0}[i]); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, grouped(t, s)); d != "" {
			t.Errorf("call %d: %s", i+1, d)
		}
	}
	for range 2 {
		if err := tell(second, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	err := tell(s, 4, 2)
	wantCode(t, err, "kafka.group_used", fail.Fatal, fail.ExitInternal)
	if err == nil || !strings.Contains(err.Error(), "reprise run two") {
		t.Errorf("%v does not say who", err)
	}
	if err := tell(second, 5, 3); err != nil {
		t.Errorf("the other one is disturbed: %v", err)
	}
}

// A group whose members read the topic is none to commit to.
func TestAGroupWithMembersIsRefused(t *testing.T) {
	t.Parallel()
	config := followed(topicOf(t, 5, 3))
	config.Group = services.Name(t) + "-group"
	member, s := newSource(t, config), newSource(t, config)
	joined := make(chan []string)
	ctx, leave := context.WithCancel(t.Context())
	var shared sync.WaitGroup
	shared.Go(func() {
		_ = member.Share(ctx, func(ctx context.Context, partitions []string) error {
			joined <- partitions
			<-ctx.Done()
			return nil
		})
	})
	if d := cmp.Diff([]string{s.name(0), s.name(1)}, <-joined); d != "" {
		t.Error(d)
	}
	at := []connector.Split{{Partition: s.name(0), Start: before(2)}}
	if err := s.Acknowledge(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Acknowledge(t.Context(), at), "kafka.group_used", fail.Fatal, fail.ExitInternal)
	// The member itself tells the group.
	if err := member.Acknowledge(t.Context(), []connector.Split{{Partition: s.name(1), Start: before(3)}}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"0: -1 ()", "1: 3 (reprise run )"}, grouped(t, s)); d != "" {
		t.Error(d)
	}
	leave()
	shared.Wait()
}

// Members share a topic out among themselves: each partition has one of them. When one leaves, the others get its
// partitions, once its work has ended. An error of the work ends a member.
func TestMembersShareATopicOut(t *testing.T) {
	t.Parallel()
	config := followed(topicOf(t, 1, 1, 1, 1))
	config.Group = services.Name(t) + "-group"
	type share struct {
		member     int
		partitions []string
	}
	shares := make(chan share, 100)
	var mu sync.Mutex
	holds := map[string]int{} // by partition: the member
	broken := errors.New("the work is broken")
	end := make(chan struct{})
	member := func(n int, ctx context.Context) error {
		return newSource(t, config).Share(ctx, func(ctx context.Context, partitions []string) error {
			mu.Lock()
			for _, p := range partitions {
				if other, taken := holds[p]; taken {
					t.Errorf("member %d gets %s, which member %d still has", n, p, other)
				}
				holds[p] = n
			}
			mu.Unlock()
			shares <- share{n, partitions}
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				for _, p := range partitions {
					delete(holds, p)
				}
			}()
			select {
			case <-ctx.Done():
				return nil
			case <-end:
				return broken
			}
		})
	}
	// until waits until the members have so many partitions each, by their last shares.
	last := map[int]int{}
	until := func(want map[int]int) {
		t.Helper()
		for !cmp.Equal(want, last) {
			select {
			case s := <-shares:
				last[s.member] = len(s.partitions)
			case <-t.Context().Done():
				t.Fatalf("the shares are %v, want %v", last, want)
			}
		}
	}
	first, leave := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- member(1, first) }()
	until(map[int]int{1: 4})
	go func() { done <- member(2, t.Context()) }()
	until(map[int]int{1: 2, 2: 2})
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the member that left ends with %v", err)
	}
	delete(last, 1)
	until(map[int]int{2: 4})
	close(end)
	if err := <-done; !errors.Is(err, broken) {
		t.Errorf("the member ends with %v", err)
	}
	config.Group = ""
	wantCode(t, newSource(t, config).Share(t.Context(), nil), "kafka.no_group", fail.Fatal, fail.ExitJob)
}

// A message for another processor is left out; one that nobody reads is told.
func TestAProcessorReadsItsOwnEvents(t *testing.T) {
	schema := iotest.AssetSchema()
	_, c := fake(t)
	records := iotest.Records(schema, 0, 4, iotest.Base)
	for i, processor := range []string{"thumbnails", "search", "nobody", ""} {
		c.Processor = processor
		if _, err := write(t, newSink(t, c), schema, records[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, follows := range []bool{false, true} {
		config := source(c, schema)
		config.Processor, config.Others, config.Follow = "thumbnails", []string{"search"}, follows
		s := newSource(t, config)
		var sum connector.Page
		for _, split := range planned(t, s) {
			for split.Rows > 0 {
				ctx, stop := context.WithCancel(t.Context())
				err := s.Read(ctx, split, func(p connector.Page) error {
					sum.Records, sum.Dead = append(sum.Records, p.Records...), append(sum.Dead, p.Dead...)
					sum.Filtered += p.Filtered
					if split.Rows -= p.Rows(); split.Rows == 0 && follows {
						stop()
					}
					return nil
				})
				if stop(); err != nil && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
		}
		if d := cmp.Diff([]string{records[0].KeyText()}, keyTexts(sum.Records)); d != "" || sum.Filtered != 1 {
			t.Errorf("%s, %d filtered", d, sum.Filtered)
		}
		var told []string
		for _, l := range sum.Dead {
			told = append(told, l.Code+strings.TrimLeft(l.Message[strings.Index(l.Message, ": "):], " "))
		}
		slices.Sort(told)
		want := []string{"kafka.processor: it has no header processor",
			`kafka.processor: it is for the processor "nobody", which is neither thumbnails nor among others`}
		if d := cmp.Diff(want, told); d != "" {
			t.Error(d)
		}
	}
}

// An event that carries its key alone is no record of a source with further fields: they would all be without a value.
func TestAnEventWithItsKeyAloneIsNoWholeRecord(t *testing.T) {
	schema := iotest.AssetSchema()
	_, c := fake(t)
	for i, value := range []string{"key", "none", "row"} {
		c.Value = value
		if _, err := write(t, newSink(t, c), schema, iotest.Records(schema, i, 1, iotest.Base)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := write(t, newSink(t, c), schema, []*record.Record{iotest.Deletion(schema, 9, 1)}); err != nil {
		t.Fatal(err)
	}
	records, dead := read(t, newSource(t, source(c, schema)), connector.PlanOptions{})
	if len(records) != 2 || len(dead) != 2 || dead[0].Code != "kafka.key_alone" || dead[1].Code != "kafka.key_alone" {
		t.Errorf("%d records, %d dead letters", len(records), len(dead))
	}
	config := source(c, schema)
	config.Fields, config.IgnoreUnknown = config.Fields[:1], true
	if records, dead = read(t, newSource(t, config), connector.PlanOptions{}); len(records) != 4 || len(dead) > 0 {
		t.Errorf("%d records with a key alone, %d dead letters", len(records), len(dead))
	}
}

// What passes at a broker is waited for while a topic is followed. What has expired ends the run: it would be left out.
func TestErrorsWhileATopicIsFollowed(t *testing.T) {
	schema := iotest.AssetSchema()
	for name, c := range map[string]struct {
		err  sarama.KError
		code string // "": it passes
	}{
		"not leader":      {err: sarama.ErrNotLeaderForPartition},
		"storage":         {err: sarama.ErrKafkaStorageError},
		"fenced":          {err: sarama.ErrFencedLeaderEpoch},
		"unknown for now": {err: sarama.ErrUnknownTopicOrPartition},
		"expired":         {err: sarama.ErrOffsetOutOfRange, code: "kafka.expired"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, sink := fake(t)
			all := iotest.Records(schema, 0, 20, 1)
			send := func(records []*record.Record) {
				if _, err := write(t, newSink(t, sink), schema, records); err != nil {
					t.Fatal(err)
				}
			}
			send(all[:10])
			s := newSource(t, followed(sink))
			splits := planned(t, s)
			f := follow(t, s, splits[0])
			f.to(splits[0].Rows)
			left := 3
			fetches(cluster, func(_ *kmsg.FetchRequest, _ *kmsg.FetchResponse,
				p *kmsg.FetchResponseTopicPartition) bool {
				left--
				p.ErrorCode = int16(c.err)
				return left >= 0
			})
			if c.code != "" {
				err := <-f.done
				wantCode(t, err, c.code, fail.Fatal, fail.ExitInternal)
				return
			}
			send(all[10:])
			want, err := s.offset(t.Context(), 0, sarama.OffsetNewest, sarama.ReadCommitted)
			if err != nil || want <= splits[0].Rows {
				t.Fatalf("%d, %v", want, err)
			}
			if got := f.to(want); int64(len(got)) != want-splits[0].Rows {
				t.Errorf("%d records, want %d", len(got), want-splits[0].Rows)
			}
			f.ends()
		})
	}
}

// A position is that of the next message, as Kafka's own tools write it; what is none is no offset 0.
func TestAPositionIsThatOfTheNextMessage(t *testing.T) {
	s := NewSource(SourceConfig{Topic: "t"}, connector.Need{})
	for offset := range int64(3) {
		if got := s.Position(connector.Split{Start: before(offset)}); got != strconv.FormatInt(offset, 10) {
			t.Errorf("%s, want %d", got, offset)
		}
	}
	if got := s.Position(connector.Split{Start: []byte("x")}); got != "?" {
		t.Error(got)
	}
	for _, split := range []connector.Split{{Partition: "other/0"}, {Partition: "t/0", Start: []byte("x")}} {
		if _, err := s.Lags(t.Context(), []connector.Split{split}); fail.ClassOf(err) != fail.Fatal || err == nil {
			t.Errorf("%s: %v", split, err)
		}
	}
}
