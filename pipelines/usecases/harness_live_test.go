package usecases_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/corpusio"
)

// key names an asset.
type key struct {
	Kind, Bucket string
	ID           gocql.UUID
}

// String is the key as records write it.
func (k key) String() string { return k.Kind + "|" + k.Bucket + "|" + k.ID.String() }

// asset is what the tests look at of one.
type asset struct {
	Title, Payload string
	Schema         int8
	Size           int64
	Checksum       string // a number; none: null
	Tags           []string
	Licence        licence
}

type licence struct {
	Name    string    `cql:"name"`
	Holder  string    `cql:"holder"`
	Expires time.Time `cql:"expires"`
	Regions []string  `cql:"regions"`
}

// state is what an asset was from one change to the next.
type state struct {
	*asset        // nil: there is none
	version int64 // write time, microseconds
	acked   time.Time
}

// follower is what production writes beside the table at each change: it brings its store from what was to what is,
// either of which may be nil.
type follower func(k key, was, is *asset, version int64) error

// live is production: it keeps changing assets, each change acknowledged by the table and by everything that follows
// it.
type live struct {
	t        *testing.T
	session  *gocql.Session
	keyspace string
	seed     uint64

	mu      sync.Mutex
	rows    map[key][]state // in order; the first is what there was before
	there   []key           // before, in order
	buckets []key           // those that assets are created in, without id

	deployed sync.RWMutex // held for reading by a change
	follows  []follower

	repair  func(asset) *asset // what the run itself makes of an asset in the table; nil: nothing
	clock   atomic.Int64       // of the last change
	changes [4]atomic.Int64
	stop    chan struct{}
	working sync.WaitGroup
}

const (
	created = iota
	updated
	deleted
	broughtBack
)

const (
	writers    = 4
	writeEvery = 25 * time.Millisecond // of each writer
	mostWrites = 20_000                // of each writer
	untouched  = 10                    // one of so many assets is never changed
)

// newLive reads what there is.
func newLive(t *testing.T, session *gocql.Session, keyspace string, seed uint64) *live {
	t.Helper()
	l := &live{t: t, session: session, keyspace: keyspace, seed: seed, rows: map[key][]state{},
		stop: make(chan struct{})}
	for k, s := range l.table() {
		l.rows[k] = []state{s}
	}
	l.there = slices.SortedFunc(maps.Keys(l.rows), func(a, b key) int { return cmp.Compare(a.String(), b.String()) })
	for _, b := range corpusio.Buckets(corpusio.SourceConfig{Rows: 1}) {
		l.buckets = append(l.buckets, key{Kind: b.AssetType, Bucket: b.Bucket})
	}
	return l
}

// table reads all assets as they are.
func (l *live) table() map[key]state {
	l.t.Helper()
	rows := map[key]state{}
	all := l.session.Query("SELECT asset_type, bucket, id, title, payload, schema_version, size, checksum, tags, " +
		"licence, WRITETIME(payload) FROM " +
		l.keyspace + ".assets").Iter()
	for {
		var k key
		var checksum *big.Int
		s := state{asset: &asset{}}
		if !all.Scan(&k.Kind, &k.Bucket, &k.ID, &s.Title, &s.Payload, &s.Schema, &s.Size, &checksum, &s.Tags,
			&s.Licence, &s.version) {
			break
		}
		if checksum != nil {
			s.Checksum = checksum.String()
		}
		rows[k] = s
	}
	if err := all.Close(); err != nil {
		l.t.Fatal(err)
	}
	return rows
}

// follow deploys another version of production: later changes have these followers alone. No change that is under way
// has others.
func (l *live) follow(f ...follower) {
	l.deployed.Lock()
	defer l.deployed.Unlock()
	l.follows = f
}

// start begins to write.
func (l *live) start() {
	keys := make([][]key, writers)
	for i, k := range l.there {
		if i%untouched != 0 {
			keys[i%writers] = append(keys[i%writers], k)
		}
	}
	for w := range writers {
		l.working.Go(func() { l.write(rand.New(rand.NewPCG(l.seed, uint64(w))), keys[w]) })
	}
	l.t.Cleanup(func() { l.halt() })
	l.atLeast(40)
}

// still are good assets that are never changed.
func (l *live) still() (keys []key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, k := range l.there {
		if i%untouched == 0 && !malformed(*l.rows[k][0].asset) {
			keys = append(keys, k)
		}
	}
	return keys
}

// atLeast waits until so many more changes of each kind have been made.
func (l *live) atLeast(n int64) {
	var before [4]int64
	for i := range before {
		before[i] = l.changes[i].Load()
	}
	for i := range before {
		for l.changes[i].Load() < before[i]+n/4 {
			select {
			case <-l.stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// end stops writing, after some more changes, and tells what was done.
func (l *live) end() {
	l.t.Helper()
	l.atLeast(20)
	l.halt()
	l.t.Logf("production created %d, updated %d, deleted %d, brought back %d", l.changes[created].Load(),
		l.changes[updated].Load(),
		l.changes[deleted].Load(), l.changes[broughtBack].Load())
	is := l.table()
	for k, states := range l.rows {
		last := states[len(states)-1]
		if l.repair != nil && last.asset != nil {
			last.asset = l.repair(*last.asset)
		}
		if s, there := is[k]; there != (last.asset != nil) || there && !same(*s.asset, *last.asset) {
			l.t.Fatalf("the table has %+v (%v) for %s, the model %+v", s.asset, there, k, last.asset)
		}
		delete(is, k)
	}
	for k := range is {
		l.t.Fatalf("the table has %s, the model has not", k)
	}
}

func (l *live) halt() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.working.Wait()
}

// write is one writer: it alone changes the assets of its own.
func (l *live) write(r *rand.Rand, keys []key) {
	for range mostWrites {
		select {
		case <-l.stop:
			return
		case <-time.After(writeEvery):
		}
		k := keys[r.IntN(len(keys))]
		was := l.last(k).asset
		kind := updated
		var is *asset
		switch n := r.IntN(10); {
		case n < 2:
			k, was, kind = l.fresh(r), nil, created
			keys = append(keys, k)
			is = newAsset(r)
		case was == nil:
			kind, is = broughtBack, newAsset(r)
		case n < 5:
			kind = deleted
		default:
			is = changed(r, *was)
		}
		if err := l.change(k, was, is); err != nil {
			select {
			case <-l.stop:
			default:
				l.t.Errorf("production cannot write %s: %v", k, err)
			}
			return
		}
		l.changes[kind].Add(1)
	}
}

func (l *live) last(k key) state {
	l.mu.Lock()
	defer l.mu.Unlock()
	states := l.rows[k]
	return states[len(states)-1]
}

// fresh is a key that nobody has, in the time of its bucket.
func (l *live) fresh(r *rand.Rand) key {
	k := l.buckets[r.IntN(len(l.buckets))]
	month, err := time.Parse("2006-01", k.Bucket)
	if err != nil {
		panic(err)
	}
	k.ID = gocql.UUIDFromTime(month.Add(time.Duration(r.Int64N(int64(28 * 24 * time.Hour)))))
	return k
}

// change makes an asset what is, in the table and then in what follows it. It tries until all have acknowledged it.
func (l *live) change(k key, was, is *asset) error {
	l.deployed.RLock()
	defer l.deployed.RUnlock()
	version := l.tick()
	for _, step := range append([]follower{l.put}, l.follows...) {
		var err error
		for range 10 {
			if err = step(k, was, is, version); err == nil {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rows[k] == nil {
		l.rows[k] = []state{{}} // there was none
	}
	l.rows[k] = append(l.rows[k], state{asset: is, version: version, acked: time.Now()})
	return nil
}

// tick is the time, never the same twice.
func (l *live) tick() int64 {
	for {
		last, now := l.clock.Load(), time.Now().UnixMicro()
		if now <= last {
			now = last + 1
		}
		if l.clock.CompareAndSwap(last, now) {
			return now
		}
	}
}

// put writes the table: all columns of a new asset, else those alone that change.
func (l *live) put(k key, was, is *asset, version int64) error {
	at := []any{k.Kind, k.Bucket, k.ID}
	table := l.keyspace + ".assets"
	const where = " WHERE asset_type = ? AND bucket = ? AND id = ?"
	switch {
	case is == nil:
		return l.session.Query("DELETE FROM "+table+" USING TIMESTAMP ?"+where, append([]any{version}, at...)...).Exec()
	case was == nil:
		return l.session.Query("INSERT INTO "+table+" (asset_type, bucket, id, title, payload, schema_version, size, "+
			"checksum, tags, licence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
			append(at, is.Title, is.Payload, is.Schema, is.Size, is.number(), is.Tags, is.Licence, version)...).Exec()
	}
	var set []string
	values := []any{version}
	add := func(column string, differs bool, value any) {
		if differs {
			set, values = append(set, column+" = ?"), append(values, value)
		}
	}
	add("title", was.Title != is.Title, is.Title)
	add("payload", was.Payload != is.Payload, is.Payload)
	add("schema_version", was.Schema != is.Schema, is.Schema)
	add("size", was.Size != is.Size, is.Size)
	add("tags", !slices.Equal(was.Tags, is.Tags), is.Tags)
	return l.session.Query("UPDATE "+table+" USING TIMESTAMP ? SET "+strings.Join(set, ", ")+where,
		append(values, at...)...).Exec()
}

// number is the checksum.
func (a *asset) number() *big.Int {
	n, _ := new(big.Int).SetString(a.Checksum, 10)
	return n
}

var liveTags = []string{"archive", "city", "drone", "event", "night", "portrait"}

func newAsset(r *rand.Rand) *asset {
	a := &asset{Checksum: fmt.Sprint(r.Int64()), Licence: licence{Name: "editorial", Holder: "Northlight Ltd.",
		Expires: time.Unix(0, 0).UTC().AddDate(0, 0, 20_000+r.IntN(4000)), Regions: []string{"AT", "DE"}}}
	return replaced(r, *a)
}

// changed has another title, or all of it is other.
func changed(r *rand.Rand, a asset) *asset {
	if r.IntN(2) == 0 && !malformed(a) {
		a.Title = title(r)
		return &a
	}
	return replaced(r, a)
}

func title(r *rand.Rand) string { return fmt.Sprintf("Live %d", r.IntN(1_000_000_000)) }

func replaced(r *rand.Rand, a asset) *asset {
	a.Title = title(r)
	a.Schema = 3
	a.Payload = fmt.Sprintf(`{"dimensions":{"width":%d,"height":%d},"format":"webp","colours":[]}`, 320+r.IntN(4000),
		240+r.IntN(3000))
	a.Size = r.Int64N(1 << 30)
	a.Tags = nil
	for _, tag := range liveTags {
		if r.IntN(3) == 0 {
			a.Tags = append(a.Tags, tag)
		}
	}
	return &a
}

// malformed tells whether the payload is no JSON: the corpus has such assets, and production never writes one.
func malformed(a asset) bool { return !json.Valid([]byte(a.Payload)) }

func same(a, b asset) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }
