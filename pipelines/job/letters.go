package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Redrives tells whether the job sends dead letters again.
func (j *Job) Redrives() bool { return deadletter.Of(j.Source) != nil }

// Queue is the source that reads the dead letters of a run of the job.
func (j *Job) Queue(run string) connector.SourceSpec {
	q, ok := j.DeadLetters.SinkConfig.(connector.Queue)
	if !ok {
		return connector.SourceSpec{}
	}
	return connector.From(q.ReadQueue(run, deadletter.Schema()))
}

// Place is where records that a queue holds go on in a job: behind some of its steps.
type Place struct {
	Sink   string // "": in what the sinks share
	Passed int    // steps of the job that the records have passed there
}

// PlaceOf is the place of the step that dead letters name.
func PlaceOf(sink, step string, c *Compiled) (Place, *record.Schema, error) {
	chain, prefix := c.Shared, ""
	if own := c.Sinks[sink]; sink != "" && own != nil {
		if step == "sink "+sink {
			return Place{sink, len(own.Steps)}, own.Out, nil
		}
		chain, prefix = own, "sink "+sink+" "
	}
	for i, s := range chain.Steps {
		if label, ok := strings.CutPrefix(step, prefix); ok && s.Is(label) {
			return Place{sink, i}, s.In, nil
		}
	}
	return Place{}, nil, fail.Job("redrive.no_step", "the run's job has no step %q",
		step).WithFix("read the rows again, without --kept")
}

// From gives the job from a place in another one on, which it may differ from only behind that: what the records have
// passed must stand in it as well. What stands before is left out, and so are the other sinks where the place is one
// sink's.
func (j *Job) From(was *Job, at Place) (*Job, error) {
	rest := *j
	if at.Sink == "" {
		if err := samePrefix("transforms", was.Transforms, j.Transforms, at.Passed); err != nil {
			return nil, err
		}
		rest.Transforms = j.Transforms[at.Passed:]
		return &rest, nil
	}
	if err := samePrefix("transforms", was.Transforms, j.Transforms,
		max(len(was.Transforms), len(j.Transforms))); err != nil {
		return nil, err
	}
	own, before := j.Sinks[at.Sink], was.Sinks[at.Sink]
	passed := at.Passed
	if at.Passed > 0 {
		if own.When != before.When {
			return nil, changedStep("sinks." + at.Sink + ".when")
		}
		if before.When != "" { // it is the first step
			passed--
		}
		own.When = ""
	}
	if err := samePrefix("sinks."+at.Sink+".transforms", before.Transforms, own.Transforms, passed); err != nil {
		return nil, err
	}
	own.Transforms = slices.Clone(own.Transforms[passed:])
	rest.Transforms, rest.Sinks = nil, map[string]Sink{at.Sink: own}
	return &rest, nil
}

// samePrefix checks that two lists of transforms begin with the same n steps. One may have been mended; then it is of
// the same kind, and does not stand in another place as it was.
func samePrefix(path string, was, is []transforms.Spec, n int) error {
	for i := range n {
		same := func(s transforms.Spec) bool {
			return s.Name == was[i].Name && bytes.Equal(compact(s.Config), compact(was[i].Config))
		}
		switch {
		case i >= len(was) || i >= len(is) || was[i].Name != is[i].Name, !same(is[i]) && slices.ContainsFunc(is, same):
			return changedStep(fmt.Sprintf("%s.%d", path, i))
		}
	}
	return nil
}

func changedStep(path string) error {
	return fail.Job("redrive.changed", "the records that the queue holds have passed steps of the run's job which the "+
		"other job does not begin with: %s differs", path).
		WithFix("leave those steps as they were and put new ones behind them, or read the rows again, without --kept")
}

func compact(config []byte) []byte {
	var b bytes.Buffer
	if json.Compact(&b, config) != nil {
		return config
	}
	return b.Bytes()
}
