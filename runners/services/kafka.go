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

// ConsumeKafka gives all messages that the topic holds, by partition and offset, read with Kafka's own console consumer
// from the broker at HOST:PORT, which must run without security.
func ConsumeKafka(t testing.TB, addr, topic string) []KafkaMessage {
	t.Helper()
	_, port, ok := strings.Cut(addr, ":")
	if !ok {
		t.Fatalf("address %q: want HOST:PORT", addr)
	}
	var held int64
	for line := range strings.Lines(launch(t, Kafka, nil, "offsets", "--port", port, "--", topic)) {
		var partition int
		var first, next int64
		if _, err := fmt.Sscan(line, &partition, &first, &next); err != nil {
			t.Fatalf("offsets %q: %v", line, err)
		}
		held += next - first
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
