// Package fail gives every error a class, which decides what happens, and a stable code, which programs and
// people look up; the message says what is wrong and the fix what to do about it.
package fail

import (
	"context"
	"errors"
	"fmt"
)

// Class decides what happens after an error.
type Class uint8

// The classes, with what happens to a record or a run.
const (
	Transient Class = iota + 1 // may pass: tried again with back-off and jitter
	Throttled                  // the system asks for less: tried again, slower
	Permanent                  // this record, always: a dead letter
	Fatal                      // every record: the run stops at once
)

var classNames = map[Class]string{Transient: "transient", Throttled: "throttled", Permanent: "permanent",
	Fatal: "fatal"}

// String is the class's name in dead letters and reports.
func (c Class) String() string { return classNames[c] }

// Passes tells whether what failed may go well when it is tried again.
func (c Class) Passes() bool { return c == Transient || c == Throttled }

// The exit codes of the command (runners/operating.md).
const (
	ExitDone        = 0 // everything accounted for
	ExitInternal    = 1 // anything not named below
	ExitJob         = 2 // the job file, or what it names, is wrong: nothing was written
	ExitUnreachable = 3 // a system cannot be reached, or refuses the login
	ExitDead        = 4 // done, but with more dead letters than the limit
	ExitUnbalanced  = 5 // the outcomes do not add up to what was read
	ExitMismatch    = 6 // a verification found that a target does not hold what the job would write
	ExitStopped     = 130
)

// Error is an error with a class and a code.
type Error struct {
	Class   Class
	Code    string // "elasticsearch.mapping_conflict"
	Message string
	Fix     string // what to do, a sentence; may be empty
	Exit    int    // exit code of a run that ends by it; 0 means ExitInternal
	Err     error  // the cause, whose text Message tells already; may be nil
}

// Error is the message (which tells the cause), the code and the fix.
func (e *Error) Error() string {
	s := e.Message + " [" + e.Code + "]"
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// New is an error of a class; the message is formatted, and a %w in it becomes the cause.
func New(class Class, code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	cause := errors.Unwrap(err)
	if _, several := err.(interface{ Unwrap() []error }); several {
		cause = err
	}
	return &Error{Class: class, Code: code, Message: err.Error(), Err: cause}
}

// Job is a fatal error of the job or of what it names (a table that is not there): nothing was written.
func Job(code, format string, args ...any) *Error {
	e := New(Fatal, code, format, args...)
	e.Exit = ExitJob
	return e
}

// Unreachable is a transient error of a system that does not answer or refuses the login; it ends a run with
// ExitUnreachable.
func Unreachable(code, format string, args ...any) *Error {
	e := New(Transient, code, format, args...)
	e.Exit = ExitUnreachable
	return e
}

// WithFix adds what to do.
func (e *Error) WithFix(format string, args ...any) *Error {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// ClassOf is the class of an error: a cancelled context is Fatal, an unknown error Transient, so that it is tried
// again before anything is given up.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	if errors.Is(err, context.Canceled) {
		return Fatal
	}
	return Transient
}

// CodeOf is the code of an error; "unknown" where it has none.
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return "unknown"
}

// ExitOf is the exit code of a run that ends by err.
func ExitOf(err error) int {
	if err == nil {
		return ExitDone
	}
	var e *Error
	if errors.As(err, &e) && e.Exit != 0 {
		return e.Exit
	}
	if errors.Is(err, context.Canceled) {
		return ExitStopped
	}
	return ExitInternal
}
