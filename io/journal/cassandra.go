package journal

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/transforms/fail"
)

// One partition holds all that must change at once, so that a batch with a condition can do it: Paxos settles one
// partition at a time. Its static columns are the run. Its rows, by kind:
//
//	done     sink, place: the partition of the source; key, stop: the interval; body: the sum
//	part     sink; key: its number, which begins with the seq that it came with; body
//	commit   sink; body: the state of its commits
//	claim    place: the partition; body: the member that owns it
//	letter   key: its id; body; mark, redrives: what may change
//	event    key: its time; body
//	failure  place: the attempt; key: its time; body
//	writer   key: who calls Record; body: the token of its last call
//
// seq counts the calls of Record. Each is prepared by plain reads, and applied if seq is still the same. What
// conditions guard, conditional statements alone write.
//
// Adjacent intervals are one row, so the partition grows with the number of the source's partitions, of files
// that wait for a commit and of dead letters: 100,000 of each for 3 sinks are about 150 MB before compression, as
// much as a partition should have.
//
// A plan has a name of its own, and each chunk a partition; the run names its plan once all chunks are there.
const cassandraTables = `
CREATE TABLE IF NOT EXISTS runs (
	run         text,
	job         text static,
	fingerprint text static,
	job_file    blob static,
	record_schema blob static,
	parent      text static,
	started     bigint static, -- microseconds since 1970
	ended       bigint static,
	state       text static,
	report      blob static,
	attempt     int static,
	owner       text static, -- who has set attempt, by a token
	seq         bigint static,
	control     text static,
	plan        text static,
	splits      int static,
	rows        bigint static,
	bytes       bigint static,
	kind        text,
	sink        text,
	place       text,
	key         blob,
	stop        blob,
	body        blob,
	mark        text,
	redrives    int,
	PRIMARY KEY (run, kind, sink, place, key)
);
CREATE TABLE IF NOT EXISTS chunks (
	plan   text,
	n      int,
	splits blob,
	PRIMARY KEY ((plan, n))
);
CREATE TABLE IF NOT EXISTS beats (
	run     text,
	attempt int,
	worker  text,
	beat    blob,
	PRIMARY KEY (run, attempt, worker)
);
CREATE TABLE IF NOT EXISTS versions (
	name    text PRIMARY KEY,
	version int
);`

// cassandraVersion is that of the tables. A journal of a newer one is refused.
const cassandraVersion = 1

// cassandraJournal is a journal in a keyspace.
type cassandraJournal struct {
	session  *cassandraio.Session
	keyspace string // quoted
	where    string
	writer   []byte
	there    sync.Map // runs that are known to be there: none is ever removed

	mu    sync.Mutex // one Record at a time: a second one of this process would only make the first one try again
	tails map[string]tail
}

// tail is where a run stood when it was last seen.
type tail struct {
	attempt int
	seq     int64
}

func openCassandra(ctx context.Context, c CassandraConfig) (Journal, error) {
	session, err := cassandraio.NewSession(ctx, c.Connection)
	if err != nil {
		return nil, err
	}
	j := &cassandraJournal{session: session, keyspace: `"` + strings.ReplaceAll(c.Keyspace, `"`, `""`) + `"`,
		where:  "keyspace " + c.Keyspace,
		writer: []byte(rand.Text()), tails: map[string]tail{}}
	if err := j.prepare(ctx, c); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

// prepare makes what is missing. Schema changes of several clients at once are nothing Cassandra
// is good at, so it looks first.
func (j *cassandraJournal) prepare(ctx context.Context, c CassandraConfig) error {
	var keyspaces, tables int
	count := func(n *int, cql string, values ...any) error {
		return j.first(j.session.Rows(ctx, cassandraio.Statement{CQL: cql, Values: values}), n)
	}
	if err := count(&keyspaces, "SELECT count(*) FROM system_schema.keyspaces WHERE keyspace_name = ?",
		c.Keyspace); err != nil {
		return err
	}
	if keyspaces == 0 {
		if len(c.Replication) == 0 {
			return fail.Job("journal.no_keyspace", "there is no keyspace %s for the journal", c.Keyspace).
				WithFix("make it, or set journal.cassandra.replication in the job file")
		}
		replication := "{'class': 'NetworkTopologyStrategy'"
		for _, dc := range slices.Sorted(maps.Keys(c.Replication)) {
			replication += fmt.Sprintf(", '%s': %d", strings.ReplaceAll(dc, "'", "''"), c.Replication[dc])
		}
		if err := j.session.Exec(ctx,
			cassandraio.Statement{CQL: "CREATE KEYSPACE IF NOT EXISTS " + j.keyspace + " WITH replication = " +
				replication + "}"}); err != nil {
			return err
		}
	}
	if err := count(&tables,
		"SELECT count(*) FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'versions'",
		c.Keyspace); err != nil {
		return err
	}
	if tables == 0 {
		for _, st := range cassandraio.Statements(
			strings.ReplaceAll(cassandraTables, "IF NOT EXISTS ", "IF NOT EXISTS "+j.keyspace+".")) {
			if err := j.session.Exec(ctx, st); err != nil {
				return err
			}
		}
	}
	var v int
	err := j.first(j.session.Rows(ctx, j.cql("SELECT version FROM %s.versions WHERE name = 'journal'")), &v)
	if err == errNoRow {
		return j.session.Exec(ctx,
			j.cql("INSERT INTO %s.versions (name, version) VALUES ('journal', ?)", cassandraVersion))
	}
	if err == nil && v > cassandraVersion {
		return fail.Job("journal.newer", "the journal in %s is of version %d, and this program knows %d at most",
			j.where, v, cassandraVersion).
			WithFix("use the newer program, or another keyspace as journal.cassandra.keyspace in the job file")
	}
	return err
}

// cql is a statement; %s in it is the keyspace.
func (j *cassandraJournal) cql(format string, values ...any) cassandraio.Statement {
	return cassandraio.Statement{CQL: strings.ReplaceAll(format, "%s", j.keyspace), Values: values}
}

var errNoRow = fmt.Errorf("no row")

// first scans the first row; errNoRow: there is none.
func (j *cassandraJournal) first(rows iter.Seq2[func(...any) error, error], dest ...any) error {
	for scan, err := range rows {
		if err != nil {
			return err
		}
		return scan(dest...)
	}
	return errNoRow
}

// static scans static columns of a run, as conditional statements have left them.
func (j *cassandraJournal) static(ctx context.Context, run, columns string, dest ...any) error {
	return j.about(run, j.first(j.session.Latest(ctx,
		j.cql("SELECT DISTINCT "+columns+" FROM %s.runs WHERE run = ?", run)), dest...))
}

func (j *cassandraJournal) about(run string, err error) error {
	if err == errNoRow {
		return errNoRun(run, j.where)
	}
	return err
}

// settle tries something conditional until it is applied or fails for good. Where an error leaves open
// whether it was applied, landed tells.
func (j *cassandraJournal) settle(ctx context.Context, try, landed func() (bool, error)) error {
	began := time.Now()
	for n := 0; ; n++ {
		applied, err := try()
		if err != nil && fail.ClassOf(err).Passes() && time.Since(began) < connector.DefaultRetry.Deadline {
			applied, err = landed()
		}
		if applied || err != nil {
			return err
		}
		// Others were first. The more often, the longer the pause.
		select {
		case <-time.After(mathrand.N(time.Millisecond << min(n+2, 8))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (j *cassandraJournal) Close() error {
	j.session.Close()
	return nil
}

func (j *cassandraJournal) Begin(ctx context.Context, r Run) error {
	token := rand.Text()
	return j.settle(ctx, func() (bool, error) {
		applied, _, err := j.session.Apply(ctx, j.cql(`UPDATE %s.runs SET job = ?, fingerprint = ?, job_file = ?, record_schema = ?,
			parent = ?, started = ?, state = ?, attempt = 0, seq = 0, control = '{}', owner = ? WHERE run = ? IF state = null`,
			r.Job, r.Fingerprint, r.JobFile, r.Schema, r.Parent, r.Started.UnixMicro(), string(Running), token, r.ID))
		if err == nil && !applied {
			err = errHasRun(r.ID)
		}
		return applied, err
	}, func() (bool, error) { return j.has(ctx, r.ID, token) })
}

// has tells whether the run's token is this one.
func (j *cassandraJournal) has(ctx context.Context, run, token string) (bool, error) {
	var now string
	err := j.first(j.session.Latest(ctx, j.cql("SELECT DISTINCT owner FROM %s.runs WHERE run = ?", run)), &now)
	if err == errNoRow {
		return false, nil
	}
	return now == token, err
}

func (j *cassandraJournal) SavePlan(ctx context.Context, run string,
	splits iter.Seq[connector.Split], total Total) error {
	name := rand.Text()
	if _, err := j.Total(ctx, run); fail.CodeOf(err) != "journal.no_plan" {
		if err == nil {
			err = errHasPlan(run)
		}
		return err
	}
	n := 0
	for chunk := range chunks(splits) {
		text, err := json.Marshal(chunk)
		if err != nil {
			return err
		}
		if err := j.session.Exec(ctx, j.cql("INSERT INTO %s.chunks (plan, n, splits) VALUES (?, ?, ?)",
			name, n, text)); err != nil {
			return err
		}
		n++
	}
	return j.settle(ctx, func() (bool, error) {
		applied, _, err := j.session.Apply(ctx,
			j.cql("UPDATE %s.runs SET plan = ?, splits = ?, rows = ?, bytes = ? WHERE run = ? IF state != null AND "+
				"plan = null",
				name, total.Splits, total.Rows, total.Bytes, run))
		if err == nil && !applied {
			err = errHasPlan(run)
		}
		return applied, err
	}, func() (bool, error) {
		var now string
		err := j.static(ctx, run, "plan", &now)
		return now == name, err
	})
}

func (j *cassandraJournal) ExtendPlan(ctx context.Context, run string, splits []connector.Split) error {
	name, total, err := j.plan(ctx, run)
	if err != nil {
		return err
	}
	there, err := collect(j.Plan(ctx, run))
	if err != nil {
		return err
	}
	added := missing(there, splits)
	want := len(there) + len(added)
	if want == total.Splits {
		return nil
	}
	text, err := json.Marshal(added)
	if err != nil {
		return err
	}
	for n := 0; len(added) > 0; n++ {
		var size int
		err := j.first(j.session.Rows(ctx, j.cql("SELECT n FROM %s.chunks WHERE plan = ? AND n = ?", name, n)), &size)
		if err == nil {
			continue
		}
		if err == errNoRow {
			err = j.session.Exec(ctx, j.cql("INSERT INTO %s.chunks (plan, n, splits) VALUES (?, ?, ?)", name, n, text))
			added = nil
		}
		if err != nil {
			return err
		}
	}
	// The number may lack behind the splits, after a crash here: the next call mends it.
	return j.settle(ctx, func() (bool, error) {
		applied, _, err := j.session.Apply(ctx, j.cql(
			"UPDATE %s.runs SET splits = ? WHERE run = ? IF plan = ? AND splits = ?", want, run, name, total.Splits))
		if err == nil && !applied {
			err = errExtended(run)
		}
		return applied, err
	}, func() (bool, error) {
		_, now, err := j.plan(ctx, run)
		return now.Splits == want, err
	})
}

func (j *cassandraJournal) plan(ctx context.Context, run string) (name string, total Total, err error) {
	err = j.static(ctx, run, "plan, splits, rows, bytes", &name, &total.Splits, &total.Rows, &total.Bytes)
	if err == nil && name == "" {
		err = errNoPlan(run)
	}
	return name, total, err
}

func (j *cassandraJournal) Total(ctx context.Context, run string) (Total, error) {
	_, total, err := j.plan(ctx, run)
	return total, err
}

func (j *cassandraJournal) Plan(ctx context.Context, run string) iter.Seq2[connector.Split, error] {
	return func(yield func(connector.Split, error) bool) {
		name, _, err := j.plan(ctx, run)
		if err != nil {
			yield(connector.Split{}, err)
			return
		}
		for n := 0; ; n++ {
			var text []byte
			var splits []connector.Split
			err := j.first(j.session.Rows(ctx, j.cql("SELECT splits FROM %s.chunks WHERE plan = ? AND n = ?", name, n)),
				&text)
			if err == errNoRow {
				return
			}
			if err == nil {
				err = json.Unmarshal(text, &splits)
			}
			if err != nil {
				yield(connector.Split{}, err)
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

func (j *cassandraJournal) Attempt(ctx context.Context, run string) (attempt int, err error) {
	token := rand.Text()
	err = j.settle(ctx, func() (bool, error) {
		var control string
		if err := j.static(ctx, run, "attempt, control", &attempt, &control); err != nil {
			return false, err
		}
		c, err := parseControl([]byte(control))
		if err != nil {
			return false, err
		}
		text, err := json.Marshal(c.afresh())
		if err != nil {
			return false, err
		}
		attempt++
		applied, _, err := j.session.Apply(ctx,
			j.cql("UPDATE %s.runs SET attempt = ?, owner = ?, control = ?, state = ?, ended = null WHERE run = ? IF "+
				"attempt = ? AND control = ?",
				attempt, token, string(text), string(Running), run, attempt-1, control))
		return applied, err
	}, func() (bool, error) { return j.has(ctx, run, token) })
	return attempt, err
}

func (j *cassandraJournal) Record(ctx context.Context, run string, attempt int, b Batch) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	token := []byte(rand.Text())
	return j.settle(ctx, func() (bool, error) {
		at, known := j.tails[run]
		if !known || at.attempt != attempt {
			if err := j.static(ctx, run, "attempt, seq", &at.attempt, &at.seq); err != nil {
				return false, err
			}
			j.tails[run] = at
		}
		if at.attempt != attempt {
			return false, errFenced(run, attempt, at.attempt)
		}
		changes, err := j.changes(ctx, run, at.seq, b)
		if err != nil {
			// What is in the way may be of a later attempt.
			delete(j.tails, run)
			var last int
			if j.static(ctx, run, "attempt", &last) == nil && last != attempt {
				err = errFenced(run, attempt, last)
			}
			return false, err
		}
		applied, now, err := j.session.Apply(ctx, append(changes,
			j.put(run, "writer", "", "", j.writer, "body", token),
			j.cql("UPDATE %s.runs SET seq = ? WHERE run = ? IF attempt = ? AND seq = ?", at.seq+1,
				run, attempt, at.seq))...)
		delete(j.tails, run)
		if applied {
			j.tails[run] = tail{attempt, at.seq + 1}
		} else if seq, ok := now["seq"].(int64); ok {
			last, _ := now["attempt"].(int)
			j.tails[run] = tail{last, seq}
		}
		return applied, err
	}, func() (bool, error) {
		var last []byte
		err := j.first(j.session.Latest(ctx,
			j.cql("SELECT body FROM %s.runs WHERE run = ? AND kind = 'writer' AND sink = '' AND place = '' AND key = ?",
				run, j.writer)), &last)
		if err == errNoRow {
			err = nil
		}
		return bytes.Equal(last, token), err
	})
}

// put is a statement that writes one column of a row.
func (j *cassandraJournal) put(run, kind, sink, place string, key []byte, column string,
	value any) cassandraio.Statement {
	return j.cql("INSERT INTO %s.runs (run, kind, sink, place, key, "+column+") VALUES (?, ?, ?, ?, ?, ?)", run, kind,
		sink, place, key, value)
}

// changes is what a batch changes, given what there is now.
func (j *cassandraJournal) changes(ctx context.Context, run string, seq int64,
	b Batch) ([]cassandraio.Statement, error) {
	all, err := j.claim(ctx, run, b)
	if err != nil {
		return nil, err
	}
	m := merger{}
	var mu sync.Mutex
	reads, readCtx := errgroup.WithContext(ctx)
	reads.SetLimit(32)
	for _, d := range b.Done {
		reads.Go(func() error {
			stored, err := j.near(readCtx, run, d)
			mu.Lock()
			defer mu.Unlock()
			m.know(place{d.Sink, d.Partition}, stored)
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, err
	}
	for _, d := range b.Done {
		if err := m.add(run, d); err != nil {
			return nil, err
		}
	}
	err = m.changes(func(at place, v interval) error {
		text, err := json.Marshal(v.sum)
		all = append(all, j.cql("INSERT INTO %s.runs (run, kind, sink, place, key, stop, body) VALUES (?, 'done', ?, "+
			"?, ?, ?, ?)", run, at.sink, at.partition, v.start, v.end, text))
		return err
	}, func(at place, start []byte) error {
		all = append(all, j.cql("DELETE FROM %s.runs WHERE run = ? AND kind = 'done' AND sink = ? AND place = ? AND "+
			"key = ?", run, at.sink, at.partition, start))
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, p := range b.Parts {
		number := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(seq)), uint32(i))
		all = append(all, j.put(run, "part", p.Sink, "", number, "body", p.Body))
	}
	commits, err := j.commits(ctx, run, seq, b)
	if err != nil {
		return nil, err
	}
	all = append(all, commits...)
	there, err := j.lettersThere(ctx, run, b.Letters)
	if err != nil {
		return nil, err
	}
	for _, l := range b.Letters {
		if there[l.ID] {
			continue
		}
		there[l.ID] = true
		text, err := json.Marshal(l)
		if err != nil {
			return nil, err
		}
		all = append(all, j.cql("INSERT INTO %s.runs (run, kind, sink, place, key, body, mark, redrives) VALUES (?, "+
			"'letter', '', '', ?, ?, ?, ?)",
			run, []byte(l.ID), text, string(l.State), l.Redrives))
	}
	return all, nil
}

// claim makes a member the owner of partitions, and refuses what it records of those of others.
func (j *cassandraJournal) claim(ctx context.Context, run string, b Batch) (all []cassandraio.Statement, err error) {
	for _, p := range b.Claim {
		all = append(all, j.put(run, "claim", "", p, []byte{}, "body", []byte(b.Member)))
	}
	if b.Member == "" {
		return all, nil
	}
	for _, p := range partitions(b.Done) {
		var owner []byte
		err := j.first(j.session.Latest(ctx,
			j.cql("SELECT body FROM %s.runs WHERE run = ? AND kind = 'claim' AND sink = '' AND place = ? AND key = ?",
				run, p, []byte{})), &owner)
		if err != nil && err != errNoRow {
			return nil, err
		}
		if string(owner) != b.Member {
			return nil, errTaken(run, p, string(owner))
		}
	}
	return all, nil
}

// commits seals and ends commits.
func (j *cassandraJournal) commits(ctx context.Context, run string, seq int64, b Batch) (
	all []cassandraio.Statement, err error) {
	now := map[string]commits{}
	change := func(sink string, change func(*commits) bool) error {
		c, known := now[sink]
		if !known {
			if c, err = j.commitsOf(ctx, run, sink); err != nil {
				return err
			}
		}
		if !change(&c) {
			return nil
		}
		now[sink] = c
		body, err := json.Marshal(c)
		all = append(all, j.put(run, "commit", sink, "", []byte{}, "body", body))
		return err
	}
	for _, e := range b.Committed {
		until, ended := int64(0), false
		err := change(e.Sink, func(c *commits) bool {
			until, ended = c.Until, c.end(e)
			return ended
		})
		if err != nil {
			return nil, err
		}
		if !ended {
			continue
		}
		for key, err := range of(ctx, j, run, "part", "key", " AND sink = ?", []any{e.Sink},
			func(scan func(...any) error) (key []byte, err error) { return key, scan(&key) }) {
			if err != nil {
				return nil, err
			}
			if partBefore(key, until) {
				all = append(all, j.cql("DELETE FROM %s.runs WHERE run = ? AND kind = 'part' AND sink = ? AND "+
					"place = '' AND key = ?", run, e.Sink, key))
			}
		}
	}
	for _, s := range b.Seal {
		if err := change(s.Sink, func(c *commits) bool { return c.seal(s.Note, seq+1) }); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// partBefore tells whether a part came with an earlier seq.
func partBefore(key []byte, seq int64) bool { return int64(binary.BigEndian.Uint64(key)) < seq }

func (j *cassandraJournal) commitsOf(ctx context.Context, run, sink string) (c commits, err error) {
	var body []byte
	err = j.first(j.session.Latest(ctx,
		j.cql("SELECT body FROM %s.runs WHERE run = ? AND kind = 'commit' AND sink = ? AND place = '' AND key = ?",
			run, sink, []byte{})), &body)
	if err == errNoRow {
		return c, j.must(ctx, run)
	}
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	return c, err
}

func (j *cassandraJournal) Sealed(ctx context.Context, run, sink string) (Commit, bool, error) {
	c, err := j.commitsOf(ctx, run, sink)
	if err != nil || !c.Open {
		return Commit{}, false, err
	}
	type numbered struct{ key, body []byte }
	all, err := collect(of(ctx, j, run, "part", "key, body", " AND sink = ?", []any{sink},
		func(scan func(...any) error) (p numbered, err error) { return p, scan(&p.key, &p.body) }))
	commit := Commit{Number: c.Number, Note: c.Note}
	for _, p := range all {
		if partBefore(p.key, c.Until) {
			commit.Parts = append(commit.Parts, p.body)
		}
	}
	return commit, err == nil, err
}

func (j *cassandraJournal) Committed(ctx context.Context, run, sink string) (Committed, error) {
	c, err := j.commitsOf(ctx, run, sink)
	return c.ended(), err
}

// lettersThere tells which of some letters are in the journal.
func (j *cassandraJournal) lettersThere(ctx context.Context, run string, letters []Letter) (map[string]bool, error) {
	there := map[string]bool{}
	for some := range slices.Chunk(letters, 100) {
		ids := make([][]byte, len(some))
		for i, l := range some {
			ids[i] = []byte(l.ID)
		}
		for scan, err := range j.session.Rows(ctx,
			j.cql("SELECT key FROM %s.runs WHERE run = ? AND kind = 'letter' AND sink = '' AND place = '' AND key IN ?",
				run, ids)) {
			var id []byte
			if err == nil {
				err = scan(&id)
			}
			if err != nil {
				return nil, err
			}
			there[string(id)] = true
		}
	}
	return there, nil
}

func (j *cassandraJournal) near(ctx context.Context, run string, d Done) ([]interval, error) {
	query := j.cql(fmt.Sprintf(`SELECT key, stop, body FROM %%s.runs
		WHERE run = ? AND kind = 'done' AND sink = ? AND place = ? AND key <= ?
		ORDER BY kind DESC, sink DESC, place DESC, key DESC LIMIT %d`, near), run, d.Sink, d.Partition, storedEnd(d.End))
	return collect(scanned(j.session.Rows(ctx, query), func(scan func(...any) error) (v interval, err error) {
		var sum []byte
		if err := scan(&v.start, &v.end, &sum); err != nil {
			return v, err
		}
		return v, json.Unmarshal(sum, &v.sum)
	}))
}

// scanned is what scan makes of rows.
func scanned[T any](rows iter.Seq2[func(...any) error, error],
	scan func(func(...any) error) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for row, err := range rows {
			var v T
			if err == nil {
				v, err = scan(row)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// must makes sure that a run is there.
func (j *cassandraJournal) must(ctx context.Context, run string) error {
	if _, known := j.there.Load(run); known {
		return nil
	}
	err := j.static(ctx, run, "attempt", new(int))
	if err == nil {
		j.there.Store(run, true)
	}
	return err
}

// of gives what scan makes of the rows of a kind, in the order of their keys, of a run that must be there.
func of[T any](ctx context.Context, j *cassandraJournal, run, kind, columns, where string, values []any,
	scan func(func(...any) error) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		// This settles what a killed writer has left open, so that what follows finds it.
		if err := j.static(ctx, run, "attempt", new(int)); err != nil {
			yield(*new(T), err)
			return
		}
		st := j.cql("SELECT "+columns+" FROM %s.runs WHERE run = ? AND kind = ?"+where,
			append([]any{run, kind}, values...)...)
		scanned(j.session.Rows(ctx, st), scan)(yield)
	}
}

func (j *cassandraJournal) Finished(ctx context.Context, run string) iter.Seq2[Done, error] {
	return of(ctx, j, run, "done", "sink, place, key, stop, body", "", nil,
		func(scan func(...any) error) (d Done, err error) {
			var start, end, sum []byte
			if err := scan(&d.Sink, &d.Partition, &start, &end, &sum); err != nil {
				return d, err
			}
			d.Start, d.End = bound(start), bound(end)
			return d, json.Unmarshal(sum, &d.Sum)
		})
}

func (j *cassandraJournal) Parts(ctx context.Context, run, sink string) ([][]byte, error) {
	return collect(of(ctx, j, run, "part", "body", " AND sink = ?", []any{sink},
		func(scan func(...any) error) (body []byte, err error) {
			return body, scan(&body)
		}))
}

func (j *cassandraJournal) Finish(ctx context.Context, run string, attempt int, s State, report []byte) error {
	info, err := j.Get(ctx, run)
	if err != nil {
		return err
	}
	set, values := "state = ?, ended = ?", []any{string(s), time.Now().UnixMicro()}
	if report != nil {
		set, values = set+", report = ?", append(values, report)
	}
	return j.repeat(ctx, errFenced(run, attempt, info.Attempt),
		j.cql("UPDATE %s.runs SET "+set+" WHERE run = ? IF attempt = ?", append(values, run, attempt)...))
}

// repeat applies a statement that may be repeated; missing is the error where its condition does not hold.
func (j *cassandraJournal) repeat(ctx context.Context, missing error, st cassandraio.Statement) error {
	return j.settle(ctx, func() (bool, error) {
		applied, _, err := j.session.Apply(ctx, st)
		if err == nil && !applied {
			err = missing
		}
		return applied, err
	}, func() (bool, error) { return false, nil })
}

// now is a key that brings rows into the order of their time, then into that in which they were written.
func now(at time.Time) []byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro()))
	key = binary.BigEndian.AppendUint64(key, uint64(time.Now().UnixNano()))
	return append(key, rand.Text()[:8]...)
}

func (j *cassandraJournal) Fail(ctx context.Context, run string, attempt int, cause error) error {
	text, err := json.Marshal(known(cause))
	if err != nil {
		return err
	}
	if err := j.must(ctx, run); err != nil {
		return err
	}
	return j.session.Exec(ctx, j.put(run, "failure", "", fmt.Sprint(attempt), now(time.Now()), "body", text))
}

func (j *cassandraJournal) Failure(ctx context.Context, run string, attempt int, since time.Time) (
	failure, err error) {
	from := binary.BigEndian.AppendUint64(nil, uint64(micros(since)))
	all := of(ctx, j, run, "failure", "body", " AND sink = '' AND place = ? AND key >= ? LIMIT 1",
		[]any{fmt.Sprint(attempt), from},
		func(scan func(...any) error) (*fail.Error, error) {
			var text []byte
			if err := scan(&text); err != nil {
				return nil, err
			}
			e := &fail.Error{}
			return e, json.Unmarshal(text, e)
		})
	for e, err := range all {
		if err != nil {
			return nil, err
		}
		return e, nil
	}
	return nil, nil
}

const infoColumns = "run, job, fingerprint, job_file, record_schema, parent, started, ended, state, attempt, report"

func scanInfo(scan func(...any) error) (r RunInfo, err error) {
	var started int64
	var ended *int64
	var state string
	err = scan(&r.ID, &r.Job, &r.Fingerprint, &r.JobFile, &r.Schema, &r.Parent, &started, &ended,
		&state, &r.Attempt, &r.Report)
	r.State, r.Started = State(state), time.UnixMicro(started).UTC()
	if ended != nil {
		r.Ended = time.UnixMicro(*ended).UTC()
	}
	return r, err
}

func (j *cassandraJournal) Get(ctx context.Context, run string) (RunInfo, error) {
	for r, err := range scanned(j.session.Latest(ctx,
		j.cql("SELECT DISTINCT "+infoColumns+" FROM %s.runs WHERE run = ?", run)), scanInfo) {
		return r, err
	}
	return RunInfo{}, errNoRun(run, j.where)
}

func (j *cassandraJournal) List(ctx context.Context) ([]RunInfo, error) {
	list, err := collect(scanned(j.session.Rows(ctx, j.cql("SELECT DISTINCT "+infoColumns+" FROM %s.runs")), scanInfo))
	slices.SortFunc(list, func(a, b RunInfo) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, err
}

func (j *cassandraJournal) Control(ctx context.Context, run string) (Control, error) {
	var text string
	if err := j.about(run,
		j.first(j.session.Rows(ctx, j.cql("SELECT DISTINCT control FROM %s.runs WHERE run = ?", run)),
			&text)); err != nil {
		return Control{}, err
	}
	return parseControl([]byte(text))
}

func (j *cassandraJournal) SetControl(ctx context.Context, run string, event Event, change func(*Control)) error {
	key := now(event.at())
	note, err := json.Marshal(event)
	if err != nil {
		return err
	}
	return j.settle(ctx, func() (bool, error) {
		var old string
		if err := j.static(ctx, run, "control", &old); err != nil {
			return false, err
		}
		c, err := parseControl([]byte(old))
		if err != nil {
			return false, err
		}
		change(&c)
		text, err := json.Marshal(c)
		if err != nil {
			return false, err
		}
		applied, _, err := j.session.Apply(ctx, j.cql("UPDATE %s.runs SET control = ? WHERE run = ? IF control = ?",
			string(text), run, old),
			j.put(run, "event", "", "", key, "body", note))
		return applied, err
	}, func() (bool, error) {
		err := j.first(j.session.Latest(ctx,
			j.cql("SELECT body FROM %s.runs WHERE run = ? AND kind = 'event' AND sink = '' AND place = '' AND key = ?",
				run, key)), new([]byte))
		if err == errNoRow {
			return false, nil
		}
		return err == nil, err
	})
}

func (j *cassandraJournal) Beat(ctx context.Context, run string, b Beat) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := j.must(ctx, run); err != nil {
		return err
	}
	return j.session.Exec(ctx, j.cql("INSERT INTO %s.beats (run, attempt, worker, beat) VALUES (?, ?, ?, ?)", run,
		b.Attempt, b.Worker, text))
}

func (j *cassandraJournal) Beats(ctx context.Context, run string) ([]Beat, error) {
	var attempt int
	if err := j.about(run,
		j.first(j.session.Rows(ctx, j.cql("SELECT DISTINCT attempt FROM %s.runs WHERE run = ?", run)),
			&attempt)); err != nil {
		return nil, err
	}
	return collect(scanned(
		j.session.Rows(ctx, j.cql("SELECT beat FROM %s.beats WHERE run = ? AND attempt = ?", run, attempt)), scanBeat))
}

func (j *cassandraJournal) AllBeats(ctx context.Context, run string) ([]Beat, error) {
	if err := j.must(ctx, run); err != nil {
		return nil, err
	}
	return collect(scanned(j.session.Rows(ctx, j.cql("SELECT beat FROM %s.beats WHERE run = ?", run)), scanBeat))
}

func (j *cassandraJournal) Note(ctx context.Context, run string, e Event) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := j.must(ctx, run); err != nil {
		return err
	}
	return j.session.Exec(ctx, j.put(run, "event", "", "", now(e.at()), "body", text))
}

func (j *cassandraJournal) History(ctx context.Context, run string) ([]Event, error) {
	return collect(of(ctx, j, run, "event", "key, body", "", nil, func(scan func(...any) error) (e Event, err error) {
		var key, text []byte
		if err := scan(&key, &text); err != nil {
			return e, err
		}
		err = json.Unmarshal(text, &e)
		e.At = time.UnixMicro(int64(binary.BigEndian.Uint64(key))).UTC()
		return e, err
	}))
}

func (j *cassandraJournal) Letters(ctx context.Context, run string, f LetterFilter) iter.Seq2[Letter, error] {
	return f.among(of(ctx, j, run, "letter", "body, mark, redrives", "", nil,
		func(scan func(...any) error) (l Letter, err error) {
			var text []byte
			var state string
			var redrives int
			if err := scan(&text, &state, &redrives); err != nil {
				return l, err
			}
			err = json.Unmarshal(text, &l)
			l.State, l.Redrives = LetterState(state), redrives
			return l, err
		}))
}

func (j *cassandraJournal) Trim(ctx context.Context, run string, before time.Time) error {
	keys := func(scan func(...any) error) (key []byte, err error) { return key, scan(&key) }
	for key, err := range of(ctx, j, run, "event", "key", "", nil, keys) {
		if err == nil && int64(binary.BigEndian.Uint64(key)) < before.UnixMicro() {
			err = j.session.Exec(ctx, j.cql("DELETE FROM %s.runs WHERE run = ? AND kind = 'event' AND sink = '' AND "+
				"place = '' AND key = ?", run, key))
		}
		if err != nil {
			return err
		}
	}
	type failure struct {
		place string
		key   []byte
	}
	for f, err := range of(ctx, j, run, "failure", "place, key", "", nil,
		func(scan func(...any) error) (f failure, err error) { return f, scan(&f.place, &f.key) }) {
		if err == nil && int64(binary.BigEndian.Uint64(f.key)) < before.UnixMicro() {
			err = j.session.Exec(ctx, j.cql("DELETE FROM %s.runs WHERE run = ? AND kind = 'failure' AND sink = '' AND "+
				"place = ? AND key = ?", run, f.place, f.key))
		}
		if err != nil {
			return err
		}
	}
	beats, err := j.AllBeats(ctx, run)
	if err != nil {
		return err
	}
	for _, b := range beats {
		if b.At.Before(before) {
			err := j.session.Exec(ctx, j.cql("DELETE FROM %s.beats WHERE run = ? AND attempt = ? AND worker = ?", run,
				b.Attempt, b.Worker))
			if err != nil {
				return err
			}
		}
	}
	for l, err := range j.Letters(ctx, run, LetterFilter{States: []LetterState{Sent}, Until: before}) {
		if err == nil {
			_, _, err = j.session.Apply(ctx, j.cql("DELETE FROM %s.runs WHERE run = ? AND kind = 'letter' AND "+
				"sink = '' AND place = '' AND key = ? IF EXISTS", run, []byte(l.ID)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *cassandraJournal) Mark(ctx context.Context, run, id string, s LetterState, redrives int) error {
	return j.repeat(ctx, errNoLetter(run, id),
		j.cql("UPDATE %s.runs SET mark = ?, redrives = ? WHERE run = ? AND kind = 'letter' AND sink = '' AND place = "+
			"'' AND key = ? IF EXISTS",
			string(s), redrives, run, []byte(id)))
}
