package compare

// Kind is what is wrong with a row of a target.
type Kind string

// The kinds.
const (
	Missing   Kind = "missing"   // the job would write it, the target has not got it
	Extra     Kind = "extra"     // the target has it, the job would not write it
	Stale     Kind = "stale"     // other content, of an older version, or of one that an earlier run wrote
	Newer     Kind = "newer"     // other content, of a version newer than the source's and than all that runs wrote
	Different Kind = "different" // other content, of the same version
	Double    Kind = "double"    // the target has it more than once
)

// Kinds are all of them.
var Kinds = []Kind{Missing, Extra, Stale, Newer, Different, Double}

// SinkReport is what was found at one target.
type SinkReport struct {
	Checked   int64            `json:"checked"` // records compared with the target
	Keys      int64            `json:"keys"`    // rows of the target
	Wrong     map[Kind]int64   `json:"wrong"`
	Fields    map[string]int64 `json:"fields,omitempty"` // in how many of the rows each field differs
	InFlight  int64            `json:"in_flight"`        // rows that read differently each time: not proven
	Unsettled int64            `json:"unsettled"`        // more mismatches than can be read again: not proven
	Examples  []Example        `json:"examples,omitempty"`
}

// Example is one row that is wrong.
type Example struct {
	Kind   Kind         `json:"kind"`
	Key    string       `json:"key"`              // in the target
	Source string       `json:"source,omitempty"` // key of the row at the source; "": not known
	Fields []Difference `json:"fields,omitempty"`
}

// Difference is a field that differs, with what the job would write and what the target holds, as JSON.
type Difference struct {
	Field string `json:"field"`
	Want  string `json:"want"`
	Got   string `json:"got"`
}

// Mismatches is the number of rows that are wrong.
func (s *SinkReport) Mismatches() (n int64) {
	for _, of := range s.Wrong {
		n += of
	}
	return n
}
