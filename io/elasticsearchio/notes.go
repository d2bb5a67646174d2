package elasticsearchio

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// notes are what is remembered of an index in its own mapping, as _meta.reprise: any process that reaches the index
// finds them, they are part of snapshots, and they go when the index does, so that they never speak of another index
// of the same name.
type notes struct {
	Job     string          `json:"job,omitempty"` // that made the index
	Run     string          `json:"run,omitempty"`
	Load    *loaded         `json:"load,omitempty"`
	Cutover json.RawMessage `json:"cutover,omitempty"` // as package cutover has it
}

const notesName = "reprise"

// madeBy are the notes of an index that a run makes.
func madeBy(run connector.Run) notes { return notes{Job: run.Job, Run: run.ID} }

// notes are those of an index; none where it has no such notes.
func (i index) notes() (n notes, err error) {
	text := i.Mappings.Meta[notesName]
	if text == nil {
		return n, nil
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return n, fail.Job("elasticsearch.notes", "_meta.%s of the index is none of ours: %w", notesName, err).
			WithFix("remove it from the index's mapping")
	}
	return n, nil
}

// into adds the notes to a mapping in the form of a job file.
func (n notes) into(mappings map[string]any) map[string]any {
	mappings = maps.Clone(mappings)
	meta, _ := mappings["_meta"].(map[string]any)
	if meta = maps.Clone(meta); meta == nil {
		meta = map[string]any{}
	}
	meta[notesName], mappings["_meta"] = n, meta
	return mappings
}

// note changes the notes of an index; other parts of _meta stay. The server has no means to change them only if
// nobody else has: whoever depends on them reads them again.
func (c *client) note(ctx context.Context, name string, change func(*notes)) error {
	idx, err := c.index(ctx, name)
	if err != nil {
		return err
	}
	n, err := idx.notes()
	if err != nil {
		return err
	}
	change(&n)
	meta := maps.Clone(idx.Mappings.Meta)
	if meta == nil {
		meta = map[string]json.RawMessage{}
	}
	if meta[notesName], err = json.Marshal(n); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"_meta": meta})
	if err != nil {
		return err
	}
	var reply struct{}
	_, err = c.do(ctx, esapi.IndicesPutMappingRequest{Index: []string{name}, Body: bytes.NewReader(body)}, &reply)
	return err
}

// index is one concrete index.
func (c *client) index(ctx context.Context, name string) (index, error) {
	found, err := c.indices(ctx, name)
	if err != nil {
		return index{}, err
	}
	if idx, ok := found[name]; ok && len(found) == 1 {
		return idx, nil
	}
	return index{}, fail.Job("elasticsearch.index_missing", "there is no index %q", name)
}

// change changes settings of an index; nil is the server's default.
func (c *client) change(ctx context.Context, name string, settings map[string]*string) error {
	body, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	var reply struct{}
	_, err = c.do(ctx, esapi.IndicesPutSettingsRequest{Index: []string{name}, Body: bytes.NewReader(body)}, &reply)
	return err
}
