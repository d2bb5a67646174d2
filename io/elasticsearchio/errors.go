package elasticsearchio

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"reprise/transforms/fail"
)

// cause is an error as the server tells it. Also read from {"error":"text"}, which proxies and old versions send.
type cause struct {
	Type     string `json:"type"`
	Reason   string `json:"reason"`
	CausedBy *cause `json:"caused_by"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *cause) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		return json.Unmarshal(text, &c.Reason)
	}
	type plain cause
	return json.Unmarshal(text, (*plain)(c))
}

// String is the type and the reason, without what they quote of the document.
func (c *cause) String() string {
	if c == nil {
		return "no reason given"
	}
	s := shorten(c.Reason, 300)
	if c.Type != "" {
		s = c.Type + ": " + s
	}
	if c.CausedBy != nil && c.CausedBy.Reason != c.Reason {
		s += " (" + shorten(c.CausedBy.Reason, 120) + ")"
	}
	return s
}

// quotes stand before what a reason quotes of the document.
var quotes = []string{" Preview of field's value", " The prefix of the first immense term"}

func shorten(reason string, limit int) string {
	for _, q := range quotes {
		reason, _, _ = strings.Cut(reason, q)
	}
	if len(reason) > limit {
		return strings.ToValidUTF8(reason[:limit], "") + "..."
	}
	return strings.TrimSpace(reason)
}

// itemError is the error of one item of a bulk answer; 409 is none and does not come here.
func itemError(status int, c *cause) error {
	kind := ""
	if c != nil {
		kind = c.Type
	}
	switch {
	case status == http.StatusTooManyRequests && c != nil && overPressure(c.Reason):
		return tooLarge("%v", c)
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable ||
		kind == "es_rejected_execution_exception":
		return throttled(status, c)
	case kind == "index_not_found_exception":
		return fail.Job("elasticsearch.index_missing", "%v", c).
			WithFix("make the index, or let the server make it (action.auto_create_index)")
	case kind == "index_closed_exception":
		return fail.Job("elasticsearch.index_closed", "%v", c).WithFix("open the index")
	case kind == "cluster_block_exception":
		return fail.Job("elasticsearch.read_only", "%v", c).
			WithFix("remove the index's block, or write to another index")
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return refusedLogin(c)
	case kind == "invalid_index_name_exception":
		return fail.New(fail.Permanent, "elasticsearch.index_name", "%v", c).
			WithFix("cut and lower-case the fields in the index template by a transform")
	case status == http.StatusBadRequest:
		return fail.New(fail.Permanent, "elasticsearch.mapping", "%v", c).
			WithFix("change the record by a transform, or the index's mapping")
	case status == http.StatusRequestEntityTooLarge:
		return tooLarge("%v", c)
	case status >= 500:
		return fail.New(fail.Transient, "elasticsearch.server", "status %d: %v", status, c)
	}
	return fail.New(fail.Permanent, "elasticsearch.refused", "status %d: %v", status, c)
}

// statusError is the error of a whole request that was answered, but not with success.
func statusError(status int, body []byte) error {
	var reply struct {
		Error *cause `json:"error"`
	}
	if json.Unmarshal(body, &reply) != nil || reply.Error == nil {
		reply.Error = &cause{Type: http.StatusText(status), Reason: string(body)}
	}
	return refusal(status, reply.Error)
}

func refusal(status int, c *cause) error {
	switch {
	case status == http.StatusBadGateway || status == http.StatusGatewayTimeout:
		return fail.Unreachable("elasticsearch.unreachable", "status %d: %v", status, c)
	case status == http.StatusNotFound:
		return fail.Job("elasticsearch.not_found", "%v", c).WithFix("check urls and index")
	}
	return itemError(status, c)
}

// requestError is the error of a request that got no answer, or only a part of it.
func requestError(ctx context.Context, err error) error {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &cert), errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"),
		strings.Contains(err.Error(), "remote error: tls"):
		e := fail.New(fail.Fatal, "elasticsearch.tls", "no secure connection: %w", err).
			WithFix("check that urls say http or https as the server does, and tls.ca, tls.cert and tls.server_name")
		e.Exit = fail.ExitUnreachable
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return fail.Unreachable("elasticsearch.timeout", "no answer in time: %w", err).
			WithFix("check that the cluster is up; else raise timeout, or lower batch.bytes or batch.in_flight")
	}
	return fail.Unreachable("elasticsearch.unreachable", "cannot reach the cluster: %w", err).
		WithFix("check urls (http or https) and that the cluster is up")
}

func throttled(status int, c *cause) error {
	e := fail.New(fail.Throttled, "elasticsearch.throttled", "status %d: %v", status, c).
		WithFix("lower the run's rate or batch.in_flight, or give the cluster more room")
	if status == http.StatusServiceUnavailable {
		e.Exit = fail.ExitUnreachable
	}
	return e
}

func refusedLogin(c *cause) error {
	e := fail.New(fail.Fatal, "elasticsearch.auth", "Elasticsearch refuses the access: %v", c).
		WithFix("check user and password or api_key, and that they have the privileges view_index_metadata, write " +
			"and, with create, create_index")
	e.Exit = fail.ExitUnreachable
	return e
}

const tooLargeCode = "elasticsearch.too_large"

func tooLarge(format string, args ...any) *fail.Error {
	return fail.New(fail.Permanent, tooLargeCode, format, args...).
		WithFix("leave out large fields (exclude), or raise the server's http.max_content_length or " +
			"indexing_pressure.memory.limit")
}

var pressure = regexp.MustCompile(
	`operation_bytes=(\d+), max_(?:coordinating|primary|coordinating_and_primary)_bytes=(\d+)`)

// overPressure tells whether a request was rejected not because of others, but because it alone is over the limit.
func overPressure(reason string) bool {
	m := pressure.FindStringSubmatch(reason)
	if m == nil {
		return false
	}
	bytes, _ := strconv.ParseInt(m[1], 10, 64)
	limit, _ := strconv.ParseInt(m[2], 10, 64)
	return bytes > limit
}
