package iotest

import (
	"math/rand/v2"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// step is one write of a random interleaving.
type step struct {
	run bool // by the run; else by the live system
	r   *record.Record
}

// interleaving is what the live system and a run write, in some order: for each key the live system's writes come in
// the order of their versions, and the run's comes at some time after it has read the row, with the version that the
// row had then. newest is what must remain: for each key the live system's last write or, if that was all that the run
// missed, the run's.
func (p *sinkProbe) interleaving(random *rand.Rand) (all []step, newest []*record.Record) {
	const keys, writes = 40, 6
	var waiting [][]step
	for n := range keys {
		var of []step
		version, last := int64(Base), (*record.Record)(nil)
		writesOf := 1 + random.IntN(writes)
		read := random.IntN(writesOf + 1) // after so many writes
		var late *record.Record
		for i := range writesOf {
			version += 1 + random.Int64N(1000)
			last = Record(p.Schema, n, version)
			if p.Deletes && random.IntN(3) == 0 {
				last = Deletion(p.Schema, n, version)
			}
			of = append(of, step{r: last})
			if i+1 == read && last.Op == record.Upsert {
				late = Record(p.Schema, n, version)
			}
		}
		if late != nil {
			at := read + random.IntN(len(of)-read+1)
			of = append(of[:at:at], append([]step{{run: true, r: late}}, of[at:]...)...)
		}
		waiting = append(waiting, of)
		newest = append(newest, last)
	}
	for len(waiting) > 0 {
		i := random.IntN(len(waiting))
		all = append(all, waiting[i][0])
		if waiting[i] = waiting[i][1:]; len(waiting[i]) == 0 {
			waiting = append(waiting[:i], waiting[i+1:]...)
		}
	}
	return all, newest
}

// However the writes of a run and those of a live system fall between each other, what remains is as if only the newest
// had happened: a live write is never overwritten, and what was deleted meanwhile does not come back.
func checkLive(p *sinkProbe) {
	s := p.prepared()
	if s == nil {
		return
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	all, newest := p.interleaving(random)

	const live, run = 0, 1
	var runs [2]connector.Run
	var writers [2]connector.Writer
	var ledgers [2]*ledger
	var parts [2][][]byte
	for i := range writers {
		runs[i], ledgers[i] = p.run(), p.ledger()
		w, err := s.Open(p.ctx, runs[i], p.Schema, ledgers[i].settle)
		if err != nil {
			p.addf("Open: %v", err)
			return
		}
		defer w.Close()
		writers[i] = w
	}
	flush := func(i int) bool {
		more, err := writers[i].Flush(p.ctx)
		if err != nil {
			p.addf("Flush: %v", err)
			return false
		}
		parts[i] = append(parts[i], more...)
		return true
	}
	for _, st := range all {
		i := live
		if st.run {
			i = run
		}
		if err := writers[i].Write(p.ctx, st.r); err != nil {
			p.addf("Write: %v", err)
			return
		}
		if random.IntN(4) == 0 && !flush(random.IntN(2)) {
			return
		}
	}
	for _, i := range random.Perm(2) {
		if !flush(i) {
			return
		}
		p.commit(s, runs[i], parts[i], ledgers[i].written())
	}
	p.holds("after writes of a run between live ones", newest...)
	if len(p.list) > 0 {
		p.addf("seed %d", seed)
	}
}
