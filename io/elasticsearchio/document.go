package elasticsearchio

import (
	"fmt"
	"slices"
	"strings"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// documents turns documents into records.
type documents struct {
	schema   *record.Schema
	includes []string // the fields that are asked for; none of those about documents
	version  int      // the field with the version; -1: the document's own
	max      int      // bytes of a document
}

// wantedSource is what requests ask for of the _source.
func (d documents) wantedSource() any {
	if len(d.includes) == 0 {
		return false
	}
	return d.includes
}

// add adds a document to a page, as a record or a dead letter.
func (d documents) add(p *connector.Page, h hit, origin record.Origin) {
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

// record makes a document a record. Elasticsearch makes no difference between a value and a list of one: where a list or a set is
// wanted a single value is one of one element.
func (d documents) record(h hit) (*record.Record, *fail.Error) {
	if h.tooLarge || len(h.source) > d.max {
		return nil, fail.New(fail.Permanent, "elasticsearch.too_large", "it has more than %s", connector.Bytes(d.max)).
			WithFix("raise max_document, or name fewer fields")
	}
	r := &record.Record{Schema: d.schema, Values: make([]record.Value, len(d.schema.Fields)), Version: h.version}
	d.meta(r, h)
	if h.source == "" && len(d.includes) > 0 {
		return nil, fail.New(fail.Permanent, "elasticsearch.no_source", "the server keeps no _source of it")
	}
	err := record.JSONParts(orDefault(h.source, "{}"), func(name, value string) error {
		i := d.schema.Index(name)
		if i < 0 || isMeta(name) {
			return nil
		}
		t := d.schema.Fields[i].Type
		if (t.Kind == record.List || t.Kind == record.Set) && value[0] != '[' && value[0] != 'n' {
			value = "[" + value + "]"
		}
		v, err := record.FromJSON(t, value)
		if err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
		r.Values[i] = v
		return nil
	})
	if err != nil {
		return nil, fail.New(fail.Permanent, "elasticsearch.decode", "%w", err).WithFix("correct the document, or the field's type in fields")
	}
	for _, k := range d.schema.Key {
		if r.Values[k].IsNull() {
			return nil, fail.New(fail.Permanent, "elasticsearch.no_key", "the key field %s has no value", d.schema.Fields[k].Name)
		}
	}
	if d.version >= 0 {
		if r.Values[d.version].IsNull() {
			return nil, fail.New(fail.Permanent, "elasticsearch.no_version", "the version field %s has no value", d.schema.Fields[d.version].Name)
		}
		r.Version = connector.Version(r.Values[d.version])
	}
	return r, nil
}

// key is a record of a document's key alone; nil where it cannot be told.
func (d documents) key(h hit) *record.Record {
	r := &record.Record{Schema: d.schema, Values: make([]record.Value, len(d.schema.Fields)), Version: h.version}
	d.meta(r, h)
	_ = record.JSONParts(orDefault(h.source, "{}"), func(name, value string) error {
		if i := d.schema.Index(name); slices.Contains(d.schema.Key, i) && !isMeta(name) {
			r.Values[i], _ = record.FromJSON(d.schema.Fields[i].Type, value)
		}
		return nil
	})
	if !r.HasKey() {
		return nil
	}
	return r
}

// meta sets the fields about the document.
func (d documents) meta(r *record.Record, h hit) {
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
	return &record.DeadLetter{Raw: []byte(h.source[:min(len(h.source), most)]), Class: err.Class.String(), Code: err.Code,
		Message: strings.ToValidUTF8(told.Error(), "?"), Attempts: 1}
}
