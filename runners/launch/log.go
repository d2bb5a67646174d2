package launch

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
)

// handler writes log messages as text or JSON. Unless verbose it leaves out Beam's: Prism tells of each step, and of
// each failure with the whole graph.
type handler struct {
	slog.Handler
	verbose bool
}

// NewHandler is the handler of every command's log. Its keys are everywhere the same: run, worker, attempt, system or
// sink, step, split, error.
func NewHandler(w io.Writer, asJSON, verbose bool) slog.Handler {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		o.Level = slog.LevelDebug
	}
	if asJSON {
		return handler{slog.NewJSONHandler(w, o), verbose}
	}
	return handler{slog.NewTextHandler(w, o), verbose}
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.verbose {
		frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
		// Beam's loggers hide their caller at times.
		if frame.Function == "" || strings.HasPrefix(frame.Function, "github.com/apache/beam/") {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.verbose}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.verbose}
}
