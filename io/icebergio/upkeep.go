package icebergio

import (
	"context"

	"github.com/apache/iceberg-go/table"

	"reprise/io/icebergio/upkeep"
)

func (s *Sink) upkeep() upkeep.Table {
	return upkeep.Table{Name: s.config.Table, Find: s.find, Deadline: s.deadline, BeforeCommit: s.beforeCommit,
		Writable: func(t *table.Table) (*table.Table, error) {
			t, _, err := s.config.writable(t, 1)
			return t, err
		},
		FileSize: s.config.fileSize,
		Upserts:  s.config.Upserts(), VersionColumn: s.config.versionColumn(),
		Memory: s.config.MergeMemory.Or(defaultMergeMemory)}
}

// Compact is upkeep's, of the sink's table.
func (s *Sink) Compact(ctx context.Context, dry bool, tell func(string)) error {
	return s.upkeep().Compact(ctx, dry, tell)
}

// Expire is upkeep's, of the sink's table.
func (s *Sink) Expire(ctx context.Context, e upkeep.Expiry, dry bool, tell func(string)) error {
	return s.upkeep().Expire(ctx, e, dry, tell)
}
