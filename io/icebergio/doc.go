// Package icebergio writes records to a table of Apache Iceberg, reads one, and keeps one in shape.
//
// Each worker writes Parquet files and hands on their descriptions; one committer adds all files of a run by one
// snapshot, so a run is visible as a whole or not at all. The snapshot's summary names the run, which makes the commit
// safe to repeat: whatever the catalog answers, the table itself tells whether the run is in it.
//
// In mode append a key that is written again is there again, and the row with the highest version counts; the version
// column holds it:
//
//	SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY _version DESC) AS n FROM assets) WHERE n = 1
//
// In mode upsert each key that the run writes has one row when the run is committed, the newest, whoever wrote it and
// whenever, and records that are deletes remove the row of their key unless it is newer. Between equal versions a
// delete wins, then the run: to write again with better transforms replaces. The commit compares keys and versions and
// deletes what loses by position (package merge, which says how and what it costs). Whoever commits first meanwhile is
// caught up with. Records that lose are superseded in the report. The table remembers the run's deletes (property
// reprise.deletes.RUN, 24 bytes of each), so that no older row comes after them, until they expire. A row that somebody
// appends after the run is his: Compact keeps the newest of each key in the whole table.
//
// A key that other engines have deleted since the run began, and that has no row again, stays deleted,
// whatever the run has read before. The commit reads that from the snapshots in between, and fails where they
// have expired (iceberg.expired).
//
// A record is settled as written once its batch is with the file's writer, so that a bundle of any length
// takes little memory; a file that fails after that fails the Flush, and with it the whole bundle. Expiry
// times are not kept: Iceberg has none.
//
// A table whose columns are not those of the records is an error that lists the differences (schema: fail), gets the
// columns (add: also wider types and configured renames, as Iceberg can without touching files), or lacks the fields
// (ignore, with a warning). Columns that no field fills are null. What would lose values always fails.
//
// Files that belong to no snapshot stay behind when a run is given up. Their names tell that a run of this project
// wrote them: Expire and the remove_orphan_files of any engine delete them.
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
// The source reads one snapshot, each row as a record, also where several have the same key. A split is some row groups
// of a data file of the snapshot that was current when the run was planned; it is read from that snapshot whatever is
// committed meanwhile, and fails once the snapshot has been expired. Rows deleted by position, by equality or by
// deletion vectors are left out. What the sink wrote is read as it was, but for unset fields, which are null.
// Timestamps with parts of a millisecond are dead letters unless fields makes them a bigint.
package icebergio
