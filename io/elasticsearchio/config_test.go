package elasticsearchio

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
)

func TestValidate(t *testing.T) {
	good := SinkConfig{URLs: []string{"http://localhost:9200"}, Index: "assets"}
	cases := []struct {
		name   string
		change func(c *SinkConfig)
		want   []string // paths of the faults
	}{
		{"least", func(c *SinkConfig) {}, nil},
		{"everything", func(c *SinkConfig) {
			*c = SinkConfig{URLs: []string{"https://a:9200/es", "https://b:9200"}, User: "u", Password: "env:P",
				TLS:   &connector.TLS{CA: "ca.pem"},
				Index: "assets", ID: "{id}", Routing: "{tenant}",
				Create:  &Create{Mappings: map[string]any{"dynamic": false}},
				Exclude: []string{"raw"}, Batch: Batch{Bytes: 1 << 20, Rows: 10, InFlight: 2},
				Gzip: true, Refresh: "wait_for"}
		}, nil},
		{"index by record", func(c *SinkConfig) { c.Index = "assets-{asset_type}-{created:2006-01}" }, nil},
		{"no address", func(c *SinkConfig) { c.URLs = nil }, []string{"urls"}},
		{"address without scheme", func(c *SinkConfig) { c.URLs = []string{"localhost:9200"} }, []string{"urls"}},
		{"login in the address", func(c *SinkConfig) { c.URLs = []string{"http://u:p@localhost:9200"} },
			[]string{"urls"}},
		{"query in the address", func(c *SinkConfig) { c.URLs = []string{"http://localhost:9200?pretty"} },
			[]string{"urls"}},
		{"user without password", func(c *SinkConfig) { c.User = "u" }, []string{"user"}},
		{"two logins", func(c *SinkConfig) { c.User, c.Password, c.APIKey = "u", "env:P", "env:K" },
			[]string{"api_key"}},
		{"no index", func(c *SinkConfig) { c.Index = "" }, []string{"index"}},
		{"wildcard", func(c *SinkConfig) { c.Index = "assets-*" }, []string{"index"}},
		{"capitals", func(c *SinkConfig) { c.Index = "Assets" }, []string{"index"}},
		{"broken template", func(c *SinkConfig) { c.ID = "{id" }, []string{"id"}},
		{"create many", func(c *SinkConfig) { c.Index, c.Create = "assets-{asset_type}", &Create{} }, nil},
		{"load", func(c *SinkConfig) { c.Load = &Load{Refresh: "off", Replicas: new(int), Existing: true} }, nil},
		{"load nothing", func(c *SinkConfig) { c.Load = &Load{} }, []string{"load"}},
		{"load whatever is there", func(c *SinkConfig) {
			c.Index, c.Load = "assets-{asset_type}",
				&Load{Refresh: "off", Existing: true}
		}, []string{"load.existing"}},
		{"no file", func(c *SinkConfig) { c.Create = &Create{File: "/nowhere/index.json"} }, []string{"create.file"}},
		{"file and mappings",
			func(c *SinkConfig) { c.Create = &Create{File: "testdata/index.json", Settings: map[string]any{"a": 1}} },
			[]string{"create.file"}},
		{"fields both ways", func(c *SinkConfig) { c.Fields, c.Exclude = []string{"a"}, []string{"b"} },
			[]string{"exclude"}},
		{"no mapping", func(c *SinkConfig) { c.Create = &Create{Mappings: map[string]any{"properties": "all"}} },
			[]string{"create.mappings"}},
		{"negative", func(c *SinkConfig) { c.Batch.Rows = -1 }, []string{"batch"}},
		{"huge bodies", func(c *SinkConfig) { c.Batch.Bytes = 1 << 30 }, []string{"batch.bytes"}},
		{"refresh", func(c *SinkConfig) { c.Refresh = "yes" }, []string{"refresh"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config := good
			c.change(&config)
			var got []string
			for _, f := range config.Validate() {
				got = append(got, f.Path)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff, config.Validate())
			}
		})
	}
}

func TestValidateSource(t *testing.T) {
	for _, c := range []struct {
		name, settings string
		want           []string // paths of the faults
	}{
		{"least", `{"urls":["http://a:9200"],"index":"assets","key":["id"]}`, nil},
		{"everything", `{"urls":["https://a:9200"],"api_key":"env:K","index":"assets-{asset_type}-{created:2006}","query":{"term":{"n":9007199254740993}},"key":["_id"],
			"fields":{"_id":"text","n":"bigint"},"only_keys":true,"version":"_version","order":["n"],"id":"{_id}","routing":"{n}","refresh":true,"page":"2MiB",
			"max_document":"1MiB","keep_alive":"5m","gzip":true,"timeout":"5s","connect_timeout":"1s","retry_for":"10s"}`, nil},
		{"pattern", `{"urls":["http://a:9200"],"index":"assets-*","key":["id"]}`, nil},
		{"nothing", `{}`, []string{"urls", "index", "key"}},
		{"several", `{"urls":["http://a:9200"],"index":"a,b","key":["id"]}`, []string{"index"}},
		{"capitals", `{"urls":["http://a:9200"],"index":"Assets","key":["id"]}`, []string{"index"}},
		{"no such key", `{"urls":["http://a:9200"],"index":"a","key":["id"],"fields":{"n":"bigint"}}`,
			[]string{"key[0]"}},
		{"version", `{"urls":["http://a:9200"],"index":"a","key":["id"],"fields":{"id":"text"},"version":"at"}`,
			[]string{"version"}},
		{"id as a number", `{"urls":["http://a:9200"],"index":"a","key":["_id"],"fields":{"_id":"bigint"}}`,
			[]string{"fields._id"}},
		{"order by id", `{"urls":["http://a:9200"],"index":"a","key":["id"],"order":["_id","n","n"]}`,
			[]string{"order[0]", "order[2]"}},
		{"template", `{"urls":["http://a:9200"],"index":"a","key":["id"],"id":"{id"}`, []string{"id"}},
		{"sizes", `{"urls":["http://a:9200"],"index":"a","key":["id"],"page":"1GiB","max_document":"1GiB"}`,
			[]string{"page", "max_document"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var config SourceConfig
			if err := json.Unmarshal([]byte(c.settings), &config); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range config.Validate() {
				got = append(got, f.Path)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff, config.Validate())
			}
			text, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			var again SourceConfig
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(config, again); diff != "" {
				t.Error("after a way as JSON:", diff)
			}
		})
	}
	if err := json.Unmarshal([]byte(`{"query":"id:a"}`), &SourceConfig{}); err == nil {
		t.Error("a text is taken for a query")
	}
}

// Settings travel to workers as JSON: empty mappings must not become derived ones on the way.
func TestConfigTravels(t *testing.T) {
	for _, want := range []SinkConfig{
		{URLs: []string{"http://a:1"}, Index: "i", Create: &Create{Mappings: map[string]any{}},
			Batch: Batch{Bytes: 5 << 20}, Timeout: 5e9},
		{URLs: []string{"http://a:1"}, Index: "i", Create: &Create{}},
	} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got SinkConfig
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCreateBody(t *testing.T) {
	for settings, want := range map[string]string{
		`{}`:                                     `{"mappings":null,"settings":{"index.gc_deletes":"1h"}}`,
		`{"number_of_shards":3}`:                 `{"mappings":null,"settings":{"index.gc_deletes":"1h","number_of_shards":3}}`,
		`{"index.gc_deletes":"2h"}`:              `{"mappings":null,"settings":{"index.gc_deletes":"2h"}}`,
		`{"index":{"gc_deletes":"2h"}}`:          `{"mappings":null,"settings":{"index":{"gc_deletes":"2h"}}}`,
		`{"index":{"codec":"best_compression"}}`: `{"mappings":null,"settings":{"index":{"codec":"best_compression"},"index.gc_deletes":"1h"}}`,
	} {
		var c Create
		if err := json.Unmarshal([]byte(settings), &c.Settings); err != nil {
			t.Fatal(err)
		}
		got, err := c.body(nil)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s (%v), want %s", settings, got, err, want)
		}
	}
}
