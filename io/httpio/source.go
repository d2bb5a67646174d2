package httpio

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Source finds rows by their keys in a service. It cannot be read from beginning to end.
type Source struct {
	config SourceConfig

	mu     sync.Mutex
	opened *lookup // made by the first method that needs it
}

var _ connector.Finder = (*Source)(nil)

// lookup is a Source made ready.
type lookup struct {
	client  *client
	schema  *record.Schema
	url     *connector.Template
	headers map[string]*connector.Template
	version int // field; -1: none
}

// NewSource gives a source of valid settings; it does not connect. A service tells no write times of cells.
func NewSource(c SourceConfig, _ connector.Need) *Source { return &Source{config: c} }

func (s *Source) open() (o *lookup, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	o = &lookup{headers: map[string]*connector.Template{}}
	if o.schema, err = record.NewSchema(s.config.Fields, s.config.Key...); err != nil {
		return nil, fail.Job("http.fields", "the fields: %w", err).WithFix("there are %s", s.config.Fields.Names())
	}
	if o.version = o.schema.Index(s.config.Version); s.config.Version != "" &&
		(o.version < 0 || !connector.IsVersion(o.schema.Fields[o.version].Type)) {
		return nil, fail.Job("http.version", "the version %q is not a field of type timestamp, timeuuid or bigint",
			s.config.Version)
	}
	for _, name := range append(placeholders(s.config.URL), s.placeholders()...) {
		if i := o.schema.Index(name); i >= 0 && !slices.Contains(o.schema.Key, i) {
			return nil, fail.Job("http.template",
				"%q is not a field of the key, and only those are known before a row is found", name).
				WithFix("there are %v", o.schema.KeyNames())
		}
	}
	if o.url, err = template("url", s.config.URL, o.schema); err != nil {
		return nil, err
	}
	for name, text := range s.config.Headers {
		if o.headers[http.CanonicalHeaderKey(name)], err = template("headers."+name, text, o.schema); err != nil {
			return nil, err
		}
	}
	if o.client, err = newClient(s.config.settings()); err != nil {
		return nil, err
	}
	s.opened = o
	return o, nil
}

// placeholders are the names that headers use.
func (s *Source) placeholders() (names []string) {
	for _, text := range s.config.Headers {
		names = append(names, placeholders(text)...)
	}
	return names
}

// Close implements connector.Source.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		s.opened.client.close()
	}
	return nil
}

// Schema is that of the settings. It does not connect: a service need not have an address that says nothing of any row.
func (s *Source) Schema(context.Context) (*record.Schema, error) {
	o, err := s.open()
	if err != nil {
		return nil, err
	}
	return o.schema, nil
}

// Plan fails: the service cannot say which rows there are.
func (s *Source) Plan(context.Context, connector.PlanOptions, func(connector.Split) error) error {
	return errNotReadable()
}

// Read fails as Plan does.
func (s *Source) Read(context.Context, connector.Split, func(connector.Page) error) error {
	return errNotReadable()
}

func errNotReadable() error {
	return fail.Job("http.not_readable",
		"a service that finds rows by their keys cannot be read from beginning to end").
		WithFix("use it as the table of a join")
}

// Find implements connector.Finder. in_flight questions are asked at once, in each worker. A key that cannot
// stand in the address, an answer that is no row, and a question that the service refuses while it answers
// others are dead letters of that row.
func (s *Source) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	o, err := s.open()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	var giving sync.Mutex
	for range min(cap(o.client.questions), len(keys)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(keys) {
					return nil
				}
				p, err := s.find(ctx, o, keys[i])
				if err != nil {
					return err
				}
				giving.Lock()
				err = found(i, p)
				giving.Unlock()
				if err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// find asks for one row.
func (s *Source) find(ctx context.Context, o *lookup, key *record.Record) (p connector.Page, err error) {
	m, err := o.question(key)
	if err != nil {
		return deadKey(key, 1, err), nil
	}
	notFound := orDefault(s.config.NotFound, http.StatusNotFound)
	row := ""
	sent, err := o.client.send(ctx, m, func(a answer) (err error) {
		if a.status == notFound || a.status == http.StatusNoContent {
			row = ""
			return nil
		}
		if err := known(a); err != nil {
			return err
		}
		row, err = s.row(a)
		return err
	})
	switch {
	case err != nil:
		return p, err
	case sent.dead != nil:
		return deadKey(key, sent.attempts, sent.dead), nil
	case row == "":
		return p, nil
	}
	r, err := o.decode(key, row)
	if err != nil {
		return deadKey(key, sent.attempts, err), nil
	}
	return connector.Page{Records: []*record.Record{r}, Bytes: int64(r.Size())}, nil
}

func (o *lookup) question(key *record.Record) (m message, err error) {
	m = message{method: http.MethodGet, header: http.Header{"Accept": {"application/json"}}}
	if m.url, err = address(o.url, key); err != nil {
		return m, err
	}
	for name, t := range o.headers {
		value, err := t.Append(nil, key)
		if err != nil || !validValue(string(value)) {
			return m, fail.New(fail.Permanent, "http.header", "the header %s cannot be made: %w", name, orInvalid(err))
		}
		m.header[name] = []string{string(value)}
	}
	return m, nil
}

// row is the JSON object of the row in an answer; "": there is none.
func (s *Source) row(a answer) (string, error) {
	wrong := func(what string) error {
		return fail.New(fail.Permanent, "http.answer", "the answer of %s %s: %s", a.url.Host, what, excerpt(a.body)).
			WithFix("check url and row")
	}
	if a.cut {
		return "", wrong("is longer than 4 MiB")
	}
	row := strings.TrimSpace(string(a.body))
	if s.config.Row != "" {
		for name := range strings.SplitSeq(s.config.Row, ".") {
			inner, ok := member(row, name)
			if !ok {
				return "", wrong("has no " + s.config.Row)
			}
			if row = strings.TrimSpace(inner); row == "null" {
				return "", nil
			}
		}
	}
	switch {
	case row == "null":
		return "", nil
	case !strings.HasPrefix(row, "{"):
		return "", wrong("is not a JSON object")
	}
	return row, nil
}

// decode makes a record of a row, with the key and the origin of who asks.
func (o *lookup) decode(key *record.Record, row string) (*record.Record, error) {
	r := &record.Record{Schema: o.schema, Values: make([]record.Value, len(o.schema.Fields)), Origin: key.Origin}
	err := record.JSONParts(row, func(name, text string) (err error) {
		i := o.schema.Index(name)
		if i < 0 || slices.Contains(o.schema.Key, i) {
			return nil
		}
		if r.Values[i], err = record.FromJSON(o.schema.Fields[i].Type, text); err != nil {
			return fail.New(fail.Permanent, "http.value", "field %q: %w", name, err).
				WithFix("change its type in fields")
		}
		return nil
	})
	if err != nil && fail.ClassOf(err) != fail.Permanent {
		err = fail.New(fail.Permanent, "http.answer", "the answer is not JSON: %w", err)
	}
	for _, k := range o.schema.Key {
		r.Values[k] = key.Values[k]
	}
	if o.version >= 0 && err == nil && !r.Values[o.version].IsNull() {
		r.Version = connector.Version(r.Values[o.version])
	}
	return r, err
}

// deadKey is a dead letter for a row of which only the key is known.
func deadKey(key *record.Record, attempts int, err error) connector.Page {
	only := &record.Record{Schema: key.Schema, Values: make([]record.Value, len(key.Values))}
	for _, k := range key.Schema.Key {
		only.Values[k] = key.Values[k]
	}
	return connector.Page{Dead: []*record.DeadLetter{
		{Raw: only.AppendJSON(nil), Class: fail.ClassOf(err).String(), Code: fail.CodeOf(err),
			Message: err.Error(), Attempts: attempts}}}
}
