package elasticsearchio

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"reprise/runners/services"
)

// server is an independent client: plain HTTP, nothing of this package.
type server struct {
	t   *testing.T
	url string
}

// call sends a request; body may be nil, text, or anything that becomes JSON. It gives the status and the answer.
func (s server) call(method, path string, body any) (int, []byte) {
	s.t.Helper()
	var content []byte
	switch b := body.(type) {
	case nil:
	case string:
		content = []byte(b)
	default:
		var err error
		if content, err = json.Marshal(b); err != nil {
			s.t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, text
}

// must is call for requests that succeed.
func (s server) must(method, path string, body any) []byte {
	s.t.Helper()
	status, text := s.call(method, path, body)
	if status >= 300 {
		s.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return text
}

// get is must into a value.
func (s server) get(path string, into any) {
	s.t.Helper()
	if err := json.Unmarshal(s.must("GET", path, nil), into); err != nil {
		s.t.Fatal(err)
	}
}

// documents are the sources of an index's documents by id.
func (s server) documents(index string) map[string]string {
	s.t.Helper()
	s.must("POST", "/"+index+"/_refresh", nil)
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string          `json:"_id"`
				Source json.RawMessage `json:"_source"`
			}
		}
	}
	s.get("/"+index+"/_search?size=10000", &found)
	docs := map[string]string{}
	for _, h := range found.Hits.Hits {
		docs[h.ID] = string(h.Source)
	}
	return docs
}

// count is the number of an index's documents as the server counts them.
func (s server) count(index string) int {
	s.t.Helper()
	s.must("POST", "/"+index+"/_refresh", nil)
	var counted struct{ Count int }
	s.get("/"+index+"/_count", &counted)
	return counted.Count
}

// index gives a name that is free, and removes the index at the end.
func (s server) index(name string) string {
	s.t.Cleanup(func() { s.call("DELETE", "/"+name, nil) })
	return name
}

// servers are the kinds of servers that indices are read from and written to.
var servers = []services.Service{services.Elasticsearch, services.OpenSearch}

// shared is the server that all tests share.
func shared(t *testing.T) server { return sharedOf(t, services.Elasticsearch) }

func sharedOf(t *testing.T, service services.Service) server {
	t.Helper()
	return server{t, "http://" + services.Need(t, service)}
}

// name gives a name that nothing else has.
func name(t *testing.T) string { return services.Name(t) }
