// Package fileio reads and writes files in a folder: JSON lines, plain or compressed, and Parquet.
//
// The sink writes each file under a temporary name (*.part); Commit cuts off what no checkpoint covers, syncs the files and gives them their final
// names, so that a reader of the folder never sees half a file, nor a file of a run that did not end. JSON lines go on in the same file after a
// checkpoint, Parquet in the next one. Workers on several machines must share the folder.
//
// A line is the record's fields, as record.AppendJSON writes them. With meta it also holds _meta: the key as text, version (microseconds),
// op ("upsert", "delete"), run, and expires (seconds since 1970) where the record has it; the line of a delete always does. The source understands _meta, so that
// what the sink wrote with meta comes back as it was, given the same fields. Parquet holds numbers, booleans, timestamps, dates, times, blobs and
// nested values in its own types, everything else as text.
package fileio
