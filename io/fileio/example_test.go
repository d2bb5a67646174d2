package fileio_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"reprise/io/connector"
	"reprise/io/fileio"
)

func ExampleSource() {
	folder, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "assets.jsonl")
	_ = os.WriteFile(path, []byte(`{"id": "a", "size": 3, "tags": ["new"]}
{"id": "b", "size": "three"}
`), 0o644)

	ctx := context.Background()
	source := fileio.NewSource(fileio.SourceConfig{Path: filepath.Join(folder, "*.jsonl"), Key: []string{"id"}},
		connector.Need{})
	schema, err := source.Schema(ctx)
	fmt.Println(schema, err != nil)

	var c fileio.SourceConfig
	c.Path, c.Key = path, []string{"id"}
	_ = c.Fields.UnmarshalJSON([]byte(`{"id": "text", "size": "bigint", "tags": "set<text>"}`))
	source = fileio.NewSource(c, connector.Need{})
	_ = source.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		return source.Read(ctx, s, func(p connector.Page) error {
			for _, r := range p.Records {
				fmt.Println("record:", string(r.AppendJSON(nil)))
			}
			for _, l := range p.Dead {
				fmt.Println("dead letter:", l.Code, string(l.Raw[:len(l.Raw)-1]))
			}
			return nil
		})
	})
	// Output:
	// <nil> true
	// record: {"id":"a","size":3,"tags":["new"]}
	// dead letter: files.wrong_type {"id": "b", "size": "three"}
}
