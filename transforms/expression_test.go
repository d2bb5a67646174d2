package transforms_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"reprise/transforms"
	"reprise/transforms/record"
)

// tags is a record with n tags.
func tags(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"t%d"`, i))
	}
	return `{"id":"a","tags":[` + strings.Join(all, ",") + `]}`
}

// everything is a record with a field of each kind.
var everything = struct {
	fields []string
	json   string
}{
	[]string{"id text", "yes boolean", "tiny tinyint", "small smallint", "n int", "size bigint", "big varint",
		"price decimal", "ratio float", "score double",
		"title text", "raw blob", "owner uuid", "tid timeuuid", "ip inet", "created timestamp", "day date", "at time",
		"took duration",
		"parts list<int>", "tags set<text>", "attrs map<text, text>", "counts map<int, bigint>",
		"pair tuple<int, text>", "meta udt<width:int, size:udt<unit:text>, names:list<text>>",
		"vec vector<float, 2>",
		"type text", "int int", "none bigint", "nolist list<text>", "nomap map<text, int>", "noudt udt<a:int>",
		"odd-name int", "in int", "_key int"},
	`{"id":"k|1","yes":true,"tiny":-1,"small":2,"n":3,"size":4000000000,"big":"123456789012345678901","price":"129.90","ratio":0.5,"score":1.5,
		"title":"Süßes Öl","raw":"AAE=","owner":"123e4567-e89b-42d3-a456-426614174000","tid":"8d3f4e00-0a1b-11ef-9c4f-0242ac120002","ip":"10.0.0.1",
		"created":"2024-05-01T12:00:00.000Z","day":"2024-05-01","at":"12:30:00.000000000","took":"1mo2d3ns",
		"parts":[3,1,2],"tags":["hero","web"],"attrs":{"a":"1","b c":"2"},"counts":{"7":70},"pair":[1,"x"],"meta":{"width":640,"size":{"unit":"px"},"names":["m","n"]},"vec":[0.5,1],
		"type":"image","int":9,"none":null,"nolist":null,"nomap":null,"odd-name":5,"in":6,"_key":7}`,
}

// Each condition holds for the record above.
func TestExpressions(t *testing.T) {
	in := schema(t, everything.fields...)
	for _, x := range []string{
		`yes`, `tiny == -1 && small == 2 && n == 3 && size == 4000000000`, `size > 3.5`, `ratio == 0.5 && score > 1`,
		`int(score) == 1`,
		`big == "123456789012345678901"`, `double(price) > 129.8 && price == "129.90"`,
		`title == "Süßes Öl" && title.size() == 8`, `title.lower() == "süßes öl" && title.upper() == "SÜßES ÖL"`,
		`title.startsWith("S") && title.matches("^S.*l$") && title.contains("ß")`,
		`raw == b"\x00\x01" && raw.size() == 2`, `owner == "123e4567-e89b-42d3-a456-426614174000"`,
		`ip.startsWith("10.")`,
		`created == timestamp("2024-05-01T12:00:00Z") && created.getHours() == 12`,
		`day == timestamp("2024-05-01T00:00:00Z") && day < created`,
		`created + duration("1h") > created && now - created == duration("744h")`,
		`now == timestamp("2024-06-01T12:00:00Z")`,
		`at == "12:30:00.000000000" && took == "1mo2d3ns"`,
		`time_of(tid) == timestamp("2024-05-04T13:38:12.190566400Z")`,
		`time_of("018f3a5e-7c00-7000-8000-000000000000") == timestamp("2024-05-02T17:33:41.760Z")`,
		`time_of("01HWX5WZ00ZZZZZZZZZZZZZZZZ").getFullYear() == 2024`,
		`hash("") == 5472609002491880229 && hash(b"a") == hash("a") && hash(id) % 16 >= 0`,
		`3 in parts && !(4 in parts) && parts[1] == 1 && parts.size() == 3`,
		`parts == [3, 1, 2] && parts + [4] == [3, 1, 2, 4]`, `parts.sort() == [1, 2, 3]`,
		`parts.exists(p, p > 2) && parts.all(p, p > 0) && parts.map(p, p * 2) == [6, 2, 4]`,
		`"hero" in tags && tags.join(",") == "hero,web" && sets.contains(tags, ["web"])`,
		`vec[0] == 0.5 && vec.size() == 2`, `pair[0] == 1 && pair[1] == "x" && pair.size() == 2`,
		`attrs["a"] == "1" && attrs.a == "1" && attrs["b c"] == "2" && "a" in attrs && !("z" in attrs)`,
		`has(attrs.a) && !has(attrs.z) && attrs[?"z"].orValue("0") == "0"`,
		`attrs.all(k, k != "") && attrs.size() == 2 && attrs == {"a": "1", "b c": "2"}`,
		`counts[7] == 70 && !(8 in counts)`,
		`meta.width == 640 && meta.size.unit == "px" && meta.names[1] == "n" && has(meta.width)`, `meta["width"] > 600`,
		`type == "image" && int == 9`,
		`none == null && size != null`, `nolist.size() == 0 && !("a" in nolist) && nolist.all(x, false)`,
		`nomap.size() == 0 && !("a" in nomap)`, `!has(noudt.a)`,
		`fields["odd-name"] == 5 && fields["in"] == 6 && fields["_key"] == 7 && fields.title == title && fields["none"] == null && "size" in fields && fields.size() == 35`,
		`_key == "k\\|1" && _op == "upsert" && _version == timestamp("2024-05-01T10:00:00Z")`,
		`math.greatest(n, size) == size && math.abs(tiny) == 1`, `base64.encode(raw) == "AAE="`,
		`regex.extract(title, "^(\\w)").hasValue()`,
		`created > timestamp("2024-05-01") && created == timestamp("2024-05-01 14:00+0200")`,
		`timestamp(1714564800) == created && timestamp(0) < created && timestamp(created) == created`,
		`json("{\"a\": 9007199254740993, \"b\": 123456789012345678901, \"c\": 1e2}").a == 9007199254740993`,
		`json("[1e2, 100000000000000000000]")[1] == 1e20`,
		`string(created) == "2024-05-01T12:00:00Z" && string(size) == "4000000000"`,
	} {
		chain := compile(t, in, "- filter: '"+strings.ReplaceAll(x, "'", "''")+"'")
		if got := outcomes(t, chain, fromJSON(t, in, everything.json)); len(got) != 1 ||
			!strings.HasPrefix(got[0], `k\|1 {`) {
			t.Errorf("%s: %.300s", x, got)
		}
	}
}

// Operations on null are errors that name the field.
func TestExpressionErrors(t *testing.T) {
	in := schema(t, everything.fields...)
	for x, want := range map[string]string{
		`none + 1 == 2`:                          `no such overload: +; none is null`,
		`none > 1`:                               `no such overload: >; none is null`,
		`attrs["z"] == "1"`:                      `no such key: z`,
		`parts[3] == 1`:                          `index out of bounds: 3`,
		`nolist[0] == "a"`:                       `index out of bounds: 0; nolist is null [transform.expression]; test for it: size(nolist) > 0`,
		`timestamp(n) < now`:                     `timestamp(3) is not a valid time: numbers are seconds`,
		`timestamp(title) < now`:                 `"Süßes Öl" is not a valid time`,
		`json("[123456789012345678901]")[0] > 1`: `123456789012345678901 has more digits`,
		`json("{\"a\": 1e999}").a > 1`:           `1e999 has more digits`,
		`timestamp("12024-" + string(n + 7) + "-01") > now`: `beyond the times of expressions`,
		`time_of(title) > now`:                              `"Süßes Öl" is not a valid timeuuid`,
		`size * size * size * size > 0`:                     `overflow`,
		`n / (n - 3) == 1`:                                  `division by zero`,
		`int(title) == 1`:                                   `title`,
		`title.substring(0, 100) == ""`:                     `index`,
	} {
		chain := compile(t, in, "- filter: '"+x+"'")
		got := outcomes(t, chain, fromJSON(t, in, everything.json))
		if len(got) != 1 || !strings.HasPrefix(got[0], "dead") || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %.300s, want %q in it", x, got, want)
		}
	}
}

// A chain evaluates one record after the other, so nothing of one may be seen in the next.
func TestExpressionsForgetRecords(t *testing.T) {
	in := schema(t, "id text", "size bigint", "tags list<text>")
	chain := compile(t, in, `- derive: {big: size > 5, all: 'tags + ["x"]', same: tags}`)
	var kept []*record.Record
	for i := range 10 {
		r := fromJSON(t, in, fmt.Sprintf(`{"id":"%d","size":%d,"tags":["%d"]}`, i, i, i))
		chain.Apply(r, func(out *record.Record) { kept = append(kept, out) },
			func(_ *record.Record, _ string, err error) { t.Error(err) })
	}
	for i, r := range kept {
		want := fmt.Sprintf(`{"id":"%d","size":%d,"tags":["%d"],"big":%v,"all":["%d","x"],"same":["%d"]}`, i, i, i,
			i > 5, i, i)
		if got := string(r.AppendJSON(nil)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	in := schema(b, everything.fields...)
	r := fromJSON(b, in, everything.json)
	for _, x := range []struct{ name, condition string }{
		{"numbers and text", `size > 1000 && type in ["image", "video"]`},
		{"null test", `none == null && title != null`},
		{"set and map", `"web" in tags && attrs["a"] == "1"`},
		{"time", `created > timestamp("2024-01-01T00:00:00Z")`},
		{"loop", `parts.exists(p, p > 2)`},
	} {
		b.Run(x.name, func(b *testing.B) {
			benchmark(b, compile(b, in, "- filter: '"+x.condition+"'"), r)
		})
	}
}

// BenchmarkSteps measures steps that do not look at values; the copy of the record is a part of it.
func BenchmarkSteps(b *testing.B) {
	in := schema(b, everything.fields...)
	r := fromJSON(b, in, everything.json)
	for _, x := range []struct{ name, config string }{
		{"none", `[]`},
		{"rename", `- rename: {title: name}`},
		{"project", `- project: {drop: [title, raw]}`},
		{"cast", `- cast: {size: text, n: bigint}`},
		{"derive", `- derive: {month: 'string(created).substring(0, 7)'}`},
		{"five steps", "- filter: size > 1000\n- rename: {title: name}\n- derive: {large: size > 1000}\n- " +
			"set_defaults: {none: 0}\n- project: {drop: [raw]}"},
	} {
		b.Run(x.name, func(b *testing.B) {
			benchmark(b, compile(b, in, x.config), r)
		})
	}
}

func benchmark(b *testing.B, chain *transforms.Chain, r *record.Record) {
	values := make([]record.Value, 0, len(r.Values)+8)
	work := *r
	n := 0
	emit := func(*record.Record) { n++ }
	dead := func(_ *record.Record, _ string, err error) { b.Fatal(err) }
	b.ReportAllocs()
	for b.Loop() {
		work = *r
		work.Values = append(values[:0], r.Values...)
		chain.Apply(&work, emit, dead)
	}
	if n == 0 {
		b.Fatal("nothing came out")
	}
}

// now is the start of the run, however long that runs.
func TestNowIsFixed(t *testing.T) {
	in := schema(t, "id text")
	chain, err := transforms.Compile(specs(t, "- derive: {at: now}"), in,
		transforms.Options{Now: time.UnixMilli(1234).In(time.FixedZone("", 3600))})
	if err != nil {
		t.Fatal(err)
	}
	want := `a {"id":"a","at":"1970-01-01T00:00:01.234Z"}`
	if got := outcomes(t, chain, fromJSON(t, in, `{"id":"a"}`)); got[0] != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
