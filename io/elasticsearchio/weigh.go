package elasticsearchio

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Weighed is what a sample of records is like as documents of the sink.
type Weighed struct {
	Documents int            // that the index took
	Refused   map[string]int // records by the code of why not
	JSON      int64          // bytes of the documents as they are sent
	Disk      int64          // bytes of one copy of an index with just them, merged to one segment
	Places    []Place        // of each record
	Shards    int            // that the settings ask for; 0: they do not say
}

// Place is where a record goes. Index "": nowhere, since it is a delete or has no place.
type Place struct{ Index, Routing string }

// weighing begins the names of indices that Weigh makes.
const weighing = "reprise-weighing-"

// Weigh writes a sample into an index of its own, with the sink's mappings and settings, one shard and no replicas,
// and deletes that index. It writes nothing else.
func (s *Sink) Weigh(ctx context.Context, schema *record.Schema, sample []*record.Record) (w *Weighed, err error) {
	format, err := newFormat(s.config, schema)
	if err != nil {
		return nil, err
	}
	fields, err := documentFields(s.config, schema)
	if err != nil {
		return nil, err
	}
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	own := s.config
	own.Index, own.Alias, own.Load, own.Refresh = weighing+strings.ToLower(rand.Text()), "", nil, ""
	create := Create{}
	if own.Create != nil {
		create = *own.Create
	}
	flat := map[string]any{}
	flatten(flat, "", create.Settings)
	w = &Weighed{Refused: map[string]int{}, Places: make([]Place, len(sample))}
	fmt.Sscan(fmt.Sprint(flat["index.number_of_shards"]), &w.Shards)
	for _, key := range []string{"number_of_routing_shards", "routing_partition_size", "auto_expand_replicas"} {
		delete(flat, "index."+key)
	}
	maps.Copy(flat, map[string]any{"index.number_of_shards": 1, settingReplicas: 0, settingRefresh: "-1"})
	create.Settings = flat
	own.Create = &create
	temporary := NewSink(own)
	defer temporary.Close()
	body, err := temporary.body(ctx, c, connector.Run{Job: "advise"}, fields)
	if err != nil {
		return nil, err
	}
	if err := c.create(ctx, own.Index, body); err != nil {
		return nil, err
	}
	defer func() {
		var reply struct{}
		if _, e := c.do(context.WithoutCancel(ctx),
			esapi.IndicesDeleteRequest{Index: []string{own.Index}}, &reply); e != nil {
			slog.Warn("a temporary index is left behind: delete it", "index", own.Index, "error", e)
		}
	}()

	var mu sync.Mutex
	out, err := temporary.Open(ctx, connector.Run{}, schema, func(results []connector.Result) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range results {
			if r.Err != nil {
				w.Refused[fail.CodeOf(r.Err)]++
			}
		}
	})
	if err != nil {
		return nil, err
	}
	defer out.Close()
	var line []byte
	for i, r := range sample {
		if r.Op == record.Delete {
			continue
		}
		place := Place{Index: s.config.Index}
		if format.index != nil {
			name, err := format.index.Append(nil, r)
			if err != nil || !isIndexName(string(name)) {
				w.Refused["elasticsearch.index_name"]++
				continue
			}
			place.Index = string(name)
		}
		if format.routing != nil {
			value, err := format.routing.Append(nil, r)
			if err == nil {
				place.Routing = string(value)
			}
		}
		w.Places[i] = place
		if line, err = format.append(line[:0], r); err == nil {
			w.JSON += int64(len(line))
		}
		if err := out.Write(ctx, r); err != nil {
			return nil, err
		}
	}
	if _, err := out.Flush(ctx); err != nil {
		return nil, err
	}
	one := 1
	var reply struct{}
	if _, err := c.do(ctx, esapi.IndicesRefreshRequest{Index: []string{own.Index}}, &reply); err != nil {
		return nil, err
	}
	if _, err := c.do(ctx, esapi.IndicesForcemergeRequest{Index: []string{own.Index}, MaxNumSegments: &one},
		&reply); err != nil {
		return nil, err
	}
	size, err := c.size(ctx, own.Index)
	w.Documents, w.Disk = int(size.Documents), size.Bytes
	return w, err
}

// flatten writes settings as the server names them: index.number_of_shards.
func flatten(into map[string]any, path string, settings map[string]any) {
	for key, v := range settings {
		if nested, ok := v.(map[string]any); ok {
			flatten(into, path+key+".", nested)
			continue
		}
		name := path + key
		if !strings.HasPrefix(name, "index.") {
			name = "index." + name
		}
		into[name] = v
	}
}

// Size is what the index behind a name, or all of them, takes, without replicas.
type Size struct {
	Documents, Bytes int64
	Shards           int
}

// Size is that of an index or alias; zero where there is none.
func (s *Sink) Size(ctx context.Context, name string) (Size, error) {
	c, err := s.connect()
	if err != nil {
		return Size{}, err
	}
	if found, err := c.indices(ctx, name); err != nil || len(found) == 0 {
		return Size{}, err
	}
	return c.size(ctx, name)
}

func (c *client) size(ctx context.Context, name string) (Size, error) {
	var reply struct {
		All struct {
			Primaries struct {
				Docs  struct{ Count int64 }
				Store struct {
					Bytes int64 `json:"size_in_bytes"`
				}
			}
		} `json:"_all"`
		Indices map[string]struct {
			Shards map[string]json.RawMessage
		}
	}
	level := "shards"
	_, err := c.do(ctx, esapi.IndicesStatsRequest{Index: []string{name},
		Metric: []string{"docs", "store"}, Level: level}, &reply)
	size := Size{Documents: reply.All.Primaries.Docs.Count, Bytes: reply.All.Primaries.Store.Bytes}
	for _, i := range reply.Indices {
		size.Shards += len(i.Shards)
	}
	return size, err
}
