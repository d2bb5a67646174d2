package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/journal"
	"reprise/transforms/fail"
)

// redriveJob fails for some assets before all sinks, and for others at one of them; with true it does not.
const redriveJob = `
name: redrive
source: {corpus: {rows: 2000}}
transforms:
  - derive: {n: "%[1]v && (size == null || size %% 7 == 0) ? 0 : 1 / (size %% 7)"}
sinks:
  all: {files: {path: %[2]s/all}}
  few:
    transforms: [{derive: {m: "%[1]v && (size == null || size %% 5 == 0) ? 0 : 1 / (size %% 5)"}}]
    files: {path: %[2]s/few}
dead_letters: {%[3]s}
`

const filesQueue = "files: {path: out/dead}"

// newRedrive has run the job that fails, and holds the job that does not. want is what that would have written by
// itself.
func newRedrive(t *testing.T, queue string) (s *scene, want map[string][]string) {
	s = newScene(t, nil)
	s.write("bad.yaml", fmt.Sprintf(redriveJob, false, "out", queue))
	s.write("good.yaml", fmt.Sprintf(redriveJob, true, "out", queue))
	s.write("undisturbed.yaml", fmt.Sprintf(redriveJob, true, "want", queue))
	s.want(fail.ExitDone, "run", "undisturbed.yaml")
	s.want(fail.ExitDone, "run", "bad.yaml")
	return s, s.written("want")
}

// written is what the sinks of the job have written, whichever run it was.
func (s *scene) written(under string) map[string][]string {
	s.t.Helper()
	got := map[string][]string{}
	for _, sink := range []string{"all", "few"} {
		got[sink] = slices.Compact(strings.Split(s.neutral(strings.Join(s.lines(under+"/"+sink+"/*.jsonl"), "\n")),
			"\n"))
	}
	return got
}

// first is the run whose letters are sent, and letters counts its letters by state and by how often they were sent
// again; by "own" those of redrives that are not returned.
func (s *scene) letters() (first string, count map[string]int) {
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
	count = map[string]int{}
	for _, r := range runs {
		if r.Parent == "" {
			if first != "" {
				continue
			}
			first = r.ID
		}
		for l, err := range j.Letters(s.t.Context(), r.ID, journal.LetterFilter{}) {
			if err != nil {
				s.t.Fatal(err)
			}
			switch {
			case r.Parent == "":
				count[fmt.Sprintf("%s %d", l.State, l.Redrives)]++
			case l.State != journal.Returned:
				count["own"]++
			}
		}
	}
	return first, count
}

func (s *scene) wantLetters(want map[string]int) {
	s.t.Helper()
	if _, got := s.letters(); !maps.Equal(got, want) {
		s.t.Errorf("letters are %v, want %v", got, want)
	}
}

// TestRedrive sends dead letters again: by the same job in vain, by a mended one with success, and then there are none.
func TestRedrive(t *testing.T) {
	t.Parallel()
	s, want := newRedrive(t, filesQueue)
	run, count := s.letters()
	n := count["waits 0"]
	if n < 500 || len(count) != 1 {
		t.Fatalf("letters %v", count)
	}
	before := s.files()
	r := s.want(fail.ExitDone, "redrive", run, "--dry-run")
	s.golden("redrive-dry.golden", r.out+r.err)
	if diff := cmp.Diff(before, s.files()); diff != "" {
		t.Errorf("a dry run writes: %s", diff)
	}
	r = s.want(fail.ExitDone, "redrive", run)
	s.golden("redrive-again.golden", r.out+r.err)
	s.wantLetters(map[string]int{"waits 1": n})

	r = s.want(fail.ExitDone, "redrive", run, "--job", "good.yaml", "--rate", "100000", "--report", "report.json")
	s.golden("redrive.golden", r.out+r.err)
	if report := s.report(); report.DeadLetters != 0 || report.Read == 0 {
		t.Errorf("report %+v", report)
	}
	s.wantLetters(map[string]int{"sent 2": n})
	if diff := cmp.Diff(want, s.written("out")); diff != "" {
		t.Errorf("the sinks differ from those of a run that never failed: %.2000s", diff)
	}

	before = s.files()
	r = s.want(fail.ExitDone, "redrive", run, "--job", "good.yaml")
	if !strings.Contains(r.out, "nothing to send") {
		t.Error(r.out)
	}
	if diff := cmp.Diff(before, s.files()); diff != "" {
		t.Errorf("the second time it writes: %s", diff)
	}
}

// TestRedriveKept sends the records again that the queue holds, from where they failed.
func TestRedriveKept(t *testing.T) {
	t.Parallel()
	for name, queue := range map[string]string{
		"lines": filesQueue, "gzip": "files: {path: out/dead, compress: gzip}",
		"parquet": "files: {path: out/dead, format: parquet}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, want := newRedrive(t, queue)
			run, count := s.letters()
			n := count["waits 0"]
			s.want(fail.ExitDone, "redrive", run, "--kept", "--max", "1", "--sink", "few")
			_, count = s.letters()
			parked := count["parked 1"]
			if parked == 0 || parked+count["waits 0"] != n || len(count) != 2 {
				t.Fatalf("letters %v of %d", count, n)
			}
			s.want(fail.ExitDone, "redrive", run, "--kept", "--job", "good.yaml")
			s.wantLetters(map[string]int{"parked 1": parked, "sent 1": n - parked})
			s.want(fail.ExitDone, "redrive", run, "--kept", "--job", "good.yaml", "--state", "parked")
			s.wantLetters(map[string]int{"sent 2": parked, "sent 1": n - parked})
			if diff := cmp.Diff(want, s.written("out")); diff != "" {
				t.Errorf("the sinks differ from those of a run that never failed: %.2000s", diff)
			}
		})
	}
}

// TestRedriveChooses sends the letters alone that are named, and parks those that fail too often.
func TestRedriveChooses(t *testing.T) {
	t.Parallel()
	s, _ := newRedrive(t, filesQueue)
	run, count := s.letters()
	n := count["waits 0"]
	var one letter
	listed := s.want(fail.ExitDone, "dead", "list", run, "--json", "--limit", "1").out
	if err := json.Unmarshal([]byte(listed), &one); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s.want(fail.ExitDone, "redrive", run, "--max", "2", "--letter", one.ID[:12])
		s.wantLetters([]map[string]int{{"waits 0": n - 1, "waits 1": 1}, {"waits 0": n - 1, "parked 2": 1}}[i])
	}
	for _, filter := range [][]string{{"--code", "no.such"}, {"--step", "sink none"}, {"--since", "1ns"},
		{"--state", "sent"}, {"--letter", "zz"}} {
		if r := s.want(fail.ExitDone, append([]string{"redrive", run}, filter...)...); !strings.Contains(r.out,
			"nothing to send") {
			t.Errorf("%q: %s", filter, r.out)
		}
	}
	s.want(fail.ExitDone, "redrive", run, "--job", "good.yaml")
	s.wantLetters(map[string]int{"sent 1": n - 1, "parked 2": 1})
	s.want(fail.ExitDone, "redrive", run, "--job", "good.yaml", "--letter", one.ID)
	s.wantLetters(map[string]int{"sent 1": n - 1, "sent 3": 1})
}

// TestRedriveGone does not bring back what is not at the source any more, but for those who insist.
func TestRedriveGone(t *testing.T) {
	t.Parallel()
	s, want := newRedrive(t, filesQueue)
	run, count := s.letters()
	n := count["waits 0"]
	s.write("fewer.yaml", strings.Replace(fmt.Sprintf(redriveJob, true, "out", filesQueue), "2000", "1500", 1))
	s.want(fail.ExitDone, "redrive", run, "--job", "fewer.yaml")
	_, count = s.letters()
	gone := count["gone 0"]
	if gone == 0 || gone+count["sent 1"] != n {
		t.Fatalf("letters %v of %d", count, n)
	}
	if got := s.written("out"); len(got["all"]) >= len(want["all"]) {
		t.Errorf("%d lines, of %d: what is gone is back", len(got["all"]), len(want["all"]))
	}
	s.want(fail.ExitDone, "redrive", run, "--job", "good.yaml", "--kept", "--letter", "0,1,2,3,4,5,6,7,8,9,a,b,c,d,e,f")
	s.wantLetters(map[string]int{"sent 1": n})
	if diff := cmp.Diff(want, s.written("out")); diff != "" {
		t.Errorf("the sinks differ from those of a run that never failed: %.2000s", diff)
	}
}

// Letters belong to the run that they come from: a redrive, and a verification, in between do not change which run the
// last one is.
func TestTheLastRunWithLettersIsNoRedrive(t *testing.T) {
	t.Parallel()
	s, want := newRedrive(t, filesQueue)
	run, count := s.letters()
	n := count["waits 0"]
	if r := s.want(fail.ExitDone, "redrive", "last", "--dry-run"); !strings.HasSuffix(r.err,
		"last is run "+run+" of redrive\n") {
		t.Errorf("it says %q", r.err)
	}
	s.want(fail.ExitDone, "redrive", "last")
	s.wantLetters(map[string]int{"waits 1": n})
	for _, args := range [][]string{{"dead", "stats", "last"}, {"dead", "list", "last", "--limit", "0"}} {
		if r := s.want(fail.ExitDone, args...); !strings.Contains(r.err, "last is run "+run) ||
			r.out != s.want(fail.ExitDone, append(args[:2:2], append([]string{run}, args[3:]...)...)...).out {
			t.Errorf("%v: %s", args, r.err)
		}
	}
	r := s.want(fail.ExitDone, "redrive", "last", "--job", "good.yaml")
	if !strings.Contains(r.err, "last is run "+run+" of redrive") || !strings.Contains(r.out, "letters of run "+run) {
		t.Errorf("%s%s", r.out, r.err)
	}
	s.wantLetters(map[string]int{"sent 2": n})
	if diff := cmp.Diff(want, s.written("out")); diff != "" {
		t.Errorf("the sinks differ from those of a run that never failed: %.2000s", diff)
	}
	if r := s.want(fail.ExitDone, "status", "last"); strings.Contains(r.out, "run "+run+" ") ||
		!strings.Contains(r.out, ": done, attempt 1, ") {
		t.Errorf("the status of the last run is %s", r.out)
	}
}

// TestRedriveKilled goes on with a redrive that was killed, by resume.
func TestRedriveKilled(t *testing.T) {
	t.Parallel()
	s, want := newRedrive(t, filesQueue)
	run, count := s.letters()
	n := count["waits 0"]
	cmd, _, _ := s.command(t.Context(), "redrive", run, "--job", "good.yaml", "--rate", "150")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), journal.Config{SQLite: filepath.Join(s.dir, ".reprise/journal.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	redrive := ""
	for done := false; !done; time.Sleep(20 * time.Millisecond) {
		runs, err := j.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if runs[0].Parent != run || runs[0].Attempt == 0 {
			continue
		}
		redrive = runs[0].ID
		for range j.Finished(t.Context(), redrive) {
			done = true
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	s.wantLetters(map[string]int{"waits 0": n})
	s.want(fail.ExitDone, "resume", redrive, "--report", "report.json")
	s.wantLetters(map[string]int{"sent 1": n})
	if report := s.report(); report.Attempt != 2 {
		t.Errorf("report %+v", report)
	}
	if diff := cmp.Diff(want, s.written("out")); diff != "" {
		t.Errorf("the sinks differ from those of a run that never failed: %.2000s", diff)
	}
}

// TestRedriveKeysThatChange finds rows whose keys the transforms have changed.
func TestRedriveKeysThatChange(t *testing.T) {
	t.Parallel()
	const job = `
name: keys
source: {corpus: {rows: 300}}
transforms:
  - filter: size != null
  - derive: {bucket: "'all'"}
  - rename: {id: asset}
  - project: {keep: [asset, size, title], key: [asset]}
sinks:
  all:
    transforms: [{derive: {m: "%[1]v && size %% 5 == 0 ? 0 : 1 / (size %% 5)"}}]
    files: {path: out/all}
`
	s := newScene(t, nil)
	s.write("bad.yaml", fmt.Sprintf(job, false))
	s.write("good.yaml", fmt.Sprintf(job, true))
	s.want(fail.ExitDone, "run", "bad.yaml")
	run, count := s.letters()
	r := s.want(fail.ExitDone, "redrive", run, "--job", "good.yaml")
	if _, got := s.letters(); len(got) != 1 || got["sent 1"] != count["waits 0"] {
		t.Errorf("letters %v, before %v\n%s", got, count, r.out)
	}
}
