package usecases_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"reprise/runners/services"
)

// feedJob is the live feed of an Iceberg table: it reads the changes of the last moment.
const feedJob = `
name: feed
source:
  files: {path: feed/%d.jsonl, key: [asset_type, bucket, id],
    fields: {asset_type: text, bucket: text, id: timeuuid, title: text, size: bigint, tags: set<text>, format: text}}
sinks:
  lake:
    iceberg: {catalog: {sqlite: data/catalog.db, warehouse: data/warehouse}, table: lake.assets, create: true, mode: upsert}
journal: {sqlite: feed/journal.db}
`

// feed is production that hands its changes to a feed, which carries them into the table in small batches.
type feed struct {
	c       *usecase
	mu      sync.Mutex
	changes []byte
	batches int
	stop    chan struct{}
	feeding sync.WaitGroup
}

func (c *usecase) feed() *feed {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Join(c.dir, "feed"), 0o755); err != nil {
		c.t.Fatal(err)
	}
	return &feed{c: c, stop: make(chan struct{})}
}

// change takes a change in.
func (f *feed) change(k key, _, is *asset, version int64) error {
	line := map[string]any{"asset_type": k.Kind, "bucket": k.Bucket, "id": k.ID.String()}
	op := "delete"
	if is != nil {
		op = "upsert"
		line["title"], line["size"], line["tags"], line["format"] = is.Title, is.Size, is.Tags, payload(*is).Format
	}
	line["_meta"] = map[string]any{"version": version, "op": op}
	text, err := json.Marshal(line)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(append(f.changes, text...), '\n')
	return err
}

// start feeds until end, which feeds the rest.
func (f *feed) start() {
	f.feeding.Go(func() {
		for {
			select {
			case <-f.stop:
				return
			case <-time.After(time.Second):
				f.once()
			}
		}
	})
	f.c.t.Cleanup(f.end)
}

func (f *feed) end() {
	select {
	case <-f.stop:
		return
	default:
		close(f.stop)
	}
	f.feeding.Wait()
	f.once()
	f.c.t.Logf("%d batches fed", f.batches)
}

// once feeds what has been taken in so far.
func (f *feed) once() {
	f.mu.Lock()
	changes := f.changes
	f.changes = nil
	f.mu.Unlock()
	if len(changes) == 0 {
		return
	}
	f.batches++
	dir := filepath.Join(f.c.dir, "feed")
	err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.jsonl", f.batches)), changes, 0o644)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "feed.yaml"), fmt.Appendf(nil, feedJob, f.batches), 0o644)
	}
	if err != nil {
		f.c.t.Error(err)
		return
	}
	if out, err := f.c.command("reprise run feed/feed.yaml"); err != nil {
		f.c.t.Errorf("the feed: %v\n%s", err, out)
	}
}

// lake reads the table with Iceberg's own library.
func (c *usecase) lake(table string) held {
	c.t.Helper()
	h := held{}
	for _, line := range services.ReadIceberg(c.t,
		services.IcebergTable{Catalog: filepath.Join(c.dir, "data", "catalog.db"), Table: table}) {
		var r struct {
			Kind    string `json:"asset_type"`
			Bucket  string `json:"bucket"`
			ID      string `json:"id"`
			Version int64  `json:"_version"`
			fields
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			c.t.Fatalf("%s: %v", line, err)
		}
		h.add(r.Kind+"|"+r.Bucket+"|"+r.ID, "%d %+v", r.Version, r.fields)
	}
	return h
}

func TestIcebergBackfill(t *testing.T) {
	c := begin(t, "iceberg-backfill")
	f := c.feed()
	c.follow(f.change)
	c.start()
	f.once() // the table is there, and holds what has changed since the feed began
	f.start()
	c.rest()
	c.end()
	f.end()
	c.exactly(t, "the lake", c.lake("lake.assets"), func(k key, a asset, version int64) []string {
		if malformed(a) {
			return nil
		}
		return []string{fmt.Sprintf("%d %+v", version, fields{Title: a.Title, Format: payload(a).Format, Size: a.Size,
			Tags: a.Tags})}
	})
}
