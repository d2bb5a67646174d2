package cassandraio

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/gocql/gocql"

	"reprise/runners/services"
	"reprise/transforms/record"
)

// samples are a value of each type as CQL writes it, and what must come of it.
var samples = []struct{ typ, cql, json string }{
	{"ascii", "'a~'", `"a~"`},
	{"text", "'Grüße 🎬'", `"Grüße 🎬"`},
	{"text", "''", `""`},
	{"boolean", "true", "true"},
	{"tinyint", "-128", "-128"},
	{"smallint", "-32768", "-32768"},
	{"int", "2147483647", "2147483647"},
	{"bigint", "-9223372036854775808", "-9223372036854775808"},
	{"varint", "-340282366920938463463374607431768211456", `"-340282366920938463463374607431768211456"`},
	{"varint", "0", `"0"`},
	{"decimal", "-123456789012345678901234567890.0001", `"-123456789012345678901234567890.0001"`},
	{"decimal", "1E+5", `"1E5"`},
	{"float", "-1.5e-10", "-1.5e-10"},
	{"float", "NaN", `"NaN"`},
	{"double", "1.7976931348623157e308", "1.7976931348623157e+308"},
	{"double", "-Infinity", `"-Inf"`},
	{"blob", "0x00ff10", `"AP8Q"`},
	{"blob", "0x", `""`},
	{"uuid", "123e4567-e89b-42d3-a456-426614174000", `"123e4567-e89b-42d3-a456-426614174000"`},
	{"timeuuid", "50554d6e-29bb-11e5-b345-feff819cdc9f", `"50554d6e-29bb-11e5-b345-feff819cdc9f"`},
	{"inet", "'192.168.0.1'", `"192.168.0.1"`},
	{"inet", "'2001:db8::1'", `"2001:db8::1"`},
	{"timestamp", "'1969-12-31 23:59:59.999+0000'", `"1969-12-31T23:59:59.999Z"`},
	{"date", "'1582-10-15'", `"1582-10-15"`},
	{"date", "'2038-01-20'", `"2038-01-20"`},
	{"time", "'23:59:59.123456789'", `"23:59:59.123456789"`},
	{"duration", "1y2mo3d4h5ns", `"14mo3d14400000000005ns"`},
	{"duration", "-89h4m48s", `"-320688000000000ns"`},
	{"frozen<list<text>>", "['b', 'a', 'b']", `["b","a","b"]`},
	{"set<int>", "{3, -1, 2}", "[-1,2,3]"},
	{"map<text, decimal>", "{'k': 1.50, 'l': -2}", `{"k":"1.50","l":"-2"}`},
	{"frozen<set<timeuuid>>", "{50554d6e-29bb-11e5-b345-feff819cdc9f}", `["50554d6e-29bb-11e5-b345-feff819cdc9f"]`},
	{"frozen<list<frozen<map<int, frozen<set<text>>>>>>", "[{1: {'a', 'b'}}, {}]", `[{"1":["a","b"]},{}]`},
	{"tuple<int, text, boolean>", "(1, null, true)", `[1,null,true]`},
	{"tuple<int, tuple<text, frozen<list<int>>>>", "(null, ('x', [1, 2]))", `[null,["x",[1,2]]]`},
	{"map<text, frozen<tuple<int, text>>>", "{'a': (1, null)}", `{"a":[1,null]}`},
	{"size", "{w: 3, unit: null}", `{"w":3,"unit":null,"rights":null}`},
	{"frozen<size>", "{unit: 'px', rights: {holder: 'me', until: '2030-01-01'}}",
		`{"w":null,"unit":"px","rights":{"holder":"me","until":"2030-01-01"}}`},
	{"frozen<list<frozen<size>>>", "[{w: 1, unit: 'a'}, {w: 2}]",
		`[{"w":1,"unit":"a","rights":null},{"w":2,"unit":null,"rights":null}]`},
	{"vector<float, 3>", "[1.5, -2, 0]", "[1.5,-2,0]"},
	{"vector<bigint, 2>", "[1, -1]", "[1,-1]"},
	{"vector<uuid, 1>", "[123e4567-e89b-42d3-a456-426614174000]", `["123e4567-e89b-42d3-a456-426614174000"]`},
	{"vector<tinyint, 2>", "[1, -1]", "[1,-1]"},
	{"vector<date, 2>", "['2020-01-01', '1969-12-31']", `["2020-01-01","1969-12-31"]`},
	{"vector<text, 2>", "['', 'abc']", `["","abc"]`},
	{"vector<frozen<list<int>>, 2>", "[[1], [2, 3]]", "[[1],[2,3]]"},
	{"vector<vector<float, 2>, 2>", "[[1, 2], [3, 4]]", "[[1,2],[3,4]]"},
	{"vector<vector<text, 1>, 2>", "[['a'], ['b']]", `[["a"],["b"]]`},
	{"vector<frozen<tuple<int, int>>, 2>", "[(1, 2), (3, 4)]", "[[1,2],[3,4]]"},
	{"vector<boolean, 2>", "[true, false]", "[true,false]"},
	{"vector<time, 1>", "['00:00:01']", `["00:00:01.000000000"]`},
}

// The server parses a literal of each type, the source's codec reads what it stored, the sink writes that to another
// row, and the server must hold the same bytes in both.
func TestEveryTypeThroughTheServer(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	var columns, names, literals []string
	fields := []record.Field{{Name: "id", Type: record.Of(record.Int)}}
	for i, s := range samples {
		name := fmt.Sprintf("c%d", i)
		columns, names, literals = append(columns, name+" "+s.typ), append(names, name), append(literals, s.cql)
	}
	db.exec(t, "CREATE TYPE %k.rights (holder text, until date)")
	db.exec(t, "CREATE TYPE %k.size (w int, unit text, rights frozen<rights>)")
	db.exec(t, "CREATE TABLE %s (id int PRIMARY KEY, "+strings.Join(columns, ", ")+")")
	db.exec(t, "INSERT INTO %s (id, "+strings.Join(names, ", ")+") VALUES (1, "+strings.Join(literals, ", ")+")")
	db.exec(t, "INSERT INTO %s (id) VALUES (2)")

	described, err := loadTable(t.Context(), db.session, db.keyspace, db.table)
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]record.Type{}
	for _, c := range described {
		if c.err != nil {
			t.Fatal(c.err)
		}
		types[c.name] = c.typ
	}
	stored := db.bytes(t, 1, names)
	nulls := db.bytes(t, 2, names)
	values := []record.Value{record.Number(record.Int, 3)}
	for i, s := range samples {
		typ := types[names[i]]
		fields = append(fields, record.Field{Name: names[i], Type: typ})
		v, err := decodeValue(typ, stored[i])
		if err != nil {
			t.Errorf("%s %s: %v", s.typ, s.cql, err)
		}
		if got := string(v.AppendJSON(nil, typ)); got != s.json {
			t.Errorf("%s %s: read %s, want %s", s.typ, s.cql, got, s.json)
		}
		if v, err := decodeValue(typ, nulls[i]); err != nil || v.Kind() != record.Null {
			t.Errorf("%s: no value was read as %v, %v", s.typ, v, err)
		}
		values = append(values, v)
	}

	s := NewSink(db.config(db.table, nil))
	defer s.Close()
	schema := record.MustSchema(fields, "id")
	if res := put(t, s, &record.Record{Schema: schema, Values: values, Version: 1000}); res[0].Err != nil {
		t.Fatal(res[0].Err)
	}
	for i, got := range db.bytes(t, 3, names) {
		if !bytes.Equal(got, stored[i]) {
			t.Errorf("%s %s: wrote %x, the server has %x", samples[i].typ, samples[i].cql, got, stored[i])
		}
	}
}

// bytes reads columns of a row as the server sends them. gocql hands out the parts of a tuple one by one, so tuples
// are put together again.
func (db *database) bytes(t *testing.T, id int, names []string) [][]byte {
	t.Helper()
	var all [][]byte
	for _, name := range names {
		rows := db.query(fmt.Sprintf("SELECT %s FROM %%s WHERE id = %d", name, id)).Iter()
		tuple, isTuple := rows.Columns()[0].TypeInfo.(gocql.TupleTypeInfo)
		parts := make([]raw, max(1, len(tuple.Elems)))
		dest := make([]any, len(parts))
		for i := range parts {
			dest[i] = &parts[i]
		}
		rows.Scan(dest...)
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		data := []byte(parts[0])
		if isTuple {
			data = nil
			for _, p := range parts {
				length := []byte{0xff, 0xff, 0xff, 0xff}
				if p != nil {
					length = []byte{byte(len(p) >> 24), byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p))}
				}
				data = append(append(data, length...), p...)
			}
			if bytes.Count(data, []byte{0xff}) == len(data) {
				data = nil
			}
		}
		all = append(all, data)
	}
	return all
}

// raw takes the bytes of a value.
type raw []byte

// UnmarshalCQL implements gocql.Unmarshaler.
func (r *raw) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	if *r = nil; data != nil {
		*r = append(raw{}, data...)
	}
	return nil
}
