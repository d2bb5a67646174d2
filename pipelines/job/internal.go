package job

import "reprise/pipelines/redrive/letters"

// Redrives tells whether the job sends dead letters again.
func (j *Job) Redrives() bool { return letters.Of(j.Source) != nil }

// Verifies tells whether the job is a part of a verification, which writes nothing: a sink of its own that no job
// file has.
func (j *Job) Verifies() bool {
	for _, s := range j.Sinks {
		if s.SinkConfig != nil && s.Kind() == "" {
			return true
		}
	}
	return false
}
