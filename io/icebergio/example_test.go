package icebergio_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"reprise/io/connector"
	"reprise/io/icebergio"
	"reprise/transforms/record"
)

func ExampleSource() {
	folder, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(folder)
	ctx := context.Background()
	catalog := icebergio.CatalogConfig{SQLite: filepath.Join(folder, "catalog.db"), Warehouse: folder}

	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "tags", Type: record.SetOf(record.Of(record.Text))}}, "id")
	run := connector.Run{ID: "run-1"}
	sink := icebergio.NewSink(icebergio.SinkConfig{Catalog: catalog, Table: "media.assets", Create: true})
	defer sink.Close()
	if err := sink.Prepare(ctx, run, schema, false); err != nil {
		fmt.Println(err)
		return
	}
	w, err := sink.Open(ctx, run, schema, func([]connector.Result) {})
	if err != nil {
		fmt.Println(err)
		return
	}
	tags := record.Nested(record.Set, []record.Value{record.String("new")})
	_ = w.Write(ctx, &record.Record{Schema: schema, Version: 1, Values: []record.Value{record.String("a"), tags}})
	parts, _ := w.Flush(ctx)
	_ = w.Close()
	_, _ = sink.Commit(ctx, run, schema, parts)

	// The table tells the types and, by its identifier fields, the key.
	source := icebergio.NewSource(icebergio.SourceConfig{Catalog: catalog, Table: "media.assets"}, connector.Need{})
	defer source.Close()
	found, err := source.Schema(ctx)
	fmt.Println(found.KeyNames(), found.Fields[1].Type, err)
	err = source.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		return source.Read(ctx, s, func(p connector.Page) error {
			for _, r := range p.Records {
				fmt.Println(string(r.AppendJSON(nil)), r.Version)
			}
			return nil
		})
	})
	fmt.Println(err)
	// Output:
	// [id] set<text> <nil>
	// {"id":"a","tags":["new"]} 1
	// <nil>
}
