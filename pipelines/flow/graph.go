package flow

import (
	"maps"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"reprise/pipelines/job"
)

// Graph is the pipeline of a run whose plan lies in the journal in the given number of chunks.
func Graph(setting Setting, j *job.Job, chunks int) *beam.Pipeline {
	p := beam.NewPipeline()
	s := p.Root()

	numbers := make([]any, max(1, chunks))
	for i := range numbers {
		numbers[i] = i
	}
	plan := beam.ParDo(s.Scope("plan"), &loadFn{Setting: setting}, beam.Reshuffle(s, beam.Create(s, numbers...)))
	records, dead, counts := beam.ParDo3(s.Scope("read"), &readFn{Setting: setting}, plan)
	letters := []beam.PCollection{dead}
	tallies := []beam.PCollection{counts, beam.Create(s, tally{Stage: stagePlan})}

	records, dead, counts = beam.ParDo3(s.Scope("transform"), &transformFn{Setting: setting}, records)
	letters, tallies = append(letters, dead), append(tallies, counts)

	for _, name := range slices.Sorted(maps.Keys(j.Sinks)) {
		sink := s.Scope("sink " + name)
		dead, counts, parts := beam.ParDo3(sink, &sinkFn{Setting: setting, Name: name}, records)
		letters, tallies = append(letters, dead), append(tallies, counts)
		tallies = append(tallies, commit(sink, setting, name, parts))
	}

	queue := s.Scope("dead letters")
	counts, parts := beam.ParDo2(queue, &queueFn{Setting: setting}, beam.Flatten(queue, letters...))
	tallies = append(tallies, counts, commit(queue, setting, "", parts))

	report := s.Scope("report")
	beam.ParDo0(report, &reportFn{Setting: setting},
		beam.GroupByKey(report, beam.AddFixedKey(report, beam.Flatten(report, tallies...))))
	return p
}

func commit(s beam.Scope, setting Setting, sink string, parts beam.PCollection) beam.PCollection {
	return beam.ParDo(s, &commitFn{Setting: setting, Sink: sink}, beam.GroupByKey(s, beam.AddFixedKey(s, parts)))
}
