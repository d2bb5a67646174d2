package deadletter

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/iotest"
	"reprise/transforms/record"
)

func genLetter(t *rapid.T) *record.DeadLetter {
	text := rapid.StringN(0, 20, -1)
	l := &record.DeadLetter{Run: text.Draw(t, "run"), Step: text.Draw(t, "step"), Sink: text.Draw(t, "sink"),
		Class: text.Draw(t, "class"),
		Code:  text.Draw(t, "code"), Message: text.Draw(t, "message"), Split: text.Draw(t, "split"),
		Attempts: rapid.IntRange(0, 100).Draw(t, "attempts"), At: rapid.Int64Range(0, 4e12).Draw(t, "at")}
	if rapid.Bool().Draw(t, "raw") {
		l.Raw = rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
	}
	if rapid.Bool().Draw(t, "record") {
		schema := iotest.AssetSchema()
		l.Record = iotest.Record(schema, rapid.IntRange(0, 5).Draw(t, "n"), rapid.Int64().Draw(t, "version"))
		if rapid.Bool().Draw(t, "delete") {
			l.Record.Op = record.Delete
		}
		l.Record.Values[1] = rapid.SampledFrom([]record.Value{{}, record.NullValue, record.String("x")}).
			Draw(t, "value")
		l.Record.Origin = record.Origin{Split: l.Split,
			Position: rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "position")}
	}
	return l
}

func TestFromRecordReadsWhatToRecordMakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genLetter(t)
		r := ToRecord(l)
		if r.Version != l.At*1000 || !r.Schema.Same(Schema()) {
			t.Fatalf("%+v became version %d", l, r.Version)
		}
		got, err := FromRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if !iotest.SameLetter(got, l) {
			t.Fatalf("%+v became %+v", l, got)
		}
	})
}

// Through files, as the default queue goes, nothing of it changes.
func TestThroughFiles(t *testing.T) {
	for _, format := range []string{"jsonl", "parquet"} {
		var want []*record.DeadLetter
		for i := range 100 {
			want = append(want, rapid.Custom(genLetter).Example(i))
		}
		c := fileio.SinkConfig{Path: t.TempDir(), Format: format}
		sink := fileio.NewSink(c)
		w, err := sink.Open(t.Context(), connector.Run{ID: "r"}, Schema(), func([]connector.Result) {})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range want {
			if err := w.Write(t.Context(), ToRecord(l)); err != nil {
				t.Fatal(err)
			}
		}
		parts, err := w.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Commit(t.Context(), connector.Run{ID: "r"}, Schema(), parts); err != nil {
			t.Fatal(err)
		}
		source := fileio.NewSource(fileio.SourceConfig{Path: filepath.Join(c.Path, "*"), Key: []string{"id"},
			Fields: Schema().Fields}, connector.Need{})
		n := 0
		err = source.Plan(t.Context(), connector.PlanOptions{}, func(s connector.Split) error {
			return source.Read(t.Context(), s, func(p connector.Page) error {
				for _, r := range p.Records {
					if l, err := FromRecord(r); err != nil || !iotest.SameLetter(l, want[n]) {
						t.Fatalf("%+v became %+v (%v)", want[n], l, err)
					}
					n++
				}
				return nil
			})
		})
		if err != nil || n != len(want) {
			t.Fatalf("%s: %d of %d letters came back: %v", format, n, len(want), err)
		}
	}
}

// A repeat has the same id, wherever it was read; anything else another one.
func TestID(t *testing.T) {
	id := func(change func(*record.DeadLetter)) string {
		l := &record.DeadLetter{Run: "r", Step: "s", Sink: "k",
			Record: iotest.Record(iotest.AssetSchema(), 1, 1), Raw: []byte("raw")}
		change(l)
		return ToRecord(l).KeyText()
	}
	first := id(func(*record.DeadLetter) {})
	for _, change := range []func(*record.DeadLetter){
		func(l *record.DeadLetter) { l.Attempts, l.At, l.Message = 5, 5, "other" },
		func(l *record.DeadLetter) { l.Split, l.Record.Origin.Split = "other", "other" },
	} {
		if got := id(change); got != first {
			t.Errorf("a repeat has id %s, not %s", got, first)
		}
	}
	seen := map[string]bool{first: true}
	for i, change := range []func(*record.DeadLetter){
		func(l *record.DeadLetter) { l.Run = "x" },
		func(l *record.DeadLetter) { l.Step, l.Sink = "sk", "" },
		func(l *record.DeadLetter) { l.Sink = "x" },
		func(l *record.DeadLetter) { l.Raw = nil },
		func(l *record.DeadLetter) { l.Record = nil },
		func(l *record.DeadLetter) { l.Record = iotest.Record(iotest.AssetSchema(), 1, 2) },
		func(l *record.DeadLetter) { l.Record.Op = record.Delete },
		func(l *record.DeadLetter) { l.Record.Values[1] = record.NullValue },
	} {
		if got := id(change); seen[got] {
			t.Errorf("change %d leaves the id", i)
		} else {
			seen[got] = true
		}
	}
}

func TestFromRecordRefuses(t *testing.T) {
	if _, err := FromRecord(iotest.Record(iotest.AssetSchema(), 1, 1)); err == nil {
		t.Error("an asset was taken for a dead letter")
	}
	r := ToRecord(&record.DeadLetter{Record: iotest.Record(iotest.AssetSchema(), 1, 1)})
	r.Values[wire] = record.Bytes(record.Blob, "damaged")
	if _, err := FromRecord(r); err == nil {
		t.Error("a damaged record was taken")
	}
	if d := cmp.Diff([]string{"id"}, Schema().KeyNames()); d != "" {
		t.Error(d)
	}
}
