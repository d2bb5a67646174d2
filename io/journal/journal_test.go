package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"database/sql"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// TestMain lets the test binary be a second process that writes a journal until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("JOURNAL_WRITER"); path != "" {
		writeForEver(path, os.Getenv("JOURNAL_WORKER"))
	}
	os.Exit(m.Run())
}

func writeForEver(path, worker string) {
	ctx := context.Background()
	if size, err := strconv.ParseUint(os.Getenv("JOURNAL_LIMIT"), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size}); err != nil {
			panic(err)
		}
	}
	j, err := journal.Open(ctx, path)
	for n := int64(1); err == nil; n++ {
		if err = j.Beat(ctx, "r1", worker, journal.Progress{Read: n}); n == 20 {
			fmt.Println("writing")
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func open(t *testing.T, path string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func begin(t *testing.T, j *journal.Journal, id string) journal.Run {
	t.Helper()
	r := journal.Run{ID: id, Job: "backfill", Fingerprint: "f", Started: time.UnixMicro(1_700_000_000_000_001).UTC(), JobFile: []byte(`{"name":"backfill"}`)}
	if err := j.Begin(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRun(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "a folder %41", "journal.db")
	j := open(t, path)
	want := begin(t, j, "r1")

	if _, err := j.Plan(ctx, "r1"); fail.CodeOf(err) != "journal.no_plan" {
		t.Errorf("plan of a run without one: %v", err)
	}
	chunks := [][]connector.Split{{{Partition: "a", Rows: 3}, {Partition: "b", Start: []byte{0}, End: []byte{0xff, 1}}}, {{Partition: "c"}}}
	total := journal.Plan{Splits: 3, Rows: 3, Bytes: 7}
	if err := j.SavePlan(ctx, "r1", slices.Values(chunks), total); err != nil {
		t.Fatal(err)
	}

	again := open(t, path)
	if got, err := again.Plan(ctx, "r1"); err != nil || got != total {
		t.Errorf("plan %v, %v", got, err)
	}
	for n, want := range chunks {
		got, err := again.Chunk(ctx, "r1", n)
		if err != nil || !cmp.Equal(want, got) {
			t.Errorf("chunk %d: %v, %s", n, err, cmp.Diff(want, got))
		}
	}
	if _, err := again.Chunk(ctx, "r1", 2); fail.CodeOf(err) != "journal.no_chunk" {
		t.Errorf("a chunk beyond the plan: %v", err)
	}

	for worker, n := range map[string]int64{"w1": 5, "w2": 7} {
		for range 2 { // a beat replaces the one before
			p := journal.Progress{Read: n, SplitsDone: 1, Outcomes: map[string]record.Counts{"lake": {record.Written: n}}}
			if err := j.Beat(ctx, "r1", worker, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := again.Progress(ctx, "r1")
	if err != nil || p.Read != 12 || p.SplitsDone != 2 || p.Outcomes["lake"][record.Written] != 12 {
		t.Errorf("progress %+v, %v", p, err)
	}

	if err := j.Finish(ctx, "r1", journal.Done, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	got, err := again.Get(ctx, "r1")
	if err != nil || !cmp.Equal(want, got.Run) || got.State != journal.Done || string(got.Report) != "{}" || got.Ended.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
	if runs, err := again.List(ctx); err != nil || len(runs) != 1 {
		t.Errorf("list: %v, %v", runs, err)
	}
}

func TestFailureKeepsClassAndCode(t *testing.T) {
	ctx := t.Context()
	j := open(t, filepath.Join(t.TempDir(), "j.db"))
	begin(t, j, "r1")
	if cause, err := j.Failure(ctx, "r1"); cause != nil || err != nil {
		t.Fatal(cause, err)
	}
	first := fail.Unreachable("kafka.unreachable", "no broker: %w", errors.New("refused")).WithFix("start it")
	for _, err := range []error{fmt.Errorf("sink events: %w", first), errors.New("later")} {
		if err := j.Fail(ctx, "r1", err); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.Failure(ctx, "r1")
	if err != nil {
		t.Fatal(err)
	}
	if fail.CodeOf(got) != "kafka.unreachable" || fail.ExitOf(got) != fail.ExitUnreachable || got.Error() != first.Error() {
		t.Errorf("failure: %v, exit %d", got, fail.ExitOf(got))
	}
}

func TestBadJournals(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	newer := filepath.Join(dir, "newer.db")
	open(t, newer).Close()
	db, err := sql.Open("sqlite", newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	rubbish := filepath.Join(dir, "rubbish.db")
	if err := os.WriteFile(rubbish, bytes.Repeat([]byte("no journal "), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]string{newer: "journal.newer", rubbish: "journal.damaged", dir: "journal.not_writable", filepath.Join(rubbish, "x"): "journal.not_writable"} {
		if _, err := journal.Open(ctx, path); fail.CodeOf(err) != code || fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("%s: want %s: %v", path, code, err)
		}
	}
	j := open(t, filepath.Join(dir, "good.db"))
	if _, err := j.Get(ctx, "nobody"); fail.CodeOf(err) != "journal.no_run" {
		t.Errorf("an unknown run: %v", err)
	}
	if err := j.Finish(ctx, "nobody", journal.Done, nil); err == nil {
		t.Error("an unknown run was finished")
	}
}

// TestManyProcesses has three processes write one journal at once, and kills them: what they wrote is there.
func TestManyProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	j := open(t, path)
	begin(t, j, "r1")
	for w := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "JOURNAL_WRITER="+path, fmt.Sprint("JOURNAL_WORKER=w", w))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := out.Read(make([]byte, 8)); err != nil {
				t.Errorf("writer %d: %v: %s", w, err, stderr.String())
			}
			cmd.Process.Kill() // as hard as kill -9
			cmd.Wait()
			p, err := open(t, path).Progress(context.Background(), "r1")
			if err != nil || p.Read < 20 {
				t.Errorf("after writer %d was killed: %+v, %v", w, p, err)
			}
		}()
	}
}

// TestFullDisk has a process write that may not let the file grow: it ends by a clear error, and what was written is there.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	j := open(t, path)
	begin(t, j, "r1")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JOURNAL_WRITER="+path, "JOURNAL_WORKER=w", "JOURNAL_LIMIT=300000")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "[journal.disk]; see that its disk has room") {
		t.Errorf("%v: %s", err, out)
	}
	if p, err := j.Progress(t.Context(), "r1"); err != nil || p.Read < 20 {
		t.Errorf("after the disk was full: %+v, %v", p, err)
	}
	if err := j.Beat(t.Context(), "r1", "w", journal.Progress{Read: 7}); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestGoneFile: a journal that was deleted under way must not go on as if nothing were missing.
func TestGoneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	j := open(t, path)
	begin(t, j, "r1")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := j.Beat(t.Context(), "r1", "w", journal.Progress{Read: 1}); fail.CodeOf(err) != "journal.gone" {
		t.Errorf("a beat into a deleted file gives %v", err)
	}
}

// TestManyOpenNewFile has many open a journal at once that is not there yet.
func TestManyOpenNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			j, err := journal.Open(context.Background(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer j.Close()
			if err := j.Begin(context.Background(), journal.Run{ID: fmt.Sprint(i), JobFile: []byte("{}"), Started: time.Now()}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if runs, err := open(t, path).List(t.Context()); err != nil || len(runs) != 16 {
		t.Errorf("%d runs, %v", len(runs), err)
	}
}

// TestPlanIsWholeOrNothing: a plan that fails halfway leaves nothing, and one can be stored in its place.
func TestPlanIsWholeOrNothing(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"))
	begin(t, j, "r1")
	ctx, cancel := context.WithCancel(t.Context())
	halfway := func(yield func([]connector.Split) bool) {
		yield([]connector.Split{{Partition: "a"}})
		cancel()
		yield([]connector.Split{{Partition: "b"}})
	}
	if err := j.SavePlan(ctx, "r1", halfway, journal.Plan{Splits: 2}); err == nil {
		t.Error("a cancelled plan was stored")
	}
	if _, err := j.Chunk(t.Context(), "r1", 0); fail.CodeOf(err) != "journal.no_chunk" {
		t.Errorf("a part of a plan that failed: %v", err)
	}
	if _, err := j.Plan(t.Context(), "r1"); fail.CodeOf(err) != "journal.no_plan" {
		t.Errorf("a plan that failed: %v", err)
	}
	if err := j.SavePlan(t.Context(), "r1", slices.Values([][]connector.Split{{{Partition: "a"}}}), journal.Plan{Splits: 1}); err != nil {
		t.Error(err)
	}
	if err := j.SavePlan(t.Context(), "nobody", slices.Values([][]connector.Split{}), journal.Plan{}); fail.CodeOf(err) != "journal.no_run" {
		t.Errorf("a plan for no run: %v", err)
	}
}
