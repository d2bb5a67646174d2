package connector

import "context"

// Loader is a Sink that changes settings of its target while a run loads it. Both methods are called by the launching process, and may be called
// again at any time, also after a crash by another process.
type Loader interface {
	// Load sets the target up for loading, once it is prepared and before each attempt. What stood there is remembered at the target itself, before
	// it is changed. It tells what it has changed, for people; nil: nothing.
	Load(ctx context.Context, run Run, attempt int) ([]string, error)

	// Unload puts back what Load has changed for the same run and the same attempt or an earlier one, and only that: what somebody else has
	// changed since stays.
	Unload(ctx context.Context, run Run, attempt int) ([]string, error)
}
