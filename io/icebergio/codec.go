package icebergio

import (
	"math"
	"math/big"
	"unicode/utf8"

	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// cellCodec stores the values of one type in a column, or in a part of one. Values are checked before any of their
// record goes to Arrow, whose builders cannot take back what they hold.
type cellCodec struct {
	kind     record.Kind
	required bool
	check    func(record.Value) error               // of a value of the kind; nil: each one fits
	bind     func(array.Builder) func(record.Value) // appends a value that has passed check
	value    func(record.Value) any                 // what a partition transform takes; nil: is no partition
}

// fits is the error of a value that the column cannot hold.
func (c *cellCodec) fits(v record.Value) error {
	switch {
	case v.IsNull():
		if c.required {
			// Trap: Parquet would silently hold "" or 0.
			return unfit("null_in_required", "is null, but the column is required")
		}
		return nil
	case v.Kind() != c.kind:
		return unfit("type", "is a %s, not a %s", v.Kind(), c.kind)
	case c.check != nil:
		return c.check(v)
	}
	return nil
}

// appender appends values that fit, nulls too.
func (c *cellCodec) appender(b array.Builder) func(record.Value) {
	add := c.bind(b)
	return func(v record.Value) {
		if v.IsNull() {
			b.AppendNull()
			return
		}
		add(v)
	}
}

func unfit(code, format string, args ...any) error {
	return fail.New(fail.Permanent, "iceberg."+code, format, args...)
}

// newCodec gives the cellCodec between a type and the type of a column, or says why there is none.
func newCodec(t record.Type, column iceberg.Type, required bool) (*cellCodec, error) {
	c := &cellCodec{kind: t.Kind, required: required}
	switch t.Kind {
	case record.List, record.Set, record.Vector:
		return c, c.list(t, column)
	case record.Map:
		return c, c.mapping(t, column)
	case record.Tuple, record.UDT:
		return c, c.structure(t, column)
	}
	if d, ok := column.(iceberg.DecimalType); ok && (t.Kind == record.Decimal || t.Kind == record.Varint) {
		c.decimal(d)
		return c, nil
	}
	if !slices.ContainsFunc(storedAs[t.Kind], column.Equals) {
		return nil, mismatch(t, column)
	}
	switch column.(type) {
	case iceberg.BooleanType:
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.BooleanBuilder)
			return func(v record.Value) { to.Append(v.Bool()) }
		}
		c.value = func(v record.Value) any { return v.Bool() }
	case iceberg.Int32Type:
		c.check = within(math.MinInt32, math.MaxInt32)
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.Int32Builder)
			return func(v record.Value) { to.Append(int32(v.Int())) }
		}
		c.value = func(v record.Value) any { return int32(v.Int()) }
	case iceberg.Int64Type:
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.Int64Builder)
			return func(v record.Value) { to.Append(v.Int()) }
		}
		c.value = func(v record.Value) any { return v.Int() }
	case iceberg.Float32Type:
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.Float32Builder)
			return func(v record.Value) { to.Append(float32(v.Float())) }
		}
	case iceberg.Float64Type:
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.Float64Builder)
			return func(v record.Value) { to.Append(v.Float()) }
		}
	case iceberg.DateType:
		c.check = within(math.MinInt32, math.MaxInt32)
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.Date32Builder)
			return func(v record.Value) { to.Append(arrow.Date32(v.Int())) }
		}
		c.value = func(v record.Value) any { return iceberg.Date(v.Int()) }
	case iceberg.TimestampTzType:
		c.check = within(math.MinInt64/1000, math.MaxInt64/1000)
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.TimestampBuilder)
			return func(v record.Value) { to.Append(arrow.Timestamp(v.Int() * 1000)) }
		}
		c.value = func(v record.Value) any { return iceberg.Timestamp(v.Int() * 1000) }
	case iceberg.BinaryType:
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.BinaryBuilder)
			return func(v record.Value) { to.AppendString(v.Str()) }
		}
		c.value = func(v record.Value) any { return []byte(v.Str()) }
	case iceberg.StringType:
		c.text(t)
	}
	return c, nil
}

func mismatch(t record.Type, column iceberg.Type) error {
	switch column.(type) {
	case iceberg.UUIDType:
		return fmt.Errorf("is a uuid, which engines filter wrongly (apache/iceberg#14216); make it a string")
	case iceberg.TimeType:
		return fmt.Errorf("is a time, which Spark cannot read; make it a string")
	}
	wanted := defaultType(t, func() int { return 0 })
	return fmt.Errorf("is %s, but %s needs %s", column, t, wanted)
}

func within(least, most int64) func(record.Value) error {
	return func(v record.Value) error {
		if n := v.Int(); n < least || n > most {
			return unfit("out_of_range", "%s is out of the column's range", v.Text(record.Of(v.Kind())))
		}
		return nil
	}
}

// text stores a value as a string: a text as it is, others as record.Value.AppendText writes them.
func (c *cellCodec) text(t record.Type) {
	if t.Kind == record.Text {
		c.check = func(v record.Value) error {
			if !utf8.ValidString(v.Str()) {
				return unfit("invalid_utf8", "is not UTF-8")
			}
			return nil
		}
		c.bind = func(b array.Builder) func(record.Value) {
			to := b.(*array.StringBuilder)
			return func(v record.Value) { to.Append(v.Str()) }
		}
		c.value = func(v record.Value) any { return v.Str() }
		return
	}
	length := map[record.Kind][]int{record.UUID: {16}, record.TimeUUID: {16}, record.Inet: {4, 16}}[t.Kind]
	if length != nil {
		c.check = func(v record.Value) error {
			if !slices.Contains(length, len(v.Str())) {
				return unfit("type", "has %d bytes, which is not a valid %s", len(v.Str()), t)
			}
			return nil
		}
	}
	c.bind = func(b array.Builder) func(record.Value) {
		to := b.(*array.StringBuilder)
		var text []byte
		return func(v record.Value) {
			text = v.AppendText(text[:0], t)
			to.BinaryBuilder.Append(text)
		}
	}
	c.value = func(v record.Value) any { return v.Text(t) }
}

// decimal stores decimals and varints that fit without rounding.
func (c *cellCodec) decimal(d iceberg.DecimalType) {
	precision, scale := int32(d.Precision()), int32(d.Scale())
	c.check = func(v record.Value) error {
		if _, ok := rescale(v, precision, scale); !ok {
			return unfit("decimal_overflow", "%.60s does not fit into %s", v.Text(record.Of(v.Kind())), d)
		}
		return nil
	}
	c.bind = func(b array.Builder) func(record.Value) {
		to := b.(*array.Decimal128Builder)
		return func(v record.Value) {
			n, _ := rescale(v, precision, scale)
			to.Append(n)
		}
	}
	c.value = func(v record.Value) any {
		n, _ := rescale(v, precision, scale)
		return iceberg.Decimal{Val: n, Scale: int(scale)}
	}
}

// rescale gives the unscaled number of a decimal or varint at another scale, and whether it fits as it is.
func rescale(v record.Value, precision, scale int32) (decimal128.Num, bool) {
	from := int64(0)
	if v.Kind() == record.Decimal {
		from = v.Int()
	}
	up := int64(scale) - from
	if len(v.Str()) <= 8 && up >= 0 && up <= 18 {
		n := decimal128.FromI64(smallInt(v.Str()))
		if up > 0 {
			n = n.Mul(decimal128.GetScaleMultiplier(int(up)))
		}
		return n, n.FitsInPrecision(precision)
	}
	n := v.BigInt()
	if n.Sign() == 0 {
		return decimal128.Num{}, true
	}
	switch {
	case up > 38 || up < -1000: // cannot fit, or is not worth the digits
		return decimal128.Num{}, false
	case up > 0:
		n.Mul(n, pow10(up))
	case up < 0:
		var rest big.Int
		if n.QuoRem(n, pow10(-up), &rest); rest.Sign() != 0 {
			return decimal128.Num{}, false
		}
	}
	if n.BitLen() > 127 {
		return decimal128.Num{}, false
	}
	fitting := decimal128.FromBigInt(n)
	return fitting, fitting.FitsInPrecision(precision)
}

func pow10(n int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil) }

// smallInt reads at most eight bytes of big-endian two's complement.
func smallInt(b string) int64 {
	if b == "" {
		return 0
	}
	n := int64(int8(b[0]))
	for i := 1; i < len(b); i++ {
		n = n<<8 | int64(b[i])
	}
	return n
}

func (c *cellCodec) list(t record.Type, column iceberg.Type) error {
	l, ok := column.(*iceberg.ListType)
	if !ok {
		return mismatch(t, column)
	}
	elem, err := newCodec(t.Elems[0], l.Element, l.ElementRequired)
	if err != nil {
		return fmt.Errorf("has elements whose type %w", err)
	}
	c.check = func(v record.Value) error {
		for _, e := range v.Elems() {
			if err := elem.fits(e); err != nil {
				return inside("an element", err)
			}
		}
		return nil
	}
	c.bind = func(b array.Builder) func(record.Value) {
		to := b.(*array.ListBuilder)
		add := elem.appender(to.ValueBuilder())
		return func(v record.Value) {
			to.Append(true)
			for _, e := range v.Elems() {
				add(e)
			}
		}
	}
	return nil
}

func (c *cellCodec) mapping(t record.Type, column iceberg.Type) error {
	m, ok := column.(*iceberg.MapType)
	if !ok {
		return mismatch(t, column)
	}
	key, err := newCodec(t.Elems[0], m.KeyType, true)
	if err != nil {
		return fmt.Errorf("has keys whose type %w", err)
	}
	value, err := newCodec(t.Elems[1], m.ValueType, m.ValueRequired)
	if err != nil {
		return fmt.Errorf("has values whose type %w", err)
	}
	c.check = func(v record.Value) error {
		parts := v.Elems()
		if len(parts)%2 != 0 {
			return unfit("type", "is a map with a key that has no value")
		}
		for i := 0; i < len(parts); i += 2 {
			if err := key.fits(parts[i]); err != nil {
				return inside("a key", err)
			}
			if err := value.fits(parts[i+1]); err != nil {
				return inside("a value", err)
			}
		}
		return nil
	}
	c.bind = func(b array.Builder) func(record.Value) {
		to := b.(*array.MapBuilder)
		addKey, addValue := key.appender(to.KeyBuilder()), value.appender(to.ItemBuilder())
		return func(v record.Value) {
			to.Append(true)
			parts := v.Elems()
			for i := 0; i < len(parts); i += 2 {
				addKey(parts[i])
				addValue(parts[i+1])
			}
		}
	}
	return nil
}

// structure stores tuples and UDTs. A value written before its type grew lacks the last parts: they are null.
func (c *cellCodec) structure(t record.Type, column iceberg.Type) error {
	s, ok := column.(*iceberg.StructType)
	if !ok {
		return mismatch(t, column)
	}
	parts := make([]*cellCodec, len(s.FieldList)) // nil: a column of the table alone
	from := make([]int, len(s.FieldList))
	for i := range t.Elems {
		at := slices.IndexFunc(s.FieldList, func(f iceberg.NestedField) bool { return f.Name == partName(t, i) })
		if at < 0 {
			return fmt.Errorf("lacks the part %q", partName(t, i))
		}
		var err error
		if parts[at], err = newCodec(t.Elems[i], s.FieldList[at].Type, s.FieldList[at].Required); err != nil {
			return fmt.Errorf("has a part %q that %w", partName(t, i), err)
		}
		from[at] = i
	}
	for i, f := range s.FieldList {
		if parts[i] == nil && f.Required {
			return fmt.Errorf("requires a part %q, which the records lack", f.Name)
		}
	}
	part := func(v record.Value, i int) record.Value {
		if elems := v.Elems(); parts[i] != nil && from[i] < len(elems) {
			return elems[from[i]]
		}
		return record.NullValue
	}
	c.check = func(v record.Value) error {
		if len(v.Elems()) > len(t.Elems) {
			return unfit("type", "has %d parts, its type %d", len(v.Elems()), len(t.Elems))
		}
		for i, p := range parts {
			if p == nil {
				continue
			}
			if err := p.fits(part(v, i)); err != nil {
				return inside("part "+s.FieldList[i].Name, err)
			}
		}
		return nil
	}
	c.bind = func(b array.Builder) func(record.Value) {
		to := b.(*array.StructBuilder)
		add := make([]func(record.Value), len(parts))
		for i, p := range parts {
			if p == nil {
				p = &cellCodec{bind: func(array.Builder) func(record.Value) { return nil }}
			}
			add[i] = p.appender(to.FieldBuilder(i))
		}
		return func(v record.Value) {
			to.Append(true)
			for i := range add {
				add[i](part(v, i))
			}
		}
	}
	return nil
}

// inside says where in a nested value something does not fit.
func inside(where string, err error) error {
	return fail.New(fail.Permanent, fail.CodeOf(err), "%s %s", where, err.(*fail.Error).Message)
}
