package beamio

import (
	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"reprise/transforms/record"
)

// The metrics of the steps.
var (
	readCount      = counter("read")
	filteredCount  = counter("filtered")
	deadCount      = counter("dead")
	committedCount = counter("committed")

	outcomeCounts = [record.NumOutcomes]beam.Counter{
		record.Written: counter("written"), record.Unchanged: counter("unchanged"),
		record.Superseded: counter("superseded"), record.Filtered: filteredCount, record.Dead: deadCount}
)

func counter(name string) beam.Counter { return beam.NewCounter("reprise", name) }
