package icebergio

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/codec"
	"github.com/apache/iceberg-go/table"

	"reprise/transforms/fail"
)

// part is the description of a data file on its way to the commit, or some deletes.
type part struct {
	Table   string `json:"table"` // its UUID
	Schema  int    `json:"schema"`
	Spec    int    `json:"spec"`
	Format  int    `json:"format"`
	File    []byte `json:"file,omitempty"` // as iceberg-go's codec.EncodeDataFile writes it
	Deletes []byte `json:"deletes,omitempty"`
}

// A delete is its key and its version, 8 bytes each half and the version, big-endian.
const deleteBytes = 24

// With base64 a batch of deletes stays below 1 MiB.
var _ [1<<20 - batchRows*deleteBytes*4/3 - 1<<10]struct{}

func appendDelete(b []byte, k keyID, version int64) []byte {
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, k.hi), k.lo)
	return binary.BigEndian.AppendUint64(b, uint64(version))
}

// eachDelete gives the deletes of a list, which holds whole ones.
func eachDelete(list []byte, do func(k keyID, version int64) error) error {
	for ; len(list) >= deleteBytes; list = list[deleteBytes:] {
		k := keyID{binary.BigEndian.Uint64(list), binary.BigEndian.Uint64(list[8:])}
		if err := do(k, int64(binary.BigEndian.Uint64(list[16:]))); err != nil {
			return err
		}
	}
	return nil
}

func encodeDeletes(t *table.Table, list []byte) ([]byte, error) {
	return json.Marshal(part{Table: t.Metadata().TableUUID().String(), Deletes: list})
}

func encodePart(t *table.Table, df iceberg.DataFile) ([]byte, error) {
	m := t.Metadata()
	spec := m.PartitionSpec()
	encoded, err := codec.EncodeDataFile(df, spec, m.CurrentSchema(), m.Version())
	if err != nil {
		return nil, err
	}
	return json.Marshal(part{Table: m.TableUUID().String(), Schema: m.CurrentSchema().ID, Spec: spec.ID(), Format: m.Version(), File: encoded})
}

// decodePart gives a data file, or a list of deletes.
func decodePart(t *table.Table, b []byte) (iceberg.DataFile, []byte, error) {
	var p part
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, nil, fail.New(fail.Fatal, "iceberg.part", "the description of a data file is damaged: %w", err)
	}
	m := t.Metadata()
	if p.Table != m.TableUUID().String() {
		return nil, nil, fail.Job("iceberg.other_table", "table %s is another one than that which the data files were written for", tableName(t)).
			WithFix("it was dropped and made again while the job ran: run the job again")
	}
	if len(p.Deletes) > 0 {
		if len(p.Deletes)%deleteBytes != 0 {
			return nil, nil, fail.New(fail.Fatal, "iceberg.part", "a list of deletes is damaged")
		}
		return nil, p.Deletes, nil
	}
	spec := m.PartitionSpecByID(p.Spec)
	at := slices.IndexFunc(m.Schemas(), func(s *iceberg.Schema) bool { return s.ID == p.Schema })
	if spec == nil || at < 0 {
		return nil, nil, fail.Job("iceberg.other_table", "table %s has lost the schema or the partition spec which the data files were written by", tableName(t)).
			WithFix("run the job again")
	}
	df, err := codec.DecodeDataFile(p.File, *spec, m.Schemas()[at], p.Format)
	if err != nil {
		return nil, nil, fail.New(fail.Fatal, "iceberg.part", "the description of a data file is damaged: %w", err)
	}
	return df, nil, nil
}

// staged is what a run has written: data files, each once, and lists of deletes.
type staged struct {
	files   []iceberg.DataFile
	deletes [][]byte
	records int64
	digest  string // tells what is staged from other things
}

func (s *staged) deleted() (n int64) {
	for _, list := range s.deletes {
		n += int64(len(list) / deleteBytes)
	}
	return n
}

func decodeParts(t *table.Table, parts [][]byte) (*staged, error) {
	s := &staged{}
	for _, p := range parts {
		df, deletes, err := decodePart(t, p)
		switch {
		case err != nil:
			return nil, err
		case df != nil:
			s.files = append(s.files, df)
		default:
			s.deletes = append(s.deletes, deletes)
		}
	}
	slices.SortFunc(s.files, func(a, b iceberg.DataFile) int { return strings.Compare(a.FilePath(), b.FilePath()) })
	s.files = slices.CompactFunc(s.files, func(a, b iceberg.DataFile) bool { return a.FilePath() == b.FilePath() })
	slices.SortFunc(s.deletes, bytes.Compare)
	paths := make([]string, len(s.files))
	for i, df := range s.files {
		paths[i] = df.FilePath()
		s.records += df.Count()
	}
	for _, list := range s.deletes {
		paths = append(paths, string(list))
	}
	s.records += s.deleted()
	s.digest = filesDigest(paths)
	return s, nil
}

// filesDigest tells one set of files from another.
func filesDigest(sorted []string) string {
	h := sha256.New()
	for _, path := range sorted {
		h.Write([]byte(path))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
