// Package shadow runs the transforms of two versions of a job over the same records and tells where the results
// differ, by sink, field and class. It writes nothing.
package shadow

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// The classes of differences.
const (
	OnlyOld   = "only in old"
	OnlyNew   = "only in new"
	Value     = "value changed"
	Type      = "type changed"
	Key       = "key changed"
	Version   = "version changed"
	Operation = "operation changed"
	DeadOld   = "dead in old"
	DeadNew   = "dead in new"
	DeadBoth  = "dead otherwise" // in both, with other codes
	FilterOld = "filtered in old"
	FilterNew = "filtered in new"
)

// Report is what a comparison has found.
type Report struct {
	Rows  int64  `json:"rows"`
	Sinks []Sink `json:"sinks"` // by name
}

// Sink is what differs at one sink.
type Sink struct {
	Name        string       `json:"name"`
	Only        string       `json:"only,omitempty"` // OnlyOld or OnlyNew: the other job has no such sink
	Same        int64        `json:"same"`           // rows
	Different   int64        `json:"different"`      // rows
	Old         Ends         `json:"old"`
	New         Ends         `json:"new"`
	Differences []Difference `json:"differences,omitempty"` // by field, those of whole records first
}

// Ends are how rows and what was made of them ended in one job.
type Ends struct {
	Records  int64 `json:"records"` // that the sink would get
	Filtered int64 `json:"filtered"`
	Dead     int64 `json:"dead"`
}

// Difference is one kind of difference.
type Difference struct {
	Field    string    `json:"field,omitempty"` // "": of the record
	Class    string    `json:"class"`
	Count    int64     `json:"count"`
	Examples []Example `json:"examples"`
}

// Example is one difference: the key of the row, and what the two jobs give, as JSON or as the code and message of a
// dead letter.
type Example struct {
	Key string `json:"key"`
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// Equal tells whether nothing differs.
func (r Report) Equal() bool {
	return !slices.ContainsFunc(r.Sinks, func(s Sink) bool { return s.Only != "" || s.Different > 0 })
}

// examples of each kind are kept, of different rows.
const examples = 3

// Comparison compares two jobs row by row. It is used by one goroutine.
type Comparison struct {
	was, is *job.Compiled
	rows    int64
	sinks   map[string]*sink
}

type sink struct {
	Sink
	kinds map[[2]string]*Difference // by field and class
}

// New compares two compiled jobs.
func New(was, is *job.Compiled) *Comparison {
	c := &Comparison{was: was, is: is, sinks: map[string]*sink{}}
	for name := range was.Sinks {
		c.sinks[name] = &sink{Sink: Sink{Name: name, Only: OnlyOld}, kinds: map[[2]string]*Difference{}}
	}
	for name := range is.Sinks {
		if c.sinks[name] == nil {
			c.sinks[name] = &sink{Sink: Sink{Name: name, Only: OnlyNew}, kinds: map[[2]string]*Difference{}}
		} else {
			c.sinks[name].Only = ""
		}
	}
	return c
}

// Add runs a row through both jobs; was and is are the row as each reads it, nil: it finds none. They are not
// changed. Its error is one of class Fatal of a transform.
func (c *Comparison) Add(was, is *record.Record) error {
	c.rows++
	olds, err := results(c.was, was)
	if err != nil {
		return err
	}
	news, err := results(c.is, is)
	if err != nil {
		return err
	}
	row := was
	if row == nil {
		row = is
	}
	for name, s := range c.sinks {
		before, after := olds[name], news[name]
		s.Old.add(before)
		s.New.add(after)
		if s.Only == "" {
			s.compare(row.KeyText(), before, after)
		}
	}
	return nil
}

// Report is what was found so far.
func (c *Comparison) Report() Report {
	r := Report{Rows: c.rows}
	for _, name := range slices.Sorted(maps.Keys(c.sinks)) {
		s := c.sinks[name]
		shown := s.Sink
		for _, d := range s.kinds {
			shown.Differences = append(shown.Differences, *d)
		}
		slices.SortFunc(shown.Differences, func(a, b Difference) int {
			return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Class, b.Class))
		})
		r.Sinks = append(r.Sinks, shown)
	}
	return r
}

// result is what becomes of one row at one sink.
type result struct {
	records  []*record.Record
	dead     []error
	filtered int64
}

func (e *Ends) add(r *result) {
	if r != nil {
		e.Records += int64(len(r.records))
		e.Filtered += r.filtered
		e.Dead += int64(len(r.dead))
	}
}

// results are what becomes of a row at each sink of a job.
func results(c *job.Compiled, row *record.Record) (map[string]*result, error) {
	all := map[string]*result{}
	for name := range c.Sinks {
		all[name] = &result{}
	}
	if row == nil {
		return all, nil
	}
	var fatal error
	apply := func(chain *transforms.Chain, r *record.Record, emit func(*record.Record), dead func(error)) int64 {
		return int64(chain.Apply(r, emit, func(_ *record.Record, step string, err error) {
			if fail.ClassOf(err) == fail.Fatal {
				fatal = err
			}
			dead(err)
		}))
	}
	filtered := apply(c.Shared, row.Clone(), func(r *record.Record) {
		for name, chain := range c.Sinks {
			at := all[name]
			at.filtered += apply(chain, r.Clone(), func(out *record.Record) { at.records = append(at.records, out) },
				func(err error) { at.dead = append(at.dead, err) })
		}
	}, func(err error) {
		for _, at := range all {
			at.dead = append(at.dead, err)
		}
	})
	for _, at := range all {
		at.filtered += filtered
	}
	return all, fatal
}

// compare finds what differs of one row.
func (s *sink) compare(key string, was, is *result) {
	different := false
	note := func(field, class, before, after string) {
		different = true
		at := [2]string{field, class}
		d := s.kinds[at]
		if d == nil {
			d = &Difference{Field: field, Class: class}
			s.kinds[at] = d
		}
		d.Count++
		n := len(d.Examples)
		if other := n == 0 || d.Examples[n-1].Key != key; other && n < examples {
			d.Examples = append(d.Examples, Example{key, before, after})
		}
	}
	deadWas, deadIs := letters(was.dead), letters(is.dead)
	codesWas, codesIs := codes(was.dead), codes(is.dead)
	switch {
	case slices.Equal(codesWas, codesIs):
	case len(codesIs) == 0:
		note("", DeadOld, deadWas, "")
	case len(codesWas) == 0:
		note("", DeadNew, "", deadIs)
	default:
		note("", DeadBoth, deadWas, deadIs)
	}
	switch {
	case len(was.records) == 1 && len(is.records) == 1:
		compareRecords(was.records[0], is.records[0], note)
	case len(is.records) == 0 && len(is.dead) == 0 && is.filtered > was.filtered:
		note("", FilterNew, shown(was.records), "")
	case len(was.records) == 0 && len(was.dead) == 0 && was.filtered > is.filtered:
		note("", FilterOld, "", shown(is.records))
	default:
		olds, news := byKey(was.records), byKey(is.records)
		for _, k := range slices.Sorted(maps.Keys(olds)) {
			if news[k] != nil {
				compareRecords(olds[k], news[k], note)
			} else if len(is.dead) <= len(was.dead) {
				note("", OnlyOld, shown([]*record.Record{olds[k]}), "")
			}
		}
		for _, k := range slices.Sorted(maps.Keys(news)) {
			if olds[k] == nil && len(was.dead) <= len(is.dead) {
				note("", OnlyNew, "", shown([]*record.Record{news[k]}))
			}
		}
	}
	if different {
		s.Different++
	} else {
		s.Same++
	}
}

func codes(errs []error) (all []string) {
	for _, err := range errs {
		all = append(all, fail.CodeOf(err))
	}
	return all
}

func letters(errs []error) string {
	if len(errs) == 0 {
		return ""
	}
	return errs[0].Error()
}

func shown(records []*record.Record) string {
	if len(records) == 0 {
		return ""
	}
	return string(records[0].AppendJSON(nil))
}

// byKey are records by key and, where several have one, their number.
func byKey(records []*record.Record) map[string]*record.Record {
	all := map[string]*record.Record{}
	for _, r := range records {
		key := r.KeyText()
		for n := 2; all[key] != nil; n++ {
			key = r.KeyText() + " " + strconv.Itoa(n)
		}
		all[key] = r
	}
	return all
}

// compareRecords finds what differs between two records, field by field. A field that is unset is not there.
func compareRecords(was, is *record.Record, note func(field, class, before, after string)) {
	if was.KeyText() != is.KeyText() {
		note("", Key, was.KeyText(), is.KeyText())
	}
	if was.Version != is.Version {
		note("", Version, strconv.FormatInt(was.Version, 10), strconv.FormatInt(is.Version, 10))
	}
	if was.Op != is.Op {
		note("", Operation, was.Op.String(), is.Op.String())
		return // a delete has no fields
	}
	text := func(r *record.Record, i int) string {
		return string(r.Values[i].AppendJSON(nil, r.Schema.Fields[i].Type))
	}
	there := func(r *record.Record, i int) bool { return i >= 0 && r.Values[i].Kind() != record.Unset }
	for i, f := range was.Schema.Fields {
		j := is.Schema.Index(f.Name)
		switch {
		case !there(was, i):
		case !there(is, j):
			note(f.Name, OnlyOld, text(was, i), "")
		case !f.Type.Same(is.Schema.Fields[j].Type):
			note(f.Name, Type, text(was, i)+" ("+f.Type.String()+")",
				text(is, j)+" ("+is.Schema.Fields[j].Type.String()+")")
		case !was.Values[i].Equal(is.Values[j]):
			note(f.Name, Value, text(was, i), text(is, j))
		}
	}
	for j, f := range is.Schema.Fields {
		if there(is, j) && !there(was, was.Schema.Index(f.Name)) {
			note(f.Name, OnlyNew, "", text(is, j))
		}
	}
}
