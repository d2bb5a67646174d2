package fileio

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	parquetfile "github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"reprise/io/columns"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Parquet as other programs write it.

// int96 is a time as Spark and Impala have written it.
func int96(at time.Time) (v parquetfile.Int96) {
	day := at.Unix() / 86400
	if at.Unix()%86400 < 0 {
		day--
	}
	binary.LittleEndian.PutUint64(v[:], uint64(at.Unix()-day*86400)*1e9+uint64(at.Nanosecond()))
	binary.LittleEndian.PutUint32(v[8:], uint32(day+2_440_588))
	return v
}

// writeInt96 writes rows with a number and a time, nil for none; shape is where the time stands: "flat", "struct" or
// "list".
func writeInt96(t *testing.T, shape string, rows []*parquetfile.Int96) (path string) {
	t.Helper()
	must := func(n schema.Node, err error) schema.Node {
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	id := must(schema.NewPrimitiveNode("id", parquetfile.Repetitions.Required, parquetfile.Types.Int64, -1, -1))
	at := must(schema.NewPrimitiveNode("at", parquetfile.Repetitions.Optional, parquetfile.Types.Int96, -1, -1))
	present, absent, repetition := []int16{1}, []int16{0}, []int16(nil)
	switch shape {
	case "struct":
		at = must(schema.NewGroupNode("at", parquetfile.Repetitions.Optional, schema.FieldList{at}, -1))
		present, absent = []int16{2}, []int16{1}
	case "list":
		at = must(schema.ListOf(at.(*schema.PrimitiveNode), parquetfile.Repetitions.Optional, -1))
		present, absent, repetition = []int16{3}, []int16{1}, []int16{0} // an empty list for none
	}
	root := must(schema.NewGroupNode("root", parquetfile.Repetitions.Required, schema.FieldList{id, at},
		-1)).(*schema.GroupNode)
	path = filepath.Join(t.TempDir(), "spark.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := file.NewParquetWriter(f, root)
	for part := range slices.Chunk(rows, 1500) {
		group := w.AppendRowGroup()
		ids, err := group.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		for i := range part {
			if _, err := ids.(*file.Int64ColumnChunkWriter).WriteBatch([]int64{int64(i)}, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := ids.Close(); err != nil {
			t.Fatal(err)
		}
		times, err := group.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range part {
			values, levels := []parquetfile.Int96{}, absent
			if v != nil {
				values, levels = append(values, *v), present
			}
			if _, err := times.(*file.Int96ColumnChunkWriter).WriteBatch(values, levels, repetition); err != nil {
				t.Fatal(err)
			}
		}
		if err := times.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// parquetSource is a source of a file whose key is id.
func parquetSource(path string, change func(*SourceConfig)) *Source {
	c := SourceConfig{Path: path, Key: []string{"id"}}
	if change != nil {
		change(&c)
	}
	return NewSource(c, connector.Need{})
}

// A time beyond what nanoseconds in 64 bits hold is read as it is; one that is none is a dead letter alone, and so is
// one within a nested value.
func TestAnINT96BeyondNanosecondsIsNoFaultOfTheFile(t *testing.T) {
	day := func(text string) *parquetfile.Int96 {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		v := int96(at)
		return &v
	}
	rows := make([]*parquetfile.Int96, 4000)
	for i := range rows {
		if i%7 > 0 {
			v := int96(time.Unix(int64(i)*86_399, 5e6).UTC())
			rows[i] = &v
		}
	}
	far := map[int]string{3: "9999-12-31T23:59:59.999Z", 513: "0001-01-01T00:00:00Z",
		514: "1500-01-01T12:00:00.001Z", 2999: "2262-04-12T00:00:00Z"}
	for i, text := range far {
		rows[i] = day(text)
	}
	broken := *day("2024-01-01T00:00:00Z")
	binary.LittleEndian.PutUint64(broken[:], uint64(25*time.Hour))
	rows[700] = &broken
	for _, shape := range []string{"flat", "struct", "list"} {
		t.Run(shape, func(t *testing.T) {
			records, dead := read(t, parquetSource(writeInt96(t, shape, rows), nil), connector.PlanOptions{})
			wrong := []int{700}
			if shape != "flat" {
				wrong = []int{3, 513, 514, 700, 2999}
			}
			var got []int
			for _, d := range dead {
				var row int
				if _, err := fmt.Sscanf(d.Message, "row %d of", &row); err != nil || d.Code != "files.wrong_type" ||
					!strings.Contains(d.Message, "INT96") {
					t.Errorf("%+v", d)
				}
				got = append(got, row)
			}
			if !slices.Equal(got, wrong) || len(records) != len(rows)-len(wrong) {
				t.Fatalf("%d records, and dead rows %v, want %v", len(records), got, wrong)
			}
			next := 0
			for i, v := range rows {
				if slices.Contains(wrong, i) {
					continue
				}
				r := records[next]
				next++
				at := r.Values[1]
				if shape != "flat" && len(at.Elems()) == 1 {
					at = at.Elems()[0]
				} else if shape == "list" {
					at = record.NullValue
				}
				want := "null"
				switch {
				case far[i] != "":
					parsed, _ := time.Parse(time.RFC3339Nano, far[i])
					want = parsed.Format("2006-01-02T15:04:05.000Z")
				case v != nil:
					want = time.Unix(int64(i)*86_399, 5e6).UTC().Format("2006-01-02T15:04:05.000Z")
				}
				if text := strings.Trim(string(at.AppendJSON(nil, record.Of(record.Timestamp))),
					`"`); text != want || r.Values[0].Int() != int64(i%1500) {
					t.Fatalf("row %d: %d, %s, want %s", i, r.Values[0].Int(), text, want)
				}
			}
		})
	}
	asNumbers := parquetSource(writeInt96(t, "flat", rows[:1000]), func(c *SourceConfig) {
		c.Fields = fieldsOf(t,
			`{"id":"bigint","at":"bigint"}`)
	})
	if records, dead := read(t, asNumbers, connector.PlanOptions{}); len(dead) != 4 ||
		records[1].Values[1].Int() != 86_399_005_000_000 {
		t.Errorf("as numbers: %d dead letters, %+v", len(dead), dead)
	}
}

// writeArrow writes a table with all that Arrow knows about it, as pandas does.
func writeArrow(t *testing.T, fields []arrow.Field, fill func(b *array.RecordBuilder),
	options ...pqarrow.WriterOption) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "pandas.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	sc := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	fill(b)
	batch := b.NewRecordBatch()
	defer batch.Release()
	w, err := pqarrow.NewFileWriter(sc, f, nil, pqarrow.NewArrowWriterProperties(append(options,
		pqarrow.WithStoreSchema())...))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(batch); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// The types of pandas and Arrow, among them categories, which are a way to store values and no type of theirs.
func TestParquetOfPandas(t *testing.T) {
	category := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	fields := []arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "kind", Type: category, Nullable: true},
		{Name: "code", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32,
			ValueType: arrow.BinaryTypes.Binary}, Nullable: true},
		{Name: "kinds", Type: arrow.ListOf(category), Nullable: true},
		{Name: "nothing", Type: arrow.Null, Nullable: true},
		{Name: "half", Type: arrow.FixedWidthTypes.Float16, Nullable: true},
		{Name: "day", Type: arrow.FixedWidthTypes.Date64, Nullable: true},
		{Name: "price", Type: &arrow.Decimal128Type{Precision: 9, Scale: 2}, Nullable: true},
		{Name: "large", Type: arrow.LargeListOf(arrow.BinaryTypes.LargeString), Nullable: true},
		{Name: "point", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float64), Nullable: true},
		{Name: "meta", Type: arrow.StructOf(arrow.Field{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us,
			Nullable: true}), Nullable: true},
		{Name: "attrs", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int32), Nullable: true},
	}
	path := writeArrow(t, fields, func(b *array.RecordBuilder) {
		for _, row := range []string{
			`{"id": 1, "kind": "a", "code": "AAE=", "kinds": ["a", "b", "a"], "nothing": null, "half": 0.5,
			"day": "2024-05-01", "price": "12.50", "large": ["x", "y"], "point": [1.5, 2.5],
			"meta": {"at": "2024-05-01T12:00:00.5Z"}, "attrs": [{"key": "k", "value": 7}]}`,
			`{"id": 2, "kind": null, "code": null, "kinds": null, "nothing": null, "half": null, "day": null,
			"price": null, "large": null, "point": null, "meta": null, "attrs": null}`,
		} {
			if err := b.UnmarshalJSON([]byte(row)); err != nil {
				t.Fatal(err)
			}
		}
	})
	s := parquetSource(path, nil)
	got, err := s.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, f := range got.Fields {
		types = append(types, strings.ReplaceAll(f.Type.String(), " ", ""))
	}
	if want := "bigint text blob list<text> text float date decimal list<text> list<double> udt<at:timestamp> " +
		"map<text,int>"; strings.Join(types, " ") != want {
		t.Errorf("the types are %s, want %s", strings.Join(types, " "), want)
	}
	records, dead := read(t, s, connector.PlanOptions{})
	if len(dead) > 0 || len(records) != 2 {
		t.Fatalf("%d records, %+v", len(records), dead)
	}
	for i, want := range []string{
		`{"id":1,"kind":"a","code":"AAE=","kinds":["a","b","a"],"nothing":null,"half":0.5,"day":"2024-05-01",` +
			`"price":"12.50","large":["x","y"],"point":[1.5,2.5],"meta":{"at":"2024-05-01T12:00:00.500Z"},"attrs":{"k":7}}`,
		`{"id":2,"kind":null,"code":null,"kinds":null,"nothing":null,"half":null,"day":null,` +
			`"price":null,"large":null,"point":null,"meta":null,"attrs":null}`,
	} {
		if got := string(records[i].AppendJSON(nil)); got != want {
			t.Errorf("row %d is\n%s, want\n%s", i, got, want)
		}
	}
}

// What pandas holds as timedelta, which only Python writes.
func TestSpansOfPandas(t *testing.T) {
	b := array.NewDurationBuilder(memory.DefaultAllocator, arrow.FixedWidthTypes.Duration_ms.(*arrow.DurationType))
	defer b.Release()
	b.Append(-90_000)
	column := b.NewDurationArray()
	defer column.Release()
	typ, err := columns.Type(column.DataType())
	if err != nil || typ.Kind != record.Duration {
		t.Fatalf("%s, %v", typ, err)
	}
	if v, err := value(column, 0, typ, record.Reading{}); err != nil || v.Text(typ) != "-90000000000ns" {
		t.Errorf("%s, %v", v.Text(typ), err)
	}
	if v, err := value(column, 0, record.Of(record.BigInt), record.Reading{}); err != nil || v.Int() != -90_000 {
		t.Errorf("%d, %v", v.Int(), err)
	}
}

// A column that the fields leave out may be of any kind, and damaged.
func TestAColumnThatIsLeftOutIsNotRead(t *testing.T) {
	fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "left",
		Type: arrow.BinaryTypes.String}, {Name: "title", Type: arrow.BinaryTypes.String}}
	path := writeArrow(t, fields, func(b *array.RecordBuilder) {
		for i := range 1000 {
			b.Field(0).(*array.Int64Builder).Append(int64(i))
			b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("left ", i))
			b.Field(2).(*array.StringBuilder).Append(fmt.Sprint("title ", i))
		}
	})
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := r.MetaData().RowGroup(0).ColumnChunk(1)
	if err != nil {
		t.Fatal(err)
	}
	from := chunk.DataPageOffset()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 64)), from); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := parquetSource(path, func(c *SourceConfig) {
		c.Fields, c.IgnoreUnknown = fieldsOf(t,
			`{"id":"bigint","title":"text"}`), true
	})
	records, dead := read(t, s, connector.PlanOptions{})
	if len(records) != 1000 || len(dead) > 0 || records[999].Values[1].Str() != "title 999" {
		t.Errorf("%d records, %+v", len(records), dead)
	}
	whole := parquetSource(path, nil)
	err = whole.Plan(t.Context(), connector.PlanOptions{}, func(split connector.Split) error {
		return whole.Read(t.Context(), split, func(connector.Page) error { return nil })
	})
	wantCode(t, err, "files.read", fail.Fatal)
}

// Microseconds are not lost without a word: where they are zero a timestamp is read, where a file begins with some the
// job is told what it may choose, and where some come later they are dead letters that tell it too.
func TestMicrosecondsAreNotLost(t *testing.T) {
	write := func(micros ...int64) string {
		return writeArrow(t, []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "at",
			Type: arrow.FixedWidthTypes.Timestamp_us},
			{Name: "all", Type: arrow.ListOf(arrow.FixedWidthTypes.Timestamp_ns)}}, func(b *array.RecordBuilder) {
			for i, n := range micros {
				b.Field(0).(*array.Int64Builder).Append(int64(i))
				b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(n))
				list := b.Field(2).(*array.ListBuilder)
				list.Append(true)
				list.ValueBuilder().(*array.TimestampBuilder).Append(arrow.Timestamp(n * 1000))
			}
		})
	}
	const whole, fine = 1_714_564_800_123_000, 1_714_564_800_123_456
	millis := func(r *record.Record, want int64) {
		t.Helper()
		if at, inner := r.Values[1].Int(), r.Values[2].Elems()[0].Int(); at != want || inner != want {
			t.Errorf("%s: %d and %d, want %d", r.KeyText(), at, inner, want)
		}
	}
	records, dead := read(t, parquetSource(write(whole, 0, -whole), nil), connector.PlanOptions{})
	if len(records) != 3 || len(dead) > 0 {
		t.Fatalf("%d records, %+v", len(records), dead)
	}
	millis(records[0], whole/1000)
	millis(records[2], -whole/1000)

	path := write(whole, fine, -fine)
	_, err := parquetSource(path, nil).Schema(t.Context())
	wantCode(t, err, "files.finer", fail.Fatal)
	for _, part := range []string{"field ", path, "row 1", "cut_timestamps: true", "bigint"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	records, dead = read(t, parquetSource(path, func(c *SourceConfig) { c.CutTimestamps = true }),
		connector.PlanOptions{})
	if len(records) != 3 || len(dead) > 0 {
		t.Fatalf("%d records, %+v", len(records), dead)
	}
	millis(records[1], fine/1000)
	millis(records[2], -fine/1000-1) // a little earlier
	records, dead = read(t, parquetSource(path, func(c *SourceConfig) {
		c.Fields = fieldsOf(t,
			`{"id":"bigint","at":"bigint","all":"list<bigint>"}`)
	}), connector.PlanOptions{})
	if len(records) != 3 || len(dead) > 0 || records[1].Values[1].Int() != fine ||
		records[1].Values[2].Elems()[0].Int() != fine*1000 {
		t.Fatalf("%d records, %+v", len(records), dead)
	}

	// The key and the version are never cut.
	_, err = parquetSource(path, func(c *SourceConfig) { c.CutTimestamps, c.Version = true, "at" }).Schema(t.Context())
	wantCode(t, err, "files.finer", fail.Fatal)
	_, err = parquetSource(path, func(c *SourceConfig) {
		c.CutTimestamps, c.Key = true,
			[]string{"at"}
	}).Schema(t.Context())
	wantCode(t, err, "files.finer", fail.Fatal)

	late := append(slices.Repeat([]int64{whole}, 2000), fine, whole)
	records, dead = read(t, parquetSource(write(late...), nil), connector.PlanOptions{})
	if len(records) != 2001 || len(dead) != 1 || dead[0].Code != "files.wrong_type" ||
		!strings.Contains(dead[0].Message, "cut_timestamps") || !strings.Contains(dead[0].Message, "row 2000") {
		t.Errorf("%d records, %+v", len(records), dead)
	}

	// JSON lines are the same, but for the look before.
	lines := writeFile(t, "x.jsonl",
		`{"id":1,"at":"2024-05-01T12:00:00.123456Z","all":["2024-05-01T12:00:00.123999"]}`+"\n")
	times := func(cut bool) *Source {
		return parquetSource(lines, func(c *SourceConfig) {
			c.CutTimestamps, c.Fields = cut, fieldsOf(t, `{"id":"bigint","at":"timestamp","all":"list<timestamp>"}`)
		})
	}
	if _, dead = read(t, times(false), connector.PlanOptions{}); len(dead) != 1 || !strings.Contains(dead[0].Message,
		"cut_timestamps") {
		t.Errorf("%+v", dead)
	}
	if records, dead = read(t, times(true), connector.PlanOptions{}); len(dead) > 0 {
		t.Fatalf("%+v", dead)
	}
	millis(records[0], fine/1000)
}
