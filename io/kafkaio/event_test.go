package kafkaio

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// alone is a record as an event that carries its key alone gives it back to a source that names nothing else.
func alone(keys *record.Schema, r *record.Record) *record.Record {
	c := *r
	c.Schema, c.Values = keys, nil
	for _, k := range r.Schema.Key {
		c.Values = append(c.Values, r.Values[k])
	}
	return &c
}

// An event that carries a key alone, in its value or without one, tells the key, the version, what was done, in which
// run and for whom, to Kafka's own consumer and to our source. A source that names further fields takes it for no row.
func TestAnEventCarriesAKeyAlone(t *testing.T) {
	t.Parallel()
	schema := allTypes(t)
	keys, err := keysOf(schema)
	if err != nil {
		t.Fatal(err)
	}
	var records, want []*record.Record
	deletes := 0
	for i := range 300 {
		r := iotest.Record(schema, i, iotest.Base+int64(i))
		if i%10 == 1 {
			r = iotest.Deletion(schema, i, iotest.Base+int64(i))
			deletes++
		}
		r.Values[1] = record.String([]string{"a|b", `\`, "", "ü\x00", `a\|`}[i%5])
		records, want = append(records, r), append(want, alone(keys, r))
	}
	json := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Create: &Create{Partitions: 4}}
	none, key, avro := json, json, avroConfig(t)
	none.Value, key.Value, avro.Value = "none", "key", "key"
	for name, c := range map[string]SinkConfig{"none": none, "key": key, "avro": avro} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.Topic, c.Processor = services.Name(t), "of {part}"
			if _, err := write(t, newSink(t, c), schema, records); err != nil {
				t.Fatal(err)
			}
			rows, dead := read(t, newSource(t, source(c, schema)), connector.PlanOptions{Rows: 30})
			if len(rows) != deletes || len(dead) != len(records)-deletes || dead[0].Code != "kafka.key_alone" {
				t.Errorf("as rows: %d, and %d dead letters, such as %+v", len(rows), len(dead), dead[0])
			}
			got, dead := read(t, newSource(t, source(c, keys)), connector.PlanOptions{Rows: 30})
			if len(dead) > 0 {
				t.Errorf("%d dead letters, such as %+v", len(dead), dead[0])
			}
			same(t, got, want)
			byKey := map[string]*record.Record{}
			for _, r := range want {
				byKey[r.KeyText()] = r
			}
			for _, m := range services.ConsumeKafka(t, c.Brokers[0], c.Topic) {
				r := byKey[string(m.Key)]
				if r == nil {
					t.Fatalf("the key %q is of no record", m.Key)
				}
				headers := map[string]string{"version": strconv.FormatInt(r.Version, 10), "run": "run-1",
					"op": r.Op.String(), "job": "job", "processor": "of " + r.Values[0].Str(), "value": c.Value}
				if d := cmp.Diff(headers, m.Headers); d != "" {
					t.Error(d)
				}
				value := fmt.Sprintf(`{"part":%s,"id":"%s"}`, record.AppendQuoted(nil, r.Values[0].Str()),
					r.Values[1].AppendText(nil, schema.Fields[0].Type))
				switch {
				case name == "none" || r.Op == record.Delete:
					if m.Value != nil {
						t.Errorf("the value is %q", m.Value)
					}
				case name == "key" && string(m.Value) != value:
					t.Errorf("the value is %s, want %s", m.Value, value)
				}
			}
		})
	}
}

// Without the header processor there is none, and a record that does not tell whom it is for is a dead letter.
func TestARecordForNobodyIsADeadLetter(t *testing.T) {
	schema := iotest.AssetSchema()
	_, c := fake(t)
	records := iotest.Records(schema, 0, 3, 1)
	if _, err := write(t, newSink(t, c), schema, records[:1]); err != nil {
		t.Fatal(err)
	}
	for _, m := range messages(t, c.Brokers, c.Topic) {
		if len(m.Headers) != 4 {
			t.Errorf("the headers are %v", m.Headers)
		}
	}
	c.Processor = "{asset_type}"
	records[0].Values[1], records[1].Values[1] = record.NullValue, record.String("")
	got, err := write(t, newSink(t, c), schema, records)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"kafka.processor", "kafka.processor", ""} {
		err := got[records[i].KeyText()].Err
		if want == "" && err == nil {
			continue
		}
		if fail.CodeOf(err) != want || fail.ClassOf(err) != fail.Permanent {
			t.Errorf("record %d: %v", i, err)
		}
	}
	c.Processor = "{nobody}"
	wantCode(t, newSink(t, c).Prepare(t.Context(), run, schema, true), "kafka.processor", fail.Fatal, fail.ExitJob)
}

// Kafka takes a message without a value for a delete: from a compacted topic it would remove the key, whoever else
// writes it.
func TestMessagesWithoutValuesGoToNoCompactedTopic(t *testing.T) {
	t.Parallel()
	schema := iotest.AssetSchema()
	c := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t), SoleWriter: true,
		Create: &Create{Partitions: 1, Config: map[string]string{"cleanup.policy": "compact,delete"}}}
	if err := newSink(t, c).Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	c.Create = nil
	for value, code := range map[string]string{"row": "", "key": "", "none": "kafka.compacted"} {
		for _, dry := range []bool{true, false} {
			c.Value = value
			if err := newSink(t, c).Prepare(t.Context(), run, schema, dry); (err != nil || code != "") &&
				fail.CodeOf(err) != code {
				t.Errorf("value %s, dry %t: %v", value, dry, err)
			}
		}
	}
	if err := mayLackValues(c.Topic, description{found: true}); fail.CodeOf(err) != "kafka.policy_unknown" {
		t.Error(err)
	}
}

// The key of a message without a value is all that tells of which record it is.
func TestTheKeyOfAMessageWithoutAValueIsTheRecords(t *testing.T) {
	schema := iotest.AssetSchema()
	_, c := fake(t)
	for _, value := range []string{"row", "key", "none"} {
		for key, fine := range map[string]bool{"": true, "{key}": true, "asset:{id}": true,
			"{title}": value != "none"} {
			c.Value, c.Key = value, key
			err := newSink(t, c).Prepare(t.Context(), run, schema, true)
			if code := fail.CodeOf(err); fine && err != nil || !fine && code != "kafka.key" {
				t.Errorf("value %s, key %q: %v", value, key, err)
			}
		}
	}
}

// A message without a value is a tombstone, whoever wrote it, but where its header op says that it is an event.
func TestAMessageWithoutAValueIsADeleteUnlessItSaysUpsert(t *testing.T) {
	schema := iotest.AssetSchema()
	_, c := fake(t)
	s, err := producing(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := sarama.NewSyncProducer(c.Brokers, s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want := map[string]record.Op{}
	for key, ops := range map[string][]string{"bare": nil, "gone": {"delete"}, "event": {"upsert"}, "other": {"u"},
		"last": {"delete", "upsert"}, "last gone": {"upsert", "delete"}} {
		m := &sarama.ProducerMessage{Topic: c.Topic, Key: sarama.StringEncoder(key)}
		for _, op := range ops {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte("op"), Value: []byte(op)})
		}
		if _, _, err := p.SendMessage(m); err != nil {
			t.Fatal(err)
		}
		want[key] = record.Delete
		if len(ops) > 0 && ops[len(ops)-1] == "upsert" {
			want[key] = record.Upsert
		}
	}
	got := map[string]record.Op{}
	keys, err := keysOf(schema)
	if err != nil {
		t.Fatal(err)
	}
	records, dead := read(t, newSource(t, source(c, keys)), connector.PlanOptions{})
	for _, r := range records {
		got[r.KeyText()] = r.Op
	}
	if d := cmp.Diff(want, got); d != "" || len(dead) > 0 {
		t.Errorf("%s, %d dead letters", d, len(dead))
	}
}

// What a target holds is read back as far as its messages tell it.
func TestEventsAreReadBackByTheirKeys(t *testing.T) {
	schema := iotest.AssetSchema()
	c := SinkConfig{Brokers: []string{"h:1"}, Topic: "t"}
	for _, value := range []string{"", "row", "key", "none"} {
		for _, key := range []string{"", "{key}", "asset:{id}"} {
			c.Value, c.Key = value, key
			from, view, err := c.ReadBack(schema)
			if value == "none" && key == "asset:{id}" {
				if fail.CodeOf(err) != "verify.no_source" {
					t.Errorf("value %s, key %q: %v", value, key, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			fields := from.(*SourceConfig).Fields.Names()
			want, leave := connector.Fields(schema.Fields).Names(), []string(nil)
			if value == "key" || value == "none" {
				want, leave = "id", schema.Names()[1:]
			}
			if d := cmp.Diff(want, fields) + cmp.Diff(leave, view.Leave); d != "" {
				t.Errorf("value %s, key %q: %s", value, key, d)
			}
		}
	}
}
