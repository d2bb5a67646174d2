package beamio

import (
	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"reprise/transforms/record"
)

// The metrics of the steps.
var (
	readCount, filteredCount, deadCount, committedCount = counter("read"), counter("filtered"), counter("dead"), counter("committed")

	outcomeCounts = [record.NumOutcomes]beam.Counter{counter("written"), counter("unchanged"), counter("superseded"), filteredCount, deadCount}
)

func counter(name string) beam.Counter { return beam.NewCounter("reprise", name) }
