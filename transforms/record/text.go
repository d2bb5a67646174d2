package record

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendText appends the value as text, as document ids, templates and messages show it: text as it is, numbers
// in decimal, times in RFC 3339 (UTC), UUIDs and addresses in their usual form, blobs in base64, nested values as JSON;
// nothing for a null.
func (v Value) AppendText(b []byte, t Type) []byte {
	switch v.kind {
	case Unset, Null:
		return b
	case Boolean:
		return strconv.AppendBool(b, v.Bool())
	case TinyInt, SmallInt, Int, BigInt:
		return strconv.AppendInt(b, v.Int(), 10)
	case Float:
		return strconv.AppendFloat(b, v.Float(), 'g', -1, 32)
	case Double:
		return strconv.AppendFloat(b, v.Float(), 'g', -1, 64)
	case Text:
		return append(b, v.Str()...)
	case Blob:
		return base64.StdEncoding.AppendEncode(b, []byte(v.Str()))
	case UUID, TimeUUID:
		return appendUUID(b, v.Str())
	case Inet:
		return v.Addr().AppendTo(b)
	case Varint:
		return v.BigInt().Append(b, 10)
	case Decimal:
		return v.appendDecimal(b)
	case Timestamp:
		return v.Time().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	case Date:
		return v.Time().AppendFormat(b, time.DateOnly)
	case Time:
		return appendTimeOfDay(b, v.Int())
	case Duration:
		return v.appendDuration(b)
	}
	return v.AppendJSON(b, t)
}

// Text is AppendText as a string.
func (v Value) Text(t Type) string { return string(v.AppendText(nil, t)) }

// AppendJSON appends the value as JSON: numbers of up to 64 bits and booleans as such; decimals, varints, times, UUIDs,
// addresses and durations as strings of their text; blobs as base64; lists, sets, tuples and vectors as arrays; maps
// and UDTs as objects, parts that are Unset left out; NaN and the infinities, which JSON lacks, as strings. t names the
// parts of UDTs.
func (v Value) AppendJSON(b []byte, t Type) []byte {
	switch v.kind {
	case Unset, Null:
		return append(b, "null"...)
	case Boolean, TinyInt, SmallInt, Int, BigInt:
		return v.AppendText(b, t)
	case Float, Double:
		switch f := v.Float(); {
		case math.IsNaN(f) || math.IsInf(f, 0):
			return append(v.AppendText(append(b, '"'), t), '"')
		case f == 0 && math.Signbit(f):
			return append(b, "-0.0"...) // others read -0 as an integer, which has no sign
		}
		return v.AppendText(b, t)
	case Text:
		return AppendQuoted(b, v.Str())
	case List, Set, Tuple, Vector:
		b = append(b, '[')
		for i, e := range v.Elems() {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.AppendJSON(b, part(t, i))
		}
		return append(b, ']')
	case Map:
		b = append(b, '{')
		elems := v.Elems()
		for i := 0; i+1 < len(elems); i += 2 {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendQuoted(b, elems[i].Text(part(t, 0)))
			b = append(b, ':')
			b = elems[i+1].AppendJSON(b, part(t, 1))
		}
		return append(b, '}')
	case UDT:
		b = append(b, '{')
		first := true
		for i, e := range v.Elems() {
			if e.kind == Unset {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			name := strconv.Itoa(i)
			if i < len(t.Names) {
				name = t.Names[i]
			}
			b = AppendQuoted(b, name)
			b = append(b, ':')
			b = e.AppendJSON(b, part(t, i))
		}
		return append(b, '}')
	}
	// Everything else is plain characters.
	return append(v.AppendText(append(b, '"'), t), '"')
}

// part is the type of the i-th part of a nested type; of lists, sets and vectors all parts have the first.
func part(t Type, i int) Type {
	switch {
	case (t.Kind == List || t.Kind == Set || t.Kind == Vector) && len(t.Elems) == 1:
		return t.Elems[0]
	case i < len(t.Elems):
		return t.Elems[i]
	}
	return Type{}
}

// AppendJSON appends the record's fields as one JSON object, fields that are Unset left out.
func (r *Record) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	first := true
	for i := range r.Values {
		if r.Values[i].kind == Unset {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = AppendQuoted(b, r.Schema.Fields[i].Name)
		b = append(b, ':')
		b = r.Values[i].AppendJSON(b, r.Schema.Fields[i].Type)
	}
	return append(b, '}')
}

// AppendQuoted appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendQuoted(b []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		b = append(b, '"')
		b = append(b, s...)
		return append(b, '"')
	}
	const hexDigits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			// U+2028 and U+2029 end lines for some readers.
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, "\ufffd"...)
			case r == '\u2028' || r == '\u2029':
				b = append(b, `\u202`...)
				b = append(b, hexDigits[r&0xf])
			default:
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func appendUUID(b []byte, u string) []byte {
	if len(u) != 16 {
		return hex.AppendEncode(b, []byte(u))
	}
	for _, cut := range [][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		if cut[0] > 0 {
			b = append(b, '-')
		}
		for i := cut[0]; i < cut[1]; i++ {
			const digits = "0123456789abcdef"
			b = append(b, digits[u[i]>>4], digits[u[i]&0xf])
		}
	}
	return b
}

// appendDecimal keeps the scale, which Cassandra tells keys apart by: 5E2 is not 500. Digits after the point are
// written out unless they would fill pages.
func (v Value) appendDecimal(b []byte) []byte {
	from, scale := len(b), v.Int()
	b = v.BigInt().Append(b, 10)
	if b[from] == '-' {
		from++
	}
	switch {
	case scale == 0:
		return b
	case scale < 0 || scale >= 400:
		return strconv.AppendInt(append(b, 'E'), -scale, 10)
	}
	if missing := int(scale) + 1 - (len(b) - from); missing > 0 {
		b = slices.Insert(b, from, bytes.Repeat([]byte{'0'}, missing)...)
	}
	return slices.Insert(b, len(b)-int(scale), '.')
}

// appendDuration writes one sign for all parts, or where they differ, which no system gives, a sign for each that is
// negative, behind the others.
func (v Value) appendDuration(b []byte) []byte {
	months, days, nanos := v.Span()
	if months <= 0 && days <= 0 && nanos <= 0 && (months|days != 0 || nanos != 0) {
		b = append(b, '-')
	}
	from := len(b)
	parts := []durationPart{{int64(months), "mo"}, {int64(days), "d"}, {nanos, "ns"}}
	mixed := max(int64(months), int64(days), nanos) > 0
	if mixed {
		slices.SortStableFunc(parts, func(p, q durationPart) int { return cmp.Compare(sign(q.n), sign(p.n)) })
	}
	for _, p := range parts {
		if p.n == 0 {
			continue
		}
		if mixed && p.n < 0 {
			b = append(b, '-')
		}
		b = append(strconv.AppendUint(b, magnitude(p.n), 10), p.unit...)
	}
	if len(b) == from {
		b = append(b, "0ns"...)
	}
	return b
}

type durationPart struct {
	n    int64
	unit string
}

func sign(n int64) int { return cmp.Compare(n, 0) }

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// MarshalText lets a Type stand in JSON and YAML as CQL writes it.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *Type) UnmarshalText(text []byte) (err error) {
	*t, err = ParseType(string(text), nil)
	return err
}

// MarshalJSON is AppendJSON.
func (r *Record) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil), nil }

var _ json.Marshaler = (*Record)(nil)
