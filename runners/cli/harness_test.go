package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/transforms/golden"
)

// TestMain lets the test binary be the command: a process of its own has a folder, an environment and limits of its
// own.
func TestMain(m *testing.M) {
	if os.Getenv("REPRISE_COMMAND") != "" {
		limitFiles(os.Getenv("REPRISE_FILE_LIMIT"))
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// scene is a folder in which commands run, with what stands for what in its files and in golden files: $NAME.
type scene struct {
	t    *testing.T
	dir  string
	vars map[string]string
	env  []string
}

func newScene(t *testing.T, vars map[string]string) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), vars: map[string]string{}}
	maps.Copy(s.vars, vars)
	s.vars["DIR"] = s.dir
	return s
}

// write puts a file there, with the variables replaced.
func (s *scene) write(name, text string) {
	s.t.Helper()
	text = os.Expand(text, func(v string) string {
		value, ok := s.vars[v]
		if !ok {
			s.t.Fatalf("%s: no variable %s", name, v)
		}
		return value
	})
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

func (s *scene) command(ctx context.Context, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Dir = s.dir
	cmd.Env = append(append(os.Environ(), "REPRISE_COMMAND=1"), s.env...)
	out, errs := &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	return cmd, out, errs
}

// run runs a command to its end, which must come within a minute.
func (s *scene) run(args ...string) result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd, out, errs := s.command(ctx, args...)
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		s.t.Fatalf("reprise %s: %v %v\n%s%s", strings.Join(args, " "), err, ctx.Err(), out, errs)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// want runs a command that must end with a code.
func (s *scene) want(code int, args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != code {
		s.t.Errorf("reprise %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	return r
}

// What differs between two runs of one command.
var varying = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{8}-\d{6}-[0-9a-f]{8}`), "RUN"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`(?m)^time=.*\n`), ""},
	{regexp.MustCompile(`the cluster has [^\[]*`), "the cluster has ... "},
	{regexp.MustCompile(`in [0-9.]+m?s, [0-9,]+ rows/s`), "in TIME, N rows/s"},
	{regexp.MustCompile(`takes about \S+ at [0-9,]+ rows/s`), "takes about TIME at N rows/s"},
	{regexp.MustCompile(`(127\.0\.0\.1:)\d+(->)`), "${1}PORT$2"},
}

// neutral is a text without what differs between two runs.
func (s *scene) neutral(text string) string {
	names := slices.SortedFunc(maps.Keys(s.vars), func(a, b string) int { return len(s.vars[b]) - len(s.vars[a]) })
	for _, name := range names {
		text = strings.ReplaceAll(text, s.vars[name], "$"+name)
	}
	for _, v := range varying {
		text = v.what.ReplaceAllString(text, v.with)
	}
	return text
}

// golden compares a text with the file testdata/NAME.
func (s *scene) golden(name, got string) {
	s.t.Helper()
	golden.Compare(s.t, "testdata/"+name, s.neutral(got))
}

// files are the files in the folder with their content, those of the journal, and of what SQLite keeps beside a
// catalog, by name alone.
func (s *scene) files() map[string]string {
	s.t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(s.dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasSuffix(path, "-wal") || strings.HasSuffix(path, "-shm") {
			return nil // they come and go with whoever has the database open
		}
		text, err := os.ReadFile(filepath.Join(s.dir, path))
		if strings.HasPrefix(path, ".reprise/") {
			text = nil
		}
		found[path] = string(text)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// lines are the lines of all files that a pattern names.
func (s *scene) lines(pattern string) []string {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, pattern))
	if err != nil {
		s.t.Fatal(err)
	}
	var lines []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")...)
	}
	slices.Sort(lines)
	return lines
}

// states are the states of the runs in the journal, the latest first.
func (s *scene) states() (states []journal.State) {
	s.t.Helper()
	j, err := journal.Open(s.t.Context(), journal.Config{SQLite: filepath.Join(s.dir, ".reprise/journal.db")})
	if err != nil {
		s.t.Fatal(err)
	}
	defer j.Close()
	runs, err := j.List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range runs {
		states = append(states, r.State)
	}
	return states
}

// report is what a run with --report report.json wrote.
func (s *scene) report() (r flow.Report) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "report.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		s.t.Fatal(err)
	}
	return r
}
