package pace_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/pace"
)

func Example() {
	config := pace.Config{Rates: map[string]journal.Rate{"search": {Records: 5000, Bytes: 5 << 20}}}
	p := pace.New(config, "worker-1", pace.Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	defer p.Close()

	// A worker beats, and looks at what is wanted, four times a second.
	beat := journal.Beat{Worker: "worker-1", Systems: p.Gauges()}
	p.Apply(journal.Control{}, []journal.Beat{beat})

	// Sinks find their gate in the context that they were opened with.
	ctx := connector.WithGate(context.Background(), p.Gate("search"))
	leave, _, err := connector.Enter(ctx, 200, 50_000)
	if err != nil {
		fmt.Println(err)
		return
	}
	leave(0, 0, nil) // the request went well

	p.Apply(journal.Control{Want: journal.Pause, Reason: "operator"}, []journal.Beat{beat})
	fmt.Println(p.Waiting())
	// Output: paused: operator
}
