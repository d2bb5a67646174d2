package launch

import (
	"context"

	"reprise/pipelines/job"
	"reprise/pipelines/verify"
	"reprise/transforms/fail"
)

// Verification says how the targets of a job are verified.
type Verification struct {
	Resume string // the verification to go on with, by the id of its report; "": a new one
	Folder string // where the repair job is written; "": none is
	Watch  Watch  // of each of its runs; may be nil
}

// Verify proves that the targets of the job hold what the job would write. Its error tells why that could not be found out; what was
// found wrong stands in the report, whose Clean says whether anything may rely on the targets.
func Verify(ctx context.Context, j *job.Job, o Runner, v Verification) (*verify.Report, error) {
	return nil, fail.New(fail.Fatal, "verify.not_built", "verification is not built yet")
}
