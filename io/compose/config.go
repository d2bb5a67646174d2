package compose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"reprise/io/connector"
)

func init() {
	connector.Register(connector.Kind{Name: "keys",
		Source:    func() connector.SourceConfig { return new(KeysConfig) },
		SourceDoc: "The current rows of keys that another source provides."})
	connector.Register(connector.Kind{Name: "union",
		Source:    func() connector.SourceConfig { return new(UnionConfig) },
		SourceDoc: "Several sources with the same key, read as one."})
	connector.Register(connector.Kind{Name: "join",
		Source:    func() connector.SourceConfig { return new(JoinConfig) },
		SourceDoc: "A source with fields of other tables added to each row, which keeps its version."})
}

// The defaults of a table of a join.
const (
	defaultSideMemory = 64 << 20
	defaultSideCache  = 16 << 20
	defaultCacheFor   = time.Minute
)

// KeysConfig are the settings of rows whose keys another source gives.
type KeysConfig struct {
	From    connector.SourceSpec `json:"from" jsonschema:"required" jsonschema_description:"Where the keys are: a list in files, a query of Elasticsearch, a manifest. It needs a field for each key field of the table, of the same name and type, or a text; others do no harm."`
	Of      connector.SourceSpec `json:"of" jsonschema:"required" jsonschema_description:"Where the rows are: a source that finds single rows by their keys, such as Cassandra."`
	Missing string               `json:"missing,omitempty" jsonschema:"enum=dead,enum=filter" jsonschema_description:"What happens to a key without a row: it becomes a dead letter (dead, the default) or is filtered (filter)."`
	Floor   string               `json:"floor,omitempty" jsonschema_description:"Field of the keys (bigint, microseconds since 1970) with the lowest version that the row may get, so that it replaces what the target held before; the repair jobs of reprise verify use it. Default: none, only write times decide."`
}

// UnionConfig are the settings of several sources as one.
type UnionConfig struct {
	Of          []connector.SourceSpec `json:"of" jsonschema:"required,minItems=1" jsonschema_description:"Sources with the same key. Fields of the same name must have the same type; what a source does not have is unset in its records. Of two rows with the same key and version, that of the source that stands first is read: put the one that rows are copied from before the one that they are copied to."`
	Deduplicate *bool                  `json:"deduplicate,omitempty" jsonschema_description:"Leave out rows that another source has in a later version, by looking each up there: all sources but the last must find single rows by their keys, and read their whole table. A row that was written after the run began may come twice; the later version wins at the sinks. Default: true."`
}

// JoinConfig are the settings of a source with fields of other tables added.
type JoinConfig struct {
	Of   connector.SourceSpec  `json:"of" jsonschema:"required" jsonschema_description:"The source."`
	With map[string]SideConfig `json:"with" jsonschema:"required" jsonschema_description:"Tables whose fields are added, each by a name of your own."`
}

// SideConfig are the settings of a table whose fields are added.
type SideConfig struct {
	Of        connector.SourceSpec `json:"of" jsonschema:"required" jsonschema_description:"The table: a source that finds single rows by their keys, or with broadcast any."`
	On        map[string]string    `json:"on" jsonschema:"required" jsonschema_description:"For each field of the table's key the field of the row that has its value, as FIELD OF THE ROW: FIELD OF THE KEY. A row where one has no value has no row in the table."`
	Fields    map[string]string    `json:"fields" jsonschema:"required" jsonschema_description:"The fields to add, as NEW NAME: FIELD OF THE TABLE. A key field of the table tells whether there was a row."`
	Missing   string               `json:"missing,omitempty" jsonschema:"enum=empty,enum=dead,enum=filter" jsonschema_description:"What happens to a row with no match in the table: its new fields are null (empty, the default), it becomes a dead letter (dead), or it is filtered (filter)."`
	Broadcast bool                 `json:"broadcast,omitempty" reprise:"tuning" jsonschema_description:"Read the whole table once into the memory of each worker. Default: false, its rows are looked up by their keys."`
	Memory    connector.Bytes      `json:"memory,omitempty" reprise:"tuning" jsonschema_description:"With broadcast, the most that the table may take there; the plan refuses a larger one. Default: 64MiB."`
	Cache     connector.Bytes      `json:"cache,omitempty" reprise:"tuning" jsonschema_description:"Without broadcast, how many bytes of looked-up rows each worker caches. Default: 16MiB."`
	CacheFor  connector.Duration   `json:"cache_for,omitempty" reprise:"tuning" jsonschema_description:"How long a cached row is used. Default: 1m."`
}

func (k KeysConfig) Open(need connector.Need) (connector.Source, error) {
	from, err := k.From.Open(KeysNeed(need).Within("from"))
	if err != nil {
		return nil, err
	}
	of, err := k.Of.Open(need.Within("of"))
	if err != nil {
		return nil, err
	}
	finder, ok := of.(connector.Finder)
	if !ok {
		return nil, fmt.Errorf("keys: the source of the rows cannot find single rows by their keys")
	}
	return NewKeys(from, finder, cmp.Or(k.Missing, MissingDead), k.Floor), nil
}

func (u UnionConfig) Open(need connector.Need) (connector.Source, error) {
	var parts []connector.Source
	for i, s := range u.Of {
		part, err := s.Open(need.Within(fmt.Sprintf("of.%d", i)))
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return NewUnion(parts, u.deduplicate(), need.Started), nil
}

func (u UnionConfig) deduplicate() bool { return u.Deduplicate == nil || *u.Deduplicate }

func (j JoinConfig) Open(need connector.Need) (connector.Source, error) {
	of, err := j.Of.Open(need.Within("of"))
	if err != nil {
		return nil, err
	}
	need.Cells = false // of the rows alone
	var sides []Side
	for _, name := range slices.Sorted(maps.Keys(j.With)) {
		s := j.With[name]
		table, err := s.Of.Open(need.Within("with." + name + ".of"))
		if err != nil {
			return nil, err
		}
		if _, ok := table.(connector.Finder); !ok && !s.Broadcast {
			return nil, fmt.Errorf("join: the table %s cannot find single rows by their keys", name)
		}
		sides = append(sides, Side{Name: name, Of: table, On: s.On, Fields: s.Fields,
			Missing: cmp.Or(s.Missing, MissingEmpty), Broadcast: s.Broadcast,
			Memory: s.Memory.Or(defaultSideMemory), Cache: s.Cache.Or(defaultSideCache),
			CacheFor: s.CacheFor.Or(defaultCacheFor)})
	}
	return NewJoin(of, sides...), nil
}

// Validate finds what the schema of the settings cannot say.
func (k KeysConfig) Validate() []connector.Fault {
	faults := slices.Concat(scanned("from", k.From), connector.Below("of", k.Of.Validate()), ends("of", k.Of))
	if len(faults) == 0 && !k.Of.Finds() {
		faults = append(faults, connector.Faultf("of", "%s cannot find single rows by their keys; Cassandra can",
			k.Of.Kind()))
	}
	return faults
}

// Validate finds what the schema of the settings cannot say.
func (u UnionConfig) Validate() (faults []connector.Fault) {
	for i, s := range u.Of {
		at := fmt.Sprintf("of.%d", i)
		faults = append(faults, append(scanned(at, s), ends(at, s)...)...)
	}
	if len(faults) > 0 || !u.deduplicate() {
		return faults
	}
	for i, s := range u.Of[:max(1, len(u.Of))-1] {
		part, err := s.Open(connector.Need{})
		if err != nil {
			continue
		}
		if err := Rival(part); err != nil {
			faults = append(faults, connector.Faultf(fmt.Sprintf("of.%d", i),
				"rows of the others cannot be looked up here: %v; put it last, or say deduplicate: false", err))
		}
	}
	return faults
}

// Validate finds what the schema of the settings cannot say.
func (j JoinConfig) Validate() []connector.Fault {
	faults := scanned("of", j.Of)
	if len(j.With) == 0 {
		faults = append(faults, connector.Faultf("with", "name at least one table"))
	}
	for _, name := range slices.Sorted(maps.Keys(j.With)) {
		s, path := j.With[name], "with."+name
		wrong := append(connector.Below(path+".of", s.Of.Validate()), ends(path+".of", s.Of)...)
		if s.Broadcast {
			wrong = append(wrong, connector.Below(path+".of", s.Of.Scans())...)
		}
		if len(wrong) == 0 && !s.Broadcast && !s.Of.Finds() {
			wrong = append(wrong, connector.Faultf(path+".of",
				"%s cannot find single rows by their keys; say broadcast: true, so that the table is read into memory",
				s.Of.Kind()))
		}
		if len(s.On) == 0 {
			wrong = append(wrong, connector.Faultf(path+".on",
				"name the field of the row for each field of the table's key"))
		}
		if len(s.Fields) == 0 {
			wrong = append(wrong, connector.Faultf(path+".fields", "name at least one field to add"))
		}
		if s.Broadcast && (s.Cache > 0 || s.CacheFor > 0) || !s.Broadcast && s.Memory > 0 {
			wrong = append(wrong, connector.Faultf(path,
				"memory belongs to broadcast, cache and cache_for to tables that are looked up"))
		}
		seen := map[string]string{}
		for _, field := range slices.Sorted(maps.Keys(s.On)) {
			if other := seen[s.On[field]]; other != "" {
				wrong = append(wrong, connector.Faultf(path+".on."+field, "%s has its value from %s already",
					s.On[field], other))
			}
			seen[s.On[field]] = field
		}
		faults = append(faults, wrong...)
	}
	return faults
}

// scanned are the faults of a source within another that is read from beginning to end.
func scanned(path string, s connector.SourceSpec) []connector.Fault {
	return connector.Below(path, append(s.Validate(), s.Scans()...))
}

// ends finds a source that never ends, where it must.
func ends(path string, s connector.SourceSpec) []connector.Fault {
	if s.Follows() {
		return []connector.Fault{connector.Faultf(path, "this source would never end here; leave out follow")}
	}
	return nil
}

// Follows implements connector.Endless.
func (k KeysConfig) Follows() bool { return k.From.Follows() }

// Ended implements connector.Endless.
func (k KeysConfig) Ended() connector.SourceConfig {
	k.From = k.From.Ended()
	return &k
}

// Follows implements connector.Endless.
func (j JoinConfig) Follows() bool { return j.Of.Follows() }

// Ended implements connector.Endless.
func (j JoinConfig) Ended() connector.SourceConfig {
	j.Of = j.Of.Ended()
	return &j
}

// WriteTimes implements connector.WriteTimer.
func (k KeysConfig) WriteTimes() bool { return k.Of.WriteTimes() }

// WriteTimes implements connector.WriteTimer. Without deduplicate there are several records of a key, of which write
// times tell the newest.
func (u UnionConfig) WriteTimes() bool {
	return u.deduplicate() && slices.ContainsFunc(u.Of, connector.SourceSpec.WriteTimes)
}

// WriteTimes implements connector.WriteTimer.
func (j JoinConfig) WriteTimes() bool { return j.Of.WriteTimes() }

// Repeats implements connector.Unique. A list of keys may name one twice, unless it is Reprise's own.
func (k KeysConfig) Repeats() string {
	if k.Of.Kind() == "" {
		return k.Of.Repeats()
	}
	return "a source of kind keys may hold several records of a key"
}

// Repeats implements connector.Unique.
func (j JoinConfig) Repeats() string { return j.Of.Repeats() }

// Listed implements connector.Lister.
func (KeysConfig) Listed() bool { return true }

// Listed implements connector.Lister.
func (u UnionConfig) Listed() bool { return slices.ContainsFunc(u.Of, connector.SourceSpec.Listed) }

// Listed implements connector.Lister.
func (j JoinConfig) Listed() bool { return j.Of.Listed() }
