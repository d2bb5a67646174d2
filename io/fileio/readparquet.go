package fileio

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"reprise/io/columns"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// parquetReader is an open Parquet file.
type parquetReader struct {
	file   *file.Reader
	arrow  *pqarrow.FileReader
	schema *arrow.Schema
}

func openParquet(path string) (*parquetReader, error) {
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		return nil, readError(path, err)
	}
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: batchRows}, memory.DefaultAllocator)
	if err == nil {
		var schema *arrow.Schema
		if schema, err = r.Schema(); err == nil {
			return &parquetReader{file: f, arrow: r, schema: schema}, nil
		}
	}
	_ = f.Close()
	return nil, readError(path, err)
}

// parquetFields are the fields of a file, but for what the sink added.
func parquetFields(path string) ([]record.Field, error) {
	r, err := openParquet(path)
	if err != nil {
		return nil, err
	}
	defer r.file.Close()
	var fields []record.Field
	for _, column := range r.schema.Fields() {
		if column.Name == metaField {
			continue
		}
		t, err := columns.Type(column.Type)
		if err != nil {
			return nil, fail.Job("files.parquet_type", "column %s of %s: %w", column.Name, path, err).
				WithFix("leave it out: name the other fields and their types in fields, and set ignore_unknown: true")
		}
		fields = append(fields, record.Field{Name: column.Name, Type: t})
	}
	return fields, nil
}

// checkFiner reads the beginning of a file for timestamps that have parts of a millisecond, so that they are told
// before the run begins.
func (s *Source) checkFiner(ctx context.Context, path string, schema *record.Schema) error {
	r, err := openParquet(path)
	if err != nil {
		return err
	}
	defer r.file.Close()
	readings := connector.Readings(schema, s.c.Version, s.c.CutTimestamps)
	for rows, group := 0, 0; rows < inferLines && group < r.file.NumRowGroups(); group++ {
		g, err := r.rowGroup(ctx, group, func(column string) bool {
			i := schema.Index(column)
			return i >= 0 && holds(schema.Fields[i].Type, record.Timestamp)
		})
		if err != nil {
			return readError(path, err)
		}
		for g.next() && rows < inferLines {
			for name, column := range g.columns() {
				at := schema.Index(name)
				for i := range int(g.rows) {
					if g.bad != nil {
						break
					}
					_, err := value(column, i, schema.Fields[at].Type, readings[at])
					if errors.Is(err, record.ErrFiner) {
						row := g.first + int64(i)
						g.release()
						return fail.Job("files.finer", "field %s of %s, in row %d: %w", name, path, row, err).
							WithFix(finerFix)
					}
				}
			}
			rows += int(g.rows)
		}
		g.release()
	}
	return nil
}

// holds tells whether values of a type are of a kind, or hold such.
func holds(t record.Type, k record.Kind) bool {
	return t.Kind == k || slices.ContainsFunc(t.Elems, func(e record.Type) bool { return holds(e, k) })
}

// planParquet gives a split for each row group.
func (s *Source) planParquet(path string, schema *record.Schema, split func(connector.Split) error) error {
	r, err := openParquet(path)
	if err != nil {
		return err
	}
	defer r.file.Close()
	for _, column := range r.schema.Fields() {
		if column.Name != metaField && schema.Index(column.Name) < 0 && !s.c.IgnoreUnknown {
			return fail.Job("files.unknown_column", "column %s of %s is not among the fields", column.Name, path).
				WithFix("name it in fields, or set ignore_unknown")
		}
	}
	var start []byte
	first := int64(0)
	for i := range r.file.NumRowGroups() {
		group := r.file.MetaData().RowGroup(i)
		rows := group.NumRows()
		if rows == 0 {
			continue
		}
		end := position(first + rows - 1)
		if err := split(connector.Split{Partition: path, Start: start, End: end, Rows: rows,
			Bytes: group.TotalByteSize()}); err != nil {
			return err
		}
		start, first = end, first+rows
	}
	return nil
}

// readParquet reads the rows after number start up to end; -1 is open.
func (p *pager) readParquet(ctx context.Context, start, end int64) error {
	path := p.split.Partition
	r, err := openParquet(path)
	if err != nil {
		return err
	}
	defer r.file.Close()
	total := r.file.NumRows()
	if end < 0 {
		end = total - 1
	}
	if end >= total {
		return fail.New(fail.Fatal, "files.changed", "%s is shorter than it was when the run was planned", path).
			WithFix("leave files alone while they are read; start a new run")
	}
	first := int64(0)
	for i := range r.file.NumRowGroups() {
		rows := r.file.MetaData().RowGroup(i).NumRows()
		if first+rows > start+1 && first <= end {
			if err := p.readRowGroup(ctx, r, i, first, start, end); err != nil {
				return err
			}
		}
		first += rows
	}
	return p.end(ctx)
}

// readRowGroup reads of the row group that begins with row first the rows after start up to end.
func (p *pager) readRowGroup(ctx context.Context, r *parquetReader, group int, first, start, end int64) error {
	g, err := r.rowGroup(ctx, group, func(column string) bool {
		return column == metaField || p.schema.Index(column) >= 0
	})
	if err != nil {
		return readError(p.split.Partition, err)
	}
	defer g.release()
	for first+g.first+g.rows <= end && g.next() {
		cells := p.columns(g)
		for i := range g.rows {
			row := first + g.first + i
			if row <= start || row > end {
				continue
			}
			p.at = row
			if g.bad != nil {
				p.dead("files.wrong_type", nil, fmt.Errorf("row %d of %s: %w", row, p.split.Partition, g.bad))
			} else {
				p.row(cells, int(i))
			}
			if !p.full() {
				continue
			}
			if err := p.end(ctx); err != nil {
				return err
			}
		}
	}
	if g.err != nil {
		return readError(p.split.Partition, g.err)
	}
	return nil
}

// columns are those of the schema's fields, in its order, and last that of _meta; nil where the file lacks one.
func (p *pager) columns(g *rowGroup) []arrow.Array {
	cells := make([]arrow.Array, len(p.schema.Fields)+1)
	for name, column := range g.columns() {
		if place := p.schema.Index(name); place >= 0 {
			cells[place] = column
		} else if name == metaField {
			cells[len(p.schema.Fields)] = column
		}
	}
	return cells
}

// row adds the record or dead letter of a row.
func (p *pager) row(cells []arrow.Array, row int) {
	r := &record.Record{Schema: p.schema, Values: make([]record.Value, len(p.schema.Fields))}
	code, err := "files.wrong_type", error(nil)
	for i := range r.Values {
		if cells[i] == nil {
			continue
		}
		if r.Values[i], err = value(cells[i], row, p.schema.Fields[i].Type, p.readings[i]); err != nil {
			err = finer(fmt.Errorf("field %q: %w", p.schema.Fields[i].Name, err))
			break
		}
	}
	if meta, ok := cells[len(r.Values)].(*array.Struct); ok && err == nil {
		err = readMetaColumn(r, meta, row)
	}
	if err == nil {
		code, err = p.complete(r)
	}
	if err != nil {
		p.dead(code, columns.JSON(p.schema, cells, row), fmt.Errorf("row %d of %s: %w", p.at, p.split.Partition, err))
		return
	}
	p.page.Records = append(p.page.Records, r)
	p.page.Bytes += int64(r.Size())
}

// finer adds what to do about parts of a millisecond.
func finer(err error) error {
	if errors.Is(err, record.ErrFiner) {
		return fmt.Errorf("%w; %s", err, finerFix)
	}
	return err
}

const finerFix = "set cut_timestamps: true, or name the fields and their types in fields, this one as bigint, " +
	"which then counts in the file's unit since 1970 (as text in JSON lines)"

func readMetaColumn(r *record.Record, meta *array.Struct, row int) error {
	for i, f := range meta.DataType().(*arrow.StructType).Fields() {
		switch column := meta.Field(i).(type) {
		case *array.Int64:
			if f.Name == "version" {
				r.Version = column.Value(row)
			} else if f.Name == "expires" && column.IsValid(row) {
				r.Expires = column.Value(row)
			}
		case *array.String:
			if f.Name == "op" {
				if err := setOp(r, column.Value(row)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
