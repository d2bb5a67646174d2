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
)

// version of the tables. A journal of a newer one is refused, one of an older one brought up to it.
const version = 3

// upgrades[v] brings tables of version v to the next.
var upgrades = [version]string{`
CREATE TABLE runs (
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
CREATE TABLE chunks (
	run    TEXT NOT NULL REFERENCES runs,
	n      INTEGER NOT NULL,
	splits BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE failures (
	run     TEXT NOT NULL REFERENCES runs,
	at      INTEGER NOT NULL,
	class   INTEGER NOT NULL,
	code    TEXT NOT NULL,
	message TEXT NOT NULL,
	fix     TEXT NOT NULL,
	exit    INTEGER NOT NULL
) STRICT;`, `
DROP TABLE IF EXISTS beats;
ALTER TABLE runs ADD COLUMN schema BLOB;
ALTER TABLE runs ADD COLUMN parent TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN control BLOB NOT NULL DEFAULT x'7b7d'; -- JSON
ALTER TABLE failures ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
CREATE TABLE finished ( -- intervals that neither overlap nor touch
	run       TEXT NOT NULL REFERENCES runs,
	sink      TEXT NOT NULL,
	partition TEXT NOT NULL,
	start     BLOB NOT NULL,
	"end"     BLOB NOT NULL,
	sum       BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, sink, partition, start)
) STRICT, WITHOUT ROWID;
CREATE TABLE parts (
	n    INTEGER PRIMARY KEY,
	run  TEXT NOT NULL REFERENCES runs,
	sink TEXT NOT NULL,
	body BLOB NOT NULL
) STRICT;
CREATE INDEX parts_of ON parts (run, sink);
CREATE TABLE beats (
	run     TEXT NOT NULL REFERENCES runs,
	attempt INTEGER NOT NULL,
	worker  TEXT NOT NULL,
	beat    BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, attempt, worker)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
	n    INTEGER PRIMARY KEY,
	run  TEXT NOT NULL REFERENCES runs,
	at   INTEGER NOT NULL,
	kind TEXT NOT NULL,
	text TEXT NOT NULL
) STRICT;
CREATE INDEX events_of ON events (run, at);
CREATE TABLE letters (
	run      TEXT NOT NULL REFERENCES runs,
	id       TEXT NOT NULL,
	letter   BLOB NOT NULL, -- JSON
	state    TEXT NOT NULL,
	redrives INTEGER NOT NULL,
	PRIMARY KEY (run, id)
) STRICT, WITHOUT ROWID;`, `
CREATE TABLE commits (
	run  TEXT NOT NULL REFERENCES runs,
	sink TEXT NOT NULL,
	body BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, sink)
) STRICT, WITHOUT ROWID;
CREATE TABLE claims (
	run       TEXT NOT NULL REFERENCES runs,
	partition TEXT NOT NULL,
	member    TEXT NOT NULL,
	PRIMARY KEY (run, partition)
) STRICT, WITHOUT ROWID;`}

// sqliteJournal is a journal in an SQLite file.
type sqliteJournal struct {
	db   *sql.DB // one connection, which writes
	read *sql.DB
	path string
	file os.FileInfo // as it was opened

	attempt, near, put, drop, part, letter *sql.Stmt // of Record
}

func openSQLite(ctx context.Context, path string) (Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fail.Job("journal.not_writable", "the journal %s cannot be made: %w", path, err).
			WithFix("name a file that can be written as journal.sqlite in the job file")
	}
	// One connection writes: SQLite has one writer, and a transaction must not wait for another of the same process.
	// The pragmas are those that services of several processes need; immediate transactions never fail halfway for want
	// of the lock. synchronous=NORMAL waits for the disk at checkpoints alone.
	dsn := func(rest string) string {
		return (&url.URL{Scheme: "file", Opaque: url.PathEscape(path),
			RawQuery: "_pragma=busy_timeout(10000)&" + rest}).String()
	}
	db, err := sql.Open("sqlite",
		dsn("_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)&_txlock=immediate"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", dsn("_pragma=query_only(1)&mode=rw"))
	if err != nil {
		return nil, err
	}
	j := &sqliteJournal{db: db, read: read, path: path}
	err = j.migrate(ctx)
	if err == nil {
		err = j.prepare(ctx)
	}
	if err == nil {
		j.file, err = os.Stat(path)
	}
	if err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

func (j *sqliteJournal) migrate(ctx context.Context) error {
	return j.write(ctx, func(tx *sql.Tx) error {
		var v int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
			return err
		}
		if v > version {
			return fail.Job("journal.newer", "the journal %s is of version %d, and this program knows %d at most",
				j.path, v, version).
				WithFix("use the newer program, or another file as journal.sqlite in the job file")
		}
		for ; v < version; v++ {
			if _, err := tx.ExecContext(ctx, upgrades[v]); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version))
		return err
	})
}

// prepare prepares what Record needs, which is called often.
func (j *sqliteJournal) prepare(ctx context.Context) error {
	for s, query := range map[**sql.Stmt]string{
		&j.attempt: "SELECT attempt FROM runs WHERE id = ?",
		&j.near: fmt.Sprintf(`SELECT start, "end", sum FROM finished
			WHERE run = ? AND sink = ? AND partition = ? AND start <= ? ORDER BY start DESC LIMIT %d`, near),
		&j.put: `INSERT INTO finished (run, sink, partition, start, "end", sum) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET "end" = excluded."end", sum = excluded.sum`,
		&j.drop: "DELETE FROM finished WHERE run = ? AND sink = ? AND partition = ? AND start = ?",
		&j.part: "INSERT INTO parts (run, sink, body) VALUES (?, ?, ?)",
		&j.letter: "INSERT INTO letters (run, id, letter, state, redrives) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO " +
			"NOTHING",
	} {
		var err error
		if *s, err = j.db.PrepareContext(ctx, query); err != nil {
			return j.classify(err)
		}
	}
	return nil
}

func (j *sqliteJournal) Close() error { return errors.Join(j.read.Close(), j.db.Close()) }

func (j *sqliteJournal) Begin(ctx context.Context, r Run) error {
	_, err := j.changed(ctx,
		"INSERT INTO runs (id, job, fingerprint, job_file, schema, parent, started, state) VALUES (?, ?, ?, ?, ?, "+
			"?, ?, ?)",
		r.ID, r.Job, r.Fingerprint, r.JobFile, r.Schema, r.Parent, r.Started.UnixMicro(), string(Running))
	if isCode(err, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY) {
		return errHasRun(r.ID)
	}
	return err
}

func (j *sqliteJournal) SavePlan(ctx context.Context, run string, splits iter.Seq[connector.Split], total Total) error {
	return j.write(ctx, func(tx *sql.Tx) error {
		var stored sql.NullInt64
		if err := tx.QueryRowContext(ctx, "SELECT splits FROM runs WHERE id = ?", run).Scan(&stored); err != nil {
			return j.unknown(run, err)
		}
		if stored.Valid {
			return errHasPlan(run)
		}
		n := 0
		for chunk := range chunks(splits) {
			text, err := json.Marshal(chunk)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO chunks (run, n, splits) VALUES (?, ?, ?)",
				run, n, text); err != nil {
				return err
			}
			n++
		}
		_, err := tx.ExecContext(ctx, "UPDATE runs SET splits = ?, rows = ?, bytes = ? WHERE id = ?", total.Splits,
			total.Rows, total.Bytes, run)
		return err
	})
}

func (j *sqliteJournal) ExtendPlan(ctx context.Context, run string, splits []connector.Split) error {
	if _, err := j.Total(ctx, run); err != nil {
		return err
	}
	there, err := collect(j.Plan(ctx, run))
	if err != nil {
		return err
	}
	added := missing(there, splits)
	if len(added) == 0 {
		return nil
	}
	text, err := json.Marshal(added)
	if err != nil {
		return err
	}
	return j.write(ctx, func(tx *sql.Tx) error {
		var now, n int
		err := tx.QueryRowContext(ctx, `SELECT splits, (SELECT count(*) FROM chunks WHERE run = runs.id)
			FROM runs WHERE id = ?`, run).Scan(&now, &n)
		if err != nil {
			return j.unknown(run, err)
		}
		if now != len(there) {
			return errExtended(run)
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO chunks (run, n, splits) VALUES (?, ?, ?)", run, n, text)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE runs SET splits = splits + ? WHERE id = ?", len(added), run)
		return err
	})
}

func (j *sqliteJournal) Total(ctx context.Context, run string) (Total, error) {
	var splits, rows, bytes sql.NullInt64
	err := j.read.QueryRowContext(ctx, "SELECT splits, rows, bytes FROM runs WHERE id = ?", run).
		Scan(&splits, &rows, &bytes)
	if err != nil {
		return Total{}, j.unknown(run, err)
	}
	if !splits.Valid {
		return Total{}, errNoPlan(run)
	}
	return Total{Splits: int(splits.Int64), Rows: rows.Int64, Bytes: bytes.Int64}, nil
}

func (j *sqliteJournal) Plan(ctx context.Context, run string) iter.Seq2[connector.Split, error] {
	return func(yield func(connector.Split, error) bool) {
		if _, err := j.Total(ctx, run); err != nil {
			yield(connector.Split{}, err)
			return
		}
		for n := 0; ; n++ {
			var text []byte
			var splits []connector.Split
			err := j.read.QueryRowContext(ctx, "SELECT splits FROM chunks WHERE run = ? AND n = ?", run, n).Scan(&text)
			if errors.Is(err, sql.ErrNoRows) {
				return
			}
			if err == nil {
				err = json.Unmarshal(text, &splits)
			}
			if err != nil {
				yield(connector.Split{}, j.classify(err))
				return
			}
			for _, s := range splits {
				if !yield(s, nil) {
					return
				}
			}
		}
	}
}

func (j *sqliteJournal) Attempt(ctx context.Context, run string) (attempt int, err error) {
	err = j.write(ctx, func(tx *sql.Tx) error {
		var control []byte
		if err := tx.QueryRowContext(ctx, "SELECT attempt + 1, control FROM runs WHERE id = ?", run).
			Scan(&attempt, &control); err != nil {
			return j.unknown(run, err)
		}
		c, err := parseControl(control)
		if err != nil {
			return err
		}
		if control, err = json.Marshal(c.afresh()); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE runs SET attempt = ?, control = ?, state = ?, ended = NULL WHERE id = ?",
			attempt, control, string(Running), run)
		return err
	})
	return attempt, err
}

func (j *sqliteJournal) Record(ctx context.Context, run string, attempt int, b Batch) error {
	// It is short: watching ctx at each statement would take as long as the statements.
	ctx = context.WithoutCancel(ctx)
	return j.write(ctx, func(tx *sql.Tx) error {
		var last int
		if err := tx.StmtContext(ctx, j.attempt).QueryRowContext(ctx, run).Scan(&last); err != nil {
			return j.unknown(run, err)
		}
		if attempt != last {
			return errFenced(run, attempt, last)
		}
		if err := j.claim(ctx, tx, run, b); err != nil {
			return err
		}
		if err := j.finish(ctx, tx, run, b.Done); err != nil {
			return err
		}
		part, letter := tx.StmtContext(ctx, j.part), tx.StmtContext(ctx, j.letter)
		for _, p := range b.Parts {
			if _, err := part.ExecContext(ctx, run, p.Sink, p.Body); err != nil {
				return err
			}
		}
		for _, l := range b.Letters {
			text, err := json.Marshal(l)
			if err != nil {
				return err
			}
			if _, err := letter.ExecContext(ctx, run, l.ID, text, string(l.State), l.Redrives); err != nil {
				return err
			}
		}
		return j.commits(ctx, tx, run, b)
	})
}

// claim makes a member the owner of partitions, and refuses what it records of those of others.
func (j *sqliteJournal) claim(ctx context.Context, tx *sql.Tx, run string, b Batch) error {
	for _, p := range b.Claim {
		if _, err := tx.ExecContext(ctx, `INSERT INTO claims (run, partition, member) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET member = excluded.member`, run, p, b.Member); err != nil {
			return err
		}
	}
	if b.Member == "" {
		return nil
	}
	for _, p := range partitions(b.Done) {
		var owner string
		err := tx.QueryRowContext(ctx, "SELECT member FROM claims WHERE run = ? AND partition = ?", run, p).Scan(&owner)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if owner != b.Member {
			return errTaken(run, p, owner)
		}
	}
	return nil
}

// commits seals and ends commits.
func (j *sqliteJournal) commits(ctx context.Context, tx *sql.Tx, run string, b Batch) error {
	change := func(sink string, change func(*commits) (bool, error)) error {
		var c commits
		var body []byte
		err := tx.QueryRowContext(ctx, "SELECT body FROM commits WHERE run = ? AND sink = ?", run, sink).Scan(&body)
		if err == nil {
			err = json.Unmarshal(body, &c)
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		changed, err := change(&c)
		if !changed || err != nil {
			return err
		}
		if body, err = json.Marshal(c); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO commits (run, sink, body) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET body = excluded.body`, run, sink, body)
		return err
	}
	for _, e := range b.Committed {
		err := change(e.Sink, func(c *commits) (bool, error) {
			if !c.end(e) {
				return false, nil
			}
			_, err := tx.ExecContext(ctx, "DELETE FROM parts WHERE run = ? AND sink = ? AND n < ?", run, e.Sink,
				c.Until)
			return true, err
		})
		if err != nil {
			return err
		}
	}
	for _, s := range b.Seal {
		err := change(s.Sink, func(c *commits) (bool, error) {
			var until int64
			err := tx.QueryRowContext(ctx, "SELECT coalesce(max(n), 0) + 1 FROM parts WHERE run = ? AND sink = ?",
				run, s.Sink).Scan(&until)
			return c.seal(s.Note, until), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *sqliteJournal) commitsOf(ctx context.Context, run, sink string) (c commits, err error) {
	var body []byte
	err = j.read.QueryRowContext(ctx, "SELECT body FROM commits WHERE run = ? AND sink = ?", run, sink).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = j.Get(ctx, run)
		return c, err
	}
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	return c, j.classify(err)
}

func (j *sqliteJournal) Sealed(ctx context.Context, run, sink string) (Commit, bool, error) {
	c, err := j.commitsOf(ctx, run, sink)
	if err != nil || !c.Open {
		return Commit{}, false, err
	}
	parts, err := collect(query(ctx, j, run, func(scan func(...any) error) (body []byte, err error) {
		return body, scan(&body)
	}, "SELECT body FROM parts WHERE run = ? AND sink = ? AND n < ? ORDER BY n", run, sink, c.Until))
	return Commit{Number: c.Number, Note: c.Note, Parts: parts}, err == nil, err
}

func (j *sqliteJournal) Committed(ctx context.Context, run, sink string) (Committed, error) {
	c, err := j.commitsOf(ctx, run, sink)
	return c.ended(), err
}

func (j *sqliteJournal) finish(ctx context.Context, tx *sql.Tx, run string, all []Done) error {
	nearStmt, put, drop := tx.StmtContext(ctx, j.near), tx.StmtContext(ctx, j.put), tx.StmtContext(ctx, j.drop)
	m := merger{}
	for _, d := range all {
		stored, err := intervals(nearStmt.QueryContext(ctx, run, d.Sink, d.Partition, storedEnd(d.End)))
		if err != nil {
			return err
		}
		m.know(place{d.Sink, d.Partition}, stored)
	}
	for _, d := range all {
		if err := m.add(run, d); err != nil {
			return err
		}
	}
	return m.changes(func(at place, v interval) error {
		text, err := json.Marshal(v.sum)
		if err != nil {
			return err
		}
		_, err = put.ExecContext(ctx, run, at.sink, at.partition, v.start, v.end, text)
		return err
	}, func(at place, start []byte) error {
		_, err := drop.ExecContext(ctx, run, at.sink, at.partition, start)
		return err
	})
}

func intervals(rows *sql.Rows, err error) ([]interval, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []interval
	for rows.Next() {
		var v interval
		var sum []byte
		if err := rows.Scan(&v.start, &v.end, &sum); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(sum, &v.sum); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func (j *sqliteJournal) Finished(ctx context.Context, run string) iter.Seq2[Done, error] {
	return query(ctx, j, run, func(scan func(...any) error) (d Done, err error) {
		var start, end, sum []byte
		if err := scan(&d.Sink, &d.Partition, &start, &end, &sum); err != nil {
			return d, err
		}
		d.Start, d.End = bound(start), bound(end)
		return d, json.Unmarshal(sum, &d.Sum)
	}, `SELECT sink, partition, start, "end", sum FROM finished WHERE run = ?`, run)
}

func (j *sqliteJournal) Parts(ctx context.Context, run, sink string) ([][]byte, error) {
	return collect(query(ctx, j, run, func(scan func(...any) error) (body []byte, err error) {
		return body, scan(&body)
	}, "SELECT body FROM parts WHERE run = ? AND sink = ? ORDER BY n", run, sink))
}

func (j *sqliteJournal) Finish(ctx context.Context, run string, attempt int, s State, report []byte) error {
	n, err := j.changed(ctx,
		"UPDATE runs SET state = ?, ended = ?, report = coalesce(?, report) WHERE id = ? AND attempt = ?",
		string(s), time.Now().UnixMicro(), report, run, attempt)
	if err != nil || n > 0 {
		return err
	}
	info, err := j.Get(ctx, run)
	if err != nil {
		return err
	}
	return errFenced(run, attempt, info.Attempt)
}

func (j *sqliteJournal) Fail(ctx context.Context, run string, attempt int, cause error) error {
	e := known(cause)
	return j.insert(ctx,
		"INSERT INTO failures (run, attempt, at, class, code, message, fix, exit) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", run,
		attempt, time.Now().UnixMicro(), int(e.Class), e.Code, e.Message, e.Fix, e.Exit)
}

func (j *sqliteJournal) Failure(ctx context.Context, run string, attempt int, since time.Time) (
	failure, err error) {
	all := query(ctx, j, run, func(scan func(...any) error) (*fail.Error, error) {
		e := &fail.Error{}
		return e, scan(&e.Class, &e.Code, &e.Message, &e.Fix, &e.Exit)
	}, "SELECT class, code, message, fix, exit FROM failures WHERE run = ? AND attempt = ? AND at >= ? "+
		"ORDER BY at, rowid LIMIT 1", run, attempt, micros(since))
	for e, err := range all {
		if err != nil {
			return nil, err
		}
		return e, nil
	}
	return nil, nil
}

func (j *sqliteJournal) Get(ctx context.Context, run string) (RunInfo, error) {
	infos, err := j.list(ctx, "WHERE id = ?", run)
	if err == nil && len(infos) == 0 {
		err = errNoRun(run, j.path)
	}
	if err != nil {
		return RunInfo{}, err
	}
	return infos[0], nil
}

func (j *sqliteJournal) List(ctx context.Context) ([]RunInfo, error) {
	return j.list(ctx, "ORDER BY started DESC, id")
}

func (j *sqliteJournal) list(ctx context.Context, rest string, args ...any) ([]RunInfo, error) {
	return collect(rows(ctx, j, func(scan func(...any) error) (r RunInfo, err error) {
		var started int64
		var ended sql.NullInt64
		err = scan(&r.ID, &r.Job, &r.Fingerprint, &r.JobFile, &r.Schema, &r.Parent, &started, &ended,
			&r.State, &r.Attempt, &r.Report)
		r.Started = time.UnixMicro(started).UTC()
		if ended.Valid {
			r.Ended = time.UnixMicro(ended.Int64).UTC()
		}
		return r, err
	}, "SELECT id, job, fingerprint, job_file, schema, parent, started, ended, state, attempt, report FROM runs "+rest,
		args...))
}

func (j *sqliteJournal) Control(ctx context.Context, run string) (Control, error) {
	if err := j.there(); err != nil {
		return Control{}, err
	}
	var text []byte
	if err := j.read.QueryRowContext(ctx, "SELECT control FROM runs WHERE id = ?", run).Scan(&text); err != nil {
		return Control{}, j.unknown(run, err)
	}
	return parseControl(text)
}

func (j *sqliteJournal) SetControl(ctx context.Context, run string, event Event, change func(*Control)) error {
	return j.write(ctx, func(tx *sql.Tx) error {
		var text []byte
		if err := tx.QueryRowContext(ctx, "SELECT control FROM runs WHERE id = ?", run).Scan(&text); err != nil {
			return j.unknown(run, err)
		}
		c, err := parseControl(text)
		if err != nil {
			return err
		}
		change(&c)
		if text, err = json.Marshal(c); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE runs SET control = ? WHERE id = ?", text, run); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, insertEvent, run, event.at().UnixMicro(), event.Kind, event.Text)
		return err
	})
}

const insertEvent = "INSERT INTO events (run, at, kind, text) VALUES (?, ?, ?, ?)"

func (j *sqliteJournal) Beat(ctx context.Context, run string, b Beat) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return j.insert(ctx,
		"INSERT INTO beats (run, attempt, worker, beat) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET beat = "+
			"excluded.beat", run, b.Attempt, b.Worker, text)
}

func (j *sqliteJournal) Beats(ctx context.Context, run string) ([]Beat, error) {
	return collect(query(ctx, j, run, scanBeat,
		"SELECT beat FROM beats WHERE run = ? AND attempt = (SELECT attempt FROM runs WHERE id = ?) ORDER BY worker",
		run, run))
}

func (j *sqliteJournal) AllBeats(ctx context.Context, run string) ([]Beat, error) {
	return collect(query(ctx, j, run, scanBeat, "SELECT beat FROM beats WHERE run = ?", run))
}

func (j *sqliteJournal) Note(ctx context.Context, run string, e Event) error {
	return j.insert(ctx, insertEvent, run, e.at().UnixMicro(), e.Kind, e.Text)
}

func (j *sqliteJournal) History(ctx context.Context, run string) ([]Event, error) {
	return collect(query(ctx, j, run, func(scan func(...any) error) (e Event, err error) {
		var at int64
		err = scan(&at, &e.Kind, &e.Text)
		e.At = time.UnixMicro(at).UTC()
		return e, err
	}, "SELECT at, kind, text FROM events WHERE run = ? ORDER BY at, n", run))
}

func (j *sqliteJournal) Letters(ctx context.Context, run string, f LetterFilter) iter.Seq2[Letter, error] {
	all := query(ctx, j, run, func(scan func(...any) error) (l Letter, err error) {
		var text []byte
		var state LetterState
		var redrives int
		if err := scan(&text, &state, &redrives); err != nil {
			return l, err
		}
		err = json.Unmarshal(text, &l)
		l.State, l.Redrives = state, redrives
		return l, err
	}, "SELECT letter, state, redrives FROM letters WHERE run = ? ORDER BY id", run)
	return f.among(all)
}

func (j *sqliteJournal) Trim(ctx context.Context, run string, before time.Time) error {
	return j.write(ctx, func(tx *sql.Tx) error {
		const sent = `DELETE FROM letters WHERE run = ? AND state = ? AND datetime(letter ->> 'At') < datetime(?)`
		at := before.UTC().Format(time.RFC3339Nano)
		for _, st := range []struct {
			query string
			args  []any
		}{
			{"DELETE FROM events WHERE run = ? AND at < ?", []any{run, before.UnixMicro()}},
			{"DELETE FROM failures WHERE run = ? AND at < ?", []any{run, before.UnixMicro()}},
			{"DELETE FROM beats WHERE run = ? AND datetime(beat ->> 'at') < datetime(?)", []any{run, at}},
			{sent, []any{run, string(Sent), at}},
		} {
			if _, err := tx.ExecContext(ctx, st.query, st.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

func (j *sqliteJournal) Mark(ctx context.Context, run, id string, s LetterState, redrives int) error {
	n, err := j.changed(ctx, "UPDATE letters SET state = ?, redrives = ? WHERE run = ? AND id = ?",
		string(s), redrives, run, id)
	if err == nil && n == 0 {
		return errNoLetter(run, id)
	}
	return err
}

// there tells whether the file still stands at its path: SQLite would go on with a deleted one, and all would be lost.
func (j *sqliteJournal) there() error {
	now, err := os.Stat(j.path)
	if j.file != nil && (err != nil || !os.SameFile(now, j.file)) {
		return fail.New(fail.Fatal, "journal.gone",
			"the journal %s was deleted or replaced while it was in use", j.path).
			WithFix("start the run anew, and leave the file alone while runs go on")
	}
	return nil
}

// write runs f in one transaction.
func (j *sqliteJournal) write(ctx context.Context, f func(*sql.Tx) error) error {
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

// insert inserts a row that belongs to a run.
func (j *sqliteJournal) insert(ctx context.Context, query, run string, args ...any) error {
	_, err := j.changed(ctx, query, append([]any{run}, args...)...)
	if isCode(err, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY) {
		return errNoRun(run, j.path)
	}
	return err
}

func isCode(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == code
}

// changed runs a statement and gives the number of rows that it changed.
func (j *sqliteJournal) changed(ctx context.Context, query string, args ...any) (int64, error) {
	if err := j.there(); err != nil {
		return 0, err
	}
	res, err := j.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, j.classify(err)
	}
	return res.RowsAffected()
}

// query gives what scan makes of the rows of a query about a run, which must be there.
func query[T any](ctx context.Context, j *sqliteJournal, run string, scan func(func(...any) error) (T, error),
	text string, args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var there int
		if err := j.read.QueryRowContext(ctx, "SELECT 1 FROM runs WHERE id = ?", run).Scan(&there); err != nil {
			yield(*new(T), j.unknown(run, err))
			return
		}
		rows(ctx, j, scan, text, args...)(yield)
	}
}

// rows gives what scan makes of the rows of a query.
func rows[T any](ctx context.Context, j *sqliteJournal, scan func(func(...any) error) (T, error), text string,
	args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		rows, err := j.read.QueryContext(ctx, text, args...)
		if err != nil {
			yield(*new(T), j.classify(err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			v, err := scan(rows.Scan)
			if !yield(v, j.classify(err)) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(*new(T), j.classify(err))
		}
	}
}

func (j *sqliteJournal) unknown(run string, err error) error {
	if !errors.Is(err, sql.ErrNoRows) {
		return j.classify(err)
	}
	return errNoRun(run, j.path)
}

// classify gives an error of SQLite its class and code.
func (j *sqliteJournal) classify(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	if gone := j.there(); gone != nil {
		return gone
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
		return fail.New(fail.Fatal, "journal.disk", "the journal %s cannot be written: %w", j.path, err).
			WithFix("see that its disk has room and is well, then start again")
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fail.Job("journal.not_writable", "the journal %s cannot be opened for writing: %w", j.path, err).
			WithFix("name a file that can be written as journal.sqlite in the job file")
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fail.Job("journal.damaged", "%s is not a journal, or a damaged one: %w", j.path, err).
			WithFix("put it aside, or name another file as journal.sqlite in the job file")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fail.New(fail.Transient, "journal.busy", "the journal %s is in use: %w", j.path, err)
	}
	return fmt.Errorf("journal %s: %w", j.path, err)
}
