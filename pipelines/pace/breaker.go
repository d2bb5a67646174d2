package pace

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"reprise/transforms/fail"
)

const (
	opensAfter = 5 // failures in a row
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
	reserve    = 100.0 // retries that are always there
)

// breaker tells whether a system is down.
type breaker struct {
	open     bool
	failures int       // since the last success
	since    time.Time // of the first of them
	latest   time.Time // of the last of them
	until    time.Time // when waiting ends
	last     error     // the last of them
	trying   bool      // a request finds out whether the system is back
	pause    time.Duration
	next     time.Time // when the next may do so

	budget float64 // of retries
}

// succeed takes in a success. While the breaker is open only trials count: what had passed before says nothing about
// now.
func (b *breaker) succeed(trial bool, ratio float64) (closed bool) {
	b.budget = min(b.budget+ratio, reserve)
	if b.open && !trial {
		return false
	}
	closed = b.open
	*b = breaker{budget: b.budget}
	return closed
}

// fail takes in the failure of a request that began at some time.
func (b *breaker) fail(now, began time.Time, err error, trial bool, outage time.Duration) (opened bool) {
	// nothing was asked meanwhile: failures that long ago are another matter
	if b.failures == 0 || !b.open && began.Sub(b.latest) >= outage {
		b.failures, b.since, b.until = 0, now, now.Add(outage)
	}
	b.failures++
	b.last, b.latest = err, now
	b.budget = max(b.budget-1, 0)
	switch {
	case !b.open && (b.failures >= opensAfter || b.budget < 1 || !now.Before(b.until)):
		opened = true
		b.open, b.pause = true, firstPause
	case trial:
		b.pause = min(2*b.pause, longPause)
	default:
		return false
	}
	b.next = now.Add(rand.N(b.pause)) // full jitter
	return opened
}

// wait is how long to wait until something may pass. Its error says that waiting has been in vain.
func (b *breaker) wait(now time.Time, system string) (time.Duration, error) {
	switch {
	case !b.open:
		return 0, nil
	case !now.Before(b.until):
		return 0, b.unanswered(system)
	case b.trying:
		return b.until.Sub(now), nil
	}
	return max(0, min(b.next.Sub(now), b.until.Sub(now))), nil
}

// unanswered is the last error, and for how long there have been such.
func (b *breaker) unanswered(system string) error {
	e := fail.Error{Class: fail.ClassOf(b.last), Code: fail.CodeOf(b.last), Message: b.last.Error()}
	var known *fail.Error
	if errors.As(b.last, &known) {
		e = *known
	}
	e.Message = fmt.Sprintf("%s has not answered for %s: %s", system, short(b.until.Sub(b.since)), e.Message)
	e.Err, e.Exit = b.last, fail.ExitUnreachable
	return &e
}

// short writes a duration without zeros at its end.
func short(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
