package icebergio

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/codec"
	"github.com/apache/iceberg-go/table"

	"reprise/transforms/fail"
)

// part is the description of a data file on its way to the commit.
type part struct {
	Table  string `json:"table"` // its UUID
	Schema int    `json:"schema"`
	Spec   int    `json:"spec"`
	Format int    `json:"format"`
	File   []byte `json:"file"` // as iceberg-go's codec.EncodeDataFile writes it
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

func decodePart(t *table.Table, b []byte) (iceberg.DataFile, error) {
	var p part
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fail.New(fail.Fatal, "iceberg.part", "the description of a data file is damaged: %w", err)
	}
	m := t.Metadata()
	if p.Table != m.TableUUID().String() {
		return nil, fail.Job("iceberg.other_table", "table %s is another one than that which the data files were written for", tableName(t)).
			WithFix("it was dropped and made again while the job ran: run the job again")
	}
	spec := m.PartitionSpecByID(p.Spec)
	at := slices.IndexFunc(m.Schemas(), func(s *iceberg.Schema) bool { return s.ID == p.Schema })
	if spec == nil || at < 0 {
		return nil, fail.Job("iceberg.other_table", "table %s has lost the schema or the partition spec which the data files were written by", tableName(t)).
			WithFix("run the job again")
	}
	df, err := codec.DecodeDataFile(p.File, *spec, m.Schemas()[at], p.Format)
	if err != nil {
		return nil, fail.New(fail.Fatal, "iceberg.part", "the description of a data file is damaged: %w", err)
	}
	return df, nil
}

// decodeParts are the data files of the parts, each once, with the number of their records.
func decodeParts(t *table.Table, parts [][]byte) (files []iceberg.DataFile, records int64, digest string, err error) {
	for _, p := range parts {
		df, err := decodePart(t, p)
		if err != nil {
			return nil, 0, "", err
		}
		files = append(files, df)
	}
	slices.SortFunc(files, func(a, b iceberg.DataFile) int { return strings.Compare(a.FilePath(), b.FilePath()) })
	files = slices.CompactFunc(files, func(a, b iceberg.DataFile) bool { return a.FilePath() == b.FilePath() })
	paths := make([]string, len(files))
	for i, df := range files {
		paths[i] = df.FilePath()
		records += df.Count()
	}
	return files, records, filesDigest(paths), nil
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
