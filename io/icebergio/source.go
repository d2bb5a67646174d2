package icebergio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"reprise/io/columns"
	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A page ends at either of these; decodedRows are decoded at once.
const (
	pageRows    = 1000
	pageBytes   = 1 << 20
	decodedRows = 512
)

// splitBytes is about the size of a split, as it lies in the file, where the plan asks for no smaller ones.
const splitBytes = 64 << 20

// Source reads one snapshot of a table. The partition of a split is SNAPSHOT/FILE, so that whoever reads it reads what
// was planned. A position is the byte at which a part of the file begins that can be read by itself (a row group), and
// the number of a row in that part, deleted ones not counted: 8 bytes each, big-endian.
type Source struct {
	c     SourceConfig
	ident table.Identifier
	need  connector.Need
	retry connector.Retry

	mu        sync.Mutex
	catalog   *opened // nil: not connected yet
	table     *table.Table
	plan      *columnPlan
	snapshots map[int64]*snapshot
}

// snapshot is what reading a snapshot needs.
type snapshot struct {
	table   *table.Table
	id      int64
	written int64 // microseconds since 1970
	// By the name of the file in splits: the file with the deletes that concern it
	files map[string]table.FileScanTask
}

var _ connector.Source = (*Source)(nil)

// columnPlan says which column is which field.
type columnPlan struct {
	schema  *record.Schema
	fields  map[int]int // id of a column → place of the field
	version int         // id of the column that holds the version and is no field; 0: none

	readings []record.Reading // of the fields
}

// NewSource gives a source of valid settings. Iceberg holds no write times of cells.
func NewSource(c SourceConfig, need connector.Need) *Source {
	return &Source{c: c, ident: strings.Split(c.Table, "."), need: need, retry: connector.DefaultRetry,
		snapshots: map[int64]*snapshot{}}
}

// Close implements connector.Source.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.catalog == nil {
		return nil
	}
	err := s.catalog.close()
	s.catalog = nil
	return err
}

// Schema implements connector.Source.
func (s *Source) Schema(ctx context.Context) (*record.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	return s.plan.schema, nil
}

// request sends a request to the catalog or to the store of the files.
func (s *Source) request(ctx context.Context, doing string, do func() error) error {
	return connector.Request(ctx, s.retry, func() (int, int64, error) {
		return 0, 0,
			tables.Classify(do(), doing+" of table "+s.c.Table)
	})
}

// load connects and looks at the table, the first time. The caller holds mu.
func (s *Source) load(ctx context.Context) error {
	if s.plan != nil {
		return nil
	}
	return s.request(ctx, "reading the schema", func() error {
		if s.catalog == nil {
			var err error
			if s.catalog, err = (SinkConfig{Catalog: s.c.Catalog, S3: s.c.S3}).open(ctx, readOnly); err != nil {
				return err
			}
		}
		t, err := s.catalog.LoadTable(ctx, s.ident)
		if errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
			return fail.Job("iceberg.no_table", "table %s is not there", s.c.Table).WithFix("check table and catalog")
		}
		if err != nil {
			return err
		}
		scan, err := s.scan(t)
		if err != nil {
			return err
		}
		columns, err := scan.Projection()
		if err != nil {
			return err
		}
		if s.plan, err = s.newColumnPlan(columns); err != nil {
			return err
		}
		s.table = t
		return nil
	})
}

// scan is a scan of the snapshot that the settings name.
func (s *Source) scan(t *table.Table) (*table.Scan, error) {
	at := s.c.Snapshot
	if at == nil {
		return t.Scan(), nil
	}
	scan, err := t.Scan(), error(nil)
	switch {
	case at.ID != 0:
		scan = t.Scan(table.WithSnapshotID(at.ID))
	case at.Time != nil:
		scan = t.Scan(table.WithSnapshotAsOf(at.Time.UnixMilli()))
	case at.Ref != "":
		scan, err = scan.UseRef(at.Ref)
	}
	if err == nil {
		_, err = scan.ResolveSnapshot()
	}
	if err != nil {
		return nil, fail.Job("iceberg.no_snapshot", "table %s has no such snapshot: %w", s.c.Table, err).
			WithFix("check snapshot")
	}
	return scan, nil
}

// newColumnPlan compares the columns with the settings.
func (s *Source) newColumnPlan(found *iceberg.Schema) (*columnPlan, error) {
	p := &columnPlan{fields: map[int]int{}}
	fields := s.c.Fields
	if len(fields) == 0 {
		for _, f := range found.Fields() {
			if f.Name == defaultVersionColumn && s.c.Version == "" && f.Type.Equals(iceberg.PrimitiveTypes.Int64) {
				continue
			}
			t, err := fieldType(f)
			if err != nil {
				return nil, fail.Job("iceberg.column_type", "column %s of table %s: %w", f.Name, s.c.Table, err).
					WithFix("name the fields to read in fields, and set ignore_unknown")
			}
			fields = append(fields, record.Field{Name: f.Name, Type: t})
		}
	}
	key := s.c.Key
	if len(key) == 0 {
		for _, id := range found.IdentifierFieldIDs {
			name, _ := found.FindColumnName(id)
			key = append(key, name)
		}
	}
	if len(key) == 0 {
		return nil, fail.Job("iceberg.no_key", "table %s has no identifier fields", s.c.Table).
			WithFix("name the fields that make up a record's key in key")
	}
	var err error
	if p.schema, err = record.NewSchema(fields, key...); err != nil {
		return nil, fail.Job("iceberg.fields", "the fields of table %s: %w", s.c.Table, err).
			WithFix("there are %s", fields.Names())
	}
	if i := p.schema.Index(s.c.Version); s.c.Version != "" && (i < 0 || !connector.IsVersion(fields[i].Type)) {
		return nil, fail.Job("iceberg.version", "the version %q is not a field of type timestamp, timeuuid or bigint",
			s.c.Version).
			WithFix("name such a field in version")
	}
	p.readings = connector.Readings(p.schema, s.c.Version, s.c.CutTimestamps)
	for _, f := range found.Fields() {
		i := p.schema.Index(f.Name)
		switch {
		case i >= 0:
			p.fields[f.ID] = i
		case f.Name == defaultVersionColumn && s.c.Version == "":
			p.version = f.ID
		case !s.c.IgnoreUnknown:
			return nil, fail.Job("iceberg.unknown_column",
				"column %s of table %s is not among the fields", f.Name, s.c.Table).
				WithFix("name it in fields, or set ignore_unknown")
		}
	}
	for _, f := range fields {
		if _, ok := found.FindFieldByName(f.Name); !ok {
			return nil, fail.Job("iceberg.no_column", "table %s has no column %s", s.c.Table, f.Name).
				WithFix("there are %s", strings.Join(columnNames(found), ", "))
		}
	}
	return p, nil
}

// Plan cuts the data files at their row groups.
func (s *Source) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	id, err := s.current(ctx)
	if err != nil || id == 0 {
		return err
	}
	from, err := s.snapshot(ctx, id)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(from.files) {
		file := from.files[name].File
		if file.Count() == 0 {
			continue
		}
		size, parts := max(1, file.FileSizeBytes()), partsOf(file)
		length, average := int64(splitBytes), float64(size)/float64(file.Count())
		if o.Bytes > 0 {
			length = min(length, o.Bytes)
		}
		if o.Rows > 0 {
			length = min(length, int64(float64(o.Rows)*average))
		}
		next := connector.Split{Partition: fmt.Sprintf("%d/%s", id, name)}
		for first, i := 0, 0; i < len(parts); i++ {
			last := i == len(parts)-1
			if !last && partEnd(parts, i+1, size)-parts[first] <= length {
				continue
			}
			if next.End = nil; !last {
				next.End = position(parts[i], math.MaxInt64)
			}
			next.Bytes = partEnd(parts, i, size) - parts[first]
			next.Rows = max(1, int64(float64(next.Bytes)/average))
			if err := split(next); err != nil {
				return err
			}
			first, next.Start = i+1, next.End
		}
	}
	return nil
}

// current is the snapshot that the settings name; 0: the table has none, and no rows.
func (s *Source) current(ctx context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return 0, err
	}
	scan, err := s.scan(s.table)
	if err != nil {
		return 0, err
	}
	if snapshot := scan.Snapshot(); snapshot != nil {
		return snapshot.SnapshotID, nil
	}
	return 0, nil
}

// snapshot gives a snapshot, the first time from its manifests.
func (s *Source) snapshot(ctx context.Context, id int64) (*snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	if known, ok := s.snapshots[id]; ok {
		return known, nil
	}
	found := &snapshot{table: s.table, id: id, files: map[string]table.FileScanTask{}}
	err := s.request(ctx, "reading the manifests", func() (err error) {
		if found.table.Metadata().SnapshotByID(id) == nil {
			// Another process planned it, maybe after this one had looked.
			if found.table, err = s.catalog.LoadTable(ctx, s.ident); err != nil {
				return err
			}
		}
		at := found.table.Metadata().SnapshotByID(id)
		if at == nil {
			return fail.New(fail.Fatal, "iceberg.expired",
				"snapshot %d of table %s is not there any more", id, s.c.Table).
				WithFix("keep snapshots for longer than a run takes, and start a new run")
		}
		found.written = at.TimestampMs * 1000
		tasks, err := found.table.Scan(table.WithSnapshotID(id), table.WithScanPlanningMode(table.ScanPlanningLocal)).
			PlanFiles(ctx)
		folder := strings.TrimRight(plainPath(found.table.Location()), "/") + "/"
		for _, task := range tasks {
			if format := task.File.FileFormat(); format != iceberg.ParquetFile {
				return fail.Job("iceberg.unreadable",
					"table %s has files of format %s; only Parquet can be read", s.c.Table, format).
					WithFix("let an engine write the table anew (rewrite_data_files)")
			}
			found.files[strings.TrimPrefix(plainPath(task.File.FilePath()), folder)] = task
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s.snapshots[id] = found
	return found, nil
}

// partsOf are the bytes at which the parts of a file begin that can be read by themselves.
func partsOf(file iceberg.DataFile) []int64 {
	offsets := file.SplitOffsets()
	if len(offsets) < 2 || !slices.IsSorted(offsets) || offsets[0] < 0 ||
		offsets[len(offsets)-1] >= file.FileSizeBytes() {
		return []int64{0}
	}
	// What lies before the first offset belongs to it, so that no row group is left out whatever the list says.
	return slices.Compact(append([]int64{0}, offsets[1:]...))
}

// partEnd is where a part ends.
func partEnd(parts []int64, i int, size int64) int64 {
	if i+1 < len(parts) {
		return parts[i+1]
	}
	return size
}

func position(part, row int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(part)), uint64(row))
}

// bound is the part and row in a position; open where there is none.
func bound(position []byte, open [2]int64) ([2]int64, error) {
	if position == nil {
		return open, nil
	}
	if len(position) != 16 {
		return open, fail.New(fail.Fatal, "iceberg.position",
			"a position of %d bytes is none of a table", len(position))
	}
	return [2]int64{int64(binary.BigEndian.Uint64(position)), int64(binary.BigEndian.Uint64(position[8:]))}, nil
}

// Read implements connector.Source.
func (s *Source) Read(ctx context.Context, split connector.Split, give func(connector.Page) error) error {
	number, file, _ := strings.Cut(split.Partition, "/")
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return fail.New(fail.Fatal, "iceberg.partition", "%s is not SNAPSHOT/FILE", split.Partition)
	}
	from, err := s.snapshot(ctx, id)
	if err != nil {
		return err
	}
	task, ok := from.files[file]
	if !ok {
		return fail.New(fail.Fatal, "iceberg.partition", "snapshot %d of table %s has no file %s", id, s.c.Table, file)
	}
	start, err := bound(split.Start, [2]int64{0, -1})
	if err != nil {
		return err
	}
	end, err := bound(split.End, [2]int64{math.MaxInt64, math.MaxInt64})
	if err != nil {
		return err
	}
	p := &pager{c: s.c, plan: s.plan, split: split, name: split.String(), rows: int64(s.need.Page(pageRows)),
		written: from.written, give: give}
	parts := partsOf(task.File)
	for i, part := range parts {
		if part < start[0] || part > end[0] || (part == start[0] && start[1] == math.MaxInt64) {
			continue
		}
		next, last := int64(0), int64(math.MaxInt64)
		if part == start[0] {
			next = start[1] + 1
		}
		if part == end[0] {
			last = end[1]
		}
		task.Start, task.Length = part, partEnd(parts, i, task.File.FileSizeBytes())-part
		rows := &tables.RowReader{Table: from.table,
			Options: []table.ScanOption{table.WithSnapshotID(from.id)}, Retry: s.retry,
			Task: task, Next: next, Size: min(decodedRows, int(p.rows))}
		if err := p.readPart(ctx, rows, part, last); err != nil {
			return err
		}
	}
	return p.end(ctx)
}

// readPart reads what is left of a part up to a row.
func (p *pager) readPart(ctx context.Context, rows *tables.RowReader, part, last int64) error {
	defer rows.Close()
	for {
		first := rows.Next
		batch, err := rows.Read(ctx)
		if err != nil || batch == nil {
			return err
		}
		err = p.batch(ctx, batch, rows.Columns, part, first, last)
		batch.Release()
		if err != nil || rows.Next > last {
			return err
		}
	}
}

// pager collects the records of a split into pages.
type pager struct {
	c       SourceConfig
	plan    *columnPlan
	split   connector.Split // Start moves on with each page
	name    string
	rows    int64 // of a page
	written int64 // when the snapshot was, microseconds since 1970
	give    func(connector.Page) error

	page connector.Page
	at   []byte // position of the page's last row
}

// batch adds the rows of a batch up to one.
func (p *pager) batch(ctx context.Context, batch arrow.RecordBatch, columns []iceberg.NestedField, part,
	first, last int64) error {
	fields, version := p.columns(batch, columns)
	for i := range int(batch.NumRows()) {
		row := first + int64(i)
		if row > last {
			return nil
		}
		p.at = position(part, row)
		p.row(fields, version, i)
		if p.page.Rows() < p.rows && p.page.Bytes < pageBytes {
			continue
		}
		if err := p.end(ctx); err != nil {
			return err
		}
	}
	return nil
}

// columns are those of the fields, in their order, nil where there is none, and that of the version.
func (p *pager) columns(batch arrow.RecordBatch,
	columns []iceberg.NestedField) (fields []arrow.Array, version arrow.Array) {
	fields = make([]arrow.Array, len(p.plan.schema.Fields))
	for i, c := range columns {
		if place, ok := p.plan.fields[c.ID]; ok {
			fields[place] = batch.Column(i)
		}
		if c.ID == p.plan.version {
			version = batch.Column(i)
		}
	}
	return fields, version
}

// row adds the record or dead letter of a row.
func (p *pager) row(fields []arrow.Array, version arrow.Array, i int) {
	r := &record.Record{Schema: p.plan.schema, Values: make([]record.Value, len(fields))}
	if err := p.fill(r, fields, version, i); err != nil {
		var what *fail.Error
		errors.As(err, &what)
		raw := columns.JSON(p.plan.schema, fields, i)
		at, _ := bound(p.at, [2]int64{})
		p.page.Dead = append(p.page.Dead, &record.DeadLetter{Raw: raw[:min(len(raw), 1<<20)],
			Class: fail.Permanent.String(), Code: what.Code,
			Message: fmt.Sprintf("a row of %s: %s", p.split.Partition, what.Message), Attempts: 1,
			Place: &record.Place{Partition: p.split.Partition, Start: position(at[0], at[1]-1), End: p.at}})
		p.page.Bytes += int64(len(raw))
		return
	}
	p.page.Records = append(p.page.Records, r)
	p.page.Bytes += int64(r.Size())
}

// fill reads a record's values and version.
func (p *pager) fill(r *record.Record, fields []arrow.Array, version arrow.Array, i int) (err error) {
	for j, f := range r.Schema.Fields {
		if fields[j] == nil {
			continue
		}
		if r.Values[j], err = columns.Value(fields[j], i, f.Type, p.plan.readings[j]); errors.Is(err, record.ErrFiner) {
			return unfit("wrong_type", "field %q: %w; set cut_timestamps: true, or name the fields in fields, "+
				"this one as bigint of microseconds", f.Name, err)
		} else if err != nil {
			return unfit("wrong_type", "field %q: %w", f.Name, err)
		}
	}
	for _, k := range r.Schema.Key {
		if r.Values[k].IsNull() {
			return unfit("no_key", "the key field %s has no value", r.Schema.Fields[k].Name)
		}
	}
	r.Version = p.written
	switch j := r.Schema.Index(p.c.Version); {
	case j >= 0 && r.Values[j].IsNull():
		return unfit("no_version", "the version field %s has no value", p.c.Version)
	case j >= 0:
		r.Version = connector.Version(r.Values[j])
	case version != nil && version.IsValid(i):
		v, err := columns.Value(version, i, record.Of(record.BigInt), record.Reading{})
		if err != nil {
			return unfit("wrong_type", "column %s: %w", defaultVersionColumn, err)
		}
		r.Version = v.Int()
	}
	return nil
}

// end hands on the page, with everything up to its last row.
func (p *pager) end(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.page.Rows() == 0 {
		return nil
	}
	p.page.Last = p.at
	for _, r := range p.page.Records {
		r.Origin = record.Origin{Split: p.name, Position: p.split.Start}
	}
	page := p.page
	p.split.Start = page.Last
	p.page = connector.Page{}
	return p.give(page)
}
