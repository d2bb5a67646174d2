package elasticsearchio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"

	"reprise/transforms/fail"
)

// client sends requests; it is the only part that knows the vendor's library. It tries nothing again, which is the
// batcher's part, but passes over nodes that did not answer.
type client struct {
	transport *elastictransport.Client
	http      *http.Transport
	timeout   time.Duration
	elastic   atomic.Bool // it has said that it is Elasticsearch
	products  products
}

// newClient resolves the secrets and reads the certificates; it does not connect.
func newClient(a access) (*client, error) {
	password, err := a.password.Resolve()
	if err != nil {
		return nil, fail.Job("elasticsearch.secret", "password: %w", err)
	}
	key, err := a.key.Resolve()
	if err != nil {
		return nil, fail.Job("elasticsearch.secret", "api_key: %w", err)
	}
	encryption, err := a.tls.Config()
	if err != nil {
		return nil, err
	}
	var urls []*url.URL
	for _, text := range a.urls {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fail.Job("elasticsearch.urls", "urls: %w", err)
		}
		urls = append(urls, u)
	}
	pool := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: a.connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     encryption,
		TLSHandshakeTimeout: a.connectTimeout,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  !a.gzip,
	}
	transport, err := elastictransport.NewClient(elastictransport.WithURLs(urls...),
		elastictransport.WithTransport(pool),
		elastictransport.WithBasicAuth(a.user, password), elastictransport.WithAPIKey(key),
		elastictransport.WithDisableRetry())
	if err != nil {
		return nil, fail.Job("elasticsearch.urls", "%w", err)
	}
	return &client{transport: transport, http: pool, timeout: a.timeout}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// maxReply bounds the answers to requests about the cluster and its indices.
const maxReply = 64 << 20

// do sends a request and decodes its answer into reply. The status is 0 where there was no answer.
func (c *client) do(ctx context.Context, request esapi.Request, reply any) (status int, err error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := request.Do(limited, c.transport)
	if err != nil {
		return 0, requestError(ctx, err)
	}
	defer res.Body.Close()
	if res.Header.Get("X-Elastic-Product") == "Elasticsearch" {
		c.elastic.Store(true)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return 0, requestError(ctx, err)
	}
	if res.IsError() {
		return res.StatusCode, aboutJob(statusError(res.StatusCode, body), "elasticsearch.request",
			"check urls (http or https) and index")
	}
	if err := json.Unmarshal(body, reply); err != nil {
		return res.StatusCode, fail.Job("elasticsearch.answer", "the answer is none of Elasticsearch's: %w", err).
			WithFix("check urls")
	}
	return res.StatusCode, nil
}

// aboutJob makes a refusal, which elsewhere is one of a record, one of the job.
func aboutJob(err error, code, fix string) error {
	var e *fail.Error
	if !errors.As(err, &e) || (e.Class != fail.Permanent && e.Code != "elasticsearch.request") {
		return err
	}
	return fail.Job(code, "%s", e.Message).WithFix("%s", fix)
}

// index is what the server tells of a concrete index.
type index struct {
	Aliases    map[string]alias `json:"aliases"`
	Mappings   property         `json:"mappings"`
	Settings   map[string]any   `json:"settings"` // flat: texts and lists of texts
	DataStream string           `json:"data_stream"`
}

// alias is how an alias points to an index.
type alias struct {
	Filter       json.RawMessage `json:"filter,omitempty"`
	IndexRouting string          `json:"index_routing,omitempty"`
	Routing      string          `json:"search_routing,omitempty"`
	WriteIndex   *bool           `json:"is_write_index,omitempty"`
	Hidden       *bool           `json:"is_hidden,omitempty"`
}

// setting is a setting that is no list; "" where it is not set.
func (i index) setting(name string) string {
	text, _ := i.Settings[name].(string)
	return text
}

// indices are the concrete indices of a name, which may be an alias; none when it does not exist.
func (c *client) indices(ctx context.Context, name string) (map[string]index, error) {
	flat, found := true, map[string]index{}
	status, err := c.do(ctx, esapi.IndicesGetRequest{Index: []string{name}, FlatSettings: &flat}, &found)
	if status == http.StatusNotFound {
		return nil, nil
	}
	return found, err
}

// count is the number of documents of an index that searches find.
func (c *client) count(ctx context.Context, name string) (n int64, err error) {
	var reply struct {
		Count int64 `json:"count"`
	}
	_, err = c.do(ctx, esapi.CountRequest{Index: []string{name}}, &reply)
	return reply.Count, err
}

// create makes an index. It is no error when somebody else just did.
func (c *client) create(ctx context.Context, name string, body []byte) error {
	var reply struct{}
	status, err := c.do(ctx, esapi.IndicesCreateRequest{Index: name, Body: bytes.NewReader(body)}, &reply)
	if status != http.StatusBadRequest {
		return err
	}
	if found, _ := c.indices(ctx, name); len(found) > 0 {
		return nil
	}
	return aboutJob(err, "elasticsearch.create", "change create.mappings and create.settings")
}

// bulkRequest is one request to _bulk.
type bulkRequest struct {
	index   string // "" where the actions name theirs
	body    []byte
	gzip    bool // the body is compressed
	refresh string
}

// bulk sends a request and gives its answer to read, whose error it returns.
func (c *client) bulk(ctx context.Context, r bulkRequest, read func(io.Reader) error) error {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	if r.gzip {
		header.Set("Content-Encoding", "gzip")
	}
	res, err := esapi.BulkRequest{
		Index: r.index, Body: bytes.NewReader(r.body), Refresh: r.refresh, Header: header,
		Timeout: c.timeout / 2, // of the server's wait for a shard, so that it answers before we give up
		FilterPath: []string{"errors", "items.*.status", "items.*.error.type", "items.*.error.reason",
			"items.*.error.caused_by.reason"},
	}.Do(limited, c.transport)
	if err != nil {
		return requestError(ctx, err)
	}
	defer res.Body.Close()
	if res.IsError() {
		body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if err != nil {
			return requestError(ctx, err)
		}
		return statusError(res.StatusCode, body)
	}
	if err := read(res.Body); err != nil {
		return requestError(ctx, err)
	}
	return nil
}
