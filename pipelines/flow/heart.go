package flow

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/record"
)

// heart counts what one DoFn instance does and writes it to the journal each second, for whoever watches the run.
// These counts are for the eye: bundles that are tried again count twice. The report is made of tallies.
type heart struct {
	journal *journal.Journal
	run, id string
	quit    chan struct{}
	done    chan struct{}

	mu      sync.Mutex
	counts  journal.Progress
	changed bool
}

func startHeart(j *journal.Journal, run string) *heart {
	h := &heart{journal: j, run: run, id: uuid.NewString(), quit: make(chan struct{}), done: make(chan struct{})}
	h.counts.Outcomes = map[string]record.Counts{}
	go h.beat()
	return h
}

func (h *heart) beat() {
	defer close(h.done)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.write()
		case <-h.quit:
			h.write()
			return
		}
	}
}

func (h *heart) write() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.changed {
		return
	}
	if err := h.journal.Beat(context.Background(), h.run, h.id, h.counts); err != nil {
		slog.Warn("progress is not written", "run", h.run, "error", err)
		return
	}
	h.changed = false
}

func (h *heart) stop() {
	close(h.quit)
	<-h.done
}

// page counts a page read.
func (h *heart) page(p connector.Page) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts.Read += p.Rows()
	h.counts.Bytes += p.Bytes
	h.changed = true
}

// split counts a split read to its end.
func (h *heart) split() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts.SplitsDone++
	h.changed = true
}

// outcomes adds to the outcomes of a sink, or of the steps before all sinks (sink "").
func (h *heart) outcomes(sink string, n record.Counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := h.counts.Outcomes[sink]
	sum.Add(n)
	h.counts.Outcomes[sink] = sum
	h.changed = true
}
