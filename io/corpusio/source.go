package corpusio

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const (
	pageRows = 500
	rowBytes = 1700 // in memory, about; a test keeps it so
)

// Source is the corpus. Its partitions are the buckets, its positions the numbers of rows.
type Source struct {
	config   SourceConfig
	pageRows int
	schema   *record.Schema
	buckets  []*Bucket
	long     func() string
}

var (
	_ connector.Finder  = (*Source)(nil)
	_ connector.Locator = (*Source)(nil)
)

// NewSource gives the corpus.
func NewSource(c SourceConfig, need connector.Need) *Source {
	return &Source{config: c, pageRows: need.Page(pageRows), schema: Schema(), buckets: Buckets(c),
		long: sync.OnceValue(longText)}
}

// Schema implements connector.Source.
func (s *Source) Schema(context.Context) (*record.Schema, error) { return s.schema, nil }

// Close implements connector.Source.
func (s *Source) Close() error { return nil }

// Plan implements connector.Source: ranges of rows, bucket by bucket.
func (s *Source) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	for _, b := range s.buckets {
		size := b.Rows
		if o.Rows > 0 {
			size = min(size, o.Rows)
		}
		if o.Bytes > 0 {
			size = min(size, max(1, o.Bytes/rowBytes))
		}
		var start []byte
		for from := int64(0); from < b.Rows; from += size {
			part := connector.Split{Partition: b.Name(), Start: start, Rows: min(size, b.Rows-from)}
			part.Bytes = part.Rows * rowBytes
			if from+size < b.Rows {
				part.End = position(b.row(from + size - 1))
			}
			if err := split(part); err != nil {
				return err
			}
			start = part.End
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Read implements connector.Source. A row and its deletion come in the same page.
func (s *Source) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	b, from, end, err := s.bounds(split)
	if err != nil {
		return err
	}
	g, err := s.generator()
	if err != nil {
		return err
	}
	name := split.String()
	for start := split.Start; from < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		leave, _, err := connector.Enter(ctx, 0, 0)
		if err != nil {
			return err
		}
		last := min(from+int64(s.pageRows), end)
		p := connector.Page{Records: make([]*record.Record, 0, last-from+4), Last: position(b.row(last - 1))}
		add := func(r *record.Record) {
			r.Origin = record.Origin{Split: name, Position: start}
			p.Records = append(p.Records, r)
			p.Bytes += int64(r.Size())
		}
		for ; from < last; from++ {
			row := g.Row(b, b.row(from))
			add(row.Record)
			if row.Deletion != nil {
				add(row.Deletion)
			}
		}
		leave(len(p.Records), p.Bytes, nil)
		if err := page(p); err != nil {
			return err
		}
		start = p.Last
	}
	return nil
}

// Find implements connector.Finder. It makes the rows again.
func (s *Source) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	g, err := s.generator()
	if err != nil {
		return err
	}
	for i, key := range keys {
		leave, _, err := connector.Enter(ctx, 0, 0)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		p := s.find(g, key)
		leave(len(p.Records), p.Bytes, nil)
		if err := found(i, p); err != nil {
			return err
		}
	}
	return nil
}

// find makes the row with the key of a record, and its deletion.
func (s *Source) find(g *generator, key *record.Record) (p connector.Page) {
	uuid, kind, month := key.Get("id").Str(), key.Get("asset_type").Str(), key.Get("bucket").Str()
	at := slices.IndexFunc(s.buckets, func(b *Bucket) bool { return b.AssetType == kind && b.Bucket == month })
	if at < 0 || len(uuid) != 16 {
		return p
	}
	b, n := s.buckets[at], rowNumber(uuid)
	if rank := b.rank(n); rank == b.Rows || b.row(rank) != n {
		return p
	}
	row := g.Row(b, n)
	if row.Record.Values[id].Str() != uuid {
		return p
	}
	for _, r := range []*record.Record{row.Record, row.Deletion} {
		if r != nil {
			r.Origin = key.Origin
			p.Records = append(p.Records, r)
			p.Bytes += int64(r.Size())
		}
	}
	return p
}

// Locate implements connector.Locator. It knows the rows of the corpus alone.
func (s *Source) Locate(_ context.Context, key *record.Record) ([]connector.Split, error) {
	uuid := key.Get("id").Str()
	if len(uuid) != 16 {
		return nil, fail.Job("corpus.key", "%s is no key of the corpus", key.KeyText())
	}
	return []connector.Split{{Partition: key.Get("asset_type").Str() + "/" + key.Get("bucket").Str(),
		End: position(rowNumber(uuid))}}, nil
}

// bounds are the bucket of a split and its rows by rank, from the first to before the end.
func (s *Source) bounds(split connector.Split) (b *Bucket, from, end int64, err error) {
	for _, b := range s.buckets {
		if b.Name() != split.Partition {
			continue
		}
		from, end = 0, b.Rows
		if len(split.Start) == 8 {
			from = b.rank(number(split.Start) + 1)
		}
		if len(split.End) == 8 {
			end = b.rank(number(split.End) + 1)
		}
		if bad := func(p []byte) bool { return p != nil && len(p) != 8 }; !bad(split.Start) && !bad(split.End) {
			return b, from, end, nil
		}
	}
	return nil, 0, 0, fail.New(fail.Fatal, "corpus.split", "%s is not part of the corpus",
		split).WithFix("plan the run anew")
}

func (s *Source) generator() (*generator, error) {
	expires, err := s.config.expires()
	if err != nil {
		return nil, fail.Job("corpus.expires", "expires: %w", err)
	}
	return &generator{schema: s.schema, seed: s.config.Seed, expires: expires, long: s.long}, nil
}

func position(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func number(position []byte) int64 { return int64(binary.BigEndian.Uint64(position)) }

// Rows are all rows, bucket by bucket. The settings must be valid.
func Rows(c SourceConfig) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		s := NewSource(c, connector.Need{})
		g, err := s.generator()
		if err != nil {
			return
		}
		for _, b := range s.buckets {
			for rank := range b.Rows {
				if !yield(g.Row(b, b.row(rank))) {
					return
				}
			}
		}
	}
}

// Model is what must be there after the corpus was loaded: for tests, which hold it in memory.
type Model struct {
	Rows      map[string]string // KeyText → JSON of the fields, without the deleted assets
	Malformed map[string]bool   // KeyText of those whose payload is no JSON
	Deleted   map[string]bool   // KeyText of those that are not there
}

// NewModel makes the model. The settings must be valid.
func NewModel(c SourceConfig) Model {
	m := Model{Rows: map[string]string{}, Malformed: map[string]bool{}, Deleted: map[string]bool{}}
	for row := range Rows(c) {
		key := row.Record.KeyText()
		if row.Deletion != nil {
			m.Deleted[key] = true
			continue
		}
		m.Rows[key] = string(row.Record.AppendJSON(nil))
		if row.Malformed {
			m.Malformed[key] = true
		}
	}
	return m
}
