package iotest

import (
	"sync"
	"testing"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// memories gives each target a Memory, all of them one server.
type memories struct {
	set  func(*Memory)
	mu   sync.Mutex
	each map[string]*Memory
}

func (ms *memories) get(target string) *Memory {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.each[target] == nil {
		if ms.each == nil {
			ms.each = map[string]*Memory{}
		}
		m := NewMemory()
		if ms.set != nil {
			ms.set(m)
		}
		ms.each[target] = m
	}
	return ms.each[target]
}

func (ms *memories) all(f func(*Memory)) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, m := range ms.each {
		f(m)
	}
}

func (ms *memories) Pause()  { ms.all((*Memory).Pause) }
func (ms *memories) Resume() { ms.all((*Memory).Resume) }
func (ms *memories) Stop()   { ms.all((*Memory).Stop) }
func (ms *memories) Start()  { ms.all((*Memory).Start) }

func (ms *memories) sink() Sink {
	return Sink{
		New:        func(_ *testing.T, target string) connector.Sink { return ms.get(target).Sink() },
		Read:       func(_ *testing.T, target string) map[string]string { return ms.get(target).Rows() },
		Superseded: true, Deletes: true, Refused: refused, Server: ms,
	}
}

const bad = "refuse me"

func refused() *record.Record {
	r := Record(AssetSchema(), 99999, Base)
	r.Values[2] = record.String(bad)
	return r
}

func refuse(r *record.Record) error {
	if r.Get("title").Str() == bad {
		return fail.New(fail.Permanent, "memory.refused", "the title is %q", bad)
	}
	return nil
}

func TestMemorySink(t *testing.T) {
	ms := &memories{set: func(m *Memory) { m.Refuse = refuse }}
	testSink(t, ms.sink(), 20*time.Second, 200*time.Millisecond)
}

func TestMemoryCommittingSink(t *testing.T) {
	ms := &memories{set: func(m *Memory) { m.Refuse, m.Committing = refuse, true }}
	s := ms.sink()
	s.Superseded = false
	testSink(t, s, 20*time.Second, 200*time.Millisecond)
}

func TestMemorySource(t *testing.T) {
	m := NewMemory()
	m.PageRows = 7
	m.Load(Records(AssetSchema(), 0, 500, Base)...)
	m.Load(Deletion(AssetSchema(), 3, Base+1))
	m.LoadRaw("text-000012x", []byte("{"))
	TestSource(t, Source{New: func(*testing.T) connector.Source { return m.Source() }, Want: m.Rows()})
}
