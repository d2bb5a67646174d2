package usecases_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"reprise/runners/services"
)

// byType is a document in the index of its type.
func byType(k key, a asset) document {
	d := oldDocument(k, a)
	d.index, d.routing = "-type-"+k.Kind, k.Bucket
	return d
}

func TestSharding(t *testing.T) {
	c := begin(t, "sharding", services.Elasticsearch)
	c.filled("", oldDocument)
	c.start()
	found := c.searching("")
	c.until("reprise validate")
	c.follow(c.documents(oldDocument), c.documents(byType))
	c.until("reprise run")
	c.stopped()
	c.rest()
	c.follow(c.documents(byType))
	c.end()
	found()
	is := func(k key, a asset, version int64) []string { return byType(k, a).line(version) }
	c.exactly(t, "the indices", c.hits("-type-*"), is)
	c.exactly(t, "the alias", c.hits(""), is)
	var settings map[string]struct {
		Settings struct {
			Index struct {
				Shards string `json:"number_of_shards"`
			}
		}
	}
	if err := json.Unmarshal(must(t, http.MethodGet, c.search+"-type-*/_settings", nil), &settings); err != nil ||
		len(settings) != 4 {
		t.Errorf("indices %v, %v", settings, err)
	}
	for name, s := range settings {
		if s.Settings.Index.Shards != "2" {
			t.Errorf("%s has %s shards", name, s.Settings.Index.Shards)
		}
	}
}
