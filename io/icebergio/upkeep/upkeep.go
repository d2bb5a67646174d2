// Package upkeep keeps Iceberg tables in shape: Compact and Expire. It may run beside writers of any kind.
//
// Sections of the spec are those of https://iceberg.apache.org/spec/.
package upkeep

import (
	"context"
	"time"

	"github.com/apache/iceberg-go/table"
)

// Table is a table to keep in shape.
type Table struct {
	Name     string                                      // for messages
	Find     func(context.Context) (*table.Table, error) // loads it as it is now
	Writable func(*table.Table) (*table.Table, error)    // the same with the settings of files to be written
	FileSize func(*table.Table) int64                    // bytes, of data files
	Deadline time.Duration                               // of tries to reach the catalog

	Upserts       bool   // each key has one row
	VersionColumn string // by which rows of a key are compared
	Memory        int64  // bytes that keys may take while they are compared

	BeforeCommit func() // for tests: between writing and the commit; may be nil
}
