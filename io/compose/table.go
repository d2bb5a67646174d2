package compose

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// row is what a join needs of a row of its table.
type row struct {
	values []record.Value // of the joined fields; nil: there is no row
	dead   *record.DeadLetter
	bytes  int64

	at      time.Time // when it was looked up
	version int64     // of one that was read
}

// rowBytes is what a row takes in memory beside its key and values.
const rowBytes = 160

func newRow(key string, values []record.Value) *row {
	r := &row{values: values, bytes: rowBytes + int64(len(key))}
	for _, v := range values {
		r.bytes += int64(v.Size())
	}
	return r
}

// pick takes the fields at some places out of the latest version of a row.
func pick(key string, records []*record.Record, places []int) *row {
	if len(records) == 0 {
		return newRow(key, nil)
	}
	r := slices.MaxFunc(records, func(a, b *record.Record) int { return int(min(1, max(-1, a.Version-b.Version))) })
	if r.Op == record.Delete {
		return newRow(key, nil)
	}
	values := make([]record.Value, len(places))
	for i, at := range places {
		if values[i] = r.Values[at]; values[i].IsNull() {
			values[i] = record.NullValue
		}
	}
	return newRow(key, values)
}

// cache holds the rows that were looked up last.
type cache struct {
	most int64         // bytes
	ages time.Duration // after which a row is looked up again

	mu    sync.Mutex
	rows  map[string]*cached
	bytes int64
	ends  cached // of the ring of rows: next is the one used last
}

type cached struct {
	*row
	key        string
	next, last *cached
}

func newCache(most int64, ages time.Duration) *cache {
	c := &cache{most: most, ages: ages, rows: map[string]*cached{}}
	c.ends.next, c.ends.last = &c.ends, &c.ends
	return c
}

func (c *cache) get(key string, now time.Time) *row {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.rows[key]
	if e == nil || now.Sub(e.at) >= c.ages {
		return nil
	}
	e.unlink()
	c.link(e)
	return e.row
}

func (c *cache) put(key string, r *row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.rows[key]; old != nil {
		c.drop(old)
	}
	e := &cached{row: r, key: key}
	c.rows[key] = e
	c.bytes += r.bytes
	c.link(e)
	for c.bytes > c.most {
		c.drop(c.ends.last)
	}
}

func (c *cache) drop(e *cached) {
	e.unlink()
	delete(c.rows, e.key)
	c.bytes -= e.bytes
}

func (c *cache) link(e *cached) {
	e.last, e.next = &c.ends, c.ends.next
	e.last.next, e.next.last = e, e
}

func (e *cached) unlink() { e.last.next, e.next.last = e.next, e.last }

// whole is a table that is read into memory when it is needed first.
type whole struct {
	name  string
	of    connector.Source
	most  int64
	ready chan struct{} // holds one token while nobody reads the table
	rows  map[string]*row

	planned atomic.Int64 // bytes
}

func newWhole(name string, of connector.Source, most int64) *whole {
	w := &whole{name: name, of: of, most: most, ready: make(chan struct{}, 1)}
	w.ready <- struct{}{}
	return w
}

func (w *whole) tooLarge(bytes int64, about string) error {
	return fail.Job("join.too_large", "the table %s is %s%s large, more than the %s that it may take in each worker's "+
		"memory", w.name, about,
		connector.HumanBytes(bytes), connector.HumanBytes(w.most)).WithFix("leave broadcast out if its rows can be " +
		"looked up by key, or raise memory")
}

// check refuses a table that is planned to be too large.
func (w *whole) check(ctx context.Context) error {
	bytes := int64(0)
	err := w.of.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		bytes += s.Bytes
		return nil
	})
	w.planned.Store(bytes)
	if err == nil && bytes > w.most {
		err = w.tooLarge(bytes, "about ")
	}
	return err
}

// load gives the rows by the text of their keys.
func (w *whole) load(ctx context.Context, places []int) (map[string]*row, error) {
	select {
	case <-w.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { w.ready <- struct{}{} }()
	if w.rows != nil {
		return w.rows, nil
	}
	rows := map[string]*row{}
	bytes := int64(0)
	ctx = connector.Uncounted(ctx)
	err := w.of.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		return w.of.Read(ctx, s, func(p connector.Page) error {
			for _, l := range p.Dead {
				return fail.New(fail.Fatal, "join.unreadable", "a row of the table %s cannot be read: %s [%s]", w.name,
					l.Message, l.Code).
					WithFix("fix or delete the row; a table whose rows are looked up by key costs only the rows " +
						"that need it")
			}
			for _, r := range p.Records {
				key := r.KeyText()
				if old := rows[key]; old != nil {
					if old.version > r.Version {
						continue
					}
					bytes -= old.bytes
				}
				now := pick(key, []*record.Record{r}, places)
				now.version = r.Version
				rows[key] = now
				if bytes += now.bytes; bytes > w.most {
					return w.tooLarge(bytes, "at least ")
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	w.rows = rows
	return rows, nil
}
