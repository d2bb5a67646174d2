package elasticsearchio

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"
	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// plainAsset is what a hand-written loop would send.
type plainAsset struct {
	ID        string            `json:"id"`
	AssetType string            `json:"asset_type"`
	Title     string            `json:"title"`
	Size      int64             `json:"size"`
	Tags      []string          `json:"tags"`
	Attrs     map[string]string `json:"attrs"`
}

const (
	benchDocs     = 50_000
	benchRounds   = 25
	benchInFlight = 4
	benchRows     = 250
)

// BenchmarkSink writes the same documents by the sink and by a hand-written loop over esapi, each to an index of its
// own, by turns of some thousand so that both meet the same server and machine. It prints documents per second and
// the median ratio of the turns (above 1: the sink is faster).
func BenchmarkSink(b *testing.B) {
	addr := "http://" + services.Need(b, services.Elasticsearch)
	records := iotest.Records(iotest.AssetSchema(), 0, benchDocs, iotest.Base)
	plain := make([]plainAsset, benchDocs)
	for i, r := range records {
		if err := json.Unmarshal(r.AppendJSON(nil), &plain[i]); err != nil {
			b.Fatal(err)
		}
	}
	var ours, byHand time.Duration
	var ratios []float64
	for b.Loop() {
		mine, theirs := benchIndex(b, addr), benchIndex(b, addr)
		for round := range benchRounds {
			from, to := round*benchDocs/benchRounds, (round+1)*benchDocs/benchRounds
			sink := func() time.Duration {
				return timed(b, func() error { return writeBySink(b.Context(), addr, mine, records[from:to]) })
			}
			loop := func() time.Duration {
				return timed(b, func() error { return writeByHand(b.Context(), addr, theirs, plain[from:to]) })
			}
			var s, l time.Duration
			if round%2 == 0 {
				s, l = sink(), loop()
			} else {
				l, s = loop(), sink()
			}
			ours, byHand, ratios = ours+s, byHand+l, append(ratios, l.Seconds()/s.Seconds())
		}
	}
	rate := func(d time.Duration) float64 { return float64(b.N*benchDocs) / d.Seconds() }
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate(ours), "docs/s")
	b.ReportMetric(rate(byHand), "by-hand-docs/s")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
}

// BenchmarkEncode is the sink's own work for a document: its two lines.
func BenchmarkEncode(b *testing.B) {
	records := iotest.Records(iotest.AssetSchema(), 0, 1000, iotest.Base)
	f, err := newFormat(SinkConfig{Index: "assets"}, records[0].Schema)
	if err != nil {
		b.Fatal(err)
	}
	var body []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if body, err = f.append(body[:0], records[i%len(records)]); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(body)))
}

func timed(b *testing.B, run func() error) time.Duration {
	began := time.Now()
	if err := run(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// benchIndex makes an index for the length of the benchmark.
func benchIndex(b *testing.B, addr string) string {
	index := services.Name(b)
	mapping, err := json.Marshal(map[string]any{"mappings": derive(iotest.AssetSchema().Fields, product{}),
		"settings": map[string]any{"number_of_replicas": 0}})
	if err != nil {
		b.Fatal(err)
	}
	send := func(method string, body []byte) {
		req, err := http.NewRequest(method, addr+"/"+index, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		res.Body.Close()
	}
	send("PUT", mapping)
	b.Cleanup(func() { send("DELETE", nil) })
	return index
}

func writeBySink(ctx context.Context, addr, index string, records []*record.Record) error {
	s := NewSink(SinkConfig{URLs: []string{addr}, Index: index, Batch: Batch{Rows: benchRows, InFlight: benchInFlight}})
	defer s.Close()
	var mu sync.Mutex
	written := 0
	w, err := s.Open(ctx, connector.Run{}, records[0].Schema, func(results []connector.Result) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range results {
			if r.Outcome == record.Written {
				written++
			}
		}
	})
	if err != nil {
		return err
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(ctx, r); err != nil {
			return err
		}
	}
	if _, err := w.Flush(ctx); err != nil {
		return err
	}
	if written != len(records) {
		return fmt.Errorf("%d of %d written", written, len(records))
	}
	return nil
}

func writeByHand(ctx context.Context, addr, index string, assets []plainAsset) error {
	u, err := url.Parse(addr)
	if err != nil {
		return err
	}
	client, err := elastictransport.NewClient(elastictransport.WithURLs(u))
	if err != nil {
		return err
	}
	var failed error
	var mu sync.Mutex
	work := make(chan []plainAsset)
	var workers sync.WaitGroup
	for range benchInFlight {
		workers.Go(func() {
			var body bytes.Buffer
			for part := range work {
				body.Reset()
				for i := range part {
					doc, err := json.Marshal(&part[i])
					if err != nil {
						panic(err)
					}
					fmt.Fprintf(&body, `{"index":{"_id":%q,"version":%d,"version_type":"external_gte"}}`+"\n",
						part[i].ID, int64(iotest.Base))
					body.Write(doc)
					body.WriteByte('\n')
				}
				var reply struct{ Errors bool }
				res, err := esapi.BulkRequest{Index: index, Body: bytes.NewReader(body.Bytes())}.Do(ctx, client)
				if err == nil {
					err = json.NewDecoder(res.Body).Decode(&reply)
					res.Body.Close()
				}
				if err != nil || reply.Errors {
					mu.Lock()
					failed = fmt.Errorf("bulk: %w, errors %t", err, reply.Errors)
					mu.Unlock()
				}
			}
		})
	}
	for len(assets) > 0 {
		n := min(benchRows, len(assets))
		work <- assets[:n]
		assets = assets[n:]
	}
	close(work)
	workers.Wait()
	return failed
}

// BenchmarkSource reads the same documents by the source and by a hand-written loop, each with as many requests under
// way: 4 splits, 4 slices of a point in time. It prints documents per second and the ratio (above 1: the source is
// faster).
func BenchmarkSource(b *testing.B) {
	addr := "http://" + services.Need(b, services.Elasticsearch)
	index := benchIndex(b, addr)
	if err := writeBySink(b.Context(), addr, index,
		iotest.Records(iotest.AssetSchema(), 0, benchDocs, iotest.Base)); err != nil {
		b.Fatal(err)
	}
	s := NewSource(SourceConfig{URLs: []string{addr}, Index: index, Key: []string{"id"},
		Fields: iotest.AssetSchema().Fields, Refresh: true}, connector.Need{})
	defer s.Close()
	var ours, byHand time.Duration
	for b.Loop() {
		ours += timed(b, func() error { return readBySource(b.Context(), s) })
		byHand += timed(b, func() error { return readByHand(b.Context(), s.opened.client, index) })
	}
	rate := func(d time.Duration) float64 { return float64(b.N*benchDocs) / d.Seconds() }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate(ours), "docs/s")
	b.ReportMetric(rate(byHand), "by-hand-docs/s")
	b.ReportMetric(byHand.Seconds()/ours.Seconds(), "ratio")
}

func readBySource(ctx context.Context, s *Source) error {
	var queues [][]connector.Split
	err := s.Plan(ctx, connector.PlanOptions{Rows: 20_000}, func(s connector.Split) error {
		queues = append(queues, []connector.Split{s})
		return nil
	})
	if err != nil {
		return err
	}
	ahead := connector.ReadAhead(ctx, s, queues, connector.Window{Readers: benchInFlight, Bytes: 64 << 20})
	defer ahead.Stop()
	rows := int64(0)
	for it := range ahead.Items {
		if it.Err != nil {
			return it.Err
		}
		rows += it.Page.Rows()
		ahead.Release(it.Held)
	}
	if rows != benchDocs {
		return fmt.Errorf("%d documents, want %d", rows, benchDocs)
	}
	return nil
}

func readByHand(ctx context.Context, c *client, index string) error {
	pit, err := c.openPIT(ctx, index, "", "1m")
	if err != nil {
		return err
	}
	defer c.closePIT(ctx, pit)
	var readers errgroup.Group
	var rows atomic.Int64
	for i := range benchInFlight {
		readers.Go(func() error {
			var after []any
			for {
				body := map[string]any{"size": 5000, "pit": map[string]any{"id": pit, "keep_alive": "1m"},
					"slice": map[string]any{"id": i, "max": benchInFlight},
					"sort":  []any{"_shard_doc"}, "track_total_hits": false, "version": true}
				if after != nil {
					body["search_after"] = after
				}
				var reply struct {
					Hits struct {
						Hits []struct {
							Version int64      `json:"_version"`
							Source  plainAsset `json:"_source"`
							Sort    []any
						}
					}
				}
				text, err := json.Marshal(body)
				if err != nil {
					return err
				}
				if _, err := c.do(ctx, esapi.SearchRequest{Body: bytes.NewReader(text)}, &reply); err != nil {
					return err
				}
				n := len(reply.Hits.Hits)
				if rows.Add(int64(n)); n == 0 {
					return nil
				}
				after = reply.Hits.Hits[n-1].Sort
			}
		})
	}
	if err := readers.Wait(); err != nil {
		return err
	}
	if rows.Load() != benchDocs {
		return fmt.Errorf("%d documents, want %d", rows.Load(), benchDocs)
	}
	return nil
}
