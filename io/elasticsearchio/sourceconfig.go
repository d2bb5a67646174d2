package elasticsearchio

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// SourceConfig says which documents are read and how they become records.
type SourceConfig struct {
	URLs     []string         `json:"urls" reprise:"tuning" jsonschema:"required,minItems=1" jsonschema_description:"Addresses of nodes, such as http://10.0.0.1:9200; requests go to them in turn, skipping those that do not answer."`
	User     string           `json:"user,omitempty" reprise:"tuning" jsonschema_description:"User name; with password."`
	Password connector.Secret `json:"password,omitempty" reprise:"tuning" jsonschema_description:"The user's password: env:NAME or file:PATH."`
	APIKey   connector.Secret `json:"api_key,omitempty" reprise:"tuning" jsonschema_description:"API key in its encoded form (base64 of id:key), instead of user and password: env:NAME or file:PATH."`
	TLS      *connector.TLS   `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Settings of https addresses; default: the system's certificates."`

	Index    string           `json:"index" jsonschema:"required" jsonschema_description:"Index, alias or pattern such as assets-*, or what a sink has as its index: assets-{asset_type} reads assets-*."`
	Query    Query            `json:"query,omitzero" jsonschema_description:"Which documents, as an Elasticsearch query: {term: {licence: expired}}. Default: all."`
	Key      []string         `json:"key" jsonschema:"required,minItems=1" jsonschema_description:"The fields that make up a record's key; _id is the document's id."`
	Fields   connector.Fields `json:"fields,omitempty" jsonschema_description:"Name and CQL type of each field that is read, such as {id: uuid, tags: set<text>}; _id, _index and _routing are texts, and so is _rest, which holds as JSON whatever else a document contains. Default: those of the mapping, and _rest where the mapping does not have all. A mapping cannot tell lists from single values, so name lists here."`
	OnlyKeys bool             `json:"only_keys,omitempty" jsonschema_description:"Read nothing but the key's fields: for a set of keys that a query chooses. Default: false."`
	Version  string           `json:"version,omitempty" jsonschema_description:"Field with the record's version: a timestamp, a timeuuid, or a bigint of microseconds since 1970. Default: the document's _version, which an Elasticsearch sink sets; documents whose _version only counts are refused, unless _version is named here."`
	Order    []string         `json:"order,omitempty" jsonschema_description:"Fields of the index by which documents are read, with doc values and an index, such as [id.keyword]. They never change, and few documents share their values. Default: the key's fields, or of a text its keyword."`

	ID      string `json:"id,omitempty" jsonschema_description:"Document id, by which single documents are looked up; default {key}, for the key [_id] {_id}."`
	Routing string `json:"routing,omitempty" jsonschema_description:"Routing value by which single documents are looked up, as in {tenant}; default: the id decides."`

	Refresh     bool               `json:"refresh,omitempty" reprise:"tuning" jsonschema_description:"Make everything written so far visible before planning; needs the privilege maintenance. Default: false, which reads what the index's refresh interval has made visible."`
	Page        connector.Bytes    `json:"page,omitempty" reprise:"tuning" jsonschema_description:"Approximate bytes of a response; fewer after timeouts. Default: 1MiB."`
	MaxDocument connector.Bytes    `json:"max_document,omitempty" jsonschema_description:"A larger document becomes a dead letter with only its id. Default: 64MiB."`
	KeepAlive   connector.Duration `json:"keep_alive,omitempty" reprise:"tuning" jsonschema_description:"How long the server keeps a point in time between two requests; after that, another one is opened and reading continues. Default: 2m."`
	Gzip        bool               `json:"gzip,omitempty" reprise:"tuning" jsonschema_description:"Ask for compressed answers: less traffic for more CPU; default false."`

	Timeout        connector.Duration `json:"timeout,omitempty" reprise:"tuning" jsonschema_description:"How long one request may take; default 1m."`
	ConnectTimeout connector.Duration `json:"connect_timeout,omitempty" reprise:"tuning" jsonschema_description:"How long a connection may take; default 5s."`
	RetryFor       connector.Duration `json:"retry_for,omitempty" reprise:"tuning" jsonschema_description:"How long a request is tried again while the cluster is down or overloaded. Default 2m."`
}

// Query is a query in Elasticsearch's language, a JSON object whose numbers keep all their digits.
type Query json.RawMessage

// MarshalJSON implements json.Marshaler.
func (q Query) MarshalJSON() ([]byte, error) { return json.RawMessage(q).MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler.
func (q *Query) UnmarshalJSON(text []byte) error {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return fmt.Errorf("query must be an object such as {term: {licence: expired}}, not %.60s", text)
	}
	*q = slices.Clone(text)
	return nil
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Query) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{Type: "object"} }

// Validate finds what the schema of the settings cannot say.
func (c SourceConfig) Validate() []connector.Fault {
	faults := c.access().faults()
	fault := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	for path, text := range map[string]string{"index": c.Index, "id": c.ID, "routing": c.Routing} {
		if _, err := connector.ParseTemplate(text, nil); err != nil {
			fault(path, "%v", err)
		}
	}
	switch pattern, err := c.pattern(); {
	case c.Index == "":
		fault("index", "the name of an index, an alias or a pattern is needed")
	case err == nil && (strings.ContainsAny(pattern, `\/?"<>| ,#:`) || strings.ContainsAny(pattern[:1], "-_+") ||
		pattern != strings.ToLower(pattern)):
		fault("index", `%q is not a valid name or pattern: lower case, without \ / ? " < > | , # : and blanks, and not beginning with - _ +`, pattern)
	}
	if len(c.Key) == 0 {
		fault("key", "name the fields that make up a record's key")
	}
	version := c.Version
	if version == metaVersion {
		version = ""
	}
	faults = append(faults, c.Fields.Check(c.Key, version)...)
	for _, f := range c.Fields {
		if (isMeta(f.Name) || f.Name == restName) && f.Type.Kind != record.Text {
			fault("fields."+f.Name, "%s is a text", f.Name)
		}
	}
	for i, name := range c.Order {
		if name == "" || strings.HasPrefix(name, "_") {
			fault(fmt.Sprintf("order[%d]", i),
				"%q has no doc values; name a field such as a keyword, a number or a date", name)
		}
		if slices.Contains(c.Order[:i], name) {
			fault(fmt.Sprintf("order[%d]", i), "%q stands twice", name)
		}
	}
	if c.Page < 0 || c.Page > maxPage {
		fault("page", "page is at most %s", connector.Bytes(maxPage))
	}
	if c.MaxDocument < 0 || c.MaxDocument > maxBody {
		fault("max_document", "at most %v, the largest document that servers take by default", connector.Bytes(maxBody))
	}
	return faults
}

const (
	maxPage     = 64 << 20
	metaVersion = "_version"
)

// isMeta tells whether a field is none of the document, but tells about it.
func isMeta(name string) bool { return name == "_id" || name == "_index" || name == "_routing" }

// pattern is the name or pattern of what is searched.
func (c SourceConfig) pattern() (string, error) {
	t, err := connector.ParseTemplate(c.Index, nil)
	if err != nil {
		return "", err
	}
	return t.Pattern("*"), nil
}

func (c SourceConfig) access() access {
	return access{c.URLs, c.User, c.Password, c.APIKey, c.TLS, c.Gzip, c.Timeout.Or(time.Minute),
		c.ConnectTimeout.Or(5 * time.Second)}
}

func (c SourceConfig) retry() connector.Retry {
	r := connector.DefaultRetry
	r.Deadline = c.RetryFor.Or(r.Deadline)
	return r
}

// idTemplate is that of document ids.
func (c SourceConfig) idTemplate() string {
	if slices.Equal(c.Key, []string{"_id"}) {
		return orDefault(c.ID, "{_id}")
	}
	return orDefault(c.ID, "{key}")
}
