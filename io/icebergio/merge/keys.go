package merge

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
)

// Key stands for a key: the first half of the SHA-256 of its cells as they lie in the table. No two keys have the same.
type Key struct{ hi, lo uint64 }

// KeyOf is the key that some cells make up.
func KeyOf(cells []byte) Key {
	sum := sha256.Sum256(cells)
	return Key{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
}

// AppendCell appends a cell such that different values differ, and the same ones are equal also after
// their column's type was promoted.
func AppendCell(b []byte, column arrow.Array, i int) []byte {
	if column.IsNull(i) {
		return append(b, 0)
	}
	b = append(b, 1)
	bytes := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	switch c := column.(type) {
	case *array.Int32:
		return binary.AppendVarint(b, int64(c.Value(i)))
	case *array.Int64:
		return binary.AppendVarint(b, c.Value(i))
	case *array.Date32:
		return binary.AppendVarint(b, int64(c.Value(i)))
	case *array.Timestamp:
		return binary.AppendVarint(b, int64(c.Value(i)))
	case *array.String:
		bytes(c.ValueLen(i))
		return append(b, c.Value(i)...)
	case *array.LargeString:
		bytes(len(c.Value(i)))
		return append(b, c.Value(i)...)
	case *array.Binary:
		bytes(c.ValueLen(i))
		return append(b, c.Value(i)...)
	case *array.LargeBinary:
		bytes(len(c.Value(i)))
		return append(b, c.Value(i)...)
	case *array.Boolean:
		if c.Value(i) {
			return append(b, 1)
		}
		return append(b, 0)
	case *array.Decimal128:
		n := c.Value(i)
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(n.HighBits())), n.LowBits())
	}
	panic(fmt.Sprintf("a key of %s", column.DataType())) // Keyable has refused it
}

// Keyable tells whether rows can be told apart by a column.
func Keyable(t iceberg.Type) bool {
	switch t.(type) {
	case iceberg.Int32Type, iceberg.Int64Type, iceberg.DateType, iceberg.TimestampTzType, iceberg.TimestampType,
		iceberg.StringType, iceberg.BinaryType,
		iceberg.BooleanType, iceberg.DecimalType:
		return true
	}
	return false
}

// Columns are the columns that rows are compared by.
type Columns struct {
	Key     []string
	Version string // of type bigint; no value is older than any
}

// noVersion is the version of a row without one.
const noVersion = math.MinInt64

// row is what a row is compared by, with its place in the file.
type row struct {
	key     Key
	version int64
	at      int64
}

// rows reads the keys of a data file, deleted rows too, unless by the deletes of the task.
func (k Columns) rows(ctx context.Context, t *table.Table, retry connector.Retry,
	task table.FileScanTask) iter.Seq2[row, error] {
	const batchRows = 16 << 10
	task.Start, task.Length = 0, task.File.FileSizeBytes()
	return func(yield func(row, error) bool) {
		r := &tables.RowReader{Table: t, Retry: retry, Task: task, Size: batchRows,
			Options: []table.ScanOption{table.WithSelectedFields(append(slices.Clone(k.Key), k.Version)...)}}
		defer r.Close()
		var cells []byte
		for {
			first := r.Next
			batch, err := r.Read(ctx)
			if err != nil {
				yield(row{}, err)
				return
			}
			if batch == nil {
				return
			}
			key, version, err := k.columns(batch, r.Columns)
			for i := 0; err == nil && i < int(batch.NumRows()); i++ {
				cells = cells[:0]
				for _, column := range key {
					cells = AppendCell(cells, column, i)
				}
				next := row{key: KeyOf(cells), version: noVersion, at: first + int64(i)}
				if !version.IsNull(i) {
					next.version = version.Value(i)
				}
				if !yield(next, nil) {
					batch.Release()
					return
				}
			}
			batch.Release()
			if err != nil {
				yield(row{}, err)
				return
			}
		}
	}
}

// columns are the arrays of a batch, those of the key in their order.
func (k Columns) columns(batch arrow.RecordBatch,
	fields []iceberg.NestedField) (key []arrow.Array, version *array.Int64, err error) {
	key = make([]arrow.Array, len(k.Key))
	for i, f := range fields {
		if f.Name == k.Version {
			version, _ = batch.Column(i).(*array.Int64)
		}
		if at := slices.Index(k.Key, f.Name); at >= 0 && Keyable(f.Type) {
			key[at] = batch.Column(i)
		}
	}
	if version == nil || slices.Contains(key, nil) {
		return nil, nil, fail.New(fail.Fatal, "iceberg.key_columns",
			"the columns of the key and the version are not all there: %v, %s", k.Key, k.Version)
	}
	return key, version, nil
}
