// Package kafkaio writes records to Kafka topics and reads them.
//
// A message's key is the record's key as text, its value the fields as JSON, or Avro in Confluent's wire format with
// the schema in a registry. A delete is a tombstone: no value. The headers are version (microseconds since 1970, in
// decimal), run, op ("upsert" or "delete") and job; a consumer that keeps the highest version for each key is right
// whatever the order. The message's time is that of writing, so that a topic's retention does not take old data away at
// once. Keys go to the partitions to which Kafka's own Java producer sends them.
//
// Every message is acknowledged by all replicas in sync. The producer is idempotent, so that its own retries repeat
// nothing; a retried bundle does. Within a bundle the messages of a key keep their order, but where brokers fail for
// longer than the producer tries, or in_flight of batch is more than 1.
//
// Of a compacted topic Kafka keeps the message of a key that comes last, whichever its version: a record that was read
// before production's newer message, and written after it, would end it. So such a topic is refused, also one of which
// the user may not see whether it is (DESCRIBE_CONFIGS), unless the settings say sole_writer: nobody else writes it
// until the run has ended, and nothing in it is newer than the source. The job must then give each key once, as a table
// of Cassandra does: pipelines/job looks at that. Topics that the sink makes are not compacted, but where create names
// the policy.
//
// The source reads a topic up to the end that it has when the run is planned: a split is a range of offsets of one
// partition. Of transactions only what was committed is read. What lies behind one that is open then cannot be read
// until it ends: the plan waits for that, or does what on_open_transaction says, and never leaves messages out without
// a word. Offsets that compaction or transactions left empty are no records. What the sink wrote is read as it was,
// given the same fields (for Avro those of the registry, where fields does not name them): a record's key is read from
// the value, that of a tombstone from the message's key. The version is that of the header, else the message's time. A
// message that is no record is a dead letter. Where a topic's retention deletes messages that were planned and not yet
// read, the run fails.
package kafkaio
