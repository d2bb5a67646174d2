// Package kafkaio writes records to Kafka topics and reads them.
//
// A message's key is the record's key as text, its value the fields as JSON, or Avro in Confluent's wire format with
// the schema in a registry. With value: key it holds the fields of the key alone, for consumers that look up the rest,
// and with value: none nothing. A delete is a tombstone: no value, whatever is set. The message's time is that of
// writing, so that a topic's retention does not take old data away at once. Keys go to the partitions to which Kafka's
// own Java producer sends them. The headers are
//
//	version    of the record, in microseconds since 1970, in decimal; a consumer that keeps the highest one for each
//	           key is right whatever the order
//	run        the run that sent the message; a run that is resumed goes on with the same
//	op         "upsert" or "delete"; with value: none nothing else tells them apart
//	job        the name of the job
//	processor  whom the message is for, where processor is set
//	value      "key" or "none" where the message holds no more than a key; a source that names further fields makes
//	           a dead letter of it, rather than a row whose other fields have no value
//
// With value: none the topic must not be compacted, whoever writes it: Kafka takes a message without a value for a
// delete, and removes the key.
//
// Every message is acknowledged by all replicas in sync, and is there at least once. The producer is idempotent, so
// that its own retries repeat nothing; a bundle that is tried again does, and so does a run that was killed, with what
// it had sent and the journal had not yet as finished: at most limits.unfinished rows of each worker, and a page. A
// repeat has the key, version and run of the first one. A key stays in its partition, and within an attempt at a run
// its versions do not go back, but where brokers fail for longer than the producer tries, where in_flight of batch is
// more than 1, or where rows of the source share a message's key, which are read side by side.
//
// Transactions would not make that once. The journal is not part of them, so that a kill between the commit and the
// journal repeats the bundle all the same. Meanwhile read_committed consumers would wait at the first open transaction
// of a partition, of any writer: for the length of each bundle, and after a kill until the broker gives the transaction
// up (transaction.timeout.ms) or another producer with its id fences it. Ids that do so need a fixed number for each
// worker, which a run that is resumed with other workers does not have.
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
// the value, that of a message without one from the message's key. Such a message is a tombstone, unless its header op
// says upsert: then it is an event that carries a key alone. Who reads such events names the fields of the key and no
// others, and looks the rows up (a source of kind keys); with further fields they are dead letters. The version is that
// of the header, else the message's time. A message that is no record is a dead letter. Where a topic's retention
// deletes messages that were planned and not yet read, the run fails.
//
// With follow the source goes on with what comes: each partition is one split that is open at its end. The journal
// says where a run stands, so a topic that was deleted and made anew needs a new run. Finished offsets are also
// committed to group, where one is named, after the outcomes and for the eyes of other tools alone; as the group's
// protocol asks, nobody else may be a member of it, unless several processes share the run (Share), who are its members
// themselves. A transaction that is open holds its partition up, and no other.
package kafkaio
