package flow

import (
	"context"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"reprise/pipelines/travel"
)

// Graph is the pipeline of one attempt at a run whose plan lies in the journal. The plan is dealt out to a number of
// hands.
func Graph(setting Setting, hands int) *beam.Pipeline {
	p := beam.NewPipeline()
	s := p.Root()
	setting.Hands = max(1, hands)
	numbers := make([]any, setting.Hands)
	for i := range numbers {
		numbers[i] = i
	}
	dealt := beam.ParDo(s.Scope("deal"), &dealFn{Setting: setting}, beam.Reshuffle(s, beam.Create(s, numbers...)))
	done := beam.ParDo(s.Scope("pass"), &passFn{Setting: setting}, dealt)
	// Something must come even if no split does.
	all := beam.Flatten(s, done, beam.Create(s, -1))
	end := s.Scope("end")
	beam.ParDo0(end, &endFn{Setting: setting}, beam.GroupByKey(end, beam.AddFixedKey(end, all)))
	return p
}

// dealFn takes one hand of the plan from the journal, so that the plan need not travel in the graph.
type dealFn struct {
	Setting Setting
	worker  *worker
}

// Setup opens the journal.
func (f *dealFn) Setup(ctx context.Context) (err error) {
	f.worker, err = f.Setting.open(ctx)
	return err
}

// ProcessElement emits every split whose turn is hand n: dealt in turn, the parts of a wide bucket go to different
// workers.
func (f *dealFn) ProcessElement(ctx context.Context, n int, emit func(travel.Work)) (err error) {
	defer f.worker.guard(ctx, "plan", &err)
	w := travel.Work{Whole: f.Setting.Hands == 1}
	chosen, err := inStage(ctx, f.worker.journal, f.worker.run.ID, f.Setting.Stage)
	if err != nil {
		return err
	}
	i := 0
	for split, err := range f.worker.journal.Plan(ctx, f.worker.run.ID) {
		if err != nil {
			return err
		}
		if f.Setting.Member != "" && !slices.Contains(f.Setting.Share, split.Partition) {
			continue
		}
		if i%f.Setting.Hands == n && chosen(split.Partition) {
			w.Splits = append(w.Splits, split)
		}
		i++
	}
	if len(w.Splits) > 0 {
		emit(w)
	}
	return nil
}

// Teardown closes the journal.
func (f *dealFn) Teardown() { f.worker.close() }
