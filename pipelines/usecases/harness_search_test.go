package usecases_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// document is what production puts into a search for an asset, and where.
type document struct {
	index, routing string // the index by what follows the prefix
	fields         map[string]any
}

// documents is production that writes documents beside the table, as an application does: by plain requests with the
// write time as version.
func (c *usecase) documents(of func(k key, a asset) document) follower {
	return func(k key, was, is *asset, version int64) error {
		method, d := http.MethodDelete, document{}
		if is != nil {
			method, d = http.MethodPut, of(k, *is)
		} else {
			d = of(k, *was)
		}
		at := fmt.Sprintf("%s%s/_doc/%s?version=%d&version_type=external_gte", c.search, d.index,
			url.PathEscape(k.String()), version)
		if d.routing != "" {
			at += "&routing=" + url.QueryEscape(d.routing)
		}
		status, text, err := call(method, at, d.fields)
		if err == nil && status >= 300 && !(is == nil && status == http.StatusNotFound) {
			err = fmt.Errorf("%s %s: %d %s", method, at, status, text)
		}
		return err
	}
}

// call sends a request and gives the answer.
func call(method, url string, body any) (status int, text []byte, err error) {
	content, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	if lines, ok := body.([]byte); ok {
		content = lines
	}
	if method == http.MethodDelete || body == nil {
		content = nil
	}
	q, err := http.NewRequest(method, url, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	text, err = io.ReadAll(a.Body)
	return a.StatusCode, text, err
}

// must is call for requests that succeed.
func must(t *testing.T, method, url string, body any) []byte {
	t.Helper()
	status, text, err := call(method, url, body)
	if err != nil || status >= 300 {
		t.Fatalf("%s %s: %v, %d %s", method, url, err, status, text)
	}
	return text
}

// filled makes an index with an alias that holds all assets as documents, which production keeps from then on.
func (c *usecase) filled(alias string, of func(k key, a asset) document) {
	c.t.Helper()
	var bulk bytes.Buffer
	lines := json.NewEncoder(&bulk)
	index := ""
	for k, states := range c.rows {
		d := of(k, *states[0].asset)
		index = c.search + d.index
		lines.Encode(map[string]any{"index": map[string]any{"_id": k.String(), "version": states[0].version,
			"version_type": "external_gte"}})
		lines.Encode(d.fields)
	}
	name := c.search[strings.LastIndex(c.search, "/")+1:] + alias
	must(c.t, http.MethodPut, index, map[string]any{"aliases": map[string]any{name: map[string]any{}},
		"settings": map[string]any{"index.number_of_replicas": 0}})
	var answer struct{ Errors bool }
	if err := json.Unmarshal(must(c.t, http.MethodPost, index+"/_bulk?refresh=true", bulk.Bytes()),
		&answer); err != nil || answer.Errors {
		c.t.Fatalf("filling the index: %v, errors %v", err, answer.Errors)
	}
	c.follow(c.documents(of))
}

// hit is a document that a search finds.
type hit struct {
	Index   string `json:"_index"`
	ID      string `json:"_id"`
	Version int64  `json:"_version"`
	Routing string `json:"_routing"`
	Source  fields `json:"_source"`
}

// fields are those of a document that tests look at.
type fields struct {
	Title, Format       string
	Size, Width, Height int64
	Tags                []string
}

// String is the hit in a line, its index by what follows the prefix.
func (h hit) String() string {
	return fmt.Sprintf("%s %s %d %+v", h.Index, h.Routing, h.Version, h.Source)
}

// hits are the documents of an index, an alias or a pattern.
func (c *usecase) hits(pattern string) held {
	c.t.Helper()
	must(c.t, http.MethodPost, c.search+pattern+"/_refresh", nil)
	var found struct {
		Hits struct {
			Total struct{ Value int }
			Hits  []hit
		}
	}
	text := must(c.t, http.MethodPost, c.search+pattern+"/_search?size=10000&version=true&track_total_hits=true",
		map[string]any{})
	if err := json.Unmarshal(text, &found); err != nil {
		c.t.Fatal(err)
	}
	if found.Hits.Total.Value != len(found.Hits.Hits) {
		c.t.Fatalf("%d of %d documents read", len(found.Hits.Hits), found.Hits.Total.Value)
	}
	h := held{}
	prefix := c.search[strings.LastIndex(c.search, "/")+1:]
	for _, x := range found.Hits.Hits {
		x.Index = strings.TrimPrefix(x.Index, prefix)
		h.add(x.ID, "%s", x)
	}
	return h
}

// line is the document as a search finds it.
func (d document) line(version int64) []string {
	h := hit{Index: d.index, Routing: d.routing, Version: version}
	text, err := json.Marshal(d.fields)
	if err == nil {
		err = json.Unmarshal(text, &h.Source)
	}
	if err != nil {
		panic(err)
	}
	return []string{h.String()}
}

// read is the rule of jobs that read the payload: assets with a malformed one become dead letters.
func read(of func(k key, a asset) document) rule {
	return func(k key, a asset, version int64) []string {
		if malformed(a) {
			return nil
		}
		return of(k, a).line(version)
	}
}

// payload is what the three forms of an asset's payload say.
func payload(a asset) (p struct {
	Width, Height int64
	Format        string
}) {
	var v struct {
		W, H, Width, Height int64
		Dimensions          struct{ Width, Height int64 }
		Format              string
	}
	_ = json.Unmarshal([]byte(a.Payload), &v)
	p.Width, p.Height, p.Format = v.W+v.Width+v.Dimensions.Width, v.H+v.Height+v.Dimensions.Height, v.Format
	if p.Format == "" {
		p.Format = "unknown"
	}
	return p
}

// oldDocument is that of the index that there was.
func oldDocument(k key, a asset) document {
	d := document{index: "-1", fields: map[string]any{"asset_type": k.Kind, "bucket": k.Bucket, "id": k.ID.String(),
		"title": a.Title, "size": a.Size, "tags": a.Tags}}
	if a.Size == 0 {
		d.fields["size"] = nil // the table has none
	}
	return d
}

// searching searches for assets that nobody changes, each of which must be found all the time, until it is told to end.
func (c *usecase) searching(alias string) (end func()) {
	c.t.Helper()
	keys := c.still()
	ctx, cancel := context.WithCancel(c.t.Context())
	var working sync.WaitGroup
	n := 0
	working.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		for ; ctx.Err() == nil; n++ {
			k := keys[r.IntN(len(keys))].String()
			status, text, err := call(http.MethodPost, c.search+alias+"/_search",
				map[string]any{"query": map[string]any{"ids": map[string]any{"values": []string{k}}}})
			if err != nil || status != http.StatusOK || !strings.Contains(string(text), `"value":1,`) {
				c.t.Errorf("search %d, for %s: %v, %d %s", n, k, err, status, text)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	end = sync.OnceFunc(func() {
		cancel()
		working.Wait()
		c.t.Logf("%d searches", n)
	})
	c.t.Cleanup(end)
	return end
}
