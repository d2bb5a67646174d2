package cutover

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"reprise/transforms/fail"
)

// Watching says how searches are watched after the swap.
type Watching struct {
	For         time.Duration
	Every       time.Duration // default 1s
	Come        time.Duration // until when searches of another cluster must have come
	Query       []byte        // body of a search; nil: all documents
	Probe       string        // address that must answer with a status below 400; "": none
	Loss        float64       // percentage of the documents that may be gone meanwhile, by deletes of live writers
	Near        float64       // percentage by which a search may find fewer than in the old index; 0: not compared
	MaxFailures int           // failed checks to tolerate
}

func (w Watching) every() time.Duration { return cmp.Or(w.Every, time.Second) }

// watch looks at searches through the alias for a time.
func (c *Cutover) watch(ctx context.Context, v *View) (*Proof, error) {
	w := c.Watching
	query := w.Query
	if query == nil {
		query = []byte(`{"size":1,"query":{"match_all":{}}}`)
	}
	first, looks, failed := int64(-1), 0, 0
	for began := time.Now(); looks == 0 || time.Since(began) < w.For; looks++ {
		n, err := c.look(ctx, query)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && first < 0 {
			first = n
		}
		if err == nil && float64(n) < float64(first)*(1-w.Loss/100) {
			err = fmt.Errorf("searches find %d documents, %d when the watch began", n, first)
		}
		if err == nil && w.Near > 0 && v.OldLeft {
			// An old index that does not answer is none to go back to.
			if old, e := c.old().Search(ctx, v.Old, query); e == nil && float64(n) < float64(old)*(1-w.Near/100) {
				err = fmt.Errorf("searches find %d documents, %d in the old index %s", n, old, v.Old)
			}
		}
		if err != nil {
			if failed++; failed > w.MaxFailures {
				e := fail.Job(WatchFailed, "%d of %d looks through %s failed: %w", failed, looks+1, c.Alias, err)
				if c.From != nil {
					return nil, e.WithFix(
						"let the application use %s again, then: reprise cutover JOB --rollback", c.There())
				}
				return nil, e.WithFix("reprise cutover JOB --rollback moves the alias back to the old index")
			}
		}
		if err := pause(ctx, w.every()); err != nil {
			return nil, err
		}
	}
	told := fmt.Sprintf("%d looks in %s, %d failed, %d documents", looks, w.For, failed, first)
	if v.OldLeft {
		if old, err := c.old().Search(ctx, v.Old, query); err == nil {
			told += fmt.Sprintf("; the old index has %d", old)
		}
	}
	return &Proof{Told: told}, nil
}

func (c *Cutover) look(ctx context.Context, query []byte) (int64, error) {
	w := c.Watching
	points, err := c.Admin.Aliased(ctx, c.Alias)
	if err != nil {
		return 0, err
	}
	if points != c.Index {
		return 0, fmt.Errorf("the alias %s points to %q", c.Alias, points)
	}
	n, err := c.Admin.Search(ctx, c.Alias, query)
	if err != nil || w.Probe == "" {
		return n, err
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, w.Probe, nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	answer.Body.Close()
	if answer.StatusCode >= 400 {
		return 0, fmt.Errorf("%s answers %s", w.Probe, answer.Status)
	}
	return n, nil
}
