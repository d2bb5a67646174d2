package launch

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
)

// handler writes log messages as text. Unless verbose it leaves out Beam's: Prism tells of each step, and of each
// failure with the whole graph.
type handler struct {
	slog.Handler
	verbose bool
}

// NewHandler is the handler of every command's log.
func NewHandler(w io.Writer, verbose bool) slog.Handler {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return handler{slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}), verbose}
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
