package elasticsearchio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Source reads the documents that a query finds.
//
// Each index of an alias or pattern is a partition of its own, and is read in the order of some fields, by default
// the key's: a position is the values of these fields, which mean the same under any point in time, after a restart
// and for any number of splits. What shares its values with other documents shares their position: such a group comes
// in one page, 256 MiB at most. Documents without a value there (a missing field, or a text longer than its keyword's
// ignore_above) are a partition too, which is read as one page and may have 10,000 documents at most.
//
// So the order's fields need doc values and an index, and they must not change: a document that gets other values
// while it is read, by an update or under another id, may be read twice or not at all. Keys never change; in the
// order of a field such as updated_at only read what is at rest.
//
// Each split is read under a point in time of its own; once it has expired another one is opened where reading stood.
// What is written, changed or deleted between two of them is read as it is then. Nothing is seen before the index has
// refreshed.
//
// The version of a record is the document's external version, which an Elasticsearch sink sets to the microseconds of
// the record's, or a field. Elasticsearch forgets the order of sets and does not tell one value from a list of one:
// where fields names a list, both are read.
//
// Without fields a record has those of the mapping, and nothing of a document is lost: where the mapping lets
// documents hold more (dynamic: false or runtime, objects that it does not look into, types of several forms such as
// geo_point) the field _rest holds that as JSON, with names in order and numbers as they are. Else a document that
// holds more, if only a null, is a dead letter, or an error where it is among the first hundred. With fields, what is
// not named is not asked for, unless they name _rest, a text, which then holds it: {id: text, _rest: text} copies
// documents whole without a look at their types. A dot in a name is an object, as it is to the server: both forms are
// read for either.
//
// Where the server has to leave fields out it may write numbers anew: digits that a double does not hold belong into
// texts, as the sink writes decimals and varints. Of an index with synthetic _source documents are as the server puts
// them together.
type Source struct {
	config SourceConfig
	need   connector.Need

	mu     sync.Mutex
	opened *opened
}

var _ connector.Finder = (*Source)(nil)

// NewSource gives a source; it does not connect.
func NewSource(c SourceConfig, need connector.Need) *Source {
	return &Source{config: c, need: need}
}

// opened is a source that is connected and knows its indices.
type opened struct {
	config  SourceConfig
	need    connector.Need
	client  *client
	pattern string // of the indices
	indices map[string]*readIndex
	fixed   bool // no index by record

	openSearch bool
	documents
}

// readIndex is one index of those that are read.
type readIndex struct {
	name    string
	order   order
	filter  []any  // what documents must fulfil
	routing string // "": all shards
	window  int    // documents of a search
}

// open connects and checks that everything the settings name is there; it tries for that long, where no gate says how
// long.
func (s *Source) open(ctx context.Context, deadline time.Duration) (*opened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	c, err := newClient(s.config.access())
	if err != nil {
		return nil, err
	}
	retry := s.config.retry()
	retry.Deadline = deadline
	o := &opened{config: s.config, need: s.need, client: c}
	err = connector.Request(ctx, retry, func() (int, int64, error) { return 0, 0, o.look(ctx) })
	if err != nil {
		c.close()
		return nil, err
	}
	s.opened = o
	return o, nil
}

// look looks at the indices and makes the schema.
func (o *opened) look(ctx context.Context) error {
	is, err := o.client.product(ctx)
	if err == nil {
		err = is.check()
	}
	if err != nil {
		return readError(err)
	}
	o.openSearch = is.openSearch
	template, err := connector.ParseTemplate(o.config.Index, nil)
	if err != nil {
		return fail.Job("elasticsearch.template", "index: %w", err)
	}
	o.pattern, o.fixed = template.Pattern("*"), template.Fixed()
	all, err := o.client.indices(ctx, o.pattern)
	if err != nil {
		return readError(err)
	}
	if len(all) == 0 && o.fixed {
		return fail.Job("elasticsearch.index_missing", "there is no index or alias %q", o.pattern).
			WithFix("check index and urls")
	}
	for name, idx := range all {
		if idx.setting("index.verified_before_close") == "true" {
			return fail.Job("elasticsearch.index_closed", "the index %q is closed", name).
				WithFix("open it, or name the others")
		}
	}
	if err := o.makeSchema(all); err != nil {
		return err
	}
	o.indices = map[string]*readIndex{}
	for name, idx := range all {
		if o.indices[name], err = o.index(name, idx); err != nil {
			if errors.Is(err, errUnmapped) {
				err = o.unlessEmpty(ctx, name, err)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unlessEmpty is an error about the mapping of an index, which an index without documents may lack.
func (o *opened) unlessEmpty(ctx context.Context, name string, unmapped error) error {
	a, err := o.client.search(ctx, searchRequest{index: name,
		body: object{"size": 0, "track_total_hits": 1}, limit: maxReply})
	if err == nil && a.total > 0 {
		err = unmapped
	}
	delete(o.indices, name)
	return err
}

func (o *opened) makeSchema(all map[string]index) error {
	fields := []record.Field(o.config.Fields)
	d := &o.documents
	*d = documents{version: -1, max: int(o.config.MaxDocument.Or(64 << 20)), cut: fields != nil,
		shapes: map[string]shapes{}}
	if fields == nil {
		var err error
		if fields, err = o.infer(all); err != nil {
			return err
		}
		d.whole, d.unnamed = true, refuse
	}
	if o.config.OnlyKeys {
		fields = slices.DeleteFunc(slices.Clone(fields), func(f record.Field) bool {
			return !slices.Contains(o.config.Key, f.Name) && f.Name != o.config.Version
		})
		d.whole, d.unnamed = false, passOver
	}
	schema, err := record.NewSchema(fields, o.config.Key...)
	if err != nil {
		return fail.Job("elasticsearch.fields", "the fields of %s: %w", o.pattern, err).
			WithFix("there are %s", connector.Fields(fields).Names())
	}
	if d.schema, d.rest = schema, schema.Index(restName); d.rest >= 0 {
		d.whole, d.unnamed = true, keep
	}
	if v := o.config.Version; v != "" && v != metaVersion {
		if o.version = schema.Index(v); o.version < 0 || !connector.IsVersion(fields[o.version].Type) {
			return fail.Job("elasticsearch.version",
				"the version %q is not a field of type timestamp, timeuuid or bigint", v).
				WithFix("name such a field in version, and its type in fields")
		}
	}
	for _, f := range schema.Fields {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			idx := all[name]
			if why := withheld(name, &idx, f.Name); why != "" {
				return fail.Job("elasticsearch.no_source", "%s", why).
					WithFix("read another index, or name fields without it")
			}
		}
		if !isMeta(f.Name) && !d.whole {
			o.includes = append(o.includes, f.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		mapping := all[name].Mappings
		if err := d.know(name, &mapping); err != nil {
			return err
		}
	}
	return nil
}

// infer gives the fields that the mappings have, and those about documents that the key asks for.
func (o *opened) infer(all map[string]index) ([]record.Field, error) {
	if len(all) == 0 {
		return nil, cannotInfer("no index matches %s", o.pattern)
	}
	var fields []record.Field
	for _, k := range o.config.Key {
		if isMeta(k) {
			fields = append(fields, record.Field{Name: k, Type: record.Of(record.Text)})
		}
	}
	if o.config.OnlyKeys { // what else there is need not be understood
		needed := append(slices.Clone(o.config.Key), o.config.Version)
		all = maps.Clone(all)
		for name, idx := range all {
			idx.Mappings.Properties = maps.Clone(idx.Mappings.Properties)
			maps.DeleteFunc(idx.Mappings.Properties,
				func(field string, _ *property) bool { return !slices.Contains(needed, field) })
			all[name] = idx
		}
	}
	found, rest, err := merge(all)
	if rest && !o.config.OnlyKeys {
		if slices.ContainsFunc(found, func(f record.Field) bool { return f.Name == restName }) {
			return nil, cannotInfer("there is a field %s", restName)
		}
		found = append(found, record.Field{Name: restName, Type: record.Of(record.Text)})
	}
	return append(fields, found...), err
}

var errUnmapped = errors.New("the mapping does not have it")

func (o *opened) index(name string, idx index) (*readIndex, error) {
	names := o.config.Order
	if len(names) == 0 {
		names = o.config.Key
	}
	order, err := newOrder(name, names, &idx.Mappings)
	if err != nil {
		return nil, err
	}
	r := &readIndex{name: name, order: order, window: 10_000}
	if n, err := strconv.Atoi(idx.setting("index.max_result_window")); err == nil {
		r.window = n
	}
	if o.config.Query != nil {
		r.filter = append(r.filter, o.config.Query)
	}
	through, routing := idx.through(name, o.pattern)
	if through != nil {
		r.filter = append(r.filter, through)
	}
	r.routing = routing
	return r, nil
}

// through is what an index shows of itself under a pattern that may mean it, or aliases with filters and routing.
func (i index) through(name, pattern string) (filter any, routing string) {
	means := func(name string) bool {
		ok, err := regexp.MatchString("^"+strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")+"$", name)
		return ok && err == nil
	}
	if means(name) || i.DataStream != "" && means(i.DataStream) {
		return nil, ""
	}
	var filters []any
	var routings []string
	all, everywhere := false, false
	for _, name := range slices.Sorted(maps.Keys(i.Aliases)) {
		if !means(name) {
			continue
		}
		a := i.Aliases[name]
		filters, routings = append(filters, a.Filter), append(routings, a.Routing)
		all, everywhere = all || a.Filter == nil, everywhere || a.Routing == ""
	}
	if !all && filters != nil {
		filter = object{"bool": object{"should": filters, "minimum_should_match": 1}}
	}
	if !everywhere {
		routing = strings.Join(routings, ",")
	}
	return filter, routing
}

// Schema implements connector.Source. It tries nothing twice, and looks at some documents: whether they become
// records, and whether their versions can be times.
func (s *Source) Schema(ctx context.Context) (*record.Schema, error) {
	o, err := s.open(ctx, 0)
	if err != nil {
		return nil, err
	}
	return o.schema, o.sample(ctx)
}

// counters are the versions of documents that were written without external ones: they count. Microseconds are far
// more.
const counters = 1_000_000_000

// sample checks the first documents that the query finds.
func (o *opened) sample(ctx context.Context) error {
	if len(o.indices) == 0 {
		slog.WarnContext(ctx, "no index has documents: nothing is read", "index", o.pattern)
		return nil
	}
	var a answer
	retry := o.config.retry()
	retry.Deadline = 0
	size := 100
	err := connector.Request(ctx, retry, func() (_ int, _ int64, err error) {
		for {
			body := object{"size": size, "version": true, "track_total_hits": true, "_source": o.wantedSource()}
			if o.config.Query != nil {
				body["query"] = allOf([]any{o.config.Query})
			}
			a, err = o.client.search(ctx, searchRequest{index: o.pattern, body: body, limit: 16 << 20})
			if !errors.Is(err, errTooLarge) {
				return len(a.hits), a.bytes, err
			}
			size /= 10
		}
	})
	if err != nil {
		return err
	}
	if a.total == 0 {
		slog.WarnContext(ctx, "the query matches no document: nothing is read", "index", o.pattern)
	}
	newest := int64(0)
	for _, h := range a.hits {
		newest = max(newest, h.version)
		if o.config.Fields != nil {
			continue
		}
		_, err := o.record(h)
		if err == nil || err.Code != "elasticsearch.decode" && err.Code != "elasticsearch.unmapped" {
			continue
		}
		var key []record.Field
		for _, k := range o.schema.Key {
			key = append(key, o.schema.Fields[k])
		}
		return cannotInfer("document %q of %s: %s", h.id, h.index, err.Message).
			WithFix("name the fields and their types, and %s for what else there is: fields: {%s}; "+
				"or read all but the key as one JSON text: fields: {%s}",
				restName, o.suggest(o.schema.Fields, a.hits), o.suggest(key, nil))
	}
	if len(a.hits) > 0 && o.config.Version == "" && newest < counters {
		return fail.Job("elasticsearch.version",
			"the documents of %s were written without external versions: their _version (such as %d) only counts, "+
				"and says nothing about their time",
			o.pattern, newest).WithFix("name in version the field with the time of the last change, or version: " +
			"_version if it does not matter")
	}
	return nil
}

// suggest is some fields with types that documents become: lists where they have lists, and texts of times that are
// finer than milliseconds.
func (o *opened) suggest(fields []record.Field, hits []hit) string {
	var all []string
	for _, f := range fields {
		if f.Name == restName {
			continue
		}
		for _, h := range hits {
			s, _ := o.known(h.index)
			_ = record.JSONParts(h.source, func(name, value string) error {
				if p := s.all[name]; name == f.Name && p != nil {
					_, _, err := p.value(value, keep, false)
					switch {
					case err != nil && value[0] == '[' && p.typ.Kind != record.List:
						f.Type = record.ListOf(p.typ)
					case err != nil && p.dates != nil:
						f.Type = record.Of(record.Text)
					}
				}
				return nil
			})
		}
		all = append(all, fmt.Sprintf("%s: %q", f.Name, f.Type.String()))
	}
	return strings.Join(append(all, restName+`: "text"`), ", ")
}

// body is that of a search for documents: of an index, within its own conditions and further ones.
func (o *opened) body(idx *readIndex, further []any, size int) object {
	filter := append(slices.Clone(idx.filter), further...)
	return object{"size": size, "query": allOf(filter), "_source": o.wantedSource(), "version": true,
		"track_total_hits": false}
}

// Close implements connector.Source.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		s.opened.client.close()
		s.opened = nil
	}
	return nil
}
