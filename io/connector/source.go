package connector

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"reprise/transforms/record"
)

// Need is what the rest of the job needs of a source beyond the fields.
type Need struct {
	Cells    bool // write time and expiry of each cell, not only of the record
	PageRows int  // no page is larger where the source can choose; 0: as it likes
	Run      string
	// The highest Run.Floor of the sinks: versions up to here may be of an earlier attempt at the run
	Floor   int64
	Started time.Time // of the run; zero: not known
	At      string    // the path of the source's settings in the job file
	Again   bool      // it is read again and again: what comes later is not lost
}

// Within is the need of a source whose settings stand within another's.
func (n Need) Within(path string) Need {
	if path != "" {
		n.At = strings.TrimPrefix(n.At+"."+path, ".")
	}
	return n
}

// Page is the number of rows of the largest page of a source that would like some.
func (n Need) Page(rows int) int {
	if n.PageRows > 0 {
		return min(rows, n.PageRows)
	}
	return rows
}

// PlanOptions bound the splits of a plan.
type PlanOptions struct {
	Rows  int64 // no split is larger, as far as the source can tell
	Bytes int64
}

// Source reads a system. Its constructor only allocates; the first method that needs the system connects, and
// all of them may be called from several goroutines.
type Source interface {
	// Schema is the schema of the records. It checks that everything the settings name is there.
	Schema(ctx context.Context) (*record.Schema, error)

	// Plan gives the splits, each key in exactly one of them, in any order. It reads no more than it needs for
	// the estimates and writes nothing.
	Plan(ctx context.Context, o PlanOptions, split func(Split) error) error

	// Read gives the pages of a split in the order of its positions, until its end or until page fails, whose error
	// it returns as it is. It retries what is transient, with smaller pages after timeouts; what it returns is final.
	Read(ctx context.Context, s Split, page func(Page) error) error

	Close() error
}

// Finder is a Source that also finds single rows by their keys.
type Finder interface {
	Source

	// Find looks up the rows with the keys of some records, which are of the source's schema and need no other
	// values. found gets for each of them, one at a time and in any order, what Read gives of the row, with the
	// origin of the record that asks; of a row that is gone an empty page. It passes the gate and retries as Read
	// does; an error of found comes back as it is.
	Find(ctx context.Context, keys []*record.Record, found func(i int, p Page) error) error
}

// FinderOf is a source as one that finds rows, where it, or the one that it reads, does.
func FinderOf(s Source) (Finder, bool) {
	if of, ok := s.(interface{ Finder() (Finder, bool) }); ok {
		return of.Finder()
	}
	f, ok := s.(Finder)
	return f, ok
}

// Partial is a Finder that may find rows which Read does not give, since its settings leave them out of the plan.
type Partial interface {
	Partial() bool
}

// Locator is a Source that knows where a row with some key stands in its plans, or would stand.
type Locator interface {
	Source

	// Locate gives the places where the row with the key of a record stands, which is of the source's schema and needs
	// no other values: each a partition, as splits name it, and as End the row's position, or that of the page with the
	// row. It does not look whether the row is there. A source made of several may give a place in each; one whose rows
	// are listed elsewhere reads the list, and gives none for a row that is not listed.
	Locate(ctx context.Context, key *record.Record) ([]Split, error)
}

// Locate asks a source that may be no Locator.
func Locate(ctx context.Context, s Source, key *record.Record) ([]Split, error) {
	if l, ok := s.(Locator); ok {
		return l.Locate(ctx, key)
	}
	return nil, errors.New("its source cannot tell where a row with this key stands")
}

// Search gives the places of some records, by reading the source from beginning to end.
func Search(ctx context.Context, s Source, wanted func(*record.Record) bool) (at []Split, err error) {
	err = s.Plan(ctx, PlanOptions{Rows: 1 << 20, Bytes: 64 << 20}, func(split Split) error {
		return s.Read(ctx, split, func(p Page) error {
			if slices.ContainsFunc(p.Records, wanted) {
				at = append(at, Split{Partition: split.Partition, End: p.Last})
			}
			return nil
		})
	})
	return at, err
}

// Explainer is a Source made of several, which says for a plan, once it is made, what they are: lines for people.
type Explainer interface {
	Explain() []string
}

// Page is some records of a split. Last is the position of the page's end: reading (Last, End] gives what follows, and
// nothing of the page again.
type Page struct {
	Records []*record.Record     // owned by the receiver
	Dead    []*record.DeadLetter // rows that could not be decoded; Step, Run, Split and At are set by the receiver
	// Filtered is the number of rows that the source's settings leave out after reading
	// them: their outcome at every sink.
	Filtered int64
	Last     []byte
	// When the oldest of its events came about; zero where records are no events
	Event time.Time
	Asked time.Time // when the system was asked for it; zero: shortly before it came
	Bytes int64     // about what the page takes in memory
}

// Rows is the number of rows read, with those that could not be decoded or are left out.
func (p Page) Rows() int64 { return int64(len(p.Records)+len(p.Dead)) + p.Filtered }
