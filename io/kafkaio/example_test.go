package kafkaio_test

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"

	"reprise/io/connector"
	"reprise/io/kafkaio"
	"reprise/transforms/record"
)

func ExampleSource() {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "assets"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Close()
	ctx := context.Background()

	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "size", Type: record.Of(record.Int)}}, "id")
	sink := kafkaio.NewSink(kafkaio.SinkConfig{Brokers: cluster.ListenAddrs(), Topic: "assets"})
	defer sink.Close()
	w, err := sink.Open(ctx, connector.Run{ID: "run-1"}, schema, func([]connector.Result) {})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = w.Write(ctx, &record.Record{Schema: schema, Version: 1,
		Values: []record.Value{record.String("a"), record.Number(record.Int, 3)}})
	_ = w.Write(ctx, &record.Record{Schema: schema, Version: 2,
		Values: []record.Value{record.String("b"), {}}, Op: record.Delete})
	_, _ = w.Flush(ctx)
	_ = w.Close()

	source := kafkaio.NewSource(kafkaio.SourceConfig{Brokers: cluster.ListenAddrs(), Topic: "assets",
		Key: []string{"id"}, Fields: schema.Fields}, connector.Need{})
	defer source.Close()
	err = source.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		return source.Read(ctx, s, func(p connector.Page) error {
			for _, r := range p.Records {
				fmt.Println(s.Partition, r.Op, string(r.AppendJSON(nil)), r.Version)
			}
			return nil
		})
	})
	fmt.Println(err)
	// Output:
	// assets/0 upsert {"id":"a","size":3} 1
	// assets/0 delete {"id":"b"} 2
	// <nil>
}
