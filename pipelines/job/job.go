// Package job is the job file: what it may say, its defaults, and what is wrong with one.
//
// A job names a source, transforms, sinks, where dead letters go, and limits. Each system's own settings stand in its
// package; this one puts them together. A new system adds a line to Source or Sink and to their Open.
package job

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/corpusio"
	"reprise/io/elasticsearchio"
	"reprise/io/fileio"
	"reprise/io/httpio"
	"reprise/io/icebergio"
	"reprise/io/journal"
	"reprise/io/kafkaio"
	"reprise/pipelines/pace"
	"reprise/pipelines/verify"
	"reprise/transforms"
)

// Job is a job file.
type Job struct {
	Name        string            `json:"name" jsonschema:"required,pattern=^[A-Za-z0-9][A-Za-z0-9._-]*$,example=assets-to-iceberg" jsonschema_description:"What the job is called in reports, file names, headers and snapshots."`
	Source      Source            `json:"source" jsonschema:"required" jsonschema_description:"What is read: exactly one kind."`
	Transforms  []transforms.Spec `json:"transforms,omitempty" jsonschema_description:"What happens to each record, in this order; 'reprise transforms' explains them."`
	Sinks       map[string]Sink   `json:"sinks" jsonschema:"required" jsonschema_description:"Where records go, each sink by a name of your own. All are fed by one scan; each has its own outcomes."`
	DeadLetters *Target           `json:"dead_letters,omitempty" jsonschema_description:"Where records go that could not be processed: exactly one kind. Default: JSON lines in the folder dead-letters/NAME."`
	Purge       *Purge            `json:"purge,omitempty" jsonschema_description:"Makes the job one that deletes what it reads, by the steps of reprise purge."`
	Limits      Limits            `json:"limits,omitempty" jsonschema_description:"How much the run may take and bear."`
	Canary      *Canary           `json:"canary,omitempty" jsonschema_description:"Parts of the source that are done first, with a look at the result before the rest."`
	Pace        pace.Config       `json:"pace,omitzero" jsonschema_description:"How fast the run may go, and what slows it down."`
	Verify      verify.Config     `json:"verify,omitzero" jsonschema_description:"What 'reprise verify' bears."`
	EarlierRuns string            `json:"earlier_runs,omitempty" jsonschema:"enum=replace,enum=keep" jsonschema_description:"What earlier runs wrote to the same targets, by the journal. replace (default): what the source shows now takes its place, also where write times went back since values were deleted, have expired or left a collection; production's newer writes win as always. keep: only newer write times win. Concerns sources whose versions are Cassandra's write times, and sinks each of whose rows is made of one row of the source."`
	Journal     *journal.Config   `json:"journal,omitempty" jsonschema_description:"Where the state of runs is kept: every worker must reach it. Default: {sqlite: .reprise/journal.db}."`

	file *file // that it was read from; nil: none
}

// Source is one kind of source.
type Source struct {
	Cassandra     *cassandraio.SourceConfig     `json:"cassandra,omitempty" jsonschema_description:"A table of Cassandra, by buckets or token ranges."`
	Files         *fileio.SourceConfig          `json:"files,omitempty" jsonschema_description:"JSON lines or Parquet files."`
	Kafka         *kafkaio.SourceConfig         `json:"kafka,omitempty" jsonschema_description:"A topic of Kafka, as far as it goes when the run begins."`
	Iceberg       *icebergio.SourceConfig       `json:"iceberg,omitempty" jsonschema_description:"A snapshot of an Iceberg table."`
	Elasticsearch *elasticsearchio.SourceConfig `json:"elasticsearch,omitempty" jsonschema_description:"What a query finds in Elasticsearch, 7.17, 8 or 9, or in OpenSearch, 2.7 or newer."`
	HTTP          *httpio.SourceConfig          `json:"http,omitempty" jsonschema_description:"A service that finds rows by their keys over HTTP: the table of a join."`
	Corpus        *corpusio.SourceConfig        `json:"corpus,omitempty" jsonschema_description:"The seeded corpus of test assets."`
	Keys          *Keys                         `json:"keys,omitempty" jsonschema_description:"Rows as they are now, whose keys another source gives."`
	Union         *Union                        `json:"union,omitempty" jsonschema_description:"Several sources of the same key as one."`
	Join          *Join                         `json:"join,omitempty" jsonschema_description:"A source with fields of other tables added to each row, which keeps its version."`

	// No job file has these.
	Indexed *Indexed `json:"indexed,omitempty" jsonschema:"-"` // of a verification
	Letters *Letters `json:"letters,omitempty" jsonschema:"-"` // of a redrive
	Marked  *Marked  `json:"marked,omitempty" jsonschema:"-"`  // of a purge
	Deleted *Deleted `json:"deleted,omitempty" jsonschema:"-"` // of a restore
}

// Target is one kind of sink.
type Target struct {
	Cassandra     *cassandraio.SinkConfig     `json:"cassandra,omitempty" jsonschema_description:"A table of Cassandra."`
	Elasticsearch *elasticsearchio.SinkConfig `json:"elasticsearch,omitempty" jsonschema_description:"An index of Elasticsearch, 7.17, 8 or 9, or of OpenSearch, 2.7 or newer."`
	Iceberg       *icebergio.SinkConfig       `json:"iceberg,omitempty" jsonschema_description:"A table of Iceberg."`
	Kafka         *kafkaio.SinkConfig         `json:"kafka,omitempty" jsonschema_description:"A topic of Kafka."`
	Files         *fileio.SinkConfig          `json:"files,omitempty" jsonschema_description:"JSON lines or Parquet files in a folder."`
	HTTP          *httpio.SinkConfig          `json:"http,omitempty" jsonschema_description:"A service that starts a workflow for each record, by one HTTP request."`
	Check         *Check                      `json:"check,omitempty" jsonschema:"-"` // of a verification; no job file has it
}

// Sink is a target with what goes there.
type Sink struct {
	Target
	When       string            `json:"when,omitempty" jsonschema_description:"CEL condition on a record as it leaves the job's transforms: others are 'filtered' for this sink."`
	Transforms []transforms.Spec `json:"transforms,omitempty" jsonschema_description:"Further transforms for this sink alone."`
	After      []string          `json:"after,omitempty" jsonschema_description:"Sinks that come first: a record gets here once they have finished it, and not at all where it failed there. Children before parents, in a purge."`
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
		return fmt.Sprintf("the canary of %g %% has %d dead letters of %d records, more than %s", percent, dead, read, c.DeadLetters)
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
	Unfinished  string          `json:"unfinished,omitempty" jsonschema:"pattern=^[0-9]+(\\.[0-9]+)?%?$,example=1%,example=20000" jsonschema_description:"Rows, or percentage of the planned rows, that may be read and not yet finished everywhere: so many are read again after a crash at most. Iceberg and files close their files that often. Default: 1%, and at least 4000."`
	ErrorBudget *ErrorBudget    `json:"error_budget,omitempty" jsonschema_description:"Dead letters that end the run early, as something that can be resumed, before the queue fills. Default: 25 of the last 30 records; none where a sink bounds its deletes."`
	Memory      connector.Bytes `json:"memory,omitempty" jsonschema_description:"Bytes of memory that the garbage collector of each worker aims to stay below. Default: 256MiB."`
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

// The defaults of limits, and of the tables of a join.
const (
	defaultSplitRows  = 20_000
	defaultSplitBytes = 64 << 20
	defaultReaders    = 4
	defaultReadAhead  = 32 << 20
	defaultUnfinished = "1%"
	defaultMemory     = 256 << 20 // the resident memory is some 80 MiB more

	defaultSideMemory = 64 << 20
	defaultSideCache  = 16 << 20
	defaultCacheFor   = time.Minute
)

// DefaultJournal is the file of the journal.
const DefaultJournal = ".reprise/journal.db"

// SetDefaults fills in what the job does not say.
func (j *Job) SetDefaults() {
	if j.DeadLetters == nil {
		j.DeadLetters = &Target{Files: &fileio.SinkConfig{Path: "dead-letters/" + j.Name}}
	}
	if j.Journal == nil {
		j.Journal = &journal.Config{SQLite: DefaultJournal}
	}
	j.DeadLetters.inline()
	for _, s := range j.Sinks {
		s.inline()
	}
	if j.Purge != nil {
		j.Purge.setDefaults(j.Name)
	}
	l := &j.Limits
	l.SplitRows = def(l.SplitRows, defaultSplitRows)
	l.SplitBytes = def(l.SplitBytes, defaultSplitBytes)
	l.Readers = def(l.Readers, defaultReaders)
	l.ReadAhead = def(l.ReadAhead, defaultReadAhead)
	l.Memory = def(l.Memory, defaultMemory)
	l.Unfinished = def(l.Unfinished, defaultUnfinished)
	if l.ErrorBudget == nil {
		l.ErrorBudget = &ErrorBudget{Recent: 25, Of: 30}
		for _, s := range j.Sinks {
			if s.Cassandra != nil && s.Cassandra.Deletes != nil {
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
func (t Target) inline() {
	if t.Elasticsearch != nil {
		t.Elasticsearch.Inline()
	}
}

func def[T comparable](v, d T) T {
	if zero := *new(T); v == zero {
		return d
	}
	return v
}

// Open gives the source. It only allocates.
func (s Source) Open(need connector.Need) (connector.Source, error) {
	if kind := s.kind(); kind != "" {
		need.At = join(need.At, kind)
	}
	switch {
	case s.Cassandra != nil:
		return cassandraio.NewSource(*s.Cassandra, need), nil
	case s.Files != nil:
		return fileio.NewSource(*s.Files, need), nil
	case s.Kafka != nil:
		return kafkaio.NewSource(*s.Kafka, need), nil
	case s.Iceberg != nil:
		return icebergio.NewSource(*s.Iceberg, need), nil
	case s.Elasticsearch != nil:
		return elasticsearchio.NewSource(*s.Elasticsearch, need), nil
	case s.HTTP != nil:
		return httpio.NewSource(*s.HTTP, need), nil
	case s.Corpus != nil:
		return corpusio.NewSource(*s.Corpus, need), nil
	case s.Keys != nil:
		return s.Keys.open(need)
	case s.Union != nil:
		return s.Union.open(need)
	case s.Join != nil:
		return s.Join.open(need)
	case s.Indexed != nil:
		return verify.OpenIndex(s.Indexed.File), nil
	case s.Letters != nil:
		return s.Letters.open(need)
	case s.Marked != nil:
		return s.Marked.open(need)
	case s.Deleted != nil:
		return s.Deleted.open(need)
	}
	return nil, fmt.Errorf("the job has no source")
}

// Open gives the sink. It only allocates.
func (t Target) Open() (connector.Sink, error) {
	switch {
	case t.Cassandra != nil:
		return cassandraio.NewSink(*t.Cassandra), nil
	case t.Elasticsearch != nil:
		return elasticsearchio.NewSink(*t.Elasticsearch), nil
	case t.Iceberg != nil:
		return icebergio.NewSink(*t.Iceberg), nil
	case t.Kafka != nil:
		return kafkaio.NewSink(*t.Kafka), nil
	case t.Files != nil:
		return fileio.NewSink(*t.Files), nil
	case t.HTTP != nil:
		return httpio.NewSink(*t.HTTP), nil
	case t.Check != nil:
		return t.Check.open()
	}
	return nil, fmt.Errorf("the sink has no target")
}

// Need is what the sinks need of the source.
func (j *Job) Need(run connector.Run) connector.Need {
	need := connector.Need{Run: run.ID, Started: run.Started, At: "source"}
	for _, s := range j.Sinks {
		need.Cells = need.Cells || s.Cassandra != nil
	}
	return need
}
