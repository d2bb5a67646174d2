package elasticsearchio

import (
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Address is where a document lies.
type Address struct {
	Index   string // "": any of the indices that are read
	ID      string
	Routing string // "": by its id
}

// Addresses gives where the document of a record belongs by the templates index, id and routing. A scan gives all
// documents with the fields of a key, also under other ids and in other indices: with _id, _index and _routing among
// the fields each record tells where its own lies. Find gives only what lies where it belongs.
func (c SourceConfig) Addresses(schema *record.Schema) (func(*record.Record) (Address, error), error) {
	var index, id, routing *connector.Template
	for _, t := range []struct {
		path, text string
		to         **connector.Template
	}{{"index", c.Index, &index}, {"id", c.idTemplate(), &id}, {"routing", c.Routing, &routing}} {
		var err error
		if *t.to, err = connector.ParseTemplate(t.text, schema); err != nil {
			return nil, fail.Job("elasticsearch.template", "%s: %w", t.path, err)
		}
	}
	return func(r *record.Record) (a Address, err error) {
		for _, t := range []struct {
			template *connector.Template
			to       *string
		}{{index, &a.Index}, {id, &a.ID}, {routing, &a.Routing}} {
			text, err := t.template.Append(nil, r)
			if err != nil {
				return a, err
			}
			*t.to = string(text)
		}
		if index.Fixed() {
			a.Index = ""
		}
		return a, nil
	}, nil
}
