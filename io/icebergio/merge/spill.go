package merge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"os"
)

// entry is a row or a delete among those of the same key.
type entry struct {
	key     Key
	version int64
	file    int32 // number of the file, or one of those of merge
	row     uint32
}

const entryBytes = 32

// spill holds entries in buckets by their key, no more in memory than a limit; the others lie in temporary files.
type spill struct {
	buckets [][]entry
	shift   int // of the key's first bits
	held    int
	most    int
	folder  string
	files   []*os.File // nil: none of the bucket
}

// mostBuckets bounds the open files.
const mostBuckets = 256

// newSpill is for about a number of entries. A bucket that is loaded takes about as much as all that is held.
func newSpill(entries, memory int64) *spill {
	most := max(1024, memory/2/entryBytes)
	n := 1
	for int64(n)*most < entries && n < mostBuckets {
		n *= 2
	}
	return &spill{buckets: make([][]entry, n), files: make([]*os.File, n),
		shift: 64 - bits.TrailingZeros(uint(n)), most: int(most)}
}

func (s *spill) add(e entry) error {
	at := e.key.hi >> s.shift
	s.buckets[at] = append(s.buckets[at], e)
	s.held++
	if s.held < s.most || len(s.buckets) == 1 {
		return nil
	}
	return s.flush()
}

// flush puts on disk what is in memory.
func (s *spill) flush() (err error) {
	if s.folder == "" {
		if s.folder, err = os.MkdirTemp("", "reprise-keys-"); err != nil {
			return err
		}
	}
	for i, bucket := range s.buckets {
		if len(bucket) == 0 {
			continue
		}
		if s.files[i] == nil {
			if s.files[i], err = os.CreateTemp(s.folder, ""); err != nil {
				return err
			}
		}
		w := bufio.NewWriterSize(s.files[i], 64<<10)
		var b [entryBytes]byte
		for _, e := range bucket {
			binary.LittleEndian.PutUint64(b[:], e.key.hi)
			binary.LittleEndian.PutUint64(b[8:], e.key.lo)
			binary.LittleEndian.PutUint64(b[16:], uint64(e.version))
			binary.LittleEndian.PutUint32(b[24:], uint32(e.file))
			binary.LittleEndian.PutUint32(b[28:], e.row)
			if _, err := w.Write(b[:]); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		s.buckets[i] = bucket[:0]
	}
	s.held = 0
	return nil
}

// load gives the entries of a bucket that are wanted, for the caller to sort.
func (s *spill) load(bucket int, want func(entry) bool) ([]entry, error) {
	var found []entry
	if f := s.files[bucket]; f != nil {
		r := bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), 256<<10)
		var b [entryBytes]byte
		for {
			if _, err := io.ReadFull(r, b[:]); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			e := entry{key: Key{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])},
				version: int64(binary.LittleEndian.Uint64(b[16:])), file: int32(binary.LittleEndian.Uint32(b[24:])),
				row: binary.LittleEndian.Uint32(b[28:])}
			if want(e) {
				found = append(found, e)
			}
		}
	}
	for _, e := range s.buckets[bucket] {
		if want(e) {
			found = append(found, e)
		}
	}
	return found, nil
}

// close deletes the files.
func (s *spill) close() {
	for _, f := range s.files {
		if f != nil {
			f.Close()
		}
	}
	if s.folder != "" {
		os.RemoveAll(s.folder)
	}
}

// filter tells which keys are certainly not among those added to it: a Bloom filter whose four bits come of two halves
// of the key's hash (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", 2006).
type filter []uint64

// newFilter is for about a number of keys: 16 bits of each, as far as the memory reaches.
func newFilter(keys, memory int64) filter {
	n := int64(1)
	for n*4 < keys && n*16 <= memory {
		n *= 2
	}
	return make(filter, n)
}

func (f filter) add(k Key) {
	for i := range uint64(4) {
		bit := k.lo + i*(k.hi|1)
		f[bit>>6&uint64(len(f)-1)] |= 1 << (bit & 63)
	}
}

func (f filter) has(k Key) bool {
	for i := range uint64(4) {
		bit := k.lo + i*(k.hi|1)
		if f[bit>>6&uint64(len(f)-1)]&(1<<(bit&63)) == 0 {
			return false
		}
	}
	return true
}

// bitmap is a set of rows of a file.
type bitmap []uint64

func (b bitmap) has(n int64) bool { return n>>6 < int64(len(b)) && b[n>>6]&(1<<(n&63)) != 0 }

// set adds a number of a range that begins at 0.
func (b *bitmap) set(n, size int64) {
	if *b == nil {
		*b = make(bitmap, (size+63)/64)
	}
	for n>>6 >= int64(len(*b)) {
		*b = append(*b, 0)
	}
	(*b)[n>>6] |= 1 << (n & 63)
}
