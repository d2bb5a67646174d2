// Package merge tells which rows lose when data files and deletes are merged into an Iceberg table: for each key the
// newest row or delete wins. It reads keys and versions, of the run's files and of those of the table that may hold a
// key of the run, and writes position deletes of what loses, for the table's files and for the run's own, to be
// committed in the snapshot that adds the run's files.
//
// Sections of the spec are those of https://iceberg.apache.org/spec/, of which it relies on these:
//   - Position Delete Files: a file of (file_path, pos), here one for each data file, so that a compaction that takes
//     the file away takes its deletes, too.
//   - Scan Planning: a position delete applies to data files of its own sequence number and before, so to files
//     that the same commit adds; an equality delete only to those before. That is why equality deletes cannot
//     replace rows within one commit.
//   - Sequence Numbers: each commit has the next one. What others have deleted since the run began is in the snapshots
//     whose number is greater than the table's was then (Options.Since).
//   - Snapshots, and Optional Snapshot Summary Fields: the operation tells appends and replaces (compactions), which
//     delete nothing, from others; total-records and deleted-data-files tell sizes.
//
// What other engines delete knows no versions: equality deletes, position deletes, files written anew without a row. A
// key that they have deleted since the run began, and that has no row again, stays deleted, whatever the run has read
// before; equality deletes concern the run's rows as if these had been there. Where the snapshots have expired that
// would tell it, the merge fails (iceberg.expired).
//
// Why positions, at the end: an equality delete cannot say "unless it is newer", and PyIceberg does not read it.
// Copy-on-write would write each file anew that has a row to be replaced, nearly all of them in a backfill. Measured
// with 500,000 assets that meet as many in the table, half of either losing (BenchmarkMerge of icebergio, a machine
// with much other work): writing the run's files 37.7 s; comparing a million keys and committing 15.3 s, a fifth of
// what writing takes for each row; the deletes take 1.06 bytes for each row, the rows themselves 138. Until a
// compaction readers pay for the deletes; BenchmarkUpsertWays compares the three ways, and
// pipelines/usecases/iceberg-backfill/README.md has its figures.
//
// Memory: Options.Memory, beyond which keys go to temporary files of 32 bytes a row, partitioned by the hash of the key
// as in a Grace hash join (Kitsuregawa, Tanaka and Moto-oka, 1983), and a bit for each row of the table. Rows of keys
// that the run does not write are read but not kept: a Bloom filter (Bloom, 1970) tells them.
package merge
