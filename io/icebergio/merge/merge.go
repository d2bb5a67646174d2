package merge

import (
	"context"
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	parquetfile "github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
)

// Merge finds, among the rows of a table and those of data files that are to be added, the ones that
// newer rows or deletes of the same key leave no place. It holds a bit for each row of the files, and
// keys in as much memory as it may take.
//
// Use: New, Delete for each delete of the run, Stage, then CatchUp and Positions before each try to commit, and Close.
type Merge struct {
	Options

	table   *table.Table // as it was read last
	files   []*keyed     // the staged ones first
	staged  int
	since   int64            // Since, or the sequence number of the table as it was read last
	numbers map[string]int32 // of files, by their paths
	deletes map[string]bool  // paths of files of deletes that have been read
	spill   *spill
	mine    filter // keys of staged rows and of deletes

	lostDeletes bitmap // deletes of the run that came too late, by their number
}

// Options say what is merged with what.
type Options struct {
	Table   string // its name, for messages
	Run     string // whose own remembered deletes do not count; "": upkeep
	Columns Columns
	Retry   connector.Retry
	Floor   int64  // of the run: its rows are no older
	All     bool   // also keys of which the table alone has rows
	Reach   *Reach // of the run's keys; nil: they may lie anywhere
	Since   int64  // sequence number of the table up to which deletes of others do not concern the run

	Staged  []iceberg.DataFile // data files of the run that the table does not have yet
	Deletes int64              // how many the run has
	Rows    int64              // of the table, about
	Memory  int64              // bytes that keys may take; beyond, they go to temporary files
}

// What stands in place of a file's number.
const (
	deleteEntry  int32 = -1 // a delete of the run
	earlierEntry int32 = -2 // a delete of an earlier run, which the table remembers
	foreignEntry int32 = -3 // others have deleted the key, and know no versions
)

// keyed is a data file whose keys have been read.
type keyed struct {
	file iceberg.DataFile
	gone bool   // from the table
	dead bitmap // rows that are deleted already
	lost bitmap // rows to be deleted

	equality    int              // files of equality deletes that dead knows
	deletes     iceberg.DataFile // what was written of lost
	deletedRows int64
}

// New begins a merge.
func New(o Options) *Merge {
	m := &Merge{Options: o, staged: len(o.Staged), since: o.Since, numbers: map[string]int32{},
		deletes: map[string]bool{}}
	mine := o.Deletes
	for _, df := range o.Staged {
		m.number(df)
		mine += df.Count()
	}
	m.mine = newFilter(mine, o.Memory/4)
	m.spill = newSpill(mine+o.Rows, o.Memory-8*int64(len(m.mine)))
	return m
}

// Close deletes the temporary files.
func (m *Merge) Close() { m.spill.close() }

// At is the table as CatchUp read it last; nil: it has not been read.
func (m *Merge) At() *table.Table { return m.table }

func (m *Merge) number(df iceberg.DataFile) int32 {
	n := int32(len(m.files))
	m.files = append(m.files, &keyed{file: df})
	m.numbers[df.FilePath()] = n
	return n
}

// Delete adds a delete of the run. number is its place among them, from 0 on.
func (m *Merge) Delete(key Key, version int64, number int) error {
	m.mine.add(key)
	return m.spill.add(entry{key: key, version: version, file: deleteEntry, row: uint32(number)})
}

// Stage reads the keys of the staged files.
func (m *Merge) Stage(ctx context.Context, t *table.Table) error {
	for n := range m.staged {
		for r, err := range m.Columns.rows(ctx, t, m.Retry, table.FileScanTask{File: m.files[n].file}) {
			if err != nil {
				return err
			}
			m.mine.add(r.key)
			if err := m.spill.add(entry{r.key, max(r.version, m.Floor), int32(n), uint32(r.at)}); err != nil {
				return tables.Classify(err, "comparing keys with table "+m.Table)
			}
		}
	}
	return nil
}

// CatchUp reads what the table has that has not been read yet, and settles which rows lose.
func (m *Merge) CatchUp(ctx context.Context, t *table.Table) error {
	tasks, err := m.Plan(ctx, t)
	if err != nil {
		return err
	}
	again := m.table != nil
	there := map[string]bool{}
	var added, struck []table.FileScanTask
	for _, task := range tasks {
		path := task.File.FilePath()
		there[path] = true
		number, known := m.numbers[path]
		if known && int(number) < m.staged {
			return fail.New(fail.Fatal, "iceberg.run_committed",
				"table %s holds %s already, but no snapshot tells of it any more", m.Table, path).
				WithFix("the records are there; start a new run for more")
		}
		switch {
		case !known:
			m.number(task.File)
			added = append(added, task)
		case len(task.EqualityDeleteFiles) > m.files[number].equality:
			struck = append(struck, task)
		}
	}
	for _, f := range m.files[m.staged:] {
		f.gone = !there[f.file.FilePath()]
	}
	for _, task := range tasks {
		if err := m.readDeletes(ctx, t, task); err != nil {
			return err
		}
	}
	var touched filter
	if again {
		rows := int64(0)
		for _, task := range added {
			rows += task.File.Count()
		}
		touched = newFilter(rows, 8*int64(len(m.mine)))
	}
	for _, task := range added {
		if err := m.read(ctx, t, task, touched); err != nil {
			return err
		}
	}
	for _, task := range struck {
		f := m.files[m.numbers[task.File.FilePath()]]
		f.equality = len(task.EqualityDeleteFiles)
		err := m.each(ctx, t, task, func(r row, dead bool) error {
			if dead {
				f.dead.set(r.at, f.file.Count())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := m.readEarlier(ctx, t, touched); err != nil {
		return err
	}
	if !m.All {
		if err := m.strike(ctx, t, touched); err != nil {
			return err
		}
		m.since = t.Metadata().LastSequenceNumber()
	}
	m.table = t
	return m.settle(touched)
}

// read adds the keys of a file of the table that matter.
func (m *Merge) read(ctx context.Context, t *table.Table, task table.FileScanTask, touched filter) error {
	number := m.numbers[task.File.FilePath()]
	f := m.files[number]
	f.equality = len(task.EqualityDeleteFiles)
	return m.each(ctx, t, task, func(r row, dead bool) error {
		if dead {
			f.dead.set(r.at, f.file.Count())
		}
		if f.dead.has(r.at) || !m.All && !m.mine.has(r.key) {
			return nil
		}
		if touched != nil {
			touched.add(r.key)
		}
		return tables.Classify(m.spill.add(entry{r.key, r.version, number, uint32(r.at)}),
			"comparing keys with table "+m.Table)
	})
}

// each gives the rows of a data file, those too that are deleted by position, and whether an equality
// delete of the task removes them.
func (m *Merge) each(ctx context.Context, t *table.Table, task table.FileScanTask,
	do func(r row, dead bool) error) error {
	equality := task.EqualityDeleteFiles
	task.DeleteFiles, task.EqualityDeleteFiles, task.DeletionVectorFiles = nil, nil, nil
	// What an equality delete removes is told by what it leaves.
	left, stop := iter.Pull2(func(yield func(row, error) bool) {
		if len(equality) > 0 {
			rest := task
			rest.EqualityDeleteFiles = equality
			m.Columns.rows(ctx, t, m.Retry, rest)(yield)
		}
	})
	defer stop()
	next, err, more := left()
	for r, readErr := range m.Columns.rows(ctx, t, m.Retry, task) {
		if readErr != nil {
			return readErr
		}
		if err != nil {
			return err
		}
		dead := len(equality) > 0 && (!more || r.key != next.key || r.version != next.version)
		if len(equality) > 0 && !dead {
			next, err, more = left()
		}
		if err := do(r, dead); err != nil {
			return err
		}
	}
	return err
}

// readDeletes notes the rows that are deleted already by position.
func (m *Merge) readDeletes(ctx context.Context, t *table.Table, task table.FileScanTask) error {
	if len(task.DeletionVectorFiles) > 0 {
		return fail.New(fail.Fatal, "iceberg.unreadable",
			"table %s has deletion vectors, beside which rows cannot be replaced", m.Table).WithFix("use mode: append")
	}
	for _, df := range task.DeleteFiles {
		if m.deletes[df.FilePath()] {
			continue
		}
		err := connector.Request(ctx, m.Retry, func() (int, int64, error) {
			err := positionDeletes(ctx, t, df, func(path string, at int64) {
				if n, ok := m.numbers[path]; ok {
					m.files[n].dead.set(at, m.files[n].file.Count())
				}
			})
			return int(df.Count()), df.FileSizeBytes(), tables.Classify(err, "reading "+df.FilePath())
		})
		if err != nil {
			return err
		}
		m.deletes[df.FilePath()] = true
	}
	return nil
}

// positionDeletes reads a file of position deletes.
func positionDeletes(ctx context.Context, t *table.Table, df iceberg.DataFile, each func(path string, at int64)) error {
	if df.FileFormat() != iceberg.ParquetFile {
		return fail.New(fail.Fatal, "iceberg.unreadable", "%s is of format %s; only Parquet can be read",
			df.FilePath(), df.FileFormat()).
			WithFix("let an engine write the table anew (rewrite_data_files)")
	}
	files, err := t.FS(ctx)
	if err != nil {
		return err
	}
	from, err := files.Open(df.FilePath())
	if err != nil {
		return err
	}
	defer from.Close()
	r, err := parquetfile.NewParquetReader(from)
	if err != nil {
		return err
	}
	rows, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: 8192}, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	batches, err := rows.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return err
	}
	defer batches.Release()
	for batches.Next() {
		batch := batches.RecordBatch()
		var paths *array.String
		var at *array.Int64
		for i, f := range batch.Schema().Fields() {
			switch f.Name {
			case "file_path":
				paths, _ = batch.Column(i).(*array.String)
			case "pos":
				at, _ = batch.Column(i).(*array.Int64)
			}
		}
		if paths == nil || at == nil {
			return fail.New(fail.Fatal, "iceberg.unreadable", "%s holds no positions", df.FilePath())
		}
		for i := range paths.Len() {
			each(paths.Value(i), at.Value(i))
		}
	}
	return batches.Err()
}

// settle finds the rows that lose, of the keys that were touched; nil: of all.
func (m *Merge) settle(touched filter) error {
	for bucket := range m.spill.buckets {
		entries, err := m.spill.load(bucket, func(e entry) bool {
			if touched != nil && !touched.has(e.key) {
				return false
			}
			return e.file < 0 || !m.files[e.file].gone && !m.files[e.file].dead.has(int64(e.row))
		})
		if err != nil {
			return tables.Classify(err, "comparing keys with table "+m.Table)
		}
		slices.SortFunc(entries, m.order)
		for len(entries) > 0 {
			n, mine := 0, m.All
			for n < len(entries) && entries[n].key == entries[0].key {
				mine = mine || entries[n].file == deleteEntry || entries[n].file >= 0 && int(entries[n].file) < m.staged
				n++
			}
			if mine {
				m.settleKey(entries[:n])
			}
			entries = entries[n:]
		}
	}
	return nil
}

// settleKey settles the entries of a key, the newest first.
func (m *Merge) settleKey(all []entry) {
	foreign := func(e entry) bool { return e.file == foreignEntry }
	deleted := slices.ContainsFunc(all, foreign) &&
		!slices.ContainsFunc(all, func(e entry) bool { return int(e.file) >= m.staged })
	all = slices.DeleteFunc(all, foreign)
	switch {
	case len(all) == 0:
	case deleted:
		for _, e := range all {
			if e.file >= 0 {
				m.files[e.file].lost.set(int64(e.row), m.files[e.file].file.Count())
			}
		}
	default:
		m.lose(all[0], all[1:])
	}
}

// lose notes what loses against the winner of a key.
func (m *Merge) lose(winner entry, others []entry) {
	for _, e := range others {
		switch {
		case e.file >= 0:
			f := m.files[e.file]
			f.lost.set(int64(e.row), f.file.Count())
		case e.file == deleteEntry && e.version < winner.version:
			m.lostDeletes.set(int64(e.row), int64(e.row)+1)
		}
	}
}

// order puts entries of a key together, the winner first: the newest; a delete before a row that is no newer, a staged
// row before those of the table.
func (m *Merge) order(a, b entry) int {
	less := func(is bool) int {
		if is {
			return -1
		}
		return 1
	}
	rank := func(e entry) int {
		switch {
		case e.file < 0:
			return 0
		case int(e.file) < m.staged:
			return 1
		}
		return 2
	}
	switch {
	case a.key.hi != b.key.hi:
		return less(a.key.hi < b.key.hi)
	case a.key.lo != b.key.lo:
		return less(a.key.lo < b.key.lo)
	case a.version != b.version:
		return less(a.version > b.version)
	case rank(a) != rank(b):
		return less(rank(a) < rank(b))
	case a.file != b.file:
		return less(a.file > b.file)
	case a.row != b.row:
		return less(a.row > b.row)
	}
	return 0
}

// RowsLost counts the staged rows that lose.
func (m *Merge) RowsLost() (n int64) {
	for _, f := range m.files[:m.staged] {
		n += f.losses()
	}
	return n
}

// Losses counts all rows that lose, of data files that are there.
func (m *Merge) Losses() (n int64) {
	for _, f := range m.files {
		if !f.gone {
			n += f.losses()
		}
	}
	return n
}

// DeletesLost counts the deletes of the run that lose.
func (m *Merge) DeletesLost() (n int64) {
	for _, word := range m.lostDeletes {
		n += int64(bits.OnesCount64(word))
	}
	return n
}

// losses counts the rows to be deleted.
func (f *keyed) losses() (n int64) {
	for i, word := range f.lost {
		if i < len(f.dead) {
			word &^= f.dead[i]
		}
		n += int64(bits.OnesCount64(word))
	}
	return n
}

// losing yields the rows to be deleted, in their order.
func (f *keyed) losing(yield func(int64) bool) {
	for i, word := range f.lost {
		if word == 0 {
			continue
		}
		for bit := range int64(64) {
			if n := int64(i)<<6 | bit; word&(1<<bit) != 0 && !f.dead.has(n) && !yield(n) {
				return
			}
		}
	}
}

// Positions writes the deletes of all rows that lose, a file for each data file: then a data file that a compaction
// takes away meanwhile takes its deletes with it. run goes into the names of the files.
func (m *Merge) Positions(ctx context.Context, t *table.Table, run string) (all []iceberg.DataFile, err error) {
	for i, f := range m.files {
		if f.gone {
			continue
		}
		n := f.losses()
		if n == 0 {
			continue
		}
		if n != f.deletedRows {
			err := connector.Request(ctx, m.Retry, func() (int, int64, error) {
				f.deletes, err = writePositions(ctx, t, f, i < m.staged, n, run)
				return int(n), 8 * n, tables.Classify(err, "writing deletes to table "+m.Table)
			})
			if err != nil {
				return nil, err
			}
			f.deletedRows = n
		}
		all = append(all, f.deletes)
	}
	return all, nil
}

// The columns of a position delete, by their ids (spec: Reserved Field IDs).
const (
	pathColumn     = 2147483546
	positionColumn = 2147483545
)

func writePositions(ctx context.Context, t *table.Table, f *keyed, staged bool, count int64,
	run string) (iceberg.DataFile, error) {
	files, err := t.FS(ctx)
	if err != nil {
		return nil, err
	}
	to, ok := files.(iceio.WriteFileIO)
	if !ok {
		return nil, table.ErrWriteIORequired
	}
	places, err := t.LocationProvider()
	if err != nil {
		return nil, err
	}
	path := places.NewDataLocation("00000-0-" + tables.FileID(run).String() + "-deletes.parquet")
	out, err := to.Create(path)
	if err != nil {
		return nil, err
	}
	counting := &counter{out: out}
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithDictionaryDefault(false), parquet.WithDictionaryFor("file_path", true))
	w, err := pqarrow.NewFileWriter(table.PositionalDeleteArrowSchema, counting, props, pqarrow.DefaultWriterProps())
	if err != nil {
		out.Close()
		return nil, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.PositionalDeleteArrowSchema)
	defer b.Release()
	least, most := int64(-1), int64(0)
	send := func() error {
		batch := b.NewRecordBatch()
		defer batch.Release()
		return w.WriteBuffered(batch)
	}
	name := f.file.FilePath()
	for at := range f.losing {
		if least < 0 {
			least = at
		}
		most = at
		b.Field(0).(*array.StringBuilder).Append(name)
		b.Field(1).(*array.Int64Builder).Append(at)
		if b.Field(1).Len() == 8192 {
			if err = send(); err != nil {
				break
			}
		}
	}
	if err == nil && b.Field(1).Len() > 0 {
		err = send()
	}
	if closing := w.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return nil, err
	}
	spec := t.Metadata().PartitionSpecByID(int(f.file.SpecID()))
	if spec == nil {
		return nil, fail.New(fail.Fatal, "iceberg.other_table",
			"table %s has lost the partition spec of %s", tables.Name(t), name)
	}
	d, err := iceberg.NewDataFileBuilder(*spec, iceberg.EntryContentPosDeletes, path, iceberg.ParquetFile,
		f.file.Partition(), nil, nil, count, counting.bytes)
	if err != nil {
		return nil, err
	}
	Bounds := func(at int64) map[int][]byte {
		return map[int][]byte{pathColumn: []byte(name),
			positionColumn: binary.LittleEndian.AppendUint64(nil, uint64(at))}
	}
	if !staged {
		// Of a file of the same commit iceberg-go would say that the table lacks it. The bounds tell readers as much.
		d.ReferencedDataFile(name)
	}
	return d.LowerBoundValues(Bounds(least)).UpperBoundValues(Bounds(most)).
		ValueCounts(map[int]int64{pathColumn: count, positionColumn: count}).
		NullValueCounts(map[int]int64{pathColumn: 0, positionColumn: 0}).Build(), nil
}

// counter counts the bytes that are written.
type counter struct {
	out   iceio.FileWriter
	bytes int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.out.Write(b)
	c.bytes += int64(n)
	return n, err
}

func (c *counter) Close() error { return c.out.Close() }
