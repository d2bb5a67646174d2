package elasticsearchio

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"reprise/transforms/fail"
)

// product is what a server is.
type product struct {
	openSearch bool
	version    string // "" where the login lacks the privilege "monitor", which nothing else needs
}

// products asks once.
type products struct {
	mu    sync.Mutex
	known *product
}

// product tells what the server is. It is not the vendor library's product check, which is a part of its typed
// clients and refuses OpenSearch.
func (c *client) product(ctx context.Context) (product, error) {
	c.products.mu.Lock()
	defer c.products.mu.Unlock()
	if c.products.known != nil {
		return *c.products.known, nil
	}
	var reply struct {
		Version struct{ Distribution, Number string }
	}
	status, err := c.do(ctx, esapi.InfoRequest{}, &reply)
	p := product{openSearch: reply.Version.Distribution == "opensearch", version: reply.Version.Number}
	switch {
	case status == http.StatusForbidden:
		p.openSearch = !c.elastic.Load()
	case err != nil:
		return p, err
	}
	c.products.known = &p
	return p, nil
}

// check refuses servers that lack what is needed: points in time, flattened objects.
func (p product) check() error {
	name, major, minor := "Elasticsearch", 7, 17
	if p.openSearch {
		name, major, minor = "OpenSearch", 2, 7
	}
	if p.version == "" {
		return nil
	}
	var is, and int
	if _, err := fmt.Sscanf(p.version, "%d.%d", &is, &and); err != nil || is < major || is == major && and < minor {
		return fail.Job("elasticsearch.server_version", "the server's version is %q", name+" "+p.version).
			WithFix("%s %d.%d or newer is needed", name, major, minor)
	}
	return nil
}

// check refuses a server that lacks what is needed.
func (c *client) check(ctx context.Context) error {
	p, err := c.product(ctx)
	if err != nil {
		return err
	}
	return p.check()
}

// openSearchRequest is one that Elasticsearch, and so its library, does not have.
type openSearchRequest struct {
	method, path string
	query        url.Values
	body         string
}

// Do implements esapi.Request.
func (r openSearchRequest) Do(ctx context.Context, transport esapi.Transport) (*esapi.Response, error) {
	request, err := http.NewRequestWithContext(ctx, r.method, r.path+"?"+r.query.Encode(), strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	res, err := transport.Perform(request)
	if err != nil {
		return nil, err
	}
	return &esapi.Response{StatusCode: res.StatusCode, Body: res.Body, Header: res.Header}, nil
}
