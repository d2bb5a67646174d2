package merge

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/apache/iceberg-go"
	"pgregory.net/rapid"
)

// drawEntries draws versions of few keys, in files 0 to 3 and as deletes.
func drawEntries(t *rapid.T, most int) []entry {
	n := rapid.IntRange(0, most).Draw(t, "entries")
	all := make([]entry, n)
	for i := range all {
		key := KeyOf([]byte{byte(rapid.IntRange(0, 9).Draw(t, "key"))})
		all[i] = entry{key: key, version: rapid.Int64Range(0, 4).Draw(t, "version"),
			file: int32(rapid.IntRange(-2, 3).Draw(t, "file")), row: uint32(i)}
	}
	return all
}

// What goes into a spill comes out, whatever the memory, each key in one bucket, and the files are gone in the end.
func TestSpillKeepsAll(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, n := range []int{0, 1, 1000, 5000} {
		s := newSpill(int64(n)*4, 0)
		want := map[entry]bool{}
		for i := range n {
			e := entry{key: KeyOf([]byte{byte(i), byte(i >> 8)}), version: int64(i) - 3,
				file: int32(i%5) - 3, row: uint32(i)}
			if err := s.add(e); err != nil {
				t.Fatal(err)
			}
			want[e] = true
		}
		got := map[entry]bool{}
		for bucket := range s.buckets {
			found, err := s.load(bucket, func(entry) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range found {
				if got[e] || int(e.key.hi>>s.shift) != bucket && len(s.buckets) > 1 {
					t.Fatalf("%+v is in bucket %d", e, bucket)
				}
				got[e] = true
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%d entries came out, want %d", len(got), len(want))
		}
		s.close()
		if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
			t.Errorf("%d entries left %v, %v", n, left, err)
		}
	}
}

// A filter knows every key that was added to it, and few others.
func TestFilterKnowsItsKeys(t *testing.T) {
	const keys = 10_000
	f := newFilter(keys, 1<<20)
	key := func(i int) Key { return KeyOf([]byte{byte(i), byte(i >> 8), byte(i >> 16)}) }
	for i := range keys {
		f.add(key(i))
	}
	wrong := 0
	for i := range keys {
		if !f.has(key(i)) {
			t.Fatalf("key %d is not known", i)
		}
		if f.has(key(keys + i)) {
			wrong++
		}
	}
	if wrong > keys/50 {
		t.Errorf("%d of %d foreign keys seem known", wrong, keys)
	}
}

// Of each key that the run has, the newest stays: between equal versions a delete, then a staged row, then the table's.
func TestTheNewestOfEachKeyStays(t *testing.T) {
	const staged = 2 // files 0 and 1
	rapid.Check(t, func(t *rapid.T) {
		all := drawEntries(t, 60)
		m := New(Options{Memory: 1 << 20})
		defer m.Close()
		m.staged = staged
		for range 4 {
			m.files = append(m.files, &keyed{file: dataFile{rows: 64}})
		}
		for _, e := range all {
			if err := m.spill.add(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.settle(nil); err != nil {
			t.Fatal(err)
		}
		rank := func(e entry) int {
			switch {
			case e.file < 0:
				return 2
			case e.file < staged:
				return 1
			}
			return 0
		}
		byKey := map[Key][]entry{}
		for _, e := range all {
			byKey[e.key] = append(byKey[e.key], e)
		}
		for _, of := range byKey {
			mine := slices.ContainsFunc(of,
				func(e entry) bool { return e.file == deleteEntry || e.file >= 0 && e.file < staged })
			best := slices.MaxFunc(of, func(a, b entry) int {
				return cmp.Or(cmp.Compare(a.version, b.version), cmp.Compare(rank(a), rank(b)))
			})
			left := 0
			for _, e := range of {
				if e.file < 0 {
					late := m.lostDeletes.has(int64(e.row))
					if want := mine && e.file == deleteEntry && e.version < best.version; late != want {
						t.Fatalf("delete %+v is late: %v, the best is %+v", e, late, best)
					}
					continue
				}
				if m.files[e.file].lost.has(int64(e.row)) {
					continue
				}
				left++
				if mine && (best.file < 0 || e.version != best.version || rank(e) != rank(best)) {
					t.Fatalf("%+v stays, the best is %+v", e, best)
				}
			}
			if mine && best.file >= 0 && left != 1 {
				t.Fatalf("%d rows stay of %+v", left, of)
			}
		}
	})
}

// dataFile is a data file of some rows, of which nothing else is asked.
type dataFile struct {
	iceberg.DataFile
	rows int64
}

func (d dataFile) Count() int64 { return d.rows }
