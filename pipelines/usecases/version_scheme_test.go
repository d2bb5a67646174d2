package usecases_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"
)

// version is an asset's version by the new scheme.
func version(a asset) (major, minor int) {
	return 1 + int(a.Schema)/3, int(a.Schema) % 3 / 2
}

// versions is production that writes both layouts.
func (c *usecase) versions(k key, was, is *asset, at int64) error {
	batch := c.session.NewBatch(gocql.LoggedBatch)
	if was != nil {
		major, minor := version(*was)
		if is == nil || was.Schema != is.Schema {
			batch.Query("DELETE FROM "+c.keyspace+".asset_versions USING TIMESTAMP ?"+whereKey+" AND version_major = "+
				"? AND version_minor = ?",
				at, k.Kind, k.Bucket, k.ID, major, minor)
		}
	}
	if is != nil {
		major, minor := version(*is)
		batch.Query("INSERT INTO "+c.keyspace+".asset_versions (asset_type, bucket, id, version_major, version_minor, "+
			"title, payload) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
			k.Kind, k.Bucket, k.ID, major, minor, is.Title, is.Payload, at)
		batch.Query("UPDATE "+c.keyspace+".assets USING TIMESTAMP ? SET version_major = ?, version_minor = ?"+whereKey,
			at, major, minor, k.Kind, k.Bucket, k.ID)
	}
	return c.session.ExecuteBatch(batch)
}

// reading reads assets that nobody changes, as old and as new programs do, until it is told to end: both see what there
// is, all the time.
func (c *usecase) reading() (end func()) {
	c.t.Helper()
	keys := c.still()
	ctx, cancel := context.WithCancel(c.t.Context())
	var working sync.WaitGroup
	old, fresh := 0, 0
	working.Go(func() {
		r := rand.New(rand.NewPCG(3, 4))
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			k := keys[r.IntN(len(keys))]
			want := *c.last(k).asset
			var a asset
			at := []any{k.Kind, k.Bucket, k.ID}
			err := c.session.Query("SELECT title, payload, schema_version FROM "+c.keyspace+".assets"+whereKey,
				at...).Scan(&a.Title, &a.Payload, &a.Schema)
			if err != nil || a.Title != want.Title || a.Payload != want.Payload || a.Schema != want.Schema {
				c.t.Errorf("the old query finds %+v for %s, %v", a, k, err)
				return
			}
			old++
			var major, minor int
			err = c.session.Query("SELECT version_major, version_minor, title, payload "+
				"FROM "+c.keyspace+".asset_versions"+whereKey, at...).Scan(&major, &minor, &a.Title, &a.Payload)
			wantMajor, wantMinor := version(want)
			switch {
			case errors.Is(err, gocql.ErrNotFound): // the old table has it
			case err != nil || major != wantMajor || minor != wantMinor || a.Title != want.Title ||
				a.Payload != want.Payload:
				c.t.Errorf("the new query finds %d.%d, %+v for %s, %v", major, minor, a, k, err)
				return
			default:
				fresh++
			}
		}
	})
	end = sync.OnceFunc(func() {
		cancel()
		working.Wait()
		c.t.Logf("%d old reads, %d new ones found in the new table", old, fresh)
	})
	c.t.Cleanup(end)
	return end
}

func TestVersionScheme(t *testing.T) {
	c := begin(t, "version-scheme")
	c.start()
	c.until("reprise validate")
	c.follow(c.versions)
	found := c.reading()
	c.rest()
	c.end()
	found()
	c.exactly(t, "the new columns", c.rowsOf("assets", "title", "version_major", "version_minor"),
		func(k key, a asset, _ int64) []string {
			major, minor := version(a)
			return []string{fmt.Sprintf("assets title=%s version_major=%d version_minor=%d", a.Title, major, minor)}
		})
	c.exactly(t, "the new table", c.rowsOf("asset_versions", "version_major", "version_minor", "title", "payload"),
		func(k key, a asset, _ int64) []string {
			major, minor := version(a)
			return []string{fmt.Sprintf("asset_versions version_major=%d version_minor=%d title=%s payload=%s", major,
				minor, a.Title, a.Payload)}
		})
}
