package job

import (
	"maps"
	"slices"

	"reprise/transforms/fail"
)

// Verified are the sinks that a verification concerns, in order.
func (j *Job) Verified() ([]string, error) {
	all := slices.Sorted(maps.Keys(j.Sinks))
	for setting, names := range map[string][]string{"sinks": j.Verify.Sinks, "once": j.Verify.Once} {
		for _, name := range names {
			if !slices.Contains(all, name) {
				return nil, fail.Job("verify.no_sink", "verify.%s: the job has no sink %q", setting, name)
			}
		}
	}
	if len(j.Verify.Sinks) > 0 {
		all = slices.DeleteFunc(all, func(name string) bool { return !slices.Contains(j.Verify.Sinks, name) })
	}
	return all, nil
}

// Verifies tells whether the job is a part of a verification, which writes nothing: a sink of its own that no job file
// has.
func (j *Job) Verifies() bool {
	for _, s := range j.Sinks {
		if s.SinkConfig != nil && s.Kind() == "" {
			return true
		}
	}
	return false
}
