package connector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Kind is a kind of system as job files name it: {cassandra: {...}}. A system registers its own in its package;
// whatever works on job files knows kinds, not systems. What a kind can do beyond reading and writing its settings
// tell, by the interfaces below.
type Kind struct {
	Name      string
	Source    func() SourceConfig // settings with nothing set; nil: nothing is read so
	SourceDoc string              // a sentence on what is read, for the schema of job files
	Sink      func() SinkConfig   // nil: nothing is written so
	SinkDoc   string
	Internal  bool // stands in jobs that Reprise makes for itself, in no job file
}

// SourceConfig are the settings of a source: a pointer to a struct with JSON tags.
type SourceConfig interface {
	// Validate finds what the schema of the settings cannot say. It asks no system.
	Validate() []Fault

	// Open gives the source. It only allocates.
	Open(Need) (Source, error)
}

// SinkConfig are the settings of a sink: a pointer to a struct with JSON tags.
type SinkConfig interface {
	// Validate finds what the schema of the settings cannot say. It asks no system.
	Validate() []Fault

	// Open gives the sink. It only allocates.
	Open() (Sink, error)

	// Place names what is written to, for people and to tell whether two jobs write to the same; "": nothing.
	Place() string
}

// What settings of sources may tell beyond reading.
type (
	// WriteTimer is a source whose versions may be write times of rows that are read now: those go back when a value is
	// cleared. Others give versions that never do.
	WriteTimer interface{ WriteTimes() bool }

	// Unique is a source that gives each key once, as it is now. Repeats tells why it does not; "": it does. Of others
	// nothing is known.
	Unique interface{ Repeats() string }

	// Narrower is a source that can read less than all fields. Narrow gives one with nothing but the key of its schema
	// and some other fields.
	Narrower interface {
		Narrow(schema *record.Schema, also []string) SourceConfig
	}

	// Lookup is a source that finds rows by their keys and cannot be read from beginning to end.
	Lookup interface{ OnlyFinds() }

	// Lister is a source of which another one names the rows, so that reading it is the only way to learn which they
	// are.
	Lister interface{ Listed() bool }

	// Endless is a source that may go on until it is stopped. Ended gives the settings of one that reads the same up to
	// the end that it has now.
	Endless interface {
		Follows() bool
		Ended() SourceConfig
	}

	// Deletable is a source whose rows may be deleted by their versions. KeepWhole finds settings by which a version
	// would not be that of the whole row.
	Deletable interface{ KeepWhole() []Fault }
)

// What settings of sinks may tell beyond writing.
type (
	// ReadBack is a sink whose target can be read: by a source that gives what the sink got as records of a schema.
	ReadBack interface {
		ReadBack(schema *record.Schema) (SourceConfig, View, error)
	}

	// Queue is a sink that can hold dead letters, since it takes records of any schema. ReadQueue gives the source of
	// those that a run has written there; schema is that of dead letters.
	Queue interface {
		ReadQueue(run string, schema *record.Schema) SourceConfig
	}

	// Reduced is a sink that may leave fields of records out, by a setting. "": it writes all of them.
	Reduced interface{ Reduced() (setting string) }

	// CellWriter is a sink that needs the write time and expiry of each cell.
	CellWriter interface{ Cells() }

	// Partner is a sink that does not suit every source.
	Partner interface{ Suits(SourceConfig) []Fault }

	// OnceOnly is a sink to which each key must come once, by a setting, since of several records of a key it may keep
	// any. Key gives the fields that it tells rows apart by. "": it need not.
	OnceOnly interface {
		Once() (setting string)
		KeyFields(*record.Schema) ([]string, error)
	}

	// Bounded is a sink that makes dead letters of what goes beyond a bound, so that many in a row are no sign of a
	// fault.
	Bounded interface{ Bounds() bool }

	// Filer is a sink whose settings may name files. Beside finds those in the folder of the job file; Inline takes
	// their content into the settings, which travel to other machines.
	Filer interface {
		Beside(folder string)
		Inline()
	}

	// Trigger is a sink that starts something for each record and holds no rows, so that no run finds what an earlier
	// one has written.
	Trigger interface{ Triggers() }

	// Located is a sink whose Place may be that of several targets. Location tells those apart.
	Located interface{ Location() string }

	// Again is a sink that may want its target new. Again gives the settings for one that is there.
	Again interface{ Again() SinkConfig }
)

// NotVerified is the error of a target that is not read back.
func NotVerified(why string) error {
	return fail.Job("verify.no_source", "this target cannot be verified: %s", why).
		WithFix("name the sinks that can in verify.sinks")
}

// View is how the rows that a target gives differ from the records that went there.
type View struct {
	Names       map[string]string `json:"names,omitempty"`         // by field of the records: its name in the target, where that differs
	Leave       []string          `json:"leave,omitempty"`         // fields that the target does not hold
	EmptyIsNull bool              `json:"empty_is_null,omitempty"` // the target keeps no empty collections
	Versions    bool              `json:"versions,omitempty"`      // rows of the target tell their version
	ID          string            `json:"id,omitempty"`            // template of the target's key field "_id"; "": it has none
	Once        bool              `json:"once,omitempty"`          // the target holds each row once
	KeysAlone   bool              `json:"keys_alone,omitempty"`    // rows of the target hold nothing but their key and version
}

var (
	kinds   = map[string]Kind{}
	sources = map[reflect.Type]string{} // name of the kind by the type of its settings
	sinks   = map[reflect.Type]string{}
)

// Register makes a kind known, from an init function of its package. A name that is taken is a mistake of the program:
// it panics.
func Register(k Kind) {
	if _, taken := kinds[k.Name]; taken {
		panic(fmt.Sprintf("connector: the kind %q is registered twice", k.Name))
	}
	kinds[k.Name] = k
	if k.Source != nil {
		sources[reflect.TypeOf(k.Source())] = k.Name
	}
	if k.Sink != nil {
		sinks[reflect.TypeOf(k.Sink())] = k.Name
	}
}

// Kinds are all kinds that job files may name, in the order of their names.
func Kinds() (all []Kind) {
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if !kinds[name].Internal {
			all = append(all, kinds[name])
		}
	}
	return all
}

// KindOf is the kind of this name.
func KindOf(name string) (Kind, bool) {
	k, ok := kinds[name]
	return k, ok
}

// SourceSpec is a source in a job: its kind and its settings, {cassandra: {...}}. The zero value is none.
type SourceSpec struct {
	SourceConfig
	Also []string // kinds that stand there as well: a fault
}

// SinkSpec is a sink in a job: its kind and its settings. The zero value is none.
type SinkSpec struct {
	SinkConfig
	Also []string
}

// From is a source with these settings.
func From(c SourceConfig) SourceSpec { return SourceSpec{SourceConfig: c} }

// To is a sink with these settings.
func To(c SinkConfig) SinkSpec { return SinkSpec{SinkConfig: c} }

// Kind is the name of the source's kind; "": there is none, or it is one that no job file has.
func (s SourceSpec) Kind() string { return shown(sources[reflect.TypeOf(s.SourceConfig)]) }

// Kind is the name of the sink's kind; "": there is none, or it is one that no job file has.
func (s SinkSpec) Kind() string { return shown(sinks[reflect.TypeOf(s.SinkConfig)]) }

func shown(name string) string {
	if kinds[name].Internal {
		return ""
	}
	return name
}

// Validate finds what is wrong with the source, each at its path from the place where it stands.
func (s SourceSpec) Validate() []Fault {
	if len(s.Also) > 0 {
		return onlyOne("source", append(s.Also, s.Kind()))
	}
	if s.SourceConfig == nil {
		return needed(func(k Kind) bool { return k.Source != nil })
	}
	return Below(s.Kind(), s.SourceConfig.Validate())
}

// Scans finds a source that cannot be read from beginning to end, where it is to be.
func (s SourceSpec) Scans() []Fault {
	if _, lookup := s.SourceConfig.(Lookup); lookup {
		return []Fault{Faultf(s.Kind(),
			"a service that finds rows by their keys cannot be read from beginning to end; "+
				"use it as the table of a join")}
	}
	return nil
}

// Validate finds what is wrong with the sink, each at its path from the place where it stands.
func (s SinkSpec) Validate() []Fault {
	if len(s.Also) > 0 {
		return onlyOne("target", append(s.Also, s.Kind()))
	}
	if s.SinkConfig == nil {
		return needed(func(k Kind) bool { return k.Sink != nil })
	}
	return Below(s.Kind(), s.SinkConfig.Validate())
}

func onlyOne(what string, names []string) []Fault {
	slices.Sort(names)
	return []Fault{Faultf("", "only one %s is allowed here, not %s", what, strings.Join(names, " and "))}
}

func needed(fits func(Kind) bool) []Fault {
	var names []string
	for _, k := range Kinds() {
		if fits(k) {
			names = append(names, k.Name)
		}
	}
	return []Fault{Faultf("", "one of these is needed: %s", strings.Join(names, ", "))}
}

// Below puts faults below a path.
func Below(path string, faults []Fault) []Fault {
	for i, f := range faults {
		faults[i].Path = strings.Trim(path+"."+f.Path, ".")
	}
	return faults
}

// Open gives the source. It only allocates.
func (s SourceSpec) Open(need Need) (Source, error) {
	if s.SourceConfig == nil {
		return nil, fmt.Errorf("there is no source")
	}
	return s.SourceConfig.Open(need.Within(s.Kind()))
}

// Open gives the sink. It only allocates.
func (s SinkSpec) Open() (Sink, error) {
	if s.SinkConfig == nil {
		return nil, fmt.Errorf("there is no target")
	}
	return s.SinkConfig.Open()
}

// Place names what the sink writes to.
func (s SinkSpec) Place() string {
	if s.SinkConfig == nil {
		return ""
	}
	return s.SinkConfig.Place()
}

// Finder opens a source that finds rows by their keys; an error where it does not.
func (s SourceSpec) Finder(need Need) (Finder, error) {
	source, err := s.Open(need)
	if err != nil {
		return nil, err
	}
	if finder, ok := source.(Finder); ok {
		return finder, nil
	}
	source.Close()
	return nil, fail.New(fail.Fatal, "internal.no_finder", "the source finds no rows by key")
}

// Finds tells whether single rows are found by their keys.
func (s SourceSpec) Finds() bool {
	finder, err := s.Finder(Need{})
	if err == nil {
		finder.Close()
	}
	return err == nil
}

// WriteTimes tells whether the versions of records are write times of rows that are read now.
func (s SourceSpec) WriteTimes() bool {
	w, ok := s.SourceConfig.(WriteTimer)
	return ok && w.WriteTimes()
}

// Repeats tells why a source may give a key more than once, or older than it is now; "": it does not.
func (s SourceSpec) Repeats() string {
	if u, ok := s.SourceConfig.(Unique); ok {
		return u.Repeats()
	}
	return "a source of kind " + s.Kind() + " may hold several records of a key"
}

// Listed tells whether another source names the rows.
func (s SourceSpec) Listed() bool {
	l, ok := s.SourceConfig.(Lister)
	return ok && l.Listed()
}

// Follows tells whether reading the source goes on until it is stopped.
func (s SourceSpec) Follows() bool {
	e, ok := s.SourceConfig.(Endless)
	return ok && e.Follows()
}

// Ended is the source up to the end that it has now.
func (s SourceSpec) Ended() SourceSpec {
	if s.Follows() {
		return From(s.SourceConfig.(Endless).Ended())
	}
	return s
}

// Narrow is the source with nothing but its key and some other fields, where it can read less than all.
func (s SourceSpec) Narrow(schema *record.Schema, also []string) SourceSpec {
	if n, ok := s.SourceConfig.(Narrower); ok {
		return From(n.Narrow(schema, also))
	}
	return s
}

// ReadBack gives the source that reads what the sink wrote of records of a schema, and how its rows are those records.
func (s SinkSpec) ReadBack(schema *record.Schema) (SourceSpec, View, error) {
	r, ok := s.SinkConfig.(ReadBack)
	if !ok {
		return SourceSpec{}, View{}, NotVerified("nothing reads it back")
	}
	source, view, err := r.ReadBack(schema)
	if err != nil {
		return SourceSpec{}, view, err
	}
	return From(source), view, nil
}

// MarshalJSON gives {KIND: SETTINGS}.
func (s SourceSpec) MarshalJSON() ([]byte, error) {
	return wrap(sources[reflect.TypeOf(s.SourceConfig)], s.SourceConfig)
}

// MarshalJSON gives {KIND: SETTINGS}.
func (s SinkSpec) MarshalJSON() ([]byte, error) {
	return wrap(sinks[reflect.TypeOf(s.SinkConfig)], s.SinkConfig)
}

func wrap(kind string, config any) ([]byte, error) {
	if config == nil {
		return []byte("{}"), nil
	}
	if kind == "" {
		return nil, fmt.Errorf("settings of type %T belong to no kind that is registered", config)
	}
	return json.Marshal(map[string]any{kind: config})
}

// UnmarshalJSON reads {KIND: SETTINGS}.
func (s *SourceSpec) UnmarshalJSON(text []byte) (err error) {
	*s = SourceSpec{}
	s.Also, err = unwrap(text, "source", func(k Kind) any {
		if k.Source == nil {
			return nil
		}
		s.SourceConfig = k.Source()
		return s.SourceConfig
	})
	return err
}

// UnmarshalJSON reads {KIND: SETTINGS}.
func (s *SinkSpec) UnmarshalJSON(text []byte) (err error) {
	*s = SinkSpec{}
	s.Also, err = unwrap(text, "sink", func(k Kind) any {
		if k.Sink == nil {
			return nil
		}
		s.SinkConfig = k.Sink()
		return s.SinkConfig
	})
	return err
}

// unwrap reads the settings of the first kind, in the order of the names, and gives the names of further ones.
func unwrap(text []byte, what string, settings func(Kind) any) (also []string, err error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	var config any
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if bytes.Equal(all[name], []byte("null")) {
			continue
		}
		if config != nil {
			also = append(also, name)
			continue
		}
		if config = settings(kinds[name]); config == nil {
			return nil, fmt.Errorf("this program knows no %s of kind %q", what, name)
		}
		if err := json.Unmarshal(all[name], config); err != nil {
			return nil, err
		}
	}
	return also, nil
}
