package connector

import (
	"context"
	"time"

	"reprise/transforms/record"
)

// Run names the run that writes, in file names, headers and snapshots.
type Run struct {
	ID      string
	Job     string
	Started time.Time

	// Floor is a version that earlier runs have written at most, plus one: a record wins over what a sink's target
	// holds of lower versions, whatever its own. Versions are write times, which go back when a value is deleted,
	// expires or leaves a collection. 0: its own version decides.
	Floor int64

	// Offsets are, of a run that goes on, the positions up to which the source has been read for what is committed, as
	// text. "": it does not go on.
	Offsets string
}

// Result is how one record ended at a sink.
type Result struct {
	Record   *record.Record
	Outcome  record.Outcome // with Err: Dead
	Err      error          // of class Permanent, or Transient after the last attempt
	Attempts int
}

// Settle takes the results of records, each record exactly once. It may be called from
// any goroutine and does not block.
type Settle func([]Result)

// Sink writes to a system. Its constructor only allocates; methods may be called from several goroutines.
type Sink interface {
	// Prepare checks that records of the schema can be written, and creates the target where the settings ask for it.
	// It is called once, by the launching process, before anything is read. Where the settings ask for nothing to be
	// created it changes nothing, and with dry it never does.
	Prepare(ctx context.Context, run Run, schema *record.Schema, dry bool) error

	// Open gives a writer for one bundle on one worker.
	Open(ctx context.Context, run Run, schema *record.Schema, settle Settle) (Writer, error)

	Close() error
}

// Keyed is a Sink that does not tell its rows apart by the key of the records.
type Keyed interface {
	Sink

	// Key gives the fields of the schema by which it does.
	Key(ctx context.Context, schema *record.Schema) (fields []string, err error)
}

// Writer writes the records of one bundle. It is used by one goroutine; it holds a bounded number of bytes.
type Writer interface {
	// Write takes a record. It may return before the record is written, and blocks while too much is under way.
	// Its error is fatal for the run; what is wrong with a record goes to settle. The record must not be changed.
	Write(ctx context.Context, r *record.Record) error

	// Checkpoint sends on its way what was only gathered so far, and does not wait for it. A sink that makes its writes
	// visible by one commit settles every record taken so far and returns what is to be committed of those taken since
	// the last checkpoint, as bytes of at most 1 MiB each; those records are then durable. The writer goes on.
	Checkpoint(ctx context.Context) (parts [][]byte, err error)

	// Flush is a checkpoint that returns when every record taken so far has been settled.
	Flush(ctx context.Context) (parts [][]byte, err error)

	// Close ends the writer; what is not flushed is given up.
	Close() error
}

// Committer is a Sink whose writes become visible by one commit, after the last Flush of all workers.
type Committer interface {
	// Commit makes the parts visible, all or none. It may be called again for the same run after a crash and then
	// changes nothing. It returns the number of records committed.
	Commit(ctx context.Context, run Run, schema *record.Schema, parts [][]byte) (records int64, err error)
}

// Merger is a Committer whose commit compares with what is there: only then it shows which records lose to newer ones.
type Merger interface {
	Committer

	// Superseded is how many of the records that the run has committed lost. It is asked after Commit.
	Superseded(ctx context.Context, run Run) (records int64, err error)
}
