package connector

import "context"

// Follower is a Source that can go on: it plans splits that are open at their ends, and Read waits there for what
// comes, until its context ends. Pages come as soon as there is something.
type Follower interface {
	Source

	// Follows tells whether it does, by its settings.
	Follows() bool

	// Partitions are those that it has now, as splits name them.
	Partitions(ctx context.Context) ([]string, error)

	// Position writes the Start of a split as the system's own tools do.
	Position(Split) string

	// Lags tells what lies between the Start of each of some splits, up to which work is finished, and the end as it is
	// now.
	Lags(ctx context.Context, from []Split) ([]Lag, error)

	// Acknowledge tells the system for each of some splits that work is finished up to Start. It is for tools that look
	// at the system: a run goes on where its journal says. An error of class Fatal ends the run.
	Acknowledge(ctx context.Context, at []Split) error
}

// Sharer is a Follower whose partitions several processes share out among themselves.
type Sharer interface {
	Follower

	// Share takes part until ctx ends. It calls work with each share of the partitions that this process gets, one
	// after the other: work returns soon after its context ends, and then another process may get a partition. An error
	// of work ends Share.
	Share(ctx context.Context, work func(ctx context.Context, partitions []string) error) error
}

// Lag is how far work is behind in one partition.
type Lag struct {
	Partition string `json:"partition"`
	Position  string `json:"position"` // as Follower.Position writes it
	Records   int64  `json:"records"`  // that have come and are not finished
}

// FollowerOf is a source as one that goes on, where it, or the one whose splits it has, does by its settings.
func FollowerOf(s Source) (Follower, bool) {
	if of, ok := s.(interface{ Follower() (Follower, bool) }); ok {
		return of.Follower()
	}
	f, ok := s.(Follower)
	return f, ok && f.Follows()
}
