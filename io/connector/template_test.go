package connector

import (
	"strings"
	"testing"

	"reprise/transforms/record"
)

var templateSchema = record.MustSchema([]record.Field{
	{Name: "asset_type", Type: record.Of(record.Text)},
	{Name: "id", Type: record.Of(record.TimeUUID)},
	{Name: "created", Type: record.Of(record.Timestamp)},
	{Name: "day", Type: record.Of(record.Date)},
	{Name: "size", Type: record.Of(record.BigInt)},
	{Name: "title", Type: record.Of(record.Text)},
}, "asset_type", "id")

func templateRecord(t *testing.T) *record.Record {
	id, err := record.Parse(record.Of(record.TimeUUID), "13814000-1dd2-11b2-8000-000000000000")
	if err != nil {
		t.Fatal(err)
	}
	return &record.Record{Schema: templateSchema, Values: []record.Value{
		record.String("im|age"), id, record.Number(record.Timestamp, 1717171717171), record.Number(record.Date, 19874),
		record.Number(record.BigInt, 42), record.NullValue}}
}

func TestTemplate(t *testing.T) {
	r := templateRecord(t)
	for text, want := range map[string]string{
		"":                              "",
		"assets":                        "assets",
		"{asset_type}":                  "im|age",
		"assets-{created:2006-01}":      "assets-2024-05",
		"{day:2006}/{day:01}":           "2024/05",
		"{id:2006-01-02}":               "1970-01-01",
		"{key}":                         `im\|age|13814000-1dd2-11b2-8000-000000000000`,
		"a{size}b{size}c":               "a42b42c",
		"{{literal}} {size} }}{{":       "{literal} 42 }{",
		"{created}":                     "2024-05-31T16:08:37.171Z",
		"{created:2006-01-02 15:04:05}": "2024-05-31 16:08:37",
	} {
		tmpl, err := ParseTemplate(text, templateSchema)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got, err := tmpl.Append([]byte("+"), r)
		if err != nil || string(got) != "+"+want {
			t.Errorf("%q gives %q (%v), want %q", text, got, err, want)
		}
		if fixed := !strings.Contains(strings.ReplaceAll(text, "{{", ""), "{"); tmpl.Fixed() != fixed {
			t.Errorf("%q: Fixed is %t", text, tmpl.Fixed())
		}
	}
}

// TestAppendURL: whatever a value is, it stays within its part of the address.
func TestAppendURL(t *testing.T) {
	tmpl, err := ParseTemplate("/a/{title}/b?q={title}", templateSchema)
	if err != nil {
		t.Fatal(err)
	}
	r := templateRecord(t)
	for value, want := range map[string]string{"plain-1.~_": "plain-1.~_",
		"a/b?c=d&e#f g+%20": "a%2Fb%3Fc%3Dd%26e%23f%20g%2B%2520", "日": "%E6%97%A5", "...": "..."} {
		r.Values[5] = record.String(value)
		if got, err := tmpl.AppendURL(nil, r); err != nil || string(got) != "/a/"+want+"/b?q="+want {
			t.Errorf("%q gives %s (%v), want %s", value, got, err, want)
		}
	}
	for _, value := range []record.Value{record.NullValue, record.String(""), record.String("."), record.String("..")} {
		r.Values[5] = value
		if got, err := tmpl.AppendURL(nil, r); err == nil {
			t.Errorf("%v gives %s, want an error", value, got)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	for text, want := range map[string]string{
		"{":              "{ without }",
		"a}b":            "} without {",
		"{nope}":         `no field "nope"; there are asset_type, id,`,
		"{size:2006}":    `"size" is a bigint and takes no time layout`,
		"{key:2006}":     "takes no time layout",
		"{asset_type{x}": "no field",
		"{}":             `no field ""`,
	} {
		if _, err := ParseTemplate(text, templateSchema); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
	for _, text := range []string{"{", "a}"} {
		if _, err := ParseTemplate(text, nil); err == nil {
			t.Errorf("%q is accepted without a schema", text)
		}
	}
	if _, err := ParseTemplate("{whatever:2006}", nil); err != nil {
		t.Errorf("without a schema the fields are not known: %v", err)
	}
	tmpl, err := ParseTemplate("{title}", templateSchema)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tmpl.Append(nil, templateRecord(t)); err == nil ||
		!strings.Contains(err.Error(), `"title" has no value`) {
		t.Errorf("a null gives %v", err)
	}
}
