package httpio

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// format turns records into triggers.
type format struct {
	run      connector.Run
	schema   *record.Schema // of the records, and behind their fields the idempotency key
	method   string
	purpose  string
	idHeader string
	url      *connector.Template
	check    *connector.Template // nil: none
	headers  map[string]*connector.Template
	names    [][]byte // for each field, `"name":`; nil: not in the body
}

// newFormat checks the settings against the schema.
func newFormat(c SinkConfig, run connector.Run, schema *record.Schema) (f *format, err error) {
	f = &format{run: run, method: c.method(), purpose: c.purpose(), idHeader: c.idempotencyHeader(),
		headers: map[string]*connector.Template{}, names: make([][]byte, len(schema.Fields))}
	if f.schema, err = withTexts(schema, keyField); err != nil {
		return nil, err
	}
	if f.url, err = template("url", c.URL, f.schema); err != nil {
		return nil, err
	}
	if c.Check != "" {
		if f.check, err = template("check", c.Check, f.schema); err != nil {
			return nil, err
		}
	}
	for name, text := range c.Headers {
		if f.headers[http.CanonicalHeaderKey(name)], err = template("headers."+name, text, f.schema); err != nil {
			return nil, err
		}
	}
	for path, names := range map[string][]string{"fields": c.Fields, "exclude": c.Exclude} {
		for _, name := range names {
			if schema.Index(name) < 0 {
				return nil, fail.Job("http.field", "%s: there is no field %q", path, name).
					WithFix("there are %v", schema.Names())
			}
		}
	}
	for i, field := range schema.Fields {
		if !slices.Contains(c.Exclude, field.Name) && (len(c.Fields) == 0 || slices.Contains(c.Fields, field.Name)) {
			f.names[i] = append(record.AppendQuoted(nil, field.Name), ':')
		}
	}
	return f, nil
}

func template(path, text string, schema *record.Schema) (*connector.Template, error) {
	t, err := connector.ParseTemplate(text, schema)
	if err != nil {
		return nil, fail.Job("http.template", "%s: %w", path, err)
	}
	return t, nil
}

// withTexts is a schema with further text fields at its end.
func withTexts(schema *record.Schema, names ...string) (*record.Schema, error) {
	fields := slices.Clone(schema.Fields)
	for _, name := range names {
		fields = append(fields, record.Field{Name: name, Type: record.Of(record.Text)})
	}
	with, err := record.NewSchema(fields, schema.KeyNames()...)
	if err != nil {
		return nil, fail.Job("http.field", "a field has a name that this sink needs for itself: %w", err).
			WithFix("rename the field by a transform")
	}
	return with, nil
}

// trigger is one workflow to be triggered.
type trigger struct {
	record *record.Record // with the idempotency key behind its fields
	id     string
	header http.Header // of every request about it
	message
}

// trigger makes the request of a record. Its error is the record's.
func (f *format) trigger(r *record.Record) (t trigger, err error) {
	t.id = idempotencyKey(f.run.Job, f.purpose, r.KeyText(), r.Version)
	t.record = &record.Record{Schema: f.schema, Values: append(slices.Clone(r.Values), record.String(t.id)),
		Version: r.Version}
	if t.url, err = address(f.url, t.record); err != nil {
		return t, err
	}
	t.header = http.Header{"Accept": {"application/json"}}
	for _, name := range slices.Sorted(maps.Keys(f.headers)) {
		value, err := f.headers[name].Append(nil, t.record)
		if err != nil || !validValue(string(value)) {
			return t, fail.New(fail.Permanent, "http.header", "the header %s cannot be made: %w", name, orInvalid(err)).
				WithFix("change headers, or the field by a transform")
		}
		t.header[name] = []string{string(value)}
	}
	t.method, t.message.header = f.method, t.header.Clone()
	h := t.message.header
	h.Set("Content-Type", "application/json")
	h.Set(f.idHeader, t.id)
	for name, value := range map[string]string{"Reprise-Key": r.KeyText(),
		"Reprise-Version": strconv.FormatInt(r.Version, 10), "Reprise-Job": f.run.Job, "Reprise-Run": f.run.ID} {
		if validValue(value) { // a key may hold what a header cannot
			h.Set(name, value)
		}
	}
	t.body, t.records, t.size = f.appendBody(nil, r), 1, int64(r.Size())
	return t, nil
}

func orInvalid(err error) error {
	if err == nil {
		return fmt.Errorf("its value holds what a header cannot")
	}
	return err
}

// address fills an address in.
func address(t *connector.Template, r *record.Record) (string, error) {
	text, err := t.AppendURL(nil, r)
	if err != nil {
		return "", fail.New(fail.Permanent, "http.url", "the address cannot be made: %w", err).
			WithFix("change the address, or the field by a transform")
	}
	return string(text), nil
}

// appendBody appends the JSON object of a record: a field that is unset is left out.
func (f *format) appendBody(b []byte, r *record.Record) []byte {
	b = append(b, '{')
	for i, name := range f.names {
		if v := r.Values[i]; name != nil && v.Kind() != record.Unset {
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			b = v.AppendJSON(append(b, name...), r.Schema.Fields[i].Type)
		}
	}
	return append(b, '}')
}

// idempotencyKey names the trigger of one version of one record for one purpose of a job, whatever run, worker or
// attempt sends it. It has the form of a UUID, since many services ask for one (RFC 9562, version 8).
func idempotencyKey(job, purpose, key string, version int64) string {
	return uuid.NewHash(sha256.New(), uuid.Nil, fmt.Appendf(nil, "%q %q %d %s", job, purpose, version, key), 8).String()
}
