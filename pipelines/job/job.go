// Package job is the job file: what it may say, its defaults, and what is wrong with one.
//
// A job names a source, transforms, sinks, where dead letters go, and limits. Each system's own settings stand in its
// package, which registers them as a kind (connector.Register); this package knows kinds, not systems.
package job

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/journal"
	"reprise/pipelines/pace"
	"reprise/pipelines/verify/compare"
	"reprise/transforms"
)

// Job is a job file.
type Job struct {
	Name        string               `json:"name" jsonschema:"required,pattern=^[A-Za-z0-9][A-Za-z0-9._-]*$,example=assets-to-iceberg" jsonschema_description:"What the job is called in reports, file names, headers and snapshots."`
	Source      connector.SourceSpec `json:"source" jsonschema:"required" jsonschema_description:"What is read: exactly one kind."`
	Transforms  []transforms.Spec    `json:"transforms,omitempty" jsonschema_description:"What happens to each record, in this order; 'reprise transforms' explains them."`
	Sinks       map[string]Sink      `json:"sinks" jsonschema:"required" jsonschema_description:"Where records go, each sink by a name of your own. All are fed by one scan; each has its own outcomes."`
	DeadLetters *connector.SinkSpec  `json:"dead_letters,omitempty" jsonschema_description:"Where records that could not be processed go: exactly one kind. Default: JSON lines in the folder dead-letters/NAME."`
	Retry       *Retry               `json:"retry,omitempty" jsonschema_description:"Of a run that goes on (follow): sends dead letters again by itself that failed by something that may pass, such as a service that answered 503."`
	Purge       *Purge               `json:"purge,omitempty" jsonschema_description:"Makes the job one that deletes what it reads, by the steps of reprise purge."`
	Limits      Limits               `json:"limits,omitempty" jsonschema_description:"How much memory the run may use, how many failures it may have, and how its work is divided."`
	Canary      *Canary              `json:"canary,omitempty" jsonschema_description:"Parts of the source to process first, and to check before the rest."`
	Pace        pace.Config          `json:"pace,omitzero" jsonschema_description:"How fast the run may go, and what slows it down."`
	Verify      compare.Config       `json:"verify,omitzero" jsonschema_description:"What 'reprise verify' tolerates."`
	EarlierRuns string               `json:"earlier_runs,omitempty" jsonschema:"enum=replace,enum=keep" jsonschema_description:"What earlier runs wrote to the same targets, by the journal. replace (default): what the source shows now takes its place, also where write times went back since values were deleted, have expired or left a collection; production's newer writes win as always. keep: only newer write times win. Concerns sources whose versions are Cassandra's write times, and sinks each of whose rows is made of one row of the source."`
	Journal     *journal.Config      `json:"journal,omitempty" jsonschema_description:"Where the state of runs is kept: every worker must reach it. Default: {sqlite: .reprise/journal.db}."`

	file *file // that it was read from; nil: none
}

// Sink is a target with what goes there.
type Sink struct {
	connector.SinkSpec
	Route
}

// Route says which records get to a sink, and how.
type Route struct {
	When       string            `json:"when,omitempty" jsonschema_description:"CEL condition on a record as it leaves the job's transforms: others are 'filtered' for this sink."`
	Transforms []transforms.Spec `json:"transforms,omitempty" jsonschema_description:"Further transforms for this sink alone."`
	After      []string          `json:"after,omitempty" jsonschema_description:"Sinks that come first: a record reaches this one once they have finished it, and not at all if it failed there. In a purge, children before parents."`
}

// MarshalJSON gives {KIND: SETTINGS, when: ...}.
func (s Sink) MarshalJSON() ([]byte, error) {
	target, err := json.Marshal(s.SinkSpec)
	if err != nil {
		return nil, err
	}
	route, err := json.Marshal(s.Route)
	if err != nil {
		return nil, err
	}
	if len(target) > len("{}") && len(route) > len("{}") {
		target = append(target[:len(target)-1], ',')
		return append(target, route[1:]...), nil
	}
	if len(route) > len("{}") {
		return route, nil
	}
	return target, nil
}

// UnmarshalJSON reads {KIND: SETTINGS, when: ...}.
func (s *Sink) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &s.Route); err != nil {
		return err
	}
	var target map[string]json.RawMessage
	if err := json.Unmarshal(text, &target); err != nil {
		return err
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Route]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		delete(target, name)
	}
	text, err := json.Marshal(target)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &s.SinkSpec)
}

// Canary is how a run tries itself out.
type Canary struct {
	Stages      []float64 `json:"stages" jsonschema:"required,minItems=1" jsonschema_description:"Percentages of the partitions, rising, as in [1, 10]: each is done before the next begins, and all of them at last. At least one partition."`
	DeadLetters string    `json:"dead_letters,omitempty" jsonschema:"pattern=^[0-9]+(\\.[0-9]+)?%?$,example=0.1%" jsonschema_description:"More dead letters than this number, or percentage of the records read, after a stage pause the run. Default: 1%."`
	Wait        bool      `json:"wait,omitempty" jsonschema_description:"Pause after each stage; 'reprise resume RUN' goes on with the next."`
}

const defaultCanaryDead = "1%"

// Spent tells why a run pauses after a stage; "": it goes on.
func (c *Canary) Spent(percent float64, dead, read int64) string {
	switch {
	case tooMany(c.DeadLetters, dead, read):
		return fmt.Sprintf("the canary of %g %% has %d dead letters of %d records, more than %s", percent, dead, read,
			c.DeadLetters)
	case c.Wait:
		return fmt.Sprintf("the canary of %g %% is done: look at what it did", percent)
	}
	return ""
}

// Limits bound a run.
type Limits struct {
	DeadLetters string          `json:"dead_letters,omitempty" jsonschema:"pattern=^[0-9]+(\\.[0-9]+)?%?$,example=100,example=1%" jsonschema_description:"Dead letters above this number, or percentage of the records read ('1%'), make the run exit with 4. Default: no limit."`
	SplitRows   int64           `json:"split_rows,omitempty" jsonschema:"minimum=1" jsonschema_description:"No split is planned larger than this number of rows. Default: 20000."`
	SplitBytes  connector.Bytes `json:"split_bytes,omitempty" jsonschema_description:"No split is planned larger than this. Default: 64MiB."`
	Readers     int             `json:"readers,omitempty" jsonschema:"minimum=1,maximum=256" jsonschema_description:"Splits that each worker reads at once. Default: 4."`
	ReadAhead   connector.Bytes `json:"read_ahead,omitempty" jsonschema_description:"Bytes of records that each worker holds at once, from reading to the sinks' answers. Default: 32MiB."`
	Unfinished  string          `json:"unfinished,omitempty" jsonschema:"pattern=^[0-9]+(\\.[0-9]+)?%?$,example=1%,example=20000" jsonschema_description:"Rows, or percentage of the planned rows, that may be read and not yet finished everywhere: at most this many are read again after a crash. Iceberg and files sinks close their files this often. Default: 1%, and at least 4000; 20000 where the source goes on (follow)."`
	CommitEvery *CommitEvery    `json:"commit_every,omitempty" jsonschema_description:"Of a run that goes on (follow): how often sinks commit that make their writes visible by a commit, such as Iceberg and files. Default: {time: 1m}."`
	ErrorBudget *ErrorBudget    `json:"error_budget,omitempty" jsonschema_description:"How many dead letters end the run early, before the queue fills; it can be resumed. Default: 25 of the last 30 records; none where a sink limits its deletes."`
	Memory      connector.Bytes `json:"memory,omitempty" jsonschema_description:"Bytes of memory that the garbage collector of each worker aims to stay below. Default: 256MiB."`
}

// CommitEvery bounds what is written and not yet visible. Whatever is reached first makes a commit; 0 is no bound.
type CommitEvery struct {
	Time  connector.Duration `json:"time,omitempty" jsonschema_description:"Since the last commit, where something was written."`
	Rows  int64              `json:"rows,omitempty" jsonschema:"minimum=1" jsonschema_description:"Rows."`
	Bytes connector.Bytes    `json:"bytes,omitempty" jsonschema_description:"Bytes of records, about, as they are in memory."`
}

// Due tells whether it is time for a commit.
func (c CommitEvery) Due(since time.Duration, rows, bytes int64) bool {
	return rows > 0 && (c.Time > 0 && since >= c.Time.Std() || c.Rows > 0 && rows >= c.Rows ||
		c.Bytes > 0 && bytes >= int64(c.Bytes))
}

// Retry is when dead letters are sent again.
type Retry struct {
	After []connector.Duration `json:"after" jsonschema:"required,minItems=1" jsonschema_description:"Delay before each time, as in [10s, 1m, 10m]; what fails after the last stays a dead letter."`
}

// ErrorBudget is how many dead letters an attempt at a run may make.
type ErrorBudget struct {
	Letters int64   `json:"letters,omitempty" jsonschema:"minimum=1" jsonschema_description:"Dead letters of one attempt."`
	Percent float64 `json:"percent,omitempty" jsonschema:"minimum=0,maximum=100" jsonschema_description:"Percentage of the rows read, once 1000 are."`
	Recent  int     `json:"recent,omitempty" jsonschema:"minimum=1,maximum=64" jsonschema_description:"Dead letters among the last records of a worker; needs of."`
	Of      int     `json:"of,omitempty" jsonschema:"minimum=1,maximum=64" jsonschema_description:"How many records recent looks back on."`
}

// Spent tells why a number of dead letters among the rows read is too many; "": it is not.
func (b *ErrorBudget) Spent(dead, read int64) string {
	const enough = 1000
	switch {
	case b.Letters > 0 && dead > b.Letters:
		return fmt.Sprintf("%d dead letters, more than the error budget of %d", dead, b.Letters)
	case b.Percent > 0 && read >= enough && float64(dead) > b.Percent/100*float64(read):
		return fmt.Sprintf("%d dead letters of %d rows, more than the error budget of %g %%", dead, read, b.Percent)
	}
	return ""
}

// Window is the number of rows that may be read and not finished, of a run that is planned to read some.
func (l Limits) Window(planned int64) int {
	const least, most = 4000, 2_000_000
	number, percent := strings.CutSuffix(l.Unfinished, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return least
	}
	if !percent {
		return max(1, int(n))
	}
	return max(least, min(most, int(n/100*float64(planned))))
}

// The defaults of limits.
const (
	defaultSplitRows  = 20_000
	defaultSplitBytes = 64 << 20
	defaultReaders    = 4
	defaultReadAhead  = 32 << 20
	defaultUnfinished = "1%"
	followUnfinished  = "20000"
	defaultMemory     = 256 << 20 // the resident memory is some 80 MiB more
)

// Ended is the job up to the end that its source has now, for whoever looks at it and does not go on with it.
func (j *Job) Ended() *Job {
	if !j.Source.Follows() {
		return j
	}
	ended := *j
	ended.Source, ended.Retry, ended.Limits.CommitEvery = j.Source.Ended(), nil, nil
	return &ended
}

// Keep is the value of earlier_runs that is not the default.
const Keep = "keep"

// DefaultJournal is the file of the journal.
const DefaultJournal = ".reprise/journal.db"

// SetDefaults fills in what the job does not say.
func (j *Job) SetDefaults() {
	if j.DeadLetters == nil {
		j.DeadLetters = new(connector.To(&fileio.SinkConfig{Path: "dead-letters/" + j.Name}))
	}
	if j.Journal == nil {
		j.Journal = &journal.Config{SQLite: DefaultJournal}
	}
	inline(*j.DeadLetters)
	for _, s := range j.Sinks {
		inline(s.SinkSpec)
	}
	if j.Purge != nil {
		j.Purge.setDefaults(j.Name)
	}
	l := &j.Limits
	unfinished := l.Unfinished
	l.SplitRows = def(l.SplitRows, defaultSplitRows)
	l.SplitBytes = def(l.SplitBytes, defaultSplitBytes)
	l.Readers = def(l.Readers, defaultReaders)
	l.ReadAhead = def(l.ReadAhead, defaultReadAhead)
	l.Memory = def(l.Memory, defaultMemory)
	l.Unfinished = def(l.Unfinished, defaultUnfinished)
	if j.Source.Follows() {
		l.Unfinished = def(unfinished, followUnfinished)
		if l.CommitEvery == nil {
			l.CommitEvery = &CommitEvery{Time: connector.Duration(time.Minute)}
		}
	}
	if l.ErrorBudget == nil {
		l.ErrorBudget = &ErrorBudget{Recent: 25, Of: 30}
		for _, s := range j.Sinks {
			if b, ok := s.SinkConfig.(connector.Bounded); ok && b.Bounds() {
				l.ErrorBudget = &ErrorBudget{} // many dead letters in a row are what a bound on deletes is for
			}
		}
	}
	if j.Canary != nil {
		j.Canary.DeadLetters = def(j.Canary.DeadLetters, defaultCanaryDead)
	}
	if len(j.Sinks) > 1 {
		// The others need not wait long for one that is down.
		j.Pace.Outage = def(j.Pace.Outage, connector.Duration(2*time.Minute))
	}
}

// inline takes files that settings name into the job, which travels to other machines.
func inline(s connector.SinkSpec) {
	if f, ok := s.SinkConfig.(connector.Filer); ok {
		f.Inline()
	}
}

func def[T comparable](v, d T) T {
	if zero := *new(T); v == zero {
		return d
	}
	return v
}

// Need is what the sinks need of the source.
func (j *Job) Need(run connector.Run) connector.Need {
	need := connector.Need{Run: run.ID, Started: run.Started, At: "source"}
	for _, s := range j.Sinks {
		_, cells := s.SinkConfig.(connector.CellWriter)
		need.Cells = need.Cells || cells
	}
	return need
}
