package transforms

import (
	"slices"
	"unicode/utf8"

	"reprise/transforms/record"
)

// TruncateConfig names fields and how long they may be.
type TruncateConfig struct {
	Fields []string `json:"fields" jsonschema:"required,minItems=1" jsonschema_description:"The fields, of type text or blob."`
	Chars  int      `json:"chars,omitempty" jsonschema:"minimum=0" jsonschema_description:"At most this many characters (code points) of a text. Default: any number."`
	Bytes  int      `json:"bytes,omitempty" jsonschema:"minimum=0" jsonschema_description:"At most this many bytes; a text is cut between characters. Elasticsearch takes 32766 in a keyword. Default: any number."`
}

var truncate = builtin(Transform{
	Name:    "truncate",
	Summary: "Cuts texts and blobs that are too long, texts between characters.",
	Config:  new(TruncateConfig),
	Example: Example{
		Config:  "truncate: {fields: [title], chars: 6}",
		Fields:  []string{"id text", "title text"},
		Records: []string{`{"id": "a", "title": "Sunset over Oslo"}`, `{"id": "b", "title": "Dawn"}`},
	},
	Compile: compileWith(compileTruncate),
})

func compileTruncate(c TruncateConfig, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	var f faults
	places := f.fields(in, "fields", c.Fields)
	for _, p := range places {
		switch field := in.Fields[p]; {
		case slices.Contains(in.Key, p):
			f.addf("fields", "%q is part of the key, where different records would become one", field.Name)
		case field.Type.Kind == record.Blob && c.Bytes == 0:
			f.addf("bytes", "%q is a blob and needs a number of bytes", field.Name)
		case field.Type.Kind != record.Text && field.Type.Kind != record.Blob:
			f.addf("fields", "%q is a %s; a text or blob is needed", field.Name, field.Type)
		}
	}
	if c.Chars <= 0 && c.Bytes <= 0 || c.Chars < 0 || c.Bytes < 0 {
		f.addf("", "chars or bytes is needed, above 0")
	}
	return Each(func(r *record.Record) error {
		for _, p := range places {
			switch v := r.Values[p]; v.Kind() {
			case record.Text:
				if short := cut(v.Str(), c.Chars, c.Bytes); len(short) < len(v.Str()) {
					r.Values[p] = record.String(short)
				}
			case record.Blob:
				if len(v.Str()) > c.Bytes {
					r.Values[p] = record.Bytes(record.Blob, v.Str()[:c.Bytes])
				}
			}
		}
		return nil
	}), in, f.err()
}

// cut is the longest beginning of s within both limits; 0 is none.
func cut(s string, chars, bytes int) string {
	if bytes > 0 && len(s) > bytes {
		end := bytes
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	if chars > 0 && len(s) > chars {
		n := 0
		for i := range s {
			if n == chars {
				return s[:i]
			}
			n++
		}
	}
	return s
}
