package services

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// KafkaMessage is a message as Kafka's console consumer shows it.
type KafkaMessage struct {
	Partition  int
	Offset     int64
	Key, Value []byte            // nil: null
	Headers    map[string]string // the last one of several with a name
}

// KafkaRange are the offsets of a partition.
type KafkaRange struct {
	Partition   int
	First, Next int64
}

// KafkaOffsets are those of a topic that the broker at HOST:PORT tells Kafka's own tool.
func KafkaOffsets(t testing.TB, addr, topic string) (all []KafkaRange) {
	t.Helper()
	for line := range strings.Lines(launch(t, Kafka, nil, "offsets", "--port", kafkaPort(t, addr), "--", topic)) {
		var r KafkaRange
		if _, err := fmt.Sscan(line, &r.Partition, &r.First, &r.Next); err != nil {
			t.Fatalf("offsets %q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func kafkaPort(t testing.TB, addr string) string {
	t.Helper()
	_, port, ok := strings.Cut(addr, ":")
	if !ok {
		t.Fatalf("address %q: want HOST:PORT", addr)
	}
	return port
}

// ConsumeKafka gives all messages that the topic holds, by partition and offset, read with Kafka's own console consumer
// from the broker at HOST:PORT, which must run without security.
func ConsumeKafka(t testing.TB, addr, topic string) []KafkaMessage {
	t.Helper()
	port, held := kafkaPort(t, addr), int64(0)
	for _, r := range KafkaOffsets(t, addr, topic) {
		held += r.Next - r.First
	}
	if held == 0 {
		return nil
	}
	// Separators that no message contains. The time limit matters only for a compacted topic, which holds fewer
	// messages.
	mark := rand.Text()
	between, header, null, end := mark+"B", mark+"H", mark+"N", mark+"E"
	args := []string{"consume", "--port", port, "--", topic, "--from-beginning", "--max-messages", fmt.Sprint(held),
		"--timeout-ms", "20000"}
	for _, property := range []string{"print.partition=true", "print.offset=true", "key.separator=" + between,
		"headers.separator=" + header, "null.literal=" + null, "line.separator=" + end} {
		args = append(args, "--formatter-property", property)
	}
	bytes := func(s string) []byte {
		if s == null {
			return nil
		}
		return []byte(s)
	}
	var messages []KafkaMessage
	for line := range strings.SplitSeq(strings.TrimSuffix(launch(t, Kafka, nil, args...), end), end) {
		// Partition:0, Offset:7, headers, key, value
		part := strings.Split(line, between)
		if len(part) != 5 {
			t.Fatalf("the console consumer said %q", line)
		}
		m := KafkaMessage{Key: bytes(part[3]), Value: bytes(part[4]), Headers: map[string]string{}}
		var err error
		if m.Partition, err = strconv.Atoi(strings.TrimPrefix(part[0], "Partition:")); err != nil {
			t.Fatal(err)
		}
		if m.Offset, err = strconv.ParseInt(strings.TrimPrefix(part[1], "Offset:"), 10, 64); err != nil {
			t.Fatal(err)
		}
		if part[2] != "NO_HEADERS" {
			for h := range strings.SplitSeq(part[2], header) {
				name, value, _ := strings.Cut(h, ":")
				m.Headers[name] = value
			}
		}
		messages = append(messages, m)
	}
	slices.SortFunc(messages, func(a, b KafkaMessage) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return messages
}
