package kafkaio

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kmsg"

	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// Of a compacted topic the message of a key stays that comes last. So a run, whose records are older than what
// production writes meanwhile, does not begin with one, and a topic that only a record names is not written.
func TestACompactedTopicIsRefused(t *testing.T) {
	t.Parallel()
	schema := iotest.AssetSchema()
	records := iotest.Records(schema, 0, 3, 1)
	for _, policy := range []string{"compact", "compact,delete"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			c := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t) + "-image"}
			c.Create = &Create{Partitions: 1, Config: map[string]string{"cleanup.policy": policy}}
			prepare := func(c SinkConfig, dry bool) error {
				return newSink(t, c).Prepare(t.Context(), run, schema,
					dry)
			}
			for _, dry := range []bool{true, false} {
				wantCode(t, prepare(c, dry), "kafka.compacted", fail.Fatal, fail.ExitJob)
			}
			if d := described(t, c); d.found {
				t.Fatal("the topic was made all the same")
			}
			sole := c
			sole.SoleWriter = true
			for _, dry := range []bool{true, false} {
				if err := prepare(sole, dry); err != nil {
					t.Fatal(err)
				}
			}
			if d := described(t, c); d.policy != policy {
				t.Fatalf("the topic has the policy %s", d.policy)
			}
			c.Create = nil
			for _, dry := range []bool{true, false} {
				wantCode(t, prepare(c, dry), "kafka.compacted", fail.Fatal, fail.ExitJob)
			}
			named := c
			named.Topic = c.Topic[:len(c.Topic)-len("image")] + "{asset_type}"
			if err := prepare(named, false); err != nil {
				t.Fatal(err)
			}
			for i := range records {
				if records[i].Values[1].Str() != "image" {
					continue
				}
				_, err := write(t, newSink(t, named), schema, records[i:i+1])
				wantCode(t, err, "kafka.compacted", fail.Fatal, fail.ExitJob)
			}
			if got := messages(t, c.Brokers, c.Topic); len(got) > 0 {
				t.Errorf("%d messages were written", len(got))
			}
			if _, err := write(t, newSink(t, sole), schema, records); err != nil {
				t.Error(err)
			}
			sole.Key = "{title}"
			wantCode(t, prepare(sole, true), "kafka.key", fail.Fatal, fail.ExitJob)
		})
	}
}

// A topic that the sink makes is not compacted unless the settings say so, whatever the broker's own default is.
func TestATopicIsMadeWithoutCompaction(t *testing.T) {
	t.Parallel()
	server := services.Own(t, services.Kafka)
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin([]string{server.Addr}, config)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	compact := "compact"
	if err := admin.IncrementalAlterConfig(sarama.BrokerResource, "", map[string]sarama.IncrementalAlterConfigsEntry{
		"log.cleanup.policy": {Operation: sarama.IncrementalAlterConfigsOperationSet,
			Value: &compact}}, false); err != nil {
		t.Fatal(err)
	}
	plain := SinkConfig{Brokers: []string{server.Addr}, Topic: "plain"}
	await := func() bool { // a broker takes a setting over a little later
		_ = admin.DeleteTopic(plain.Topic)
		_ = admin.CreateTopic(plain.Topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
		return described(t, plain).policy == compact
	}
	for !await() {
		if t.Context().Err() != nil {
			t.Fatal("the broker's default is not compact")
		}
	}
	c := SinkConfig{Brokers: []string{server.Addr}, Topic: "assets", Create: &Create{Partitions: 1,
		Config: map[string]string{"retention.ms": "3600000"}}}
	if err := newSink(t, c).Prepare(t.Context(), run, iotest.AssetSchema(), false); err != nil {
		t.Fatal(err)
	}
	if d := described(t, c); d.policy != "delete" {
		t.Errorf("the topic has the policy %s", d.policy)
	}
}

// Where a user may not see whether a topic is compacted, only the job can say that it does no harm. What passes is no
// answer.
func TestAnUnknownPolicyIsRefused(t *testing.T) {
	schema := iotest.AssetSchema()
	cluster, c := fake(t)
	code := sarama.ErrTopicAuthorizationFailed
	cluster.ControlKey(int16(kmsg.DescribeConfigs), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response := request.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, asked := range request.(*kmsg.DescribeConfigsRequest).Resources {
			r := kmsg.NewDescribeConfigsResponseResource()
			r.ResourceType, r.ResourceName, r.ErrorCode = asked.ResourceType, asked.ResourceName, int16(code)
			response.Resources = append(response.Resources, r)
		}
		return response, nil, true
	})
	prepare := func(dry bool) error { return newSink(t, c).Prepare(t.Context(), run, schema, dry) }
	for _, dry := range []bool{true, false} {
		wantCode(t, prepare(dry), "kafka.policy_unknown", fail.Fatal, fail.ExitJob)
	}
	c.SoleWriter = true
	for _, dry := range []bool{true, false} {
		if err := prepare(dry); err != nil {
			t.Error(err)
		}
	}
	code = sarama.ErrRequestTimedOut
	for _, dry := range []bool{true, false} {
		wantCode(t, prepare(dry), "kafka.unavailable", fail.Transient, fail.ExitUnreachable)
	}
}

func described(t *testing.T, c SinkConfig) description {
	t.Helper()
	config, err := settings(c.SASL, c.TLS)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dial(t.Context(), c.Brokers, config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	d, err := describe(client, c.Topic)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
