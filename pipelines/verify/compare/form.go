package compare

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"reprise/transforms/record"
)

// The form of a value is the same for every value that no target can tell from it, whatever type holds it there:
// integers of any width and their decimals, floats in doubles, decimals with other trailing zeros, both kinds of
// UUIDs, sets and maps in any order, parts that a target's type has beyond those of the record's, which are null.
const (
	formNull byte = iota
	formBool
	formNumber
	formFloat
	formText
	formBlob
	formUUID
	formInet
	formTimestamp
	formDate
	formTime
	formDuration
	formList
	formMap
)

// appendField appends the form of a field. Some systems keep no empty collections, and no tuples that are null in all
// parts.
func appendField(b []byte, v record.Value, t record.Type, emptyIsNull bool) []byte {
	if emptyIsNull && v.Kind().Nested() && !slices.ContainsFunc(v.Elems(),
		func(e record.Value) bool { return !e.IsNull() }) {
		return append(b, formNull)
	}
	return appendForm(b, v, t)
}

// appendForm appends the form of a value, which a field of type t holds as the job would write it.
func appendForm(b []byte, v record.Value, t record.Type) []byte {
	switch v.Kind() {
	case record.Unset, record.Null:
		return append(b, formNull)
	case record.Boolean:
		return append(b, formBool, byte(v.Int()))
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Varint:
		return appendSized(b, formNumber, v.AppendText(nil, t))
	case record.Decimal:
		return appendSized(b, formNumber, decimal(v))
	case record.Float, record.Double:
		f := v.Float()
		if math.IsNaN(f) {
			f = math.NaN()
		}
		return binary.BigEndian.AppendUint64(append(b, formFloat), math.Float64bits(f))
	case record.Text:
		return appendSized(b, formText, v.Str())
	case record.Blob:
		return appendSized(b, formBlob, v.Str())
	case record.UUID, record.TimeUUID:
		return appendSized(b, formUUID, v.Str())
	case record.Inet:
		return appendSized(b, formInet, v.Addr().Unmap().String())
	case record.Timestamp:
		return binary.BigEndian.AppendUint64(append(b, formTimestamp), uint64(v.Int()))
	case record.Date:
		return binary.BigEndian.AppendUint64(append(b, formDate), uint64(v.Int()))
	case record.Time:
		return binary.BigEndian.AppendUint64(append(b, formTime), uint64(v.Int()))
	case record.Duration:
		return appendSized(b, formDuration, v.Str())
	case record.Map:
		return appendParts(b, formMap, mapForms(v.Elems(), t))
	}
	return appendParts(b, formList, listForms(v.Elems(), t))
}

func appendSized[T string | []byte](b []byte, form byte, content T) []byte {
	return append(binary.AppendUvarint(append(b, form), uint64(len(content))), content...)
}

func appendParts(b []byte, form byte, parts [][]byte) []byte {
	b = binary.AppendUvarint(append(b, form), uint64(len(parts)))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func listForms(elems []record.Value, t record.Type) (parts [][]byte) {
	for i, e := range elems {
		parts = append(parts, appendForm(nil, e, elemType(t, i)))
	}
	switch t.Kind {
	case record.Set:
		slices.SortFunc(parts, bytes.Compare)
		return slices.CompactFunc(parts, bytes.Equal)
	case record.Tuple, record.UDT:
		for len(parts) > 0 && parts[len(parts)-1][0] == formNull {
			parts = parts[:len(parts)-1]
		}
	}
	return parts
}

func mapForms(elems []record.Value, t record.Type) (parts [][]byte) {
	for i := 0; i+1 < len(elems); i += 2 {
		parts = append(parts, appendForm(appendForm(nil, elems[i], elemType(t, 0)), elems[i+1], elemType(t, 1)))
	}
	slices.SortFunc(parts, bytes.Compare)
	return parts
}

// elemType is the type of the i-th part; all parts of lists, sets and vectors have the first.
func elemType(t record.Type, i int) record.Type {
	if t.Kind == record.List || t.Kind == record.Set || t.Kind == record.Vector {
		i = 0
	}
	if i < len(t.Elems) {
		return t.Elems[i]
	}
	return record.Type{}
}

// decimal is the text of a decimal, which is that of an integer where it is one.
func decimal(v record.Value) string {
	digits, scale := v.BigInt().String(), int(v.Int())
	if digits == "0" {
		return "0"
	}
	for strings.HasSuffix(digits, "0") {
		digits, scale = digits[:len(digits)-1], scale-1
	}
	const most = 400 // digits that are written out
	switch {
	case scale == 0:
		return digits
	case scale < 0 && scale > -most:
		return digits + strings.Repeat("0", -scale)
	}
	return digits + "e" + string(binary.AppendVarint(nil, int64(-scale)))
}
