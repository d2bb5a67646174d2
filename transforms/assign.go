package transforms

import (
	"fmt"
	"math"
	"math/big"
	"sort"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"reprise/transforms/record"
)

// naturalType is the type of a new field that holds results of an expression; false where only its user can know.
func naturalType(x *expression) (record.Type, bool) {
	if x.typ.Kind != record.Unset {
		return x.typ, true
	}
	return naturalOf(x.out)
}

func naturalOf(t *cel.Type) (record.Type, bool) {
	t = required(t)
	switch t.Kind() {
	case types.BoolKind:
		return record.Of(record.Boolean), true
	case types.IntKind:
		return record.Of(record.BigInt), true
	case types.DoubleKind:
		return record.Of(record.Double), true
	case types.StringKind:
		return record.Of(record.Text), true
	case types.BytesKind:
		return record.Of(record.Blob), true
	case types.TimestampKind:
		return record.Of(record.Timestamp), true
	case types.DurationKind:
		return record.Of(record.Duration), true
	case types.ListKind:
		elem, ok := naturalOf(t.Parameters()[0])
		return record.ListOf(elem), ok
	case types.MapKind:
		key, ok := naturalOf(t.Parameters()[0])
		value, ok2 := naturalOf(t.Parameters()[1])
		return record.MapOf(key, value), ok && ok2
	}
	return record.Type{}, false
}

// required is the type of an optional value, such as attrs[?"camera"], that is there.
func required(t *cel.Type) *cel.Type {
	if t.Kind() == types.OpaqueKind && t.TypeName() == "optional_type" {
		return t.Parameters()[0]
	}
	return t
}

// textForm tells whether expressions see a kind as its text.
func textForm(k record.Kind) bool {
	switch k {
	case record.Text, record.UUID, record.TimeUUID, record.Inet, record.Varint, record.Decimal, record.Time,
		record.Duration:
		return true
	}
	return false
}

// assignable tells whether results of type from may fit a field of type to; the values decide the rest.
func assignable(from *cel.Type, to record.Type) bool {
	from = required(from)
	switch from.Kind() {
	case types.DynKind, types.NullTypeKind:
		return true
	case types.BoolKind:
		return to.Kind == record.Boolean
	case types.IntKind, types.UintKind:
		return to.Kind.Integer() || to.Kind == record.Varint || to.Kind == record.Decimal || to.Kind == record.Float ||
			to.Kind == record.Double
	case types.DoubleKind:
		return to.Kind == record.Float || to.Kind == record.Double
	case types.StringKind:
		return textForm(to.Kind)
	case types.BytesKind:
		return to.Kind == record.Blob
	case types.TimestampKind:
		return to.Kind == record.Timestamp || to.Kind == record.Date
	case types.DurationKind:
		return to.Kind == record.Duration || to.Kind == record.Time
	case types.ListKind:
		switch to.Kind {
		case record.List, record.Set, record.Vector:
			return assignable(from.Parameters()[0], to.Elems[0])
		}
		return to.Kind == record.Tuple
	case types.MapKind:
		if to.Kind == record.Map {
			return assignable(from.Parameters()[0], to.Elems[0]) && assignable(from.Parameters()[1], to.Elems[1])
		}
		return to.Kind == record.UDT
	}
	return false
}

// fromCEL is the result of an expression as a value of type t. What does not fit is an error; a double becomes the
// nearest float, a time the millisecond or the day (UTC) that it is in; a set keeps each value once.
func fromCEL(v ref.Val, t record.Type) (record.Value, error) {
	switch v := v.(type) {
	case types.Null:
		return record.NullValue, nil
	case *types.Optional: // one that is not there is null
		if !v.HasValue() {
			return record.NullValue, nil
		}
		return fromCEL(v.GetValue(), t)
	case *listValue:
		if v.t.Same(t) {
			return v.v, nil
		}
	case *mapValue:
		if v.t.Same(t) {
			return v.v, nil
		}
	}
	switch v := v.(type) {
	case types.Bool:
		if t.Kind == record.Boolean {
			return record.Bool(bool(v)), nil
		}
	case types.Int:
		return integerTo(int64(v), t)
	case types.Uint:
		if v <= math.MaxInt64 {
			return integerTo(int64(v), t)
		}
	case types.Double:
		return doubleTo(float64(v), t)
	case types.String:
		if textForm(t.Kind) {
			return record.Parse(t, string(v))
		}
	case types.Bytes:
		if t.Kind == record.Blob {
			return record.Bytes(record.Blob, string(v)), nil
		}
	case types.Timestamp:
		switch t.Kind {
		case record.Timestamp:
			return record.Number(record.Timestamp, v.UnixMilli()), nil
		case record.Date:
			return dayOf(v.UnixMilli())
		}
	case types.Duration:
		switch {
		case t.Kind == record.Duration:
			return record.Span(0, 0, int64(v.Duration)), nil
		case t.Kind == record.Time && v.Duration >= 0 && v.Duration < 24*time.Hour:
			return record.Number(record.Time, int64(v.Duration)), nil
		}
	case traits.Lister:
		return listTo(v, t)
	case traits.Mapper:
		return mapTo(v, t)
	}
	return record.Value{}, fmt.Errorf("the result, of type %s, does not fit a %s", v.Type().TypeName(), t)
}

func integerTo(n int64, t record.Type) (record.Value, error) {
	switch {
	case t.Kind.Integer():
		return integer(n, t.Kind)
	case t.Kind == record.Varint:
		return record.Bytes(record.Varint, record.VarintBytes(big.NewInt(n))), nil
	case t.Kind == record.Decimal:
		return record.Dec(record.VarintBytes(big.NewInt(n)), 0), nil
	case t.Kind == record.Double || t.Kind == record.Float:
		return exactFloat(big.NewInt(n), t.Kind)
	}
	return record.Value{}, fmt.Errorf("%d is not a valid %s", n, t)
}

// integer is a number of an integer kind, if it is wide enough.
func integer(n int64, k record.Kind) (record.Value, error) {
	if bits := record.IntBits(k); bits < 64 && (n < -1<<(bits-1) || n >= 1<<(bits-1)) {
		return record.Value{}, fmt.Errorf("%d is out of the range of a %s", n, k)
	}
	return record.Number(k, n), nil
}

// exactFloat is an integer as a float or double, if it has no more digits than that holds.
func exactFloat(n *big.Int, k record.Kind) (record.Value, error) {
	f := new(big.Float).SetInt(n)
	if k == record.Float {
		if single, accuracy := f.Float32(); accuracy == big.Exact && !math.IsInf(float64(single), 0) {
			return record.Float32(single), nil
		}
	} else if double, accuracy := f.Float64(); accuracy == big.Exact && !math.IsInf(double, 0) {
		return record.Float64(double), nil
	}
	return record.Value{}, fmt.Errorf("%.60s has more digits than a %s holds", n, k)
}

func doubleTo(f float64, t record.Type) (record.Value, error) {
	switch t.Kind {
	case record.Double:
		return record.Float64(f), nil
	case record.Float:
		if single := float32(f); !math.IsInf(float64(single), 0) || math.IsInf(f, 0) {
			return record.Float32(single), nil
		}
		return record.Value{}, fmt.Errorf("%g is out of the range of a float", f)
	}
	return record.Value{}, fmt.Errorf("%g is not a valid %s", f, t)
}

// dayOf is the day of a time in milliseconds.
func dayOf(ms int64) (record.Value, error) {
	const day = 86_400_000
	d := ms / day
	if ms%day < 0 {
		d--
	}
	if d != int64(int32(d)) {
		at := record.Number(record.Timestamp, ms).Text(record.Of(record.Timestamp))
		return record.Value{}, fmt.Errorf("%s is beyond the range of a date", at)
	}
	return record.Number(record.Date, d), nil
}

func listTo(list traits.Lister, t record.Type) (record.Value, error) {
	n := int(list.Size().(types.Int))
	switch {
	case t.Kind == record.List || t.Kind == record.Set:
	case t.Kind == record.Vector && n == t.Dim, t.Kind == record.Tuple && n == len(t.Elems):
	default:
		return record.Value{}, fmt.Errorf("a list of %d does not fit a %s", n, t)
	}
	parts := make([]record.Value, n)
	for i := range parts {
		elem := t.Elems[0]
		if t.Kind == record.Tuple {
			elem = t.Elems[i]
		}
		var err error
		if parts[i], err = fromCEL(list.Get(types.Int(i)), elem); err != nil {
			return record.Value{}, err
		}
	}
	if t.Kind == record.Set {
		parts = distinct(parts)
	}
	return record.Nested(t.Kind, parts), nil
}

// distinct keeps the first of equal values, in order.
func distinct(values []record.Value) []record.Value {
	seen := make(map[string]bool, len(values))
	var wire []byte
	kept := values[:0]
	for _, v := range values {
		wire = record.AppendValue(wire[:0], v)
		if !seen[string(wire)] {
			seen[string(wire)] = true
			kept = append(kept, v)
		}
	}
	return kept
}

func mapTo(m traits.Mapper, t record.Type) (record.Value, error) {
	switch t.Kind {
	case record.Map:
		return entriesTo(m, t)
	case record.UDT:
		return udtTo(m, t)
	}
	return record.Value{}, fmt.Errorf("a map is not a valid %s", t)
}

// entriesTo sorts by key, since CEL has no order of its own and the same record must give the same result.
func entriesTo(m traits.Mapper, t record.Type) (record.Value, error) {
	type pair struct {
		text       string
		key, value record.Value
	}
	var pairs []pair
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		key, err := fromCEL(k, t.Elems[0])
		if err != nil {
			return record.Value{}, err
		}
		value, err := fromCEL(m.Get(k), t.Elems[1])
		if err != nil {
			return record.Value{}, err
		}
		pairs = append(pairs, pair{key.Text(t.Elems[0]), key, value})
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].text < pairs[j].text })
	parts := make([]record.Value, 0, 2*len(pairs))
	for _, p := range pairs {
		parts = append(parts, p.key, p.value)
	}
	return record.Nested(record.Map, parts), nil
}

// udtTo leaves parts out of the map null; a key that is no part is an error.
func udtTo(m traits.Mapper, t record.Type) (record.Value, error) {
	parts := make([]record.Value, len(t.Elems))
	found := 0
	for i, name := range t.Names {
		parts[i] = record.NullValue
		v, ok := m.Find(types.String(name))
		if !ok {
			continue
		}
		found++
		var err error
		if parts[i], err = fromCEL(v, t.Elems[i]); err != nil {
			return record.Value{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if n := int(m.Size().(types.Int)); n != found {
		return record.Value{}, fmt.Errorf("%d keys of the map are no part of a %s", n-found, t)
	}
	return record.Nested(record.UDT, parts), nil
}
