package cassandraio

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/record"
)

var orderedKinds = []record.Kind{record.Boolean, record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Varint, record.Float,
	record.Double, record.Text, record.Blob, record.UUID, record.TimeUUID, record.Inet, record.Timestamp, record.Date, record.Time}

// compareRaw is Cassandra's order of two values in binary form, written down after the comparators of its types.
func compareRaw(k record.Kind, a, b []byte) int {
	v, _ := decodeValue(record.Of(k), a)
	w, _ := decodeValue(record.Of(k), b)
	switch k {
	case record.Boolean, record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Timestamp, record.Date, record.Time:
		return cmp.Compare(v.Int(), w.Int())
	case record.Varint:
		return v.BigInt().Cmp(w.BigInt())
	case record.Float, record.Double:
		x, y := v.Float(), w.Float()
		switch {
		case x != x || y != y:
			return -cmp.Compare(btoi(x == x), btoi(y == y))
		case x == 0 && y == 0:
			return -cmp.Compare(btoi(math.Signbit(x)), btoi(math.Signbit(y)))
		}
		return cmp.Compare(x, y)
	case record.TimeUUID:
		if c := cmp.Compare(ticks(a), ticks(b)); c != 0 {
			return c
		}
		for i := 8; i < 16; i++ {
			if c := cmp.Compare(int8(a[i]), int8(b[i])); c != 0 {
				return c
			}
		}
		return 0
	case record.UUID:
		if c := cmp.Compare(a[6]>>4, b[6]>>4); c != 0 {
			return c
		}
		if a[6]>>4 == 1 {
			if c := cmp.Compare(ticks(a), ticks(b)); c != 0 {
				return c
			}
			return bytes.Compare(a[8:], b[8:])
		}
	}
	return bytes.Compare(a, b)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func ticks(u []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(u[6:])&0xfff)<<48 | uint64(binary.BigEndian.Uint16(u[4:]))<<32 | uint64(binary.BigEndian.Uint32(u))
}

// drawRaw draws a value, often one of those at an edge.
func drawRaw(t *rapid.T, k record.Kind) []byte {
	edge := func(n int) []byte {
		b := bytes.Repeat([]byte{rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xff}).Draw(t, "fill")}, n)
		b[0] = rapid.SampledFrom([]byte{0, 0x7f, 0x80, 0xff}).Draw(t, "first")
		return b
	}
	size := fixedSize(k)
	switch k {
	case record.Boolean:
		return []byte{byte(rapid.IntRange(0, 1).Draw(t, "bool"))}
	case record.Text:
		return []byte(rapid.StringOf(rapid.SampledFrom([]rune("\x00\x01aZ\x7fé\U0010ffff"))).Draw(t, "text"))
	case record.Blob:
		return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0xfe, 0xff}), 0, 5).Draw(t, "blob")
	case record.Inet:
		size = rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
	case record.Varint:
		n := rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "digits")
		x := new(big.Int).SetBytes(n)
		if rapid.Bool().Draw(t, "negative") {
			x.Neg(x)
		}
		return []byte(record.VarintBytes(x))
	}
	b := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "bytes")
	if rapid.Bool().Draw(t, "edge") {
		b = edge(size)
	}
	if k == record.TimeUUID {
		b[6] = 0x10 | b[6]&0xf
	}
	return b
}

func TestPositionsAreInOrder(t *testing.T) {
	for _, kind := range orderedKinds {
		for range 10 {
			rapid.Check(t, func(t *rapid.T) { checkOrder(t, kind) })
		}
	}
}

// checkOrder checks keys that have a column of a kind.
func checkOrder(t *rapid.T, one record.Kind) {
	parts := rapid.IntRange(1, 3).Draw(t, "parts")
	order := make(keyOrder, parts)
	a, b := make([][]byte, parts), make([][]byte, parts)
	want := 0
	chosen := rapid.IntRange(0, parts-1).Draw(t, "chosen")
	for i := range order {
		order[i] = keyPart{name: fmt.Sprint("c", i), kind: rapid.SampledFrom(orderedKinds).Draw(t, "kind"), desc: rapid.Bool().Draw(t, "desc")}
		if i == chosen {
			order[i].kind = one
		}
		a[i] = drawRaw(t, order[i].kind)
		b[i] = a[i]
		switch rapid.IntRange(0, 2).Draw(t, "like") {
		case 0:
			b[i] = drawRaw(t, order[i].kind)
		case 1: // one byte differs, if the kind has so many
			if n := fixedSize(order[i].kind); n > 1 {
				b[i] = bytes.Clone(a[i])
				b[i][rapid.IntRange(0, n-1).Draw(t, "at")] ^= 1 << rapid.SampledFrom([]int{0, 7}).Draw(t, "bit")
				if order[i].kind == record.TimeUUID {
					b[i][6] = 0x10 | b[i][6]&0xf
				}
			}
		}
		if want == 0 {
			want = compareRaw(order[i].kind, a[i], b[i])
			if order[i].desc {
				want = -want
			}
		}
	}
	x, err := order.append(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := order.append(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Compare(x, y); got != want {
		t.Fatalf("%v: %x and %x compare as %d, want %d", order, a, b, got, want)
	}
	if want != 0 && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
		t.Fatalf("%v: %x is the beginning of %x or the other way round", order, x, y)
	}
	back, err := order.values(x)
	if err != nil {
		t.Fatal(err)
	}
	again, err := order.append(nil, back)
	if err != nil || !bytes.Equal(again, x) {
		t.Fatalf("%v: %x became %x, %v", order, a, back, err)
	}
	for i, p := range order {
		if compareRaw(p.kind, a[i], back[i]) != 0 {
			t.Fatalf("%s: %x became %x", p.kind, a[i], back[i])
		}
	}
	if near, err := order.near(x); err != nil || !bytes.Equal(near, x) {
		t.Fatalf("%v: near %x is %x, %v", order, x, near, err)
	}
}

// Whatever stands for a position, what is near it has a form that the server takes.
func TestNearIsAPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := keyOrder{{kind: rapid.SampledFrom(orderedKinds).Draw(t, "kind"), desc: rapid.Bool().Draw(t, "desc")},
			{kind: rapid.SampledFrom(orderedKinds).Draw(t, "kind")}}
		near, err := order.near(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes"))
		if err != nil {
			t.Fatal(err)
		}
		values, err := order.values(near)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range order {
			v, err := decodeValue(record.Of(p.kind), values[i])
			if err != nil {
				t.Fatalf("%s: %x: %v", p.kind, values[i], err)
			}
			if p.kind == record.TimeUUID && values[i][6]>>4 != 1 {
				t.Fatalf("%s is no timeuuid", v.Text(record.Of(p.kind)))
			}
		}
	})
}

func TestPositionsOfOthersAreRefused(t *testing.T) {
	order := keyOrder{{name: "a", kind: record.Text}, {name: "b", kind: record.BigInt, desc: true}}
	for _, b := range []string{"", "a", "a\x00", "a\x00\x01", "a\x00\x00", "a\x00\x00123456789", "\x00"} {
		if v, err := order.values([]byte(b)); err == nil {
			t.Errorf("%q is %q", b, v)
		}
	}
}

// clusterings are keys with values in which the order of a type shows.
var clusterings = []struct{ typ, values string }{
	{"timeuuid", `50554d6e-29bb-11e5-b345-feff819cdc9f 50554d6e-29bb-11e5-8000-000000000000 50554d6e-29bb-11e5-7f7f-7f7f7f7f7f7f
		50554d6e-29bb-11e5-b345-80ff819cdc9f 00000000-0000-1000-8080-808080808080 ffffffff-ffff-1fff-ffff-ffffffffffff ffffffff-0000-1000-8000-000000000001`},
	{"uuid", `123e4567-e89b-42d3-a456-426614174000 00000000-0000-0000-0000-000000000000 ffffffff-ffff-ffff-ffff-ffffffffffff ffffffff-0000-1000-8000-000000000001
		00000000-ffff-1000-8000-000000000001 018f4d2e-0000-7000-8000-000000000000 018f4d2e-0000-7000-7000-000000000000 f23e4567-e89b-42d3-0456-426614174000`},
	{"text", `'' 'a' 'aa' 'b' 'é' '🎬' 'Z' '01HX0000000000000000000000' '01HX0000000000000000000001' '~'`},
	{"ascii", `'' 'a' 'Z' '~'`},
	{"blob", `0x 0x00 0x0000 0x00ff 0x01 0xff 0xffff 0x7f80`},
	{"boolean", "true false"},
	{"tinyint", "-128 -1 0 1 127"},
	{"smallint", "-32768 -1 0 1 255 256 32767"},
	{"int", "-2147483648 -1 0 1 2147483647"},
	{"bigint", "-9223372036854775808 -1 0 1 9223372036854775807"},
	{"varint", "-340282366920938463463374607431768211456 -129 -128 -1 0 1 127 128 255 256 99999999999999999999"},
	{"float", "-Infinity -1.5 -0.0 0.0 1e-45 1.5 Infinity NaN"},
	{"double", "-Infinity -1.5 -0.0 0.0 5e-324 1.5 Infinity NaN"},
	{"timestamp", "-9223372036854775808 -1 0 1700000000000 9223372036854775807"},
	{"date", "'-5877641-06-23' '1969-12-31' '1970-01-01' '2024-05-01' '9999-12-31'"},
	{"time", "'00:00:00' '12:00:00.000000001' '23:59:59.999999999'"},
	{"inet", "'0.0.0.0' '127.0.0.1' '255.255.255.255' '::' '::1' '7fff::' '2001:db8::1' 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'"},
}

// The server's order of each type, both ways, is that of the positions; and reading between any two of them gives what lies between.
func TestPositionsAgreeWithTheServer(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	for _, c := range clusterings {
		for _, order := range []string{"ASC", "DESC"} {
			name := c.typ + "_" + strings.ToLower(order)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				one := *db
				one.table = name
				one.exec(t, "CREATE TABLE %s (p int, c "+c.typ+", v int, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (c "+order+")")
				n := 0
				for v := range strings.FieldsSeq(c.values) {
					one.exec(t, fmt.Sprintf("INSERT INTO %%s (p, c, v) VALUES (1, %s, %d)", v, n))
					n++
				}
				one.checkEveryCut(t, "1", n)
				// From a position of the ring, too.
				ring := one.source(t, nil)
				checkCuts(t, ring, connector.Split{Partition: ringName}, n)
			})
		}
	}
}

func TestCompositePositionsAgreeWithTheServer(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	for i, order := range []string{"a ASC, b ASC, c ASC", "a DESC, b DESC, c DESC", "a ASC, b DESC, c ASC", "a DESC, b ASC, c DESC"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			one := *db
			one.table = fmt.Sprint("t", i)
			one.exec(t, "CREATE TABLE %s (p text, q int, a int, b text, c timestamp, s int static, v int, PRIMARY KEY ((p, q), a, b, c)) WITH CLUSTERING ORDER BY ("+order+")")
			n := 0
			for a := range 3 {
				for _, b := range []string{"", "x", "xy"} {
					for c := range 2 {
						one.exec(t, fmt.Sprintf("INSERT INTO %%s (p, q, a, b, c, v) VALUES ('p/', -1, %d, '%s', %d, %d)", a-1, b, c, n))
						n++
					}
				}
			}
			one.exec(t, "INSERT INTO %s (p, q, s) VALUES ('static only', 0, 1)")
			one.checkEveryCut(t, `p\//-1`, n)
			checkCuts(t, one.source(t, nil), connector.Split{Partition: ringName}, n)
		})
	}
}

// The settings' own interval goes with every cut.
func TestCutsOfAnIDInterval(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	for i, order := range []string{"a ASC, b ASC", "a DESC, b ASC", "a DESC, b DESC"} {
		one := *db
		one.table = fmt.Sprint("t", i)
		one.exec(t, "CREATE TABLE %s (p int, a int, b int, PRIMARY KEY (p, a, b)) WITH CLUSTERING ORDER BY ("+order+")")
		for a := range 5 {
			for b := range 3 {
				one.exec(t, fmt.Sprintf("INSERT INTO %%s (p, a, b) VALUES (1, %d, %d)", a, b))
			}
		}
		for _, c := range []struct {
			ids  Interval
			rows int
		}{{Interval{From: "1", To: "4"}, 9}, {Interval{From: "4"}, 3}, {Interval{To: "1"}, 3}, {Interval{From: "5"}, 0}} {
			s := one.source(t, func(sc *SourceConfig) { discover(sc); sc.IDs = &c.ids })
			checkCuts(t, s, connector.Split{Partition: "1"}, c.rows)
			// A split of a whole run, cut elsewhere, is bounded by the settings as well.
			whole := one.source(t, discover)
			o, err := whole.open(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			for a := byte(0); a < 5; a++ {
				at, err := o.table.order.append(nil, [][]byte{{0, 0, 0, a}, {0, 0, 0, 1}})
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				done, rest := connector.Split{Partition: "1"}.Cut(at)
				for _, part := range []connector.Split{done, rest} {
					if err := s.Read(t.Context(), part, func(p connector.Page) error { n += len(p.Records); return nil }); err != nil {
						t.Fatal(err)
					}
				}
				if n != c.rows {
					t.Errorf("%s, %+v, cut at %d: %d rows, want %d", order, c.ids, a, n, c.rows)
				}
			}
		}
	}
}

func (db *database) checkEveryCut(t *testing.T, partition string, rows int) {
	t.Helper()
	checkCuts(t, db.source(t, discover), connector.Split{Partition: partition}, rows)
}

// checkCuts reads a split of so many rows row by row, and checks every interval of the positions seen.
func checkCuts(t *testing.T, s *Source, split connector.Split, rows int) {
	t.Helper()
	s.config.Page = 1
	var keys []string
	positions := [][]byte{nil}
	read := func(split connector.Split, page func(connector.Page)) {
		t.Helper()
		if err := s.Read(t.Context(), split, func(p connector.Page) error { page(p); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	one := split
	for last := []byte(nil); len(keys) <= rows; last = one.Start {
		// Each row by a Read of its own, so that it is a page.
		stop := fmt.Errorf("one is enough")
		o, err := s.open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		r, err := o.reader(one)
		if err != nil {
			t.Fatal(err)
		}
		r.size.row.Store(1 << 20)
		err = r.read(t.Context(), func(p connector.Page) error {
			one.Start = p.Last
			if len(p.Records) == 0 {
				return stop // a partition that has static columns alone
			}
			keys = append(keys, p.Records[0].KeyText())
			positions = append(positions, p.Last)
			return stop
		})
		if err != nil && err != stop {
			t.Fatal(err)
		}
		if one.Start == nil || bytes.Equal(last, one.Start) {
			break
		}
		if bytes.Compare(last, one.Start) >= 0 {
			t.Fatalf("%s at %x comes after %x", keys[len(keys)-1], one.Start, last)
		}
	}
	if len(keys) != rows {
		t.Fatalf("%d rows, want %d: %v", len(keys), rows, keys)
	}
	for i := range positions {
		for j := i; j < len(positions); j++ {
			part := split
			part.Start, part.End = positions[i], positions[j]
			if j == 0 {
				part.End = nil
			}
			var got []string
			read(part, func(p connector.Page) {
				for _, r := range p.Records {
					got = append(got, r.KeyText())
				}
			})
			want := keys[i:j]
			if j == 0 {
				want = keys
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("(%x, %x] gives %v, want %v", part.Start, part.End, got, want)
			}
		}
	}
}
