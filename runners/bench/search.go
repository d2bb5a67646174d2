package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"
	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/elasticsearchio"
	"reprise/pipelines/job"
)

// search measures Cassandra to Elasticsearch: a job without transforms, from the start of its process to its end,
// against a loop by hand. Each writes to a fresh index with the same mapping, and sends bodies of 5 MiB, four at once.
func (b *bench) search(ctx context.Context) error {
	u, err := url.Parse(b.Elasticsearch)
	if err != nil {
		return err
	}
	client, err := elastictransport.NewClient(elastictransport.WithURLs(u),
		elastictransport.WithTransport(&http.Transport{MaxIdleConnsPerHost: inFlight}))
	if err != nil {
		return err
	}
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	return b.eachSize(func(keyspace string, rounds int) error {
		return b.searchOf(ctx, client, session, keyspace, rounds)
	})
}

func (b *bench) searchOf(ctx context.Context, client *elastictransport.Client, session *gocql.Session, keyspace string,
	rounds int) error {
	var rows int64
	all, err := turns(rounds,
		side{"Elasticsearch: loop", b.intoIndex(ctx, client, "loop", func(index string) (time.Duration, error) {
			return timed(func() error {
				return searchByHand(ctx, plainLoop{session, keyspace, true}, client, index)
			})(0)
		})},
		side{"Elasticsearch: Reprise", b.intoIndex(ctx, client, "job", func(index string) (time.Duration, error) {
			f, err := b.reprise(ctx, &job.Job{Name: "bench-search", Source: connector.From(b.source(keyspace)),
				Sinks: map[string]job.Sink{"search": {SinkSpec: connector.To(b.index(index))}}})
			rows = f.report.Read
			return f.took, err
		})})
	if err != nil {
		return err
	}
	b.report.add(line{fmt.Sprintf("Cassandra to Elasticsearch, %d rows, with the start of the process", rows),
		all[1].String(), "gocql and bulk loop: " + all[0].String(),
		ratio(all[0], all[1]), atLeast(0.9)})
	return nil
}

func (b *bench) index(name string) *elasticsearchio.SinkConfig {
	return &elasticsearchio.SinkConfig{URLs: []string{b.Elasticsearch}, Index: name,
		Exclude: []string{"thumbnail", "embedding"}, Create: &elasticsearchio.Create{}}
}

// intoIndex makes an index for a run, and deletes it afterwards.
func (b *bench) intoIndex(ctx context.Context, client *elastictransport.Client, kind string,
	run func(index string) (time.Duration, error)) func(int) (time.Duration, error) {
	return func(round int) (took time.Duration, err error) {
		index := fmt.Sprintf("reprise-bench-%s-%d-%d", kind, time.Now().UnixMilli(), round)
		source := cassandraio.NewSource(*b.source(skewed), connector.Need{})
		defer source.Close()
		schema, err := source.Schema(ctx)
		if err != nil {
			return 0, err
		}
		sink := elasticsearchio.NewSink(*b.index(index))
		defer sink.Close()
		if err := sink.Prepare(ctx, connector.Run{}, schema, false); err != nil {
			return 0, err
		}
		defer func() {
			res, e := esapi.IndicesDeleteRequest{Index: []string{index}}.Do(context.WithoutCancel(ctx), client)
			if e == nil {
				e = res.Body.Close()
			}
			err = errors.Join(err, e)
		}()
		return run(index)
	}
}

const (
	bodySize = 5 << 20
	inFlight = 4
)

// searchByHand is the loop: each reader fills a body of its own, which is sent while it fills the next one.
func searchByHand(ctx context.Context, from plainLoop, client *elastictransport.Client, index string) error {
	free := make(chan *bytes.Buffer, readers+inFlight) // bounds the memory
	for range cap(free) {
		free <- bytes.NewBuffer(make([]byte, 0, bodySize+bodySize/4))
	}
	senders, ctx := errgroup.WithContext(ctx)
	senders.SetLimit(inFlight)
	send := func(body *bytes.Buffer) {
		senders.Go(func() error {
			defer func() { body.Reset(); free <- body }()
			return sendBulk(ctx, client, index, body.Bytes())
		})
	}
	bodies := make([]*bytes.Buffer, readers)
	err := from.read(ctx, func(reader int) func(*asset) error {
		bodies[reader] = <-free
		var number []byte
		return func(a *asset) error {
			body := bodies[reader]
			body.WriteString(`{"index":{"_id":"`)
			body.WriteString(a.Type + "|" + a.Bucket + "|" + a.ID.String())
			body.WriteString(`","version":`)
			number = strconv.AppendInt(number[:0], max(1, a.version()), 10)
			body.Write(number)
			body.WriteString(`,"version_type":"external_gte"}}` + "\n")
			encoder := json.NewEncoder(body)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(a); err != nil {
				return err
			}
			if body.Len() >= bodySize {
				send(body)
				bodies[reader] = <-free
			}
			return ctx.Err()
		}
	})
	for _, body := range bodies {
		if body != nil && body.Len() > 0 && err == nil {
			send(body)
		}
	}
	return errors.Join(err, senders.Wait())
}

// sendBulk looks at each item's outcome, as one must.
func sendBulk(ctx context.Context, client *elastictransport.Client, index string, body []byte) error {
	res, err := esapi.BulkRequest{Index: index, Body: bytes.NewReader(body),
		FilterPath: []string{"errors", "items.*.status", "items.*.error"}}.Do(ctx, client)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.IsError() {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("bulk: %s: %s", res.Status(), text)
	}
	var reply struct {
		Items []map[string]struct {
			Status int             `json:"status"`
			Error  json.RawMessage `json:"error"`
		} `json:"items"`
	}
	if err := json.NewDecoder(res.Body).Decode(&reply); err != nil {
		return err
	}
	for _, item := range reply.Items {
		if i := item["index"]; i.Status >= 300 {
			return fmt.Errorf("bulk: a document was refused: %d %s", i.Status, i.Error)
		}
	}
	return nil
}
