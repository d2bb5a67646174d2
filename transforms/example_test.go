package transforms_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"reprise/transforms"
	"reprise/transforms/record"
)

// slugify is a team's own transform. It stands in the team's own main package, and job files use it by its name.
type slugifyConfig struct {
	Field string `json:"field" jsonschema:"required" jsonschema_description:"The text field."`
}

func init() {
	transforms.Register(transforms.Transform{
		Name:    "slugify",
		Summary: "Makes a text fit for an address.",
		Config:  new(slugifyConfig),
		Example: transforms.Example{
			Config:  "slugify: {field: title}",
			Fields:  []string{"id text", "title text"},
			Records: []string{`{"id": "a", "title": "Sunset over Oslo"}`},
		},
		Compile: compileSlugify,
	})
}

func compileSlugify(
	config json.RawMessage, in *record.Schema, _ transforms.Options,
) (transforms.Step, *record.Schema, error) {
	var c slugifyConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, nil, err
	}
	i := in.Index(c.Field)
	if i < 0 || in.Fields[i].Type.Kind != record.Text {
		return nil, nil, &transforms.FaultError{Path: "field", Message: fmt.Sprintf("%q is not a text field", c.Field)}
	}
	return transforms.Each(func(r *record.Record) error {
		if v := r.Values[i]; !v.IsNull() {
			r.Values[i] = record.String(strings.ReplaceAll(strings.ToLower(v.Str()), " ", "-"))
		}
		return nil
	}), in, nil
}

func ExampleRegister() {
	for _, t := range transforms.All() {
		if t.Name == "slugify" {
			if err := transforms.Describe(os.Stdout, t); err != nil {
				fmt.Println(err)
			}
		}
	}
	// Output:
	// slugify
	//   Makes a text fit for an address.
	//
	// Settings
	//   field (string, required): The text field.
	//
	// Example
	//   slugify: {field: title}
	//
	//   {"id": "a", "title": "Sunset over Oslo"}
	//     title: "Sunset over Oslo" → "sunset-over-oslo"
}

func ExampleCompile() {
	in := record.MustSchema([]record.Field{
		{Name: "id", Type: record.Of(record.Text)},
		{Name: "size", Type: record.Of(record.BigInt)},
	}, "id")
	var specs []transforms.Spec
	if err := json.Unmarshal([]byte(`[{"filter": "size > 10"}, {"derive": {"kb": "size / 1024"}}]`),
		&specs); err != nil {
		fmt.Println(err)
		return
	}
	chain, err := transforms.Compile(specs, in, transforms.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, size := range []record.Value{record.Number(record.BigInt, 4096), record.Number(record.BigInt, 1),
		record.NullValue} {
		r := &record.Record{Schema: in, Values: []record.Value{record.String("a"), size}}
		filtered := chain.Apply(r,
			func(out *record.Record) { fmt.Printf("%s\n", out.AppendJSON(nil)) },
			func(_ *record.Record, step string, err error) { fmt.Printf("dead letter in %s:\n%v\n", step, err) })
		if filtered > 0 {
			fmt.Println("filtered")
		}
	}
	// Output:
	// {"id":"a","size":4096,"kb":4}
	// filtered
	// dead letter in transforms.0.filter:
	// size > 10: no such overload: >; size is null [transform.expression]; test for it: size != null && ...
}
