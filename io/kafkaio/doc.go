// Package kafkaio writes records to Kafka topics.
//
// A message's key is the record's key as text, its value the fields as JSON, or Avro in Confluent's wire format with the schema in a registry. A delete is a
// tombstone: no value. The headers are version (microseconds since 1970, in decimal), run, op ("upsert" or "delete") and job; a consumer that keeps the
// highest version for each key is right whatever the order. The message's time is that of writing, so that a topic's retention does not take old data
// away at once. Keys go to the partitions to which Kafka's own Java producer sends them.
//
// Every message is acknowledged by all replicas in sync. The producer is idempotent, so that its own retries repeat nothing; a retried bundle does.
// Within a bundle the messages of a key keep their order, but where brokers fail for longer than the producer tries, or in_flight of batch is more than 1.
package kafkaio
