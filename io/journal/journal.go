package journal

import (
	"context"
	"iter"
	"slices"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// Journal is an open journal. Its methods may be called from several goroutines and processes. What a method
// has written survives a kill of the process; each write is whole or not there. After an error of class
// Transient it is open which of the two.
//
// All methods about a run fail where there is none (journal.no_run).
type Journal interface {
	// Begin writes down a run in state Running, without a plan; once (journal.has_run).
	Begin(ctx context.Context, r Run) error
	// SavePlan stores a plan whole, with its total, or nothing of it; once for each run (journal.has_plan). splits
	// should be at hand: the journal may be locked until they end.
	SavePlan(ctx context.Context, run string, splits iter.Seq[connector.Split], total Total) error
	// ExtendPlan adds splits to a stored plan, at its end; those that stand there already are left out.
	ExtendPlan(ctx context.Context, run string, splits []connector.Split) error
	// Total is that of a run's plan; an error (journal.no_plan) where none was stored.
	Total(ctx context.Context, run string) (Total, error)
	// Plan gives the splits of a run's plan in the order they were stored in.
	Plan(ctx context.Context, run string) iter.Seq2[connector.Split, error]

	// Attempt begins another attempt at a run, the first included, and gives its number, from 1. It sets the run to
	// Running, and Record refuses what workers of earlier attempts bring from then on (journal.fenced), so that
	// Finished is sure. It starts as Control says, except that a stop that was asked for is forgotten.
	Attempt(ctx context.Context, run string) (int, error)
	// Record writes down what has been finished, all or nothing. What overlaps with anything that the same sink has
	// finished before is refused (journal.overlap), so that no record counts twice, and so is an interval that can hold
	// nothing (journal.no_interval). A letter whose id is there already is left as it is. All these errors are fatal.
	Record(ctx context.Context, run string, attempt int, b Batch) error
	// Finished gives what has been finished, adjacent intervals as one with the sum of their sums, in no particular
	// order. While workers record, the intervals may be of different moments.
	Finished(ctx context.Context, run string) iter.Seq2[Done, error]
	// Parts gives the parts of a sink, in the order they came in, but those of commits that have ended.
	Parts(ctx context.Context, run, sink string) ([][]byte, error)
	// Sealed is the commit of a sink that was sealed and has not ended; false: there is none.
	Sealed(ctx context.Context, run, sink string) (Commit, bool, error)
	// Committed is what a sink has committed so far, in a run that goes on.
	Committed(ctx context.Context, run, sink string) (Committed, error)
	// Finish ends an attempt in a state, unless another one has begun (journal.fenced). report
	// may be nil: the last one stays.
	Finish(ctx context.Context, run string, attempt int, s State, report []byte) error

	// Fail writes down an error that ends an attempt, with its class and code. secrets never stand in errors.
	Fail(ctx context.Context, run string, attempt int, cause error) error
	// Failure is the first error since a time that ended an attempt, or a member's part of it; nil: there is none.
	Failure(ctx context.Context, run string, attempt int, since time.Time) (failure, err error)

	// Get is one run.
	Get(ctx context.Context, run string) (RunInfo, error)
	// List is all runs, the latest first.
	List(ctx context.Context) ([]RunInfo, error)

	// Control is what is wanted of a run: Go, where nobody has said otherwise.
	Control(ctx context.Context, run string) (Control, error)
	// SetControl changes what is wanted, as one step: it reads, calls change and writes, again if somebody else wrote
	// in between. It adds to the history what kind of change it was, at once with it.
	SetControl(ctx context.Context, run string, event Event, change func(*Control)) error

	// Beat tells that a worker lives, and what it has done.
	Beat(ctx context.Context, run string, b Beat) error
	// Beats are the last beats of the workers of a run's last attempt.
	Beats(ctx context.Context, run string) ([]Beat, error)
	// AllBeats are the last beats of the workers of all attempts.
	AllBeats(ctx context.Context, run string) ([]Beat, error)

	// Note adds to the history of a run. An event without a time happens now.
	Note(ctx context.Context, run string, e Event) error
	// History is what happened to a run, the oldest first.
	History(ctx context.Context, run string) ([]Event, error)

	// Trim forgets what came before a time, of a run that goes on: events, failures, the last beats of workers, and
	// dead letters that went through when they were sent again.
	Trim(ctx context.Context, run string, before time.Time) error

	// Letters gives the dead letters of a run, in the order of their ids. They may be marked meanwhile.
	Letters(ctx context.Context, run string, f LetterFilter) iter.Seq2[Letter, error]
	// Mark sets the state of a dead letter and how often it was sent again; an error
	// (journal.no_letter) where there is none.
	Mark(ctx context.Context, run, id string, s LetterState, redrives int) error

	Close() error
}

// State is what a run is in.
type State string

// The states.
const (
	Running    State = "running"    // or was, when its process was killed: then no worker beats
	Complete   State = "done"       // all finished, committed and balanced
	Failed     State = "failed"     // by an error; may be resumed
	Stopped    State = "stopped"    // as asked for; may be resumed
	Paused     State = "paused"     // by itself: too many dead letters, or a system that stays down; may be resumed
	Incomplete State = "incomplete" // done, but for sinks that were down; may be resumed
	Unbalanced State = "unbalanced" // the sums do not add up
)

// Run is a run as it begins.
type Run struct {
	ID          string
	Job         string
	Fingerprint string // of query, transforms, sinks and schema
	Started     time.Time
	JobFile     []byte // JSON, with references to secrets alone
	Schema      []byte // of the source, by record.Schema's MarshalBinary
	Parent      string // the run whose dead letters it sends again; "": none
}

// RunInfo is a run as the journal knows it.
type RunInfo struct {
	Run
	State   State
	Attempt int       // the last; 0: none yet
	Ended   time.Time // of the last attempt; zero: not yet
	Report  []byte    // JSON; nil: none
}

// Total is the sum of a plan.
type Total struct {
	Splits int
	Rows   int64 // estimate; 0: unknown
	Bytes  int64
}

// Batch is what a worker has finished, written down at once.
type Batch struct {
	Done      []Done
	Parts     []Part
	Letters   []Letter
	Seal      []Seal // with the parts of this batch
	Committed []CommitEnd

	// Of a run whose partitions several members share: who records. Claim makes it the owner of partitions; what it
	// records of one that another has claimed since is refused (journal.taken). "": nobody shares.
	Member string
	Claim  []string
}

// Done is an interval of one partition that one sink has finished, and what became of its records. Sink "" is what
// stands before all sinks: reading and the transforms that they share.
type Done struct {
	Sink       string
	Partition  string
	Start, End []byte // as of a connector.Split
	Sum        Sum
}

// Sum is what became of the records of an interval at one sink: Read + Made = the sum of Outcomes. It includes the
// records that ended before the sink.
type Sum struct {
	Read     int64         `json:"read"`
	Made     int64         `json:"made"` // further records of steps that make several of one
	Outcomes record.Counts `json:"outcomes"`
	// Highest version among the records that the sink wrote; 0: it wrote none, or an older release recorded it
	Newest int64 `json:"newest,omitempty"`
	// Dead letters that this sink alone has in the queue; of sink "": those that all sinks share
	Letters int64 `json:"letters"`
}

// Add adds another sum.
func (s *Sum) Add(o Sum) {
	s.Read, s.Made, s.Letters = s.Read+o.Read, s.Made+o.Made, s.Letters+o.Letters
	s.Newest = max(s.Newest, o.Newest)
	s.Outcomes.Add(o.Outcomes)
}

// Part is what a sink wants to be committed. The queue of dead letters is the sink "".
type Part struct {
	Sink string
	Body []byte
}

// Want is what a run should do.
type Want string

// What can be wanted.
const (
	Go      Want = "run"
	Pause   Want = "pause"
	Stop    Want = "stop"
	Restart Want = "restart" // end the attempt, and begin another one
)

// Source is what is read, among the systems of a run; the others are sinks by their names.
const Source = "source"

// Control is what is wanted of a run. Workers look at it several times a second.
type Control struct {
	Want   Want   `json:"want"`
	Reason string `json:"reason,omitempty"` // of a pause: "operator", or what the run itself found
	// By system: "source", or a sink's name; they override those of the job file
	Rates  map[string]Rate `json:"rates,omitempty"`
	Limits map[string]int  `json:"limits,omitempty"` // by system: requests at once in each worker
	Leave  []string        `json:"leave,omitempty"`  // members that give back their partitions
}

// Ends tells whether an attempt is to end, or the part of a member that shares the run.
func (c Control) Ends(member string) bool {
	return c.Want == Stop || c.Want == Restart || member != "" && slices.Contains(c.Leave, member)
}

// Rate is what the whole run may do in a second. 0: no limit.
type Rate struct {
	Records float64         `json:"records,omitempty" jsonschema:"minimum=0" jsonschema_description:"Records per second."`
	Bytes   connector.Bytes `json:"bytes,omitempty" jsonschema_description:"Bytes per second."`
}

// Beat is what one worker tells of itself each second or oftener. Counts are since the worker began.
type Beat struct {
	Worker   string                   `json:"worker"`
	Attempt  int                      `json:"attempt"`
	Member   string                   `json:"member,omitempty"` // that it works for, where several share the run
	Host     string                   `json:"host"`
	PID      int                      `json:"pid"`
	At       time.Time                `json:"at"`
	Splits   int                      `json:"splits"` // read to their end
	Outcomes map[string]record.Counts `json:"outcomes,omitempty"`
	Systems  map[string]Gauge         `json:"systems,omitempty"` // "source", and sinks by name
	// Why it does not go on: "paused: ...", "search is down: ..."
	Waiting string            `json:"waiting,omitempty"`
	Cause   Cause             `json:"cause,omitempty"`  // of Waiting, in a word
	Down    map[string]string `json:"down,omitempty"`   // sinks that were left behind, and why
	Behind  *Behind           `json:"behind,omitempty"` // of a run that goes on
	// Bytes that its process has from the operating system, by Go's count
	Memory int64 `json:"memory,omitempty"`
}

// Behind is how far a worker of a run that goes on is behind what has come.
type Behind struct {
	Records int64         `json:"records"` // that have come and are not finished at all sinks
	Age     time.Duration `json:"age"`     // of the oldest of them, at most
	// The partitions with most of them, at most MostPartitions
	Partitions []connector.Lag `json:"partitions,omitempty"`
	// By sink: from when an event came about to its outcome there, of the last ones
	Delays map[string]Delay `json:"delays,omitempty"`
}

// MostPartitions bounds a beat.
const MostPartitions = 32

// Delay is a distribution.
type Delay struct {
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// Cause is why a worker waits, or goes slower than it could.
type Cause string

// The causes.
const (
	ByOperator   Cause = "operator"
	BySchedule   Cause = "schedule"
	ByProduction Cause = "production" // as the probe sees it, or since it sees nothing
	BySystem     Cause = "system"     // that is down
)

// Gauge is what a worker tells of one system.
type Gauge struct {
	Records  int64            `json:"records"` // passed through the gate, those tried again included
	Bytes    int64            `json:"bytes"`
	Requests int64            `json:"requests"`
	Retries  int64            `json:"retries"`
	Errors   map[string]int64 `json:"errors,omitempty"` // failed requests by class
	Asked    Rate             `json:"asked"`            // of this worker; 0: no limit
	P50      time.Duration    `json:"p50,omitempty"`    // of the last requests
	P99      time.Duration    `json:"p99,omitempty"`
	Down     bool             `json:"down,omitempty"` // it does not answer
}

// Event is something that happened to a run.
type Event struct {
	At   time.Time
	Kind string // "attempt", "pause", "resume", "stop", "throttle", "scale", "end", ...
	Text string
}

// Letter is the index entry of a dead letter; the queue holds the record itself.
type Letter struct {
	ID       string
	Sink     string // that did not get the record; "": none got it
	Step     string
	Class    string
	Code     string
	Message  string
	Key      string // of the row at the source, as text
	Split    string
	Position []byte        // reading from here finds the record again
	Place    *record.Place `json:",omitempty"` // of a row without a key
	At       time.Time
	State    LetterState
	Redrives int // how often it was sent again
}

// Row names the row at the source: by its key, or its place; "": neither is known.
func (l Letter) Row() string {
	if l.Place != nil {
		return l.Place.String()
	}
	return l.Key
}

// LetterState is what has become of a dead letter.
type LetterState string

// The states of dead letters.
const (
	Waits    LetterState = "waits"    // to be fixed and sent again
	Sent     LetterState = "sent"     // sent again, and it went through
	Parked   LetterState = "parked"   // failed too often to be sent again without being named
	Gone     LetterState = "gone"     // sent again, but its row is not at the source any more
	Returned LetterState = "returned" // of a redrive: counted with the letter that was sent again
)

// LetterFilter chooses dead letters; zero fields choose all.
type LetterFilter struct {
	IDs    []string
	Sinks  []string // "" is what none got
	Codes  []string
	Steps  []string
	States []LetterState
	Since  time.Time // that came then or later
	Until  time.Time // that came before
}
