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
// In mode upsert each key that the run writes has one row when the run is committed, the newest, whoever wrote it and whenever, and records that are
// deletes remove the row of their key unless it is newer. Between equal versions a delete wins, then the run: to write again with better transforms
// replaces. The commit reads the keys and versions of the run's files and of the table, and deletes what loses by position, in the table's files and in
// the run's own, in the snapshot that adds the run's files. Data files whose partition or bounds exclude all keys of the run are not read. Whoever commits first meanwhile is caught up with: only files that are new are read, only keys
// that they hold are compared again. Records that lose are superseded in the report. The table remembers the run's deletes (property
// reprise.deletes.RUN, 24 bytes of each), so that no older row comes after them, until they expire. A row that somebody appends after the run is his: Compact
// keeps the newest of each key in the whole table.
//
// What other engines delete knows no versions: equality deletes, position deletes, files written anew without a row. A key that they have deleted since
// the run began, and that has no row again, stays deleted, whatever the run has read before; equality deletes concern the run's rows as if these had been there.
// The commit reads that from the snapshots in between, and fails where they have expired (iceberg.expired).
//
// Why positions, at the end: an equality delete cannot say "unless it is newer", and PyIceberg does not read it. Copy-on-write would write
// each file anew that has a row to be replaced, nearly all of them in a backfill. Measured with 500,000 assets that meet as many in the table, half of either losing
// (BenchmarkMerge, a machine with much other work): writing the run's files 37.7 s; comparing a million keys and committing 15.3 s, a fifth of what
// writing takes for each row; the deletes take 1.06 bytes for each row, the rows themselves 138. Files of positions are one for each data file, so that a
// compaction that takes the file away takes its deletes, too. Until then readers pay for them; BenchmarkUpsertWays compares the three ways, and
// pipelines/usecases/iceberg-backfill.md has its figures.
//
// Memory: merge_memory, beyond which keys go to temporary files of 32 bytes a row, and a bit for each row of the table. Rows of keys that the run does not
// write are read, but not kept.
//
// A record is settled as written once its batch is with the file's writer, so that a bundle of any length takes little memory; a
// file that fails after that fails the Flush, and with it the whole bundle. Expiry times are not kept: Iceberg has none.
//
// A table whose columns are not those of the records is an error that lists the differences (schema: fail), gets the columns (add: also wider types and
// configured renames, as Iceberg can without touching files), or lacks the fields (ignore, with a warning). Columns that no field fills are null. What
// would lose values always fails.
//
// Files that belong to no snapshot stay behind when a run is given up. Their names hold the run (FilePrefix); Expire and the
// remove_orphan_files of any engine delete them.
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
// has been expired. Rows deleted by position, by equality or by deletion vectors are left out. What the sink wrote is read as it was, but for
// unset fields, which are null. Timestamps with parts of a millisecond are dead letters unless fields makes them a bigint.
package icebergio
