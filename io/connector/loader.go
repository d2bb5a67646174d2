package connector

import "context"

// Loader is a Sink that changes settings of its target while a run loads it. Its methods are called by the launching
// process, and may be called again at any time, also after a crash by another process.
type Loader interface {
	// Loads tells whether the settings ask for any of it; without it the other methods change nothing.
	Loads() bool

	// Load sets the target up for loading, once it is prepared and before each attempt. What stood there is remembered
	// at the target itself, before it is changed. It tells what it has changed, for people; nil: nothing.
	Load(ctx context.Context, run Run, attempt int) ([]string, error)

	// Unload puts back what Load has changed for the same run and the same attempt or an earlier one, and only that:
	// what somebody else has changed since stays.
	Unload(ctx context.Context, run Run, attempt int) ([]string, error)
}
