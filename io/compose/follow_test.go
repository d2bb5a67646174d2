package compose

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/io/kafkaio"
	"reprise/transforms/record"
)

// events is a source that goes on: its splits are open, and each of its pages holds some events.
type events struct {
	schema *record.Schema
	pages  [][]*record.Record
}

var eventFields = record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
	{Name: "at_least", Type: record.Of(record.BigInt)}}, "id")

func (e events) Schema(context.Context) (*record.Schema, error) { return e.schema, nil }
func (e events) Close() error                                   { return nil }
func (e events) Follows() bool                                  { return true }

func (e events) Plan(_ context.Context, _ connector.PlanOptions, split func(connector.Split) error) error {
	return split(connector.Split{Partition: "events/0"})
}

func (e events) Read(_ context.Context, _ connector.Split, page func(connector.Page) error) error {
	for i, records := range e.pages {
		if err := page(connector.Page{Records: records, Last: []byte{byte(i)}}); err != nil {
			return err
		}
	}
	return nil
}

func (e events) Partitions(context.Context) ([]string, error) { return []string{"events/0"}, nil }
func (e events) Position(s connector.Split) string            { return fmt.Sprintf("%x", s.Start) }

func (e events) Lags(_ context.Context, at []connector.Split) (lags []connector.Lag, err error) {
	for _, s := range at {
		lags = append(lags, connector.Lag{Partition: s.Partition, Position: e.Position(s)})
	}
	return lags, nil
}

func (e events) Acknowledge(context.Context, []connector.Split) error { return nil }

// event tells of an asset; atLeast 0: it has no value.
func event(n int, op record.Op, version, atLeast int64) *record.Record {
	r := &record.Record{Schema: eventFields, Op: op, Version: version, Values: make([]record.Value, 2),
		Origin: record.Origin{Split: "events/0"}}
	r.Values[0] = record.String(assetKey(n))
	if atLeast > 0 {
		r.Values[1] = record.Number(record.BigInt, atLeast)
	}
	return r
}

func assetKey(n int) string { return iotest.Record(iotest.AssetSchema(), n, 1).KeyText() }

// told is what a page says of its records: "0 upsert +5" is row 0 with a version of iotest.Base+5.
func told(p connector.Page) (all []string) {
	for _, r := range p.Records {
		n := 0
		for assetKey(n) != r.KeyText() {
			n++
		}
		all = append(all, fmt.Sprintf("%d %s %+d", n, r.Op, r.Version-iotest.Base))
	}
	return all
}

// A row that is looked up for an event is at least as new as the event. One that is gone is a delete as new as the
// event, if the newest event with its key deletes it.
func TestARowIsAtLeastAsNewAsItsEvent(t *testing.T) {
	at := func(n int64) int64 { return iotest.Base + n }
	const up, down = record.Upsert, record.Delete
	of := func(events ...*record.Record) []*record.Record { return events }
	for name, c := range map[string]struct {
		floor    string
		events   []*record.Record
		want     string
		dead     []string
		filtered int64
	}{
		"raised":           {events: of(event(0, up, at(5), 0)), want: "0 upsert +5"},
		"the row is newer": {events: of(event(0, up, at(-5), 0)), want: "0 upsert +0"},
		"the newest of several": {events: of(event(0, up, at(7), 0), event(0, up, at(5), 0)),
			want: "0 upsert +7", filtered: 1},
		"deleted and gone":  {events: of(event(8, down, at(5), 0)), want: "8 delete +5"},
		"changed and gone":  {events: of(event(8, up, at(5), 0)), dead: []string{CodeGone}},
		"deleted and there": {events: of(event(0, down, at(5), 0)), want: "0 upsert +5"},
		"changed, then deleted": {events: of(event(8, up, at(5), 0), event(8, down, at(6), 0)),
			want: "8 delete +6", filtered: 1},
		"deleted late": {events: of(event(8, up, at(7), 0), event(8, down, at(6), 0)),
			dead: []string{CodeGone}, filtered: 1},
		"deleted at the same time": {events: of(event(8, up, at(5), 0), event(8, down, at(5), 0)),
			want: "8 delete +5", filtered: 1},
		"order": {events: of(event(2, up, at(1), 0), event(9, down, at(2), 0), event(1, up, at(3), 0)),
			want: "2 upsert +1, 9 delete +2, 1 upsert +3"},
		"by a field": {floor: "at_least", events: of(event(0, up, at(5), at(3))), want: "0 upsert +3"},
		"deleted without a field": {floor: "at_least", events: of(event(8, down, at(5), 0)),
			want: "8 delete +5"},
		"changed without a field": {floor: "at_least", events: of(event(0, up, at(5), 0)),
			want: "0 upsert +5"},
	} {
		t.Run(name, func(t *testing.T) {
			table := memory(0, 3, iotest.Base).Source().(connector.Finder)
			keys := NewKeys(events{eventFields, [][]*record.Record{c.events}}, table, MissingDead, c.floor)
			sum := all(t, keys)
			d := cmp.Diff(c.want, strings.Join(told(sum), ", ")) + cmp.Diff(c.dead, codes(sum.Dead))
			if d != "" || sum.Filtered != c.filtered {
				t.Errorf("%s, %d filtered", d, sum.Filtered)
			}
			for _, r := range sum.Records {
				if len(r.Values) != len(iotest.AssetSchema().Fields) {
					t.Errorf("%s has %d values", r.KeyText(), len(r.Values))
				}
			}
		})
	}
}

// A list of keys that ends says nothing of when its rows changed, nor that any was deleted.
func TestKeysOfAListAreNoEvents(t *testing.T) {
	list := memory(0, 1, iotest.Base+9)
	list.Load(iotest.Deletion(iotest.AssetSchema(), 8, iotest.Base+9))
	table := memory(0, 3, iotest.Base).Source().(connector.Finder)
	keys := NewKeys(list.Source(), table, MissingDead, "")
	if d := cmp.Diff([]string{"0 upsert +0"}, told(all(t, keys))); d != "" {
		t.Error(d)
	}
	if _, follows := connector.FollowerOf(keys); follows {
		t.Error("it goes on")
	}
}

// What goes on behind a lookup or a join is the source whose splits they have.
func TestALookupGoesOnAsItsKeysDo(t *testing.T) {
	of := events{schema: eventFields, pages: [][]*record.Record{{event(0, record.Upsert, iotest.Base, 0)}}}
	table := memory(0, 3, iotest.Base)
	side := func(field string) Side {
		return Side{Name: field, Of: table.Source(), On: map[string]string{"id": "id"},
			Fields: map[string]string{field: "title"}, Missing: MissingEmpty}
	}
	keys := NewKeys(of, table.Source().(connector.Finder), MissingDead, "")
	for name, s := range map[string]connector.Source{"keys": keys, "join": NewJoin(of, side("title")),
		"join of keys": NewJoin(keys, side("other"))} {
		f, follows := connector.FollowerOf(s)
		if !follows {
			t.Errorf("%s does not go on", name)
			continue
		}
		if _, same := f.(events); !same {
			t.Errorf("%s: it is %T that goes on", name, f)
		}
		if sum := all(t, s); len(sum.Records) != 1 {
			t.Errorf("%s gives %d records", name, len(sum.Records))
		}
	}
	if _, follows := connector.FollowerOf(NewUnion([]connector.Source{of, of}, false, now)); follows {
		t.Error("a union goes on")
	}
}

// The settings say so as well, and can be given an end. What must end is refused where it does not.
func TestSettingsThatGoOnCanBeGivenAnEnd(t *testing.T) {
	topic := connector.From(&kafkaio.SourceConfig{Brokers: []string{"h:1"}, Topic: "t", Key: []string{"id"},
		Fields: connector.Fields{{Name: "id", Type: record.Of(record.Text)}}, Follow: true, Group: "g"})
	ended := topic.Ended()
	for name, s := range map[string]func(of connector.SourceSpec) connector.SourceSpec{
		"keys": func(of connector.SourceSpec) connector.SourceSpec {
			return connector.From(&KeysConfig{From: of, Of: ended})
		},
		"join": func(of connector.SourceSpec) connector.SourceSpec {
			return connector.From(&JoinConfig{Of: of, With: map[string]SideConfig{"x": {Of: ended}}})
		},
		"join of keys": func(of connector.SourceSpec) connector.SourceSpec {
			return connector.From(&JoinConfig{Of: connector.From(&KeysConfig{From: of, Of: ended})})
		},
	} {
		follows := s(topic)
		if !follows.Follows() || follows.Ended().Follows() || !follows.Follows() {
			t.Errorf("%s: %t, its end %t", name, follows.Follows(), follows.Ended().Follows())
		}
		if s(ended).Follows() {
			t.Errorf("%s goes on, and its source ends", name)
		}
		for _, f := range follows.Ended().Validate() {
			if strings.Contains(f.Message, "follow") {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
	for path, faults := range map[string][]connector.Fault{
		"of.1":      UnionConfig{Of: []connector.SourceSpec{ended, topic}}.Validate(),
		"of":        KeysConfig{From: ended, Of: topic}.Validate(),
		"with.x.of": JoinConfig{Of: ended, With: map[string]SideConfig{"x": {Of: topic}}}.Validate(),
	} {
		found := false
		for _, f := range faults {
			found = found || f.Path == path && strings.Contains(f.Message, "leave out follow")
		}
		if !found {
			t.Errorf("%s: %+v", path, faults)
		}
	}
}
