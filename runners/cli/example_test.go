package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"reprise/runners/cli"
	_ "reprise/runners/systems"
	"reprise/transforms"
	"reprise/transforms/record"
)

// shelfConfig are the settings of a team's own transform; the schema of job files has them, too.
type shelfConfig struct {
	Field string    `json:"field" jsonschema:"required" jsonschema_description:"The text field."`
	Moved time.Time `json:"moved" jsonschema:"required" jsonschema_description:"From then on shelves have their new names."`
}

// A team's own main package imports the systems it needs, registers its transforms and calls cli.Main:
//
//	func main() { os.Exit(cli.Main(os.Args[1:])) }
func init() {
	transforms.Register(transforms.Transform{
		Name:    "shelf",
		Summary: "Sets shelf to the first letter of a text.",
		Config:  new(shelfConfig),
		Compile: compileShelf,
	})
}

// compileShelf is called once for each worker. What it finds wrong is told before anything is read.
func compileShelf(
	config json.RawMessage, in *record.Schema, o transforms.Options,
) (transforms.Step, *record.Schema, error) {
	var c shelfConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, nil, err
	}
	from := in.Index(c.Field)
	if from < 0 || in.Fields[from].Type.Kind != record.Text {
		return nil, nil, &transforms.FaultError{Path: "field", Message: fmt.Sprintf("%q is not a text field", c.Field)}
	}
	out, err := record.NewSchema(append(slices.Clone(in.Fields),
		record.Field{Name: "shelf", Type: record.Of(record.Text)}), in.KeyNames()...)
	if err != nil {
		return nil, nil, err
	}
	prefix := "old-"
	if o.Now.After(c.Moved) { // not time.Now: workers and retries must not differ
		prefix = "new-"
	}
	return transforms.Each(func(r *record.Record) error {
		title := r.Values[from]
		if title.IsNull() || title.Str() == "" {
			return fmt.Errorf("%s is empty", c.Field) // a dead letter
		}
		r.Schema = out
		r.Values = append(r.Values, record.String(prefix+title.Str()[:1]))
		return nil
	}), out, nil
}

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			fmt.Println(err)
		}
		return path
	}
	assets := file("assets.jsonl", `{"id": "a", "title": "Sunset"}`+"\n"+`{"id": "b", "title": ""}`+"\n")
	job := file("job.yaml", `
name: shelves
source:
  files: {path: `+assets+`, key: [id]}
transforms:
  - shelf: {field: title, moved: 2020-01-01T00:00:00Z}
sinks:
  copy:
    files: {path: `+dir+`/copy}
`)
	cli.Main([]string{"transforms", "shelf"})
	cli.Main([]string{"sample", job})
	// Output:
	// shelf
	//   Sets shelf to the first letter of a text.
	//
	// Settings
	//   field (string, required): The text field.
	//   moved (string, required): From then on shelves have their new names.
	// a
	//   1 shelf: + shelf: "new-S"
	// b
	//   1 shelf: dead letter: title is empty [transform.failed]
	// 2 records; nothing was written
}
