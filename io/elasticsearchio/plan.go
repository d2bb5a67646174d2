package elasticsearchio

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// What Plan asks for at most.
const (
	planners     = 4      // searches at once
	sampleSize   = 10_000 // positions of random documents
	perPiece     = 50     // of which about so many lie in each piece
	sampledBytes = 20     // documents whose size is looked at
)

// Plan implements connector.Source. It cuts an index where the positions of random documents lie: a few searches over
// all that the query finds, and over each 200 splits of a large index again.
func (s *Source) Plan(ctx context.Context, opts connector.PlanOptions, split func(connector.Split) error) error {
	o, err := s.open(ctx, 0)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	p := &plan{opened: o, opts: opts, group: group, slots: make(chan struct{}, planners), split: split}
	for _, name := range slices.Sorted(maps.Keys(o.indices)) {
		group.Go(func() error { return p.plan(ctx, o.indices[name]) })
	}
	return group.Wait()
}

// plan plans the indices of a source.
type plan struct {
	*opened
	opts  connector.PlanOptions
	group *errgroup.Group
	slots chan struct{} // one for each search under way

	mu    sync.Mutex // of calls to split
	split func(connector.Split) error
}

// piece is a part of an index.
type piece struct {
	idx        *readIndex
	start, end []byte
	rows       int64 // estimate
	rowBytes   int64 // of a document, about
	target     int64 // rows of a split
}

func (p *plan) plan(ctx context.Context, idx *readIndex) error {
	if p.config.Refresh {
		err := connector.Request(ctx, p.config.retry(),
			func() (int, int64, error) { return 0, 0, p.client.refresh(ctx, idx.name) })
		if err != nil {
			return err
		}
	}
	count := object{"size": 0, "track_total_hits": true,
		"query": allOf(append(slices.Clone(idx.filter), idx.order.without()))}
	lost, err := p.search(ctx, idx, count)
	if err != nil {
		return err
	}
	rowBytes, err := p.rowBytes(ctx, idx)
	if err != nil {
		return err
	}
	if lost.total > lostRows {
		return fail.Job("elasticsearch.order",
			"%d documents of %s have no value in (one of) %s, so that they cannot be read in this order", lost.total,
			idx.name, idx.order.names()).
			WithFix("name other fields in order, or leave these documents out by query, as in {exists: {field: " +
				"...}}; a text longer than its keyword's ignore_above has no value there")
	}
	if lost.total > 0 {
		if err := p.give(connector.Split{Partition: idx.partition(true), Rows: lost.total,
			Bytes: lost.total * rowBytes}); err != nil {
			return err
		}
	}
	all, err := idx.order.within(nil, nil)
	if err != nil {
		return err
	}
	count["query"] = allOf(append(slices.Clone(idx.filter), all...))
	placed, err := p.search(ctx, idx, count)
	if err != nil || placed.total == 0 {
		return err
	}
	target := int64(math.MaxInt64)
	if p.opts.Rows > 0 {
		target = p.opts.Rows
	}
	if p.opts.Bytes > 0 {
		target = max(1, min(target, p.opts.Bytes/rowBytes))
	}
	return p.cut(ctx, piece{idx: idx, rows: placed.total, rowBytes: rowBytes, target: target})
}

func (p *plan) give(s connector.Split) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.split(s)
}

// search sends a request of the plan. What is too large it asks for again with less.
func (p *plan) search(ctx context.Context, idx *readIndex, body object) (a answer, err error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return a, context.Cause(ctx)
	}
	err = connector.Request(ctx, p.config.retry(), func() (_ int, _ int64, err error) {
		for {
			a, err = p.client.search(ctx, searchRequest{index: idx.name, routing: idx.routing,
				body: body, limit: maxReply})
			if size, _ := body["size"].(int); errors.Is(err, errTooLarge) && size > 0 {
				body["size"] = size / 4
				continue
			}
			return len(a.hits), a.bytes, err
		}
	})
	return a, err
}

// rowBytes is about the size of a record, judging by some documents.
func (p *plan) rowBytes(ctx context.Context, idx *readIndex) (int64, error) {
	a, err := p.search(ctx, idx, p.body(idx, nil, sampledBytes))
	if err != nil || len(a.hits) == 0 {
		return 1, err
	}
	var page connector.Page
	for _, h := range a.hits {
		p.add(&page, h, record.Origin{})
	}
	return max(1, page.Bytes/int64(len(a.hits))), nil
}

// cut gives the splits of a piece.
func (p *plan) cut(ctx context.Context, of piece) error {
	whole := connector.Split{Partition: of.idx.partition(false), Start: of.start, End: of.end, Rows: of.rows,
		Bytes: of.rows * of.rowBytes}
	if of.rows <= of.target {
		return p.give(whole)
	}
	const margin = 1.2 // since the documents are random ones
	wanted := int(math.Ceil(float64(of.rows) / float64(of.target) * margin))
	at, total, err := p.positions(ctx, of, min(wanted*perPiece, sampleSize, of.idx.window))
	if err != nil {
		return err
	}
	if len(at) == 0 {
		return p.give(whole) // they are gone
	}
	pieces := max(1, min(wanted, len(at)))
	coarse := wanted > sampleSize/perPiece
	if coarse {
		pieces = max(1, min(pieces, len(at)/perPiece))
	}
	var parts []piece
	part, from := of, 0
	add := func(to int, end []byte) {
		part.end, part.rows = end, max(1, total*int64(to-from)/int64(len(at)))
		parts = append(parts, part)
		part.start, from = end, to
	}
	for i := 1; i < pieces; i++ {
		end := at[i*len(at)/pieces]
		to, _ := slices.BinarySearchFunc(at, append(slices.Clone(end), 0), bytes.Compare) // after all that share it
		if (part.start == nil || bytes.Compare(end, part.start) > 0) && to < len(at) {
			add(to, end)
		}
	}
	add(len(at), of.end)
	for _, part := range parts {
		if coarse && len(parts) > 1 {
			p.group.Go(func() error { return p.cut(ctx, part) })
			continue
		}
		if err := p.give(connector.Split{Partition: whole.Partition, Start: part.start, End: part.end, Rows: part.rows,
			Bytes: part.rows * of.rowBytes}); err != nil {
			return err
		}
	}
	return nil
}

// positions are those of random documents of a piece, ascending; total is about the number of all its documents.
func (p *plan) positions(ctx context.Context, of piece, n int) (at [][]byte, total int64, err error) {
	within, err := of.idx.order.within(of.start, of.end)
	if err != nil {
		return nil, 0, err
	}
	random := object{"function_score": object{
		"query":        allOf(append(slices.Clone(of.idx.filter), within...)),
		"random_score": object{"seed": 1, "field": "_seq_no"},
		"boost_mode":   "replace",
	}}
	a, err := p.search(ctx, of.idx, object{"size": n, "query": random, "_source": false, "track_total_hits": true,
		"sort": append([]any{"_score"}, of.idx.order.sort()...)})
	if err != nil {
		return nil, 0, err
	}
	for _, h := range a.hits {
		if len(h.sort) == 0 {
			continue
		}
		b, err := of.idx.order.position(h.sort[1:])
		if err != nil {
			return nil, 0, err
		}
		if (of.start == nil || bytes.Compare(b, of.start) > 0) && (of.end == nil || bytes.Compare(b, of.end) <= 0) {
			at = append(at, b)
		}
	}
	slices.SortFunc(at, bytes.Compare)
	return at, a.total * int64(len(at)) / max(1, int64(len(a.hits))), nil
}
