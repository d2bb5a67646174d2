// Package cassandraio reads and writes tables of Apache Cassandra 4 and 5 by protocol version 4.
//
// The source reads either partition by partition ("buckets"), each in the order of its clustering columns, wide
// ones cut by key, or the whole table by token ranges. SourceConfig tells how to choose, Source what it
// guarantees, Sink what writing does; package plan where partitions and the ring are cut.
package cassandraio
