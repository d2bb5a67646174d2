package compose_test

import (
	"context"
	"fmt"

	"reprise/io/compose"
	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/record"
)

// The rows of a table whose keys stand in a list, one of which has no row.
func ExampleNewKeys() {
	text := record.Of(record.Text)
	table, list := iotest.NewMemory(), iotest.NewMemory()
	table.Schema = record.MustSchema([]record.Field{{Name: "id", Type: text}, {Name: "title", Type: text}}, "id")
	list.Schema = record.MustSchema([]record.Field{{Name: "id", Type: text}}, "id")
	for id, title := range map[string]string{"a": "Sunset", "b": "Harbour", "c": "Alps"} {
		table.Load(&record.Record{Schema: table.Schema, Version: 1,
			Values: []record.Value{record.String(id), record.String(title)}})
	}
	for _, id := range []string{"a", "c", "x"} {
		list.Load(&record.Record{Schema: list.Schema, Version: 1, Values: []record.Value{record.String(id)}})
	}
	ctx := context.Background()
	source := compose.NewKeys(list.Source(), table.Source().(connector.Finder), compose.MissingDead, "")
	err := source.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		return source.Read(ctx, s, func(p connector.Page) error {
			for _, r := range p.Records {
				fmt.Println(iotest.JSON(r))
			}
			for _, l := range p.Dead {
				fmt.Println(l.Record.KeyText(), l.Code)
			}
			return nil
		})
	})
	fmt.Println(err)
	// Output:
	// {"id":"a","title":"Sunset"}
	// {"id":"c","title":"Alps"}
	// x keys.gone
	// <nil>
}
