package runs

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

var errEnough = errors.New("enough")

// Sample reads some records, evenly over the splits of the plan: the first ones of each. A seed other than 0 takes
// other splits, and other records of their first pages.
func (p *Prepared) Sample(ctx context.Context, rows int, seed uint64) ([]*record.Record, error) {
	splits, err := p.Plan(ctx)
	if err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(seed, 0))
	if seed != 0 {
		// Plans come in any order.
		slices.SortFunc(splits, func(a, b connector.Split) int { return strings.Compare(a.String(), b.String()) })
		random.Shuffle(len(splits), func(i, j int) { splits[i], splits[j] = splits[j], splits[i] })
	}
	var records []*record.Record
	step := max(1, len(splits)/max(1, rows))
	for i := 0; i < len(splits) && len(records) < rows; i += step {
		left := (len(splits) - i + step - 1) / step
		take := max(1, (rows-len(records)+left-1)/left)
		err := p.Source.Read(ctx, splits[i], func(page connector.Page) error {
			n := min(take, len(page.Records))
			if seed != 0 {
				random.Shuffle(len(page.Records), func(i, j int) {
					page.Records[i], page.Records[j] = page.Records[j], page.Records[i]
				})
			}
			records = append(records, page.Records[:n]...)
			if take -= n; take <= 0 {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
	}
	return records, nil
}

// Measure reads for a moment and gives the speed in rows a second; 0 where there is nothing to read.
func (p *Prepared) Measure(ctx context.Context, splits []connector.Split, moment time.Duration) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	began := time.Now()
	queues := make([][]connector.Split, len(splits))
	for i, split := range splits {
		queues[i] = []connector.Split{split}
	}
	window := connector.Window{Readers: p.Job.Limits.Readers, Bytes: int64(p.Job.Limits.ReadAhead)}
	ahead := connector.ReadAhead(ctx, p.Source, queues, window)
	defer ahead.Stop()
	var rows int64
	for it := range ahead.Items {
		if it.Err != nil && ctx.Err() == nil {
			return 0, it.Err
		}
		rows += it.Page.Rows()
		ahead.Release(it.Held)
	}
	return int64(float64(rows) / time.Since(began).Seconds()), nil
}
