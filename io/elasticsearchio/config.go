package elasticsearchio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// SinkConfig says to which index records go and how they become documents.
type SinkConfig struct {
	URLs     []string         `json:"urls" reprise:"tuning" jsonschema:"required,minItems=1" jsonschema_description:"Addresses of nodes, such as http://10.0.0.1:9200; requests go to them in turn, skipping those that do not answer."`
	User     string           `json:"user,omitempty" reprise:"tuning" jsonschema_description:"User name; with password."`
	Password connector.Secret `json:"password,omitempty" reprise:"tuning" jsonschema_description:"The user's password: env:NAME or file:PATH."`
	APIKey   connector.Secret `json:"api_key,omitempty" reprise:"tuning" jsonschema_description:"API key in its encoded form (base64 of id:key), instead of user and password: env:NAME or file:PATH."`
	TLS      *connector.TLS   `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Settings of https addresses; default: the system's certificates."`

	Index    string    `json:"index" jsonschema:"required" jsonschema_description:"Index or alias. With fields in braces, as in assets-{asset_type}, each record chooses its own; without create the server makes such indices on first use, from its index templates."`
	Alias    string    `json:"alias,omitempty" reprise:"tuning" jsonschema_description:"Alias that searches use: reprise cutover points it to the index once the index is verified. A run does not touch it."`
	Replaces *Replaced `json:"replaces,omitempty" reprise:"tuning" jsonschema_description:"Another cluster that searches use until the cut-over: reprise cutover then makes the alias on the new one, waits until searches arrive there, and watches them. A run does not touch it."`
	ID       string    `json:"id,omitempty" jsonschema_description:"Document id; default {key}. At most 512 bytes."`
	Routing  string    `json:"routing,omitempty" jsonschema_description:"Routing value, as in {tenant}; default: the id decides."`
	Create   *Create   `json:"create,omitempty" reprise:"tuning" jsonschema_description:"Make the index if it does not exist (on first use, where its name depends on the record). Without create, a missing index is an error."`
	Load     *Load     `json:"load,omitempty" reprise:"tuning" jsonschema_description:"Index settings during a run, such as {refresh: off, replicas: 0}. They are restored when it is done, paused, stopped or failed, and after a crash by resume or reprise unload."`
	Fields   []string  `json:"fields,omitempty" jsonschema_description:"Fields of the document; default: all. The field _rest, which holds JSON, is merged into the document."`
	Exclude  []string  `json:"exclude,omitempty" jsonschema_description:"Fields that the document leaves out; instead of fields."`

	Batch   Batch  `json:"batch,omitzero" reprise:"tuning" jsonschema_description:"Size of the bulk requests."`
	Gzip    bool   `json:"gzip,omitempty" reprise:"tuning" jsonschema_description:"Compress requests and answers: less traffic for more CPU; default false."`
	Refresh string `json:"refresh,omitempty" reprise:"tuning" jsonschema:"enum=none,enum=now,enum=wait_for" jsonschema_description:"Whether each request makes its documents visible to searches (now), waits until they are (wait_for), or leaves that to the index's refresh interval (none, the default). Anything but none is slow."`

	Timeout        connector.Duration `json:"timeout,omitempty" reprise:"tuning" jsonschema_description:"How long one request may take; default 1m."`
	ConnectTimeout connector.Duration `json:"connect_timeout,omitempty" reprise:"tuning" jsonschema_description:"How long a connection may take; default 5s."`
	RetryFor       connector.Duration `json:"retry_for,omitempty" reprise:"tuning" jsonschema_description:"How long a write is tried again while the cluster is down or overloaded; after it the run ends. Default 2m."`
}

// Replaced is what searches use on another cluster until a cut-over.
type Replaced struct {
	URLs     []string         `json:"urls" jsonschema:"required,minItems=1" jsonschema_description:"Addresses of nodes of the other cluster, Elasticsearch or OpenSearch. The login needs read, view_index_metadata and monitor on the index, and delete_index for --retire."`
	User     string           `json:"user,omitempty" jsonschema_description:"User name; with password."`
	Password connector.Secret `json:"password,omitempty" jsonschema_description:"The user's password: env:NAME or file:PATH."`
	APIKey   connector.Secret `json:"api_key,omitempty" jsonschema_description:"API key in its encoded form, instead of user and password: env:NAME or file:PATH."`
	TLS      *connector.TLS   `json:"tls,omitempty" jsonschema_description:"Settings of https addresses; default: the system's certificates."`
	Index    string           `json:"index,omitempty" jsonschema_description:"Index or alias that searches use there. Default: the name of alias."`
}

// Create says how an index is made.
type Create struct {
	File     string         `json:"file,omitempty" jsonschema_description:"JSON file with mappings and settings in Elasticsearch's form, by its path from the job file; instead of the settings below."`
	Mappings map[string]any `json:"mappings,omitzero" jsonschema_description:"Mappings as Elasticsearch takes them; default: derived from the fields' types. {} leaves them to the server's index templates and dynamic mapping."`
	Settings map[string]any `json:"settings,omitempty" jsonschema_description:"Index settings as Elasticsearch takes them. Default: the server's, and index.gc_deletes 1h, so that late writes do not bring back deleted documents."`
	Existing bool           `json:"existing,omitempty" jsonschema_description:"Also write to an existing index with documents that this job has not written. Default: false, which makes that an error."`
}

// Batch bounds bulk requests.
type Batch struct {
	Bytes    connector.Bytes `json:"bytes,omitempty" jsonschema_description:"Bytes of a request's body, before compression; default 5MiB. A larger document is sent alone."`
	Rows     int             `json:"rows,omitempty" jsonschema:"minimum=0" jsonschema_description:"Records of a request; default 5000."`
	InFlight int             `json:"in_flight,omitempty" jsonschema:"minimum=0" jsonschema_description:"Requests under way at once in one worker process; default 4. The server refuses more than it can hold (a tenth of its heap)."`
}

// Validate checks what a schema cannot say.
func (c SinkConfig) Validate() []connector.Fault {
	var faults []connector.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	faults = append(faults, c.access().faults()...)
	for path, text := range map[string]string{"index": c.Index, "id": c.ID, "routing": c.Routing} {
		if _, err := connector.ParseTemplate(text, nil); err != nil {
			fault(path, "%v", err)
		}
	}
	switch index, err := connector.ParseTemplate(c.Index, nil); {
	case c.Index == "":
		fault("index", "the name of an index or alias is needed")
	case err == nil && index.Fixed() && !isIndexName(c.Index):
		fault("index", `%q is not a valid index name: lower case, without \ / * ? " < > | , # : and blanks, and not beginning with - _ +`, c.Index)
	case err == nil && !index.Fixed() && c.Alias != "":
		fault("alias", "an alias is moved to one index; %s is many", index.Pattern("*"))
	case c.Alias == "" && c.Replaces != nil:
		fault("alias", "what is replaced needs an alias: the name that searches use on the new cluster")
	case c.Alias != "" && (!isIndexName(c.Alias) || c.Alias == c.Index):
		fault("alias", "%q is not a valid name for an alias of %s", c.Alias, c.Index)
	case err == nil && !index.Fixed() && c.Load != nil && c.Load.Existing:
		fault("load.existing", "load.existing needs one fixed index, not %s: the run only changes indices that it has "+
			"made",
			index.Pattern("*"))
	}
	if c.Replaces != nil {
		for _, f := range c.replaced().faults() {
			f.Path = "replaces." + f.Path
			faults = append(faults, f)
		}
		if name := c.Replaces.Index; name != "" && !isIndexName(name) {
			fault("replaces.index", "%q is not a valid name of an index or alias", name)
		}
	}
	if c.Load != nil && len(c.Load.settings()) == 0 {
		fault("load", "name what changes: refresh, replicas or both, as in {refresh: off, replicas: 0}")
	}
	if len(c.Fields) > 0 && len(c.Exclude) > 0 {
		fault("exclude", "either fields or exclude")
	}
	if c.Create != nil {
		if c.Create.File != "" {
			fault("create.file", "%v", c.Create.inline())
		}
		if _, err := parseMapping(c.Create.Mappings); err != nil {
			fault("create.mappings", "%v", err)
		}
	}
	if c.Batch.Rows < 0 || c.Batch.InFlight < 0 {
		fault("batch", "rows and in_flight are positive")
	}
	if b := c.Batch.Bytes; b < 0 || b > maxBody {
		fault("batch.bytes", "at most %v, the largest body that servers take by default", connector.Bytes(maxBody))
	}
	if _, ok := refreshes[c.Refresh]; !ok {
		fault("refresh", "none, now or wait_for")
	}
	return faults
}

// access is how a cluster is reached.
type access struct {
	urls           []string
	user           string
	password, key  connector.Secret
	tls            *connector.TLS
	gzip           bool
	timeout        time.Duration
	connectTimeout time.Duration
}

func (c SinkConfig) access() access {
	return access{c.URLs, c.User, c.Password, c.APIKey, c.TLS, c.Gzip, c.Timeout.Or(time.Minute),
		c.ConnectTimeout.Or(5 * time.Second)}
}

// replaced is how the other cluster of Replaces is reached.
func (c SinkConfig) replaced() access {
	a, r := c.access(), c.Replaces
	a.urls, a.user, a.password, a.key, a.tls = r.URLs, r.User, r.Password, r.APIKey, r.TLS
	return a
}

func (a access) faults() (faults []connector.Fault) {
	fault := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	if len(a.urls) == 0 {
		fault("urls", "at least one address is needed, such as http://localhost:9200")
	}
	for _, text := range a.urls {
		u, err := url.Parse(text)
		switch {
		case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
			fault("urls", "an address looks like http://host:9200 or https://host:9200")
		case u.User != nil:
			fault("urls", "%s: a login does not belong into the address; use user and password", u.Redacted())
		case u.RawQuery != "" || u.Fragment != "":
			fault("urls", "%s: an address has no ? and no #", u.Redacted())
		}
	}
	if (a.user == "") != (a.password == "") {
		fault("user", "user and password belong together")
	}
	if a.user != "" && a.key != "" {
		fault("api_key", "either api_key or user and password")
	}
	return faults
}

// isIndexName tells whether a text can name one index.
func isIndexName(text string) bool {
	return text != "" && len(text) <= 255 && text != "." && text != ".." && text == strings.ToLower(text) &&
		!strings.ContainsAny(text, `\/*?"<>| ,#:`) && !strings.ContainsAny(text[:1], "-_+")
}

// refreshes are the settings' words in those of the server.
var refreshes = map[string]string{"": "", "none": "", "now": "true", "wait_for": "wait_for"}

// maxBody is the server's default for http.max_content_length.
const maxBody = 100 << 20

func (c SinkConfig) limits() connector.BatchLimits {
	return connector.BatchLimits{Rows: orDefault(c.Batch.Rows, 5000), Bytes: c.bodyLimit(),
		Slots: connector.NewSlots(orDefault(c.Batch.InFlight, 4))}
}

func (c SinkConfig) bodyLimit() int { return int(c.Batch.Bytes.Or(5 << 20)) }

func (c SinkConfig) retry() connector.Retry {
	r := connector.DefaultRetry
	r.Deadline = c.RetryFor.Or(r.Deadline)
	return r
}

// Key gives the fields of the schema that tell documents apart: those of their ids, their routing and their index.
func (c SinkConfig) Key(schema *record.Schema) ([]string, error) {
	return connector.TemplateFields(schema, c.idTemplate(), c.Routing, c.Index)
}

func (c SinkConfig) idTemplate() string { return orDefault(c.ID, "{key}") }

func orDefault[T comparable](v, def T) T {
	if zero := *new(T); v == zero {
		return def
	}
	return v
}

func (c *Create) inline() error {
	if c.Mappings != nil || c.Settings != nil {
		return errors.New("either a file or mappings and settings")
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	var body struct {
		Mappings map[string]any `json:"mappings"`
		Settings map[string]any `json:"settings"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return fmt.Errorf("%s is not JSON with mappings and settings: %w", c.File, err)
	}
	c.Mappings, c.Settings, c.File = body.Mappings, body.Settings, ""
	return nil
}

// body is the body of a request that makes the index.
func (c Create) body(mappings any) ([]byte, error) {
	settings := map[string]any{}
	for k, v := range c.Settings {
		settings[k] = v
	}
	if !setsGCDeletes(c.Settings) {
		settings["index.gc_deletes"] = "1h"
	}
	return json.Marshal(map[string]any{"mappings": mappings, "settings": settings})
}

// setsGCDeletes tells whether settings, flat or nested, name index.gc_deletes.
func setsGCDeletes(settings map[string]any) bool {
	for k, v := range settings {
		if k == "index.gc_deletes" || k == "gc_deletes" {
			return true
		}
		if nested, ok := v.(map[string]any); ok && k == "index" && setsGCDeletes(nested) {
			return true
		}
	}
	return false
}
