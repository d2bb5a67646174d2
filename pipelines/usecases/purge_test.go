package usecases_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"reprise/runners/services"
)

// TestPurge purges assets whose licence has expired from the table, its index by tag and a search, while production
// goes on with all three.
func TestPurge(t *testing.T) {
	c := begin(t, "purge", services.Elasticsearch)
	c.edit("job.yaml", "grace: 720h", "grace: 1ms")
	for _, command := range steps(t, "reverse-indices") {
		if strings.HasPrefix(command, "cqlsh ") {
			c.run(command)
		}
	}
	for k, states := range c.rows {
		if err := c.entries(k, nil, states[0].asset, states[0].version); err != nil {
			t.Fatal(err)
		}
	}
	c.filled("", oldDocument)
	c.follow(c.documents(oldDocument), c.entries)
	c.start()
	for i := range c.left {
		c.left[i] = strings.ReplaceAll(c.left[i], "RUN", "last")
	}
	began := time.Now()
	c.until("reprise purge job.yaml --purge")
	if out := c.next(); !strings.Contains(out, "would be deleted") {
		t.Errorf("the dry run says\n%s", out)
	}
	c.rest()
	c.halt()

	rows, documents, tags := c.table(), c.hits("-1"), c.rowsOf("assets_by_tag", "tag", "title")
	gone, kept := 0, 0
	for k, states := range c.rows {
		last := states[len(states)-1]
		expired := last.asset != nil && !last.Licence.Expires.IsZero() && last.Licence.Expires.Before(began)
		if expired && last.acked.After(began) {
			continue // it may not have been marked, or was changed while it was deleted
		}
		there := last.asset != nil && !expired
		row, found := rows[k]
		if found != there || there && !same(*row.asset, *last.asset) {
			t.Fatalf("%s, expired %v: the table has %+v (%v), should have %+v", k, expired, row.asset, found,
				last.asset)
		}
		var wantDocument, wantTags []string
		if there {
			wantDocument = oldDocument(k, *last.asset).line(last.version)
			for _, tag := range last.Tags {
				wantTags = append(wantTags, fmt.Sprintf("assets_by_tag tag=%s title=%s", tag, last.Title))
			}
			kept++
		} else if expired {
			gone++
		}
		if has := documents[k.String()]; !slices.Equal(has, wantDocument) {
			t.Fatalf("%s, expired %v: the search has %q, should have %q", k, expired, has, wantDocument)
		}
		if has := tags[k.String()]; !slices.Equal(sorted(has), sorted(wantTags)) {
			t.Fatalf("%s, expired %v: the index by tag has %q, should have %q", k, expired, has, wantTags)
		}
	}
	t.Logf("%d purged, %d kept", gone, kept)
	if gone == 0 || kept == 0 {
		t.Error("the test shows nothing")
	}
}
