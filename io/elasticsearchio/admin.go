package elasticsearchio

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"reprise/transforms/fail"
)

// Admin looks at indices and aliases of a cluster, and changes them.
type Admin struct {
	client *client
	url    string // one of the cluster's, for people
}

// NewAdmin is for the cluster that a sink writes to. It resolves the login's secrets and does not connect.
func NewAdmin(c SinkConfig) (*Admin, error) { return newAdmin(c.access()) }

// NewReplacedAdmin is NewAdmin for the other cluster, which the sink's settings must name in Replaces.
func NewReplacedAdmin(c SinkConfig) (*Admin, error) { return newAdmin(c.replaced()) }

func newAdmin(a access) (*Admin, error) {
	client, err := newClient(a)
	if err != nil {
		return nil, err
	}
	return &Admin{client, strings.TrimSuffix(a.urls[0], "/")}, nil
}

// URL is the address of an index or alias, for people.
func (a *Admin) URL(name string) string { return a.url + "/" + name }

// Close closes the connections.
func (a *Admin) Close() { a.client.close() }

// IndexInfo is what an index is like.
type IndexInfo struct {
	Name    string
	UUID    string                     // another index of the same name has another one
	Aliases map[string]json.RawMessage // that point to it, with their filters, routing and the like
	Job     string                     // that made it; "": no run did
	Run     string
	Loading string          // the run whose settings for loading it has; "": none
	Refresh bool            // it shows what is written, by and by
	Cutover json.RawMessage // as Remember has left it
}

// Index looks at one index; nil: there is none.
func (a *Admin) Index(ctx context.Context, name string) (*IndexInfo, error) {
	found, err := a.client.indices(ctx, name)
	if err != nil {
		return nil, err
	}
	idx, ok := found[name]
	switch {
	case ok:
	case len(found) > 0:
		return nil, fail.Job("elasticsearch.is_alias", "%q is an alias of %s, not an index", name,
			strings.Join(slices.Sorted(maps.Keys(found)), ", ")).
			WithFix("name a new index")
	default:
		return nil, nil
	}
	n, err := idx.notes()
	if err != nil {
		return nil, err
	}
	info := &IndexInfo{Name: name, UUID: idx.setting("index.uuid"),
		Aliases: map[string]json.RawMessage{}, Job: n.Job, Run: n.Run,
		Refresh: idx.setting(settingRefresh) != "-1", Cutover: n.Cutover}
	for name, is := range idx.Aliases {
		if info.Aliases[name], err = json.Marshal(is); err != nil {
			return nil, err
		}
	}
	if n.Load != nil {
		info.Loading = n.Load.Run
	}
	return info, nil
}

// Aliased tells which index an alias points to; "": there is no such alias. An alias that points to several, and one
// that is itself an index, are errors: it could not be moved in one step.
func (a *Admin) Aliased(ctx context.Context, name string) (string, error) {
	found, err := a.client.indices(ctx, name)
	if err != nil || len(found) == 0 {
		return "", err
	}
	indices := slices.Sorted(maps.Keys(found))
	switch {
	case found[name].Settings != nil:
		return "", fail.Job("cutover.alias_is_index", "%q is an index, not an alias", name).
			WithFix("let searches use an alias first, which points to this index (POST _aliases, add), then set " +
				"alias to that")
	case len(indices) > 1:
		return "", fail.Job("cutover.alias_of_many", "the alias %q points to %d indices: %s", name, len(indices),
			strings.Join(indices, ", ")).
			WithFix("leave it on the one that is to be replaced (POST _aliases, remove), or move one alias for each")
	case found[indices[0]].DataStream != "":
		return "", fail.Job("elasticsearch.data_stream",
			"%q is a data stream, which takes no versions and no changes", name)
	}
	return indices[0], nil
}

// Behind looks at the one index that a name stands for, be it the index's own or an alias; nil: there is no such name.
func (a *Admin) Behind(ctx context.Context, name string) (*IndexInfo, error) {
	found, err := a.client.indices(ctx, name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	indices := slices.Sorted(maps.Keys(found))
	if len(indices) > 1 {
		return nil, fail.Job("cutover.alias_of_many", "the alias %q at %s points to %d indices: %s", name, a.url,
			len(indices), strings.Join(indices, ", ")).
			WithFix("name the one index that is replaced, or replace one alias for each")
	}
	return a.Index(ctx, indices[0])
}

// Remember notes the state of a cut-over in an index.
func (a *Admin) Remember(ctx context.Context, index string, state json.RawMessage) error {
	return a.client.note(ctx, index, func(n *notes) { n.Cutover = state })
}

// Swap moves an alias from one index to another in one step; from "": it is new; to "": it is removed. like are its
// filter, routing and the like, as IndexInfo has them; nil: none. It fails where the alias does not point to from any
// more.
func (a *Admin) Swap(ctx context.Context, name, from, to string, like json.RawMessage) error {
	type action map[string]any
	var actions []map[string]action
	if from != "" {
		actions = append(actions, map[string]action{"remove": {"index": from, "alias": name, "must_exist": true}})
	}
	if to != "" {
		add := action{}
		if like != nil {
			if err := json.Unmarshal(like, &add); err != nil {
				return err
			}
		}
		add["index"], add["alias"] = to, name
		actions = append(actions, map[string]action{"add": add})
	}
	body, err := json.Marshal(map[string]any{"actions": actions})
	if err != nil {
		return err
	}
	var reply struct{}
	status, err := a.client.do(ctx, esapi.IndicesUpdateAliasesRequest{Body: bytes.NewReader(body)}, &reply)
	if status == http.StatusNotFound {
		return fail.Job("cutover.moved", "the alias %q does not point to %s any more, or the index is gone: %w", name,
			from, err).WithFix("look who moved it")
	}
	return err
}

// Count is the number of documents that searches of a name find.
func (a *Admin) Count(ctx context.Context, name string) (int64, error) {
	return a.client.count(ctx, name)
}

// Refresh makes what was written visible.
func (a *Admin) Refresh(ctx context.Context, name string) error {
	var reply struct{}
	_, err := a.client.do(ctx, esapi.IndicesRefreshRequest{Index: []string{name}}, &reply)
	return err
}

// Search looks whether a search of a name is answered in whole, and gives the number of documents that it finds.
// query is its body.
func (a *Admin) Search(ctx context.Context, name string, query []byte) (int64, error) {
	var reply struct {
		TimedOut bool `json:"timed_out"`
		Shards   struct {
			Failed, Total int
		} `json:"_shards"`
		Hits struct {
			Total struct{ Value int64 }
		}
	}
	request := esapi.SearchRequest{Index: []string{name}, Body: bytes.NewReader(query), TrackTotalHits: true}
	if _, err := a.client.do(ctx, request, &reply); err != nil {
		return 0, err
	}
	if reply.TimedOut || reply.Shards.Failed > 0 {
		return 0, fmt.Errorf("the search of %s timed out (%v), or failed on %d of %d shards", name, reply.TimedOut,
			reply.Shards.Failed, reply.Shards.Total)
	}
	return reply.Hits.Total.Value, nil
}

// Searches is the number of searches of an index's shards since they were started; it is not for anything but to see
// whether more have come.
func (a *Admin) Searches(ctx context.Context, index string) (int64, error) {
	var reply struct {
		All struct {
			Total struct {
				Search struct {
					Queries int64 `json:"query_total"`
				}
			}
		} `json:"_all"`
	}
	_, err := a.client.do(ctx, esapi.IndicesStatsRequest{Index: []string{index}, Metric: []string{"search"}}, &reply)
	return reply.All.Total.Search.Queries, err
}

// Health is 2 where all copies of an index's shards are there (green), 1 where all shards are (yellow), 0 else, and
// the number of copies that are being made.
func (a *Admin) Health(ctx context.Context, index string) (health, made int, err error) {
	var reply struct {
		Status       string `json:"status"`
		Initializing int    `json:"initializing_shards"`
	}
	_, err = a.client.do(ctx, esapi.ClusterHealthRequest{Index: []string{index}}, &reply)
	return map[string]int{"green": 2, "yellow": 1}[reply.Status], reply.Initializing, err
}

// Delete deletes an index.
func (a *Admin) Delete(ctx context.Context, index string) error {
	var reply struct{}
	_, err := a.client.do(ctx, esapi.IndicesDeleteRequest{Index: []string{index}}, &reply)
	return err
}
