package elasticsearchio

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// bulk writes documents {"id":...} with external versions, as other programs do, and makes them visible.
func (s server) bulk(index string, documents ...string) {
	s.t.Helper()
	var body strings.Builder
	for i, d := range documents {
		fmt.Fprintf(&body, `{"index":{"_id":"doc-%d","version":%d,"version_type":"external_gte"}}`+"\n%s\n", i,
			iotest.Base+i, d)
	}
	var reply struct{ Errors bool }
	text := s.must("POST", "/"+index+"/_bulk?refresh=true", body.String())
	if err := json.Unmarshal(text, &reply); err != nil || reply.Errors {
		_, why, _ := bytes.Cut(text, []byte(`"error"`))
		s.t.Fatalf("%v %.1000s", err, why)
	}
}

// fields are types by name, in the order of names.
func fields(types string) (f connector.Fields) {
	if err := json.Unmarshal([]byte(types), &f); err != nil {
		panic(err)
	}
	return f
}

func keys(records map[string]*record.Record) []string { return slices.Sorted(maps.Keys(records)) }

// Whatever the order and the splits, each document comes once: also those that share their values, have several, or
// none.
func TestOrders(t *testing.T) {
	t.Parallel()
	for _, service := range servers {
		t.Run(string(service), func(t *testing.T) {
			t.Parallel()
			testOrders(t, sharedOf(t, service))
		})
	}
}

func testOrders(t *testing.T, es server) {
	index := es.index(name(t))
	es.must("PUT", "/"+index, `{"settings":{"number_of_shards":3},"mappings":{"properties":{
		"id":{"type":"text","fields":{"keyword":{"type":"keyword","ignore_above":8}}},
		"kind":{"type":"keyword"},"n":{"type":"long"},"f":{"type":"float"},"h":{"type":"half_float"},"t":{"type":"date"},"ns":{"type":"date_nanos"},"ip":{"type":"ip"},
		"day":{"type":"date","format":"yyyy-MM-dd"},"s":{"type":"date","format":"epoch_second"}}}}`)
	const all = 700
	var docs []string
	for i := range all {
		id := fmt.Sprintf("%07d", i)
		if i%100 == 50 {
			id += "-too-long"
		}
		kind := `"hot"`
		switch {
		case i%7 == 1:
			kind = fmt.Sprintf(`["z%d","a\u0000%d"]`, i, i) // read as its least
		case i%7 == 2:
			kind = fmt.Sprintf(`"ä😀%d"`, i)
		case i%70 == 3:
			kind = "null"
		}
		at := time.Unix(int64(i-350)*10_000_000, 123_456_789).UTC()
		nanos := `"` + at.Format(time.RFC3339Nano) + `"`
		if at.Year() < 1970 { // the server's earliest
			nanos = `"1970-01-01T00:00:00Z"`
		}
		docs = append(docs, fmt.Sprintf(
			`{"id":%q,"kind":%s,"n":%d,"f":%v,"h":%v,"t":%q,"ns":%s,"ip":"%d.0.0.%d","day":%q,"s":%d}`, id, kind,
			i-350, float32(i%13)*1.1,
			float32(i)/3, at.Format(time.RFC3339), nanos, i%3, i%256, at.Format(time.DateOnly), at.Unix()))
	}
	es.bulk(index, docs...)
	for _, order := range []string{"", "kind", "n", "f", "h", "t", "ns", "ip", "kind,f,n", "ip,t", "day", "s"} {
		for _, rows := range []int64{0, 20} {
			t.Run(fmt.Sprintf("%s by %d", order, rows), func(t *testing.T) {
				t.Parallel()
				s := server{t, es.url}.source(index, func(c *SourceConfig) {
					c.Fields = fields(`{"id":"text"}`)
					if order != "" {
						c.Order = strings.Split(order, ",")
					}
				})
				got := read(t, s, connector.PlanOptions{Rows: rows})
				if len(got.records) != all || len(got.dead) > 0 {
					t.Errorf("%d records and %d dead letters, want %d", len(got.records), len(got.dead), all)
				}
				sum := int64(0)
				for _, split := range got.splits {
					sum += split.Rows
				}
				if sum < all/2 || sum > 2*all || rows > 0 && len(got.splits) < 10 {
					t.Errorf("%d splits with %d rows", len(got.splits), sum)
				}
			})
		}
	}
}

// Reading goes on where it stood when the point in time is gone, also within documents that share a position.
func TestClosedPointInTime(t *testing.T) {
	t.Parallel()
	for _, service := range servers {
		t.Run(string(service), func(t *testing.T) {
			t.Parallel()
			testClosedPointInTime(t, sharedOf(t, service))
		})
	}
}

func testClosedPointInTime(t *testing.T, es server) {
	index := es.index(name(t))
	es.must("PUT", "/"+index, `{"mappings":{"properties":{"id":{"type":"keyword"},"kind":{"type":"keyword"}}}}`)
	var docs []string
	for i := range 500 {
		docs = append(docs, fmt.Sprintf(`{"id":"%03d","kind":"k%d"}`, i, i/60))
	}
	es.bulk(index, docs...)
	for order, every := range map[string]int{"id": 2, "kind": 15} {
		s := es.source(index, func(c *SourceConfig) {
			c.Fields, c.Order, c.Page = fields(`{"id":"text"}`),
				[]string{order}, 2<<10
		})
		o, err := s.open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		r, err := o.scan(connector.Split{Partition: index})
		if err != nil {
			t.Fatal(err)
		}
		r.size = 10
		got, n := seen{records: map[string]*record.Record{}}, 0
		used := map[string]bool{}
		for end := false; !end; {
			if r.pit != "" && n%every == 0 {
				used[r.pit] = true
				if o.openSearch {
					es.must("DELETE", "/_search/point_in_time", map[string][]string{"pit_id": {r.pit}})
				} else {
					es.must("DELETE", "/_pit", map[string]string{"id": r.pit})
				}
			}
			if end, err = r.step(t.Context(), func(p connector.Page) error { got.add(t, p); return nil }); err != nil {
				t.Fatal(err)
			}
			if n++; n > 2000 {
				t.Fatal("no end")
			}
		}
		if len(got.records) != len(docs) || len(used) < 3 {
			t.Errorf("by %s: %d records under %d points in time that were closed, want %d", order,
				len(got.records), len(used), len(docs))
		}
	}
}

// A point in time expires while the reader waits.
func TestExpiredPointInTime(t *testing.T) {
	t.Parallel()
	own := services.Own(t, services.Elasticsearch,
		services.Env("ELASTICSEARCH_SETTINGS=search.keep_alive_interval: 100ms"))
	es := server{t, "http://" + own.Addr}
	records := iotest.Records(iotest.AssetSchema(), 0, 250, iotest.Base)
	es.put("assets", records...)
	s := es.source("assets", func(c *SourceConfig) { c.KeepAlive = connector.Duration(200 * time.Millisecond) })
	got, pages := seen{records: map[string]*record.Record{}}, 0
	splits := read(t, s, connector.PlanOptions{}).splits
	err := s.Read(t.Context(), splits[0], func(p connector.Page) error {
		got.add(t, p)
		for pages++; ; time.Sleep(50 * time.Millisecond) {
			var stats struct {
				All struct {
					Total struct {
						Search struct {
							Open int `json:"open_contexts"`
						}
					}
				} `json:"_all"`
			}
			if es.get("/assets/_stats/search", &stats); stats.All.Total.Search.Open == 0 {
				return nil
			}
		}
	})
	if err != nil || pages < 3 {
		t.Errorf("%d pages, %v", pages, err)
	}
	if diff := cmp.Diff(asJSON(records), asJSON(slices.Collect(maps.Values(got.records)))); diff != "" {
		t.Error(diff)
	}
}

// Documents that are no records are dead letters that name them; the others are read.
func TestDeadDocuments(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	es.must("PUT", "/"+index,
		`{"mappings":{"dynamic":false,"properties":{"id":{"type":"keyword"},"n":{"type":"long"}}}}`)
	big := strings.Repeat("x", 3<<20)
	es.bulk(index, `{"id":"a","n":1,"size":1,"tags":"one","changed":7}`, `{"id":"b","n":"2","changed":7}`,
		`{"id":"c","size":1.5,"changed":7}`, `{"n":4,"changed":7}`,
		`{"id":"e","changed":7,"other":{"x":[1]}}`, `{"id":"f"}`, `{"id":"g","changed":7,"tags":["`+big+`"]}`,
		`{"id":["h","i"],"changed":7}`, `{"id":"j","tags":null,"changed":8}`)
	s := es.source(index, func(c *SourceConfig) {
		c.Fields = fields(`{"id":"text","n":"bigint","size":"int","tags":"set<text>","changed":"bigint"}`)
		c.Version, c.MaxDocument, c.Page = "changed", 1<<20, 64<<10
	})
	got := read(t, s, connector.PlanOptions{})
	want := map[string]string{"a": `{"id":"a","n":1,"size":1,"tags":["one"],"changed":7}`,
		"e": `{"id":"e","changed":7}`, "j": `{"id":"j","tags":null,"changed":8}`}
	if diff := cmp.Diff(want, asJSON(slices.Collect(maps.Values(got.records)))); diff != "" {
		t.Error(diff)
	}
	if got.records["j"].Version != 8 {
		t.Errorf("version %d, want 8", got.records["j"].Version)
	}
	letters := map[string]string{}
	for _, d := range got.dead {
		key := "?"
		if d.Record != nil {
			key = d.Record.KeyText()
		}
		letters[d.Message[:len(`document "doc-1"`)]] = d.Code + " " + key
	}
	if diff := cmp.Diff(map[string]string{`document "doc-1"`: "elasticsearch.decode b",
		`document "doc-2"`: "elasticsearch.decode c", `document "doc-3"`: "elasticsearch.no_key ?",
		`document "doc-5"`: "elasticsearch.no_version f", `document "doc-6"`: "elasticsearch.too_large g",
		`document "doc-7"`: "elasticsearch.decode ?"}, letters); diff != "" {
		t.Error(diff)
	}
}

// Answers that are too large, late, or refused are asked for again with less.
func TestPatientReading(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	es.must("PUT", "/"+index, `{"mappings":{"properties":{"id":{"type":"keyword"}}}}`)
	var docs []string
	for i := range 60 {
		docs = append(docs, fmt.Sprintf(`{"id":"%03d","text":%q}`, i, strings.Repeat("x", 400<<10)))
	}
	es.bulk(index, docs...)
	var refused atomic.Int64
	target, _ := url.Parse(es.url)
	pass := httputil.NewSingleHostReverseProxy(target)
	pass.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(text))
		var search struct {
			Size int
			PIT  *struct{}
		}
		_ = json.Unmarshal(text, &search)
		switch n := refused.Load(); {
		case search.PIT == nil:
		case search.Size > 3 && n < 4:
			refused.Add(1)
			<-r.Context().Done()
			return
		case search.Size > 2 && n < 6:
			refused.Add(1)
			w.WriteHeader([]int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[n%2])
			return
		}
		pass.ServeHTTP(w, r)
	}))
	defer between.Close()
	s := server{t, between.URL}.source(index, func(c *SourceConfig) {
		c.Fields, c.Timeout, c.Page = fields(`{"id":"text","text":"text"}`), connector.Duration(5*time.Second), 8<<20
	})
	gate := iotest.NewGate()
	ctx := connector.WithGate(t.Context(), gate)
	got := seen{records: map[string]*record.Record{}}
	if err := s.Read(ctx, connector.Split{Partition: index},
		func(p connector.Page) error { got.add(t, p); return nil }); err != nil {
		t.Fatal(err)
	}
	passed := gate.Passed()
	if len(got.records) != len(docs) || len(passed.Errors) < int(refused.Load()) || refused.Load() == 0 {
		t.Errorf("%d documents, %d errors at the gate, %d requests refused", len(got.records),
			len(passed.Errors), refused.Load())
	}
	throttled := 0
	for _, err := range passed.Errors {
		if fail.ClassOf(err) == fail.Throttled {
			throttled++
		}
	}
	if throttled != 2 {
		t.Errorf("%d of %v are throttled", throttled, passed.Errors)
	}
}

// Aliases with filters and routing show what the server shows of them; patterns and templates all that they match.
func TestAliases(t *testing.T) {
	t.Parallel()
	es := shared(t)
	one, two := es.index(name(t)+"-image"), es.index(name(t)+"-image")
	prefix := strings.TrimSuffix(one, "-image")
	two = es.index(prefix + "-video")
	for _, index := range []string{one, two} {
		es.must("PUT", "/"+index,
			`{"settings":{"number_of_shards":4},"mappings":{"properties":{"id":{"type":"keyword"},"n":{"type":"long"}}}}`)
		for i := range 12 {
			es.must("PUT", fmt.Sprintf("/%s/_doc/%d?version=%d&version_type=external&routing=r%d", index, i,
				iotest.Base+i, i%3), fmt.Sprintf(`{"id":"%s-%02d","n":%d}`, index[len(prefix)+1:], i, i))
		}
		es.must("POST", "/"+index+"/_refresh", nil)
	}
	alias := func(name string, index string, more string) string {
		es.must("POST", "/_aliases", fmt.Sprintf(`{"actions":[{"add":{"index":%q,"alias":%q%s}}]}`, index, name, more))
		return name
	}
	a, b, c := prefix+"_a", prefix+"_b", prefix+"_c"
	alias(a, one, "")
	alias(a, two, `,"filter":{"range":{"n":{"lt":3}}}`)
	alias(b, one, `,"filter":{"term":{"n":7}}`)
	alias(c, one, `,"routing":"r1"`)
	for index, want := range map[string]int{a: 15, b: 1, prefix + "-*": 24, prefix + "-{kind}": 24, prefix + "_b*": 1,
		prefix + "*": 24, one: 12} {
		s := es.source(index, func(c *SourceConfig) { c.Fields = fields(`{"id":"text","kind":"text"}`) })
		if got := read(t, s, connector.PlanOptions{Rows: 5}); len(got.records) != want || len(got.dead) > 0 {
			t.Errorf("%s gives %v, want %d", index, keys(got.records), want)
		}
	}
	// With routing alone all documents of the shard are shown: as many as the server counts.
	s := es.source(c, func(c *SourceConfig) { c.Fields = fields(`{"id":"text"}`) })
	if got, want := len(read(t, s, connector.PlanOptions{}).records), es.count(c); got != want || want == 12 {
		t.Errorf("%s gives %d, want %d", c, got, want)
	}
}

// What cannot be read is told before anything is.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	es := shared(t)
	for n, c := range []struct {
		mapping, document string
		change            func(*SourceConfig)
		code              string
		parts             []string
	}{
		{"", "", nil, "elasticsearch.index_missing", []string{"there is no index"}},
		{"", "", func(c *SourceConfig) { c.Index += "-*" }, "elasticsearch.index_missing",
			[]string{"there is no index"}},
		{`{"properties":{"id":{"type":"text"}}}`, `{"id":"a"}`, nil, "elasticsearch.order",
			[]string{`field "id"`, "of type text", "name in order"}},
		{`{"dynamic":false}`, `{"id":"a"}`, nil, "elasticsearch.order", []string{"does not have it"}},
		{`{"properties":{"id":{"type":"keyword"}}}`, `{"id":"a"}`,
			func(c *SourceConfig) { c.Query = Query(`{"trm":{"id":"a"}}`) }, "elasticsearch.query",
			[]string{"unknown query [trm]"}},
		{`{"properties":{"n":{"type":"long"},"id":{"type":"keyword"}}}`, `{"id":"a"}`,
			func(c *SourceConfig) { c.Query = Query(`{"range":{"n":{"gt":"x"}}}`) }, "elasticsearch.query",
			[]string{`For input string`}},
		{`{"_source":{"enabled":false},"properties":{"id":{"type":"keyword"}}}`, `{"id":"a"}`, nil,
			"elasticsearch.no_source", []string{"keeps no _source"}},
		{`{"properties":{"id":{"type":"keyword"}}},"settings":{"index.mapping.source.mode":"disabled"}`, `{"id":"a"}`,
			nil, "elasticsearch.no_source", []string{"keeps no _source"}},
		{`{"_source":{"excludes":["attrs.x*"]},"properties":{"id":{"type":"keyword"}}}`, `{"id":"a"}`, nil,
			"elasticsearch.no_source", []string{"leaves attrs.x* out"}},
		{`{"_source":{"includes":["id","t*"]},"properties":{"id":{"type":"keyword"}}}`, `{"id":"a"}`, nil,
			"elasticsearch.no_source", []string{`without (all of) the field "asset_type"`}},
		{`{"properties":{"id":{"type":"keyword"}}}`, `{"id":"a"}`, func(c *SourceConfig) { c.Version = "title" },
			"elasticsearch.version", []string{"not a field of type timestamp"}},
		{`{"properties":{"id":{"type":"keyword"},"size":{"type":"long"}}}`, `{"id":"a","size":[1,2]}`,
			func(c *SourceConfig) { c.Fields = nil }, "elasticsearch.fields",
			[]string{"field size: [1,2]", `id: "text", size: "list<bigint>"`}},
		{`{"properties":{"id":{"type":"keyword"},"size":{"type":"long"}}}`, `{"id":"a","more":null}`,
			func(c *SourceConfig) { c.Fields = nil }, "elasticsearch.fields",
			[]string{`what the mapping does not have: "more" has no`, `id: "text", size: "bigint", _rest: "text"`}},
		{`{"properties":{"id":{"type":"keyword"},"at":{"type":"date"}}}`,
			`{"id":"a","at":"2024-05-01T00:00:00.123456Z"}`, func(c *SourceConfig) { c.Fields = nil },
			"elasticsearch.fields", []string{`digits below milliseconds`, `at: "text"`}},
		{`{"properties":{"id":{"type":"keyword"}}}`, `{"id":"a"}`,
			func(c *SourceConfig) { c.Fields, c.Key = nil, []string{"key"} },
			"elasticsearch.fields", []string{`"key"`}},
	} {
		index := es.index(fmt.Sprintf("%s-%d", name(t), n))
		if c.mapping != "" {
			es.must("PUT", "/"+index, `{"mappings":`+c.mapping+`}`)
			es.bulk(index, c.document)
		}
		_, err := es.source(index, c.change).Schema(t.Context())
		wantError(t, err, c.code, fail.ExitJob, c.parts...)
	}

	index := es.index(name(t))
	es.must("PUT", "/"+index+"/_doc/1?refresh=true", `{"id":"a"}`)
	_, err := es.source(index, nil).Schema(t.Context())
	wantError(t, err, "elasticsearch.version", fail.ExitJob, "such as 1", "name in version")
	if _, err := es.source(index, func(c *SourceConfig) { c.Version = "_version" }).Schema(t.Context()); err != nil {
		t.Error(err)
	}
	es.must("POST", "/"+index+"/_close", nil)
	_, err = es.source(index, nil).Schema(t.Context())
	wantError(t, err, "elasticsearch.index_closed", fail.ExitJob)

	_, err = server{t, "http://127.0.0.1:1"}.source("a", nil).Schema(t.Context())
	wantError(t, err, "elasticsearch.unreachable", fail.ExitUnreachable)
}

// A query that matches nothing is no error, but is told of.
func TestNothingFound(t *testing.T) {
	es := shared(t)
	index := es.index(name(t))
	es.put(index, iotest.Records(iotest.AssetSchema(), 0, 3, iotest.Base)...)
	empty := es.index(name(t))
	es.must("PUT", "/"+empty, nil)
	for _, s := range []*Source{
		es.source(index, func(c *SourceConfig) { c.Query = Query(`{"term":{"id":"nothing"}}`) }),
		es.source(empty, nil),
		es.source(name(t)+"-{asset_type}", nil),
	} {
		var log bytes.Buffer
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		_, err := s.Schema(t.Context())
		slog.SetDefault(before)
		if got := read(t, s, connector.PlanOptions{}); err != nil || len(got.splits) > 0 ||
			!strings.Contains(log.String(), "nothing is read") {
			t.Errorf("%v, %d splits, %s", err, len(got.splits), &log)
		}
	}
}

// More documents without a place in the order than are held together.
func TestManyUnplaced(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	es.must("PUT", "/"+index, `{"mappings":{"properties":{"id":{"type":"keyword"},"n":{"type":"long"}}}}`)
	es.bulk(index, slices.Repeat([]string{`{"id":"a"}`}, lostRows+1)...)
	s := es.source(index, func(c *SourceConfig) { c.Order = []string{"n"} })
	err := s.Plan(t.Context(), connector.PlanOptions{}, func(connector.Split) error { return nil })
	wantError(t, err, "elasticsearch.order", fail.ExitJob, "10001 documents", "exists")
}

// Fields come from the mapping, of all indices; keys alone need no more.
func TestInfer(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t) + "-1")
	other := es.index(strings.TrimSuffix(index, "-1") + "-2")
	es.must("PUT", "/"+index, `{"mappings":{"properties":{"id":{"type":"keyword"},"title":{"type":"text"},"size":{"type":"long"},"score":{"type":"float"},
		"at":{"type":"date"},"day":{"type":"date","format":"yyyy-MM-dd"},"host":{"type":"ip"},"owner":{"properties":{"name":{"type":"keyword"},"age":{"type":"short"}}},
		"parts":{"type":"nested","properties":{"n":{"type":"integer"}}},"labels":{"type":"flattened"},"same":{"type":"alias","path":"id"}}}}`)
	es.must("PUT", "/"+other, `{"mappings":{"properties":{"id":{"type":"keyword"},"flag":{"type":"boolean"}}}}`)
	doc := `{"id":"a","title":"T","size":7,"score":1.5,"at":"2024-05-01","day":"2024-05-02","host":"10.0.0.1","owner":{"name":"N"},"parts":[{"n":1},{"n":2}],"labels":{"x":"y"}}`
	es.bulk(index, doc)
	pattern := strings.TrimSuffix(index, "1") + "*"
	s := es.source(pattern, func(c *SourceConfig) { c.Fields = nil })
	schema, err := s.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, _ := connector.Fields(schema.Fields).MarshalJSON()
	want := `{"at":"timestamp","day":"text","flag":"boolean","host":"inet","id":"text","labels":"map<text, text>","owner":"udt<age:smallint, name:text>",` +
		`"parts":"list<udt<n:int>>","score":"double","size":"bigint","title":"text"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if got := iotest.JSON(read(t, s, connector.PlanOptions{}).
		records["a"]); got != `{"at":"2024-05-01T00:00:00.000Z","day":"2024-05-02","host":"10.0.0.1","id":"a","labels":{"x":"y"},"owner":{"name":"N"},"parts":[{"n":1},{"n":2}],"score":1.5,"size":7,"title":"T"}` {
		t.Error(got)
	}

	s = es.source(pattern, func(c *SourceConfig) { c.Fields, c.OnlyKeys = nil, true })
	if got := iotest.JSON(read(t, s, connector.PlanOptions{}).records["a"]); got != `{"id":"a"}` {
		t.Error(got)
	}
	s = es.source(pattern, func(c *SourceConfig) {
		c.Fields, c.OnlyKeys, c.Key, c.Order = nil, true, []string{"_id"}, []string{"id"}
	})
	if got := iotest.JSON(read(t, s, connector.PlanOptions{}).records["doc-0"]); got != `{"_id":"doc-0"}` {
		t.Error(got)
	}
}

// Every type comes back as the sink wrote it.
func TestEveryKindBack(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	var all []record.Field
	for i, text := range []string{"text", "boolean", "tinyint", "smallint", "int", "bigint", "varint", "decimal",
		"float", "double", "blob", "uuid", "timeuuid", "inet",
		"timestamp", "date", "time", "duration", "list<bigint>", "set<uuid>", "map<text, text>",
		"list<frozen<map<text, int>>>", "tuple<int, text>", "udt<a: int, b: list<text>>", "vector<float, 3>"} {
		typ, err := record.ParseType(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, record.Field{Name: fmt.Sprintf("f%02d", i), Type: typ})
	}
	schema := record.MustSchema(all, "f00", "f05", "f12", "f14")
	records := iotest.Records(schema, 0, 50, iotest.Base)
	for i := range schema.Fields {
		if !slices.Contains(schema.Key, i) {
			records[i].Values[i], records[i+1].Values[i] = record.NullValue, record.Value{}
		}
	}
	es.put(index, records...)
	s := es.source(index, func(c *SourceConfig) { c.Fields, c.Key = all, schema.KeyNames() })
	got := read(t, s, connector.PlanOptions{Rows: 10})
	for _, r := range records {
		back := got.records[r.KeyText()]
		if back == nil {
			t.Errorf("%s is not there", r.KeyText())
			continue
		}
		for i, v := range r.Values {
			if !v.Equal(back.Values[i]) {
				t.Errorf("%s: %s came back as %s", schema.Fields[i].Type, v.AppendJSON(nil, schema.Fields[i].Type),
					back.Values[i].AppendJSON(nil, schema.Fields[i].Type))
			}
		}
		if back.Version != r.Version || !back.Schema.Same(schema) {
			t.Errorf("%s has version %d, want %d", r.KeyText(), back.Version, r.Version)
		}
	}
}
