package elasticsearchio

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"reprise/transforms/fail"
)

// Servers are told apart by what they say, also where the login may not ask for their version.
func TestProducts(t *testing.T) {
	for _, c := range []struct {
		status                       int
		header, distribution, number string
		openSearch                   bool
		needs                        string // "": it will do
	}{
		{200, "Elasticsearch", "", "7.16.3", false, "Elasticsearch 7.17 or newer"},
		{200, "Elasticsearch", "", "7.17.0", false, ""},
		{200, "", "", "9.4.3", false, ""},
		{200, "", "opensearch", "1.3.20", true, "OpenSearch 2.7 or newer"},
		{200, "", "opensearch", "2.6.0", true, "OpenSearch 2.7 or newer"},
		{200, "", "opensearch", "2.7.0", true, ""},
		{200, "", "opensearch", "3.0.0-beta1", true, ""},
		{200, "", "", "new", false, "Elasticsearch 7.17 or newer"},
		{403, "Elasticsearch", "", "", false, ""},
		{403, "", "", "", true, ""},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c.header != "" {
				w.Header().Set("X-Elastic-Product", c.header)
			}
			w.WriteHeader(c.status)
			if c.status == http.StatusOK {
				fmt.Fprintf(w, `{"version":{"distribution":%q,"number":%q}}`, c.distribution, c.number)
			}
		}))
		client, err := newClient(access{urls: []string{server.URL}, timeout: time.Minute, connectTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		p, err := client.product(t.Context())
		if err != nil || p.openSearch != c.openSearch {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
		if err := client.check(t.Context()); c.needs == "" && err != nil {
			t.Errorf("%+v: %v", c, err)
		} else if c.needs != "" && (fail.CodeOf(err) != "elasticsearch.server_version" ||
			!strings.Contains(err.Error(), c.needs)) {
			t.Errorf("%+v: %v", c, err)
		}
		client.close()
		server.Close()
	}
}
