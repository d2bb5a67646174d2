package elasticsearchio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Most of what shares a position, which is held together in memory.
const (
	groupBytes = 256 << 20
	lostRows   = 10_000 // of an index, without a value in the order
)

// without marks the partition of an index's documents that have no value in some field of the order.
const without = " without "

// partition is the name of a partition: an index, or "INDEX without FIELDS".
func (idx *readIndex) partition(lost bool) string {
	if lost {
		return idx.name + without + idx.order.names()
	}
	return idx.name
}

// Read implements connector.Source.
func (s *Source) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	o, err := s.open(ctx, s.config.retry().Deadline)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r, err := o.scan(split)
	if err != nil {
		return err
	}
	defer r.close(ctx)
	return r.read(ctx, page)
}

// scan reads one split.
type scan struct {
	*opened
	index *readIndex
	order order // empty: all documents share one position
	split connector.Split

	pit   string   // "": none is open
	after []string // sort values of the last document that came under it; nil: none did
	same  []string // documents with these values that came, where the values do not tell all documents apart
	last  []byte   // what was handed on ends here
	held  []placed // documents that share the position of the last one, more of which may come

	size int // documents of the next request
	most int // of any: less than what was too much
}

// placed is a document with its position.
type placed struct {
	hit
	at []byte
}

func (o *opened) scan(split connector.Split) (*scan, error) {
	name, _, lost := strings.Cut(split.Partition, without)
	idx := o.indices[name]
	if idx == nil {
		return nil, fail.Job("elasticsearch.index_missing",
			"the index %q is not (any more) among those of %q", name, o.pattern).
			WithFix("start a new run, which plans what there is now")
	}
	r := &scan{opened: o, index: idx, order: idx.order, split: split, last: split.Start, size: 100,
		most: min(mostHits, idx.window)}
	if o.openSearch {
		r.most = min(mostHits, max(1, idx.window/2)) // of what some may be asked for again
	}
	if split.Rows > 0 && split.Bytes > 0 {
		r.size = int(int64(o.config.Page.Or(defaultPage)) * split.Rows / split.Bytes)
	}
	r.size = max(1, min(r.size, r.most))
	if lost {
		r.order = nil
	}
	return r, nil
}

// What a request asks for: sorting costs the server about as much for a few documents as for many.
const (
	defaultPage = 1 << 20 // bytes
	mostHits    = 5000
)

// read hands on the pages.
func (r *scan) read(ctx context.Context, page func(connector.Page) error) error {
	for {
		end, err := r.step(ctx, page)
		if err != nil || end {
			return err
		}
	}
}

// step asks for documents once, and hands on a page of those whose positions are complete. It tells whether the split
// has been read.
func (r *scan) step(ctx context.Context, page func(connector.Page) error) (end bool, err error) {
	came, end, err := r.next(ctx)
	if err != nil {
		return false, err
	}
	all := r.held
	for _, h := range came {
		p := placed{hit: h}
		if p.at, err = r.order.position(h.sort); err != nil {
			return false, err
		}
		if r.split.End != nil && bytes.Compare(p.at, r.split.End) > 0 {
			end = true
			break
		}
		if !r.follows(p, all) {
			return false, fail.New(fail.Fatal, "elasticsearch.order",
				"the server gives document %q of %s out of the order of %s", h.id, h.index, r.order.names()).
				WithFix("name other fields in order")
		}
		all = append(all, p)
	}
	whole := len(all)
	if !end && whole > 0 {
		whole = slices.IndexFunc(all, func(p placed) bool { return bytes.Equal(p.at, all[len(all)-1].at) })
	}
	if r.held, err = slices.Clone(all[whole:]), r.bounded(all[whole:]); err != nil || whole == 0 {
		return end, err
	}
	return end, r.hand(all[:whole], page)
}

// follows tells whether a document may come after others, or else after what was handed on.
func (r *scan) follows(p placed, all []placed) bool {
	if len(all) > 0 {
		return bytes.Compare(p.at, all[len(all)-1].at) >= 0
	}
	return r.last == nil || bytes.Compare(p.at, r.last) > 0
}

// bounded refuses more documents that share a position than memory should hold.
func (r *scan) bounded(held []placed) error {
	size := 0
	for _, p := range held {
		size += len(p.source)
	}
	if size <= groupBytes {
		return nil
	}
	return fail.Job("elasticsearch.order", "more than %s of documents of %s share their values of %s, such as %q",
		connector.Bytes(groupBytes), r.index.name,
		r.index.order.names(), held[0].id).WithFix("name fields in order that together differ for nearly all documents")
}

// hand hands on documents in pages as small as they are wanted; those that share a position stay together.
func (r *scan) hand(all []placed, page func(connector.Page) error) error {
	for len(all) > 0 {
		n := r.need.Page(len(all))
		for n < len(all) && bytes.Equal(all[n].at, all[n-1].at) {
			n++
		}
		p := connector.Page{Last: all[n-1].at}
		origin := record.Origin{Split: r.split.String(), Position: r.last}
		for _, h := range all[:n] {
			r.add(&p, h.hit, origin)
		}
		r.last, all = p.Last, all[n:]
		if err := page(p); err != nil {
			return err
		}
	}
	return nil
}

// next gives the next documents, and whether they are the last. Where the cluster, or a part of it, could not be
// reached it opens another point in time, since the node with this one may be gone for good.
func (r *scan) next(ctx context.Context) (came []hit, end bool, err error) {
	err = connector.Request(ctx, r.config.retry(), func() (int, int64, error) {
		a, err := r.request(ctx)
		if err == nil {
			came, end = a.hits, len(a.hits) < r.size
			r.grow(a)
		}
		var e *fail.Error
		if errors.As(err, &e) {
			if e.Code == "elasticsearch.timeout" || e.Class == fail.Throttled {
				r.shrink()
			}
			if e.Exit == fail.ExitUnreachable {
				r.renew()
			}
		}
		return len(a.hits), a.bytes, err
	})
	return came, end, err
}

// request asks for the next documents. What is too large it asks for again with less.
func (r *scan) request(ctx context.Context) (answer, error) {
	for renewed := 0; ; {
		if r.pit == "" {
			var err error
			if r.pit, err = r.client.openPIT(ctx, r.index.name, r.index.routing, r.keepAlive()); err != nil {
				return answer{}, err
			}
		}
		a, err := r.search(ctx, r.size, true)
		switch {
		case errors.Is(err, errExpired) && renewed < 3:
			renewed++
			r.renew()
			continue
		case errors.Is(err, errExpired):
			return a, fail.New(fail.Transient, "elasticsearch.point_in_time",
				"points in time expire as soon as they are open").
				WithFix("raise keep_alive, or search.max_keep_alive of the cluster")
		case errors.Is(err, errTooLarge) && r.size > 1:
			r.shrink()
			continue
		case errors.Is(err, errTooLarge):
			if a, err = r.search(ctx, 1, false); err == nil && len(a.hits) == 1 {
				a.hits[0].tooLarge = true
			}
		}
		if err == nil {
			r.pit = orDefault(a.pit, r.pit)
			a.hits = r.passed(a.hits)
		}
		return a, err
	}
}

// passed notes where documents end, and leaves out those that had come before.
func (r *scan) passed(came []hit) (fresh []hit) {
	if !r.openSearch {
		if n := len(came); n > 0 {
			r.after = came[n-1].sort
		}
		return came
	}
	for _, h := range came {
		id := h.id + "\x00" + h.routing
		if !slices.Equal(h.sort, r.after) {
			r.after, r.same = h.sort, nil
		} else if slices.Contains(r.same, id) {
			continue
		}
		r.same, fresh = append(r.same, id), append(fresh, h)
	}
	return fresh
}

// tie is what documents are sorted by that have the same position. Elasticsearch numbers all documents under a point
// in time; OpenSearch has numbers within each shard, so that some documents may have the same: those of the last
// number are asked for again.
func (r *scan) tie() string {
	if r.openSearch {
		return "_seq_no"
	}
	return "_shard_doc"
}

func (r *scan) search(ctx context.Context, size int, whole bool) (answer, error) {
	within := []any{r.index.order.without()}
	if len(r.order) > 0 {
		var err error
		if within, err = r.order.within(r.last, r.split.End); err != nil {
			return answer{}, err
		}
	}
	body := r.body(r.index, within, size+len(r.same))
	body["pit"] = object{"id": r.pit, "keep_alive": r.keepAlive()}
	body["sort"] = append(r.order.sort(), object{r.tie(): "asc"})
	limit := (int64(r.max) + 1<<20) * int64(1+len(r.same))
	if size > 1 {
		limit = max(16<<20, 8*r.config.Page.Or(defaultPage))
	}
	if !whole {
		body["_source"] = false
	}
	switch {
	case r.after != nil:
		after := make([]rawJSON, len(r.after))
		for i, v := range r.after {
			after[i] = rawJSON(v)
		}
		if r.openSearch {
			n, err := strconv.ParseInt(r.after[len(after)-1], 10, 64)
			if err != nil {
				return answer{}, badAnswer(err)
			}
			after[len(after)-1] = rawJSON(strconv.FormatInt(n-1, 10))
		}
		body["search_after"] = after
	case r.last != nil && len(r.order) > 0:
		values, err := r.order.values(r.last)
		if err != nil {
			return answer{}, err
		}
		body["search_after"] = append(values, lastTie)
	case r.last != nil:
		return answer{}, nil // the only position
	}
	return r.client.search(ctx, searchRequest{body: body, limit: limit})
}

// rawJSON is JSON as it came.
type rawJSON string

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// renew forgets the point in time, and what came under it and was not handed on.
func (r *scan) renew() {
	r.pit, r.after, r.same, r.held = "", nil, nil, nil
}

// grow sets the next request's size by that of the last answer.
func (r *scan) grow(a answer) {
	if len(a.hits) == 0 {
		return
	}
	fits := int(r.config.Page.Or(defaultPage) * int64(len(a.hits)) / max(1, a.bytes))
	r.size = max(1, min(fits, 2*r.size, r.most))
	r.most = min(r.most+r.most/8+1, mostHits, r.index.window)
	if r.openSearch {
		r.most = max(1, min(r.most, r.index.window/2))
	}
}

// shrink makes requests smaller, and lets them grow slowly.
func (r *scan) shrink() {
	r.most = max(1, r.size/2)
	r.size = max(1, r.size/4)
}

func (r *scan) keepAlive() string {
	return fmt.Sprintf("%dms", r.config.KeepAlive.Or(2*time.Minute).Milliseconds())
}

// close gives the point in time back, which the server would do by itself a little later.
func (r *scan) close(ctx context.Context) {
	if r.pit == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = r.client.closePIT(ctx, r.pit)
}
