package fileio

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func openWriter(t *testing.T, c SinkConfig, settle connector.Settle) *writer {
	t.Helper()
	w, err := NewSink(c).Open(t.Context(), connector.Run{ID: "r"}, iotest.AssetSchema(), settle)
	if err != nil {
		t.Fatal(err)
	}
	return w.(*writer)
}

func TestFullDisk(t *testing.T) {
	for _, format := range []string{jsonl, parquet} {
		w := openWriter(t, SinkConfig{Path: t.TempDir(), Format: format}, func([]connector.Result) {})
		if err := w.begin(); err != nil {
			t.Fatal(err)
		}
		// The system's own full disk takes the file's place.
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.out.buffer.Reset(full)
		if err := w.Write(t.Context(), iotest.Record(iotest.AssetSchema(), 0, 1)); err != nil {
			t.Fatal(err)
		}
		parts, err := w.Flush(t.Context())
		if len(parts) > 0 || !strings.Contains(err.Error(), "free space") {
			t.Fatal(parts, err)
		}
		wantCode(t, err, "files.disk_full", fail.Fatal)
		if again := w.Write(t.Context(), iotest.Record(iotest.AssetSchema(), 1, 1)); again != err {
			t.Fatalf("a write after that gave %v", again)
		}
		_ = w.Close()
	}
}

func TestPrepareErrors(t *testing.T) {
	file := writeFile(t, "a", "")
	for _, dry := range []bool{true, false} {
		for _, path := range []string{file, filepath.Join(file, "below")} {
			wantCode(t, NewSink(SinkConfig{Path: path}).
				Prepare(t.Context(), connector.Run{}, iotest.AssetSchema(), dry), "files.folder", fail.Fatal)
		}
	}
	missing := filepath.Join(t.TempDir(), "a", "b")
	if err := NewSink(SinkConfig{Path: missing}).Prepare(t.Context(), connector.Run{},
		iotest.AssetSchema(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(missing)); err == nil {
		t.Error("Prepare with dry made a folder")
	}
	taken := record.MustSchema([]record.Field{{Name: "_meta", Type: record.Of(record.Text)}}, "_meta")
	wantCode(t, NewSink(SinkConfig{Path: missing}).Prepare(t.Context(), connector.Run{}, taken, true),
		"files.meta_field", fail.Fatal)
}

func TestLines(t *testing.T) {
	schema := iotest.AssetSchema()
	r := iotest.Record(schema, 1, 7)
	r.Values[1] = record.Value{}
	r.Values[3] = record.NullValue
	r.Expires = 9
	var b strings.Builder
	for _, meta := range []bool{false, true} {
		e, err := newLineEncoder(&b, SinkConfig{Meta: meta}, connector.Run{ID: "run-1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*record.Record{r, iotest.Deletion(schema, 1, 8)} {
			if err := e.write(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	plain := strings.TrimSuffix(iotest.JSON(r), "}")
	want := plain + "}\n" +
		`{"id":"text-000001","_meta":{"key":"text-000001","version":8,"op":"delete","run":"run-1"}}` + "\n" +
		plain + `,"_meta":{"key":"text-000001","version":7,"op":"upsert","run":"run-1","expires":9}}` + "\n" +
		`{"id":"text-000001","_meta":{"key":"text-000001","version":8,"op":"delete","run":"run-1"}}` + "\n"
	if b.String() != want {
		t.Errorf("lines are\n%swant\n%s", b.String(), want)
	}
}

// What Parquet cannot hold is refused for the record alone.
func TestParquetRefuses(t *testing.T) {
	results := map[*record.Record]connector.Result{}
	w := openWriter(t, SinkConfig{Path: t.TempDir(), Format: parquet}, func(all []connector.Result) {
		for _, r := range all {
			results[r.Record] = r
		}
	})
	schema := iotest.AssetSchema()
	good, deletion, wrong := iotest.Record(schema, 1, 1), iotest.Deletion(schema, 2, 1), iotest.Record(schema, 3, 1)
	wrong.Values[5] = record.Nested(record.Map, []record.Value{record.NullValue, record.String("x")})
	other := iotest.Record(schema, 4, 1)
	other.Values[3] = record.String("x")
	for _, r := range []*record.Record{good, deletion, wrong, other} {
		if err := w.Write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	parts, err := w.Flush(t.Context())
	if err != nil || len(parts) != 1 {
		t.Fatal(parts, err)
	}
	if res := results[good]; res.Outcome != record.Written {
		t.Errorf("%+v", res)
	}
	wantCode(t, results[deletion].Err, "files.delete", fail.Permanent)
	wantCode(t, results[wrong].Err, "files.misfit", fail.Permanent)
	wantCode(t, results[other].Err, "files.misfit", fail.Permanent)
}

func TestCommitMissesAFile(t *testing.T) {
	c := SinkConfig{Path: t.TempDir()}
	w := openWriter(t, c, func([]connector.Result) {})
	var parts [][]byte
	for i := range 2 {
		if err := w.Write(t.Context(), iotest.Record(iotest.AssetSchema(), i, 1)); err != nil {
			t.Fatal(err)
		}
		more, err := w.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, more...)
	}
	left, _ := filepath.Glob(filepath.Join(c.Path, "*"+partSuffix))
	if err := os.Remove(left[1]); err != nil {
		t.Fatal(err)
	}
	_, err := NewSink(c).Commit(t.Context(), connector.Run{ID: "r"}, nil, parts)
	wantCode(t, err, "files.missing", fail.Fatal)
	if now, _ := filepath.Glob(filepath.Join(c.Path, "*")); len(now) != 1 || now[0] != left[0] {
		t.Errorf("a commit that failed left %v", now)
	}
}

// What a failed bundle left goes with the commit, what belongs to another run stays.
func TestCommitTidiesUp(t *testing.T) {
	c := SinkConfig{Path: t.TempDir()}
	bundle := func(run string) [][]byte {
		w, err := NewSink(c).Open(t.Context(), connector.Run{ID: run}, iotest.AssetSchema(),
			func([]connector.Result) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(t.Context(), iotest.Record(iotest.AssetSchema(), 0, 1)); err != nil {
			t.Fatal(err)
		}
		parts, err := w.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return parts
	}
	bundle("r")
	bundle("r-2")
	if _, err := NewSink(c).Commit(t.Context(), connector.Run{ID: "r"}, nil, bundle("r")); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(c.Path, "*"+partSuffix))
	all, _ := filepath.Glob(filepath.Join(c.Path, "*"))
	if len(all) != 2 || len(left) != 1 || !strings.HasPrefix(filepath.Base(left[0]), "r-2-") {
		t.Errorf("the folder holds %v", all)
	}
}

// A writer that was frozen while another attempt committed its run changes nothing of what was
// committed, however it goes on.
func TestFrozenWriter(t *testing.T) {
	for _, compress := range []string{"none", "gzip", "zstd"} {
		c := SinkConfig{Path: t.TempDir(), Compress: compress}
		run, frozen := connector.Run{ID: "r"}, openWriter(t, c, func([]connector.Result) {})
		write := func(from, to int) [][]byte {
			for i := from; i < to; i++ {
				if err := frozen.Write(t.Context(), iotest.Record(iotest.AssetSchema(), i, 1)); err != nil {
					t.Fatal(err)
				}
			}
			parts, err := frozen.Checkpoint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return parts
		}
		parts := write(0, 300)
		write(300, 400) // the journal does not know of it
		if n, err := NewSink(c).Commit(t.Context(), run, nil, parts); err != nil || n != 300 {
			t.Fatal(n, err)
		}
		write(400, 900)
		if err := frozen.Close(); err != nil {
			t.Fatal(err)
		}
		all, _ := filepath.Glob(filepath.Join(c.Path, "*"))
		if entries := folderEntries(t, c.Path); len(all) != 1 || len(entries) != 300 {
			t.Errorf("%s: the files %v have %d entries, want 300", compress, all, len(entries))
		}
	}
}

// A file that reached its size is closed, and a writer holds no more than its buffers.
func TestFilesAreRolled(t *testing.T) {
	for _, format := range []string{jsonl, parquet} {
		c := SinkConfig{Path: t.TempDir(), Format: format, Compress: "none", FileSize: 2 << 20}
		w := openWriter(t, c, func([]connector.Result) {})
		r := iotest.Record(iotest.AssetSchema(), 0, 1)
		for i := range 200 {
			r := r.Clone()
			r.Values[2] = record.String(strings.Repeat(string(rune('a'+i%26)), 100<<10))
			if err := w.Write(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		parts, err := w.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(parts) < 2 {
			t.Errorf("%s: %d files for 20 MB", format, len(parts))
		}
	}
}

// Checkpoints do not make files of their own, but for Parquet, and what a crashed writer handed out is committed,
// with what a later attempt wrote.
func TestCheckpoints(t *testing.T) {
	for _, c := range []SinkConfig{{}, {Compress: "gzip"}, {Compress: "zstd"}, {Format: parquet}} {
		t.Run(c.format()+" "+c.compress(), func(t *testing.T) {
			c.Path, c.Meta = t.TempDir(), true
			schema, run := iotest.AssetSchema(), connector.Run{ID: "r"}
			const windows, each = 10, 50
			var parts [][]byte
			attempt := func(first int) {
				w := openWriter(t, c, func([]connector.Result) {})
				for i := range windows*each + each/2 {
					if err := w.Write(t.Context(), iotest.Record(schema, first+i, 1)); err != nil {
						t.Fatal(err)
					}
					if i%each == each-1 {
						more, err := w.Checkpoint(t.Context())
						if err != nil || len(more) != 1 {
							t.Fatal(more, err)
						}
						parts = append(parts, more...)
					}
				}
				w.batches.Flush(t.Context()) // what no checkpoint saw stands in the file, too
				if w.out != nil {
					w.out.buffer.Flush()
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			files := 1
			if c.Format == parquet {
				files = windows
			}
			for n := 1; n <= 3; n++ {
				attempt(n * 10_000)
				for range 2 {
					if records, err := NewSink(c).Commit(t.Context(), run, nil, parts); err != nil ||
						records != int64(n*windows*each) {
						t.Fatal(records, err)
					}
				}
				if now, _ := filepath.Glob(filepath.Join(c.Path, "*")); len(now) != n*files {
					t.Errorf("%d files after %d attempts: %v", len(now), n, now)
				}
				entries := folderEntries(t, c.Path)
				if keys := newest(entries); len(entries) != n*windows*each || len(keys) != len(entries) {
					t.Errorf("%d entries for %d keys", len(entries), len(keys))
				}
			}
			// A part that says more than the file holds, and one that is missing.
			last := len(parts) - 1
			more := []byte(strings.Replace(string(parts[last]), `"length":`, `"length":9`, 1))
			_, err := NewSink(c).Commit(t.Context(), run, nil, append(parts[:last:last], more))
			wantCode(t, err, "files.missing", fail.Fatal)
			if c.Format != parquet {
				_, err := NewSink(c).Commit(t.Context(), run, nil, slices.Delete(slices.Clone(parts), last-1, last))
				wantCode(t, err, "files.gap", fail.Fatal)
			}
		})
	}
}
