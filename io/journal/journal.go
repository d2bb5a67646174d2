package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// version of the tables. A journal of a newer one is refused.
const version = 1

const tables = `
CREATE TABLE IF NOT EXISTS runs (
	id          TEXT PRIMARY KEY,
	job         TEXT NOT NULL,
	fingerprint TEXT NOT NULL,
	job_file    BLOB NOT NULL, -- JSON
	started     INTEGER NOT NULL, -- microseconds since 1970
	ended       INTEGER,
	state       TEXT NOT NULL,
	splits      INTEGER, -- of the plan; NULL: none is stored
	rows        INTEGER,
	bytes       INTEGER,
	report      BLOB -- JSON
) STRICT;
CREATE TABLE IF NOT EXISTS chunks (
	run    TEXT NOT NULL REFERENCES runs,
	n      INTEGER NOT NULL,
	splits BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS beats (
	run      TEXT NOT NULL REFERENCES runs,
	worker   TEXT NOT NULL,
	at       INTEGER NOT NULL,
	progress BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, worker)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
	run     TEXT NOT NULL REFERENCES runs,
	at      INTEGER NOT NULL,
	class   INTEGER NOT NULL,
	code    TEXT NOT NULL,
	message TEXT NOT NULL,
	fix     TEXT NOT NULL,
	exit    INTEGER NOT NULL
) STRICT;`

// State is what a run is in.
type State string

// The states.
const (
	Running    State = "running"
	Done       State = "done"
	Failed     State = "failed"
	Stopped    State = "stopped"    // by a signal
	Unbalanced State = "unbalanced" // done, but the sums do not add up
)

// Run is a run as it begins.
type Run struct {
	ID          string
	Job         string
	Fingerprint string // of query, transforms and schema
	Started     time.Time
	JobFile     []byte // JSON, with references to secrets alone
}

// RunInfo is a run as the journal knows it.
type RunInfo struct {
	Run
	State  State
	Ended  time.Time // zero: not yet
	Report []byte    // JSON; nil: none
}

// Plan is the total of a plan.
type Plan struct {
	Splits int
	Rows   int64 // estimate; 0: unknown
	Bytes  int64
}

// Progress is what workers have done. It may count work twice that was done twice.
type Progress struct {
	Read       int64                    `json:"read"` // rows
	Bytes      int64                    `json:"bytes"`
	SplitsDone int                      `json:"splits_done"`
	Outcomes   map[string]record.Counts `json:"outcomes"` // by sink; "": before all sinks
}

// Journal is an open journal. Its methods may be called from several goroutines.
type Journal struct {
	db   *sql.DB
	path string
	file os.FileInfo // as it was opened
}

// Open opens the journal in an SQLite file, which it makes where there is none.
func Open(ctx context.Context, path string) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fail.Job("journal.not_writable", "the journal %s cannot be made: %w", path, err).WithFix("name a file that can be written with journal: in the job file")
	}
	// One connection: SQLite has one writer, and a transaction must not wait for another of the same process. The pragmas
	// are those that services of several processes need; immediate transactions never fail halfway for want of the lock.
	dsn := (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_txlock=immediate"}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	j := &Journal{db: db, path: path}
	err = j.migrate(ctx)
	if err == nil {
		j.file, err = os.Stat(path)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return j, nil
}

func (j *Journal) migrate(ctx context.Context) error {
	return j.write(ctx, func(tx *sql.Tx) error {
		var v int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
			return err
		}
		switch {
		case v == version:
			return nil
		case v > version:
			return fail.Job("journal.newer", "the journal %s is of version %d, and this program knows %d at most", j.path, v, version).
				WithFix("use the newer program, or another file with journal: in the job file")
		}
		if _, err := tx.ExecContext(ctx, tables); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version))
		return err
	})
}

// Close closes the journal.
func (j *Journal) Close() error { return j.db.Close() }

// Begin writes down a run.
func (j *Journal) Begin(ctx context.Context, r Run) error {
	return j.exec(ctx, "INSERT INTO runs (id, job, fingerprint, job_file, started, state) VALUES (?, ?, ?, ?, ?, ?)",
		r.ID, r.Job, r.Fingerprint, r.JobFile, r.Started.UnixMicro(), string(Running))
}

// SavePlan stores a plan whole, with its total, or nothing of it.
func (j *Journal) SavePlan(ctx context.Context, run string, chunks iter.Seq[[]connector.Split], total Plan) error {
	return j.write(ctx, func(tx *sql.Tx) error {
		n := 0
		for splits := range chunks {
			text, err := json.Marshal(splits)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO chunks (run, n, splits) VALUES (?, ?, ?)", run, n, text); err != nil {
				return err
			}
			n++
		}
		return j.one(run)(tx.ExecContext(ctx, "UPDATE runs SET splits = ?, rows = ?, bytes = ? WHERE id = ?", total.Splits, total.Rows, total.Bytes, run))
	})
}

// Plan is the total of a run's plan; an error where none was stored.
func (j *Journal) Plan(ctx context.Context, run string) (Plan, error) {
	var splits, rows, bytes sql.NullInt64
	err := j.db.QueryRowContext(ctx, "SELECT splits, rows, bytes FROM runs WHERE id = ?", run).Scan(&splits, &rows, &bytes)
	if err != nil {
		return Plan{}, j.unknown(run, err)
	}
	if !splits.Valid {
		return Plan{}, fail.Job("journal.no_plan", "run %s has no stored plan", run).WithFix("start the job anew: reprise run")
	}
	return Plan{Splits: int(splits.Int64), Rows: rows.Int64, Bytes: bytes.Int64}, nil
}

// Chunk is part n of a run's plan.
func (j *Journal) Chunk(ctx context.Context, run string, n int) ([]connector.Split, error) {
	var text []byte
	err := j.db.QueryRowContext(ctx, "SELECT splits FROM chunks WHERE run = ? AND n = ?", run, n).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fail.New(fail.Fatal, "journal.no_chunk", "part %d of the plan of run %s is not in %s", n, run, j.path).
			WithFix("let every worker see the journal: it must lie on a disk that they share")
	}
	if err != nil {
		return nil, j.classify(err)
	}
	var splits []connector.Split
	return splits, json.Unmarshal(text, &splits)
}

// Beat replaces what one worker has done.
func (j *Journal) Beat(ctx context.Context, run, worker string, p Progress) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return j.exec(ctx, "INSERT INTO beats (run, worker, at, progress) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, progress = excluded.progress",
		run, worker, time.Now().UnixMicro(), text)
}

// Progress is the sum over all workers of a run.
func (j *Journal) Progress(ctx context.Context, run string) (Progress, error) {
	sum := Progress{Outcomes: map[string]record.Counts{}}
	rows, err := j.db.QueryContext(ctx, "SELECT progress FROM beats WHERE run = ?", run)
	if err != nil {
		return sum, j.classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text []byte
		var p Progress
		if err := rows.Scan(&text); err != nil {
			return sum, err
		}
		if err := json.Unmarshal(text, &p); err != nil {
			return sum, err
		}
		sum.Read, sum.Bytes, sum.SplitsDone = sum.Read+p.Read, sum.Bytes+p.Bytes, sum.SplitsDone+p.SplitsDone
		for sink, n := range p.Outcomes {
			of := sum.Outcomes[sink]
			of.Add(n)
			sum.Outcomes[sink] = of
		}
	}
	return sum, rows.Err()
}

// Fail writes down an error that ends a run, with its class and code.
func (j *Journal) Fail(ctx context.Context, run string, cause error) error {
	e := &fail.Error{Class: fail.ClassOf(cause), Code: fail.CodeOf(cause), Message: cause.Error(), Exit: fail.ExitOf(cause)}
	if known := (*fail.Error)(nil); errors.As(cause, &known) {
		e.Message, e.Fix = known.Message, known.Fix
	}
	return j.exec(ctx, "INSERT INTO failures (run, at, class, code, message, fix, exit) VALUES (?, ?, ?, ?, ?, ?, ?)",
		run, time.Now().UnixMicro(), int(e.Class), e.Code, e.Message, e.Fix, e.Exit)
}

// Failure is the first error that ended a run; nil: there is none.
func (j *Journal) Failure(ctx context.Context, run string) (error, error) {
	e := &fail.Error{}
	err := j.db.QueryRowContext(ctx, "SELECT class, code, message, fix, exit FROM failures WHERE run = ? ORDER BY at, rowid LIMIT 1", run).
		Scan(&e.Class, &e.Code, &e.Message, &e.Fix, &e.Exit)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, j.classify(err)
	}
	return e, nil
}

// Finish ends a run. report may be nil.
func (j *Journal) Finish(ctx context.Context, run string, s State, report []byte) error {
	return j.write(ctx, func(tx *sql.Tx) error {
		return j.one(run)(tx.ExecContext(ctx, "UPDATE runs SET state = ?, ended = ?, report = coalesce(?, report) WHERE id = ?", string(s), time.Now().UnixMicro(), report, run))
	})
}

// Get is one run.
func (j *Journal) Get(ctx context.Context, run string) (RunInfo, error) {
	infos, err := j.list(ctx, "WHERE id = ?", run)
	if err == nil && len(infos) == 0 {
		err = j.unknown(run, sql.ErrNoRows)
	}
	if err != nil {
		return RunInfo{}, err
	}
	return infos[0], nil
}

// List is all runs, the latest first.
func (j *Journal) List(ctx context.Context) ([]RunInfo, error) {
	return j.list(ctx, "ORDER BY started DESC, id")
}

func (j *Journal) list(ctx context.Context, rest string, args ...any) ([]RunInfo, error) {
	rows, err := j.db.QueryContext(ctx, "SELECT id, job, fingerprint, job_file, started, ended, state, report FROM runs "+rest, args...)
	if err != nil {
		return nil, j.classify(err)
	}
	defer rows.Close()
	var infos []RunInfo
	for rows.Next() {
		var r RunInfo
		var started int64
		var ended sql.NullInt64
		if err := rows.Scan(&r.ID, &r.Job, &r.Fingerprint, &r.JobFile, &started, &ended, &r.State, &r.Report); err != nil {
			return nil, err
		}
		r.Started = time.UnixMicro(started).UTC()
		if ended.Valid {
			r.Ended = time.UnixMicro(ended.Int64).UTC()
		}
		infos = append(infos, r)
	}
	return infos, rows.Err()
}

// there tells whether the file still stands at its path: SQLite would go on with a deleted one, and all would be lost.
func (j *Journal) there() error {
	now, err := os.Stat(j.path)
	if j.file != nil && (err != nil || !os.SameFile(now, j.file)) {
		return fail.New(fail.Fatal, "journal.gone", "the journal %s was deleted or replaced while it was in use", j.path).
			WithFix("start the run anew, and leave the file alone while runs go on")
	}
	return nil
}

// write runs f in one transaction.
func (j *Journal) write(ctx context.Context, f func(*sql.Tx) error) error {
	if err := j.there(); err != nil {
		return err
	}
	tx, err := j.db.BeginTx(ctx, nil)
	if err != nil {
		return j.classify(err)
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return j.classify(err)
	}
	return j.classify(tx.Commit())
}

func (j *Journal) exec(ctx context.Context, query string, args ...any) error {
	if err := j.there(); err != nil {
		return err
	}
	_, err := j.db.ExecContext(ctx, query, args...)
	return j.classify(err)
}

// one checks that a statement changed one row, that of the run.
func (j *Journal) one(run string) func(sql.Result, error) error {
	return func(res sql.Result, err error) error {
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return j.unknown(run, sql.ErrNoRows)
	}
}

func (j *Journal) unknown(run string, err error) error {
	if !errors.Is(err, sql.ErrNoRows) {
		return j.classify(err)
	}
	return fail.Job("journal.no_run", "there is no run %s in the journal %s", run, j.path)
}

// classify gives an error of SQLite its class and code.
func (j *Journal) classify(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
		return fail.New(fail.Fatal, "journal.disk", "the journal %s cannot be written: %w", j.path, err).WithFix("see that its disk has room and is well, then start again")
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fail.Job("journal.not_writable", "the journal %s cannot be opened for writing: %w", j.path, err).WithFix("name a file that can be written with journal: in the job file")
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fail.Job("journal.damaged", "%s is no journal, or a damaged one: %w", j.path, err).WithFix("put it aside, or name another file with journal: in the job file")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fail.New(fail.Transient, "journal.busy", "the journal %s is in use: %w", j.path, err)
	}
	return fmt.Errorf("journal %s: %w", j.path, err)
}
