package connector

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"reprise/transforms/fail"
)

// seen is a gate that lets everything pass and notes what it is told.
type seen struct {
	records, entered int
	bytes            int64
	errs             []error
	shut             error
}

func (g *seen) Enter(context.Context, int, int64) (func(int, int64, error), error) {
	if g.shut != nil && len(g.errs) == 20 {
		return nil, g.shut
	}
	g.entered++
	return func(records int, bytes int64, err error) {
		g.records, g.bytes, g.errs = g.records+records, g.bytes+bytes, append(g.errs, err)
	}, nil
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := fail.New(fail.Transient, "x.busy", "busy")
		wrong := fail.New(fail.Permanent, "x.wrong", "wrong")
		failing := func(times int, err error) func() (int, int64, error) {
			return func() (int, int64, error) {
				if times--; times >= 0 {
					return 0, 0, err
				}
				return 3, 40, nil
			}
		}
		g := &seen{}
		if err := Request(WithGate(t.Context(), g), DefaultRetry, failing(4, busy)); err != nil || g.entered != 5 ||
			g.records != 3 || g.bytes != 40 || g.errs[3] != busy || g.errs[4] != nil {
			t.Errorf("%v after %+v", err, g)
		}
		g = &seen{}
		if err := Request(WithGate(t.Context(), g), DefaultRetry, failing(1, wrong)); err != wrong || g.entered != 1 {
			t.Errorf("%v after %+v", err, g)
		}
		// Behind a gate it is the gate that gives up, else the deadline.
		down := errors.New("down for too long")
		g = &seen{shut: down}
		if err := Request(WithGate(t.Context(), g), Retry{First: time.Hour, Max: time.Hour, Deadline: time.Second},
			failing(99, busy)); err != down || g.entered != 20 {
			t.Errorf("%v after %+v", err, g)
		}
		began := time.Now()
		if err := Request(t.Context(), DefaultRetry, failing(1e9, busy)); err != busy ||
			time.Since(began) < DefaultRetry.Deadline-DefaultRetry.Max {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := Request(ctx, DefaultRetry, failing(1e9, busy)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
