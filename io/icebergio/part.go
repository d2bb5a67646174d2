package icebergio

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/codec"
	"github.com/apache/iceberg-go/table"

	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/merge"
	"reprise/transforms/fail"
)

// part is the description of a data file on its way to the commit, or some deletes.
type part struct {
	Table   string `json:"table"` // its UUID
	Schema  int    `json:"schema"`
	Spec    int    `json:"spec"`
	Format  int    `json:"format"`
	Since   int64  `json:"since"`          // sequence number of the table when its rows began to be read
	File    []byte `json:"file,omitempty"` // as iceberg-go's codec.EncodeDataFile writes it
	Deletes []byte `json:"deletes,omitempty"`
	// Of deletes, by key columns: the least and the greatest value, as Iceberg stores them.
	Bounds map[string][][]byte `json:"bounds,omitempty"`
}

// deletes are keys that are to be deleted.
type deletes struct {
	list   []byte
	bounds map[string][][]byte // by key columns
}

// With base64 a batch of deletes stays below 1 MiB.
var _ [1<<20 - batchRows*merge.DeleteBytes*4/3 - 1<<10]struct{}

func encodeDeletes(t *table.Table, d deletes) ([]byte, error) {
	m := t.Metadata()
	return json.Marshal(part{Table: m.TableUUID().String(), Schema: m.CurrentSchema().ID, Since: m.LastSequenceNumber(),
		Deletes: d.list, Bounds: d.bounds})
}

func encodePart(t *table.Table, df iceberg.DataFile) ([]byte, error) {
	m := t.Metadata()
	spec := m.PartitionSpec()
	encoded, err := codec.EncodeDataFile(df, spec, m.CurrentSchema(), m.Version())
	if err != nil {
		return nil, err
	}
	return json.Marshal(part{Table: m.TableUUID().String(), Schema: m.CurrentSchema().ID, Spec: spec.ID(),
		Format: m.Version(), Since: m.LastSequenceNumber(), File: encoded})
}

// staged is what a run has written: data files, each once, and lists of deletes.
type staged struct {
	files   []iceberg.DataFile
	deletes [][]byte
	bounds  []merge.Bounds // of the keys in them
	since   int64          // sequence number of the table when the first of them began to be read
	records int64
	digest  string // tells what is staged from other things
}

// add adds a part.
func (s *staged) add(t *table.Table, b []byte, key []string) error {
	var p part
	if err := json.Unmarshal(b, &p); err != nil {
		return fail.New(fail.Fatal, "iceberg.part", "the description of a data file is damaged: %w", err)
	}
	m := t.Metadata()
	if p.Table != m.TableUUID().String() {
		return fail.Job("iceberg.other_table",
			"table %s is another one than that which the data files were written for", tables.Name(t)).
			WithFix("it was dropped and made again while the job ran: run the job again")
	}
	if s.since < 0 || p.Since < s.since {
		s.since = p.Since
	}
	at := slices.IndexFunc(m.Schemas(), func(s *iceberg.Schema) bool { return s.ID == p.Schema })
	if len(p.Deletes) > 0 {
		if len(p.Deletes)%merge.DeleteBytes != 0 {
			return fail.New(fail.Fatal, "iceberg.part", "a list of deletes is damaged")
		}
		is := merge.Bounds{}
		for name, b := range p.Bounds {
			if at >= 0 && len(b) == 2 {
				is.Put(m.Schemas()[at], name, b[0], b[1])
			}
		}
		s.deletes, s.bounds = append(s.deletes, p.Deletes), append(s.bounds, is)
		return nil
	}
	spec := m.PartitionSpecByID(p.Spec)
	if spec == nil || at < 0 {
		return fail.Job("iceberg.other_table",
			"table %s has lost the schema or the partition spec which the data files were written by", tables.Name(t)).
			WithFix("run the job again")
	}
	df, err := codec.DecodeDataFile(p.File, *spec, m.Schemas()[at], p.Format)
	if err != nil {
		return fail.New(fail.Fatal, "iceberg.part", "the description of a data file is damaged: %w", err)
	}
	s.files, s.bounds = append(s.files, df), append(s.bounds, merge.FileBounds(m.Schemas()[at], df, key))
	return nil
}

func (s *staged) deleted() (n int64) {
	for _, list := range s.deletes {
		n += int64(len(list) / merge.DeleteBytes)
	}
	return n
}

// decodeParts gives what is staged; key are the columns of the key, if they matter.
func decodeParts(t *table.Table, parts [][]byte, key []string) (*staged, error) {
	s := &staged{since: -1}
	for _, p := range parts {
		if err := s.add(t, p, key); err != nil {
			return nil, err
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
