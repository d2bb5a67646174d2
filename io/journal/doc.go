// Package journal is the durable state of runs: what each one is to do, how far it has come, what is wanted of it, how
// it ended. It is a store like the others, since steps on workers write it.
//
// There are two stores for it. An SQLite file serves the processes of one machine, or of machines that share a disk
// with working locks. A kill -9 at any moment takes nothing from it that a method has written; a power cut may take
// the last moments, which are then done again, and breaks nothing. A Cassandra keyspace serves workers on many
// machines. There a write is settled by a majority of the replicas in one data centre, and one whose answer is lost is
// looked up before it is tried again.
//
// What is finished are intervals of keys, for each sink. They never overlap, and adjacent ones are one: so the journal
// of a long run stays small, and every record counts once in the sums however often it was read.
//
// Nothing in it is secret: job files hold references to secrets alone.
package journal
