package fileio

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	parquetfile "github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Memory of one Parquet file being written: a batch of rows, and the pages of a row group.
const (
	batchBytes    = 4 << 20
	rowGroupBytes = 64 << 20
)

var codecs = map[string]compress.Compression{"none": compress.Codecs.Uncompressed, "gzip": compress.Codecs.Gzip,
	"zstd": compress.Codecs.Zstd, "snappy": compress.Codecs.Snappy}

var metaType = arrow.StructOf(
	arrow.Field{Name: "key", Type: arrow.BinaryTypes.String},
	arrow.Field{Name: "version", Type: arrow.PrimitiveTypes.Int64},
	arrow.Field{Name: "op", Type: arrow.BinaryTypes.String},
	arrow.Field{Name: "run", Type: arrow.BinaryTypes.String},
	arrow.Field{Name: "expires", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
)

// arrowType is the type of a column; what Parquet has no type for is text.
func arrowType(t record.Type) arrow.DataType {
	switch t.Kind {
	case record.Boolean:
		return arrow.FixedWidthTypes.Boolean
	case record.TinyInt:
		return arrow.PrimitiveTypes.Int8
	case record.SmallInt:
		return arrow.PrimitiveTypes.Int16
	case record.Int:
		return arrow.PrimitiveTypes.Int32
	case record.BigInt:
		return arrow.PrimitiveTypes.Int64
	case record.Float:
		return arrow.PrimitiveTypes.Float32
	case record.Double:
		return arrow.PrimitiveTypes.Float64
	case record.Blob:
		return arrow.BinaryTypes.Binary
	case record.Timestamp:
		return arrow.FixedWidthTypes.Timestamp_ms
	case record.Date:
		return arrow.FixedWidthTypes.Date32
	case record.Time:
		return arrow.FixedWidthTypes.Time64ns
	case record.List, record.Set, record.Vector:
		return arrow.ListOf(arrowType(t.Elems[0]))
	case record.Map:
		return arrow.MapOf(arrowType(t.Elems[0]), arrowType(t.Elems[1]))
	case record.Tuple, record.UDT:
		parts := make([]arrow.Field, len(t.Elems))
		for i, e := range t.Elems {
			parts[i] = arrow.Field{Name: partName(t, i), Type: arrowType(e), Nullable: true}
		}
		return arrow.StructOf(parts...)
	}
	return arrow.BinaryTypes.String
}

// partName names a part of a UDT or tuple.
func partName(t record.Type, i int) string {
	if i < len(t.Names) {
		return t.Names[i]
	}
	return "f" + strconv.Itoa(i)
}

// misfit tells why a value cannot stand in a column of its type.
func misfit(v *record.Value, t record.Type) error {
	if v.IsNull() {
		return nil
	}
	if v.Kind() != t.Kind {
		return fmt.Errorf("a %s in a field of type %s", v.Kind(), t)
	}
	elems := v.Elems()
	switch t.Kind {
	case record.Date:
		if n := v.Int(); n < math.MinInt32 || n > math.MaxInt32 {
			return fmt.Errorf("day %d is beyond the dates of Parquet", n)
		}
	case record.Time:
		if n := v.Int(); n < 0 || n >= int64(24*time.Hour) {
			return fmt.Errorf("%s is beyond the times of Parquet, which are of a day", v.Text(t))
		}
	case record.Tuple, record.UDT:
		if len(elems) > len(t.Elems) {
			return fmt.Errorf("%d parts in a %s", len(elems), t)
		}
	}
	for i := range elems {
		e := t.Elems[0]
		switch t.Kind {
		case record.Tuple, record.UDT:
			e = t.Elems[i]
		case record.Map:
			e = t.Elems[i%2]
			if i%2 == 0 && elems[i].IsNull() {
				return fmt.Errorf("a key of a map is null")
			}
		}
		if err := misfit(&elems[i], e); err != nil {
			return err
		}
	}
	return nil
}

// appendArrow appends a value that is no misfit. text is a buffer.
func appendArrow(b array.Builder, v *record.Value, t record.Type, text []byte) []byte {
	if v.IsNull() {
		b.AppendNull()
		return text
	}
	elems := v.Elems()
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(v.Bool())
	case *array.Int8Builder:
		b.Append(int8(v.Int()))
	case *array.Int16Builder:
		b.Append(int16(v.Int()))
	case *array.Int32Builder:
		b.Append(int32(v.Int()))
	case *array.Int64Builder:
		b.Append(v.Int())
	case *array.Float32Builder:
		b.Append(float32(v.Float()))
	case *array.Float64Builder:
		b.Append(v.Float())
	case *array.BinaryBuilder:
		b.AppendString(v.Str())
	case *array.StringBuilder:
		if t.Kind == record.Text {
			b.Append(v.Str())
			break
		}
		text = v.AppendText(text[:0], t)
		b.BinaryBuilder.Append(text)
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v.Int()))
	case *array.Date32Builder:
		b.Append(arrow.Date32(v.Int()))
	case *array.Time64Builder:
		b.Append(arrow.Time64(v.Int()))
	case *array.MapBuilder:
		b.Append(true)
		for i := 0; i+1 < len(elems); i += 2 {
			text = appendArrow(b.KeyBuilder(), &elems[i], t.Elems[0], text)
			text = appendArrow(b.ItemBuilder(), &elems[i+1], t.Elems[1], text)
		}
	case *array.ListBuilder:
		b.Append(true)
		for i := range elems {
			text = appendArrow(b.ValueBuilder(), &elems[i], t.Elems[0], text)
		}
	case *array.StructBuilder:
		b.Append(true)
		for i, e := range t.Elems {
			part := &record.NullValue
			if i < len(elems) {
				part = &elems[i]
			}
			text = appendArrow(b.FieldBuilder(i), part, e, text)
		}
	}
	return text
}

// parquetEncoder writes a Parquet file.
type parquetEncoder struct {
	c       SinkConfig
	schema  *record.Schema
	run     connector.Run
	file    *pqarrow.FileWriter
	rows    *array.RecordBuilder
	pending int // bytes in rows, by record.Size
	group   int // bytes in the row group, by record.Size
	out     *counter
	text    []byte
}

func newParquetEncoder(w io.Writer, c SinkConfig, schema *record.Schema, run connector.Run) (encoder, error) {
	var columns []arrow.Field
	for _, f := range schema.Fields {
		columns = append(columns, arrow.Field{Name: f.Name, Type: arrowType(f.Type), Nullable: true})
	}
	if c.Meta {
		columns = append(columns, arrow.Field{Name: metaField, Type: metaType})
	}
	arrowSchema := arrow.NewSchema(columns, nil)
	out := &counter{Writer: w}
	properties := parquetfile.NewWriterProperties(parquetfile.WithCompression(codecs[c.compress()]),
		parquetfile.WithCreatedBy("reprise"))
	file, err := pqarrow.NewFileWriter(arrowSchema, out, properties, pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, fail.Job("files.parquet_schema", "Parquet cannot hold these fields: %w", err)
	}
	return &parquetEncoder{c: c, schema: schema, run: run, file: file, out: out,
		rows: array.NewRecordBuilder(memory.DefaultAllocator, arrowSchema)}, nil
}

func (e *parquetEncoder) write(r *record.Record) error {
	if r.Op == record.Delete && !e.c.Meta {
		return fail.New(fail.Permanent, "files.delete", "a delete cannot be told from a record without values").
			WithFix("set meta: true, or write JSON lines")
	}
	for i := range r.Values {
		if err := misfit(&r.Values[i], e.schema.Fields[i].Type); err != nil {
			return fail.New(fail.Permanent, "files.misfit", "field %s: %w", e.schema.Fields[i].Name, err)
		}
	}
	for i := range r.Values {
		e.text = appendArrow(e.rows.Field(i), &r.Values[i], e.schema.Fields[i].Type, e.text)
	}
	if e.c.Meta {
		e.appendMeta(r)
	}
	e.pending += r.Size()
	if e.pending >= batchBytes {
		return e.writeRows()
	}
	return nil
}

func (e *parquetEncoder) appendMeta(r *record.Record) {
	meta := e.rows.Field(len(r.Values)).(*array.StructBuilder)
	meta.Append(true)
	e.text = r.AppendKey(e.text[:0])
	meta.FieldBuilder(0).(*array.StringBuilder).BinaryBuilder.Append(e.text)
	meta.FieldBuilder(1).(*array.Int64Builder).Append(max(r.Version, e.run.Floor))
	meta.FieldBuilder(2).(*array.StringBuilder).Append(r.Op.String())
	meta.FieldBuilder(3).(*array.StringBuilder).Append(e.run.ID)
	if expires := meta.FieldBuilder(4).(*array.Int64Builder); r.Expires != 0 {
		expires.Append(r.Expires)
	} else {
		expires.AppendNull()
	}
}

func (e *parquetEncoder) writeRows() error {
	if e.group >= rowGroupBytes {
		if err := e.file.NewBufferedRowGroupChecked(); err != nil {
			return err
		}
		e.group = 0
	}
	e.group += e.pending
	e.pending = 0
	batch := e.rows.NewRecordBatch()
	defer batch.Release()
	return e.file.WriteBuffered(batch)
}

func (e *parquetEncoder) size() int64 { return e.out.n + e.file.RowGroupTotalCompressedBytes() }

// cut is close alone: a Parquet file is read from its end.
func (e *parquetEncoder) cut() (bool, error) { return false, nil }

func (e *parquetEncoder) close() error {
	defer e.rows.Release()
	if e.pending > 0 {
		if err := e.writeRows(); err != nil {
			return err
		}
	}
	return e.file.Close()
}
