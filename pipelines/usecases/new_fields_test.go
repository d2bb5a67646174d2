package usecases_test

import (
	"testing"

	"reprise/runners/services"
)

// withSize is the old document with the fields that new payloads and old ones have in three forms.
func withSize(k key, a asset) document {
	d, p := oldDocument(k, a), payload(a)
	d.fields["width"], d.fields["height"] = p.Width, p.Height
	return d
}

func TestNewFields(t *testing.T) {
	c := begin(t, "new-fields", services.Elasticsearch)
	c.filled("", oldDocument)
	c.start()
	found := c.searching("")
	c.until("reprise validate")
	c.follow(c.documents(withSize))
	c.rest()
	c.end()
	found()
	c.exactly(t, "the index", c.hits(""), func(k key, a asset, version int64) []string {
		if malformed(a) { // a dead letter: as it was
			return oldDocument(k, a).line(version)
		}
		return withSize(k, a).line(version)
	})
}
