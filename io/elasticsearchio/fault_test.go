package elasticsearchio

import (
	"fmt"
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

// sized are records whose documents have about so many bytes each.
func sized(n, bytes int) []*record.Record {
	records := iotest.Records(iotest.AssetSchema(), 0, n, iotest.Base)
	for _, r := range records {
		r.Values[2] = record.String(strings.Repeat("word ", bytes/5))
	}
	return records
}

// A server with little room refuses requests: for a while, or for their size.
func TestOverload(t *testing.T) {
	t.Parallel()
	own := services.Own(t, services.Elasticsearch,
		services.Env("ELASTICSEARCH_SETTINGS=http.max_content_length: 1mb\nindexing_pressure.memory.limit: 200kb"))
	es := server{t, "http://" + own.Addr}

	t.Run("too large", func(t *testing.T) {
		es := server{t, es.url}
		for _, gzip := range []bool{false, true} {
			c := es.config(name(t))
			es.must("PUT", "/"+c.Index, nil)
			c.Gzip = gzip
			records := sized(60, 40<<10) // 2.4 MB: over both limits together, but not each
			small := len(records)
			records = append(records, sized(small+2, 300<<10)[small:]...)
			records[small+1].Values[2] = record.String(strings.Repeat("word ", 3<<20/5))
			results, err := write(t, c, records...)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				if i < small && (r.Outcome != record.Written || r.Err != nil) {
					t.Errorf("gzip %t, record %d: %s %v", gzip, i, r.Outcome, r.Err)
				}
				if i >= small && fail.CodeOf(r.Err) != "elasticsearch.too_large" {
					t.Errorf("gzip %t, record %d: %s %v, want too large", gzip, i, r.Outcome, r.Err)
				}
			}
			if n := es.count(c.Index); n != small {
				t.Errorf("%d documents, want %d", n, small)
			}
		}
	})

	// A write that waits for its shard fills the server's room. Our first request is rejected, then the shard comes.
	t.Run("throttled", func(t *testing.T) {
		es := server{t, es.url}
		c, stuck := es.config(name(t)), name(t)
		es.must("PUT", "/"+c.Index, nil)
		es.must("PUT", "/"+stuck+"?wait_for_active_shards=0",
			`{"settings":{"index.routing.allocation.include._name":"nobody"}}`)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			es.call("POST", "/"+stuck+"/_bulk?timeout=5m",
				`{"index":{}}`+"\n"+`{"a":"`+strings.Repeat("x", 150<<10)+`"}`+"\n")
		})
		for es.pressure() < 150<<10 {
			time.Sleep(10 * time.Millisecond)
		}
		proxy := newProxy(t, es.url)
		proxy.answered = func(n int, answer []byte) {
			if n == 1 {
				if !strings.Contains(string(answer), "es_rejected_execution_exception") {
					t.Errorf("not rejected: %.300s", answer)
				}
				es.must("PUT", "/"+stuck+"/_settings", `{"index.routing.allocation.include._name":null}`)
				waiting.Wait()
			}
		}
		c.URLs = []string{proxy.URL}
		results, err := write(t, c, sized(2, 50<<10)...)
		if err != nil || es.count(c.Index) != 2 || len(proxy.requests()) < 2 {
			t.Fatal(err, outcomes(results), es.count(c.Index), len(proxy.requests()))
		}
	})

	t.Run("missing index", func(t *testing.T) {
		es := server{t, es.url}
		es.must("PUT", "/_cluster/settings", `{"persistent":{"action.auto_create_index":"false"}}`)
		c := es.config(name(t))
		_, err := write(t, c, iotest.Record(iotest.AssetSchema(), 0, iotest.Base))
		wantError(t, err, "elasticsearch.index_missing", fail.ExitJob, c.Index)
	})
}

// pressure is the number of bytes of writes that the server holds.
func (s server) pressure() int {
	s.t.Helper()
	var stats struct {
		Nodes map[string]struct {
			Pressure struct {
				Memory struct {
					Current struct {
						All int `json:"all_in_bytes"`
					}
				}
			} `json:"indexing_pressure"`
		}
	}
	s.get("/_nodes/stats/indexing_pressure", &stats)
	bytes := 0
	for _, n := range stats.Nodes {
		bytes += n.Pressure.Memory.Current.All
	}
	return bytes
}

// Connections that are cut, before the server has the request and at any place of its answer, lose nothing and settle
// nothing twice.
func TestCutConnections(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	for _, gzip := range []bool{false, true} {
		c := es.config(es.index(name(t)))
		es.must("PUT", "/"+c.Index, nil)
		es.must("PUT", "/"+c.Index+"/_doc/"+iotest.Record(schema, 5, 0).KeyText()+"?version_type=external&version="+
			fmt.Sprint(iotest.Base+1), `{}`)
		proxy := newProxy(t, es.url)
		cuts := [][2]int{{0, -1}, {-1, 0}, {-1, 5}, {-1, 20}, {-1, 200}}
		proxy.cut = func(n int) (int, int) {
			if n <= len(cuts) {
				return cuts[n-1][0], cuts[n-1][1]
			}
			return -1, -1
		}
		c.URLs, c.Gzip = []string{proxy.URL}, gzip
		results, err := write(t, c, iotest.Records(schema, 0, 20, iotest.Base)...)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			want := record.Written
			if i == 5 {
				want = record.Superseded
			}
			if r.Outcome != want || r.Err != nil || r.Attempts != len(cuts)+1 {
				t.Errorf("record %d: %s after %d attempts (%v)", i, r.Outcome, r.Attempts, r.Err)
			}
		}
		if n := es.count(c.Index); n != 20 {
			t.Error(n)
		}
	}
}

// A request that is not answered in time is sent again.
func TestTimeout(t *testing.T) {
	es := shared(t)
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index, nil)
	proxy := newProxy(t, es.url)
	proxy.hang = 2
	c.URLs, c.Timeout = []string{proxy.URL}, connector.Duration(time.Second)
	results, err := write(t, c, iotest.Records(iotest.AssetSchema(), 0, 20, iotest.Base)...)
	if err != nil || es.count(c.Index) != 20 || results[0].Attempts < 3 {
		t.Error(err, es.count(c.Index), results)
	}
	dead := newProxy(t, es.url)
	dead.hang = 1 << 30
	c.URLs, c.RetryFor = []string{dead.URL}, connector.Duration(time.Millisecond)
	_, err = write(t, c, iotest.Record(iotest.AssetSchema(), 0, iotest.Base))
	wantError(t, err, "elasticsearch.timeout", fail.ExitUnreachable, "timeout")
}

// Requests are cut by the bytes of their bodies, whatever the records' size in memory; a document over the limit goes
// alone.
func TestBodiesAreCut(t *testing.T) {
	es := shared(t)
	fields := []record.Field{{Name: "id", Type: record.Of(record.Text)}}
	for i := range 20 {
		fields = append(fields, record.Field{Name: fmt.Sprintf("a_column_with_a_rather_long_name_%02d", i),
			Type: record.Of(record.Int)})
	}
	fields = append(fields, record.Field{Name: "text", Type: record.Of(record.Text)})
	schema := record.MustSchema(fields, "id")
	records := iotest.Records(schema, 0, 300, iotest.Base)
	records[100].Values[21] = record.String(strings.Repeat("large ", 20_000))
	const limit = 32 << 10
	for _, gzip := range []bool{false, true} {
		c := es.config(es.index(name(t)))
		es.must("PUT", "/"+c.Index, nil)
		proxy := newProxy(t, es.url)
		c.URLs, c.Gzip, c.Batch = []string{proxy.URL}, gzip, Batch{Bytes: limit, InFlight: 3}
		if _, err := write(t, c, records...); err != nil {
			t.Fatal(err)
		}
		docs := 0
		for _, body := range proxy.requests() {
			lines := strings.Count(body, "\n")
			docs += lines / 2
			if len(body) > limit && lines != 2 {
				t.Errorf("a body of %d bytes with %d lines", len(body), lines)
			}
			if len(body) > limit && !strings.Contains(body, "large large") {
				t.Errorf("%.100s is alone in %d bytes", body, len(body))
			}
		}
		if n := len(proxy.requests()); docs != 300 || n > 20 {
			t.Errorf("%d documents in %d requests", docs, n)
		}
		got := es.documents(c.Index)
		for _, r := range records {
			if got[r.KeyText()] != iotest.JSON(r) {
				t.Fatalf("got %.300s\nwant %.300s", got[r.KeyText()], iotest.JSON(r))
			}
		}
	}
}

// An index that needs routing refuses each record without it.
func TestRoutingRequired(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index, `{"mappings":{"_routing":{"required":true}}}`)
	results, err := write(t, c, iotest.Records(schema, 0, 3, iotest.Base)...)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"dead elasticsearch.mapping", "dead elasticsearch.mapping", "dead elasticsearch.mapping"}
	if diff := cmp.Diff(want, outcomes(results)); diff != "" || !strings.Contains(results[0].Err.Error(), "routing") {
		t.Error(diff, results[0].Err)
	}
	c.Routing = "{id}"
	if _, err := write(t, c, iotest.Records(schema, 0, 3, iotest.Base)...); err != nil || es.count(c.Index) != 3 {
		t.Error(err, es.count(c.Index))
	}
}

// A delete is remembered for as long as gc_deletes: then an older write would bring the document back, as the package
// says.
func TestForgottenDelete(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	c := es.config(es.index(name(t)))
	es.must("PUT", "/"+c.Index, `{"settings":{"index.gc_deletes":"0s"}}`)
	older, gone := iotest.Record(schema, 0, iotest.Base), iotest.Deletion(schema, 0, iotest.Base+1)
	if _, err := write(t, c, gone); err != nil {
		t.Fatal(err)
	}
	// The server looks at its own clock now and then: an older write is superseded until the delete is forgotten.
	deadline := time.Now().Add(30 * time.Second)
	for {
		es.must("POST", "/"+c.Index+"/_refresh", nil)
		results, err := write(t, c, older)
		if err != nil {
			t.Fatal(err)
		}
		if results[0].Outcome == record.Written {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the delete is remembered: correct the package's documentation")
		}
	}
	if n := es.count(c.Index); n != 1 {
		t.Error(n)
	}
}
