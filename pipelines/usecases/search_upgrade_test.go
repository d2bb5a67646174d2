package usecases_test

import (
	"net/http"
	"strings"
	"testing"

	"reprise/runners/services"
)

// newDocument is one with a field more, in another index.
func newDocument(k key, a asset) document {
	d := oldDocument(k, a)
	d.index, d.fields["format"] = "-2", payload(a).Format
	return d
}

func TestSearchUpgrade(t *testing.T) {
	c := begin(t, "search-upgrade", services.Elasticsearch)
	c.filled("", oldDocument)
	c.start()
	found := c.searching("")
	c.until("reprise cutover job.yaml --to verify")
	c.follow(c.documents(oldDocument), c.documents(newDocument))
	c.until("reprise cutover job.yaml --retire")
	c.follow(c.documents(newDocument))
	c.rest()
	c.end()
	found()
	if text := must(t, http.MethodGet, c.search+"-2/_settings", nil); strings.Contains(string(text),
		"refresh_interval") {
		t.Errorf("the index is left as during the load: %s", text)
	}
	c.exactly(t, "the new index", c.hits("-2"), read(newDocument))
	c.exactly(t, "the alias", c.hits(""), read(newDocument))
}
