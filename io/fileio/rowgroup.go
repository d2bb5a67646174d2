package fileio

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	parquetfile "github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"reprise/io/columns"
	"reprise/transforms/record"
)

// rowGroup reads some columns of a row group, a batch after the other.
//
// Arrow holds timestamps of type INT96, which Spark and Impala have written, as nanoseconds in 64 bits, and fails at a
// row, and with it at the file, that has one before 1677 or after 2262, such as the 9999-12-31 of what never ends. So
// such columns are read here, and of those within nested values a row that Arrow cannot read is told alone.
type rowGroup struct {
	reader *pqarrow.FileReader
	ctx    context.Context
	group  int
	leaves []int // that Arrow reads
	int96  map[string]*file.Int96ColumnChunkReader
	total  int64

	batches pqarrow.RecordReader // nil: Arrow reads no column
	single  bool                 // a row at a time, since one cannot be read
	batch   map[string]arrow.Array

	first, rows int64 // of the batch, within the group
	bad         error // why the only row of the batch cannot be read
	err         error // why no more can be read
}

const batchRows = 512

func (r *parquetReader) rowGroup(ctx context.Context, group int, wanted func(column string) bool) (*rowGroup, error) {
	g := &rowGroup{reader: r.arrow, ctx: ctx, group: group, int96: map[string]*file.Int96ColumnChunkReader{},
		total: r.file.MetaData().RowGroup(group).NumRows()}
	for i := range r.arrow.Manifest.Fields {
		field := &r.arrow.Manifest.Fields[i]
		if !wanted(field.Field.Name) {
			continue
		}
		if !flatInt96(r.file, field) {
			g.leaves = appendLeaves(g.leaves, field)
			continue
		}
		column, err := r.file.RowGroup(group).Column(field.ColIndex)
		if err != nil {
			return nil, err
		}
		g.int96[field.Field.Name] = column.(*file.Int96ColumnChunkReader)
	}
	return g, g.open(batchRows)
}

func flatInt96(r *file.Reader, f *pqarrow.SchemaField) bool {
	return f.IsLeaf() && r.MetaData().Schema.Column(f.ColIndex).PhysicalType() == parquetfile.Types.Int96 &&
		f.LevelInfo.RepLevel == 0
}

func appendLeaves(leaves []int, f *pqarrow.SchemaField) []int {
	if f.IsLeaf() {
		return append(leaves, f.ColIndex)
	}
	for i := range f.Children {
		leaves = appendLeaves(leaves, &f.Children[i])
	}
	return leaves
}

// open lets Arrow read batches of a size, from the beginning of the group.
func (g *rowGroup) open(size int64) (err error) {
	if len(g.leaves) == 0 {
		return nil
	}
	if g.batches != nil {
		g.batches.Release()
	}
	was := g.reader.Props.BatchSize
	g.reader.Props.BatchSize = size
	g.batches, err = g.reader.GetRecordReader(g.ctx, g.leaves, []int{g.group})
	g.reader.Props.BatchSize = was
	return err
}

func (g *rowGroup) release() {
	g.free()
	if g.batches != nil {
		g.batches.Release()
		g.batches = nil
	}
}

// free gives up what next has made.
func (g *rowGroup) free() {
	for _, column := range g.batch {
		column.Release()
	}
	g.batch = nil
}

// columns are those of the batch, by name.
func (g *rowGroup) columns() iter.Seq2[string, arrow.Array] {
	return func(yield func(string, arrow.Array) bool) {
		for name, column := range g.batch {
			if !yield(name, column) {
				return
			}
		}
	}
}

// next reads a batch.
func (g *rowGroup) next() bool {
	g.free()
	g.first += g.rows
	g.rows, g.bad = 0, nil
	if g.err != nil || g.first >= g.total {
		return false
	}
	g.batch = map[string]arrow.Array{}
	if err := g.arrow(); err != nil {
		if !beyondNanoseconds(err) {
			g.err = err
			return false
		}
		if !g.single { // once more, row by row
			g.single = true
			if g.err = g.seek(g.first); g.err != nil {
				return false
			}
			return g.next()
		}
		g.free()
		g.bad, g.rows = err, 1
		if g.first+1 < g.total {
			g.err = g.seek(g.first + 1)
		}
	}
	for name, column := range g.int96 {
		if g.bad != nil {
			_, err := column.Skip(1)
			g.err = errors.Join(g.err, err)
			continue
		}
		values, err := readInt96(column, g.rows)
		if err != nil {
			g.err = fmt.Errorf("column %s: %w", name, err)
			return false
		}
		g.batch[name] = values
	}
	return true
}

// arrow reads what Arrow reads of a batch, and says how many rows that has.
func (g *rowGroup) arrow() error {
	if g.batches == nil {
		g.rows = min(batchRows, g.total-g.first)
		return nil
	}
	if !g.batches.Next() {
		if err := g.batches.Err(); err != nil {
			return err
		}
		return fmt.Errorf("row group %d ends after %d of %d rows", g.group, g.first, g.total)
	}
	batch := g.batches.RecordBatch()
	g.rows = batch.NumRows()
	for i, column := range batch.Columns() {
		column.Retain()
		g.batch[batch.ColumnName(i)] = column
	}
	return nil
}

// seek lets Arrow go on with a row, one at a time.
func (g *rowGroup) seek(row int64) error {
	if err := g.open(1); err != nil {
		return err
	}
	return g.batches.SeekToRow(row)
}

func beyondNanoseconds(err error) bool {
	return errors.Is(err, arrow.ErrInvalid) && strings.Contains(err.Error(), "INT96")
}

// int96Column is a column of INT96 as its 12 bytes.
type int96Column struct{ *array.FixedSizeBinary }

// readInt96 reads the values of some rows.
func readInt96(column *file.Int96ColumnChunkReader, rows int64) (int96Column, error) {
	values, levels := make([]parquetfile.Int96, rows), make([]int16, rows)
	b := array.NewFixedSizeBinaryBuilder(memory.DefaultAllocator,
		&arrow.FixedSizeBinaryType{ByteWidth: parquetfile.Int96SizeBytes})
	defer b.Release()
	for left := rows; left > 0; {
		n, read, err := column.ReadBatch(left, values, levels, nil)
		if err != nil || n == 0 {
			return int96Column{}, errors.Join(err, column.Err(), fmt.Errorf("it ends %d rows too early", left))
		}
		defined := column.Descriptor().MaxDefinitionLevel()
		at := 0
		for _, level := range levels[:n] {
			if level < defined || at == read {
				b.AppendNull()
				continue
			}
			b.Append(values[at][:])
			at++
		}
		left -= n
	}
	return int96Column{b.NewFixedSizeBinaryArray()}, nil
}

// time is the time of a value: nanoseconds of a day, and the day by its Julian number.
func (c int96Column) time(i int) (time.Time, error) {
	b := c.Value(i)
	const unixEpoch = 2_440_588
	nanos, day := binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint32(b[8:]))-unixEpoch
	if nanos >= uint64(24*time.Hour) {
		return time.Time{}, fmt.Errorf("the time of day of an INT96 has %d nanoseconds, more than a day", nanos)
	}
	return time.Unix(day*86400, int64(nanos)).UTC(), nil
}

// GetOneForMarshal implements arrow.Array.
func (c int96Column) GetOneForMarshal(i int) any {
	if c.IsNull(i) {
		return nil
	}
	at, err := c.time(i)
	if err != nil {
		return json.RawMessage(`"` + err.Error() + `"`)
	}
	return at.Format("2006-01-02T15:04:05.999999999Z07:00")
}

// value is a value of a column as a type says.
func value(column arrow.Array, i int, t record.Type, how record.Reading) (record.Value, error) {
	c, ok := column.(int96Column)
	switch {
	case !ok:
		return columns.Value(column, i, t, how)
	case c.IsNull(i):
		return record.NullValue, nil
	}
	at, err := c.time(i)
	switch {
	case err != nil:
		return record.Value{}, err
	case t.Kind == record.Timestamp && (at.Nanosecond()%1e6 == 0 || how.CutTimestamps):
		return record.Number(t.Kind, at.UnixMilli()), nil
	case t.Kind == record.Timestamp:
		return record.Value{}, record.ErrFiner
	case t.Kind == record.BigInt:
		if n := at.UnixNano(); time.Unix(0, n).Equal(at) {
			return record.Number(t.Kind, n), nil
		}
		return record.Value{}, fmt.Errorf("%s has more nanoseconds since 1970 than a bigint holds",
			at.Format(time.RFC3339Nano))
	}
	return record.Value{}, fmt.Errorf("a timestamp cannot be read as %s", t)
}
