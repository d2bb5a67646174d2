package cassandraio

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// Whatever stands for a position, what is near it has a form that the server takes.
func TestNearIsAPosition(t *testing.T) {
	var kinds []record.Kind
	for k := range record.Kind(64) {
		if (plan.Order{{Kind: k}}).Check() == nil {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) != 16 {
		t.Fatalf("keys may have the kinds %v", kinds)
	}
	rapid.Check(t, func(t *rapid.T) {
		order := plan.Order{{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Desc: rapid.Bool().Draw(t, "desc")},
			{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}}
		near, err := order.Near(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes"))
		if err != nil {
			t.Fatal(err)
		}
		values, err := order.Values(near)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range order {
			v, err := decodeValue(record.Of(p.Kind), values[i])
			if err != nil {
				t.Fatalf("%s: %x: %v", p.Kind, values[i], err)
			}
			if p.Kind == record.TimeUUID && values[i][6]>>4 != 1 {
				t.Fatalf("%s is not a valid timeuuid", v.Text(record.Of(p.Kind)))
			}
		}
	})
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
	{"inet", "'0.0.0.0' '127.0.0.1' '255.255.255.255' '::' '::1' '7fff::' '2001:db8::1' " +
		"'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'"},
}

// The server's order of each type, both ways, is that of the positions; and reading between any two
// of them gives what lies between.
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
				one.exec(t, "CREATE TABLE %s (p int, c "+c.typ+
					", v int, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (c "+order+")")
				n := 0
				for v := range strings.FieldsSeq(c.values) {
					one.exec(t, fmt.Sprintf("INSERT INTO %%s (p, c, v) VALUES (1, %s, %d)", v, n))
					n++
				}
				one.checkEveryCut(t, "1", n)
				// From a position of the ring, too.
				ring := one.source(t, nil)
				checkCuts(t, ring, connector.Split{Partition: plan.RingName}, n)
			})
		}
	}
}

func TestCompositePositionsAgreeWithTheServer(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	for i, order := range []string{"a ASC, b ASC, c ASC", "a DESC, b DESC, c DESC", "a ASC, b DESC, c ASC",
		"a DESC, b ASC, c DESC"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			one := *db
			one.table = fmt.Sprint("t", i)
			one.exec(t, "CREATE TABLE %s (p text, q int, a int, b text, c timestamp, s int static, v int, PRIMARY "+
				"KEY ((p, q), a, b, c)) WITH CLUSTERING ORDER BY ("+order+")")
			n := 0
			for a := range 3 {
				for _, b := range []string{"", "x", "xy"} {
					for c := range 2 {
						one.exec(t, fmt.Sprintf("INSERT INTO %%s (p, q, a, b, c, v) VALUES ('p/', -1, %d, '%s', "+
							"%d, %d)", a-1, b, c, n))
						n++
					}
				}
			}
			one.exec(t, "INSERT INTO %s (p, q, s) VALUES ('static only', 0, 1)")
			one.checkEveryCut(t, `p\//-1`, n)
			checkCuts(t, one.source(t, nil), connector.Split{Partition: plan.RingName}, n)
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
		}{{Interval{From: "1", To: "4"}, 9}, {Interval{From: "4"}, 3}, {Interval{To: "1"}, 3},
			{Interval{From: "5"}, 0}} {
			s := one.source(t, func(sc *SourceConfig) { discover(sc); sc.IDs = &c.ids })
			checkCuts(t, s, connector.Split{Partition: "1"}, c.rows)
			// A split of a whole run, cut elsewhere, is bounded by the settings as well.
			whole := one.source(t, discover)
			o, err := whole.open(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			for a := byte(0); a < 5; a++ {
				at, err := o.table.order.Append(nil, [][]byte{{0, 0, 0, a}, {0, 0, 0, 1}})
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				done, rest := connector.Split{Partition: "1"}.Cut(at)
				for _, part := range []connector.Split{done, rest} {
					if err := s.Read(t.Context(), part,
						func(p connector.Page) error { n += len(p.Records); return nil }); err != nil {
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
