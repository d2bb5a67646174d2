package transforms

import (
	"reflect"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"reprise/transforms/record"
)

// variableType is the type of a field in expressions; a plain one may be null.
func variableType(t record.Type) *cel.Type {
	ct := celType(t)
	switch ct.Kind() {
	case types.ListKind, types.MapKind:
		return ct
	}
	return cel.NullableType(ct)
}

func celType(t record.Type) *cel.Type {
	switch t.Kind {
	case record.Boolean:
		return cel.BoolType
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt:
		return cel.IntType
	case record.Float, record.Double:
		return cel.DoubleType
	case record.Blob:
		return cel.BytesType
	case record.Timestamp, record.Date:
		return cel.TimestampType
	case record.List, record.Set, record.Vector:
		return cel.ListType(celType(t.Elems[0]))
	case record.Tuple:
		return cel.ListType(cel.DynType)
	case record.Map:
		return cel.MapType(celType(t.Elems[0]), celType(t.Elems[1]))
	case record.UDT:
		return cel.MapType(cel.StringType, cel.DynType)
	}
	return cel.StringType
}

// toCEL is a value as expressions see it. Nested values are converted when their parts are asked for; one that is null
// is empty.
func toCEL(v record.Value, t *record.Type) ref.Val {
	switch t.Kind {
	case record.List, record.Set, record.Vector, record.Tuple:
		return &listValue{v, t}
	case record.Map, record.UDT:
		return &mapValue{v, t}
	}
	switch v.Kind() {
	case record.Unset, record.Null:
		return types.NullValue
	case record.Boolean:
		return types.Bool(v.Bool())
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt:
		return types.Int(v.Int())
	case record.Float, record.Double:
		return types.Double(v.Float())
	case record.Text:
		return types.String(v.Str())
	case record.Blob:
		return types.Bytes(v.Str())
	case record.Timestamp, record.Date:
		return types.Timestamp{Time: v.Time()}
	}
	return types.String(v.Text(*t))
}

// listValue is a List, Set, Vector or Tuple.
type listValue struct {
	v record.Value
	t *record.Type
}

var _ traits.Lister = (*listValue)(nil)

func (l *listValue) at(i int) ref.Val {
	t := &l.t.Elems[0]
	if l.t.Kind == record.Tuple {
		t = &l.t.Elems[i]
	}
	return toCEL(l.v.Elems()[i], t)
}

// eager is the list with all parts converted, for what CEL does already.
func (l *listValue) eager() traits.Lister {
	parts := make([]ref.Val, len(l.v.Elems()))
	for i := range parts {
		parts[i] = l.at(i)
	}
	return types.NewRefValList(types.DefaultTypeAdapter, parts)
}

// Contains implements traits.Container.
func (l *listValue) Contains(v ref.Val) ref.Val {
	text, isText := v.(types.String)
	for i, e := range l.v.Elems() {
		if isText && e.Kind() == record.Text {
			if e.Str() == string(text) {
				return types.True
			}
		} else if v.Equal(l.at(i)) == types.True {
			return types.True
		}
	}
	return types.False
}

// Get implements traits.Indexer.
func (l *listValue) Get(index ref.Val) ref.Val {
	i, ok := index.(types.Int)
	if !ok || i < 0 || int(i) >= len(l.v.Elems()) {
		return types.ValOrErr(index, "index %v of a list of %d", index.Value(), len(l.v.Elems()))
	}
	return l.at(int(i))
}

// Size implements traits.Sizer.
func (l *listValue) Size() ref.Val { return types.Int(len(l.v.Elems())) }

// Add implements traits.Adder.
func (l *listValue) Add(other ref.Val) ref.Val { return l.eager().Add(other) }

// Iterator implements traits.Iterable.
func (l *listValue) Iterator() traits.Iterator { return l.eager().Iterator() }

// ConvertToNative implements ref.Val.
func (l *listValue) ConvertToNative(t reflect.Type) (any, error) { return l.eager().ConvertToNative(t) }

// ConvertToType implements ref.Val.
func (l *listValue) ConvertToType(t ref.Type) ref.Val { return l.eager().ConvertToType(t) }

// Equal implements ref.Val.
func (l *listValue) Equal(other ref.Val) ref.Val { return l.eager().Equal(other) }

// Type implements ref.Val.
func (l *listValue) Type() ref.Type { return types.ListType }

// Value implements ref.Val.
func (l *listValue) Value() any { return l.eager().Value() }

// mapValue is a Map or UDT.
type mapValue struct {
	v record.Value
	t *record.Type
}

var _ traits.Mapper = (*mapValue)(nil)

// Find implements traits.Mapper.
func (m *mapValue) Find(key ref.Val) (ref.Val, bool) {
	text, isText := key.(types.String)
	elems := m.v.Elems()
	if m.t.Kind == record.UDT {
		if i := slices.Index(m.t.Names, string(text)); isText && i >= 0 && i < len(elems) {
			return toCEL(elems[i], &m.t.Elems[i]), true
		}
		return nil, false
	}
	for i := 0; i+1 < len(elems); i += 2 {
		same := false
		if isText && elems[i].Kind() == record.Text {
			same = elems[i].Str() == string(text)
		} else {
			same = key.Equal(toCEL(elems[i], &m.t.Elems[0])) == types.True
		}
		if same {
			return toCEL(elems[i+1], &m.t.Elems[1]), true
		}
	}
	return nil, false
}

// Get implements traits.Indexer.
func (m *mapValue) Get(key ref.Val) ref.Val {
	v, ok := m.Find(key)
	if !ok {
		return types.ValOrErr(key, "no such key: %v", key.Value())
	}
	return v
}

// Contains implements traits.Container.
func (m *mapValue) Contains(key ref.Val) ref.Val {
	_, ok := m.Find(key)
	return types.Bool(ok)
}

// Size implements traits.Sizer.
func (m *mapValue) Size() ref.Val {
	if m.t.Kind == record.UDT {
		return types.Int(len(m.v.Elems()))
	}
	return types.Int(len(m.v.Elems()) / 2)
}

// Iterator implements traits.Iterable; it walks over the keys.
func (m *mapValue) Iterator() traits.Iterator {
	var keys []ref.Val
	m.each(func(k, _ ref.Val) { keys = append(keys, k) })
	return types.NewRefValList(types.DefaultTypeAdapter, keys).Iterator()
}

func (m *mapValue) each(f func(k, v ref.Val)) {
	elems := m.v.Elems()
	if m.t.Kind == record.UDT {
		for i := range elems {
			f(types.String(m.t.Names[i]), toCEL(elems[i], &m.t.Elems[i]))
		}
		return
	}
	for i := 0; i+1 < len(elems); i += 2 {
		f(toCEL(elems[i], &m.t.Elems[0]), toCEL(elems[i+1], &m.t.Elems[1]))
	}
}

func (m *mapValue) eager() traits.Mapper {
	all := make(map[ref.Val]ref.Val, len(m.v.Elems()))
	m.each(func(k, v ref.Val) { all[k] = v })
	return types.NewRefValMap(types.DefaultTypeAdapter, all)
}

// ConvertToNative implements ref.Val.
func (m *mapValue) ConvertToNative(t reflect.Type) (any, error) { return m.eager().ConvertToNative(t) }

// ConvertToType implements ref.Val.
func (m *mapValue) ConvertToType(t ref.Type) ref.Val { return m.eager().ConvertToType(t) }

// Equal implements ref.Val.
func (m *mapValue) Equal(other ref.Val) ref.Val { return m.eager().Equal(other) }

// Type implements ref.Val.
func (m *mapValue) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (m *mapValue) Value() any { return m.eager().Value() }
