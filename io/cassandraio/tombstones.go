package cassandraio

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"slices"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Deleted rows are read by the servers until they are compacted away, and a request that meets too many fails
// (tombstone_failure_threshold, 100,000 of one partition and more). What lies among them is read in parts that are
// halved until each is answered: by tokens down to one partition, then by clustering keys.

// narrowing are the ends of the parts that are still to be read, the next one last. A nil end is that of everything.
type narrowing [][]byte

func (n narrowing) next() []byte { return n[len(n)-1] }

// pop takes the next part away; false: there is no more.
func (n *narrowing) pop() bool {
	*n = (*n)[:len(*n)-1]
	return len(*n) > 0
}

// passTombstones makes smaller parts of the one that failed. One that cannot be cut becomes a dead letter.
func (r *reader) passTombstones(ctx context.Context, n *narrowing, cause error,
	page func(connector.Page) error) (more bool, err error) {
	until := n.next()
	if len(*n) == 1 {
		slog.WarnContext(ctx,
			"rows lie among more deleted ones than the servers read at once: they are read in smaller parts", "table",
			r.table.name, "partition", r.split.Partition,
			"fix", "lower gc_grace_seconds for a time and run nodetool compact, or raise tombstone_failure_threshold")
	}
	if middle := r.middle(r.last, until); middle != nil {
		*n = append(*n, middle)
		return true, nil
	}
	passed := false
	if r.key == nil && r.exact && len(r.table.clustering) > 0 {
		if passed, err = r.throughToken(ctx, until, page); err != nil {
			return true, err
		}
	}
	start := r.last
	r.last = r.past(until)
	if len(r.table.clustering) == 0 && r.key != nil {
		r.last = onlyRow
	}
	if !passed {
		if err := page(r.unreadable(start, cause)); err != nil {
			return true, err
		}
	}
	return n.pop(), nil
}

// unreadable is a page for what lies between a position and r.last.
func (r *reader) unreadable(start []byte, cause error) connector.Page {
	letter := &record.DeadLetter{Place: &record.Place{Partition: r.split.Partition, Start: start, End: r.last},
		Class: fail.Permanent.String(), Code: codeTombstones, Attempts: 1,
		Message: "what lies here cannot be read: " + cause.Error()}
	return connector.Page{Dead: []*record.DeadLetter{letter}, Last: r.last}
}

// middle is a position between two others, nil for the beginning and the end; nil: there is none.
func (r *reader) middle(from, to []byte) []byte {
	if r.key == nil {
		return plan.BetweenTokens(r.table.order, from, to)
	}
	return plan.Between(r.table.order, from, to)
}

// throughToken reads the rows of one token behind r.last, in parts of their clustering keys: of a partition whose key
// nobody can tell before one of its rows is found. passed is false where a part cannot be cut.
func (r *reader) throughToken(ctx context.Context, until []byte,
	page func(connector.Page) error) (passed bool, err error) {
	token, _, err := r.table.order.Tokens(r.last, until)
	if err != nil {
		return false, err
	}
	from, to, err := r.rowBounds(token, until)
	if err != nil {
		return false, err
	}
	found := []byte(nil) // the key of the partition
	one := func(p connector.Page) error {
		at, err := r.table.order.RingPosition(p.Last)
		if err != nil {
			return err
		}
		if at.Tag != plan.RingRow || found != nil && !bytes.Equal(found, at.Key) {
			return fail.Job(codeTombstones,
				"rows of the token %d of %s lie among more deleted ones than the servers read at once, and their "+
					"keys have no order", token, r.table.name).
				WithFix("lower gc_grace_seconds for a time and run nodetool compact, or raise " +
					"tombstone_failure_threshold")
		}
		found = at.Key
		return page(p)
	}
	for n := (narrowing{to}); len(n) > 0; {
		scans, err := r.table.tokenRows(token, from, n.next())
		if err == nil {
			err = r.stream(ctx, scans, nil, one)
		}
		switch middle := []byte(nil); {
		case fail.CodeOf(err) == codeTombstones:
			if middle = plan.Between(r.table.order, from, n.next()); middle == nil {
				return false, nil
			}
			n = append(n, middle)
		case err != nil:
			return false, err
		default:
			from = n.next()
			n.pop()
		}
	}
	return found != nil || !r.readsStatic(), nil
}

// rowBounds are r.last and another position in the ring as positions in the one partition of a
// token; nil: its beginning, its end.
func (r *reader) rowBounds(token int64, until []byte) (from, to []byte, err error) {
	for pos, at := range map[*[]byte][]byte{&from: r.last, &to: until} {
		if at == nil {
			continue
		}
		p, err := r.table.order.RingPosition(at)
		if err != nil {
			return nil, nil, err
		}
		if p.Tag == plan.RingRow && p.Token == token {
			if *pos, err = r.table.order.Append(nil, p.Row); err != nil {
				return nil, nil, err
			}
		}
	}
	return from, to, nil
}

// readsStatic tells whether static columns are read: of a partition without rows nothing else would be.
func (o *tableSource) readsStatic() bool {
	return slices.ContainsFunc(o.table.columns, func(c column) bool { return c.kind == "static" })
}

// tokenRows read the rows of a token between two positions in a partition.
func (t *table) tokenRows(token int64, from, to []byte) ([]scan, error) {
	edges := [2]*edge{}
	for i, at := range [][]byte{from, to} {
		if at == nil {
			continue
		}
		values, err := t.order.Values(at)
		if err != nil {
			return nil, err
		}
		edges[i] = &edge{values: values, included: i == 1}
	}
	all := t.boxes(t.tokenScan(token, token), 0, edges[0], edges[1])
	for i := range all {
		all[i].tail = " ALLOW FILTERING" // of a single partition: what is filtered is a slice of it
	}
	return all, nil
}

// eachPartition calls each for the key of every partition between two tokens, once, in Cassandra's form.
func (o *tableSource) eachPartition(ctx context.Context, each func(key [][]byte) error) error {
	columns := len(o.table.partition)
	slots := make([]slot, columns+1)
	dest := make([]any, len(slots))
	for i := range slots {
		dest[i] = &slots[i]
	}
	var low int64 = math.MinInt64
	given := map[string]bool{} // of the token low
	list := "DISTINCT " + quotedList(o.table.partition) + ", " + o.table.tokenOf()
	give := func() error {
		key := make([][]byte, columns)
		for i := range key {
			key[i] = bytes.Clone(slots[i].data)
		}
		token := int64(binary.BigEndian.Uint64(slots[columns].data))
		if token != low {
			low = token
			clear(given)
		}
		name := string(plan.SerializeKey(key))
		if given[name] {
			return nil
		}
		given[name] = true
		return each(key)
	}
	for ends := []int64{math.MaxInt64}; ; {
		high := ends[len(ends)-1]
		err := o.eachRow(ctx, list, o.table.tokenScan(low, high), dest, give)
		switch {
		case err == nil && len(ends) == 1:
			return nil
		case err == nil:
			low, ends = high+1, ends[:len(ends)-1]
			clear(given)
		case fail.CodeOf(err) != codeTombstones:
			return err
		case low < high:
			if len(ends) == 1 {
				slog.WarnContext(ctx,
					"partitions lie among more deleted rows than the servers read at once: they are looked for in "+
						"smaller parts", "table", o.table.name)
			}
			ends = append(ends, low+int64((uint64(high)-uint64(low))/2))
		default:
			if err := o.partitionOf(ctx, low, dest, give, err); err != nil {
				return err
			}
			if len(ends) == 1 {
				return nil
			}
			low, ends = high+1, ends[:len(ends)-1]
			clear(given)
		}
	}
}

// partitionOf gives the partition of a token, by any of its rows.
func (o *tableSource) partitionOf(ctx context.Context, token int64, dest []any, give func() error, cause error) error {
	var from []byte
	list := quotedList(o.table.partition) + ", " + o.table.tokenOf()
	for n := (narrowing{nil}); len(n) > 0; {
		scans, err := o.table.tokenRows(token, from, n.next())
		found := false
		for _, s := range scans {
			if err == nil && !found {
				s.tail = " LIMIT 1" + s.tail
				err = o.eachRow(ctx, list, s, dest, func() error { found = true; return give() })
			}
		}
		switch middle := []byte(nil); {
		case found:
			return err
		case fail.CodeOf(err) == codeTombstones:
			if middle = plan.Between(o.table.order, from, n.next()); middle == nil {
				return cause
			}
			n = append(n, middle)
		case err != nil:
			return err
		default:
			from = n.next()
			n.pop()
		}
	}
	if o.readsStatic() { // which may be all that there is
		return fail.Job(codeTombstones,
			"a partition of %s, of the token %d, has more deleted rows than the servers read at once and no others, "+
				"so that its key is not known: %w",
			o.table.name, token, cause).
			WithFix("leave buckets out, so that the table is read by token ranges; or lower gc_grace_seconds for " +
				"a time and run nodetool compact")
	}
	return nil
}
