package fail_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	. "reprise/transforms/fail"
)

func TestError(t *testing.T) {
	err := New(Permanent, "elasticsearch.mapping_conflict", "field %q: %w", "size", io.ErrUnexpectedEOF)
	if got, want := err.Error(), `field "size": unexpected EOF [elasticsearch.mapping_conflict]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	_ = err.WithFix("create the field as %s", "long")
	if got, want := err.Error(),
		`field "size": unexpected EOF [elasticsearch.mapping_conflict]; create the field as long`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestErrorWithSeveralCauses(t *testing.T) {
	err := New(Fatal, "x.y", "%w and %w", io.EOF, io.ErrClosedPipe)
	if !errors.Is(err, io.EOF) || !errors.Is(err, io.ErrClosedPipe) {
		t.Error("a cause is lost")
	}
}

func TestOf(t *testing.T) {
	cancelled := fmt.Errorf("reading: %w", context.Canceled)
	for _, x := range []struct {
		name  string
		err   error
		class Class
		code  string
		exit  int
	}{
		{"plain", io.EOF, Transient, "unknown", ExitInternal},
		{"wrapped", fmt.Errorf("sink: %w", New(Throttled, "kafka.quota", "slower")), Throttled, "kafka.quota",
			ExitInternal},
		{"joined", errors.Join(io.EOF, New(Permanent, "x.y", "no")), Permanent, "x.y", ExitInternal},
		{"job", Job("job.unknown_table", "there is no table"), Fatal, "job.unknown_table", ExitJob},
		{"unreachable", Unreachable("cassandra.unreachable", "no host answers: %w", io.EOF), Transient,
			"cassandra.unreachable", ExitUnreachable},
		{"cancelled", cancelled, Fatal, "unknown", ExitStopped},
		{"cancelled within", New(Transient, "x.y", "page: %w", cancelled), Transient, "x.y", ExitStopped},
		{"timeout", context.DeadlineExceeded, Transient, "unknown", ExitInternal},
	} {
		t.Run(x.name, func(t *testing.T) {
			if got := ClassOf(x.err); got != x.class {
				t.Errorf("class %s, want %s", got, x.class)
			}
			if got := CodeOf(x.err); got != x.code {
				t.Errorf("code %s, want %s", got, x.code)
			}
			if got := ExitOf(x.err); got != x.exit {
				t.Errorf("exit %d, want %d", got, x.exit)
			}
		})
	}
	if got := ExitOf(nil); got != ExitDone {
		t.Errorf("exit of nil: %d", got)
	}
}

func TestClassNames(t *testing.T) {
	for class, want := range map[Class]string{Transient: "transient", Throttled: "throttled", Permanent: "permanent",
		Fatal: "fatal", 0: ""} {
		if got := class.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
