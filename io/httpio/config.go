package httpio

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"reprise/io/connector"
	"reprise/io/kafkaio"
	"reprise/transforms/record"
)

// SinkConfig says how a workflow is triggered for each record, and when it counts as done.
type SinkConfig struct {
	URL     string            `json:"url" jsonschema:"required" jsonschema_description:"Address that triggers the workflow of a record, such as https://workflow/thumbnails/{id}: fields of the record in braces, their values escaped, and {idempotency_key}."`
	Method  string            `json:"method,omitempty" jsonschema:"enum=POST,enum=PUT,enum=PATCH" jsonschema_description:"POST (default), PUT or PATCH."`
	Headers map[string]string `json:"headers,omitempty" jsonschema_description:"Further headers: templates such as {tenant}. Secrets belong in login."`
	Login   *Login            `json:"login,omitempty" reprise:"tuning" jsonschema_description:"How to log in. Default: no login."`
	TLS     *connector.TLS    `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Settings of https addresses; default: the system's certificates."`
	Fields  []string          `json:"fields,omitempty" jsonschema_description:"Fields of the body, a JSON object; default: all."`
	Exclude []string          `json:"exclude,omitempty" jsonschema_description:"Fields that the body leaves out; instead of fields."`

	Purpose           string            `json:"purpose,omitempty" jsonschema_description:"What is triggered, a part of the idempotency key. Another purpose triggers again what was triggered before. Default: url without scheme and host, as it stands here."`
	IdempotencyHeader string            `json:"idempotency_header,omitempty" jsonschema_description:"Header with the idempotency key. Default: Idempotency-Key."`
	Answers           map[string]Answer `json:"answers,omitempty" jsonschema_description:"What a status means where it differs from the default, such as {500: dead}. Default: 2xx written, 409 unchanged, 408, 425, 429 and 5xx retry, other 4xx dead."`
	Check             string            `json:"check,omitempty" jsonschema_description:"Address that tells whether a workflow was triggered already, such as https://workflow/by-key/{idempotency_key}; it is asked before each trigger, and 404 means that it was not. Default: the service finds out by the idempotency key."`
	Completion        *Completion       `json:"completion,omitempty" jsonschema_description:"How to learn that a workflow has ended. Default: a workflow counts as written once it is accepted."`

	InFlight int                `json:"in_flight,omitempty" reprise:"tuning" jsonschema:"minimum=1,maximum=1024" jsonschema_description:"Triggers, and likewise polls, that each worker sends at once. Default: 8."`
	UnderWay int                `json:"under_way,omitempty" reprise:"tuning" jsonschema:"minimum=1,maximum=100000" jsonschema_description:"Workflows that each worker may have running at once, with completion. limits.unfinished limits them, too. Default: 1000."`
	Timeout  connector.Duration `json:"timeout,omitempty" reprise:"tuning" jsonschema_description:"How long one request may take. Default: 30s."`
	RetryFor connector.Duration `json:"retry_for,omitempty" reprise:"tuning" jsonschema_description:"How long to retry a record while others succeed; then it becomes a dead letter. Default: 2m."`
}

// Answer is what a status of an answer means.
type Answer string

// The meanings of a status.
const (
	answerWritten   Answer = "written"
	answerUnchanged Answer = "unchanged"
	answerRetry     Answer = "retry"
	answerDead      Answer = "dead"
)

// Login is who asks.
type Login struct {
	User     string                      `json:"user,omitempty" jsonschema_description:"User name; with password."`
	Password connector.Secret            `json:"password,omitempty" jsonschema_description:"The user's password: env:NAME or file:PATH."`
	Token    connector.Secret            `json:"token,omitempty" jsonschema_description:"Bearer token, instead of user and password: env:NAME or file:PATH."`
	Headers  map[string]connector.Secret `json:"headers,omitempty" jsonschema_description:"Headers with secrets, such as {X-API-Key: env:API_KEY}."`
}

// Completion says how to learn that a workflow has ended: by asking, or by what the service writes to a topic.
type Completion struct {
	Poll    *Poll              `json:"poll,omitempty" jsonschema_description:"Ask the service; instead of topic."`
	Topic   *Topic             `json:"topic,omitempty" jsonschema_description:"Read a topic of Kafka to which the service writes; instead of poll."`
	State   string             `json:"state,omitempty" jsonschema_description:"Where to find the state: names joined by dots in the JSON of an answer, as in workflow.state, or a field of the topic. Default for poll: the status of the answer decides: 202 is still running, any other 2xx is done."`
	Done    []string           `json:"done,omitempty" jsonschema_description:"States of a workflow that has succeeded; case does not matter. Needs state."`
	Failed  []string           `json:"failed,omitempty" jsonschema_description:"States of a workflow that has failed for good, which becomes a dead letter. In any other state it is still running. Needs state."`
	Reason  string             `json:"reason,omitempty" jsonschema_description:"Where to find the reason for a failure, in the form of state."`
	Timeout connector.Duration `json:"timeout,omitempty" reprise:"tuning" jsonschema_description:"How long a workflow may take after its trigger; then it becomes a dead letter. Default: 30m."`
}

// Poll says how a service is asked.
type Poll struct {
	URL   string             `json:"url,omitempty" jsonschema_description:"Address of a workflow's state: fields of the record in braces, {idempotency_key}, and {answer.NAME}, what the answer to the trigger holds under NAME. Default: the answer's header Location."`
	Every connector.Duration `json:"every,omitempty" reprise:"tuning" jsonschema_description:"Time between two requests for a workflow's state; for one older than ten times that, a tenth of its age, at most 1m. Default: 2s."`
}

// Topic says what a service writes when a workflow has ended.
type Topic struct {
	Kafka kafkaio.SourceConfig `json:"kafka" jsonschema:"required" jsonschema_description:"The topic. Its key names the workflow. It is read from the beginning of the run on, unless from is set."`
	Match string               `json:"match,omitempty" jsonschema:"enum=idempotency_key,enum=key" jsonschema_description:"What the topic's key is: idempotency_key (default), or key, that of the record, which also takes a message about an older version."`
}

// SourceConfig are the settings of a service that finds rows by their keys. It cannot be read from beginning to
// end: it is the table of a join.
type SourceConfig struct {
	URL      string             `json:"url" jsonschema:"required" jsonschema_description:"Address of a row, such as https://licences/v1/{licence}: fields of the key in braces, their values escaped."`
	Key      []string           `json:"key" jsonschema:"required,minItems=1" jsonschema_description:"The fields that make up a row's key."`
	Fields   connector.Fields   `json:"fields" jsonschema:"required" jsonschema_description:"Name and CQL type of each field, those of the key included. Anything else in a response is left out; fields of the key are taken from the request."`
	Row      string             `json:"row,omitempty" jsonschema_description:"Where the row is in the JSON of a response: names joined by dots, as in data.licence. Default: the response is the row."`
	Version  string             `json:"version,omitempty" jsonschema_description:"Field with the row's version: a timestamp, a timeuuid, or a bigint of microseconds since 1970. Default: none, 0."`
	NotFound int                `json:"not_found,omitempty" jsonschema:"minimum=200,maximum=599" jsonschema_description:"Status that means there is no such row; 204, and null in place of the row, also mean it. Default: 404."`
	Headers  map[string]string  `json:"headers,omitempty" jsonschema_description:"Further headers. Secrets belong in login."`
	Login    *Login             `json:"login,omitempty" reprise:"tuning" jsonschema_description:"How to log in. Default: no login."`
	TLS      *connector.TLS     `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Settings of https addresses; default: the system's certificates."`
	InFlight int                `json:"in_flight,omitempty" reprise:"tuning" jsonschema:"minimum=1,maximum=1024" jsonschema_description:"Requests that each worker sends at once. Default: 8."`
	Timeout  connector.Duration `json:"timeout,omitempty" reprise:"tuning" jsonschema_description:"How long one request may take. Default: 30s."`
	RetryFor connector.Duration `json:"retry_for,omitempty" reprise:"tuning" jsonschema_description:"How long to retry a row while others are found; then it becomes a dead letter. Default: 2m."`
}

// keyField is the name of the idempotency key in templates, answerField stands before what
// the answer to a trigger holds.
const (
	keyField    = "idempotency_key"
	answerField = "answer."
)

// matchKey is the setting of match by which a topic's key is that of the record.
const matchKey = "key"

// Validate finds what the schema of the settings cannot say.
func (c SinkConfig) Validate() (faults []connector.Fault) {
	faults = validateURL("url", c.URL)
	if c.Check != "" {
		faults = append(faults, validateURL("check", c.Check)...)
	}
	if method := c.method(); !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch}, method) {
		faults = append(faults, connector.Faultf("method", "%q is none of POST, PUT and PATCH", method))
	}
	faults = append(faults, validateHeaders(c.Headers)...)
	faults = append(faults, c.Login.validate()...)
	if !httpguts.ValidHeaderFieldName(c.idempotencyHeader()) {
		faults = append(faults, connector.Faultf("idempotency_header",
			"%q is not a valid header name", c.IdempotencyHeader))
	}
	if len(c.Fields) > 0 && len(c.Exclude) > 0 {
		faults = append(faults, connector.Faultf("exclude", "either fields or exclude"))
	}
	for _, status := range slices.Sorted(maps.Keys(c.Answers)) {
		if n, err := strconv.Atoi(status); err != nil || n < 200 || n > 599 || n/100 == 3 {
			faults = append(faults, connector.Faultf("answers."+status, "%q is not a status such as 409", status))
		}
		if !slices.Contains([]Answer{answerWritten, answerUnchanged, answerRetry, answerDead}, c.Answers[status]) {
			faults = append(faults, connector.Faultf("answers."+status,
				"%q is none of written, unchanged, retry and dead", c.Answers[status]))
		}
	}
	if c.Completion != nil {
		faults = append(faults, c.Completion.validate()...)
	}
	return faults
}

func (c Completion) validate() (faults []connector.Fault) {
	if (c.Poll == nil) == (c.Topic == nil) {
		faults = append(faults, connector.Faultf("completion", "exactly one of these is needed: poll, topic"))
	}
	if c.Poll != nil && c.Poll.URL != "" {
		faults = append(faults, validateURL("completion.poll.url", c.Poll.URL)...)
	}
	if t := c.Topic; t != nil {
		for _, f := range t.Kafka.Validate() {
			faults = append(faults, connector.Fault{Path: "completion.topic.kafka." + f.Path, Message: f.Message})
		}
		if t.Match != "" && t.Match != keyField && t.Match != matchKey {
			faults = append(faults, connector.Faultf("completion.topic.match",
				"%q is neither idempotency_key nor key", t.Match))
		}
		if c.State == "" {
			faults = append(faults, connector.Faultf("completion.state", "name the field with the state"))
		}
		if fields := t.Kafka.Fields; len(fields) > 0 {
			for path, name := range map[string]string{"state": c.State, "reason": c.Reason} {
				if name != "" && !slices.ContainsFunc(fields, func(f record.Field) bool { return f.Name == name }) {
					faults = append(faults, connector.Faultf("completion."+path,
						"the topic has no field %q; there are %s", name, fields.Names()))
				}
			}
		}
	}
	switch {
	case c.State == "" && (len(c.Done) > 0 || len(c.Failed) > 0):
		faults = append(faults, connector.Faultf("completion.state",
			"done and failed are states: say where the state stands"))
	case c.State != "" && len(c.Done) == 0:
		faults = append(faults, connector.Faultf("completion.done",
			"name the states of a workflow that has gone well, such as [succeeded]"))
	case c.State != "" && len(c.Failed) == 0:
		faults = append(faults, connector.Faultf("completion.failed",
			"name the states of a workflow that has failed, such as [failed, cancelled]; else it is waited for until "+
				"timeout"))
	}
	for _, state := range c.Failed {
		if isOne(state, c.Done) {
			faults = append(faults, connector.Faultf("completion.failed", "%q stands in done, too", state))
		}
	}
	return faults
}

// Validate finds what the schema of the settings cannot say.
func (c SourceConfig) Validate() (faults []connector.Fault) {
	faults = validateURL("url", c.URL)
	if t, err := connector.ParseTemplate(c.URL, nil); err == nil && t.Fixed() {
		faults = append(faults, connector.Faultf("url",
			"each row needs an address of its own: a field of the key in braces, such as {id}"))
	}
	if len(c.Key) == 0 {
		faults = append(faults, connector.Faultf("key", "name the fields that make up a row's key"))
	}
	if len(c.Fields) == 0 {
		faults = append(faults, connector.Faultf("fields", "name the fields and their types, which JSON does not tell"))
	}
	faults = append(faults, validateHeaders(c.Headers)...)
	faults = append(faults, c.Login.validate()...)
	return append(faults, c.Fields.Check(c.Key, c.Version)...)
}

// validateURL checks the form of an address that may hold braces behind its host.
func validateURL(path, text string) (faults []connector.Fault) {
	if _, err := connector.ParseTemplate(text, nil); err != nil {
		return append(faults, connector.Faultf(path, "%v", err))
	}
	origin, rest := cutOrigin(text)
	u, err := url.Parse(origin)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.ContainsAny(origin, "{}"):
		faults = append(faults, connector.Faultf(path,
			"%q does not begin with an address such as https://host:8080; braces may stand behind the host alone",
			text))
	case u.User != nil:
		faults = append(faults, secretly(path, "a login does not belong into the address; use login"))
	case strings.Contains(rest, "#"):
		faults = append(faults, connector.Faultf(path, "an address has no #"))
	}
	return faults
}

// cutOrigin divides an address behind its host.
func cutOrigin(text string) (origin, rest string) {
	from := strings.Index(text, "://")
	if from < 0 {
		return text, ""
	}
	from += len("://")
	if end := strings.IndexAny(text[from:], "/?#"); end >= 0 {
		return text[:from+end], text[from+end:]
	}
	return text, ""
}

// ours are headers that a job cannot set.
var ours = []string{"Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Authorization"}

func validateHeaders(headers map[string]string) (faults []connector.Fault) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		path := "headers." + name
		switch _, err := connector.ParseTemplate(headers[name], nil); {
		case err != nil:
			faults = append(faults, connector.Faultf(path, "%v", err))
		case !httpguts.ValidHeaderFieldName(name):
			faults = append(faults, connector.Faultf(path, "%q is not a valid header name", name))
		case http.CanonicalHeaderKey(name) == "Authorization":
			faults = append(faults, secretly(path,
				"secrets never stand in a job file: use login, with user and password, token, or headers"))
		case slices.Contains(ours, http.CanonicalHeaderKey(name)):
			faults = append(faults, connector.Faultf(path, "%s cannot be set", name))
		}
	}
	return faults
}

// secretly is a fault of what may be a secret.
func secretly(path, message string) connector.Fault {
	return connector.Fault{Path: path, Message: message, Secret: true}
}

func (l *Login) validate() (faults []connector.Fault) {
	if l == nil {
		return nil
	}
	if (l.User == "") != (l.Password == "") {
		faults = append(faults, connector.Faultf("login.user", "user and password belong together"))
	}
	if l.User != "" && l.Token != "" {
		faults = append(faults, connector.Faultf("login.token", "either token or user and password"))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		if !httpguts.ValidHeaderFieldName(name) {
			faults = append(faults, connector.Faultf("login.headers."+name, "%q is not a valid header name", name))
		}
	}
	return faults
}

func (c SinkConfig) method() string { return orDefault(c.Method, http.MethodPost) }

func (c SinkConfig) idempotencyHeader() string {
	return orDefault(c.IdempotencyHeader, "Idempotency-Key")
}

func (c SinkConfig) purpose() string {
	_, rest := cutOrigin(c.URL)
	return orDefault(c.Purpose, rest)
}

// meaning is what a status of an answer to a trigger means; "" for a redirect or a login that is
// refused, which no record can help.
func (c SinkConfig) meaning(status int) Answer {
	if a, ok := c.Answers[fmt.Sprint(status)]; ok {
		return a
	}
	switch {
	case status/100 == 2:
		return answerWritten
	case status == http.StatusConflict:
		return answerUnchanged
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status >= 500:
		return answerRetry
	case status/100 == 4 && status != http.StatusUnauthorized:
		return answerDead
	}
	return ""
}

// settings are what both a sink and a source say of their requests.
type settings struct {
	login    *Login
	tls      *connector.TLS
	timeout  time.Duration
	inFlight int
	retry    connector.Retry
}

func (c SinkConfig) settings() settings {
	return newSettings(c.Login, c.TLS, c.Timeout, c.InFlight, c.RetryFor)
}

func (c SourceConfig) settings() settings {
	return newSettings(c.Login, c.TLS, c.Timeout, c.InFlight, c.RetryFor)
}

func newSettings(login *Login, tls *connector.TLS, timeout connector.Duration, inFlight int,
	retryFor connector.Duration) settings {
	s := settings{login: login, tls: tls, timeout: timeout.Or(30 * time.Second), inFlight: orDefault(inFlight, 8),
		retry: connector.DefaultRetry}
	s.retry.Deadline = retryFor.Or(s.retry.Deadline)
	return s
}

func (c Completion) timeout() time.Duration { return c.Timeout.Or(30 * time.Minute) }

// wait is the time until a workflow of some age is asked for again.
func (p Poll) wait(age time.Duration) time.Duration {
	every := p.Every.Or(2 * time.Second)
	return max(every, min(age/10, time.Minute))
}

func orDefault[T comparable](v, def T) T {
	if zero := *new(T); v == zero {
		return def
	}
	return v
}

// isOne tells whether a state is one of some.
func isOne(state string, of []string) bool {
	return slices.ContainsFunc(of, func(s string) bool { return strings.EqualFold(s, state) })
}
