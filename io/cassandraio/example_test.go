package cassandraio_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"strings"

	"reprise/io/cassandraio"
	"reprise/io/connector"
)

// Settings as they stand in a job file, of which two are wrong.
func ExampleSourceConfig() {
	const settings = `{
		"connection": {"hosts": ["10.0.0.1"], "local_dc": "analytics", "user": "reprise"},
		"keyspace": "media",
		"table": "assets",
		"buckets": {"range": {"column": "month", "from": "2024-01", "to": "2023-12", "every": "month", "values": {"asset_type": ["image", "video"]}}}
	}`
	var c cassandraio.SourceConfig
	if err := json.NewDecoder(strings.NewReader(settings)).Decode(&c); err != nil {
		log.Fatal(err)
	}
	for _, fault := range c.Validate() {
		fmt.Printf("%s: %s\n", fault.Path, fault.Message)
	}
	// Output:
	// connection.user: user and password belong together
	// buckets.range.to: the range ends before it begins
}

// Plan, then read each split; a page's Last is where reading can go on.
func ExampleSource() {
	ctx := context.Background()
	source := cassandraio.NewSource(cassandraio.SourceConfig{
		Connection: cassandraio.Connection{Hosts: []string{"10.0.0.1"}},
		Keyspace:   "media", Table: "assets",
		Buckets:    &cassandraio.Buckets{Discover: true},
		Partitions: map[string]cassandraio.Match{"asset_type": {Values: []cassandraio.Scalar{"image"}}},
		IDs:        &cassandraio.Interval{From: "2024-05-01", To: "2024-06-01"},
	}, connector.Need{})
	defer source.Close()
	err := source.Plan(ctx, connector.PlanOptions{Rows: 20_000}, func(split connector.Split) error {
		return source.Read(ctx, split, func(page connector.Page) error {
			for _, r := range page.Records {
				fmt.Println(r.KeyText(), r.VersionTime())
			}
			return nil
		})
	})
	if err != nil {
		log.Fatal(err)
	}
}
