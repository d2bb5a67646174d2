package merge

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/icebergio/internal/tables"
)

// span is the least and the greatest value of a column.
type span [2]iceberg.Literal

// with is the span with another value; false: its order is not known.
func (s span) with(v iceberg.Literal) (span, bool) {
	for at, beyond := range [2]int{-1, 1} {
		order, ok := compareLiterals(v, s[at])
		if !ok {
			return s, false
		}
		if order == beyond {
			s[at] = v
		}
	}
	return s, true
}

// Bounds are the spans of columns, by their names. Of a column that is not there nothing is known.
type Bounds map[string]span

// mostBounds is by how many areas of keys files are looked for; more are put together.
const mostBounds = 64

// Reach is where the keys of a run may lie in a table.
type Reach struct {
	where  iceberg.BooleanExpression // nil: anywhere
	spec   int32                     // the only one that the run's files have
	fields []int                     // of the partition, which follow from the key
	held   map[string]bool           // values of these fields; nil: any
}

// NewReach tells where the keys of a run lie: areas are the bounds of its staged files and lists of deletes, files the
// staged files, which alone have keys unless there are deletes.
func NewReach(t *table.Table, key []string, areas []Bounds, files []iceberg.DataFile, deletes bool) *Reach {
	r := &Reach{}
	all := slices.Clone(areas)
	bounded := slices.DeleteFunc(slices.Clone(key), func(name string) bool { return widened(t, name) })
	if len(all) > 0 && len(bounded) > 0 {
		slices.SortFunc(all, func(a, b Bounds) int {
			for _, k := range key {
				if less, ok := compareLiterals(a[k][0], b[k][0]); ok && less != 0 {
					return less
				}
			}
			return 0
		})
		for group := range slices.Chunk(all, (len(all)+mostBounds-1)/mostBounds) {
			area := group[0]
			for _, b := range group[1:] {
				area = area.with(b)
			}
			if len(area) == 0 {
				r.where = nil
				break
			}
			if is := area.expression(bounded); r.where == nil {
				r.where = is
			} else {
				r.where = iceberg.NewOr(r.where, is)
			}
		}
	}
	if deletes || len(files) == 0 {
		return r
	}
	r.spec = files[0].SpecID()
	spec := t.Metadata().PartitionSpecByID(int(r.spec))
	if spec == nil || slices.ContainsFunc(files, func(df iceberg.DataFile) bool { return df.SpecID() != r.spec }) {
		return r
	}
	for _, f := range spec.Fields() {
		if name, ok := t.Schema().FindColumnName(f.SourceID()); ok && slices.Contains(key, name) {
			r.fields = append(r.fields, f.FieldID)
		}
	}
	held := map[string]bool{}
	for _, df := range files {
		text, ok := r.partition(df)
		if !ok {
			return r
		}
		held[text] = true
	}
	r.held = held
	return r
}

// widened tells whether a column once had another type: iceberg-go cannot read the bounds of the files from then.
func widened(t *table.Table, name string) bool {
	now, _ := t.Schema().FindFieldByName(name)
	return slices.ContainsFunc(t.Metadata().Schemas(), func(s *iceberg.Schema) bool {
		then, ok := s.FindFieldByID(now.ID)
		return ok && !then.Type.Equals(now.Type)
	})
}

// partition tells partitions of the run's spec apart by what follows from the key; false: it cannot.
func (r *Reach) partition(df iceberg.DataFile) (string, bool) {
	var text []byte
	for _, id := range r.fields {
		value, ok := partitionText(df.Partition()[id])
		if !ok {
			return "", false
		}
		text = append(append(text, value...), 0)
	}
	return string(text), true
}

// excludes tells whether the partition of a file can hold no key of the run.
func (r *Reach) excludes(df iceberg.DataFile) bool {
	if r.held == nil || df.SpecID() != r.spec {
		return false
	}
	text, ok := r.partition(df)
	return ok && !r.held[text]
}

// Plan gives the data files that may hold a key of the run, with the deletes that concern them.
func (m *Merge) Plan(ctx context.Context, t *table.Table, options ...table.ScanOption) ([]table.FileScanTask, error) {
	if m.Reach == nil {
		return tables.PlanFiles(ctx, t, m.Retry, options...)
	}
	if m.Reach.where != nil {
		options = append(options, table.WithRowFilter(m.Reach.where))
	}
	tasks, err := tables.PlanFiles(ctx, t, m.Retry, options...)
	tasks = slices.DeleteFunc(tasks, func(task table.FileScanTask) bool { return m.Reach.excludes(task.File) })
	for i := range tasks {
		tasks[i].Residual = nil // it would leave rows out, and those after them would seem to lie elsewhere
	}
	return tasks, err
}

// FileBounds are those of the columns of a data file that have no nulls.
func FileBounds(schema *iceberg.Schema, df iceberg.DataFile, key []string) Bounds {
	b := Bounds{}
	for _, name := range key {
		f, _ := schema.FindFieldByName(name)
		if nulls, counted := df.NullValueCounts()[f.ID]; counted && nulls == 0 {
			b.Put(schema, name, df.LowerBoundValues()[f.ID], df.UpperBoundValues()[f.ID])
		}
	}
	return b
}

// Put adds the bounds of a column, as Iceberg stores them, unless they cannot be read.
func (b Bounds) Put(schema *iceberg.Schema, name string, lower, upper []byte) {
	f, ok := schema.FindFieldByName(name)
	if !ok {
		return
	}
	least, err := iceberg.LiteralFromBytes(f.Type, lower)
	if err != nil {
		return
	}
	most, err := iceberg.LiteralFromBytes(f.Type, upper)
	if err != nil {
		return
	}
	if _, ok := compareLiterals(least, most); ok {
		b[name] = span{least, most}
	}
}

// with are the bounds of both.
func (b Bounds) with(other Bounds) Bounds {
	both := Bounds{}
	for name, is := range b {
		too, known := other[name]
		if !known {
			continue
		}
		if least, ok := is.with(too[0]); ok {
			both[name], _ = least.with(too[1])
		}
	}
	return both
}

// expression is what rows within the bounds fulfil.
func (b Bounds) expression(key []string) iceberg.BooleanExpression {
	var all iceberg.BooleanExpression = iceberg.AlwaysTrue{}
	for _, name := range key {
		if is, ok := b[name]; ok {
			all = iceberg.NewAnd(all, iceberg.LiteralPredicate(iceberg.OpGTEQ, iceberg.Reference(name), is[0]),
				iceberg.LiteralPredicate(iceberg.OpLTEQ, iceberg.Reference(name), is[1]))
		}
	}
	return all
}

// compareLiterals compares two of the same type; false: their order is not known.
func compareLiterals(a, b iceberg.Literal) (int, bool) {
	switch a := a.(type) {
	case iceberg.Int32Literal:
		return compare(a, b)
	case iceberg.Int64Literal:
		return compare(a, b)
	case iceberg.DateLiteral:
		return compare(a, b)
	case iceberg.TimestampLiteral:
		return compare(a, b)
	case iceberg.StringLiteral:
		return compare(a, b)
	case iceberg.BinaryLiteral:
		b, ok := b.(iceberg.BinaryLiteral)
		return bytes.Compare(a, b), ok
	}
	return 0, false
}

func compare[T cmp.Ordered](a T, b iceberg.Literal) (int, bool) {
	other, ok := any(b).(T)
	return cmp.Compare(a, other), ok
}

// literal is a cell of a key; nil: it is null, or of another type than those above.
func literal(column arrow.Array, i int) iceberg.Literal {
	if column.IsNull(i) {
		return nil
	}
	switch c := column.(type) {
	case *array.Int32:
		return iceberg.Int32Literal(c.Value(i))
	case *array.Int64:
		return iceberg.Int64Literal(c.Value(i))
	case *array.Date32:
		return iceberg.DateLiteral(c.Value(i))
	case *array.Timestamp:
		return iceberg.TimestampLiteral(c.Value(i))
	case *array.String:
		return iceberg.StringLiteral(c.Value(i))
	case *array.Binary:
		return iceberg.BinaryLiteral(c.Value(i))
	}
	return nil
}

// longestBound is what a list of deletes tells of a value.
const longestBound = 1 << 10

// ColumnBounds are the least and the greatest value of a column as Iceberg stores them; nil: they are not known.
func ColumnBounds(column arrow.Array) [][]byte {
	var is span
	for i := range column.Len() {
		v := literal(column, i)
		if v == nil {
			return nil
		}
		if i == 0 {
			is = span{v, v}
		}
		is, _ = is.with(v)
	}
	if is[0] == nil {
		return nil
	}
	found := make([][]byte, 0, len(is))
	for _, v := range is {
		b, err := v.MarshalBinary()
		if err != nil || len(b) > longestBound {
			return nil
		}
		found = append(found, b)
	}
	return found
}
