package usecases_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// stale puts entries there that do not hold, as a production leaves them that has missed deletes: of assets that there
// are without the tag, and that there are not. It tells how many.
func (c *usecase) stale() (n int) {
	c.t.Helper()
	keys := c.still()
	for range 5 {
		keys = append(keys, c.fresh(rand.New(rand.NewPCG(uint64(len(keys)), 0))))
	}
	for _, k := range keys {
		err := c.session.Query("INSERT INTO "+c.keyspace+".assets_by_tag (tag, asset_type, bucket, id, title) VALUES "+
			"('lost', ?, ?, ?, 'Old') USING TIMESTAMP ?",
			k.Kind, k.Bucket, k.ID, time.Now().Add(-time.Hour).UnixMicro()).Exec()
		if err != nil {
			c.t.Fatal(err)
		}
		n++
	}
	return n
}

func TestReverseIndices(t *testing.T) {
	c := begin(t, "reverse-indices")
	c.start()
	c.until("reprise validate")
	c.follow(c.entries)
	c.until("reprise sample sweep.yaml")
	stale := c.stale()
	c.rest()
	c.end()
	if n := len(c.rowsOf("assets_by_tag", "title")); stale == 0 || n == 0 {
		t.Errorf("%d stale entries of %d: the test shows nothing", stale, n)
	}
	for table, columns := range map[string][]string{"assets_by_tag": {"tag", "title"}, "assets_by_title": {"title"},
		"assets_by_checksum": {"checksum"}} {
		c.exactly(t, table, c.rowsOf(table, columns...), func(_ key, a asset, _ int64) (lines []string) {
			for _, e := range entriesOf(&a) {
				switch {
				case e.table != table:
				case e.column == "tag":
					lines = append(lines, fmt.Sprintf("%s tag=%v title=%s", table, e.value, e.title))
				default:
					lines = append(lines, fmt.Sprintf("%s %s=%v", table, e.column, e.value))
				}
			}
			return lines
		})
	}
}
