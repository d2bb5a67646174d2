package cutover

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"reprise/io/elasticsearchio"
	"reprise/transforms/fail"
)

// Watching says how searches are watched after the swap.
type Watching struct {
	For   time.Duration
	Every time.Duration // default 1s
	Query []byte        // body of a search; nil: all documents
	Probe string        // address that must answer with a status below 400; "": none
	Loss  float64       // percentage of the documents that may be gone meanwhile, by deletes of live writers
	Bears int           // failed looks that are no failure of the watch
}

// watch looks at searches through an alias for a time.
func (w Watching) watch(ctx context.Context, admin *elasticsearchio.Admin, alias, index string) (*Proof, error) {
	if w.Every == 0 {
		w.Every = time.Second
	}
	query := w.Query
	if query == nil {
		query = []byte(`{"size":1,"query":{"match_all":{}}}`)
	}
	first, looks, failed := int64(-1), 0, 0
	for began := time.Now(); looks == 0 || time.Since(began) < w.For; looks++ {
		n, err := w.look(ctx, admin, alias, index, query)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && first < 0 {
			first = n
		}
		if err == nil && float64(n) < float64(first)*(1-w.Loss/100) {
			err = fmt.Errorf("searches find %d documents, %d when the watch began", n, first)
		}
		if err != nil {
			if failed++; failed > w.Bears {
				return nil, fail.Job("cutover.watch", "%d of %d looks through %s failed: %w", failed, looks+1, alias, err).
					WithFix("reprise cutover JOB --rollback moves the alias back to the old index")
			}
		}
		if err := pause(ctx, w.Every); err != nil {
			return nil, err
		}
	}
	return &Proof{Told: fmt.Sprintf("%d looks in %s, %d failed, %d documents", looks, w.For, failed, first)}, nil
}

func (w Watching) look(ctx context.Context, admin *elasticsearchio.Admin, alias, index string, query []byte) (int64, error) {
	points, err := admin.Aliased(ctx, alias)
	if err != nil {
		return 0, err
	}
	if points != index {
		return 0, fmt.Errorf("the alias %s points to %q", alias, points)
	}
	n, err := admin.Search(ctx, alias, query)
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
