package httpio

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// verdict is how far a workflow is.
type verdict struct {
	ended bool
	err   error // why it failed, or is no more waited for
}

// verdict reads how far a workflow is from its state and, if it failed, the reason.
func (c *Completion) verdict(state, reason string) verdict {
	switch {
	case isOne(state, c.Done):
		return verdict{ended: true}
	case isOne(state, c.Failed):
		return verdict{ended: true, err: fail.New(fail.Permanent, "http.workflow_failed",
			"the workflow ended as %s: %s", excerpt([]byte(state)), excerpt([]byte(reason)))}
	}
	return verdict{}
}

// read reads how far a workflow is from an answer of success.
func (c *Completion) read(a answer) verdict {
	if c.State == "" {
		return verdict{ended: a.status != http.StatusAccepted}
	}
	state, _ := at(a.body, c.State)
	reason := ""
	if c.Reason != "" {
		reason, _ = at(a.body, c.Reason)
	}
	return c.verdict(state, reason)
}

// overdue is what becomes of a workflow that has not ended in time.
func (c *Completion) overdue(last string) error {
	return fail.New(fail.Permanent, "http.workflow_timeout",
		"the workflow has not ended within %s; %s", c.timeout(), last).
		WithFix("look at the workflow, or raise completion.timeout; reprise redrive asks for it again")
}

// poller asks how far workflows are.
type poller struct {
	*Completion
	client *client
	schema *record.Schema      // of the records with the idempotency key, and the names of the answer that url uses
	names  []string            // of the answer, as they stand in its JSON
	url    *connector.Template // nil: the header Location tells it
}

func newPoller(c *Completion, client *client, schema *record.Schema) (*poller, error) {
	p := &poller{Completion: c, client: client}
	if c.Poll.URL == "" {
		return p, nil
	}
	var fields []string
	for _, name := range placeholders(c.Poll.URL) {
		if rest, ok := strings.CutPrefix(name, answerField); ok {
			fields, p.names = append(fields, name), append(p.names, rest)
		}
	}
	var err error
	if p.schema, err = withTexts(schema, fields...); err != nil {
		return nil, err
	}
	p.url, err = template("completion.poll.url", c.Poll.URL, p.schema)
	return p, err
}

// placeholders are the names in braces in a template whose form is right, each once.
func placeholders(text string) (names []string) {
	seen := map[string]bool{}
	text = strings.NewReplacer("{{", "", "}}", "").Replace(text)
	for {
		_, rest, ok := strings.Cut(text, "{")
		if !ok {
			return names
		}
		var name string
		name, text, _ = strings.Cut(rest, "}")
		if name, _, _ = strings.Cut(name, ":"); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
}

// await asks until a workflow has ended, or too long has passed since it was triggered. A service that does not answer
// is asked on, whatever the time. Its error is no matter of the workflow.
func (p *poller) await(ctx context.Context, t trigger, a answer) (dead, err error) {
	began := time.Now()
	m, dead, err := p.question(t, a)
	if m == nil {
		return dead, err
	}
	last := fmt.Sprintf("it was accepted with status %d", a.status)
	ask := a.pause()
	for {
		age := time.Since(began)
		wait := max(p.Poll.wait(age), ask)
		if left := p.timeout() - age; left > 0 {
			wait = min(wait, left)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		late := time.Since(began) >= p.timeout()
		s, err := p.client.send(ctx, *m, unknownIsNone)
		if err != nil || s.dead != nil {
			return s.dead, err
		}
		ask = s.answer.pause()
		last = "the service knows nothing of it"
		if s.answer.status != http.StatusNotFound {
			if v := p.read(s.answer); v.ended {
				return v.err, nil
			}
			last = fmt.Sprintf("the last answer was status %d: %s", s.answer.status, excerpt(s.answer.body))
		}
		if late {
			return p.overdue(last), nil
		}
	}
}

// question is the request that asks for a workflow; nil: it cannot be asked for, as dead says, or need not.
func (p *poller) question(t trigger, a answer) (m *message, dead, err error) {
	m = &message{method: http.MethodGet, header: t.header}
	if p.url == nil {
		location := a.header.Get("Location")
		switch to, err := a.url.Parse(location); {
		case location == "" && a.status != http.StatusAccepted && a.status/100 == 2:
			return nil, nil, nil // it is done already
		case location == "" || err != nil:
			return nil, fail.New(fail.Permanent, "http.no_location",
				"status %d of %s names no Location to ask at", a.status, a.url.Host).
				WithFix("set completion.poll.url"), nil
		case to.Scheme != a.url.Scheme || to.Host != a.url.Host:
			return nil, nil, fail.Job("http.location", "%s sends us to %s", a.url.Host,
				(&url.URL{Scheme: to.Scheme, Host: to.Host}).String()).
				WithFix("set completion.poll.url: no other host is asked that the job does not name")
		default:
			m.url = to.String()
		}
		return m, nil, nil
	}
	r := &record.Record{Schema: p.schema, Values: t.record.Values, Version: t.record.Version}
	for _, name := range p.names {
		value, ok := at(a.body, name)
		if !ok {
			return nil, fail.New(fail.Permanent, "http.no_answer", "status %d of %s: the answer holds no %q: %s",
				a.status, a.url.Host, name, excerpt(a.body)).
				WithFix("change completion.poll.url"), nil
		}
		r.Values = append(r.Values[:len(r.Values):len(r.Values)], record.String(value))
	}
	m.url, dead = address(p.url, r)
	if dead != nil {
		return nil, dead, nil
	}
	return m, nil, nil
}

// unknownIsNone takes an answer to a question: 404 is one, too.
func unknownIsNone(a answer) error {
	if a.status == http.StatusNotFound {
		return nil
	}
	return known(a)
}

// known takes an answer to a question.
func known(a answer) error {
	switch means := (SinkConfig{}).meaning(a.status); {
	case means == answerWritten:
		return nil
	case means == answerUnchanged:
		return statusError(a, answerDead)
	default:
		return statusError(a, means)
	}
}

// at is the text of what stands in JSON behind names joined by dots: of a text its content, of anything else its JSON.
// ok is false where it is not there, or null.
func at(text []byte, path string) (value string, ok bool) {
	raw := string(text)
	for name := range strings.SplitSeq(path, ".") {
		if raw, ok = member(raw, name); !ok {
			return "", false
		}
	}
	v, err := record.FromJSON(record.Of(record.Text), raw)
	switch {
	case err != nil:
		return raw, true
	case v.IsNull():
		return "", false
	}
	return v.Str(), true
}

// member is the JSON of a member of an object.
func member(object, name string) (raw string, found bool) {
	if trimmed := strings.TrimLeft(object, " \t\r\n"); !strings.HasPrefix(trimmed, "{") {
		return "", false
	}
	err := record.JSONParts(object, func(n, value string) error {
		if n == name {
			raw, found = value, true
		}
		return nil
	})
	return raw, found && err == nil
}
