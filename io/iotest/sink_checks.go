package iotest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// Prepare may be called again and leaves what is there; with dry it changes nothing.
func checkPrepare(p *sinkProbe) {
	s := p.newSink()
	for _, dry := range []bool{true, false, false, true} {
		if err := s.Prepare(p.ctx, p.run(), p.Schema, dry); err != nil {
			p.addf("Prepare with dry %t: %v", dry, err)
			return
		}
	}
	records := Records(p.Schema, 0, 3, Base)
	p.put(s, records, taken...)
	for _, dry := range []bool{true, false} {
		if err := p.newSink().Prepare(p.ctx, p.run(), p.Schema, dry); err != nil {
			p.addf("Prepare of a target with records, dry %t: %v", dry, err)
		}
		p.holds(fmt.Sprintf("after Prepare with dry %t", dry), records...)
	}
}

// Every record settles once and is there; nothing is written, one record, several flushes of one writer; sinks that
// Prepare was not called on, as on another worker.
func checkWrite(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	p.put(s, nil)
	p.holds("after an empty flush")

	one := Records(p.Schema, 0, 1, Base)
	p.put(s, one, taken...)
	p.holds("after one record", one...)

	run, l := p.run(), p.ledger()
	worker := p.newSink()
	w, err := worker.Open(p.ctx, run, p.Schema, l.settle)
	if err != nil {
		p.addf("Open on a sink without Prepare: %v", err)
		return
	}
	records := Records(p.Schema, 1, 300, Base)
	var parts [][]byte
	for half := range slices.Chunk(records, 150) {
		for _, r := range half {
			if err := w.Write(p.ctx, r); err != nil {
				p.addf("Write: %v", err)
			}
		}
		more, err := w.Flush(p.ctx)
		if err != nil {
			p.addf("Flush: %v", err)
		}
		for _, r := range half {
			if _, ok := l.get(r); !ok {
				p.addf("%s was not settled when Flush returned", r.KeyText())
			}
		}
		parts = append(parts, more...)
	}
	if err := w.Close(); err != nil {
		p.addf("Close of the writer: %v", err)
	}
	l.close()
	l.complete(records, taken...)
	p.checkParts(worker, parts)
	p.commit(s, run, parts, l.written())
	all := append(one, records...)
	p.holds("after two flushes of one writer", all...)
	if n := p.count(); n != len(all) {
		p.addf("%d entries for %d records that were written once", n, len(all))
	}
}

// texts are what breaks encodings, quoting and escaping.
var texts = []string{"", " ", "null", "\x00\x01\x1f\x7f", "line\r\nline\ttab", `"quoted" 'single' \back\\slash`,
	"{{braces}} ${dollar} %s",
	"'; DROP TABLE assets; --", "Grüße 日本語 עברית", "e\u0301 \u200b \ufeff \u2028\u2029 \ufffd", "🎬👩‍👩‍👧\U0010ffff",
	"-1.5e10", "2024-02-30", strings.Repeat("long ", 1000)}

// Texts of all kinds, empty and missing values, a large record, odd keys.
func checkValues(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	var records []*record.Record
	add := func(value func(f record.Field) record.Value) {
		r := Record(p.Schema, len(records), Base)
		for i, f := range p.Schema.Fields {
			if !slices.Contains(p.Schema.Key, i) {
				r.Values[i] = value(f)
			}
		}
		records = append(records, r)
	}
	for _, text := range texts {
		add(func(f record.Field) record.Value { return special(f.Type, text, uint64(len(records))) })
	}
	add(func(record.Field) record.Value { return record.NullValue })
	add(func(record.Field) record.Value { return record.Value{} })
	add(func(f record.Field) record.Value {
		if f.Type.Kind == record.List || f.Type.Kind == record.Set || f.Type.Kind == record.Map {
			return record.Nested(f.Type.Kind, nil)
		}
		return Value(f.Type, 1)
	})
	if k := p.Schema.Key; len(k) == 1 && p.Schema.Fields[k[0]].Type.Kind == record.Text {
		for _, key := range []string{"a|b", `a\b`, `a\|b`, "a/b c?d=e&f#g%20", "schlüssel-日本", `"key"`, "-",
			strings.Repeat("k", 400)} {
			r := Record(p.Schema, 0, Base)
			r.Values[k[0]] = record.String(key)
			records = append(records, r)
		}
	}
	p.put(s, records, taken...)

	large := Record(p.Schema, len(records), Base)
	for i, f := range p.Schema.Fields {
		if f.Type.Kind == record.Text && !slices.Contains(p.Schema.Key, i) {
			large.Values[i] = record.String(strings.Repeat("0123456789abcdef", 1<<16))
			break
		}
	}
	// A system may have a limit, but then it is this record alone that fails.
	around := []*record.Record{Record(p.Schema, len(records)+1, Base), large, Record(p.Schema, len(records)+2, Base)}
	l := p.put(s, around, append([]record.Outcome{record.Dead}, taken...)...)
	for _, r := range around {
		if res, _ := l.get(r); res.Outcome == record.Dead && r == large {
			p.refusal(res)
			continue
		} else if res.Outcome == record.Dead {
			p.addf("%s beside a large record: %v", r.KeyText(), res.Err)
		}
		records = append(records, r)
	}
	p.holds("special values", records...)
}

// special puts a text into texts and into the elements of collections of text.
func special(t record.Type, text string, seed uint64) record.Value {
	v := record.String(text)
	switch {
	case t.Kind == record.Text:
		return v
	case (t.Kind == record.List || t.Kind == record.Set) && t.Elems[0].Kind == record.Text:
		return record.Nested(t.Kind, []record.Value{v})
	case t.Kind == record.Map && t.Elems[0].Kind == record.Text && t.Elems[1].Kind == record.Text:
		return record.Nested(t.Kind, []record.Value{record.String("a.b"), v})
	}
	return Value(t, seed)
}

// A newer version replaces every field, collections too, and nulls remove.
func checkReplace(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	for v := range int64(4) {
		records := Records(p.Schema, 0, 5, Base+v)
		for _, r := range records {
			for i := range r.Values {
				if v == 2 && !slices.Contains(p.Schema.Key, i) {
					r.Values[i] = record.NullValue
				}
			}
		}
		p.put(s, records, taken...)
		p.holds(fmt.Sprintf("after version %d", v), records...)
	}
}

// The same records again, by another run, leave the same.
func checkAgain(p *sinkProbe) {
	for range 3 {
		s := p.prepared()
		if s == nil {
			return
		}
		p.put(s, Records(p.Schema, 0, 50, Base), taken...)
		p.holds("the same records again", Records(p.Schema, 0, 50, Base)...)
	}
}

// The highest version stays, in whatever order and from whatever writer versions come.
func checkVersions(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	const n = 10
	late := []record.Outcome{record.Superseded}
	if !p.Superseded {
		late = append(late, taken...)
	}
	at := func(v int64) []*record.Record { return Records(p.Schema, 0, n, Base+v) }
	p.put(s, at(2000), taken...)
	p.put(s, at(1000), late...)
	p.holds("after an older version", at(2000)...)
	p.put(s, at(2000), taken...)
	p.holds("after the same version", at(2000)...)
	p.put(s, at(3000), taken...)
	p.put(s, at(2999), late...)
	p.holds("after a newer and an older version", at(3000)...)

	// Many versions of a few keys, shuffled, in one writer.
	var mixed []*record.Record
	for v := range int64(20) {
		mixed = append(mixed, Records(p.Schema, n, n, Base+v)...)
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	p.put(s, mixed, append(slices.Clone(taken), record.Superseded)...)
	p.holds("after versions in mixed order", append(at(3000), Records(p.Schema, n, n, Base+19)...)...)
}

// Below the floor of its run a record wins whatever its version; what is newer than that stays.
func checkFloor(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	up := func(n int, v int64) *record.Record { return Record(p.Schema, n, Base+v) }
	live := up(3, 4000)
	p.put(s, []*record.Record{up(0, 2000), up(1, 2000), up(2, 1000), live, up(4, 2000)}, taken...)
	run := p.run()
	run.Floor = Base + 2001
	cleared := up(1, 1000)
	for i := range cleared.Values {
		if !slices.Contains(p.Schema.Key, i) {
			cleared.Values[i] = record.NullValue
		}
	}
	either := append(slices.Clone(taken), record.Superseded)
	now := []*record.Record{up(0, 1000), cleared, up(2, 1500), up(4, 3000)}
	p.putAs(s, run, append(slices.Clone(now), up(3, 1000)), either...)
	want := append(slices.Clone(now), live)
	p.holds("below the floor", want...)
	run.ID = p.run().ID
	p.putAs(s, run, now, taken...)
	p.holds("below the floor, again", want...)
	run.ID, run.Floor = p.run().ID, Base+2002
	p.putAs(s, run, []*record.Record{up(1, 900)}, taken...)
	want[1] = up(1, 900)
	p.holds("below the floor of a later run", want...)
	if p.Deletes {
		run.ID, run.Floor = p.run().ID, Base+2003
		p.putAs(s, run, []*record.Record{Deletion(p.Schema, 0, Base+500)}, taken...)
		p.holds("after a delete below the floor", want[1:]...)
	}
}

// A delete removes what is older, never what is newer, and what is older than a delete never comes back.
func checkDeletes(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	either := append(slices.Clone(taken), record.Superseded)
	late := []record.Outcome{record.Superseded}
	if !p.Superseded {
		late = either
	}
	up := func(n int, v int64) *record.Record { return Record(p.Schema, n, Base+v) }
	put := func(when string, r *record.Record, outcomes []record.Outcome, want ...*record.Record) {
		p.put(s, []*record.Record{r}, outcomes...)
		p.holds(when, want...)
	}
	p.put(s, []*record.Record{up(0, 2000), up(1, 2000)}, taken...)
	other := up(1, 2000)
	put("after an older delete", Deletion(p.Schema, 0, Base+1000), late, up(0, 2000), other)
	put("after a newer delete", Deletion(p.Schema, 0, Base+3000), taken, other)
	put("after an older upsert of a deleted key", up(0, 2500), late, other)
	put("after the same delete again", Deletion(p.Schema, 0, Base+3000), either, other)
	put("after a newer upsert of a deleted key", up(0, 4000), taken, up(0, 4000), other)
	put("after a delete of what never was", Deletion(p.Schema, 2, Base+1000), either, up(0, 4000), other)
	put("after an upsert older than that", up(2, 500), late, up(0, 4000), other)

	mixed := []*record.Record{up(3, 10), Deletion(p.Schema, 3, Base+20), up(3, 15), up(4, 30),
		Deletion(p.Schema, 4, Base+20), up(5, 10), Deletion(p.Schema, 5, Base+20), up(5, 30)}
	p.put(s, mixed, either...)
	p.holds("after upserts and deletes in one bundle", up(0, 4000), other, up(4, 30), up(5, 30))
}

// One bad record among good ones is the only one that dies.
func checkRefused(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	good, bad := Records(p.Schema, 0, 20, Base), p.Refused()
	l := p.put(s, slices.Insert(slices.Clone(good), 10, bad), append([]record.Outcome{record.Dead}, taken...)...)
	if res, ok := l.get(bad); ok {
		p.refusal(res)
	}
	for _, r := range good {
		if res, _ := l.get(r); res.Outcome == record.Dead {
			p.addf("%s beside a refused record: %v", r.KeyText(), res.Err)
		}
	}
	p.holds("beside a refused record", good...)

	alone := p.Refused()
	if res, ok := p.put(s, []*record.Record{alone}, record.Dead).get(alone); ok {
		p.refusal(res)
	}
	p.holds("after a refused record alone", good...)
}

// A bundle larger than any batch.
func checkMany(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	records := Records(p.Schema, 0, 5000, Base)
	p.put(s, records, taken...)
	p.holds("after many records", records...)
	if n := p.count(); n != len(records) {
		p.addf("%d entries for %d records that were written once", n, len(records))
	}
}

// Several writers of one sink at once, and writers that are given up.
func checkWriters(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	const writers, each = 4, 200
	run := p.run()
	var mu sync.Mutex
	var parts [][]byte
	var written int64
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for bundle := range 2 {
				l := p.ledger()
				records := Records(p.Schema, (2*i+bundle)*each, each, Base)
				more, ok := p.writeAll(s, run, l, records)
				if ok {
					l.complete(records, taken...)
				}
				mu.Lock()
				parts, written = append(parts, more...), written+l.written()
				mu.Unlock()
			}
		})
	}
	all.Wait()

	for range 3 {
		w, err := s.Open(p.ctx, run, p.Schema, p.ledger().settle)
		if err != nil {
			p.addf("Open: %v", err)
			return
		}
		if err := w.Close(); err != nil {
			p.addf("Close of an unused writer: %v", err)
		}
	}
	p.commit(s, run, parts, written)
	records := Records(p.Schema, 0, 2*writers*each, Base)
	p.holds("after several writers", records...)
	if n := p.count(); n != len(records) {
		p.addf("%d entries for %d records that were written once", n, len(records))
	}
}

// A cancelled context ends Write and Flush soon, nothing settles twice, and the records can be written again.
func checkCancel(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	records := Records(p.Schema, 0, 3000, Base)
	for _, when := range []int{0, 1, 1500, 3000} {
		ctx, cancel := context.WithCancel(p.ctx)
		l := p.ledger()
		w, err := s.Open(ctx, p.run(), p.Schema, l.settle)
		if err != nil {
			p.addf("Open: %v", err)
			cancel()
			return
		}
		taken := 0
		ended := within(p.prompt, func() {
			var err error
			for i, r := range records {
				if i == when {
					cancel()
				}
				if err = w.Write(ctx, r); err != nil {
					break
				}
				taken++
			}
			cancel()
			if err == nil {
				_, err = w.Flush(ctx)
			}
			if err == nil && l.len() < taken {
				p.addf("Flush returned no error with %d of %d records settled", l.len(), taken)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				p.addf("the error after a cancellation is %v, want context.Canceled", err)
			}
			_ = w.Close()
			l.close()
		})
		if !ended {
			p.addf("a writer cancelled after %d records does not end within %s", when, p.prompt)
			return
		}
		for _, r := range records {
			if res, ok := l.get(r); ok && res.Outcome == record.Dead {
				p.addf("%s became a dead letter by a cancellation: %v", r.KeyText(), res.Err)
			}
		}
	}
	p.put(s, records, taken...)
	p.holds("after cancelled bundles", records...)
}

// Nothing is seen before Commit, everything after it, once, by whichever process commits and however often.
func checkCommit(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	run := p.run()
	var parts [][]byte
	for i := range 3 {
		l := p.ledger()
		records := Records(p.Schema, i*100, 100, Base)
		more, ok := p.writeAll(s, run, l, records)
		if !ok {
			return
		}
		l.complete(records, record.Written)
		parts = append(parts, more...)
	}
	p.writeAll(s, run, p.ledger(), Records(p.Schema, 1000, 10, Base)) // a bundle that failed later: its parts are lost
	p.holds("before Commit")
	committer := p.newSink()
	p.commit(committer, run, parts, 300)
	p.holds("after Commit", Records(p.Schema, 0, 300, Base)...)
	for range 2 {
		p.commit(p.newSink(), run, parts, 300)
	}
	p.commit(committer, run, parts, 300)
	if n := p.count(); n != 300 {
		p.addf("%d entries after a repeated Commit of 300 records", n)
	}
	p.commit(committer, p.run(), nil, 0)
	p.holds("after a Commit without parts", Records(p.Schema, 0, 300, Base)...)
}

// A server that stops answering for a while costs nothing; a writer that waits for it can be cancelled.
func checkPause(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	records := Records(p.Schema, 0, 2000, Base)
	p.disturb(s, records, p.Server.Pause, p.Server.Resume)
	p.holds("after a pause of the server", records...)

	more := Records(p.Schema, 2000, 2000, Base)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	l := p.ledger()
	w, err := s.Open(ctx, p.run(), p.Schema, l.settle)
	if err != nil {
		p.addf("Open: %v", err)
		return
	}
	var writing sync.WaitGroup
	var count atomic.Int64
	p.Server.Pause()
	writing.Go(func() {
		for _, r := range more {
			if w.Write(ctx, r) != nil {
				return
			}
			count.Add(1)
		}
		if _, err := w.Flush(ctx); err == nil {
			p.addf("Flush returned without an error although the server did not answer")
		}
	})
	p.standstill(&count)
	cancel()
	if !within(p.prompt, func() { writing.Wait(); _ = w.Close(); l.close() }) {
		p.addf("a writer that waits for the server does not end within %s of its cancellation", p.prompt)
	}
	p.Server.Resume()
	p.put(s, more, taken...)
	p.holds("after a cancellation while the server was paused", append(records, more...)...)
}

// A server that goes away and comes back costs nothing.
func checkStop(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	records := Records(p.Schema, 0, 2000, Base)
	p.disturb(s, records, p.Server.Stop, p.Server.Start)
	p.holds("after a restart of the server", records...)
}

// disturb writes half of the records, the other half while the server is disturbed.
func (p *sinkProbe) disturb(s connector.Sink, records []*record.Record, begin, end func()) {
	run, l := p.run(), p.ledger()
	w, err := s.Open(p.ctx, run, p.Schema, l.settle)
	if err != nil {
		p.addf("Open: %v", err)
		return
	}
	half := len(records) / 2
	var count atomic.Int64
	write := func(part []*record.Record) {
		for _, r := range part {
			if err := w.Write(p.ctx, r); err != nil {
				p.addf("Write: %v", err)
				return
			}
			count.Add(1)
		}
	}
	write(records[:half])
	begin()
	var writing sync.WaitGroup
	writing.Go(func() { write(records[half:]) })
	p.standstill(&count)
	end()
	writing.Wait()
	p.finish(s, run, w, l, records)
}

// finish flushes, closes and commits a writer that took these records.
func (p *sinkProbe) finish(s connector.Sink, run connector.Run, w connector.Writer, l *ledger,
	records []*record.Record) {
	parts, err := w.Flush(p.ctx)
	if err != nil {
		p.addf("Flush: %v", err)
	}
	if err := w.Close(); err != nil {
		p.addf("Close of the writer: %v", err)
	}
	l.close()
	l.complete(records, taken...)
	p.checkParts(s, parts)
	p.commit(s, run, parts, l.written())
}

// standstill returns when a counter has not moved for a while. Whatever it sees, only the strength of a check depends
// on it.
func (p *sinkProbe) standstill(count *atomic.Int64) {
	for last := int64(-1); last != count.Load(); {
		last = count.Load()
		time.Sleep(p.still)
	}
}

// While the server does not answer, a writer takes in no more than a bound.
func checkBound(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	const size, offered = 64 << 10, 4096 // 256 MiB
	text := record.String(strings.Repeat("x", size))
	records := make([]*record.Record, offered)
	for i := range records {
		records[i] = Record(p.Schema, i, Base)
		for j, f := range p.Schema.Fields {
			if f.Type.Kind == record.Text && !slices.Contains(p.Schema.Key, j) {
				records[i].Values[j] = text
				break
			}
		}
	}
	run, l := p.run(), p.ledger()
	w, err := s.Open(p.ctx, run, p.Schema, l.settle)
	if err != nil {
		p.addf("Open: %v", err)
		return
	}
	var count atomic.Int64
	var enough atomic.Bool
	var writing sync.WaitGroup
	p.Server.Pause()
	writing.Go(func() {
		for _, r := range records {
			if enough.Load() {
				return
			}
			if err := w.Write(p.ctx, r); err != nil {
				p.addf("Write: %v", err)
				return
			}
			count.Add(1)
		}
	})
	p.standstill(&count)
	enough.Store(true)
	p.Server.Resume()
	writing.Wait()
	n := int(count.Load())
	if n == offered {
		p.addf("Write took %d MiB while the server did not answer", offered*size>>20)
	}
	p.finish(s, run, w, l, records[:n])
	if n < offered {
		p.holds("after a standstill", records[:n]...)
	}
}
