package connector

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"reprise/transforms/fail"
)

// Request sends a request that reads: it passes the gate, and again as long as it fails by what may pass; without a
// gate until the deadline. do tells what came back.
func Request(ctx context.Context, retry Retry, do func() (records int, bytes int64, err error)) error {
	pause := &backoff.ExponentialBackOff{InitialInterval: retry.First, MaxInterval: retry.Max,
		Multiplier: 2, RandomizationFactor: 1}
	for spent := time.Duration(0); ; {
		leave, gated, err := Enter(ctx, 0, 0)
		if err != nil {
			return err
		}
		began := time.Now()
		records, bytes, err := do()
		leave(records, bytes, err)
		spent += time.Since(began)
		class := fail.ClassOf(err)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case class == fail.Fatal, class == fail.Permanent, !gated && spent >= retry.Deadline:
			return err
		}
		wait := min(pause.NextBackOff(), retry.Max)
		spent += wait
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}
