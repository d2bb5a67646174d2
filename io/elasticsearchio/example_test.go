package elasticsearchio_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"strings"

	"reprise/io/connector"
	"reprise/io/elasticsearchio"
)

// Settings as they stand in a job file, of which two are wrong.
func ExampleSourceConfig() {
	const settings = `{
		"urls": ["http://10.0.0.9:9200"],
		"index": "assets-*",
		"query": {"term": {"licence": "expired"}},
		"key": ["asset_type", "id"],
		"fields": {"asset_type": "text", "id": "timeuuid"},
		"version": "changed",
		"order": ["_id"]
	}`
	var c elasticsearchio.SourceConfig
	if err := json.NewDecoder(strings.NewReader(settings)).Decode(&c); err != nil {
		log.Fatal(err)
	}
	for _, fault := range c.Validate() {
		fmt.Printf("%s: %s\n", fault.Path, fault.Message)
	}
	// Output:
	// version: no field "changed"; there are asset_type, id
	// order[0]: "_id" has no doc values; name a field such as a keyword, a number or a date
}

// Plan, then read each split; a page's Last is where reading can go on.
func ExampleSource() {
	ctx := context.Background()
	source := elasticsearchio.NewSource(elasticsearchio.SourceConfig{URLs: []string{"http://10.0.0.9:9200"},
		Index: "assets", Key: []string{"id"},
		Query: elasticsearchio.Query(`{"exists": {"field": "title"}}`)}, connector.Need{})
	defer source.Close()
	err := source.Plan(ctx, connector.PlanOptions{Rows: 20_000}, func(split connector.Split) error {
		return source.Read(ctx, split, func(page connector.Page) error {
			for _, r := range page.Records {
				fmt.Println(r.KeyText(), r.Version)
			}
			return nil
		})
	})
	if err != nil {
		log.Fatal(err)
	}
}
