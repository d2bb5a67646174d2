// Package columns reads the columns of Arrow, which Parquet files and tables give, as values of records.
package columns

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"reprise/transforms/record"
)

// Type is the type that holds the values of a column.
func Type(t arrow.DataType) (record.Type, error) {
	switch t := t.(type) {
	case *arrow.BooleanType:
		return record.Of(record.Boolean), nil
	case *arrow.Int8Type:
		return record.Of(record.TinyInt), nil
	case *arrow.Int16Type, *arrow.Uint8Type:
		return record.Of(record.SmallInt), nil
	case *arrow.Int32Type, *arrow.Uint16Type:
		return record.Of(record.Int), nil
	case *arrow.Int64Type, *arrow.Uint32Type:
		return record.Of(record.BigInt), nil
	case *arrow.Uint64Type:
		return record.Of(record.Varint), nil
	case *arrow.NullType:
		return record.Of(record.Text), nil
	case *arrow.Float16Type, *arrow.Float32Type:
		return record.Of(record.Float), nil
	case *arrow.Float64Type:
		return record.Of(record.Double), nil
	case *arrow.Decimal128Type, *arrow.Decimal256Type:
		return record.Of(record.Decimal), nil
	case *arrow.StringType, *arrow.LargeStringType, *arrow.StringViewType:
		return record.Of(record.Text), nil
	case *arrow.BinaryType, *arrow.LargeBinaryType, *arrow.BinaryViewType, *arrow.FixedSizeBinaryType:
		return record.Of(record.Blob), nil
	case *arrow.TimestampType:
		return record.Of(record.Timestamp), nil
	case *arrow.Date32Type, *arrow.Date64Type:
		return record.Of(record.Date), nil
	case *arrow.Time32Type, *arrow.Time64Type:
		return record.Of(record.Time), nil
	case *arrow.DurationType:
		return record.Of(record.Duration), nil
	case *arrow.DictionaryType: // how values are stored says nothing of what they are
		return Type(t.ValueType)
	case arrow.ExtensionType:
		if t.ExtensionName() == "arrow.uuid" {
			return record.Of(record.UUID), nil
		}
		return Type(t.StorageType())
	case *arrow.MapType:
		key, err := Type(t.KeyType())
		if err != nil {
			return record.Type{}, err
		}
		item, err := Type(t.ItemType())
		return record.MapOf(key, item), err
	case arrow.ListLikeType:
		elem, err := Type(t.Elem())
		return record.ListOf(elem), err
	case *arrow.StructType:
		var parts []record.Field
		for _, f := range t.Fields() {
			e, err := Type(f.Type)
			if err != nil {
				return record.Type{}, err
			}
			parts = append(parts, record.Field{Name: f.Name, Type: e})
		}
		return record.UDTOf("", parts...), nil
	}
	return record.Type{}, fmt.Errorf("values of type %s cannot be read", t)
}

// JSON shows a row, for people: the columns of a schema's fields, nil where there is none.
func JSON(schema *record.Schema, columns []arrow.Array, row int) []byte {
	fields := map[string]any{}
	for i, f := range schema.Fields {
		if columns[i] != nil {
			fields[f.Name] = columns[i].GetOneForMarshal(row)
		}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return nil
	}
	return b
}

// Value is a column's value as the type says. A text column holds each type that is not nested as its text, and nested
// ones as JSON. What would lose something is an error.
func Value(a arrow.Array, i int, t record.Type, how record.Reading) (record.Value, error) {
	if a.IsNull(i) {
		return record.NullValue, nil
	}
	switch a := a.(type) {
	case *array.Null: // which has no bits that say so
		return record.NullValue, nil
	case *array.Boolean:
		if t.Kind == record.Boolean {
			return record.Bool(a.Value(i)), nil
		}
	case *array.Int8:
		return integer(int64(a.Value(i)), t)
	case *array.Int16:
		return integer(int64(a.Value(i)), t)
	case *array.Int32:
		return integer(int64(a.Value(i)), t)
	case *array.Int64:
		return integer(a.Value(i), t)
	case *array.Uint8:
		return integer(int64(a.Value(i)), t)
	case *array.Uint16:
		return integer(int64(a.Value(i)), t)
	case *array.Uint32:
		return integer(int64(a.Value(i)), t)
	case *array.Uint64:
		return record.FromJSON(t, strconv.FormatUint(a.Value(i), 10))
	case *array.Float16:
		return float(float64(a.Value(i).Float32()), t)
	case *array.Float32:
		return float(float64(a.Value(i)), t)
	case *array.Float64:
		return float(a.Value(i), t)
	case *array.Decimal128:
		return decimal(a.Value(i).BigInt(), a.DataType().(*arrow.Decimal128Type).Scale, t)
	case *array.Decimal256:
		return decimal(a.Value(i).BigInt(), a.DataType().(*arrow.Decimal256Type).Scale, t)
	case *array.String:
		return fromText(a.Value(i), t, how)
	case *array.StringView:
		return fromText(a.Value(i), t, how)
	case *array.LargeString:
		return fromText(a.Value(i), t, how)
	case *array.Binary:
		return fromBytes(a.Value(i), t)
	case *array.BinaryView:
		return fromBytes(a.Value(i), t)
	case *array.LargeBinary:
		return fromBytes(a.Value(i), t)
	case *array.FixedSizeBinary:
		return fromBytes(a.Value(i), t)
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		return fromTicks(int64(a.Value(i)), unit.Multiplier(), time.Millisecond, record.Timestamp, t, how)
	case *array.Date32:
		if t.Kind == record.Date {
			return record.Number(record.Date, int64(a.Value(i))), nil
		}
	case *array.Date64:
		if ms := int64(a.Value(i)); t.Kind == record.Date && ms%86_400_000 == 0 {
			return record.Number(record.Date, ms/86_400_000), nil
		}
	case *array.Duration:
		n, unit := int64(a.Value(i)), int64(a.DataType().(*arrow.DurationType).Unit.Multiplier())
		switch {
		case t.Kind == record.BigInt:
			return record.Number(record.BigInt, n), nil
		case t.Kind == record.Duration && n*unit/unit == n:
			return record.Span(0, 0, n*unit), nil
		}
	case *array.Dictionary:
		return Value(a.Dictionary(), a.GetValueIndex(i), t, how)
	case *array.Time32:
		unit := a.DataType().(*arrow.Time32Type).Unit
		return fromTicks(int64(a.Value(i)), unit.Multiplier(), time.Nanosecond, record.Time, t, how)
	case *array.Time64:
		unit := a.DataType().(*arrow.Time64Type).Unit
		return fromTicks(int64(a.Value(i)), unit.Multiplier(), time.Nanosecond, record.Time, t, how)
	case array.ExtensionArray:
		return Value(a.Storage(), i, t, how)
	case *array.Map:
		if t.Kind == record.Map {
			from, to := a.ValueOffsets(i)
			var elems []record.Value
			for j := from; j < to; j++ {
				for k, column := range []arrow.Array{a.Keys(), a.Items()} {
					v, err := Value(column, int(j), t.Elems[k], how)
					if err != nil {
						return v, err
					}
					elems = append(elems, v)
				}
			}
			return record.Nested(record.Map, elems), nil
		}
	case array.ListLike:
		if t.Kind == record.List || t.Kind == record.Set || t.Kind == record.Vector {
			return list(a, i, t, how)
		}
	case *array.Struct:
		if t.Kind == record.UDT || t.Kind == record.Tuple {
			return structure(a, i, t, how)
		}
	}
	return record.Value{}, mismatch(a, t)
}

func mismatch(a arrow.Array, t record.Type) error {
	return fmt.Errorf("a %s cannot be read as %s", a.DataType(), t)
}

func integer(n int64, t record.Type) (record.Value, error) {
	switch t.Kind {
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt:
		if spare := 64 - record.IntBits(t.Kind); n<<spare>>spare != n {
			return record.Value{}, fmt.Errorf("%d is not a valid %s", n, t)
		}
		return record.Number(t.Kind, n), nil
	case record.Varint, record.Decimal, record.Double, record.Float:
		return record.FromJSON(t, strconv.FormatInt(n, 10))
	case record.Timestamp:
		return record.Millis(n)
	}
	return record.Value{}, fmt.Errorf("an integer cannot be read as %s", t)
}

func decimal(n *big.Int, scale int32, t record.Type) (record.Value, error) {
	v := record.Dec(record.VarintBytes(n), scale)
	if t.Kind == record.Decimal {
		return v, nil
	}
	return record.FromJSON(t, v.Text(record.Of(record.Decimal)))
}

func fromText(s string, t record.Type, how record.Reading) (record.Value, error) {
	if !utf8.ValidString(s) {
		return record.Value{}, fmt.Errorf("bytes that are not UTF-8")
	}
	s = strings.Clone(s) // it is a part of the batch
	return how.ParseText(t, s)
}

func fromBytes(b []byte, t record.Type) (record.Value, error) {
	switch {
	case t.Kind == record.Blob,
		(t.Kind == record.UUID || t.Kind == record.TimeUUID) && len(b) == 16,
		t.Kind == record.Inet && (len(b) == 4 || len(b) == 16):
		return record.Bytes(t.Kind, string(b)), nil
	}
	return record.Value{}, fmt.Errorf("%d bytes cannot be read as %s", len(b), t)
}

// float reads a number of at most 64 bits.
func float(f float64, t record.Type) (record.Value, error) {
	switch single := float32(f); {
	case t.Kind == record.Double:
		return record.Float64(f), nil
	case t.Kind == record.Float && (float64(single) == f || math.IsNaN(f)):
		return record.Float32(single), nil
	}
	return record.Value{}, fmt.Errorf("%g is not a valid %s", f, t)
}

// fromTicks reads a number of ticks as kind, which counts in unit; as bigint it stays what it is.
func fromTicks(n int64, tick, unit time.Duration, kind record.Kind, t record.Type,
	how record.Reading) (record.Value, error) {
	if t.Kind == record.BigInt {
		return record.Number(record.BigInt, n), nil
	}
	if t.Kind != kind {
		return record.Value{}, fmt.Errorf("a %s cannot be read as %s", kind, t)
	}
	if tick >= unit {
		per := int64(tick / unit)
		if n*per/per != n {
			return record.Value{}, fmt.Errorf("%d is beyond the range of a %s", n, kind)
		}
		return record.Number(kind, n*per), nil
	}
	per := int64(unit / tick)
	whole := n / per
	switch {
	case n%per != 0 && !how.CutTimestamps:
		return record.Value{}, record.ErrFiner
	case n%per < 0:
		whole--
	}
	return record.Number(kind, whole), nil
}

func list(a array.ListLike, i int, t record.Type, how record.Reading) (record.Value, error) {
	from, to := a.ValueOffsets(i)
	if t.Kind == record.Vector && int(to-from) != t.Dim {
		return record.Value{}, fmt.Errorf("%d elements are no %s", to-from, t)
	}
	elems := make([]record.Value, 0, to-from)
	for j := from; j < to; j++ {
		v, err := Value(a.ListValues(), int(j), t.Elems[0], how)
		if err != nil {
			return v, err
		}
		elems = append(elems, v)
	}
	return record.Nested(t.Kind, elems), nil
}

func structure(a *array.Struct, i int, t record.Type, how record.Reading) (record.Value, error) {
	elems := make([]record.Value, len(t.Elems))
	fields := a.DataType().(*arrow.StructType)
	for j, e := range t.Elems {
		column, ok := j, j < a.NumField()
		if t.Kind == record.UDT {
			column, ok = fields.FieldIdx(t.Names[j])
		}
		if !ok {
			return record.Value{}, mismatch(a, t)
		}
		v, err := Value(a.Field(column), i, e, how)
		if err != nil {
			return v, err
		}
		elems[j] = v
	}
	return record.Nested(t.Kind, elems), nil
}
