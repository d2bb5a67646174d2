package cassandraio

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A partition is named by the values of its key as text, joined by "/"; a "/" or "\" within a value follows a "\".

func (t *table) partitionName(values []record.Value) string {
	var b strings.Builder
	for i, c := range t.partition {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(nameEscape.Replace(values[i].Text(c.typ)))
	}
	return b.String()
}

var nameEscape = strings.NewReplacer(`\`, `\\`, `/`, `\/`)

// parsePartition gives the values of a partition's name, also in binary form.
func (t *table) parsePartition(name string) (values []record.Value, raw [][]byte, err error) {
	parts := []string{""}
	for i := 0; i < len(name); i++ {
		last := &parts[len(parts)-1]
		switch c := name[i]; {
		case c == '\\' && i+1 < len(name):
			i++
			*last += name[i : i+1]
		case c == '/':
			parts = append(parts, "")
		default:
			*last += name[i : i+1]
		}
	}
	if len(parts) != len(t.partition) {
		return nil, nil, fmt.Errorf("the partition key has %d columns", len(t.partition))
	}
	for i, c := range t.partition {
		v, err := record.Parse(c.typ, parts[i])
		if err != nil {
			return nil, nil, fmt.Errorf("column %q: %w", c.name, err)
		}
		b, err := appendValue([]byte{}, c.typ, v)
		if err != nil {
			return nil, nil, fmt.Errorf("column %q: %w", c.name, err)
		}
		values, raw = append(values, v), append(raw, b)
	}
	return values, raw, nil
}

// eachBucket calls each with the name of every partition to be read, once, until it fails.
func (o *tableSource) eachBucket(ctx context.Context, each func(name string) error) error {
	seen := map[string]bool{}
	take := func(values []record.Value) error {
		for i, m := range o.matches {
			if !m.holds(o.table.partition[i].typ, values[i]) {
				return nil
			}
		}
		name := o.table.partitionName(values)
		if seen[name] {
			return nil
		}
		if back, _, err := o.table.parsePartition(name); err != nil ||
			!slices.EqualFunc(back, values, record.Value.Equal) {
			return fail.Job("cassandra.no_position",
				"the partition %s has a key that cannot be written as text and read again", name).
				WithFix("read the table by token ranges")
		}
		if !o.config.Buckets.Discover { // which gives each once, and may give many
			seen[name] = true
		}
		return each(name)
	}
	b := o.config.Buckets
	switch {
	case b.Discover:
		return o.eachPartition(ctx, func(key [][]byte) error {
			values := make([]record.Value, len(key))
			for i, c := range o.table.partition {
				var err error
				if values[i], err = decodeValue(c.typ, key[i]); err != nil {
					return fail.Job("cassandra.bad_value", "column %q of a partition key: %w", c.name, err).
						WithFix("read the table by token ranges")
				}
			}
			return take(values)
		})
	case b.Table != "":
		return o.queriedBuckets(ctx, "SELECT "+quotedList(o.table.partition)+" FROM "+o.qualified(b.Table), take)
	case b.Query != "":
		return o.queriedBuckets(ctx, b.Query, take)
	case b.Range != nil:
		return o.table.rangeBuckets(*b.Range, take)
	}
	for _, bucket := range b.List {
		values, err := o.table.bucketValues(bucket)
		if err != nil {
			return err
		}
		if err := take(values); err != nil {
			return err
		}
	}
	return nil
}

// qualified is a table's quoted name with a keyspace, which is the source's own unless the name has one.
func (o *tableSource) qualified(name string) string {
	keyspace, table, ok := strings.Cut(name, ".")
	if !ok {
		keyspace, table = o.config.Keyspace, name
	}
	return quote(keyspace) + "." + quote(table)
}

// queriedBuckets takes the rows of a query as partitions.
func (o *tableSource) queriedBuckets(ctx context.Context, cql string, take func([]record.Value) error) error {
	size := &pageSize{target: math.MaxInt64, most: mostRows}
	size.limit.Store(countRows)
	for state := []byte(nil); ; {
		a, err := o.request(ctx, "", scan{cql: cql}, state, size)
		if fail.CodeOf(err) == "cassandra.refused" {
			return fail.Job("cassandra.buckets_query", "Cassandra refuses the query for the partitions, %s: %w", cql,
				err).WithFix("check buckets")
		}
		if err != nil {
			return err
		}
		state = a.iter.PageState()
		if err := o.takeBuckets(a.iter, take); err != nil {
			return err
		}
		if len(state) == 0 {
			return nil
		}
	}
}

func (o *tableSource) takeBuckets(iter *gocql.Iter, take func([]record.Value) error) error {
	slots := make([]slot, len(iter.Columns()))
	dest := make([]any, len(slots))
	at := make([]int, len(o.table.partition)) // slot of each column of the partition key
	for i := range slots {
		dest[i] = &slots[i]
	}
	for i, c := range o.table.partition {
		at[i] = slices.IndexFunc(iter.Columns(), func(info gocql.ColumnInfo) bool { return info.Name == c.name })
		if at[i] < 0 {
			iter.Close()
			return fail.Job("cassandra.buckets_query", "the query for the partitions gives no column %q", c.name).
				WithFix("select every column of the partition key, %s, with AS where it is called otherwise",
					quotedList(o.table.partition))
		}
	}
	for iter.Scan(dest...) {
		values := make([]record.Value, len(at))
		for i, c := range o.table.partition {
			v, err := decodeValue(c.typ, bytes.Clone(slots[at[i]].data))
			if err == nil && v.IsNull() {
				err = fmt.Errorf("it is null")
			}
			if err != nil {
				iter.Close()
				return fail.Job("cassandra.buckets_query",
					"the query for the partitions gives a column %q that is not a valid %s: %w", c.name, c.typ, err).
					WithFix("check buckets")
			}
			values[i] = v
		}
		if err := take(values); err != nil {
			iter.Close()
			return err
		}
	}
	return classify(iter.Close())
}

func (t *table) bucketValues(b Bucket) ([]record.Value, error) {
	if b.Named == nil && len(b.Values) != len(t.partition) {
		return nil, fmt.Errorf("%d values, the partition key has %d columns: %s", len(b.Values), len(t.partition),
			quotedList(t.partition))
	}
	values := make([]record.Value, len(t.partition))
	for i, c := range t.partition {
		var text Scalar
		if b.Named == nil {
			text = b.Values[i]
		} else if v, ok := b.Named[c.name]; ok {
			text = v
		} else {
			return nil, fmt.Errorf("column %q is missing", c.name)
		}
		var err error
		if values[i], err = record.Parse(c.typ, string(text)); err != nil {
			return nil, fmt.Errorf("column %q: %w", c.name, err)
		}
	}
	for name := range b.Named {
		if !slices.ContainsFunc(t.partition, func(c column) bool { return c.name == name }) {
			return nil, fmt.Errorf("%q is not a column of the partition key", name)
		}
	}
	return values, nil
}

// checkBuckets tells what is wrong with partitions that the settings list.
func (t *table) checkBuckets(b Buckets, need connector.Need) error {
	for i, bucket := range b.List {
		if _, err := t.bucketValues(bucket); err != nil {
			return need.Misplaced("cassandra.bucket", fmt.Sprintf("buckets.list.%d", i), "%v", err)
		}
	}
	if b.Range == nil {
		return nil
	}
	_, period, err := t.rangeChoices(*b.Range, need)
	if err != nil {
		return err
	}
	if start, err := parsePeriod(b.Range.From); err == nil {
		if _, err := b.Range.value(b.Range.start(start), t.partition[period].typ); err != nil {
			return need.Misplaced("cassandra.bucket", "buckets.range",
				"column %q: %v; give a format that fits the column", b.Range.Column, err)
		}
	}
	return nil
}

// rangeChoices are the values of each column of the partition key but that of the periods, whose place it gives.
func (t *table) rangeChoices(r Range, need connector.Need) (choices [][]record.Value, period int, err error) {
	period = slices.IndexFunc(t.partition, func(c column) bool { return c.name == r.Column })
	if period < 0 {
		return nil, 0, need.Misplaced("cassandra.bucket", "buckets.range.column",
			"%q is not a column of the partition key, %s", r.Column, quotedList(t.partition))
	}
	choices = make([][]record.Value, len(t.partition))
	for i, c := range t.partition {
		if i == period {
			continue
		}
		for n, text := range r.Values[c.name] {
			v, err := record.Parse(c.typ, string(text))
			if err != nil {
				path := fmt.Sprintf("buckets.range.values.%s.%d", c.name, n)
				return nil, 0, need.Misplaced("cassandra.bucket", path, "%v", err)
			}
			choices[i] = append(choices[i], v)
		}
		if len(choices[i]) == 0 {
			return nil, 0, need.Misplaced("cassandra.bucket", "buckets.range.values",
				"column %q of the partition key has no values; list them, "+
					"or use buckets: {discover: true} with partitions: {%s: {from: ..., to: ...}}", c.name, r.Column)
		}
	}
	for name := range r.Values {
		if !slices.ContainsFunc(t.partition, func(c column) bool { return c.name == name && name != r.Column }) {
			return nil, 0, need.Misplaced("cassandra.bucket", "buckets.range.values."+name,
				"%q is none of the other columns of the partition key, %s", name, quotedList(t.partition))
		}
	}
	return choices, period, nil
}

// rangeBuckets takes a partition for each period and combination of values.
func (t *table) rangeBuckets(r Range, take func([]record.Value) error) error {
	choices, period, err := t.rangeChoices(r, connector.Need{})
	if err != nil {
		return err
	}
	return r.periods(func(start time.Time) error {
		v, err := r.value(start, t.partition[period].typ)
		if err != nil {
			return fail.Job("cassandra.bucket", "buckets.range: column %q: %w", r.Column, err).
				WithFix("give a format that fits the column")
		}
		choices[period] = []record.Value{v}
		return combine(choices, nil, take)
	})
}

// combine takes every choice of one value from each list.
func combine(choices [][]record.Value, chosen []record.Value, take func([]record.Value) error) error {
	if len(chosen) == len(choices) {
		return take(slices.Clone(chosen))
	}
	for _, v := range choices[len(chosen)] {
		if err := combine(choices, append(chosen, v), take); err != nil {
			return err
		}
	}
	return nil
}

// match is a Match for a column of a type. Its zero value lets everything through.
type match struct {
	values   []record.Value
	from, to []byte // in the order of positions
}

func (t *table) matches(settings map[string]Match, need connector.Need) ([]match, error) {
	all := make([]match, len(t.partition))
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		m, path := settings[name], "partitions."+name
		i := slices.IndexFunc(t.partition, func(c column) bool { return c.name == name })
		if i < 0 {
			return nil, need.Misplaced("cassandra.no_column", path, "%q is not a column of the partition key, %s", name,
				quotedList(t.partition))
		}
		typ := t.partition[i].typ
		for n, text := range m.Values {
			v, err := record.Parse(typ, string(text))
			if err != nil {
				return nil, need.Misplaced("cassandra.bad_value", fmt.Sprintf("%s.%d", path, n), "%v", err)
			}
			all[i].values = append(all[i].values, v)
		}
		bound := func(path string, text Scalar) (at []byte, err error) {
			if text == "" {
				return nil, nil
			}
			v, err := record.Parse(typ, string(text))
			if err == nil {
				at, err = ordered(typ, v)
			}
			if err != nil {
				return nil, need.Misplaced("cassandra.bad_value", path, "%v", err)
			}
			return at, nil
		}
		var err error
		if all[i].from, err = bound(path+".from", m.From); err != nil {
			return nil, err
		}
		if all[i].to, err = bound(path+".to", m.To); err != nil {
			return nil, err
		}
		if m.From != "" && m.To != "" && bytes.Compare(all[i].from, all[i].to) > 0 {
			return nil, need.Misplaced("cassandra.bad_value", path+".to",
				"%s comes before from, %s, so that no partition lies between them", m.To, m.From)
		}
	}
	return all, nil
}

func (m match) holds(t record.Type, v record.Value) bool {
	if m.values != nil && !slices.ContainsFunc(m.values, v.Equal) {
		return false
	}
	if m.from == nil && m.to == nil {
		return true
	}
	at, err := ordered(t, v)
	return err == nil && (m.from == nil || bytes.Compare(at, m.from) >= 0) &&
		(m.to == nil || bytes.Compare(at, m.to) <= 0)
}

// ordered is a value as a part of an ascending position.
func ordered(t record.Type, v record.Value) ([]byte, error) {
	raw, err := appendValue(nil, t, v)
	if err != nil {
		return nil, err
	}
	return plan.AppendOrdered(nil, t.Kind, raw)
}

// limit is where the settings let the rows of every partition begin, or end.
type limit struct {
	edge *edge // nil: no limit
	// Of a lower limit: no position that is in lies before it; of an upper one: none that is in lies at or after it.
	at []byte
}

// idBounds are the limits of the clustering keys, in the order of reading.
func (t *table) idBounds(ids *Interval, need connector.Need) (lower, upper limit, err error) {
	if ids == nil {
		return lower, upper, nil
	}
	if len(t.clustering) == 0 {
		return lower, upper, need.Misplaced("cassandra.no_clustering", "ids",
			"the table %s has no clustering columns; leave ids out", t.name)
	}
	var ends [2][]byte
	for i, end := range []struct {
		path string
		text Scalar
	}{{"ids.from", ids.From}, {"ids.to", ids.To}} {
		if ends[i], err = t.idLimit(end.text); err != nil {
			return lower, upper, need.Misplaced("cassandra.ids", end.path, "column %q: %v", t.clustering[0].name, err)
		}
	}
	from, to := ends[0], ends[1]
	if from != nil && to != nil {
		if a, b := t.prefix(from), t.prefix(to); bytes.Equal(a, b) || bytes.Compare(a, b) > 0 != t.clustering[0].desc {
			return lower, upper, need.Misplaced("cassandra.ids", "ids.to",
				"no row lies from %s up to %s; to must come after from", ids.From, ids.To)
		}
	}
	var past []byte // behind every row that begins with a value, as bytes after the value's
	if t.clustering[0].desc {
		from, to = to, from
		past = bytes.Repeat([]byte{0xff}, 64)
	}
	if from != nil {
		lower = limit{&edge{values: [][]byte{from}, included: past == nil}, append(t.prefix(from), past...)}
	}
	if to != nil {
		upper = limit{&edge{values: [][]byte{to}, included: past != nil}, append(t.prefix(to), past...)}
	}
	return lower, upper, nil
}

// prefix is how the positions of rows begin whose first clustering column is v.
func (t *table) prefix(v []byte) []byte {
	b, _ := t.order[:1].Append(nil, [][]byte{v}) // idLimit has made v for this column
	return b
}

func (t *table) idLimit(text Scalar) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	typ := t.clustering[0].typ
	v, err := record.Parse(typ, string(text))
	if err != nil && typ.Kind == record.TimeUUID {
		at, errTime := record.ParseTime(string(text))
		if errTime != nil {
			return nil, fmt.Errorf("no timeuuid, and %w", errTime)
		}
		return leastTimeUUID(at)
	}
	if err != nil {
		return nil, err
	}
	return appendValue([]byte{}, typ, v)
}

// leastTimeUUID is the first timeuuid of a time in Cassandra's order.
func leastTimeUUID(at time.Time) ([]byte, error) {
	u := gocql.MinTimeUUID(at)
	if tick := 100 * time.Nanosecond; !u.Time().Equal(at.Truncate(tick)) { // its clock has 60 bits
		return nil, fmt.Errorf("timeuuids reach from 1582 to 5236, and not to %s", at.Format(time.RFC3339))
	}
	return u[:], nil
}
