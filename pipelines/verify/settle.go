package verify

import (
	"bytes"
	"context"
	"slices"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// rounds is how often suspects are read again; what reads differently each time is then in flight.
const rounds = 5

// Proven is a row that reads the same wrong way twice, a settle time apart.
type Proven struct {
	Suspect
	Fields    []Difference
	KeyText   string
	SourceKey string // of the row at the source; "": not known
}

// Settled is what has become of suspects.
type Settled struct {
	Wrong    []Proven
	InFlight int64
}

// Settle reads suspects again, on both sides, until each is right, or reads the same wrong way twice.
func (s *Sides) Settle(ctx context.Context, suspects []Suspect) (*Settled, error) {
	m, err := s.match(ctx)
	if err != nil {
		return nil, err
	}
	source, err := s.Source.Schema(ctx)
	if err != nil {
		return nil, err
	}
	found := &Settled{}
	pending := distinct(suspects)
	for round := 0; round < rounds && len(pending) > 0; round++ {
		select {
		case <-time.After(s.Config.Settle.Or(defaultSettle)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		var next []Suspect
		// What must be looked for in the whole source comes last, at once.
		slices.SortStableFunc(pending, func(a, b Suspect) int { return min(1, len(b.Source)) - min(1, len(a.Source)) })
		known := slices.IndexFunc(pending, func(x Suspect) bool { return len(x.Source) == 0 })
		if known < 0 {
			known = len(pending)
		}
		batches := slices.Collect(slices.Chunk(pending[:known], batchRows))
		if known < len(pending) {
			batches = append(batches, pending[known:])
		}
		for _, batch := range batches {
			verdicts, keys, err := s.again(ctx, m, source, batch)
			if err != nil {
				return nil, err
			}
			for i, v := range verdicts {
				again := batch[i]
				switch {
				case v.kind == "":
				case bytes.Equal(v.digest[:], again.Digest):
					again.Kind = v.kind
					p := Proven{Suspect: again, Fields: v.fields, KeyText: keys[i].KeyText()}
					if again.Source != nil {
						values, err := decodeKey(again.Source)
						if err != nil {
							return nil, err
						}
						p.SourceKey = keyRecord(source, values).KeyText()
					}
					found.Wrong = append(found.Wrong, p)
				default:
					again.Digest = v.digest[:]
					next = append(next, again)
				}
			}
		}
		pending = next
	}
	found.InFlight = int64(len(pending))
	return found, nil
}

// distinct are the suspects, each key once.
func distinct(all []Suspect) []Suspect {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(all), func(s Suspect) bool {
		twice := seen[string(s.Key)]
		seen[string(s.Key)] = true
		return twice
	})
}

// again reads both sides of some suspects.
func (s *Sides) again(ctx context.Context, m *comparer, source *record.Schema, batch []Suspect) (verdicts []verdict, keys []*record.Record, err error) {
	rows, wanted := asked{}, map[string]bool{}
	from := make([]string, len(batch)) // rows of the source, by the form of their keys
	for i, x := range batch {
		key, err := decodeKey(x.Key)
		if err != nil {
			return nil, nil, err
		}
		keys = append(keys, keyRecord(m.got, key))
		wanted[keyForm(keys[len(keys)-1])] = true
		if x.Source == nil {
			continue
		}
		if key, err = decodeKey(x.Source); err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(key, record.Value.IsNull) {
			row := keyRecord(source, key)
			from[i] = keyForm(row)
			rows.ask(row)
		}
	}
	var want expectations
	if batch[0].Source == nil {
		want, err = s.scanned(ctx, m, wanted)
	} else {
		want, err = s.expected(ctx, m, rows.keys)
	}
	if err != nil {
		return nil, nil, err
	}
	verdicts = make([]verdict, len(batch))
	// The source is read first: a live write comes to the target later, if at all.
	err = s.Target.Find(ctx, keys, func(i int, p connector.Page) error {
		if !want.dead[from[i]] {
			got, bad := latest(p)
			verdicts[i] = m.compare(want.records[keyForm(keys[i])], got, bad)
		}
		return nil
	})
	return verdicts, keys, err
}

// Report counts what was found wrong, with some examples of each kind.
func (s *Settled) Report(c Config) *SinkReport {
	r := &SinkReport{Wrong: map[Kind]int64{}, Fields: map[string]int64{}, InFlight: s.InFlight}
	most := c.Examples
	if most == 0 {
		most = defaultExamples
	}
	byKind := map[Kind][]Example{}
	for _, p := range s.Wrong {
		r.Wrong[p.Kind]++
		for _, d := range p.Fields {
			r.Fields[d.Field]++
		}
		if len(byKind[p.Kind]) < most {
			byKind[p.Kind] = append(byKind[p.Kind], Example{Kind: p.Kind, Key: p.KeyText, Source: p.SourceKey, Fields: p.Fields})
		}
	}
	// In turn, so that many of one kind leave room for the others.
	for i := 0; i < most; i++ {
		for _, kind := range Kinds {
			if of := byKind[kind]; i < len(of) && len(r.Examples) < most {
				r.Examples = append(r.Examples, of[i])
			}
		}
	}
	return r
}
