package compose

import (
	"context"
	"errors"
	"strings"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// What becomes of a record for which there is no row.
const (
	MissingDead   = "dead"
	MissingFilter = "filter"
	MissingEmpty  = "empty" // of a join alone: its fields are null
)

// CodeGone is the code of dead letters for keys without a row.
const CodeGone = "keys.gone"

// lookups is how many rows of a page are looked up: all of them are in memory at once, and nobody knows their size
// before.
const lookups = 100

// KeysNeed is what the source of the keys is opened with.
func KeysNeed(need connector.Need) connector.Need {
	return connector.Need{Run: need.Run, Started: need.Started, PageRows: need.Page(lookups)}
}

// Keys is, as a source, the rows of one source whose keys another gives, as they are now. Splits and positions are
// those of the keys. A key that is no key is a dead letter; so is one without a row, or it is filtered; an event that
// deletes one is then a delete. A key that stands twice in a page is filtered once; in different pages its row is read
// twice, which changes nothing at sinks, since they take the same version.
type Keys struct {
	from    connector.Source
	of      connector.Finder
	missing string
	floor   string // field of the keys; "": none
	events  bool   // the keys are those of events, which go on

	mu     sync.Mutex
	keying *keying
	raised int // place of floor; -1: none
}

var (
	_ connector.Finder    = (*Keys)(nil)
	_ connector.Partial   = (*Keys)(nil)
	_ connector.Explainer = (*Keys)(nil)
	_ connector.Locator   = (*Keys)(nil)
)

// NewKeys gives a source; missing is MissingDead or MissingFilter, floor the field of the keys with the lowest version
// of the row (see record.Raised), or "". from should have been opened with KeysNeed.
func NewKeys(from connector.Source, of connector.Finder, missing, floor string) *Keys {
	_, events := connector.FollowerOf(from)
	return &Keys{from: from, of: of, missing: missing, floor: floor, events: events}
}

// open matches the keys.
func (s *Keys) open(ctx context.Context) (*keying, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keying != nil {
		return s.keying, nil
	}
	from, err := s.from.Schema(ctx)
	if err != nil {
		return nil, err
	}
	to, err := s.of.Schema(ctx)
	if err != nil {
		return nil, err
	}
	k, faults := newKeying(from, to, func(name string) string { return name })
	if len(faults) > 0 {
		return nil, fail.Job("keys.fields", "the keys do not fit the table: %s", strings.Join(faults, "; ")).
			WithFix("the source of the keys needs a field for each key field, of the same name and type, or a text")
	}
	s.raised = from.Index(s.floor)
	if s.floor != "" && (s.raised < 0 || from.Fields[s.raised].Type.Kind != record.BigInt) {
		return nil, fail.Job("keys.floor", "the keys have no field %q of type bigint; there are %s", s.floor,
			connector.Fields(from.Fields).Names()).
			WithFix("name the field with the lowest version in floor, and its type in the fields of the keys")
	}
	s.keying = &k
	return s.keying, nil
}

// Schema implements connector.Source: it is that of the rows.
func (s *Keys) Schema(ctx context.Context) (*record.Schema, error) {
	k, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return k.to, nil
}

// Close implements connector.Source.
func (s *Keys) Close() error { return errors.Join(s.from.Close(), s.of.Close()) }

// Partial implements connector.Partial.
func (s *Keys) Partial() bool { return true }

// Plan implements connector.Source.
func (s *Keys) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	if _, err := s.open(ctx); err != nil {
		return err
	}
	return s.from.Plan(ctx, o, split)
}

// Explain implements connector.Explainer.
func (s *Keys) Explain() []string {
	return append(explain("keys: ", s.from),
		append([]string{"keys: each row is looked up by its key; without one it is " +
			map[string]string{MissingDead: "a dead letter", MissingFilter: "filtered"}[s.missing]},
			explain("rows: ", s.of)...)...)
}

// explain are the lines of a source within another.
func explain(prefix string, of connector.Source) (lines []string) {
	if x, ok := of.(connector.Explainer); ok {
		for _, line := range x.Explain() {
			lines = append(lines, prefix+line)
		}
	}
	return lines
}

// Read implements connector.Source.
func (s *Keys) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	k, err := s.open(ctx)
	if err != nil {
		return err
	}
	return s.from.Read(ctx, split, func(p connector.Page) error {
		rows, err := s.rows(ctx, k, p)
		if err != nil {
			return err
		}
		return page(rows)
	})
}

// Follower is the source of the keys, where that goes on: splits and positions are its.
func (s *Keys) Follower() (connector.Follower, bool) { return connector.FollowerOf(s.from) }

// Find implements connector.Finder.
func (s *Keys) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	return s.of.Find(ctx, keys, found)
}

// Locate implements connector.Locator: the places of the key in the source of the keys, which it reads.
func (s *Keys) Locate(ctx context.Context, key *record.Record) ([]connector.Split, error) {
	k, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	wanted := key.KeyText()
	return connector.Search(ctx, s.from, func(r *record.Record) bool {
		named, err := k.key(r)
		return err == nil && named != nil && named.KeyText() == wanted
	})
}

// rows makes the page of the rows from a page of keys, in its order.
func (s *Keys) rows(ctx context.Context, k *keying, p connector.Page) (connector.Page, error) {
	all := connector.Page{Dead: p.Dead, Filtered: p.Filtered, Last: p.Last, Event: p.Event}
	for _, l := range p.Dead {
		l.Record = nil // its key is none of the table
		all.Bytes += int64(len(l.Raw))
	}
	var keys []*record.Record
	var floors []int64
	var deleted []bool // by the last record with the key
	seen := map[string]int{}
	for _, r := range p.Records {
		key, err := k.key(r)
		if key == nil && err == nil {
			err = errors.New("one of its fields has no value")
		}
		if err != nil {
			raw := r.AppendJSON(nil)
			all.Dead = append(all.Dead, &record.DeadLetter{Raw: raw, Class: fail.Permanent.String(),
				Code: "keys.no_key", Message: "this is no key of the table: " + err.Error(), Attempts: 1})
			all.Bytes += int64(len(raw))
			continue
		}
		text := key.KeyText()
		i, again := seen[text]
		if !again {
			i = len(keys)
			seen[text] = i
			keys, floors, deleted = append(keys, key), append(floors, 0), append(deleted, false)
		} else {
			all.Filtered++
		}
		if floor := s.floorOf(r); floor >= floors[i] {
			floors[i], deleted[i] = floor, s.events && r.Op == record.Delete
		}
	}
	found := make([]connector.Page, len(keys))
	err := find(ctx, s.of, keys, func(i int, p connector.Page) error {
		found[i] = p
		return nil
	})
	for i, row := range found {
		if row.Rows() == 0 && deleted[i] {
			key := keys[i]
			key.Op, key.Version = record.Delete, floors[i]
			row.Records, row.Bytes = append(row.Records, key), int64(key.Size())
		} else if row.Rows() == 0 && s.missing == MissingFilter {
			row.Filtered++
		} else if row.Rows() == 0 {
			row.Dead = []*record.DeadLetter{{Class: fail.Permanent.String(), Code: CodeGone,
				Message: "there is no row with this key", Attempts: 1}}
		}
		for _, l := range row.Dead {
			if l.Record == nil {
				l.Record = keys[i]
			}
		}
		for _, r := range row.Records {
			all.Records = append(all.Records, r.Raised(floors[i]))
		}
		all.Dead = append(all.Dead, row.Dead...)
		all.Filtered, all.Bytes = all.Filtered+row.Filtered, all.Bytes+row.Bytes
	}
	return all, err
}

// floorOf is the lowest version of the row with a key. A row that is looked up for an event is at least as new as the
// event: so one of which a value was cleared since, whose write time went back, still replaces what was there.
func (s *Keys) floorOf(r *record.Record) int64 {
	if s.raised >= 0 && !r.Values[s.raised].IsNull() { // a delete may carry its key alone
		return r.Values[s.raised].Int()
	}
	if s.events {
		return r.Version
	}
	return 0
}

// find looks rows up that were read already in another form.
func find(ctx context.Context, in connector.Finder, keys []*record.Record,
	found func(i int, p connector.Page) error) error {
	if len(keys) == 0 {
		return nil
	}
	return in.Find(connector.Uncounted(ctx), keys, found)
}
