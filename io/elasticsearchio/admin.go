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
}

// NewAdmin resolves the login's secrets; it does not connect.
func NewAdmin(c SinkConfig) (*Admin, error) {
	client, err := newClient(c.access())
	if err != nil {
		return nil, err
	}
	return &Admin{client}, nil
}

// Close closes the connections.
func (a *Admin) Close() { a.client.close() }

// IndexInfo is what an index is like.
type IndexInfo struct {
	Name    string
	UUID    string   // another index of the same name has another one
	Aliases []string // that point to it
	Job     string   // that made it; "": no run did
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
		return nil, fail.Job("elasticsearch.is_alias", "%q is an alias of %s, not an index", name, strings.Join(slices.Sorted(maps.Keys(found)), ", ")).
			WithFix("name a new index")
	default:
		return nil, nil
	}
	n, err := idx.notes()
	if err != nil {
		return nil, err
	}
	info := &IndexInfo{Name: name, UUID: idx.setting("index.uuid"), Aliases: slices.Sorted(maps.Keys(idx.Aliases)), Job: n.Job, Run: n.Run,
		Refresh: idx.setting(settingRefresh) != "-1", Cutover: n.Cutover}
	if n.Load != nil {
		info.Loading = n.Load.Run
	}
	return info, nil
}

// Aliased tells which index an alias points to; "": there is no such alias. An alias that points to several, and one that is itself an index, are
// errors: it could not be moved in one step.
func (a *Admin) Aliased(ctx context.Context, name string) (string, error) {
	found, err := a.client.indices(ctx, name)
	if err != nil || len(found) == 0 {
		return "", err
	}
	indices := slices.Sorted(maps.Keys(found))
	switch {
	case found[name].Settings != nil:
		return "", fail.Job("cutover.alias_is_index", "%q is an index, not an alias", name).
			WithFix("let searches use an alias first, which points to this index (POST _aliases, add), then set alias to that")
	case len(indices) > 1:
		return "", fail.Job("cutover.alias_of_many", "the alias %q points to %d indices: %s", name, len(indices), strings.Join(indices, ", ")).
			WithFix("leave it on the one that is to be replaced (POST _aliases, remove), or move one alias for each")
	case found[indices[0]].DataStream != "":
		return "", fail.Job("elasticsearch.data_stream", "%q is a data stream, which takes no versions and no changes", name)
	}
	return indices[0], nil
}

// Remember notes the state of a cut-over in an index.
func (a *Admin) Remember(ctx context.Context, index string, state json.RawMessage) error {
	return a.client.note(ctx, index, func(n *notes) { n.Cutover = state })
}

// Swap moves an alias from one index to another, with its filter, routing and the like, in one step; from "": it is new. It fails where the
// alias does not point to from any more.
func (a *Admin) Swap(ctx context.Context, name, from, to string) error {
	type action map[string]any
	var actions []map[string]action
	add := action{"index": to, "alias": name}
	if from != "" {
		was, err := a.client.index(ctx, from)
		if err != nil {
			return err
		}
		carried, err := json.Marshal(was.Aliases[name])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(carried, &add); err != nil {
			return err
		}
		actions = append(actions, map[string]action{"remove": {"index": from, "alias": name, "must_exist": true}})
	}
	body, err := json.Marshal(map[string]any{"actions": append(actions, map[string]action{"add": add})})
	if err != nil {
		return err
	}
	var reply struct{}
	status, err := a.client.do(ctx, esapi.IndicesUpdateAliasesRequest{Body: bytes.NewReader(body)}, &reply)
	if status == http.StatusNotFound {
		return fail.Job("cutover.moved", "the alias %q does not point to %s any more, or the index is gone: %w", name, from, err).WithFix("look who moved it")
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

// Search looks whether a search of a name is answered in whole, and gives the number of documents that it finds. query is its body.
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
		return 0, fmt.Errorf("the search of %s timed out (%v), or failed on %d of %d shards", name, reply.TimedOut, reply.Shards.Failed, reply.Shards.Total)
	}
	return reply.Hits.Total.Value, nil
}

// Health is 2 where all copies of an index's shards are there (green), 1 where all shards are (yellow), 0 else, and the number of copies that are being made.
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
