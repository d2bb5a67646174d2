package redrive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// queue is the source that reads the dead letters of a run of a job.
func queue(j *job.Job, run string) connector.SourceSpec {
	q, ok := j.DeadLetters.SinkConfig.(connector.Queue)
	if !ok {
		return connector.SourceSpec{}
	}
	return connector.From(q.ReadQueue(run, deadletter.Schema()))
}

// place is where records that a queue holds go on in a job: behind some of its steps.
type place struct {
	sink   string // "": in what the sinks share
	passed int    // steps of the job that the records have passed there
}

// placeOf is the place of the step that dead letters name.
func placeOf(sink, step string, c *job.Compiled) (place, *record.Schema, error) {
	chain, prefix := c.Shared, ""
	if own := c.Sinks[sink]; sink != "" && own != nil {
		if step == "sink "+sink {
			return place{sink, len(own.Steps)}, own.Out, nil
		}
		chain, prefix = own, "sink "+sink+" "
	}
	for i, s := range chain.Steps {
		if label, ok := strings.CutPrefix(step, prefix); ok && s.Is(label) {
			return place{sink, i}, s.In, nil
		}
	}
	return place{}, nil, fail.Job("redrive.no_step", "the run's job has no step %q", step).
		WithFix("read the rows again, without --kept")
}

// from gives a job from a place in another one on. They may differ only behind that place: what the records have
// passed must stand in the job as well. What stands before is left out, and so are the other sinks where the place is
// one sink's.
func from(j, was *job.Job, at place) (*job.Job, error) {
	rest := *j
	if at.sink == "" {
		if err := samePrefix("transforms", was.Transforms, j.Transforms, at.passed); err != nil {
			return nil, err
		}
		rest.Transforms = j.Transforms[at.passed:]
		return &rest, nil
	}
	if err := samePrefix("transforms", was.Transforms, j.Transforms,
		max(len(was.Transforms), len(j.Transforms))); err != nil {
		return nil, err
	}
	own, before := j.Sinks[at.sink], was.Sinks[at.sink]
	passed := at.passed
	if at.passed > 0 {
		if own.When != before.When {
			return nil, changedStep("sinks." + at.sink + ".when")
		}
		if before.When != "" { // it is the first step
			passed--
		}
		own.When = ""
	}
	if err := samePrefix("sinks."+at.sink+".transforms", before.Transforms, own.Transforms, passed); err != nil {
		return nil, err
	}
	own.Transforms = slices.Clone(own.Transforms[passed:])
	rest.Transforms, rest.Sinks = nil, map[string]job.Sink{at.sink: own}
	return &rest, nil
}

// samePrefix checks that two lists of transforms begin with the same n steps. A step may have been mended; then it is
// of the same kind, and does not stand in another place as it was.
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
	return fail.Job("redrive.changed", "the records that the queue holds have passed steps of the run's job "+
		"which the other job does not begin with: %s differs", path).
		WithFix("leave those steps as they were and put new ones behind them, or read the rows again, without --kept")
}

func compact(config []byte) []byte {
	var b bytes.Buffer
	if json.Compact(&b, config) != nil {
		return config
	}
	return b.Bytes()
}
