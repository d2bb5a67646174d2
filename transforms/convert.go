package transforms

import (
	"fmt"
	"math"
	"math/big"
	"strconv"

	"reprise/transforms/record"
)

// conversion makes a value of another type of one that is not null.
type conversion func(record.Value) (record.Value, error)

// converter is the conversion from one type to another, or an error where there is none. Nothing is lost but what the
// target cannot tell by its nature: digits beyond those of a float or double, the time of day of a date, the order and
// repeats of a set.
func converter(from, to record.Type) (conversion, error) {
	switch {
	case from.Same(to):
		return func(v record.Value) (record.Value, error) { return v, nil }, nil
	case to.Kind == record.Text:
		return func(v record.Value) (record.Value, error) { return record.String(v.Text(from)), nil }, nil
	case from.Kind == record.Text && to.Kind.Nested():
		return func(v record.Value) (record.Value, error) { return record.FromJSON(to, v.Str()) }, nil
	case from.Kind == record.Text:
		return func(v record.Value) (record.Value, error) { return record.Parse(to, v.Str()) }, nil
	case isSequence(from.Kind) && isSequence(to.Kind):
		return sequenceConverter(from, to)
	case from.Kind == record.Map && to.Kind == record.Map:
		return mapConverter(from, to)
	case from.Kind == record.Tuple && to.Kind == record.Tuple && len(from.Elems) == len(to.Elems):
		return partsConverter(from, to, record.Tuple, func(i int) int { return i })
	case from.Kind == record.UDT && to.Kind == record.UDT:
		return udtConverter(from, to)
	}
	if c := plainConverter(from.Kind, to.Kind); c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("a %s cannot become a %s", from, to)
}

func isSequence(k record.Kind) bool {
	return k == record.List || k == record.Set || k == record.Vector
}

// orNull applies a conversion to what is not null.
func (c conversion) orNull(v record.Value) (record.Value, error) {
	if v.IsNull() {
		return v, nil
	}
	return c(v)
}

func sequenceConverter(from, to record.Type) (conversion, error) {
	elem, err := converter(from.Elems[0], to.Elems[0])
	if err != nil {
		return nil, err
	}
	return func(v record.Value) (record.Value, error) {
		if to.Kind == record.Vector && len(v.Elems()) != to.Dim {
			return record.Value{}, fmt.Errorf("%d parts are no %s", len(v.Elems()), to)
		}
		parts, err := convertAll(v.Elems(), func(int) conversion { return elem })
		if err != nil {
			return record.Value{}, err
		}
		if to.Kind == record.Set {
			parts = distinct(parts)
		}
		return record.Nested(to.Kind, parts), nil
	}, nil
}

func mapConverter(from, to record.Type) (conversion, error) {
	key, err := converter(from.Elems[0], to.Elems[0])
	if err != nil {
		return nil, err
	}
	value, err := converter(from.Elems[1], to.Elems[1])
	if err != nil {
		return nil, err
	}
	return func(v record.Value) (record.Value, error) {
		parts, err := convertAll(v.Elems(), func(i int) conversion {
			if i%2 == 0 {
				return key
			}
			return value
		})
		if err != nil {
			return record.Value{}, err
		}
		seen := map[string]bool{}
		for i := 0; i < len(parts); i += 2 {
			text := parts[i].Text(to.Elems[0])
			if seen[text] {
				return record.Value{}, fmt.Errorf("two keys of the map become %.60q", text)
			}
			seen[text] = true
		}
		return record.Nested(record.Map, parts), nil
	}, nil
}

func udtConverter(from, to record.Type) (conversion, error) {
	places := map[string]int{}
	for i, name := range from.Names {
		places[name] = i
	}
	source := make([]int, len(to.Names)) // of each part of to, in from; -1: none
	for i, name := range to.Names {
		source[i] = -1
		if p, ok := places[name]; ok {
			source[i] = p
			delete(places, name)
		}
	}
	for name := range places {
		return nil, fmt.Errorf("the part %q of a %s is not in a %s", name, from, to)
	}
	return partsConverter(from, to, record.UDT, func(i int) int { return source[i] })
}

// partsConverter makes each part i of to of the part source(i) of from; -1: null.
func partsConverter(from, to record.Type, k record.Kind, source func(i int) int) (conversion, error) {
	converters := make([]conversion, len(to.Elems))
	for i := range to.Elems {
		p := source(i)
		if p < 0 {
			continue
		}
		var err error
		if converters[i], err = converter(from.Elems[p], to.Elems[i]); err != nil {
			return nil, err
		}
	}
	return func(v record.Value) (record.Value, error) {
		parts := make([]record.Value, len(to.Elems))
		for i := range parts {
			p := source(i)
			if p < 0 || p >= len(v.Elems()) {
				parts[i] = record.NullValue
				continue
			}
			var err error
			if parts[i], err = converters[i].orNull(v.Elems()[p]); err != nil {
				return record.Value{}, err
			}
		}
		return record.Nested(k, parts), nil
	}, nil
}

func convertAll(values []record.Value, of func(i int) conversion) ([]record.Value, error) {
	out := make([]record.Value, len(values))
	for i, v := range values {
		var err error
		if out[i], err = of(i).orNull(v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// plainConverter is the conversion between kinds that are neither nested nor text; nil where there is none.
func plainConverter(from, to record.Kind) conversion {
	switch {
	case from.Integer():
		return fromInteger(to)
	case from == record.Varint:
		return fromVarint(to)
	case from == record.Decimal:
		return fromDecimal(to)
	case from == record.Float || from == record.Double:
		return fromFloat(from, to)
	case from == record.Timestamp && to.Integer():
		return func(v record.Value) (record.Value, error) { return integer(v.Int(), to) }
	case from == record.Timestamp && to == record.Date:
		return func(v record.Value) (record.Value, error) { return dayOf(v.Int()) }
	case from == record.Date && to == record.Timestamp:
		return func(v record.Value) (record.Value, error) { return record.Number(to, v.Int()*86_400_000), nil }
	case from == record.TimeUUID && to == record.Timestamp:
		return func(v record.Value) (record.Value, error) { return record.Number(to, v.Time().UnixMilli()), nil }
	case from == record.TimeUUID && to == record.UUID:
		return func(v record.Value) (record.Value, error) { return record.Bytes(to, v.Str()), nil }
	case from == record.UUID && to == record.TimeUUID:
		return func(v record.Value) (record.Value, error) {
			if u := v.Str(); len(u) == 16 && u[6]>>4 == 1 {
				return record.Bytes(to, u), nil
			}
			return record.Value{}, fmt.Errorf("%s is not a valid timeuuid: its version is not 1",
				v.Text(record.Of(from)))
		}
	}
	return nil
}

func fromInteger(to record.Kind) conversion {
	if to == record.Timestamp {
		return func(v record.Value) (record.Value, error) { return record.Millis(v.Int()) }
	}
	if !to.Integer() && to != record.Varint && to != record.Decimal && to != record.Float && to != record.Double {
		return nil
	}
	return func(v record.Value) (record.Value, error) { return integerTo(v.Int(), record.Of(to)) }
}

func fromVarint(to record.Kind) conversion {
	switch {
	case to.Integer():
		return func(v record.Value) (record.Value, error) { return bigTo(v.BigInt(), to) }
	case to == record.Decimal:
		return func(v record.Value) (record.Value, error) { return record.Dec(v.Str(), 0), nil }
	case to == record.Float || to == record.Double:
		return func(v record.Value) (record.Value, error) { return exactFloat(v.BigInt(), to) }
	}
	return nil
}

func bigTo(n *big.Int, to record.Kind) (record.Value, error) {
	if !n.IsInt64() {
		return record.Value{}, fmt.Errorf("%.60s is out of the range of a %s", n, to)
	}
	return integer(n.Int64(), to)
}

func fromDecimal(to record.Kind) conversion {
	switch {
	case to.Integer():
		return func(v record.Value) (record.Value, error) {
			n, err := whole(v)
			if err != nil {
				return record.Value{}, err
			}
			return bigTo(n, to)
		}
	case to == record.Varint:
		return func(v record.Value) (record.Value, error) {
			n, err := whole(v)
			if err != nil {
				return record.Value{}, err
			}
			return record.Bytes(record.Varint, record.VarintBytes(n)), nil
		}
	case to == record.Float || to == record.Double:
		return func(v record.Value) (record.Value, error) {
			return record.Parse(record.Of(to), v.Text(record.Of(record.Decimal)))
		}
	}
	return nil
}

// maxScale bounds the zeros that a decimal may have to become an integer.
const maxScale = 10_000

// whole is a decimal that has no fraction.
func whole(v record.Value) (*big.Int, error) {
	n, scale := v.BigInt(), v.Int()
	if scale == 0 || n.Sign() == 0 {
		return n, nil
	}
	if scale > maxScale || scale < -maxScale {
		return nil, fmt.Errorf("a decimal with scale %d is not an integer", scale)
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(max(scale, -scale)), nil)
	if scale < 0 {
		return n.Mul(n, power), nil
	}
	n, rest := n.QuoRem(n, power, new(big.Int))
	if rest.Sign() != 0 {
		return nil, fmt.Errorf("%.60s has a fraction", v.Text(record.Of(record.Decimal)))
	}
	return n, nil
}

func fromFloat(from, to record.Kind) conversion {
	bits := map[record.Kind]int{record.Float: 32, record.Double: 64}[from]
	switch {
	case to == record.Float || to == record.Double:
		return func(v record.Value) (record.Value, error) { return doubleTo(v.Float(), record.Of(to)) }
	case to.Integer() || to == record.Varint:
		return func(v record.Value) (record.Value, error) {
			f := v.Float()
			if f != math.Trunc(f) || math.IsInf(f, 0) {
				return record.Value{}, fmt.Errorf("%g is not a valid %s", f, to)
			}
			n, _ := big.NewFloat(f).Int(nil)
			if to == record.Varint {
				return record.Bytes(to, record.VarintBytes(n)), nil
			}
			return bigTo(n, to)
		}
	case to == record.Decimal: // of the shortest digits that read back as the same number
		return func(v record.Value) (record.Value, error) {
			return record.Parse(record.Of(to), strconv.FormatFloat(v.Float(), 'g', -1, bits))
		}
	}
	return nil
}
