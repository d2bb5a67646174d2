// Package icebergio appends records to a table of Apache Iceberg, and reads one.
//
// Each worker writes Parquet files and hands on their descriptions; one committer adds all files of a run by one
// snapshot, so a run is visible as a whole or not at all. The snapshot's summary names the run, which makes the commit
// safe to repeat: whatever the catalog answers, the table itself tells whether the run is in it.
//
// The sink appends. A key that is written again is there again, and the row with the highest version counts; the version
// column holds it:
//
//	SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY _version DESC) AS n FROM assets) WHERE n = 1
//
// A record is settled as written once its batch is with the file's writer, so that a bundle of any length takes little memory; a
// file that fails after that fails the Flush, and with it the whole bundle. Expiry times are not kept: Iceberg has none.
//
// Files that belong to no snapshot stay behind when a run is given up. Their names hold the run (FilePrefix); the
// remove_orphan_files of any engine deletes them.
//
// New tables have these types, by the types of CQL:
//
//	boolean, float, double, date     the same
//	tinyint, smallint, int           int
//	bigint                           long
//	timestamp                        timestamptz
//	text                             string
//	blob                             binary
//	varint, decimal                  string, which keeps every digit; decimal(P,S) by the job file
//	uuid, timeuuid                   string: engines filter Iceberg's uuid wrongly (apache/iceberg#14216)
//	time                             string (15:04:05.000000000): Spark has no time
//	inet, duration                   string
//	list, set, vector                list
//	map                              map
//	udt, tuple                       struct, a tuple's parts named _1, _2, ...
//
// An existing table may also hold integers in a wider type and float in double.
//
// Where such a type alone does not tell the field's, the column's doc does: "CQL set<uuid>".
//
// The source reads one snapshot, each row as a record, also where several have the same key. A split is some row groups of a data file of the
// snapshot that was current when the run was planned; it is read from that snapshot whatever is committed meanwhile, and fails once the snapshot
// has been expired. Rows deleted by position, by equality or by deletion vectors are left out. What the sink wrote is read as it was, deletes apart, which it
// does not write, and unset fields, which are null. Timestamps with parts of a millisecond are dead letters unless fields makes them a bigint.
package icebergio
