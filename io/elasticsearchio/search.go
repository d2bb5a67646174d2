package elasticsearchio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var (
	errExpired  = errors.New("the point in time has expired")
	errTooLarge = errors.New("the answer is larger than asked for")
)

// hit is a document as a search or a look-up gives it.
type hit struct {
	index, id, routing string
	version            int64
	source             string   // JSON; "" where the server keeps none
	sort               []string // JSON of the values that it is ordered by
	tooLarge           bool     // the source was left out, since the document alone is too large
}

// answer is the answer to a search.
type answer struct {
	pit   string
	total int64
	hits  []hit
	bytes int64
}

// searchRequest is a request to _search.
type searchRequest struct {
	index   string // "" where the body names a point in time
	routing string
	body    any
	limit   int64 // bytes of the answer
}

// search sends a request. Its error is errExpired where the point in time is gone, errTooLarge where the answer is.
func (c *client) search(ctx context.Context, r searchRequest) (a answer, err error) {
	body, err := json.Marshal(r.body)
	if err != nil {
		return a, fail.Job("elasticsearch.query", "query: %w", err)
	}
	whole := false // all shards or none
	request := esapi.SearchRequest{Body: bytes.NewReader(body), AllowPartialSearchResults: &whole}
	if r.index != "" {
		request.Index = []string{r.index}
	}
	if r.routing != "" {
		request.Routing = []string{r.routing}
	}
	text, err := c.read(ctx, request, r.limit)
	if err != nil {
		return a, err
	}
	a.bytes = int64(len(text))
	err = record.JSONParts(text, func(name, value string) error {
		switch name {
		case "pit_id":
			a.pit, err = parseText(value)
			return err
		case "timed_out":
			if value != "false" {
				return errors.New("the search timed out on the server")
			}
		case "hits":
			return record.JSONParts(value, func(name, value string) error {
				switch name {
				case "total":
					return record.JSONParts(value, func(name, value string) (err error) {
						if name == "value" {
							a.total, err = strconv.ParseInt(value, 10, 64)
						}
						return err
					})
				case "hits":
					return record.JSONParts(value, func(_, value string) error {
						h, err := parseHit(value)
						a.hits = append(a.hits, h)
						return err
					})
				}
				return nil
			})
		}
		return nil
	})
	return a, badAnswer(err)
}

// badAnswer is the error of an answer that is not understood; it may have been cut short.
func badAnswer(err error) error {
	if err == nil {
		return nil
	}
	return fail.New(fail.Transient, "elasticsearch.answer", "the answer is none of Elasticsearch's: %w", err).
		WithFix("check urls")
}

// parseHit reads a document; what is no part of a hit is passed over.
func parseHit(text string) (h hit, err error) {
	err = record.JSONParts(text, func(name, value string) (err error) {
		switch name {
		case "_index":
			h.index, err = parseText(value)
		case "_id":
			h.id, err = parseText(value)
		case "_routing":
			h.routing, err = parseText(value)
		case "_version":
			h.version, err = strconv.ParseInt(value, 10, 64)
		case "_source":
			h.source = value
		case "sort":
			err = record.JSONParts(value, func(_, value string) error {
				h.sort = append(h.sort, value)
				return nil
			})
		}
		return err
	})
	return h, err
}

func parseText(value string) (string, error) {
	v, err := record.FromJSON(record.Of(record.Text), value)
	return v.Str(), err
}

// openPIT opens a point in time of an index.
func (c *client) openPIT(ctx context.Context, index, routing, keepAlive string) (id string, err error) {
	is, err := c.product(ctx)
	if err != nil {
		return "", readError(err)
	}
	var request esapi.Request
	request = esapi.OpenPointInTimeRequest{Index: []string{index}, Routing: routing, KeepAlive: keepAlive}
	if is.openSearch {
		query := url.Values{"keep_alive": {keepAlive}, "allow_partial_pit_creation": {"false"}}
		if routing != "" {
			query.Set("routing", routing)
		}
		path := "/" + url.PathEscape(index) + "/_search/point_in_time"
		request = openSearchRequest{method: http.MethodPost, path: path, query: query}
	}
	text, err := c.read(ctx, request, maxReply)
	if err != nil {
		return "", err
	}
	err = record.JSONParts(text, func(name, value string) (err error) {
		if name == "id" || name == "pit_id" {
			id, err = parseText(value)
		}
		return err
	})
	if err == nil && id == "" {
		err = errors.New("no id of the point in time")
	}
	return id, badAnswer(err)
}

// closePIT gives a point in time back.
func (c *client) closePIT(ctx context.Context, id string) error {
	is, err := c.product(ctx)
	if err != nil {
		return err
	}
	quoted := string(record.AppendQuoted(nil, id))
	var request esapi.Request = esapi.ClosePointInTimeRequest{Body: strings.NewReader(`{"id":` + quoted + `}`)}
	if is.openSearch {
		body := `{"pit_id":[` + quoted + `]}`
		request = openSearchRequest{method: http.MethodDelete, path: "/_search/point_in_time", body: body}
	}
	_, err = c.read(ctx, request, maxReply)
	return err
}

// refresh makes visible what was written.
func (c *client) refresh(ctx context.Context, index string) error {
	_, err := c.read(ctx, esapi.IndicesRefreshRequest{Index: []string{index}}, maxReply)
	return err
}

// read sends a request and gives its answer.
func (c *client) read(ctx context.Context, request esapi.Request, limit int64) (string, error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := request.Do(limited, c.transport)
	if err != nil {
		return "", readError(requestError(ctx, err))
	}
	defer res.Body.Close()
	if res.IsError() {
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		if err != nil {
			return "", readError(requestError(ctx, err))
		}
		return "", searchError(res.StatusCode, body)
	}
	var text strings.Builder
	n, err := io.Copy(&text, io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return "", readError(requestError(ctx, err))
	case n > limit:
		return "", errTooLarge
	}
	return text.String(), nil
}

// searchError is the error of a request that reads and was answered, but not with success.
func searchError(status int, body []byte) error {
	var reply struct {
		Error struct {
			RootCause []*cause `json:"root_cause"`
			Shards    []struct {
				Reason *cause `json:"reason"`
			} `json:"failed_shards"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &reply) // an answer without causes is told as it is
	causes := reply.Error.RootCause
	for _, shard := range reply.Error.Shards {
		causes = append(causes, shard.Reason)
	}
	causes = slices.DeleteFunc(causes, func(c *cause) bool { return c == nil })
	switch {
	case slices.ContainsFunc(causes, func(c *cause) bool { return c.Type == "search_context_missing_exception" }):
		return errExpired
	case len(causes) == 0:
		return readError(statusError(status, body))
	}
	return readError(refusal(status, causes[0]))
}

// readError says of an error what to do about it where documents are read.
func readError(err error) error {
	var e *fail.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == "elasticsearch.index_missing" || e.Code == "elasticsearch.not_found":
		return fail.Job("elasticsearch.index_missing", "%s", e.Message).
			WithFix("check index; after an index was deleted or renamed start a new run")
	case e.Class == fail.Permanent:
		return fail.Job("elasticsearch.query", "Elasticsearch refuses to search: %s", e.Message).
			WithFix("correct query")
	case e.Code == "elasticsearch.auth":
		return e.WithFix("check user and password or api_key, and that they have the privileges read and " +
			"view_index_metadata")
	case e.Code == "elasticsearch.throttled":
		return e.WithFix("lower the run's rate or limits.readers, or give the cluster more room")
	case e.Code == "elasticsearch.timeout":
		return e.WithFix("check that the cluster is up; else raise timeout, or lower page")
	}
	return err
}
