package newsystem_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/cli"
	_ "reprise/runners/systems"
	"reprise/transforms/record"
)

// The suites that every system passes.
func TestConformance(t *testing.T) {
	dir := t.TempDir()
	rows := func(t *testing.T, target string) map[string]string {
		t.Helper()
		all := map[string]string{}
		s := &source{SourceConfig{Path: filepath.Join(dir, target), Key: iotest.AssetSchema().KeyNames(),
			Fields: iotest.AssetSchema().Fields}, 100}
		if err := s.Read(t.Context(), connector.Split{}, func(p connector.Page) error {
			for _, r := range p.Records {
				all[r.KeyText()] = iotest.JSON(r)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	t.Run("sink", func(t *testing.T) {
		iotest.TestSink(t, iotest.Sink{
			New: func(_ *testing.T, target string) connector.Sink {
				return sink{SinkConfig{Path: filepath.Join(dir, target)}}
			},
			Read:       rows,
			Superseded: true,
			Deletes:    true,
			Refused: func() *record.Record {
				r := iotest.Record(iotest.AssetSchema(), 1000, iotest.Base)
				r.Values[0] = record.String(strings.Repeat("k", 2<<20))
				return r
			},
		})
	})
	t.Run("source", func(t *testing.T) {
		s := sink{SinkConfig{Path: filepath.Join(dir, "rows")}}
		if err := s.Prepare(t.Context(), connector.Run{}, nil, false); err != nil {
			t.Fatal(err)
		}
		for n := range 500 {
			if _, err := s.put(iotest.Record(iotest.AssetSchema(), n, iotest.Base+int64(n))); err != nil {
				t.Fatal(err)
			}
		}
		iotest.TestSource(t, iotest.Source{Want: rows(t, "rows"), New: func(t *testing.T) connector.Source {
			return &source{SourceConfig{Path: filepath.Join(dir, "rows"), Key: iotest.AssetSchema().KeyNames(),
				Fields: iotest.AssetSchema().Fields}, 50}
		}})
	})
}

// The test's binary is that of a team with a system of its own.
func TestMain(m *testing.M) {
	if os.Getenv("AS_REPRISE") != "" {
		os.Exit(cli.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

const shelfJob = `
name: shelves
source:
  shelf: {path: from, key: [id], fields: {id: text, title: text, size: int}}
transforms:
- cast: {size: text}
sinks:
  copy: {shelf: {path: to}}
limits: {unfinished: "20"}
pace: {rates: {source: {records: 400}}}
verify: {settle: 10ms}
`

// One file is all that a new system takes: the schema and validate know it, its runs are resumed, its dead letters are
// sent again, its targets are verified.
func TestOneFileMakesASystem(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(in(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
		c, out := exec.CommandContext(t.Context(), os.Args[0], args...), &bytes.Buffer{}
		c.Dir, c.Env, c.Stdout, c.Stderr = dir, append(os.Environ(), "AS_REPRISE=1"), out, out
		return c, out
	}
	reprise := func(want int, words string, args ...string) {
		t.Helper()
		c, out := command(args...)
		_ = c.Run() // the exit code tells
		if code := c.ProcessState.ExitCode(); code != want || !strings.Contains(out.String(), words) {
			t.Fatalf("reprise %s: code %d, want %d and %q:\n%s", strings.Join(args, " "), code, want, words, out)
		}
	}
	write("job.yaml", strings.Replace(shelfJob, "path: to", "paht: to", 1))
	reprise(2, `unknown key; did you mean "path"?`, "validate", "job.yaml")
	write("job.yaml", strings.Replace(shelfJob, "path: to", "path: ../to", 1))
	reprise(2, "sinks.copy.shelf.path: the path leads out of its folder", "validate", "job.yaml")
	write("job.yaml", shelfJob)
	reprise(0, "", "validate", "job.yaml")
	reprise(0, "A folder with one file for each row.", "schema")
	reprise(2, "there is no shelf from", "run", "job.yaml")

	fields := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "title", Type: record.Of(record.Text)}, {Name: "size", Type: record.Of(record.Int)}}, "id")
	row := func(n int, title string) *record.Record {
		return &record.Record{Schema: fields, Version: iotest.Base + int64(n), Values: []record.Value{
			record.String(fmt.Sprintf("a%03d", n)), record.String(title), record.Number(record.Int, int64(n))}}
	}
	from := sink{SinkConfig{Path: in("from")}}
	if err := from.Prepare(t.Context(), connector.Run{}, nil, false); err != nil {
		t.Fatal(err)
	}
	const rows = 400
	for n := range rows {
		if _, err := from.put(row(n, "title")); err != nil {
			t.Fatal(err)
		}
	}
	damaged := filepath.Join("from", name(row(7, "")))
	write(damaged, "rubbish")

	killed, out := command("run", "job.yaml")
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	for there := 0; there < rows/8; {
		entries, err := os.ReadDir(in("to"))
		if there = len(entries); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if killed.Process.Signal(syscall.Signal(0)) != nil {
			t.Fatalf("the run has ended: %s", out)
		}
	}
	killed.Process.Kill()
	if err := killed.Wait(); err == nil {
		t.Fatalf("the run was over before it was killed: %s", out)
	}
	reprise(0, "399", "resume", "last")
	reprise(0, "shelf.damaged", "dead", "list", "last")

	reprise(6, "1 rows of the source could not be read", "verify", "job.yaml")
	if _, err := from.put(row(7, "mended")); err != nil {
		t.Fatal(err)
	}
	reprise(6, "missing", "verify", "job.yaml")
	reprise(0, "1 sent", "redrive", "last")
	reprise(0, "", "verify", "job.yaml")
}
