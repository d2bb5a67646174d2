package services

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
)

func TestConsumeKafka(t *testing.T) {
	t.Parallel()
	addr, topic := Need(t, Kafka), Name(t)
	conf := sarama.NewConfig()
	conf.Producer.Return.Successes = true
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	client, err := sarama.NewClient([]string{addr}, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	if messages := ConsumeKafka(t, addr, topic); messages != nil {
		t.Errorf("an empty topic has the messages %v", messages)
	}
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	want := []KafkaMessage{
		{Partition: 0, Offset: 0, Key: []byte("k1"), Value: []byte("two\nlines\tand ü"),
			Headers: map[string]string{"version": "1", "run": "a:b,c"}},
		{Partition: 0, Offset: 1, Key: []byte("k1"), Value: nil, Headers: map[string]string{}},
		{Partition: 1, Offset: 0, Key: nil, Value: []byte{0, 0x1e, 0xff, '\n'}, Headers: map[string]string{}},
	}
	for _, m := range want {
		send := &sarama.ProducerMessage{Topic: topic, Partition: int32(m.Partition)}
		if m.Key != nil {
			send.Key = sarama.ByteEncoder(m.Key)
		}
		if m.Value != nil {
			send.Value = sarama.ByteEncoder(m.Value)
		}
		for name, value := range m.Headers {
			send.Headers = append(send.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
		}
		if _, _, err := producer.SendMessage(send); err != nil {
			t.Fatal(err)
		}
	}
	got := ConsumeKafka(t, addr, topic)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}
