package elasticsearchio

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// documents turns documents into records.
type documents struct {
	schema   *record.Schema
	includes []string // the fields that are asked for; none of those about documents
	whole    bool     // everything is asked for
	version  int      // the field with the version; -1: the document's own
	max      int      // bytes of a document
	rest     int      // the field for what has no other; -1: there is none
	unnamed  reading  // what becomes of what has no field
	cut      bool     // times lose what is below milliseconds, as on the server

	mu     sync.Mutex
	shapes map[string]shapes // by index
}

// shapes are those of the documents of an index, whole and of the key alone.
type shapes struct{ all, key shape }

// know makes the shapes of an index.
func (d *documents) know(name string, mapping *property) (err error) {
	var s shapes
	fields := d.schema.Fields
	about := func(i int) bool { return isMeta(fields[i].Name) || i == d.rest }
	if s.all, err = newShape(fields, about, mapping, d.cut); err == nil {
		other := func(i int) bool { return about(i) || !slices.Contains(d.schema.Key, i) }
		s.key, err = newShape(fields, other, mapping, d.cut)
	}
	if err != nil {
		return fail.Job("elasticsearch.fields", "the index %q: field %w", name, err).
			WithFix("name another type of it in fields, or other fields")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shapes[name] = s
	return nil
}

// known gives the shapes of an index.
func (d *documents) known(name string) (s shapes, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok = d.shapes[name]
	return s, ok
}

// wantedSource is what requests ask for of the _source.
func (d *documents) wantedSource() any {
	switch {
	case d.whole:
		return true
	case len(d.includes) == 0:
		return false
	}
	return d.includes
}

// add adds a document to a page, as a record or a dead letter.
func (d *documents) add(p *connector.Page, h hit, origin record.Origin) {
	r, err := d.record(h)
	if err != nil {
		letter := deadDocument(h, err)
		if letter.Record = d.key(h); letter.Record != nil {
			letter.Record.Origin = origin
		}
		p.Dead = append(p.Dead, letter)
		p.Bytes += int64(len(letter.Raw))
		return
	}
	r.Origin = origin
	p.Records = append(p.Records, r)
	p.Bytes += int64(max(r.Size(), len(h.source))) // texts lie in the source
}

// record makes a document a record.
func (d *documents) record(h hit) (*record.Record, *fail.Error) {
	if h.tooLarge || len(h.source) > d.max {
		return nil, fail.New(fail.Permanent, "elasticsearch.too_large", "it has more than %s", connector.Bytes(d.max)).
			WithFix("raise max_document, or name fewer fields")
	}
	r := &record.Record{Schema: d.schema, Values: make([]record.Value, len(d.schema.Fields)), Version: h.version}
	d.meta(r, h)
	if h.source == "" && (d.whole || len(d.includes) > 0) {
		return nil, fail.New(fail.Permanent, "elasticsearch.no_source", "the server keeps no _source of it")
	}
	s, ok := d.known(h.index)
	if !ok {
		return nil, fail.New(fail.Permanent, "elasticsearch.index_missing",
			"its index was not there when reading began").
			WithFix("start a new run")
	}
	rest, err := s.all.object(orDefault(h.source, "{}"), r.Values, d.unnamed, false)
	var other noPlace
	switch {
	case d.unnamed == refuse && errors.As(err, &other):
		return nil, fail.New(fail.Permanent, "elasticsearch.unmapped",
			"it holds what the mapping does not have: %w", err).
			WithFix("read it as well: name the fields, and %s, which holds all others as JSON, in fields", restName)
	case err != nil:
		return nil, fail.New(fail.Permanent, "elasticsearch.decode", "field %w", err).
			WithFix("correct the document, or the field's type in fields")
	case rest != "":
		var b []byte
		if b, err = appendCanonical(nil, rest); err != nil {
			return nil, fail.New(fail.Permanent, "elasticsearch.decode", "%w", err).WithFix("correct the document")
		}
		r.Values[d.rest] = record.String(string(b))
	}
	for _, k := range d.schema.Key {
		if r.Values[k].IsNull() {
			return nil, fail.New(fail.Permanent, "elasticsearch.no_key", "the key field %s has no value",
				d.schema.Fields[k].Name)
		}
	}
	if d.version >= 0 {
		if r.Values[d.version].IsNull() {
			return nil, fail.New(fail.Permanent, "elasticsearch.no_version", "the version field %s has no value",
				d.schema.Fields[d.version].Name)
		}
		r.Version = connector.Version(r.Values[d.version])
	}
	return r, nil
}

// key is a record of a document's key alone; nil where it cannot be told.
func (d *documents) key(h hit) *record.Record {
	r := &record.Record{Schema: d.schema, Values: make([]record.Value, len(d.schema.Fields)), Version: h.version}
	d.meta(r, h)
	s, _ := d.known(h.index)
	_, _ = s.key.object(orDefault(h.source, "{}"), r.Values, passOver, false)
	if !r.HasKey() {
		return nil
	}
	return r
}

// meta sets the fields about the document.
func (d *documents) meta(r *record.Record, h hit) {
	for i, f := range d.schema.Fields {
		switch f.Name {
		case "_id":
			r.Values[i] = record.String(h.id)
		case "_index":
			r.Values[i] = record.String(h.index)
		case "_routing":
			if h.routing != "" {
				r.Values[i] = record.String(h.routing)
			}
		}
	}
}

// deadDocument is the dead letter of a document that is no record.
func deadDocument(h hit, err *fail.Error) *record.DeadLetter {
	const most = 1 << 20
	told := *err
	told.Message = fmt.Sprintf("document %q of %s: %s", h.id, h.index, err.Message)
	return &record.DeadLetter{Raw: []byte(h.source[:min(len(h.source), most)]),
		Class: err.Class.String(), Code: err.Code,
		Message: strings.ToValidUTF8(told.Error(), "?"), Attempts: 1}
}
