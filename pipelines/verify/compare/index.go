package compare

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"sync"

	_ "modernc.org/sqlite" // the driver

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Index is a copy of a source that cannot find rows by key, which can: an SQLite file with the latest row of each
// key, deletes included. It lies on one machine, so whoever uses it works there. It needs no gate: its requests take
// microseconds, and what delays one is the machine itself.
type Index struct {
	path string

	mu     sync.Mutex
	db     *sql.DB
	schema *record.Schema
}

var _ connector.Finder = (*Index)(nil)

// OpenIndex gives the index that BuildIndex has left in a file.
func OpenIndex(path string) *Index { return &Index{path: path} }

// indexTables: a row's key is the form of its key, so that keys of equal rows are equal bytes.
const indexTables = `
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE whole (schema BLOB, dead INTEGER, example TEXT);
CREATE TABLE rows (key BLOB PRIMARY KEY, segment INTEGER, version INTEGER, op INTEGER, body BLOB, times INTEGER DEFAULT 1) WITHOUT ROWID;`

const putRow = `INSERT INTO rows (key, segment, version, op, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET times = rows.times + 1,
	op = iif(excluded.version >= rows.version, excluded.op, rows.op),
	body = iif(excluded.version >= rows.version, excluded.body, rows.body),
	version = max(excluded.version, rows.version)`

// BuildIndex reads a source into a file, unless it is there already from an earlier attempt. It reads some partitions
// at once, each in order. dead counts the rows that cannot be decoded; example is the message of one.
func BuildIndex(ctx context.Context, of connector.Source, path string, readers int) (
	dead int64, example string, err error) {
	i := OpenIndex(path)
	defer i.Close()
	if dead, example, err = i.whole(ctx); err == nil {
		return dead, example, nil
	}
	i.Close()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, "", err
	}
	schema, err := of.Schema(ctx)
	if err != nil {
		return 0, "", err
	}
	if len(schema.Key) == 0 {
		return 0, "", fail.Job("verify.no_key", "rows without a key cannot be verified").
			WithFix("name the key of the source")
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path))
	if err != nil {
		return 0, "", err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err = db.ExecContext(ctx, indexTables); err == nil {
		dead, example, err = fill(ctx, db, of, readers)
	}
	if err != nil {
		return 0, "", err
	}
	wire, err := schema.MarshalBinary()
	if err != nil {
		return 0, "", err
	}
	_, err = db.ExecContext(ctx, "INSERT INTO whole (schema, dead, example) VALUES (?, ?, ?)", wire, dead, example)
	return dead, example, indexError(err)
}

func indexError(err error) error {
	if err == nil || fail.CodeOf(err) != "unknown" || errors.Is(err, context.Canceled) {
		return err
	}
	return fail.New(fail.Fatal, "verify.index", "the index for a verification: %w", err).
		WithFix("it lies beside the journal, or in the folder for temporary files: see that there is room for a copy " +
			"of the target")
}

// fill reads the source into the table.
func fill(ctx context.Context, db *sql.DB, of connector.Source, readers int) (dead int64, example string, err error) {
	queues := map[string][]connector.Split{}
	var order []string
	err = of.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		if queues[s.Partition] == nil {
			order = append(order, s.Partition)
		}
		queues[s.Partition] = append(queues[s.Partition], s)
		return nil
	})
	if err != nil {
		return 0, "", err
	}
	var all [][]connector.Split
	for _, name := range order {
		all = append(all, queues[name])
	}
	ahead := connector.ReadAhead(ctx, of, all, connector.Window{Readers: readers, Bytes: 32 << 20})
	defer ahead.Stop()
	const together = 5000 // rows of a transaction
	var tx *sql.Tx
	var put *sql.Stmt
	defer func() {
		if tx != nil {
			tx.Rollback()
		}
	}()
	rows := 0
	for it := range ahead.Items {
		if it.Err != nil {
			return 0, "", it.Err
		}
		if len(it.Page.Dead) > 0 {
			dead, example = dead+int64(len(it.Page.Dead)), it.Page.Dead[0].Message
		}
		for _, r := range it.Page.Records {
			if tx == nil {
				if tx, err = db.BeginTx(ctx, nil); err == nil {
					put, err = tx.PrepareContext(ctx, putRow)
				}
				if err != nil {
					return 0, "", indexError(err)
				}
			}
			body := record.AppendValue(nil, record.Nested(record.Tuple, r.Values))
			key := keyForms(r)
			if _, err = put.ExecContext(ctx, bytes.Join(key, nil), segmentOf(key), r.Version, r.Op, body); err != nil {
				return 0, "", indexError(err)
			}
			if rows++; rows%together == 0 {
				if err = tx.Commit(); err != nil {
					return 0, "", indexError(err)
				}
				tx = nil
			}
		}
		ahead.Release(it.Held)
	}
	if tx != nil {
		err, tx = tx.Commit(), nil
	}
	return dead, example, indexError(err)
}

// open opens the file, which must be whole.
func (i *Index) open(ctx context.Context) (*sql.DB, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.db != nil {
		return i.db, nil
	}
	if _, err := os.Stat(i.path); err != nil {
		return nil, fail.New(fail.Fatal, "verify.no_index", "there is no index %s here: %w", i.path, err).
			WithFix("a verification of a target that cannot find rows by key runs in one process: use the runner prism")
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(i.path)+"?mode=ro")
	if err != nil {
		return nil, indexError(err)
	}
	var wire []byte
	if err := db.QueryRowContext(ctx, "SELECT schema FROM whole").Scan(&wire); err != nil {
		db.Close()
		return nil, indexError(err)
	}
	if i.schema, err = record.UnmarshalSchema(wire); err != nil {
		db.Close()
		return nil, err
	}
	i.db = db
	return db, nil
}

// whole tells what BuildIndex has told of the file; an error where it is not there or not whole.
func (i *Index) whole(ctx context.Context) (dead int64, example string, err error) {
	db, err := i.open(ctx)
	if err != nil {
		return 0, "", err
	}
	return dead, example, db.QueryRowContext(ctx, "SELECT dead, example FROM whole").Scan(&dead, &example)
}

// Doubles is how many keys stand in the source more than once, with the texts of some.
func (i *Index) Doubles(ctx context.Context, some int) (n int64, keys []string, err error) {
	db, err := i.open(ctx)
	if err != nil {
		return 0, nil, err
	}
	const doubles = " FROM rows WHERE times > 1 AND op = 0"
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*)"+doubles).Scan(&n); err != nil {
		return 0, nil, indexError(err)
	}
	rows, err := db.QueryContext(ctx, "SELECT body"+doubles+" LIMIT ?", some)
	if err != nil {
		return 0, nil, indexError(err)
	}
	defer rows.Close()
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return 0, nil, indexError(err)
		}
		v, err := record.DecodeValue(body)
		if err != nil {
			return 0, nil, err
		}
		keys = append(keys, (&record.Record{Schema: i.schema, Values: v.Elems()}).KeyText())
	}
	return n, keys, indexError(rows.Err())
}

// Schema implements connector.Source.
func (i *Index) Schema(ctx context.Context) (*record.Schema, error) {
	_, err := i.open(ctx)
	return i.schema, err
}

// indexPartition is the only partition of an index; a position is a key.
const indexPartition = "index"

// Plan implements connector.Source. All of an index is one split: SQLite reads faster than anything that compares.
func (i *Index) Plan(ctx context.Context, _ connector.PlanOptions, split func(connector.Split) error) error {
	db, err := i.open(ctx)
	if err != nil {
		return err
	}
	var rows int64
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM rows").Scan(&rows); err != nil || rows == 0 {
		return indexError(err)
	}
	return split(connector.Split{Partition: indexPartition, Rows: rows})
}

// Read implements connector.Source.
func (i *Index) Read(ctx context.Context, s connector.Split, page func(connector.Page) error) error {
	db, err := i.open(ctx)
	if err != nil {
		return err
	}
	const pageRows = 500
	last := s.Start
	for {
		end := s.End
		if end == nil {
			end = []byte{math.MaxUint8}
		}
		p, err := i.page(ctx, db, s.String(), last, end, pageRows)
		if err != nil || len(p.Records) == 0 {
			return err
		}
		full := len(p.Records) == pageRows
		last = p.Last
		if err := page(p); err != nil || !full {
			return err
		}
	}
}

// page reads rows after a key, up to another one.
func (i *Index) page(ctx context.Context, db *sql.DB, split string, after, end []byte, most int) (
	p connector.Page, err error) {
	rows, err := db.QueryContext(ctx, "SELECT key, version, op, body FROM rows WHERE key > ? AND key <= ? ORDER BY "+
		"key LIMIT ?", append([]byte{}, after...), end, most)
	if err != nil {
		return p, indexError(err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := i.scan(rows, &p.Last)
		if err != nil {
			return p, err
		}
		r.Origin = record.Origin{Split: split, Position: after}
		p.Records = append(p.Records, r)
		p.Bytes += int64(r.Size())
	}
	return p, indexError(rows.Err())
}

func (i *Index) scan(rows interface{ Scan(...any) error }, key *[]byte) (*record.Record, error) {
	r := &record.Record{Schema: i.schema}
	var body []byte
	if err := rows.Scan(key, &r.Version, &r.Op, &body); err != nil {
		return nil, err
	}
	v, err := record.DecodeValue(body)
	if err == nil && len(v.Elems()) != len(i.schema.Fields) {
		err = fmt.Errorf("it has %d values for %d fields", len(v.Elems()), len(i.schema.Fields))
	}
	if err != nil {
		return nil, fail.New(fail.Fatal, "verify.index", "a row of the index: %w", err)
	}
	r.Values = v.Elems()
	return r, nil
}

// Find implements connector.Finder.
func (i *Index) Find(ctx context.Context, keys []*record.Record, found func(n int, p connector.Page) error) error {
	db, err := i.open(ctx)
	if err != nil {
		return err
	}
	get, err := db.PrepareContext(ctx, "SELECT key, version, op, body FROM rows WHERE key = ?")
	if err != nil {
		return indexError(err)
	}
	defer get.Close()
	for n, key := range keys {
		var p connector.Page
		var at []byte
		r, err := i.scan(get.QueryRowContext(ctx, []byte(keyForm(key))), &at)
		switch {
		case err == nil:
			r.Origin = key.Origin
			p.Records, p.Bytes = []*record.Record{r}, int64(r.Size())
		case !errors.Is(err, sql.ErrNoRows):
			return indexError(err)
		}
		if err := found(n, p); err != nil {
			return err
		}
	}
	return nil
}

// Tally counts the keys that are not deleted.
func (i *Index) Tally(ctx context.Context) (Tally, error) {
	db, err := i.open(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, "SELECT key, segment FROM rows WHERE op <> ?", record.Delete)
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	t := Tally{}
	for rows.Next() {
		var key sql.RawBytes
		var segment uint16
		if err := rows.Scan(&key, &segment); err != nil {
			return nil, indexError(err)
		}
		t.add(segment, key)
	}
	return t, indexError(rows.Err())
}

// Close implements connector.Source.
func (i *Index) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.db == nil {
		return nil
	}
	err := i.db.Close()
	i.db = nil
	return err
}
