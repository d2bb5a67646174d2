package elasticsearchio

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"reprise/io/iotest"
	"reprise/transforms/fail"
	"reprise/transforms/golden"
	"reprise/transforms/record"
)

// The lines that requests are made of, for values that break quoting, for deletes, and for all settings that shape
// them.
func TestBody(t *testing.T) {
	schema := record.MustSchema([]record.Field{
		{Name: "id", Type: record.Of(record.Text)}, {Name: "n", Type: record.Of(record.Int)},
		{Name: "type", Type: record.Of(record.Text)},
		{Name: `odd "name"`, Type: record.Of(record.Double)}, {Name: "at", Type: record.Of(record.Timestamp)},
		{Name: "attrs", Type: record.MapOf(record.Of(record.Text), record.Of(record.Blob))},
	}, "id", "n")
	text := record.String
	full := []record.Value{text("a"), record.Number(record.Int, 1), text("image"), record.Float64(1e21),
		record.Number(record.Timestamp, 1_700_000_000_000),
		record.Nested(record.Map, []record.Value{text("k.\n"), record.Bytes(record.Blob, "\x00\xff")})}
	with := func(change func(v []record.Value)) []record.Value {
		v := append([]record.Value(nil), full...)
		change(v)
		return v
	}
	records := []*record.Record{
		{Values: full, Version: 1_700_000_000_000_001},
		{Values: with(func(v []record.Value) { v[0] = text("schlüssel \"日本\" \\ \x01\u2028|") })},
		{Values: with(func(v []record.Value) { v[3], v[4] = record.Value{}, record.NullValue }), Version: 7},
		{Values: with(func(v []record.Value) {
			v[3], v[5] = record.Float64(math.NaN()),
				record.Nested(record.Map, nil)
		}), Version: 7},
		{Values: with(func(v []record.Value) { clear(v[2:]) }), Version: 8, Op: record.Delete},
		{Values: make([]record.Value, 6), Version: 9},
		{Values: with(func(v []record.Value) { v[0] = text(strings.Repeat("x", 511)) }), Version: 9},
		{Values: full, Version: -1},
	}
	var got []byte
	for _, c := range []SinkConfig{
		{Index: "assets"},
		{Index: "assets-{type}-{at:2006-01}", ID: "{id}", Routing: "{n}", Exclude: []string{"attrs", "id"}},
		{Index: "assets", Fields: []string{"attrs", "n"}},
	} {
		settings, _ := json.Marshal(c)
		got = append(append(got, settings...), '\n')
		f, err := newFormat(c, schema)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			r.Schema = schema
			from := len(got)
			if got, err = f.append(got, r); err != nil {
				if fail.ClassOf(err) != fail.Permanent {
					t.Errorf("class %s, want permanent: %v", fail.ClassOf(err), err)
				}
				got = append(append(got[:from], err.Error()...), '\n')
				continue
			}
			for line := range strings.Lines(string(got[from:])) {
				if !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %s", line)
				}
			}
		}
	}
	golden.Compare(t, "testdata/bodies.txt", string(got))
}

func TestFormatRefuses(t *testing.T) {
	for _, c := range []SinkConfig{
		{Index: "assets-{nothing}"}, {Index: "a", ID: "{nothing}"}, {Index: "a", Routing: "{nothing}"},
		{Index: "a", Fields: []string{"nothing"}}, {Index: "a", Exclude: []string{"nothing"}},
	} {
		if _, err := newFormat(c, iotest.AssetSchema()); fail.ExitOf(err) != fail.ExitJob ||
			!strings.Contains(err.Error(), "nothing") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Documents in answers are not told in full.
func TestReasonsAreShort(t *testing.T) {
	c := &cause{Type: "document_parsing_exception",
		Reason: "[1:6] failed to parse field [f] of type [long] in document with id 'x'. Preview of field's value: " +
			"'secret'",
		CausedBy: &cause{Reason: "For input string: " + strings.Repeat("日本", 1000)}}
	got := itemError(400, c).Error()
	if strings.Contains(got, "secret") || len(got) > 600 || !strings.Contains(got, "field [f] of type [long]") {
		t.Error(got)
	}
}

func TestClasses(t *testing.T) {
	const rejected = `rejected execution of coordinating operation [coordinating_and_primary_bytes=0, replica_bytes=0, all_bytes=0, coordinating_operation_bytes=%, max_coordinating_bytes=100]`
	body := func(kind, reason string) string {
		text, _ := json.Marshal(map[string]any{"error": map[string]any{"type": kind, "reason": reason}})
		return string(text)
	}
	for _, c := range []struct {
		status int
		body   string
		class  fail.Class
		code   string
		exit   int
	}{
		{429, body("es_rejected_execution_exception", strings.Replace(rejected, "%", "90", 1)), fail.Throttled,
			"elasticsearch.throttled", fail.ExitInternal},
		{429, body("es_rejected_execution_exception", strings.Replace(rejected, "%", "101", 1)), fail.Permanent,
			"elasticsearch.too_large", fail.ExitInternal},
		{429, body("es_rejected_execution_exception",
			"rejected execution of primary operation [coordinating_and_primary_bytes=17826012, replica_bytes=0, "+
				"all_bytes=17826012, primary_operation_bytes=71303248, max_primary_bytes=51897958]"), fail.Permanent,
			"elasticsearch.too_large", fail.ExitInternal},
		{429, body("circuit_breaking_exception", "Data too large"), fail.Throttled,
			"elasticsearch.throttled", fail.ExitInternal},
		{503, `{"error":"no master"}`, fail.Throttled, "elasticsearch.throttled", fail.ExitUnreachable},
		{503, ``, fail.Throttled, "elasticsearch.throttled", fail.ExitUnreachable},
		{502, `<html>Bad Gateway</html>`, fail.Transient, "elasticsearch.unreachable", fail.ExitUnreachable},
		{504, ``, fail.Transient, "elasticsearch.unreachable", fail.ExitUnreachable},
		{500, body("null_pointer_exception", ""), fail.Transient, "elasticsearch.server", fail.ExitInternal},
		{401, body("security_exception", "unable to authenticate user [u]"), fail.Fatal,
			"elasticsearch.auth", fail.ExitUnreachable},
		{403, body("security_exception", "action [indices:data/write/bulk] is unauthorized"), fail.Fatal,
			"elasticsearch.auth", fail.ExitUnreachable},
		{403, body("cluster_block_exception", "index [a] blocked by: [FORBIDDEN/8/index write (api)];"), fail.Fatal,
			"elasticsearch.read_only", fail.ExitJob},
		{404, ``, fail.Fatal, "elasticsearch.not_found", fail.ExitJob},
		{413, ``, fail.Permanent, "elasticsearch.too_large", fail.ExitInternal},
		{400, body("illegal_argument_exception", "x"), fail.Permanent, "elasticsearch.mapping", fail.ExitInternal},
	} {
		err := statusError(c.status, []byte(c.body))
		if fail.ClassOf(err) != c.class || fail.CodeOf(err) != c.code || fail.ExitOf(err) != c.exit {
			t.Errorf("%d %s: %s, exit %d, %v", c.status, c.body, fail.ClassOf(err), fail.ExitOf(err), err)
		}
	}
}

// Documents that a shard refuses together are written one by one; one that is too large alone is a dead letter and
// not tried for ever.
func TestTooLargeForAShard(t *testing.T) {
	shard := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		item := `{"index":{"status":201}}`
		if len(text) > 10_000 {
			item = `{"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"rejected execution of primary operation [primary_operation_bytes=10001, max_primary_bytes=10000]"}}}`
		}
		n := bytes.Count(text, []byte(`{"index":`))
		fmt.Fprintf(w, `{"items":[%s],"errors":%v}`, strings.Repeat(item+",", n-1)+item, len(text) > 10_000)
	}))
	defer shard.Close()
	records := sized(8, 4000)
	records[5] = sized(1, 11_000)[0]
	results, err := write(t, SinkConfig{URLs: []string{shard.URL}, Index: "a"}, records...)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		large := r.Record == records[5]
		if large != (fail.CodeOf(r.Err) == tooLargeCode) || !large && r.Outcome != record.Written {
			t.Errorf("%s: %v, %v", r.Record.KeyText(), r.Outcome, r.Err)
		}
	}
}
