package elasticsearchio

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func prepare(t *testing.T, c SinkConfig, schema *record.Schema, dry bool) error {
	t.Helper()
	if faults := c.Validate(); faults != nil {
		t.Fatal(faults)
	}
	s := NewSink(c)
	defer s.Close()
	return s.Prepare(t.Context(), connector.Run{ID: "r1"}, schema, dry)
}

// write writes records as one bundle and gives the result of each, in their order.
func write(t *testing.T, c SinkConfig, records ...*record.Record) ([]connector.Result, error) {
	t.Helper()
	s := NewSink(c)
	defer s.Close()
	var mu sync.Mutex
	settled := map[*record.Record]connector.Result{}
	w, err := s.Open(t.Context(), connector.Run{ID: "r1"}, records[0].Schema, func(results []connector.Result) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range results {
			if _, twice := settled[r.Record]; twice {
				t.Errorf("%s is settled twice", r.Record.KeyText())
			}
			settled[r.Record] = r
		}
	})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(t.Context(), r); err != nil {
			return nil, err
		}
	}
	if _, err := w.Flush(t.Context()); err != nil {
		return nil, err
	}
	results := make([]connector.Result, len(records))
	for i, r := range records {
		var ok bool
		if results[i], ok = settled[r]; !ok {
			t.Errorf("%s is not settled", r.KeyText())
		}
	}
	return results, nil
}

// outcomes are the outcomes of results, with the codes of errors.
func outcomes(results []connector.Result) []string {
	var all []string
	for _, r := range results {
		text := r.Outcome.String()
		if r.Err != nil {
			text += " " + fail.CodeOf(r.Err)
		}
		all = append(all, text)
	}
	return all
}

func (s server) config(index string) SinkConfig {
	return SinkConfig{URLs: []string{s.url}, Index: index, Timeout: connector.Duration(20 * time.Second)}
}

func wantError(t *testing.T, err error, code string, exit int, parts ...string) {
	t.Helper()
	if fail.CodeOf(err) != code || fail.ExitOf(err) != exit {
		t.Errorf("got exit %d and %v, want exit %d and %s", fail.ExitOf(err), err, exit, code)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q is not in: %v", p, err)
		}
	}
}

func TestPrepare(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	t.Run("missing", func(t *testing.T) {
		c := es.config(name(t))
		wantError(t, prepare(t, c, schema, false), "elasticsearch.index_missing", fail.ExitJob, c.Index, "create: {}")
	})
	t.Run("dry creates nothing", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		c.Create = &Create{}
		if err := prepare(t, c, schema, true); err != nil {
			t.Fatal(err)
		}
		if status, _ := es.call("GET", "/"+c.Index, nil); status != 404 {
			t.Error("the index is there")
		}
	})
	t.Run("created", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		c.Create = &Create{Settings: map[string]any{"number_of_shards": 2,
			"index.query.default_field": []string{"title"}}}
		for range 2 {
			if err := prepare(t, c, schema, false); err != nil {
				t.Fatal(err)
			}
		}
		var got map[string]struct {
			Mappings json.RawMessage
			Settings map[string]any
		}
		es.get("/"+c.Index+"?flat_settings=true", &got)
		if s := got[c.Index].Settings; s["index.number_of_shards"] != "2" || s["index.gc_deletes"] != "1h" {
			t.Error(s)
		}
		var have, want any
		derived, _ := json.Marshal(derive(schema.Fields, product{}))
		if json.Unmarshal(got[c.Index].Mappings, &have) != nil {
			t.Fatal(string(got[c.Index].Mappings))
		}
		if meta := fmt.Sprint(have.(map[string]any)["_meta"]); meta != "map[reprise:map[run:r1]]" {
			t.Errorf("noted: %s", meta)
		}
		delete(have.(map[string]any), "_meta")
		if json.Unmarshal(derived, &want) != nil || !cmp.Equal(have, want) {
			t.Error(cmp.Diff(want, have))
		}
	})
	t.Run("from a file", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		c.Create = &Create{File: "testdata/index.json"}
		c.Inline()
		if err := prepare(t, c, schema, false); err != nil {
			t.Fatal(err)
		}
		got := string(es.must("GET", "/"+c.Index+"?flat_settings=true", nil))
		for _, part := range []string{`"index.number_of_shards":"2"`, `"normalizer":"lower"`, `"owner":"search team"`,
			`"run":"r1"`, `"index.gc_deletes":"1h"`} {
			if !strings.Contains(got, part) {
				t.Errorf("%s is not in %s", part, got)
			}
		}
	})
	t.Run("holds other data", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		es.must("PUT", "/"+c.Index, nil)
		c.Create = &Create{}
		if err := prepare(t, c, schema, false); err != nil {
			t.Error(err) // it is empty
		}
		es.must("PUT", "/"+c.Index+"/_doc/1?refresh=true", `{}`)
		for _, dry := range []bool{true, false} {
			wantError(t, prepare(t, c, schema, dry), "elasticsearch.not_empty", fail.ExitJob,
				"already holds 1 documents", "existing: true")
		}
		c.Create.Existing = true
		if err := prepare(t, c, schema, false); err != nil {
			t.Error(err)
		}
		c.Create = nil
		if err := prepare(t, c, schema, false); err != nil {
			t.Error(err)
		}
	})
	t.Run("asks for routing", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		c.Create = &Create{Mappings: map[string]any{"_routing": map[string]any{"required": true}}}
		wantError(t, prepare(t, c, schema, true), "elasticsearch.routing", fail.ExitJob, "routing")
		c.Routing = "{asset_type}"
		if err := prepare(t, c, schema, false); err != nil {
			t.Error(err)
		}
	})
	t.Run("bad settings", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		c.Create = &Create{Settings: map[string]any{"number_of_shards": -2}}
		wantError(t, prepare(t, c, schema, false), "elasticsearch.create", fail.ExitJob, "number_of_shards")
	})
	t.Run("own mappings", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		c.Create = &Create{Mappings: map[string]any{"properties": map[string]any{"size": map[string]any{"type": "ip"}}}}
		for _, dry := range []bool{true, false} {
			wantError(t, prepare(t, c, schema, dry), "elasticsearch.mapping_conflict", fail.ExitJob, "create.mappings",
				"size (bigint): the index has ip")
		}
		c.Exclude = []string{"size"}
		if err := prepare(t, c, schema, false); err != nil {
			t.Error(err)
		}
	})
	t.Run("conflicts", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		es.must("PUT", "/"+c.Index, `{"mappings":{"dynamic":"strict","properties":{"id":{"type":"keyword"},"asset_type":{"type":"object"},
			"size":{"type":"text"},"tags":{"type":"keyword"},"attrs":{"type":"flattened"}}}}`)
		wantError(t, prepare(t, c, schema, false), "elasticsearch.mapping_conflict", fail.ExitJob, "3 of the fields",
			"asset_type (text): the index has object", "size (bigint): the index has text",
			"title (text): not in the mapping")
		if n := es.count(c.Index); n != 0 {
			t.Error(n)
		}
	})
	t.Run("aliases", func(t *testing.T) {
		alias := name(t)
		a, b := es.index(alias+"-a"), es.index(alias+"-b")
		es.must("PUT", "/"+a, `{"mappings":{"properties":{"size":{"type":"ip"}}},"aliases":{"`+alias+`":{}}}`)
		es.must("PUT", "/"+b, `{"aliases":{"`+alias+`":{}}}`)
		c := es.config(alias)
		wantError(t, prepare(t, c, schema, false), "elasticsearch.alias", fail.ExitJob, "2 indices", "is_write_index")
		point := func(write bool) {
			es.must("POST", "/_aliases",
				fmt.Sprintf(`{"actions":[{"add":{"index":"%s","alias":"%s","is_write_index":%t}}]}`, b, alias, write))
		}
		point(true)
		if err := prepare(t, c, schema, false); err != nil {
			t.Error(err) // the other index does not fit, but is not written
		}
		if got, err := write(t, c, iotest.Records(schema, 0, 3, iotest.Base)...); err != nil || es.count(b) != 3 {
			t.Error(outcomes(got), err, es.count(b))
		}
		es.must("DELETE", "/"+a, nil)
		point(false)
		wantError(t, prepare(t, c, schema, false), "elasticsearch.alias", fail.ExitJob)
	})
	t.Run("blocked", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		es.must("PUT", "/"+c.Index, `{"settings":{"index.blocks.write":true}}`)
		wantError(t, prepare(t, c, schema, false), "elasticsearch.read_only", fail.ExitJob)
		_, err := write(t, c, iotest.Record(schema, 0, iotest.Base))
		wantError(t, err, "elasticsearch.read_only", fail.ExitJob)
	})
	t.Run("closed", func(t *testing.T) {
		c := es.config(es.index(name(t)))
		es.must("PUT", "/"+c.Index, nil)
		es.must("POST", "/"+c.Index+"/_close", nil)
		wantError(t, prepare(t, c, schema, false), "elasticsearch.index_closed", fail.ExitJob)
		_, err := write(t, c, iotest.Record(schema, 0, iotest.Base))
		wantError(t, err, "elasticsearch.index_closed", fail.ExitJob)
	})
	t.Run("no such secret", func(t *testing.T) {
		c := es.config(name(t))
		c.User, c.Password = "u", "env:REPRISE_TEST_NO_SUCH_SECRET"
		wantError(t, prepare(t, c, schema, false), "elasticsearch.secret", fail.ExitJob, "REPRISE_TEST_NO_SUCH_SECRET")
	})
	t.Run("no such certificate", func(t *testing.T) {
		c := es.config(name(t))
		c.TLS = &connector.TLS{CA: "testdata/none.pem"}
		wantError(t, prepare(t, c, schema, false), "tls.ca", fail.ExitJob, "none.pem")
	})
	t.Run("https to http", func(t *testing.T) {
		c := es.config(name(t))
		c.URLs = []string{strings.Replace(es.url, "http:", "https:", 1)}
		wantError(t, prepare(t, c, schema, false), "elasticsearch.tls", fail.ExitUnreachable)
	})
}

// An index that forgets deletes early is told of.
func TestPrepareWarnsOfDeletes(t *testing.T) {
	es := shared(t)
	for keep, warned := range map[string]bool{"": true, "60s": true, "10m": false, "1d": false} {
		var log bytes.Buffer
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		c := es.config(es.index(name(t) + "-" + keep))
		settings := map[string]any{}
		if keep != "" {
			settings["index.gc_deletes"] = keep
		}
		es.must("PUT", "/"+c.Index, map[string]any{"settings": settings})
		err := prepare(t, c, iotest.AssetSchema(), false)
		slog.SetDefault(before)
		if err != nil || strings.Contains(log.String(), "gc_deletes") != warned {
			t.Errorf("%q: %v %s", keep, err, &log)
		}
	}
}

// A cluster that is not there is told at once.
func TestUnreachable(t *testing.T) {
	c := SinkConfig{URLs: []string{"http://127.0.0.1:1"}, Index: "a", RetryFor: connector.Duration(time.Millisecond)}
	began := time.Now()
	wantError(t, prepare(t, c, iotest.AssetSchema(), false), "elasticsearch.unreachable", fail.ExitUnreachable,
		"127.0.0.1:1", "check urls")
	if took := time.Since(began); took > 10*time.Second {
		t.Error(took)
	}
	_, err := write(t, c, iotest.Record(iotest.AssetSchema(), 0, iotest.Base))
	wantError(t, err, "elasticsearch.unreachable", fail.ExitUnreachable)
}

// Nodes that do not answer are passed over.
func TestOneNodeDown(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	c := es.config(es.index(name(t)))
	c.URLs = []string{"http://127.0.0.1:1", es.url}
	es.must("PUT", "/"+c.Index, nil)
	c.Batch.Rows = 10
	results, err := write(t, c, iotest.Records(schema, 0, 100, iotest.Base)...)
	if err != nil || es.count(c.Index) != 100 {
		t.Fatal(err, outcomes(results))
	}
}

// Every kind of value is indexed under the derived mappings, and comes back as it was sent.
func TestEveryKind(t *testing.T) {
	es, schema := shared(t), everything(t)
	c := es.config(es.index(name(t)))
	c.Create = &Create{}
	c.Gzip = true
	if err := prepare(t, c, schema, false); err != nil {
		t.Fatal(err)
	}
	records := iotest.Records(schema, 0, 200, iotest.Base)
	nulls, unset := iotest.Record(schema, 200, iotest.Base), iotest.Record(schema, 201, iotest.Base)
	for i := range schema.Fields[1:] {
		nulls.Values[i+1], unset.Values[i+1] = record.NullValue, record.Value{}
	}
	records = append(records, nulls, unset)
	results, err := write(t, c, records...)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Outcome != record.Written {
			t.Fatal(r.Outcome, r.Err)
		}
	}
	got := es.documents(c.Index)
	for _, r := range records {
		if want := iotest.JSON(r); got[r.KeyText()] != want {
			t.Fatalf("got %s\nwant %s", got[r.KeyText()], want)
		}
	}
	// Searches find values by their type.
	for field, value := range map[string]any{"inet": "0.0.0.0/0", "at": "2020||/y", "big": -5, "decimal": 0.5} {
		query := map[string]any{"query": map[string]any{"range": map[string]any{field: map[string]any{"gte": value}}}}
		if field == "inet" {
			query = map[string]any{"query": map[string]any{"term": map[string]any{field: value}}}
		}
		var found struct{ Count int }
		if err := json.Unmarshal(es.must("POST", "/"+c.Index+"/_count", query), &found); err != nil ||
			found.Count < 100 {
			t.Errorf("%s: %d found (%v)", field, found.Count, err)
		}
	}
}

// Each item has an outcome of its own.
func TestItems(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index,
		`{"mappings":{"properties":{"size":{"type":"integer"},"asset_type":{"type":"date"},"title":{"type":"keyword"},"n":{"type":"double"}}}}`)
	es.must("PUT", "/"+c.Index+"/_doc/newer?version_type=external&version="+fmt.Sprint(iotest.Base+1),
		`{"title":"live"}`)
	es.must("PUT", "/"+c.Index+"/_doc/counted", `{"title":"without a version of its own"}`)
	asset := func(id string, change func(v []record.Value)) *record.Record {
		v := []record.Value{record.String(id), record.NullValue, record.String("title"),
			record.Number(record.BigInt, 1), record.Value{}, record.Value{}}
		if change != nil {
			change(v)
		}
		return &record.Record{Schema: schema, Values: v, Version: iotest.Base}
	}
	secret := strings.Repeat("do not tell ", 5000)
	gone := asset("gone", nil)
	gone.Op = record.Delete
	results, err := write(t, c,
		asset("good", nil),
		asset("newer", nil),
		asset("counted", nil),
		asset("no date", func(v []record.Value) { v[1] = record.String(secret) }),
		asset("immense", func(v []record.Value) { v[2] = record.String(secret) }),
		asset("out of range", func(v []record.Value) { v[3] = record.Number(record.BigInt, math.MaxInt64) }),
		asset(strings.Repeat("k", 513), nil),
		asset(strings.Repeat("k", 512), nil),
		asset("empty", func(v []record.Value) { v[2] = record.String("") }),
		asset("🎬", func(v []record.Value) { v[2] = record.String("Grüße \u2028 \x00 日本") }),
		gone,
	)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"written", "superseded", "written", "dead elasticsearch.mapping", "dead elasticsearch.mapping",
		"dead elasticsearch.mapping",
		"dead elasticsearch.id", "written", "written", "written", "written"}
	if diff := cmp.Diff(want, outcomes(results)); diff != "" {
		t.Error(diff)
	}
	for _, r := range results {
		if r.Err != nil && (strings.Count(r.Err.Error(), "do not tell") > 20 || len(r.Err.Error()) > 700) {
			t.Errorf("%d characters: %v", len(r.Err.Error()), r.Err)
		}
	}
	docs := es.documents(c.Index)
	if len(docs) != 6 || docs["newer"] != `{"title":"live"}` {
		t.Error(len(docs), docs["newer"])
	}
}

// JSON has no NaN: number fields refuse it, others keep the text.
func TestNaN(t *testing.T) {
	es := shared(t)
	double := record.Of(record.Double)
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "number", Type: double}, {Name: "word", Type: double}}, "id")
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index, `{"mappings":{"properties":{"number":{"type":"double"},"word":{"type":"keyword"}}}}`)
	null := record.NullValue
	results, err := write(t, c,
		&record.Record{Schema: schema, Values: []record.Value{record.String("a"), record.Float64(math.NaN()), null}},
		&record.Record{Schema: schema, Values: []record.Value{record.String("b"), null, record.Float64(math.Inf(-1))}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dead elasticsearch.mapping", "written"}, outcomes(results)); diff != "" {
		t.Error(diff)
	}
	if got := es.documents(c.Index)["b"]; got != `{"id":"b","number":null,"word":"-Inf"}` {
		t.Error(got)
	}
}

// Index and routing by record; the server makes the indices as its templates say.
func TestTemplates(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	prefix := name(t)
	es.must("PUT", "/_index_template/"+prefix,
		`{"index_patterns":["`+prefix+`-*"],"template":{"settings":{"number_of_shards":3},"mappings":{"_routing":{"required":true}}}}`)
	t.Cleanup(func() { es.call("DELETE", "/_index_template/"+prefix, nil) })
	c := es.config(prefix + "-{asset_type}")
	c.Routing = "{title}"
	if err := prepare(t, c, schema, false); err != nil {
		t.Fatal(err)
	}
	var records []*record.Record
	for i, kind := range []string{"image", "video", "image", "No Index"} {
		r := iotest.Record(schema, i, iotest.Base)
		r.Values[1] = record.String(kind)
		records = append(records, r)
	}
	missing := iotest.Record(schema, 9, iotest.Base)
	missing.Values[1] = record.NullValue
	results, err := write(t, c, append(records, missing)...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"written", "written", "written", "dead elasticsearch.index_name",
		"dead elasticsearch.template"}, outcomes(results)); diff != "" {
		t.Error(diff)
	}
	images, videos := es.index(prefix+"-image"), es.index(prefix+"-video")
	if es.count(images) != 2 || es.count(videos) != 1 {
		t.Error(es.count(images), es.count(videos))
	}
	var doc struct {
		Routing string `json:"_routing"`
	}
	r := records[0]
	title := r.Values[2].Str()
	if es.get("/"+images+"/_doc/"+r.KeyText()+"?routing="+title, &doc); doc.Routing != title {
		t.Errorf("routing %q, want %q", doc.Routing, title)
	}
}

func TestRefresh(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index, `{"settings":{"refresh_interval":"-1"}}`)
	visible := func() (n struct{ Count int }) { es.get("/"+c.Index+"/_count", &n); return n }
	if _, err := write(t, c, iotest.Record(schema, 0, iotest.Base)); err != nil || visible().Count != 0 {
		t.Error(err, visible())
	}
	c.Refresh = "now"
	if _, err := write(t, c, iotest.Record(schema, 1, iotest.Base)); err != nil || visible().Count != 2 {
		t.Error(err, visible())
	}
}

// A disk at its flood stage makes the server answer each item with 429; writes wait until that is over.
func TestItemsThrottled(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index, nil)
	block := func(on any) {
		es.must("PUT", "/"+c.Index+"/_settings", map[string]any{"index.blocks.read_only_allow_delete": on})
	}
	block(true)
	c.RetryFor = connector.Duration(time.Millisecond)
	_, err := write(t, c, iotest.Records(schema, 0, 10, iotest.Base)...)
	wantError(t, err, "elasticsearch.throttled", fail.ExitInternal, "flood-stage")
	if fail.ClassOf(err) != fail.Throttled {
		t.Error(fail.ClassOf(err))
	}

	// The first answer says 429, then the block goes.
	proxy := newProxy(t, es.url)
	proxy.answered = func(n int, _ []byte) {
		if n == 1 {
			block(nil)
		}
	}
	c.URLs, c.RetryFor = []string{proxy.URL}, connector.Duration(time.Minute)
	results, err := write(t, c, iotest.Records(schema, 0, 10, iotest.Base)...)
	if err != nil || es.count(c.Index) != 10 {
		t.Fatal(err, es.count(c.Index))
	}
	for _, r := range results {
		if r.Outcome != record.Written || r.Attempts < 2 {
			t.Errorf("%s after %d attempts: %v", r.Outcome, r.Attempts, r.Err)
		}
	}
}

// The order of requests in flight does not matter: the highest version of each record stays.
func TestVersionsInFlight(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index, nil)
	c.Batch = Batch{Rows: 7, InFlight: 8}
	var records []*record.Record
	for v := range int64(50) {
		records = append(records, iotest.Records(schema, 0, 10, iotest.Base+v*37%50)...)
	}
	if _, err := write(t, c, records...); err != nil {
		t.Fatal(err)
	}
	got := es.documents(c.Index)
	for _, r := range iotest.Records(schema, 0, 10, iotest.Base+49) {
		if got[r.KeyText()] != iotest.JSON(r) {
			t.Errorf("got %s, want %s", got[r.KeyText()], iotest.JSON(r))
		}
	}
}

func TestCancelledPrepare(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	es := shared(t)
	err := NewSink(es.config("a")).Prepare(ctx, connector.Run{}, iotest.AssetSchema(), false)
	if fail.ExitOf(err) != fail.ExitStopped {
		t.Error(err)
	}
}

// A login and TLS, before a server that has neither.
func TestSecure(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	address, user, password, ca := services.SecureProxy(t, strings.TrimPrefix(es.url, "http://"))
	t.Setenv("REPRISE_TEST_PASSWORD", password)
	t.Setenv("REPRISE_TEST_WRONG", "wrong-secret")
	secure := es.config(es.index(name(t)))
	secure.URLs, secure.User, secure.Password, secure.TLS = []string{address}, user,
		"env:REPRISE_TEST_PASSWORD", &connector.TLS{CA: ca}
	secure.Create, secure.Gzip = &Create{}, true
	if err := prepare(t, secure, schema, false); err != nil {
		t.Fatal(err)
	}
	if _, err := write(t, secure, iotest.Records(schema, 0, 10, iotest.Base)...); err != nil ||
		es.count(secure.Index) != 10 {
		t.Error(err, es.count(secure.Index))
	}

	wrong := secure
	wrong.Password = "env:REPRISE_TEST_WRONG"
	key := secure
	key.User, key.Password, key.APIKey = "", "", "env:REPRISE_TEST_WRONG"
	stranger := secure
	stranger.TLS = nil
	plain := secure
	plain.URLs = []string{strings.Replace(address, "https:", "http:", 1)}
	for name, c := range map[string]SinkConfig{"auth password": wrong, "auth key": key, "tls": stranger} {
		what, _, _ := strings.Cut(name, " ")
		code := "elasticsearch." + what
		err := prepare(t, c, schema, false)
		wantError(t, err, code, fail.ExitUnreachable)
		_, err = write(t, c, iotest.Records(schema, 10, 10, iotest.Base)...)
		wantError(t, err, code, fail.ExitUnreachable)
		if fail.ClassOf(err) != fail.Fatal || strings.Contains(err.Error(), "-secret") {
			t.Error(fail.ClassOf(err), err)
		}
	}
	wantError(t, prepare(t, plain, schema, false), "elasticsearch.request", fail.ExitJob, "http or https")
	if n := es.count(secure.Index); n != 10 {
		t.Error(n)
	}
}
