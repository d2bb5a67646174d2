package record

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
)

// Outcome is how a record ended.
type Outcome uint8

// The outcomes. For each sink they add up to what was read: Written + Unchanged + Superseded + Filtered + Dead.
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

// Counts are numbers of records by outcome; in JSON they stand by name.
type Counts [NumOutcomes]int64

// Add adds other counts.
func (c *Counts) Add(d Counts) {
	for i := range c {
		c[i] += d[i]
	}
}

// Total is the number of records.
func (c Counts) Total() (n int64) {
	for _, of := range c {
		n += of
	}
	return n
}

// MarshalJSON implements json.Marshaler.
func (c Counts) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for o, n := range c {
		if o > 0 {
			b = append(b, ',')
		}
		b = append(AppendQuoted(b, Outcome(o).String()), ':')
		b = strconv.AppendInt(b, n, 10)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *Counts) UnmarshalJSON(text []byte) error {
	var named map[string]int64
	if err := json.Unmarshal(text, &named); err != nil {
		return err
	}
	*c = Counts{}
	for o := range c {
		c[o] = named[Outcome(o).String()]
	}
	return nil
}

// Place is where a row stands at its source that has no keys to find rows by: what a source reads of the partition
// after Start, up to and with End, is this row alone.
type Place struct {
	Partition string `json:"partition"`
	Start     []byte `json:"start"`
	End       []byte `json:"end"`
}

// String names the row: "assets-0@00000000000003e8".
func (p Place) String() string { return p.Partition + "@" + hex.EncodeToString(p.End) }

// DeadLetter is a record that could not be processed: the record as it entered the failing step, and why it failed.
type DeadLetter struct {
	// of a row that the source could not decode its key alone, or nil where there is none; Raw then holds what it got
	Record   *Record
	Raw      []byte
	Place    *Place // of such a row without a key; nil: it cannot be read again
	Run      string
	Step     string // "source", "transforms.1.cast", "sink search"
	Sink     string // the sink that did not get the record; "" where none got it
	Class    string // of package fail
	Code     string
	Message  string
	Attempts int
	Split    string
	At       int64 // milliseconds since 1970
}
