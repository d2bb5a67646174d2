package cassandraio

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/gocql/gocql"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// reader reads one split. One goroutine asks for the next page while the caller's decodes
// the one before and hands it on.
type reader struct {
	*tableSource
	split   connector.Split
	key     [][]byte // of the partition; nil: the split is a part of the ring
	decoder *rowDecoder
	size    *pageSize
	last    []byte // what has been handed on ends here
	batch   batch  // of the scans that are being read
}

// answer is a page as it came.
type answer struct {
	iter *gocql.Iter
	sent time.Time
	end  bool // of the last scan
}

// stuck is the error of a request for one row that fails time and again.
type stuck struct{ error }

func (e stuck) Unwrap() error { return e.error }

// read hands on the pages of the split.
func (r *reader) read(ctx context.Context, page func(connector.Page) error) error {
	n := narrowing{r.split.End}
	for more := true; more; {
		until := n.next()
		scans, err := r.scans(ctx, r.last, until)
		if err == nil {
			err = r.stream(ctx, scans, until, page)
		}
		switch {
		case errors.As(err, &stuck{}):
			err = r.passStuck(ctx, page)
		case fail.CodeOf(err) == codeTombstones:
			more, err = r.passTombstones(ctx, &n, err, page)
		case err == nil:
			r.last = until
			more = n.pop()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stream reads scans from r.last up to a position, or until it is stuck.
func (r *reader) stream(ctx context.Context, scans []scan, until []byte, page func(connector.Page) error) error {
	r.batch = batch{exact: r.exact, static: r.key == nil && r.table.static}
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer)
	failed := make(chan error, 1)
	go func() {
		failed <- r.fetch(ctx, scans, answers)
		close(answers)
	}()
	defer func() {
		cancel()
		for range answers { // until fetch has ended
		}
	}()
	for a := range answers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.handOn(a, until, page); err != nil {
			return err
		}
	}
	return <-failed
}

// fetch asks for the pages of the scans.
func (r *reader) fetch(ctx context.Context, scans []scan, answers chan<- answer) error {
	for i, s := range scans {
		for state := []byte(nil); ; {
			a, err := r.request(ctx, r.decoder.list, s, state, r.size)
			if err != nil {
				return err
			}
			state = a.iter.PageState()
			a.end = len(state) == 0 && i == len(scans)-1
			select {
			case answers <- a:
			case <-ctx.Done():
				return ctx.Err()
			}
			if len(state) == 0 {
				break
			}
		}
	}
	return nil
}

// stuckAfter is how often one row alone is tried before it is looked at more closely.
const stuckAfter = 4

// request gets one page. It tries again what may pass, with half of the rows where fewer may help.
func (o *tableSource) request(ctx context.Context, list string, s scan, state []byte, size *pageSize) (answer, error) {
	alone := 0
	var a answer
	err := retry(ctx, connector.DefaultRetry.Deadline, func() (came, error) {
		a.sent = time.Now()
		rows := size.rows()
		if most, _ := connector.Largest(ctx); most > 0 {
			rows = min(rows, most)
		}
		var err error
		a.iter, err = o.query(ctx, list, s, state, rows)
		switch {
		case err == nil:
			size.grow()
			return came{a.iter.NumRows(), o.decoded.Swap(0)}, nil
		case fail.CodeOf(err) == codeTombstones && rows > 1 && size.passes: // a smaller page may end before them
			size.limit.Store(int64(max(1, rows/16)))
			return came{}, smallerNext{err}
		case !shrinks(err):
		case rows > 1:
			size.halve(rows)
			return came{}, smallerNext{err}
		default:
			alone++
			if size.passes && (alone >= stuckAfter || fail.CodeOf(err) == "cassandra.frame_too_big") {
				return came{}, stuck{err}
			}
		}
		return came{}, err
	})
	return a, err
}

// smallerNext is an error after which less is asked for, so that there is no need to wait long.
type smallerNext struct{ error }

func (e smallerNext) Unwrap() error { return e.error }

// eachRow calls each for every row of a scan, with its columns in dest, until it fails.
func (o *tableSource) eachRow(ctx context.Context, list string, s scan, dest []any, each func() error) error {
	size := &pageSize{target: math.MaxInt64, most: mostRows}
	size.limit.Store(countRows)
	for state := []byte(nil); ; {
		a, err := o.request(ctx, list, s, state, size)
		if err != nil {
			return err
		}
		state = a.iter.PageState()
		for a.iter.Scan(dest...) {
			if err := each(); err != nil {
				a.iter.Close()
				return err
			}
		}
		if err := a.iter.Close(); err != nil {
			return classify(err)
		}
		if len(state) == 0 {
			return nil
		}
	}
}

// query asks once.
func (o *tableSource) query(ctx context.Context, list string, s scan, state []byte, rows int) (*gocql.Iter, error) {
	cql := s.cql
	if cql == "" {
		cql = "SELECT " + list + " FROM " + o.table.name
		if s.where != "" {
			cql += " WHERE " + s.where
		}
		cql += s.tail
	}
	iter := o.session.Query(cql, s.args...).WithContext(ctx).Consistency(o.level).PageSize(rows).PageState(state).Iter()
	if len(iter.Columns()) > 0 {
		return iter, nil
	}
	if err := iter.Close(); err != nil {
		return nil, classify(lost(ctx, err))
	}
	return nil, fail.New(fail.Transient, "cassandra.server", "Cassandra answers a query without columns")
}

// came is what came back of a request: bytes are those of pages decoded since the last one, as they are known then.
type came struct {
	rows  int
	bytes int64
}

// pass sends a request through the gate; passed is false where the gate did not let it pass.
func pass(ctx context.Context, send func() (came, error)) (gated, passed bool, err error) {
	leave, gated, err := connector.Enter(ctx, 0, 0)
	if err != nil {
		return gated, false, err
	}
	got, err := send()
	leave(got.rows, got.bytes, err)
	return gated, true, err
}

// retry sends a request until it passes or fails for good. Behind a gate it is the gate that
// ends it, without one the deadline.
func retry(ctx context.Context, deadline time.Duration, send func() (came, error)) error {
	limits := connector.DefaultRetry
	pause := &backoff.ExponentialBackOff{InitialInterval: limits.First, MaxInterval: limits.Max,
		Multiplier: 2, RandomizationFactor: 1}
	pause.Reset()
	for began := time.Now(); ; {
		gated, passed, err := pass(ctx, send)
		if err == nil || !passed || errors.As(err, &stuck{}) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		smaller := errors.As(err, &smallerNext{})
		class := fail.ClassOf(err)
		if class == fail.Fatal || class == fail.Permanent && !smaller || !gated && time.Since(began) >= deadline {
			return err
		}
		if class == fail.Permanent { // it answers at once
			continue
		}
		if smaller {
			pause.Reset()
		}
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handOn decodes a page and hands on what is complete of it.
func (r *reader) handOn(a answer, until []byte, page func(connector.Page) error) error {
	r.decoder.origin.Position = r.last
	now := a.sent.Unix()
	size, rows := int64(0), 0
	for a.iter.Scan(r.decoder.dest...) {
		rows++
		size += r.decoder.size()
		if !r.decoder.isRow() && !r.decoder.hasStatic() {
			continue
		}
		if r.batch.asked.IsZero() {
			r.batch.asked = a.sent
		}
		if err := r.batch.add(r.decoder, now); err != nil {
			return err
		}
	}
	if err := a.iter.Close(); err != nil {
		return classify(err)
	}
	r.size.seen(size, rows)
	r.decoded.Add(size)
	done := r.batch.take(a.end, r.past(until))
	clear(r.decoder.slots) // whoever takes the page may take long, and need not keep the frame alive
	if done.Rows() == 0 {
		return nil
	}
	r.last = done.Last
	return page(done)
}

// past is a position behind all rows that are read up to another one; nil: up to the end.
func (r *reader) past(until []byte) []byte {
	switch {
	case until != nil:
		return until
	case r.key == nil:
		return plan.AfterToken(math.MaxInt64)
	}
	return plan.PastAll
}

// passStuck finds out about the row after r.last, at which reading got stuck: where its key can be read, but time and
// again not the row itself, it becomes a dead letter.
func (r *reader) passStuck(ctx context.Context, page func(connector.Page) error) error {
	if !r.exact {
		return fail.Job("cassandra.row_unreadable",
			"a row after token position %x cannot be read, and the types of the clustering columns do not let it be "+
				"passed over", r.last).
			WithFix("it may be too large for the server; leave its large columns out, or raise timeout")
	}
	keys := newLayout(r.table.keysOnly(), r.key == nil)
	decoder := newRowDecoder(keys, r.split.String(), r.decoder.fixed, r.decoder.maxRow)
	for failures := 0; ; {
		if found, err := r.firstKey(ctx, decoder); err != nil || !found {
			return err
		}
		_, passed, err := pass(ctx, func() (came, error) {
			_, err := r.query(ctx, r.decoder.list, r.rowScan(decoder), nil, 1)
			return came{}, err // the row comes again
		})
		switch {
		case err == nil || !passed:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case shrinks(err):
			failures++
		case fail.ClassOf(err) == fail.Fatal:
			return err
		}
		if failures < stuckAfter {
			continue
		}
		if r.last, err = decoder.position(nil); err != nil {
			return err
		}
		dead := decoder.dead(errUnreadable(err))
		dead.Attempts = failures
		return page(connector.Page{Dead: []*record.DeadLetter{dead}, Last: r.last})
	}
}

func errUnreadable(err error) *fail.Error {
	return fail.New(fail.Permanent, "cassandra.row_unreadable", "the row cannot be read, its key can: %w", err).
		WithFix("it may be too large for the server; leave its large columns out, or raise timeout")
}

// firstKey reads the key of the row after r.last into decoder.
func (r *reader) firstKey(ctx context.Context, decoder *rowDecoder) (found bool, err error) {
	scans, err := r.scans(ctx, r.last, r.split.End)
	if err != nil {
		return false, err
	}
	for _, s := range scans {
		err := r.eachRow(ctx, decoder.list, s, decoder.dest, func() error {
			if found = decoder.isRow(); found {
				return errFound
			}
			return nil
		})
		if found {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

var errFound = errors.New("found")

// rowScan reads the row whose key is in decoder.
func (r *reader) rowScan(decoder *rowDecoder) scan {
	var s scan
	for i, c := range r.table.keysOnly().columns {
		if i < len(r.key) {
			s = s.and(c.quoted+" = ?", r.key[i])
		} else {
			s = s.and(c.quoted+" = ?", decoder.raw(i))
		}
	}
	return s
}

// batch collects what has been decoded and not handed on. A page ends at a border: a
// place from which reading can go on.
type batch struct {
	exact  bool // there is one behind any row whose key has a position; else only where the token changes
	static bool // partitions that have static columns alone may come: behind one the next token is waited for

	page   connector.Page
	asked  time.Time // for the oldest row of the page
	rows   int
	token  int64
	waits  bool // the last row has no position, and the next token makes a border
	at     []byte
	border struct {
		records, dead int
		bytes         int64
		last          []byte
	}
}

// maxHeld bounds the rows that are held until there is a border.
const maxHeld = 256 << 20

// add decodes a row.
func (b *batch) add(d *rowDecoder, now int64) error {
	if !b.exact || b.static {
		token := d.rowToken()
		if b.rows > 0 && token != b.token && (!b.exact || b.waits) {
			b.mark(plan.AfterToken(b.token))
		}
		b.token = token
	}
	b.rows++
	d.add(&b.page, now)
	if b.exact {
		at, err := d.position(b.at[:0])
		switch {
		case err == nil:
			b.at, b.waits = at, false
			b.mark(at)
		case errors.Is(err, plan.ErrNoPosition):
			b.waits = true
		default:
			return err
		}
	}
	if held := b.page.Bytes - b.border.bytes; held > maxHeld {
		return fail.Job("cassandra.wide_partition",
			"a partition is larger than %s, and the types of its key do not let it be read in parts",
			connector.HumanBytes(maxHeld)).WithFix("leave its large columns out")
	}
	return nil
}

// mark sets the border behind all that has been decoded.
func (b *batch) mark(last []byte) {
	b.border.records, b.border.dead, b.border.bytes = len(b.page.Records), len(b.page.Dead), b.page.Bytes
	b.border.last = append(b.border.last[:0], last...)
}

// take gives what lies before the border: at the end everything, which past is behind.
func (b *batch) take(end bool, past []byte) connector.Page {
	if end && (len(b.page.Records) > b.border.records || len(b.page.Dead) > b.border.dead) {
		b.mark(past)
	}
	if b.border.records+b.border.dead == 0 {
		return connector.Page{}
	}
	done := connector.Page{Records: b.page.Records[:b.border.records:b.border.records],
		Dead:  b.page.Dead[:b.border.dead:b.border.dead],
		Bytes: b.border.bytes, Asked: b.asked, Last: bytes.Clone(b.border.last)}
	if len(b.page.Records) == b.border.records {
		b.asked = time.Time{}
	}
	b.page.Records, b.page.Dead = slices.Clip(b.page.Records[b.border.records:]),
		slices.Clip(b.page.Dead[b.border.dead:])
	b.page.Bytes -= b.border.bytes
	b.border.records, b.border.dead, b.border.bytes = 0, 0, 0
	return done
}

// pageSize is how many rows are asked for: as many as have the wanted number of bytes, judging by those seen last.
type pageSize struct {
	target int64
	most   int          // rows
	passes bool         // a row that cannot be read at all may be passed over
	limit  atomic.Int64 // by luck and bad luck
	row    atomic.Int64 // bytes; 0: none seen yet
}

const (
	firstRows = 500
	mostRows  = 10_000
)

func newPageSize(target int64, most int, s connector.Split) *pageSize {
	p := &pageSize{target: target, most: most, passes: true}
	p.limit.Store(int64(min(firstRows, p.most)))
	if s.Rows > 0 {
		p.row.Store(s.Bytes / s.Rows)
	}
	return p
}

func (p *pageSize) rows() int {
	n := p.limit.Load()
	if row := p.row.Load(); row > 0 {
		n = min(n, p.target/row)
	}
	return int(max(1, n))
}

func (p *pageSize) grow()          { p.limit.Store(min(2*p.limit.Load(), int64(p.most))) }
func (p *pageSize) halve(rows int) { p.limit.Store(int64(max(1, rows/2))) }

func (p *pageSize) seen(bytes int64, rows int) {
	if rows > 0 {
		p.row.Store(max(1, bytes/int64(rows), p.row.Load()/2))
	}
}

// scans are what lies between two positions of the partition or the ring; nil: its beginning, its end.
func (r *reader) scans(ctx context.Context, from, to []byte) ([]scan, error) {
	if from != nil && to != nil && bytes.Compare(from, to) >= 0 {
		return nil, nil
	}
	if r.key != nil {
		return r.bucketScans(r.key, from, to)
	}
	return r.ringScans(ctx, from, to)
}

// bucketScans read a partition between two positions, as far as the settings let it be read.
func (o *tableSource) bucketScans(key [][]byte, from, to []byte) ([]scan, error) {
	switch {
	case len(o.table.clustering) == 0 && from != nil, bytes.Equal(from, plan.PastAll):
		return nil, nil
	case len(o.table.clustering) == 0:
		return o.table.partitionScans(key, nil, nil), nil
	}
	if bytes.Equal(to, plan.PastAll) {
		to = nil
	}
	lower, upper := o.lower.edge, o.upper.edge
	low, high := o.lower.at, o.upper.at
	if from != nil && bytes.Compare(from, low) >= 0 {
		values, err := o.table.order.Values(from)
		if err != nil {
			return nil, err
		}
		lower, low = &edge{values: values}, from
	}
	if to != nil && (high == nil || bytes.Compare(to, high) < 0) {
		values, err := o.table.order.Values(to)
		if err != nil {
			return nil, err
		}
		upper, high = &edge{values: values, included: true}, to
	}
	if high != nil && bytes.Compare(low, high) > 0 {
		return nil, nil
	}
	return o.table.partitionScans(key, lower, upper), nil
}

// ringScans read the ring between two positions. Where one lies within a partition, or behind it, the partitions of
// that token are looked up and read one by one.
func (o *tableSource) ringScans(ctx context.Context, from, to []byte) ([]scan, error) {
	start, end := plan.RingPosition{Token: math.MinInt64}, plan.RingPosition{Token: math.MaxInt64, Tag: plan.RingDone}
	var err error
	if from != nil {
		if start, err = o.table.order.RingPosition(from); err != nil {
			return nil, err
		}
	}
	if to != nil {
		if end, err = o.table.order.RingPosition(to); err != nil {
			return nil, err
		}
	}
	var scans []scan
	low, high := start.Token, end.Token
	if start.Tag == plan.RingRow {
		border := &end
		if end.Token != start.Token || end.Tag != plan.RingRow {
			border = nil
		}
		if scans, err = o.borderScans(ctx, start.Token, &start, border); err != nil || border != nil {
			return scans, err
		}
	}
	if start.Tag != 0 {
		if low == math.MaxInt64 {
			return scans, nil
		}
		low++
	}
	if end.Tag != plan.RingDone {
		if high == math.MinInt64 {
			return scans, nil
		}
		high--
	}
	if low <= high {
		scans = append(scans, o.table.tokenScan(low, high))
	}
	if end.Tag == plan.RingRow {
		last, err := o.borderScans(ctx, end.Token, nil, &end)
		return append(scans, last...), err
	}
	return scans, nil
}

// borderScans read the partitions of one token after one row and up to another, either of them nil for none.
func (o *tableSource) borderScans(ctx context.Context, token int64, from, to *plan.RingPosition) ([]scan, error) {
	var scans []scan
	values := make([]slot, len(o.table.partition))
	dest := make([]any, len(values))
	for i := range values {
		dest[i] = &values[i]
	}
	err := o.eachRow(ctx, "DISTINCT "+quotedList(o.table.partition),
		o.table.tokenScan(token, token), dest, func() error {
			key := make([][]byte, len(values))
			for i := range values {
				key[i] = bytes.Clone(values[i].data)
			}
			scans = append(scans, o.borderScan(key, from, to)...)
			return nil
		})
	return scans, err
}

func (o *tableSource) borderScan(key [][]byte, from, to *plan.RingPosition) []scan {
	serialized := plan.SerializeKey(key)
	var lower, upper *edge
	if from != nil {
		switch c := bytes.Compare(serialized, from.Key); {
		case c < 0, c == 0 && len(o.table.clustering) == 0:
			return nil
		case c == 0:
			lower = &edge{values: from.Row}
		}
	}
	if to != nil {
		switch c := bytes.Compare(serialized, to.Key); {
		case c > 0:
			return nil
		case c == 0 && len(o.table.clustering) > 0:
			upper = &edge{values: to.Row, included: true}
		}
	}
	return o.table.partitionScans(key, lower, upper)
}
