package icebergio

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/merge"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// layout says how the records of a schema lie in a table.
type layout struct {
	schema     *record.Schema
	columns    []column // one for each column of the table, in its order
	arrow      *arrow.Schema
	partitions []partitionKey
	run        record.Value
	floor      int64 // lowest version that rows are given
	upserts    bool
}

// column is a column of the table with what goes there.
type column struct {
	name  string
	field int        // of the record, or one of those below
	codec *cellCodec // nil: always null
}

// What a column may hold beside a field.
const (
	versionField = -1 - iota
	runField
	noField
)

// newLayout checks a table against the schema of the records and tells all that does not fit in one error.
func newLayout(t *table.Table, schema *record.Schema, c SinkConfig, run connector.Run) (*layout, error) {
	l := &layout{schema: schema, run: record.String(run.ID), upserts: c.Upserts()}
	if !l.upserts { // whose commit compares
		l.floor = run.Floor
	}
	var problems []string
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	columns := t.Schema()
	own := map[string]int{c.versionColumn(): versionField, c.RunColumn: runField}
	for _, f := range columns.Fields() {
		col := column{name: f.Name, field: schema.Index(f.Name)}
		var typ record.Type
		special, is := own[f.Name]
		switch {
		case is && col.field >= 0:
			problem("column %s holds the record's version or run, but the records have a field of that name; name it "+
				"otherwise by version_column or run_column", f.Name)
			continue
		case is && special == versionField:
			col.field, typ = versionField, record.Of(record.BigInt)
		case is:
			col.field, typ = runField, record.Of(record.Text)
		case col.field >= 0:
			typ = schema.Fields[col.field].Type
		case f.Required:
			problem("column %s is required, but the records have no such field; make it optional, or add the field "+
				"by a transform", f.Name)
			continue
		default:
			col.field = noField
		}
		if col.field != noField {
			var err error
			if col.codec, err = newCodec(typ, f.Type, f.Required); err != nil {
				problem("column %s %v", f.Name, err)
			}
			if wanted, ok := c.Columns[f.Name]; ok && col.field >= 0 {
				if w, err := parseDecimal(wanted); err == nil && !w.Equals(f.Type) {
					problem("column %s is %s, the job file wants %s", f.Name, f.Type, w)
				}
			}
		}
		l.columns = append(l.columns, col)
	}
	var missing []string
	for i, f := range schema.Fields {
		if _, ok := columns.FindFieldByName(f.Name); !ok &&
			(c.Schema != schemaIgnore || slices.Contains(schema.Key, i)) {
			missing = append(missing, fmt.Sprintf("%s %s", f.Name, defaultType(f.Type, func() int { return 0 })))
		}
	}
	for name, t := range c.ownColumns() {
		if _, ok := columns.FindFieldByName(name); !ok {
			missing = append(missing, fmt.Sprintf("%s %s", name, t))
		}
	}
	if len(missing) > 0 {
		problem("it lacks the columns %s; set schema: add or ignore, add them (ALTER TABLE ... ADD COLUMNS), or drop "+
			"the fields by a transform", strings.Join(missing, ", "))
	}
	if l.upserts {
		for _, at := range schema.Key {
			if f, ok := columns.FindFieldByName(schema.Fields[at].Name); ok && !merge.Keyable(f.Type) {
				problem("column %s is %s, by which rows cannot be told apart", f.Name, f.Type)
			}
		}
		if v := t.Metadata().Version(); v != 2 {
			problem("its format version is %d; only 2 takes upserts", v)
		}
	}
	if v := t.Metadata().Version(); v > 2 {
		problem("its format version is %d; only 1 and 2 can be written", v)
	}
	problems = append(problems, l.partition(t, c)...)
	if len(problems) > 0 {
		return nil, fail.Job("iceberg.table_mismatch", "table %s does not fit the records: %s",
			strings.Join(t.Identifier(), "."), strings.Join(problems, "; "))
	}
	var err error
	if l.arrow, err = table.SchemaToArrowSchema(columns, nil, true, false); err != nil {
		return nil, fail.Job("iceberg.table_mismatch", "table %s: %w", strings.Join(t.Identifier(), "."), err)
	}
	return l, nil
}

// partition binds the table's partition spec, or tells what is wrong with it.
func (l *layout) partition(t *table.Table, c SinkConfig) (problems []string) {
	schema := t.Schema()
	parts, problems := specParts(t.Spec(), schema)
	if len(problems) > 0 {
		return problems
	}
	if len(c.Partition) > 0 {
		var is, wanted []string
		for _, p := range parts {
			is = append(is, p.String())
		}
		for _, text := range c.Partition {
			if p, err := parsePartition(text); err == nil {
				wanted = append(wanted, p.String())
			}
		}
		if !slices.Equal(is, wanted) {
			problems = append(problems,
				fmt.Sprintf("it is partitioned by [%s], the job file says [%s]; change the table's partition spec or "+
					"the line partition", strings.Join(is, ", "), strings.Join(wanted, ", ")))
		}
	}
	for _, p := range parts {
		at := slices.IndexFunc(l.columns, func(c column) bool { return c.name == p.column })
		if at < 0 || l.columns[at].codec == nil || l.columns[at].codec.value == nil {
			problems = append(problems,
				fmt.Sprintf("it is partitioned by %s, which no field of the records can fill", p))
			continue
		}
		col := l.columns[at]
		source, _ := schema.FindFieldByName(p.column)
		transform, err := bindTransform(p.transform, source.Type)
		if err != nil {
			problems = append(problems, fmt.Sprintf("it is partitioned by %s: %v", p, err))
			continue
		}
		k := partitionKey{partition: p, field: col.field, value: col.codec.value, transform: transform}
		_, identity := p.transform.(iceberg.IdentityTransform)
		_, truncate := p.transform.(iceberg.TruncateTransform)
		k.text = (identity || truncate) && (col.codec.kind == record.Text || col.codec.kind == record.Blob)
		k.identity = identity && col.codec.kind == record.Text
		l.partitions = append(l.partitions, k)
	}
	return problems
}

// value is what a column holds of a record.
func (l *layout) value(r *record.Record, field int) record.Value {
	switch field {
	case versionField:
		return record.Number(record.BigInt, max(r.Version, l.floor))
	case runField:
		return l.run
	case noField:
		return record.NullValue
	}
	return r.Values[field]
}

// maxRecord is the most that a record may take.
const maxRecord = 64 << 20

// fits is the error of a record that the table cannot hold.
func (l *layout) fits(r *record.Record) error {
	if r.Op == record.Delete && !l.upserts {
		return fail.New(fail.Permanent, "iceberg.no_deletes", "this sink appends, it cannot delete").
			WithFix("set mode: upsert, or filter deletes out before this sink")
	}
	if r.Schema != l.schema && !r.Schema.Same(l.schema) {
		return fail.New(fail.Permanent, "iceberg.other_schema",
			"the record has another schema than the sink was opened for")
	}
	if size := r.Size(); size > maxRecord {
		return fail.New(fail.Permanent, "iceberg.too_large",
			"the record takes %d bytes, at most %d can be written", size, maxRecord)
	}
	for i := range l.columns {
		c := &l.columns[i]
		if c.codec == nil || c.field < 0 || r.Op == record.Delete && !slices.Contains(l.schema.Key, c.field) {
			continue
		}
		if err := c.codec.fits(r.Values[c.field]); err != nil {
			return inside("field "+c.name, err)
		}
	}
	return nil
}

// batcher turns records that fit into Arrow.
type batcher struct {
	layout  *layout
	builder *array.RecordBuilder
	add     []func(record.Value)
}

func (l *layout) newBatcher() *batcher {
	b := &batcher{layout: l, builder: array.NewRecordBuilder(memory.DefaultAllocator, l.arrow)}
	for i, c := range l.columns {
		if c.codec == nil {
			b.add = append(b.add, nil)
			continue
		}
		b.add = append(b.add, c.codec.appender(b.builder.Field(i)))
	}
	return b
}

// batch is the records as Arrow, to be released by the caller.
func (b *batcher) batch(records []*record.Record) (arrow.RecordBatch, error) {
	for i, c := range b.layout.columns {
		to := b.builder.Field(i)
		to.Reserve(len(records))
		if b.add[i] == nil {
			to.AppendNulls(len(records))
			continue
		}
		for _, r := range records {
			b.add[i](b.layout.value(r, c.field))
		}
	}
	batch := b.builder.NewRecordBatch()
	for i, f := range b.layout.arrow.Fields() {
		if !f.Nullable && batch.Column(i).NullN() > 0 {
			batch.Release()
			return nil, fail.New(fail.Fatal, "iceberg.null_in_required",
				"column %s is required, but a null came through the checks", f.Name)
		}
	}
	return batch, nil
}
