package record_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	. "reprise/transforms/record"

	"reprise/transforms/golden"
)

// Every plain value can be read back from its text.
func TestTextRoundTrip(t *testing.T) {
	for _, k := range plainKinds {
		t.Run(k.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v := genPlain(k).Draw(t, "value")
				text := v.Text(Of(k))
				got, err := Parse(Of(k), text)
				if err != nil || !got.Equal(v) {
					t.Fatalf("%q reads as %+v, %v, want %+v", text, got, err, v)
				}
			})
		})
	}
}

// A text form is a value's own or, where a system would not take it, still no other's: a time beyond a day is no time
// of day.
func TestATimeOutsideOfADayIsNoTimeOfDay(t *testing.T) {
	for _, n := range []int64{-1, 86_400e9, 86_400e9 + 1, math.MaxInt64, math.MinInt64} {
		if _, err := time.Parse("15:04:05.999999999", Number(Time, n).Text(Of(Time))); err == nil {
			t.Errorf("%d is written as the time of day %s", n, Number(Time, n).Text(Of(Time)))
		}
	}
}

// A bare year, a day by its digits, seconds and microseconds are never milliseconds, whichever way they come;
// milliseconds as a number are.
func TestAYearIsNoNumberOfMilliseconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.OneOf(rapid.Int64Range(-2_000_000_000, -300_000_000), rapid.Int64Range(300_000_000,
			4_000_000_000)).Draw(t, "seconds"), 0).UTC()
		for _, n := range []int64{int64(at.Year()), int64(at.Year()*10000 + int(at.Month())*100 + at.Day()),
			at.Unix(), at.UnixMicro(), at.UnixNano()} {
			if v, err := Millis(n); err == nil {
				t.Fatalf("%d was read as %s", n, v.Text(Of(Timestamp)))
			}
			if v, err := Parse(Of(Timestamp), strconv.FormatInt(n, 10)); err == nil {
				t.Fatalf("%q was read as %s", strconv.FormatInt(n, 10), v.Text(Of(Timestamp)))
			}
		}
		if v, err := Millis(at.UnixMilli()); err != nil || !v.Time().Equal(at) {
			t.Fatalf("%d: %s, %v", at.UnixMilli(), v.Text(Of(Timestamp)), err)
		}
	})
}

// Every form of a time is read as package time reads it.
func TestParseTimeReadsItsForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", 60*rapid.IntRange(-23*60, 23*60).Draw(t, "zone"))
		at := time.Unix(rapid.Int64Range(-62_000_000_000, 253_000_000_000).Draw(t, "seconds"), rapid.Int64Range(0,
			1e9-1).Draw(t, "nanos")).In(zone)
		form := rapid.SampledFrom([]string{time.DateOnly, time.RFC3339, time.RFC3339Nano, "2006-01-02 15:04Z0700",
			"2006-01-02T15:04:05.000000-0700", "2006-01-02 15:04:05",
			"2006-01-02Z07:00"}).Draw(t, "form")
		want, err := time.Parse(form, at.Format(form))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseTime(at.Format(form)); err != nil || !got.Equal(want) {
			t.Fatalf("%s: %s, %v, want %s", at.Format(form), got, err, want)
		}
	})
}

// Every value is valid JSON, whatever its type says.
func TestJSONIsValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := genRecord().Draw(t, "record")
		if b := r.AppendJSON(nil); !json.Valid(b) {
			t.Fatalf("not JSON: %s", b)
		}
		typ := genType(2).Draw(t, "another type")
		for _, v := range r.Values {
			if b := v.AppendJSON(nil, typ); !json.Valid(b) {
				t.Fatalf("not JSON: %s", b)
			}
		}
	})
}

// What is not UTF-8 cannot get into a document.
func TestQuoted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		var got string
		if err := json.Unmarshal(AppendQuoted(nil, s), &got); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(s)); got != want {
			t.Fatalf("%q became %q, want %q", s, got, want)
		}
	})
}

// Different keys of a schema have different texts, from which they are read again.
func TestKeyTextInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := rapid.SliceOfN(rapid.SampledFrom(plainKinds), 1, 3).Draw(t, "kinds")
		var fields []Field
		var names []string
		for i, k := range kinds {
			names = append(names, fmt.Sprint("f", i))
			fields = append(fields, Field{Name: names[i], Type: Of(k)})
		}
		schema := MustSchema(fields, names...)
		draw := func(label string) *Record {
			r := &Record{Schema: schema}
			for i, k := range kinds {
				g := genPlain(k)
				if k == Text { // mostly of what must be escaped
					g = rapid.Map(rapid.StringMatching(`[a|\\]{0,4}`), String)
				}
				r.Values = append(r.Values, g.Draw(t, label+names[i]))
			}
			return r
		}
		a, b := draw("a"), draw("b")
		if equal := slices.EqualFunc(a.Values, b.Values, Value.Equal); equal != (a.KeyText() == b.KeyText()) {
			t.Fatalf("%q and %q, but equal is %v", a.KeyText(), b.KeyText(), equal)
		}
		got, err := schema.ParseKey(a.KeyText())
		if err != nil || !slices.EqualFunc(a.Values, got, Value.Equal) {
			t.Fatalf("%q is read as %v (%v)", a.KeyText(), got, err)
		}
	})
}

func TestKeyText(t *testing.T) {
	schema := MustSchema([]Field{{"id", Of(Int)}, {"x", Of(Int)}, {"part", Of(Text)}}, "part", "id")
	r := &Record{Schema: schema, Values: []Value{Number(Int, -7), NullValue, String(`a|b\c`)}}
	if got, want := r.KeyText(), `a\|b\\c|-7`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, text := range []string{"", "a", "a|1|2", "a|x", `a\b|1`, `a|1\`} {
		if got, err := schema.ParseKey(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func dec(unscaled int64, scale int32) Value { return Dec(VarintBytes(big.NewInt(unscaled)), scale) }

func varint(s string) Value {
	n, _ := new(big.Int).SetString(s, 10)
	return Bytes(Varint, VarintBytes(n))
}

// texts are values with names for the golden file.
var texts = []struct {
	typ    Type
	values []Value
}{
	{Of(Boolean), []Value{Bool(true), Bool(false), NullValue, {}}},
	{Of(TinyInt), []Value{Number(TinyInt, -128), Number(TinyInt, 127)}},
	{Of(SmallInt), []Value{Number(SmallInt, -32768)}},
	{Of(Int), []Value{Number(Int, math.MaxInt32)}},
	{Of(BigInt), []Value{Number(BigInt, math.MinInt64), Number(BigInt, math.MaxInt64)}},
	{Of(Varint), []Value{varint("0"), varint("-1"), varint("127"), varint("128"), varint("-128"), varint("-129"),
		varint("-256"), varint("123456789012345678901234567890"), Bytes(Varint, "")}},
	{Of(Decimal), []Value{dec(0, 0), dec(0, 2), dec(0, -3), dec(129900, 3), dec(-5, 1), dec(-5, 3), dec(5, -2),
		dec(7, 399), dec(7, 400), dec(1, math.MaxInt32), dec(1, math.MinInt32)}},
	{Of(Float), []Value{Float32(0.1), Float32(1e30), Float32(float32(math.Inf(1))), Float32(float32(math.NaN()))}},
	{Of(Double), []Value{Float64(0.1), Float64(1e21), Float64(-0.0), Float64(math.Copysign(0, -1)),
		Float64(math.Inf(-1)), Float64(math.NaN()), Float64(math.MaxFloat64)}},
	{Of(Text), []Value{String(""), String("naïve \"quoted\" \\ \n\t\r\x01\x7f"), String("日本\u2028語🙂"),
		String("broken \xff")}},
	{Of(Blob), []Value{Bytes(Blob, ""), Bytes(Blob, "\x00\xff\xfe")}},
	{Of(UUID), []Value{Bytes(UUID, "\x12\x3e\x45\x67\xe8\x9b\x42\xd3\xa4\x56\x42\x66\x14\x17\x40\x00")}},
	{Of(TimeUUID), []Value{Bytes(TimeUUID, "\x8d\x3f\x4e\x00\x0a\x1b\x11\xef\x9c\x4f\x02\x42\xac\x12\x00\x02")}},
	{Of(Inet), []Value{Bytes(Inet, "\x7f\x00\x00\x01"),
		Bytes(Inet, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"),
		Bytes(Inet, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01"), Bytes(Inet, "bad")}},
	{Of(Timestamp), []Value{Number(Timestamp, 0), Number(Timestamp, -1), Number(Timestamp, 1714851731123),
		Number(Timestamp, 253402300800000), Number(Timestamp, -62167219200001), Number(Timestamp, math.MaxInt64),
		Number(Timestamp, math.MinInt64)}},
	{Of(Date), []Value{Number(Date, 0), Number(Date, -1), Number(Date, 19847), Number(Date, 2932897),
		Number(Date, -719529), Number(Date, math.MaxInt32), Number(Date, math.MinInt32)}},
	{Of(Time), []Value{Number(Time, 0), Number(Time, 86399999999999), Number(Time, 86400000000001), Number(Time, -1)}},
	{Of(Duration), []Value{Span(0, 0, 0), Span(14, 3, 5), Span(-14, -3, -5), Span(0, 0, 90e9), Span(math.MaxInt32,
		math.MaxInt32, math.MaxInt64), Span(math.MinInt32, math.MinInt32, math.MinInt64), Span(-1, 2, -3),
		Span(1, -2, 0)}},
	{ListOf(Of(Int)), []Value{Nested(List, nil), Nested(List, []Value{Number(Int, 1), NullValue})}},
	{SetOf(Of(Date)), []Value{Nested(Set, []Value{Number(Date, 0)})}},
	{MapOf(Of(UUID), ListOf(Of(Double))),
		[]Value{Nested(Map, []Value{Bytes(UUID, strings.Repeat("\x01", 16)),
			Nested(List, []Value{Float64(math.NaN()), Float64(1)})})}},
	{MapOf(TupleOf(Of(Int), Of(Text)), Of(Int)),
		[]Value{Nested(Map, []Value{Nested(Tuple, []Value{Number(Int, 1), String(`a"`)}), Number(Int, 2)})}},
	{TupleOf(Of(Int), Of(Text)), []Value{Nested(Tuple, []Value{Number(Int, 1), NullValue})}},
	{UDTOf("m", Field{"width", Of(Int)}, Field{`a "b"`, Of(Decimal)}),
		[]Value{Nested(UDT, []Value{Number(Int, 640), dec(15, 1)}),
			Nested(UDT, []Value{Number(Int, 640), dec(15, 1), String("of a newer version")})}},
	{Type{Kind: Vector, Elems: []Type{Of(Float)}, Dim: 2}, []Value{Nested(Vector, []Value{Float32(0.5), Float32(-1)})}},
}

func TestTextGolden(t *testing.T) {
	var b strings.Builder
	for _, x := range texts {
		fmt.Fprintf(&b, "%s\n", x.typ)
		for _, v := range x.values {
			fmt.Fprintf(&b, "  text %q\n  json %s\n", v.Text(x.typ), v.AppendJSON(nil, x.typ))
		}
	}
	golden.Compare(t, "testdata/text.golden", b.String())
}

func TestParse(t *testing.T) {
	at := func(s string) int64 {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMilli()
	}
	for _, x := range []struct {
		kind Kind
		text string
		want Value
	}{
		{Boolean, "true", Bool(true)},
		{Varint, "-129", Bytes(Varint, "\xff\x7f")},
		{Decimal, "1E3", dec(1, -3)},
		{Decimal, "-1.50e-2", dec(-150, 4)},
		{Decimal, ".5", dec(5, 1)},
		{Decimal, "5.", dec(5, 0)},
		{UUID, "123E4567E89B42D3A456426614174000",
			Bytes(UUID, "\x12\x3e\x45\x67\xe8\x9b\x42\xd3\xa4\x56\x42\x66\x14\x17\x40\x00")},
		{Timestamp, "2024-05-04", Number(Timestamp, at("2024-05-04T00:00:00Z"))},
		{Timestamp, "2024-05-04 12:30:00+02:00", Number(Timestamp, at("2024-05-04T10:30:00Z"))},
		{Timestamp, "2024-05-04T12:30:00.5", Number(Timestamp, at("2024-05-04T12:30:00.5Z"))},
		{Timestamp, "2024-05-04 12:30", Number(Timestamp, at("2024-05-04T12:30:00Z"))},
		{Timestamp, "2024-05-04T12:30:00+0200", Number(Timestamp, at("2024-05-04T10:30:00Z"))},
		{Timestamp, "2024-05-04t12:30:00.500000000-02", Number(Timestamp, at("2024-05-04T14:30:00.5Z"))},
		{Timestamp, "2024-05-04+0200", Number(Timestamp, at("2024-05-03T22:00:00Z"))},
		{Timestamp, "10000-01-01", Number(Timestamp, 253402300800000)},
		{Date, "1969-12-31", Number(Date, -1)},
		{Time, "23:59:59.5", Number(Time, 86399_500000000)},
		{Duration, "1y2mo3w4d5h6m7s8ms9us10ns", Span(14, 25, 5*3600e9+6*60e9+7e9+8e6+9e3+10)},
		{Duration, "-1h", Span(0, 0, -3600e9)},
	} {
		got, err := Parse(Of(x.kind), x.text)
		if err != nil || !got.Equal(x.want) {
			t.Errorf("%s %q: got %s, %v, want %s", x.kind, x.text, got.Text(Of(x.kind)), err, x.want.Text(Of(x.kind)))
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, x := range []struct {
		kind Kind
		text string
	}{
		{Boolean, "yes"}, {TinyInt, "128"}, {Int, "1.0"}, {Int, ""}, {BigInt, "9223372036854775808"}, {Float, "1e40"},
		{Double, "1,5"},
		{Varint, "1.5"}, {Varint, ""}, {Varint, strings.Repeat("9", 10_001)},
		{Decimal, ""}, {Decimal, "-"}, {Decimal, "."}, {Decimal, "1e"}, {Decimal, "1e3000000000"}, {Decimal, "1.2.3"},
		{Decimal, "1.-2"}, {Decimal, "0x10"}, {Decimal, "NaN"},
		{Blob, "not base64!"}, {UUID, "123e4567"}, {TimeUUID, "123e4567-e89b-42d3-a456-426614174000"}, {Inet, "1.2.3"},
		{Inet, "fe80::1%eth0"},
		{Timestamp, "yesterday"}, {Timestamp, "2024-13-01"}, {Timestamp, ""}, {Timestamp, "2024"}, {Timestamp,
			"1714851731123"}, {Timestamp, "-1"}, {Timestamp, "2024-05"}, {Timestamp, "2024-05-04T24:00"},
		{Timestamp, "2024-05-04T12:00:00.0001Z"}, {Timestamp, "2024-05-04T12:00:00.0000000000Z"}, {Timestamp,
			"2024-02-30T12:00:00Z"}, {Timestamp, "2024-05-04T12:00+24:00"},
		{Timestamp, "292278995-01-01"}, {Timestamp, "-292275055-01-01"}, {Text, "\xff"},
		{Date, "2024-05-04T00:00:00Z"}, {Date, "20240504"}, {Time, "12:00:00.1234567891"}, {Time, "1ns"}, {Time,
			"86400000000000"}, {Time, "+86400000000000ns"}, {Time, "12:00"},
		{Duration, "1d--1h"}, {Duration, "1d-1w"}, {Duration, "-1d-1h"}, {Date, "2024-02-30"}, {Date, "12"}, {Date,
			"-5877642-01-01"}, {Date, "6000000-01-01"}, {Time, "24:00:00"},
		{Duration, ""}, {Duration, "-"}, {Duration, "1"}, {Duration, "h"}, {Duration, "1x"}, {Duration, "-1h-1m"},
		{Duration, "9223372036854775807y"}, {Duration, "2147483648mo"}, {Duration, "1537228672809129302m"},
		{Duration, "9223372036854775807ns1ns"},
		{List, "[]"}, {Null, "null"},
	} {
		if v, err := Parse(Of(x.kind), x.text); err == nil {
			t.Errorf("%s %.40q was read as %s", x.kind, x.text, v.Text(Of(x.kind)))
		} else if !strings.Contains(err.Error(), x.kind.String()) {
			t.Errorf("%s %.40q: the error does not name the type: %v", x.kind, x.text, err)
		}
	}
}

func TestVarint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := genBig().Draw(t, "n")
		b := VarintBytes(n)
		if got := Bytes(Varint, b).BigInt(); got.Cmp(n) != 0 {
			t.Fatalf("%s became %s by %x", n, got, b)
		}
		if len(b) > 1 && (b[0] == 0 && b[1] < 0x80 || b[0] == 0xff && b[1] >= 0x80) {
			t.Fatalf("%x is longer than needed", b)
		}
	})
}

func TestUUIDTime(t *testing.T) {
	for _, x := range []struct{ id, want string }{
		{"8d3f4e00-0a1b-11ef-9c4f-0242ac120002", "2024-05-04T13:38:12.1905664Z"},
		{"13814000-1dd2-11b2-8000-000000000000", "1970-01-01T00:00:00Z"},
		{"13813fff-1dd2-11b2-8000-000000000000", "1969-12-31T23:59:59.9999999Z"},
		{"00000000-0000-1000-8000-000000000000", "1582-10-15T00:00:00Z"},
	} {
		v, err := Parse(Of(TimeUUID), x.id)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Time().Format(time.RFC3339Nano); got != x.want {
			t.Errorf("%s: got %s, want %s", x.id, got, x.want)
		}
	}
	if !UUIDTime("short").IsZero() {
		t.Error("a short id has a time")
	}
}

func TestSpan(t *testing.T) {
	months, days, nanos := Span(-1, math.MinInt32, math.MinInt64).Span()
	if months != -1 || days != math.MinInt32 || nanos != math.MinInt64 {
		t.Errorf("got %d, %d, %d", months, days, nanos)
	}
}

func TestClone(t *testing.T) {
	r := asset(t)
	r.Cells = make([]Cell, len(r.Values))
	c := r.Clone()
	c.Values[0], c.Cells[0].Version, c.Version = String("changed"), 5, 7
	if r.Values[0].Str() != "image" || r.Cells[0].Version != 0 || r.Version == 7 {
		t.Error("a clone shares values with its original")
	}
}

func TestGet(t *testing.T) {
	r := asset(t)
	if got := r.Get("width").Int(); got != 6016 {
		t.Errorf("width: got %d", got)
	}
	if got := r.Get("height").Kind(); got != Unset {
		t.Errorf("a field that is not there: got %s", got)
	}
}
