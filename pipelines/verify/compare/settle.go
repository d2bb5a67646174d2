package compare

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
	Floor     int64 // a version that wins over what is wrong, and over nothing that was written since
	Fields    []Difference
	KeyText   string
	SourceKey string // of the row at the source; "": not known
}

// Settled is what has become of suspects.
type Settled struct {
	Wrong    []Proven
	InFlight int64
}

// Settle reads suspects again, on both sides, until each is right, or reads the same wrong way twice. Where several
// rows of the source may become one of the target, what looks wrong beside its own row is compared with the newest of
// all rows of the source.
func (s *Sides) Settle(ctx context.Context, suspects []Suspect) (*Settled, error) {
	m, err := s.match(ctx)
	if err != nil {
		return nil, err
	}
	source, err := s.Source.Schema(ctx)
	if err != nil {
		return nil, err
	}
	many, err := s.Many(ctx)
	if err != nil {
		return nil, err
	}
	found := &Settled{}
	pending := distinct(suspects, func(x Suspect) string { return string(x.Key) + string(x.Source) })
	for round := 0; round < rounds && len(pending) > 0; round++ {
		before := time.Now().UnixMicro()
		select {
		case <-time.After(s.Config.Settle.Or(defaultSettle)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		var next, everywhere []Suspect // everywhere: to be looked for in the whole source, at once
		decide := func(batch []Suspect, all []reading) {
			for i, v := range all {
				again := batch[i]
				switch {
				case v.kind == "":
				case bytes.Equal(v.digest[:], again.Digest):
					again.Kind, again.Source = v.kind, v.source
					p := Proven{Suspect: again, Floor: v.floor(before), Fields: v.fields, KeyText: m.keyText(v.key)}
					if v.row != nil {
						p.SourceKey = v.row.KeyText()
					}
					found.Wrong = append(found.Wrong, p)
				default:
					again.Digest = v.digest[:]
					next = append(next, again)
				}
			}
		}
		var known []Suspect
		for _, x := range pending {
			if len(x.Source) > 0 {
				known = append(known, x)
			} else {
				everywhere = append(everywhere, x)
			}
		}
		for batch := range slices.Chunk(known, batchRows) {
			all, err := s.again(ctx, m, source, batch, false)
			if err != nil {
				return nil, err
			}
			if !many {
				decide(batch, all)
				continue
			}
			for i, v := range all {
				if v.kind != "" {
					everywhere = append(everywhere, batch[i])
				}
			}
		}
		if everywhere = distinct(everywhere, func(x Suspect) string { return string(x.Key) }); len(everywhere) > 0 {
			all, err := s.again(ctx, m, source, everywhere, true)
			if err != nil {
				return nil, err
			}
			decide(everywhere, all)
		}
		pending = next
	}
	found.InFlight = int64(len(pending))
	return found, nil
}

// distinct are the suspects, each once.
func distinct(all []Suspect, name func(Suspect) string) []Suspect {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(all), func(x Suspect) bool {
		twice := seen[name(x)]
		seen[name(x)] = true
		return twice
	})
}

// reading is how a suspect reads this time.
type reading struct {
	verdict
	key    *record.Record // at the target
	row    *record.Record // key of the row at the source that it should be made of; nil: not known
	source []byte         // the same as in a Suspect
	got    int64          // version of the target's row; 0: there is none
}

// floor is a microsecond after the version that the target holds. Of a target that does not hold the row, or tells no
// version, it is the time before which it was read the same wrong way: what was deleted there later would have shown
// at the source by now.
func (r reading) floor(before int64) int64 {
	if r.got > unknownVersion {
		return r.got + 1
	}
	return before
}

// unknownVersion is what sources give where they do not know a version.
const unknownVersion = 1

// again reads both sides of some suspects: the rows of the source that they name, or everywhere.
func (s *Sides) again(ctx context.Context, m *comparer, source *record.Schema, batch []Suspect, everywhere bool) (
	[]reading, error) {
	rows, wanted := asked{}, map[string]bool{}
	all := make([]reading, len(batch))
	for i, x := range batch {
		var err error
		r := &all[i]
		if r.key, err = KeyRecord(m.got, x.Key); err != nil {
			return nil, err
		}
		wanted[keyForm(r.key)] = true
		if x.Source == nil {
			continue
		}
		if r.row, err = KeyRecord(source, x.Source); err != nil {
			return nil, err
		}
		if r.source = x.Source; !slices.ContainsFunc(keyValues(r.row), record.Value.IsNull) {
			rows.ask(r.row)
		}
	}
	var want expectations
	var err error
	if everywhere {
		want, err = s.scanned(ctx, m, wanted)
	} else {
		want, err = s.expected(ctx, m, rows.keys)
	}
	if err != nil {
		return nil, err
	}
	// The source is read first: a live write comes to the target later, if at all.
	var keys []*record.Record
	for _, r := range all {
		keys = append(keys, r.key)
	}
	err = s.Target.Find(ctx, keys, func(i int, p connector.Page) error {
		r := &all[i]
		of := want.records[keyForm(r.key)]
		if len(of) > 0 {
			r.row = keyRecord(source, of[0].Origin.Key)
			r.source = encodeKey(of[0].Origin.Key)
		}
		if r.row == nil || !want.dead[keyForm(r.row)] {
			r.verdict = m.compare(of, p)
			if got, _ := latest(p); got != nil && m.view.Versions {
				r.got = got.Version
			}
		}
		return nil
	})
	return all, err
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
			byKind[p.Kind] = append(byKind[p.Kind], Example{Kind: p.Kind, Key: p.KeyText, Source: p.SourceKey,
				Fields: p.Fields})
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
