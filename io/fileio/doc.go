// Package fileio reads and writes files in a folder: JSON lines, plain or compressed, and Parquet.
//
// The sink writes each file under a temporary name (*.part); Commit cuts off what no checkpoint covers, syncs the files
// and gives them their final names, so that a reader of the folder never sees half a file, nor a file of a run that did
// not end. A run that goes on commits every so often; what an attempt that was killed has left as *.part may be deleted
// once the run has ended. JSON lines go on in the same file after a checkpoint, Parquet in the next one. Workers on
// several machines must share the folder.
//
// A line is the record's fields, as record.AppendJSON writes them. With meta it also holds _meta: the key as text,
// version (microseconds), op ("upsert", "delete"), run, and expires (seconds since 1970) where the record has it; the
// line of a delete always does. The source understands _meta, so that what the sink wrote with meta comes back as it
// was, given the same fields. Parquet holds numbers, booleans, timestamps, dates, times, blobs and nested values in its
// own types, everything else as text.
//
// Parquet of other programs is read by its own types, whatever way it is stored: dictionaries (categories of pandas),
// INT96 of Spark and Impala in all years, columns of nothing but nulls. Of the columns only those are read that the
// fields name. A timestamp holds milliseconds: where a file counts finer, a value with microseconds is a dead letter,
// and a file that begins with some is refused before anything is read; cut_timestamps cuts them, a field of type bigint
// keeps them. Texts of times are read as record.ParseTime says; a number in JSON is milliseconds (record.Millis).
package fileio
