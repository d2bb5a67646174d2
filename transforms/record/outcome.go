package record

// Outcome is how a record ended.
type Outcome uint8

// The outcomes of design rule 5: read = Written + Unchanged + Superseded + Filtered + Dead, for each sink.
const (
	Written Outcome = iota
	Unchanged
	Superseded
	Filtered
	Dead
	NumOutcomes
)

var outcomeNames = [NumOutcomes]string{"written", "unchanged", "superseded", "filtered", "dead"}

// String is the outcome's name in reports.
func (o Outcome) String() string { return outcomeNames[o] }

// DeadLetter is a record that could not be processed: the record as it entered the failing step, and why it failed.
type DeadLetter struct {
	Record   *Record // nil where the source could not even decode it; Raw then holds what it got
	Raw      []byte
	Run      string
	Step     string // "source", "transform 2: cast", "sink search"
	Sink     string // the sink that did not get the record; "" where none got it
	Class    string // of package fail
	Code     string
	Message  string
	Attempts int
	Split    string
	At       int64 // milliseconds since 1970
}
