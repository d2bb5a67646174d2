package elasticsearchio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// Load are index settings while a run goes on; what is not named stays as it is.
type Load struct {
	Refresh  string `json:"refresh,omitempty" jsonschema:"pattern=^(off|[0-9]+(ms|s|m|h))$,example=off,example=30s" jsonschema_description:"The index's refresh interval: off, or a time. Searches find what is written that much later; with off, once the run has ended."`
	Replicas *int   `json:"replicas,omitempty" jsonschema:"minimum=0" jsonschema_description:"The index's replicas; with 0, losing a node loses its documents, and the run must be repeated."`
	Existing bool   `json:"existing,omitempty" jsonschema_description:"Also change an index that the run has not made, such as one that serves searches. Default: only those it has made."`
}

const (
	settingRefresh  = "index.refresh_interval"
	settingReplicas = "index.number_of_replicas"
	settingExpand   = "index.auto_expand_replicas"
)

// settings are the index settings in the server's words.
func (l Load) settings() map[string]string {
	s := map[string]string{}
	switch l.Refresh {
	case "":
	case "off":
		s[settingRefresh] = "-1"
	default:
		s[settingRefresh] = l.Refresh
	}
	if l.Replicas != nil {
		s[settingReplicas] = strconv.Itoa(*l.Replicas)
	}
	return s
}

// loaded is what is remembered of settings that a run has changed. The run that came last puts them back: one before
// it, which it has overtaken or which was killed, does not any more.
type loaded struct {
	Run     string             `json:"run"`
	Attempt int                `json:"attempt"`
	Set     map[string]string  `json:"set"` // during the load
	Was     map[string]*string `json:"was"` // before; nil: the server's default
}

var _ connector.Loader = (*Sink)(nil)

// Loads implements connector.Loader.
func (s *Sink) Loads() bool { return s.config.Load != nil }

// Load implements connector.Loader.
func (s *Sink) Load(ctx context.Context, run connector.Run, attempt int) (told []string, err error) {
	if !s.Loads() {
		return nil, nil
	}
	c, found, err := s.loadable(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		idx := found[name]
		n, err := idx.notes()
		if err != nil {
			return told, err
		}
		if n.Run != run.ID && !s.config.Load.Existing {
			continue
		}
		changed, err := c.load(ctx, name, idx, *s.config.Load, run.ID, attempt)
		if err != nil {
			return told, err
		}
		told = append(told, changed)
	}
	return told, nil
}

// loadable gives the indices that the sink writes to, as far as they are there.
func (s *Sink) loadable(ctx context.Context) (*client, map[string]index, error) {
	c, err := s.connect()
	if err != nil {
		return nil, nil, err
	}
	template, err := connector.ParseTemplate(s.config.Index, nil)
	if err != nil {
		return nil, nil, err
	}
	if !template.Fixed() {
		found, err := c.indices(ctx, template.Pattern("*"))
		return c, found, err
	}
	found, err := c.indices(ctx, s.config.Index)
	if err != nil || len(found) == 0 {
		return c, nil, err
	}
	name, err := writeIndex(s.config.Index, found)
	return c, map[string]index{name: found[name]}, err
}

// load sets an index up. Settings and notes are of one moment, and the notes are written before the settings: so
// where settings are those of a load, the notes tell what they were.
func (c *client) load(ctx context.Context, name string, idx index, l Load, run string, attempt int) (string, error) {
	n, err := idx.notes()
	if err != nil {
		return "", err
	}
	mine := loaded{Run: run, Attempt: attempt, Set: l.settings(), Was: map[string]*string{}}
	if expands := idx.setting(settingExpand); expands != "" && expands != "false" {
		delete(mine.Set, settingReplicas) // the server sets it
	}
	if before := n.Load; before != nil {
		for key, set := range before.Set {
			if idx.setting(key) == set {
				mine.Was[key] = before.Was[key]
				if _, named := mine.Set[key]; !named {
					mine.Set[key] = set
				}
			}
		}
	}
	var told []string
	change := map[string]*string{}
	for _, key := range slices.Sorted(maps.Keys(mine.Set)) {
		set := mine.Set[key]
		if _, known := mine.Was[key]; !known {
			mine.Was[key] = nil
			if is := idx.setting(key); is != "" {
				mine.Was[key] = &is
			}
		}
		change[key] = &set
		told = append(told, fmt.Sprintf("%s %s, was %s", strings.TrimPrefix(key, "index."), set,
			settingText(mine.Was[key])))
	}
	// Whoever ends a load at this moment may overwrite what is noted here.
	const enough = 5
	for range enough {
		if err := c.note(ctx, name, func(n *notes) { n.Load = &mine }); err != nil {
			return "", err
		}
		if err := c.change(ctx, name, change); err != nil {
			return "", err
		}
		now, err := c.index(ctx, name)
		if err != nil {
			return "", err
		}
		if n, err := now.notes(); err != nil {
			return "", err
		} else if n.Load != nil && n.Load.Run == run && n.Load.Attempt == attempt {
			return fmt.Sprintf("index %s for loading: %s", name, strings.Join(told, "; ")), nil
		}
	}
	return "", fail.Job("elasticsearch.load", "other runs change the load settings of the index %q at the same time",
		name).WithFix("load one index by one run at a time")
}

func settingText(v *string) string {
	if v == nil {
		return "the default"
	}
	return *v
}

// unloadRetry is for a cluster that has just been loaded.
var unloadRetry = connector.Retry{First: 200 * time.Millisecond, Max: 2 * time.Second, Deadline: 15 * time.Second}

// Unload implements connector.Loader. It refreshes the indices, so that what was loaded shows.
func (s *Sink) Unload(ctx context.Context, run connector.Run, attempt int) ([]string, error) {
	if !s.Loads() {
		return nil, nil
	}
	return s.unload(ctx, func(l *loaded) bool { return l.Run == run.ID && l.Attempt <= attempt })
}

// Loading tells which indices of the sink have the settings of a load, and by which run.
func (s *Sink) Loading(ctx context.Context) (map[string]string, error) {
	_, found, err := s.loadable(ctx)
	if err != nil {
		return nil, err
	}
	runs := map[string]string{}
	for name, idx := range found {
		n, err := idx.notes()
		if err != nil {
			return nil, err
		}
		if n.Load != nil {
			runs[name] = n.Load.Run
		}
	}
	return runs, nil
}

// Reset puts back what any run has changed for loading.
func (s *Sink) Reset(ctx context.Context) ([]string, error) {
	return s.unload(ctx, func(*loaded) bool { return true })
}

func (s *Sink) unload(ctx context.Context, mine func(*loaded) bool) (told []string, err error) {
	var c *client
	var found map[string]index
	err = connector.Request(ctx, unloadRetry, func() (int, int64, error) {
		c, found, err = s.loadable(ctx)
		return 0, 0, err
	})
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, name := range slices.Sorted(maps.Keys(found)) {
		var changed string
		err := connector.Request(ctx, unloadRetry, func() (int, int64, error) {
			changed, err = c.unload(ctx, name, mine)
			return 0, 0, err
		})
		if err != nil {
			failed = append(failed, err)
		}
		if changed != "" {
			told = append(told, changed)
		}
	}
	return told, errors.Join(failed...)
}

func (c *client) unload(ctx context.Context, name string, mine func(*loaded) bool) (string, error) {
	idx, err := c.index(ctx, name)
	if err != nil {
		return "", err
	}
	n, err := idx.notes()
	if err != nil || n.Load == nil || !mine(n.Load) {
		return "", err
	}
	l := n.Load
	back := map[string]*string{}
	var told []string
	for _, key := range slices.Sorted(maps.Keys(l.Set)) {
		short := strings.TrimPrefix(key, "index.")
		if is := idx.setting(key); is != l.Set[key] {
			told = append(told, fmt.Sprintf("%s stays %s, which somebody else has set", short, is))
			continue
		}
		back[key] = l.Was[key]
		told = append(told, fmt.Sprintf("%s %s", short, settingText(l.Was[key])))
	}
	if len(back) > 0 {
		if err := c.change(ctx, name, back); err != nil {
			return "", err
		}
	}
	if err := c.note(ctx, name, func(n *notes) {
		if n.Load != nil && mine(n.Load) {
			n.Load = nil
		}
	}); err != nil {
		return "", err
	}
	var reply struct{}
	_, err = c.do(ctx, esapi.IndicesRefreshRequest{Index: []string{name}}, &reply)
	return fmt.Sprintf("index %s after loading: %s", name, strings.Join(told, "; ")), err
}
