package httpio_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"reprise/io/connector"
	"reprise/io/httpio"
	"reprise/transforms/record"
)

// A sink triggers a workflow for each record.
func ExampleSink() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.Method == http.MethodPost {
			fmt.Println(r.Method, r.URL.Path, string(body))
			fmt.Println("Idempotency-Key:", r.Header.Get("Idempotency-Key"))
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	defer service.Close()

	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "size", Type: record.Of(record.BigInt)}}, "id")
	sink := httpio.NewSink(httpio.SinkConfig{URL: service.URL + "/thumbnails/{id}"})
	defer sink.Close()
	ctx, run := context.Background(), connector.Run{ID: "20260501-120000-abcdef12", Job: "thumbnails"}
	if err := sink.Prepare(ctx, run, schema, false); err != nil {
		fmt.Println(err)
	}
	w, err := sink.Open(ctx, run, schema, func(results []connector.Result) {
		fmt.Println(results[0].Record.KeyText(), results[0].Outcome)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Close()
	w.Write(ctx, &record.Record{Schema: schema, Version: 1_777_636_800_000_000,
		Values: []record.Value{record.String("a1"), record.Number(record.BigInt, 42)}})
	w.Flush(ctx)
	// Output:
	// POST /thumbnails/a1 {"id":"a1","size":42}
	// Idempotency-Key: 22c9d74a-b818-8ade-9834-10e03225ea1d
	// a1 written
}

// A source finds rows by their keys.
func ExampleSource_Find() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/licences/cc-by" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"holder": "Ada", "seats": 3, "internal": true}`)
	}))
	defer service.Close()

	source := httpio.NewSource(httpio.SourceConfig{URL: service.URL + "/licences/{licence}", Key: []string{"licence"},
		Fields: connector.Fields{
			{Name: "licence", Type: record.Of(record.Text)}, {Name: "holder", Type: record.Of(record.Text)},
			{Name: "seats", Type: record.Of(record.Int)}},
		InFlight: 1}, connector.Need{})
	defer source.Close()
	schema, err := source.Schema(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	var keys []*record.Record
	for _, name := range []string{"cc-by", "none"} {
		keys = append(keys, &record.Record{Schema: schema, Values: []record.Value{record.String(name), {}, {}}})
	}
	err = source.Find(context.Background(), keys, func(i int, p connector.Page) error {
		fmt.Println(keys[i].KeyText(), len(p.Records))
		for _, r := range p.Records {
			fmt.Println(string(r.AppendJSON(nil)))
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// cc-by 1
	// {"licence":"cc-by","holder":"Ada","seats":3}
	// none 0
}
