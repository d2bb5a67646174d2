package advise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"reprise/runners/services"
)

func TestIndices(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		name    string
		sample  []Document
		each    float64
		asked   int
		shards  []int
		reasons []string
	}{
		{"small", []Document{{"a", "", 1000}}, 1000, 0, []int{1}, []string{"one shard holds"}},
		{"large", []Document{{"a", "", 1e6}}, 100 * gib / 1e6, 2, []int{4}, []string{"4 shards of about 25.0 GiB",
			"asks for 2 shards, of about 50.0 GiB"}},
		{"many documents", []Document{{"a", "", 1e9}}, 10, 0, []int{5}, []string{"more than 200 million documents"}},
		{"types", []Document{{"a", "", 90}, {"b", "", 2}, {"c", "", 1}}, 0.4 * gib, 0, []int{2, 1, 1},
			[]string{"2 of 3 indices are below 1 GB", "20 times"}},
		{"even routing", []Document{{"a", "x", 10}, {"a", "y", 10}, {"a", "z", 10}}, gib / 2, 0, []int{1},
			[]string{"routing is even enough"}},
		{"one tenant", []Document{{"a", "x", 90}, {"a", "y", 10}}, gib, 0, []int{4}, []string{"routing is uneven", `"x" alone has 90 %`, "routing_partition_size"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all, general := Indices(test.sample, test.each, test.asked)
			var shards []int
			text := strings.Join(general, "\n")
			for _, i := range all {
				shards = append(shards, i.Shards)
				text += "\n" + strings.Join(i.Reasons, "\n")
			}
			if fmt.Sprint(shards) != fmt.Sprint(test.shards) {
				t.Errorf("%v shards, want %v", shards, test.shards)
			}
			for _, r := range test.reasons {
				if !strings.Contains(text, r) {
					t.Errorf("%q is not in: %s", r, text)
				}
			}
		})
	}
}

// TestShard asks a real server where it puts routing values.
func TestShard(t *testing.T) {
	es := "http://" + services.Need(t, services.Elasticsearch)
	call := func(method, path, body string) []byte {
		t.Helper()
		req, err := http.NewRequest(method, es+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode >= 300 {
			t.Fatalf("%s: %v", text, err)
		}
		return text
	}
	for _, shards := range []int{1, 3, 8} {
		index := services.Name(t)
		call(http.MethodPut, "/"+index, fmt.Sprintf(`{"settings":{"number_of_shards":%d,"number_of_replicas":0}}`, shards))
		defer call(http.MethodDelete, "/"+index, "")
		for n := range 12 {
			value := strings.Repeat("wert-äß", n) + fmt.Sprint(n)
			var found struct {
				Shards [][]struct{ Shard int }
			}
			if err := json.Unmarshal(call(http.MethodGet, "/"+index+"/_search_shards?routing="+url.QueryEscape(value),
				""), &found); err != nil {
				t.Fatal(err)
			}
			if got := Shard(value, shards); got != found.Shards[0][0].Shard {
				t.Errorf("of %d shards %q goes to %d, the server says %d", shards, value, got, found.Shards[0][0].Shard)
			}
		}
	}
}
