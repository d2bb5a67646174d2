package usecases_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"reprise/runners/services"
)

// refused runs a command that must end with exit code 2 and say why.
func (c *usecase) refused(command string, says ...string) {
	c.t.Helper()
	out, err := c.try(command + "; test $? = 2")
	if err != nil {
		c.t.Errorf("%s is not refused: %v\n%s", command, err, out)
	}
	for _, text := range says {
		if !strings.Contains(out, c.names.Replace(text)) {
			c.t.Errorf("%s: the message does not say %q:\n%s", command, text, out)
		}
	}
}

// edit replaces a text in a job file of the folder.
func (c *usecase) edit(file, old, with string) {
	c.t.Helper()
	path := filepath.Join(c.dir, file)
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), c.names.Replace(old)) {
		c.t.Fatalf("%s has no %q: %v", file, old, err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), c.names.Replace(old), c.names.Replace(with))),
		0o644); err != nil {
		c.t.Fatal(err)
	}
}

// TestBadTargets runs jobs whose targets are not what they should be: each is refused before anything is written.
func TestBadTargets(t *testing.T) {
	c := begin(t, "new-fields", services.Elasticsearch)
	alias := map[string]any{"aliases": map[string]any{c.search[strings.LastIndex(c.search, "/")+1:]: map[string]any{}}}
	must(t, http.MethodPut, c.search+"-a", alias)
	must(t, http.MethodPut, c.search+"-b", alias)
	c.refused("reprise run job.yaml", `the alias "asset-search" points to 2 indices and none is its write index`,
		"set is_write_index")
	if h := c.hits(""); len(h) > 0 {
		t.Errorf("%d documents were written", len(h))
	}

	// An index of other documents.
	must(t, http.MethodPut, c.search+"-2",
		map[string]any{"mappings": map[string]any{"properties": map[string]any{"size": map[string]any{"type": "ip"}}}})
	must(t, http.MethodPut, c.search+"-2/_doc/other?refresh=true", map[string]any{"size": "10.0.0.1"})
	c.refused("reprise run ../search-upgrade/job.yaml",
		`the index "asset-search-2", which no run has made, already holds 1 documents`)
	must(t, http.MethodGet, c.search+"-2/_doc/other", nil)

	// A table with another key, and one with other types.
	c.run(`cqlsh -e "CREATE TABLE media.assets_by_tag (tag text, id timeuuid, place text, title text, PRIMARY KEY ((tag, place), id)); \
		CREATE TABLE media.assets_by_title (title blob, asset_type text, bucket text, id timeuuid, PRIMARY KEY (title, id)); \
		INSERT INTO media.assets_by_tag (tag, place, id, title) VALUES ('night', 'Wien', ` + "now()" + `, 'Other')"`)
	c.refused("reprise run ../reverse-indices/job.yaml", `column "place" belongs to the key and no field goes to it`,
		`field "title" is text, column "title" is blob`,
		"there is no table media.assets_by_checksum")
	if n := len(c.rowsOf("assets_by_title", "title")); n > 0 {
		t.Errorf("%d rows were written", n)
	}
}

// TestNothingMatches runs a job whose source matches nothing: it ends well and says so, and writes nothing.
func TestNothingMatches(t *testing.T) {
	c := begin(t, "search-upgrade", services.Elasticsearch)
	c.edit("job.yaml", "buckets: {table: asset_buckets}",
		"buckets: {table: asset_buckets}\n    partitions: {asset_type: [hologram]}")
	out := c.run("reprise run job.yaml")
	if !strings.Contains(out, "0 rows of 0 splits") {
		t.Errorf("it says\n%s", out)
	}
	t.Log(out)
	if h := c.hits("-2"); len(h) > 0 {
		t.Errorf("%d documents were written", len(h))
	}
}
