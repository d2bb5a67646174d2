package kafkaio

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// begin writes records within a transaction, which stays open.
func begin(t testing.TB, p sarama.SyncProducer, topic string, records ...*record.Record) {
	t.Helper()
	if err := p.BeginTxn(); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(r.KeyText()),
			Value:   sarama.StringEncoder(iotest.JSON(r)),
			Headers: []sarama.RecordHeader{{Key: []byte("version"), Value: []byte("1700000000000000")}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// opened is a topic with ten messages before an open transaction of ten, and ten behind it.
func opened(t *testing.T, timeout time.Duration) (c SinkConfig, all []*record.Record, p sarama.SyncProducer) {
	t.Helper()
	c = SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
		Create: &Create{Partitions: 1}}
	schema := iotest.AssetSchema()
	all = iotest.Records(schema, 0, 30, 1_700_000_000_000_000)
	for _, r := range all {
		r.Version = 1_700_000_000_000_000
	}
	if _, err := write(t, newSink(t, c), schema, all[:10]); err != nil {
		t.Fatal(err)
	}
	s, err := producing(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Producer.Transaction.ID, s.Producer.Transaction.Timeout = services.Name(t), timeout
	if p, err = sarama.NewSyncProducer(c.Brokers, s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	begin(t, p, c.Topic, all[10:20]...)
	if _, err := write(t, newSink(t, c), schema, all[20:]); err != nil {
		t.Fatal(err)
	}
	return c, all, p
}

// What lies behind an open transaction was acknowledged: it is read once the transaction ends, and so is what the
// transaction has committed.
func TestAnOpenTransactionIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, commit := range []bool{true, false} {
		t.Run(map[bool]string{true: "committed", false: "aborted"}[commit], func(t *testing.T) {
			t.Parallel()
			c, all, p := opened(t, time.Minute)
			want := all
			if !commit {
				want = slices.Concat(all[:10], all[20:])
			}
			planned := make(chan []connector.Split, 1)
			s := newSource(t, source(c, iotest.AssetSchema()))
			go func() {
				var splits []connector.Split
				err := s.Plan(t.Context(), connector.PlanOptions{Rows: 7},
					func(split connector.Split) error { splits = append(splits, split); return nil })
				if err != nil {
					t.Error(err)
				}
				planned <- splits
			}()
			end := p.CommitTxn
			if !commit {
				end = p.AbortTxn
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			// What comes after the plan, with another transaction that is open, is not of it and does no harm.
			splits := <-planned
			begin(t, p, c.Topic, all[0])
			var got []*record.Record
			for _, split := range splits {
				if err := s.Read(t.Context(), split, func(p connector.Page) error {
					got = append(got,
						p.Records...)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			same(t, got, want)
			if err := p.AbortTxn(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A producer that has died leaves its transaction to the broker, which aborts it after its timeout.
func TestATransactionOfADeadProducerIsWaitedFor(t *testing.T) {
	t.Parallel()
	c, all, _ := opened(t, time.Second)
	got, dead := read(t, newSource(t, source(c, iotest.AssetSchema())), connector.PlanOptions{})
	if len(dead) > 0 {
		t.Error(dead[0])
	}
	same(t, got, slices.Concat(all[:10], all[20:]))
}

// A transaction that does not end in time, or is not to be waited for, ends the run before anything is read, and names
// what to look at.
func TestAnOpenTransactionEndsTheRun(t *testing.T) {
	t.Parallel()
	c, _, p := opened(t, time.Minute)
	for _, on := range []string{"", "stop"} {
		from := source(c, iotest.AssetSchema())
		from.OnOpen = on
		s := newSource(t, from)
		if on == "" {
			s.wait = time.Millisecond
		}
		err := s.Plan(t.Context(), connector.PlanOptions{}, func(connector.Split) error {
			t.Error("a split was " +
				"planned")
			return nil
		})
		wantCode(t, err, "kafka.open_transaction", fail.Transient, fail.ExitUnreachable)
		for _, part := range []string{c.Topic + "/0", "since offset 10", "up to 30", "20 at most",
			"--start-offset 10", "on_open_transaction: leave"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	if err := p.AbortTxn(); err != nil {
		t.Fatal(err)
	}
}

// Where the settings let messages be left out, a warning says how many, and where; who reads again and again gets them
// later.
func TestWhatIsLeftBehindAnOpenTransactionIsTold(t *testing.T) {
	c, all, p := opened(t, time.Minute)
	was := slog.Default()
	t.Cleanup(func() { slog.SetDefault(was) })
	var told bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&told, nil)))
	from := source(c, iotest.AssetSchema())
	from.OnOpen = "leave"
	got, _ := read(t, newSource(t, from), connector.PlanOptions{})
	same(t, got, all[:10])
	for _, part := range []string{"level=WARN", "left out", "topic=" + c.Topic, "partition=0", "offset=10",
		"messages=20"} {
		if !strings.Contains(told.String(), part) {
			t.Errorf("%q does not say %q", told.String(), part)
		}
	}
	told.Reset()
	again := NewSource(source(c, iotest.AssetSchema()), connector.Need{Again: true})
	defer again.Close()
	got, _ = read(t, again, connector.PlanOptions{})
	same(t, got, all[:10])
	if told.Len() > 0 {
		t.Errorf("%q was told", told.String())
	}
	if err := p.CommitTxn(); err != nil {
		t.Fatal(err)
	}
	for len(got) < len(all) && t.Context().Err() == nil { // the broker writes the mark at the end a little later
		got, _ = read(t, again, connector.PlanOptions{})
	}
	same(t, got, all)
}

// Where retention deletes what was planned and not yet read, the run stops: nothing is skipped.
func TestMessagesThatExpireWhileARunIsPausedEndIt(t *testing.T) {
	t.Parallel()
	c := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
		Create: &Create{Partitions: 1}}
	schema := iotest.AssetSchema()
	if _, err := write(t, newSink(t, c), schema, iotest.Records(schema, 0, 100, 1_700_000_000_000_000)); err != nil {
		t.Fatal(err)
	}
	s := newSource(t, source(c, schema))
	var splits []connector.Split
	if err := s.Plan(t.Context(), connector.PlanOptions{Rows: 30},
		func(split connector.Split) error { splits = append(splits, split); return nil }); err != nil {
		t.Fatal(err)
	}
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(c.Brokers, config)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.DeleteRecords(c.Topic, map[int32]int64{0: 45}); err != nil {
		t.Fatal(err)
	}
	for i, split := range splits {
		rows := int64(0)
		err := s.Read(context.WithoutCancel(t.Context()), split,
			func(p connector.Page) error { rows += p.Rows(); return nil })
		if i < 2 {
			wantCode(t, err, "kafka.expired", fail.Fatal, fail.ExitInternal)
		} else if err != nil || rows != split.Rows {
			t.Errorf("split %d: %d rows, %v", i, rows, err)
		}
		if i < 2 && rows > 0 {
			t.Errorf("split %d, which has lost rows, gave %d", i, rows)
		}
	}
}
