package elasticsearchio

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Sink writes records as documents.
type Sink struct {
	config  SinkConfig
	limits  connector.BatchLimits // of all writers together
	buffers buffers

	mu     sync.Mutex
	client *client             // made by the first method that needs it
	made   map[string]struct{} // indices that are sure to be there, of those whose names depend on the record
}

var _ connector.Keyed = (*Sink)(nil)

// NewSink gives a sink; it does not connect.
func NewSink(c SinkConfig) *Sink {
	return &Sink{config: c, limits: c.limits(), buffers: buffers{largest: 2 * c.bodyLimit()}}
}

func (s *Sink) connect() (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		c, err := newClient(s.config.access())
		if err != nil {
			return nil, err
		}
		s.client = c
	}
	return s.client, nil
}

// Prepare checks that the cluster answers, that its version is new enough, and that the index is there, takes writes,
// holds nothing of others where the settings make it, and has a mapping that fits the schema; where the settings ask
// for it, it makes a missing index. Of an index whose name depends on the record only the cluster and the settings
// are checked. It tries nothing twice.
func (s *Sink) Prepare(ctx context.Context, run connector.Run, schema *record.Schema, dry bool) error {
	format, err := newFormat(s.config, schema)
	if err != nil {
		return err
	}
	fields, err := documentFields(s.config, schema)
	if err != nil {
		return err
	}
	c, err := s.connect()
	if err != nil {
		return err
	}
	if err := c.check(ctx); err != nil {
		return err
	}
	if format.index != nil {
		if s.config.Create != nil {
			_, err = s.body(ctx, c, run, fields)
		}
		return err
	}
	found, err := c.indices(ctx, s.config.Index)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return s.check(ctx, c, run, s.config.Index, found, fields)
	}
	if s.config.Create == nil {
		return fail.Job("elasticsearch.index_missing", "there is no index or alias %q", s.config.Index).
			WithFix("make it, or let the sink make it: create: {}")
	}
	body, err := s.body(ctx, c, run, fields)
	if err != nil || dry {
		return err
	}
	return c.create(ctx, s.config.Index, body)
}

// body is that of a request that makes an index for a run.
func (s *Sink) body(ctx context.Context, c *client, run connector.Run, fields []record.Field) ([]byte, error) {
	create := s.config.Create
	mappings := create.Mappings
	if mappings == nil {
		is, err := c.product(ctx)
		if err != nil {
			return nil, err
		}
		mappings = derive(fields, is)
	} else {
		mapping, err := parseMapping(mappings)
		if err != nil {
			return nil, fail.Job("elasticsearch.mapping_conflict", "create.mappings: %w", err)
		}
		if err := s.fits("create.mappings", fields, mapping); err != nil {
			return nil, err
		}
	}
	body, err := create.body(madeBy(run).into(mappings))
	if err != nil {
		return nil, fail.Job("elasticsearch.create", "create: %w", err)
	}
	return body, nil
}

// make makes an index whose name depends on the record when its first record comes.
func (s *Sink) make(ctx context.Context, run connector.Run, schema *record.Schema, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.made[name]; there {
		return nil
	}
	fields, err := documentFields(s.config, schema)
	if err != nil {
		return err
	}
	found, err := s.client.indices(ctx, name)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		err = s.check(ctx, s.client, run, name, found, fields)
	} else {
		var body []byte
		if body, err = s.body(ctx, s.client, run, fields); err == nil {
			err = s.client.create(ctx, name, body)
		}
		if l := s.config.Load; l != nil && err == nil {
			var idx index
			if idx, err = s.client.index(ctx, name); err == nil {
				_, err = s.client.load(ctx, name, idx, *l, run.ID, 0)
			}
		}
	}
	if err != nil {
		return err
	}
	if s.made == nil {
		s.made = map[string]struct{}{}
	}
	s.made[name] = struct{}{}
	return nil
}

// check checks the index that writes to a name go to.
func (s *Sink) check(ctx context.Context, c *client, run connector.Run, alias string, found map[string]index,
	fields []record.Field) error {
	name, err := writeIndex(alias, found)
	if err != nil {
		return err
	}
	target := found[name]
	if create := s.config.Create; create != nil && !create.Existing {
		if err := c.mine(ctx, run, name, target); err != nil {
			return err
		}
	}
	for _, block := range []string{"index.blocks.read_only", "index.blocks.write"} {
		if target.setting(block) == "true" {
			return fail.Job("elasticsearch.read_only", "the index %q takes no writes (%s)", name, block).
				WithFix("remove the block, or write to another index")
		}
	}
	if target.setting("index.verified_before_close") == "true" {
		return fail.Job("elasticsearch.index_closed", "the index %q is closed", name).WithFix("open it")
	}
	if err := s.fits(fmt.Sprintf("the index %q", name), fields, &target.Mappings); err != nil {
		return err
	}
	if kept := keepsDeletes(target); kept < 10*time.Minute {
		slog.WarnContext(ctx,
			"the index forgets deletes early: a record read before a delete and written later than this brings the "+
				"document back; set index.gc_deletes to 1h for the run",
			"index", name, "gc_deletes", kept)
	}
	return nil
}

// writeIndex is the index that writes to a name go to.
func writeIndex(name string, found map[string]index) (string, error) {
	target := ""
	for concrete, idx := range found {
		if idx.DataStream != "" {
			return "", fail.Job("elasticsearch.data_stream",
				"%q is a data stream, which takes no versions and no changes", name).
				WithFix("write to an index or an alias")
		}
		write := idx.Aliases[name].WriteIndex
		if (write == nil && len(found) == 1) || (write != nil && *write) {
			target = concrete
		}
	}
	if target == "" {
		return "", fail.Job("elasticsearch.alias",
			"the alias %q points to %d indices and none is its write index", name, len(found)).
			WithFix("set is_write_index on one of them")
	}
	return target, nil
}

const defaultGCDeletes = time.Minute // of index.gc_deletes

// keepsDeletes is how long an index remembers the versions of deleted documents.
func keepsDeletes(i index) time.Duration {
	text := i.setting("index.gc_deletes")
	if text == "" {
		return defaultGCDeletes
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		d, _ := time.ParseDuration(days + "h")
		return 24 * d
	}
	d, _ := time.ParseDuration(text)
	return d
}

// mine refuses an index with documents that come from elsewhere than the run's job.
func (c *client) mine(ctx context.Context, run connector.Run, name string, target index) error {
	n, err := target.notes()
	if err != nil || (n.Run != "" && n.Job == run.Job) {
		return err
	}
	count, err := c.count(ctx, name)
	if err != nil || count == 0 {
		return err
	}
	whose := "which no run has made"
	if n.Run != "" {
		whose = fmt.Sprintf("made by the job %s", n.Job)
	}
	return fail.Job("elasticsearch.not_empty", "the index %q, %s, already holds %d documents", name, whose, count).
		WithFix("write to a new index, or add to this one all the same: create: {existing: true}, or no create")
}

// fits lists all conflicts of a mapping in one error.
func (s *Sink) fits(what string, fields []record.Field, mapping *property) error {
	if mapping.Routing.Required && s.config.Routing == "" {
		return fail.Job("elasticsearch.routing", "%s asks for a routing value of each document", what).
			WithFix("set routing, as in {tenant}")
	}
	found := conflicts(fields, mapping)
	if len(found) == 0 {
		return nil
	}
	return fail.Job("elasticsearch.mapping_conflict", "%s does not fit %d of the fields: %s", what, len(found),
		strings.Join(found, "; ")).
		WithFix("cast or rename the fields by a transform, leave them out with exclude, or write to another index")
}

// Open implements connector.Sink.
func (s *Sink) Open(ctx context.Context, run connector.Run, schema *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	format, err := newFormat(s.config, schema)
	if err != nil {
		return nil, err
	}
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	w := &bulk{client: c, format: format, floor: run.Floor, limit: s.config.bodyLimit(), gzip: s.config.Gzip,
		refresh: refreshes[s.config.Refresh], buffers: &s.buffers}
	switch {
	case format.index == nil:
		w.index = s.config.Index
	case s.config.Create != nil:
		w.make = func(ctx context.Context, name string) error { return s.make(ctx, run, schema, name) }
	}
	limits := s.limits
	limits.Forgets = s.forgets(ctx, c)
	return connector.NewBatcher(ctx, limits, s.config.retry(), w.write, settle), nil
}

// forgets is how long the index remembers deletes; of an index that nobody can tell it of, Elasticsearch's default.
func (s *Sink) forgets(ctx context.Context, c *client) time.Duration {
	if found, err := c.indices(ctx, s.config.Index); err == nil {
		if name, err := writeIndex(s.config.Index, found); err == nil {
			return max(time.Millisecond, keepsDeletes(found[name]))
		}
	}
	return defaultGCDeletes
}

// Key implements connector.Keyed.
func (s *Sink) Key(_ context.Context, schema *record.Schema) ([]string, error) {
	return s.config.Key(schema)
}

// Close implements connector.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.close()
	}
	return nil
}
