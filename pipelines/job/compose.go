package job

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"reprise/io/compose"
	"reprise/io/connector"
)

// Keys are the settings of rows whose keys another source gives.
type Keys struct {
	From    Source `json:"from" jsonschema:"required" jsonschema_description:"Where the keys are: a list in files, a query of Elasticsearch, a manifest. It needs a field for each key field of the table, of the same name and type, or a text; others do no harm."`
	Of      Source `json:"of" jsonschema:"required" jsonschema_description:"Where the rows are: a source that finds single rows by their keys, such as Cassandra."`
	Missing string `json:"missing,omitempty" jsonschema:"enum=dead,enum=filter" jsonschema_description:"What becomes of a key without a row: a dead letter (dead, the default), or filtered (filter)."`
	Floor   string `json:"floor,omitempty" jsonschema_description:"Field of the keys (bigint, microseconds since 1970) with the lowest version that the row is given, so that it replaces what a target holds of before: the repair jobs of reprise verify have it. Default: none, only write times decide."`
}

// Union are the settings of several sources as one.
type Union struct {
	Of          []Source `json:"of" jsonschema:"required,minItems=1" jsonschema_description:"Sources with the same key. Fields of the same name must have the same type; what a source does not have is unset in its records. Of two rows with the same key and version, that of the source that stands first is read: put the one that rows are copied from before the one that they are copied to."`
	Deduplicate *bool    `json:"deduplicate,omitempty" jsonschema_description:"Leave out rows that another source has in a later version, by looking each up there: all sources but the last must find single rows by their keys, and read their whole table. A row that was written after the run began may come twice; the later version wins at the sinks. Default: true."`
}

// Join are the settings of a source with fields of other tables added.
type Join struct {
	Of   Source          `json:"of" jsonschema:"required" jsonschema_description:"The source."`
	With map[string]Side `json:"with" jsonschema:"required" jsonschema_description:"Tables whose fields are added, each by a name of your own."`
}

// Side are the settings of a table whose fields are added.
type Side struct {
	Of        Source             `json:"of" jsonschema:"required" jsonschema_description:"The table: a source that finds single rows by their keys, or with broadcast any."`
	On        map[string]string  `json:"on" jsonschema:"required" jsonschema_description:"For each field of the table's key the field of the row that has its value, as FIELD OF THE ROW: FIELD OF THE KEY. A row where one has no value has no row in the table."`
	Fields    map[string]string  `json:"fields" jsonschema:"required" jsonschema_description:"The fields to add, as NEW NAME: FIELD OF THE TABLE. A key field of the table tells whether there was a row."`
	Missing   string             `json:"missing,omitempty" jsonschema:"enum=empty,enum=dead,enum=filter" jsonschema_description:"What becomes of a row that has none in the table: its new fields are null (empty, the default), it is a dead letter (dead) or filtered (filter)."`
	Broadcast bool               `json:"broadcast,omitempty" reprise:"tuning" jsonschema_description:"Read the whole table once into the memory of each worker. Default: false, its rows are looked up by their keys."`
	Memory    connector.Bytes    `json:"memory,omitempty" reprise:"tuning" jsonschema_description:"With broadcast, the most that the table may take there; the plan refuses a larger one. Default: 64MiB."`
	Cache     connector.Bytes    `json:"cache,omitempty" reprise:"tuning" jsonschema_description:"Without broadcast, bytes of rows that each worker keeps after they were looked up. Default: 16MiB."`
	CacheFor  connector.Duration `json:"cache_for,omitempty" reprise:"tuning" jsonschema_description:"How long a row that was looked up is used again. Default: 1m."`
}

// within is a need of a source that stands within another's settings.
func within(need connector.Need, path string) connector.Need {
	need.At = join(need.At, path)
	return need
}

func (k Keys) open(need connector.Need) (connector.Source, error) {
	from, err := k.From.Open(within(compose.KeysNeed(need), "from"))
	if err != nil {
		return nil, err
	}
	of, err := k.Of.Open(within(need, "of"))
	if err != nil {
		return nil, err
	}
	finder, ok := of.(connector.Finder)
	if !ok {
		return nil, fmt.Errorf("keys: the source of the rows cannot find single rows by their keys")
	}
	return compose.NewKeys(from, finder, def(k.Missing, compose.MissingDead), k.Floor), nil
}

func (u Union) open(need connector.Need) (connector.Source, error) {
	var parts []connector.Source
	for i, s := range u.Of {
		part, err := s.Open(within(need, fmt.Sprintf("of.%d", i)))
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return compose.NewUnion(parts, u.deduplicate(), need.Started), nil
}

func (u Union) deduplicate() bool { return u.Deduplicate == nil || *u.Deduplicate }

func (j Join) open(need connector.Need) (connector.Source, error) {
	of, err := j.Of.Open(within(need, "of"))
	if err != nil {
		return nil, err
	}
	need.Cells = false // of the rows alone
	var sides []compose.Side
	for _, name := range slices.Sorted(maps.Keys(j.With)) {
		s := j.With[name]
		table, err := s.Of.Open(within(need, "with."+name+".of"))
		if err != nil {
			return nil, err
		}
		if _, ok := table.(connector.Finder); !ok && !s.Broadcast {
			return nil, fmt.Errorf("join: the table %s cannot find single rows by their keys", name)
		}
		sides = append(sides, compose.Side{Name: name, Of: table, On: s.On, Fields: s.Fields, Missing: def(s.Missing, compose.MissingEmpty), Broadcast: s.Broadcast,
			Memory: s.Memory.Or(defaultSideMemory), Cache: s.Cache.Or(defaultSideCache), CacheFor: s.CacheFor.Or(defaultCacheFor)})
	}
	return compose.NewJoin(of, sides...), nil
}

// Validate finds what the schema of the settings cannot say.
func (k Keys) Validate() []connector.Fault {
	faults := slices.Concat(nested("from", k.From), k.From.readable("from"), nested("of", k.Of))
	if len(faults) == 0 && !k.Of.finds() {
		faults = append(faults, connector.Faultf("of", "%s cannot find single rows by their keys; Cassandra can", k.Of.kind()))
	}
	return faults
}

// Validate finds what the schema of the settings cannot say.
func (u Union) Validate() (faults []connector.Fault) {
	for i, s := range u.Of {
		path := fmt.Sprintf("of.%d", i)
		faults = slices.Concat(faults, nested(path, s), s.readable(path))
	}
	if len(faults) > 0 || !u.deduplicate() {
		return faults
	}
	for i, s := range u.Of[:max(1, len(u.Of))-1] {
		part, err := s.Open(connector.Need{})
		if err != nil {
			continue
		}
		if err := compose.Rival(part); err != nil {
			faults = append(faults, connector.Faultf(fmt.Sprintf("of.%d", i), "rows of the others cannot be looked up here: %v; put it last, or say deduplicate: false", err))
		}
	}
	return faults
}

// Validate finds what the schema of the settings cannot say.
func (j Join) Validate() []connector.Fault {
	faults := append(nested("of", j.Of), j.Of.readable("of")...)
	if len(j.With) == 0 {
		faults = append(faults, connector.Faultf("with", "name at least one table"))
	}
	for _, name := range slices.Sorted(maps.Keys(j.With)) {
		s, path := j.With[name], "with."+name
		wrong := nested(path+".of", s.Of)
		if s.Broadcast {
			wrong = append(wrong, s.Of.readable(path+".of")...)
		}
		if len(wrong) == 0 && !s.Broadcast && !s.Of.finds() {
			wrong = append(wrong, connector.Faultf(path+".of", "%s cannot find single rows by their keys; say broadcast: true, so that the table is read into memory", s.Of.kind()))
		}
		if len(s.On) == 0 {
			wrong = append(wrong, connector.Faultf(path+".on", "name the field of the row for each field of the table's key"))
		}
		if len(s.Fields) == 0 {
			wrong = append(wrong, connector.Faultf(path+".fields", "name at least one field to add"))
		}
		if s.Broadcast && (s.Cache > 0 || s.CacheFor > 0) || !s.Broadcast && s.Memory > 0 {
			wrong = append(wrong, connector.Faultf(path, "memory belongs to broadcast, cache and cache_for to tables that are looked up"))
		}
		seen := map[string]string{}
		for _, field := range slices.Sorted(maps.Keys(s.On)) {
			if other := seen[s.On[field]]; other != "" {
				wrong = append(wrong, connector.Faultf(path+".on."+field, "%s has its value from %s already", s.On[field], other))
			}
			seen[s.On[field]] = field
		}
		faults = append(faults, wrong...)
	}
	return faults
}

// nested are the faults of a source within another.
func nested(path string, s Source) (faults []connector.Fault) {
	kinds := s.kinds()
	if len(kinds) != 1 {
		return []connector.Fault{connector.Faultf(path, "exactly one kind of source is needed, not %d", len(kinds))}
	}
	for kind, v := range kinds {
		for _, f := range v.Validate() {
			f.Path = join(path+"."+kind, f.Path)
			faults = append(faults, f)
		}
	}
	return faults
}

// readable finds a source that cannot be read from beginning to end, where it is to be.
func (s Source) readable(path string) []connector.Fault {
	if s.HTTP == nil {
		return nil
	}
	return []connector.Fault{connector.Faultf(path+".http", "a service that finds rows by their keys cannot be read from beginning to end; use it as the table of a join")}
}

// finds tells whether single rows are found by their keys.
func (s Source) finds() bool {
	opened, err := s.Open(connector.Need{})
	_, ok := opened.(connector.Finder)
	return ok && err == nil
}

// Listed tells whether another source names the rows, so that reading it is the only way to learn which they are.
func (s Source) Listed() bool {
	switch {
	case s.Keys != nil, s.Deleted != nil:
		return true
	case s.Union != nil:
		return slices.ContainsFunc(s.Union.Of, Source.Listed)
	case s.Join != nil:
		return s.Join.Of.Listed()
	case s.Marked != nil:
		return s.Marked.Of.Listed()
	}
	return false
}

// kind is what kind of source it is.
func (s Source) kind() string { return strings.Join(slices.Sorted(maps.Keys(s.kinds())), ", ") }
