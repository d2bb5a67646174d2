package flow

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"reprise/io/journal"
	"reprise/pipelines/pace"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// systemSource is the source among the systems of a run.
const systemSource = journal.Source

// How often a worker looks at what is wanted of the run, how long it goes on without a journal, and how long sinks
// may take to answer what is on its way when the run is to stop.
const (
	pulse     = 250 * time.Millisecond
	blind     = time.Minute
	stopGrace = 1500 * time.Millisecond
)

// heart keeps a pass in touch with the run: it tells the journal that the worker lives and what it has done, and the
// pass what is wanted. The counts are for the eye: what is done again counts again.
type heart struct {
	worker   *worker
	log      *slog.Logger
	pace     *pace.Pace
	stopping chan struct{} // closed when the run is to stop
	cancel   context.CancelCauseFunc
	quit     chan struct{}
	done     chan struct{}

	mu   sync.Mutex
	beat journal.Beat
	dead int64 // dead letters of all workers in this attempt, as last seen
	read int64 // rows, the same
}

func startHeart(ctx context.Context, w *worker, cancel context.CancelCauseFunc) *heart {
	host, _ := os.Hostname()
	h := &heart{worker: w, cancel: cancel, stopping: make(chan struct{}), quit: make(chan struct{}),
		done: make(chan struct{})}
	h.beat = journal.Beat{Worker: uuid.NewString()[:8], Member: w.member, Attempt: w.attempt, Host: host,
		PID:      os.Getpid(),
		Outcomes: map[string]record.Counts{}, Down: map[string]string{}}
	h.log = slog.With("run", w.run.ID, "worker", h.beat.Worker)
	h.pace = pace.New(w.job.Pace, h.beat.Worker, pace.Options{Log: h.log})
	go h.run(ctx)
	return h
}

func (h *heart) run(ctx context.Context) {
	defer close(h.done)
	ticker := time.NewTicker(pulse)
	defer ticker.Stop()
	well, stopping := time.Now(), false
	for {
		control, err := h.pump(ctx)
		switch {
		case err == nil:
			well = time.Now()
		case ctx.Err() != nil:
		case fail.ClassOf(err) == fail.Fatal || time.Since(well) > blind:
			// Without a journal nothing that is done counts.
			h.cancel(err)
		default:
			h.log.Warn("the journal does not answer", "error", err)
		}
		if err == nil && control.Ends(h.worker.member) && !stopping {
			stopping = true
			close(h.stopping)
			time.AfterFunc(stopGrace, func() { h.cancel(errStop) })
		}
		select {
		case <-ticker.C:
		case <-h.quit:
			return
		}
	}
}

// pump exchanges news with the journal.
func (h *heart) pump(ctx context.Context) (journal.Control, error) {
	j, run := h.worker.journal, h.worker.run.ID
	if err := j.Beat(ctx, run, h.now()); err != nil {
		return journal.Control{}, err
	}
	control, err := j.Control(ctx, run)
	if err != nil {
		return control, err
	}
	beats, err := j.Beats(ctx, run)
	if err != nil {
		return control, err
	}
	if slices.ContainsFunc(beats, func(b journal.Beat) bool { return b.Attempt > h.worker.attempt }) {
		// This process was frozen, or cut off: what it records is refused.
		return control, j.Record(ctx, run, h.worker.attempt, journal.Batch{})
	}
	order := control
	if control.Ends(h.worker.member) {
		order.Want = journal.Stop
	}
	h.pace.Apply(order, beats)
	var dead, read int64
	for _, b := range beats {
		for _, n := range b.Outcomes {
			dead += n[record.Dead]
		}
		read += b.Systems[systemSource].Records
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead, h.read = dead, read
	return control, nil
}

// now is the beat of this moment.
func (h *heart) now() journal.Beat {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.beat
	b.Outcomes = map[string]record.Counts{}
	for sink, n := range h.beat.Outcomes {
		b.Outcomes[sink] = n
	}
	b.Down = map[string]string{}
	for sink, why := range h.beat.Down {
		b.Down[sink] = why
	}
	b.At, b.Systems, b.Memory = time.Now(), h.pace.Gauges(), memory()
	b.Waiting, b.Cause = h.pace.Why()
	return b
}

// memory is what debug.SetMemoryLimit bounds: what Go has from the operating system, in bytes.
func memory() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

func (h *heart) stop() {
	close(h.quit)
	<-h.done
	// The last beat tells the last counts.
	if err := h.worker.journal.Beat(context.Background(), h.worker.run.ID, h.now()); err != nil {
		h.log.Warn("the last progress is not written", "error", err)
	}
	h.pace.Close()
}

// split counts a split read to its end.
func (h *heart) split() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beat.Splits++
}

// outcomes adds to the outcomes of a sink, or of the steps before all sinks (sink "").
func (h *heart) outcomes(sink string, n record.Counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := h.beat.Outcomes[sink]
	sum.Add(n)
	h.beat.Outcomes[sink] = sum
}

// down tells that a sink was left behind.
func (h *heart) down(sink string, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beat.Down[sink] = why.Error()
}

// behind notes how far a run that goes on is behind.
func (h *heart) behind(b *journal.Behind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beat.Behind = b
}

// budget stops the run, as something that can be resumed, once too many records have become dead letters.
func (h *heart) budget(ctx context.Context, recents ...recent) error {
	h.mu.Lock()
	dead, read := h.dead, h.read
	h.mu.Unlock()
	b := h.worker.job.Limits.ErrorBudget
	reason := b.Spent(dead, read)
	for _, r := range recents {
		if n := r.dead(b.Of); b.Recent > 0 && n >= b.Recent {
			reason = fmt.Sprintf("%d of the last %d records became dead letters", n, b.Of)
		}
	}
	if reason == "" {
		return nil
	}
	event := journal.Event{At: time.Now(), Kind: "pause", Text: reason}
	err := h.worker.journal.SetControl(ctx, h.worker.run.ID, event, func(c *journal.Control) {
		c.Want, c.Reason = journal.Stop, reason
	})
	if err != nil {
		return err
	}
	return errStop
}
