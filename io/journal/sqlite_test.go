package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/transforms/fail"
)

// TestMain lets the test binary be a second process that writes a journal until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("JOURNAL_WRITER"); path != "" {
		recordForEver(path, os.Getenv("JOURNAL_SINK"))
	}
	os.Exit(m.Run())
}

// recordForEver records one step after the other, and prints how many are in the journal.
func recordForEver(path, sink string) {
	ctx := context.Background()
	if size, err := strconv.ParseUint(os.Getenv("JOURNAL_LIMIT"), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size}); err != nil {
			panic(err)
		}
	}
	j, err := journal.Open(ctx, journal.Config{SQLite: path})
	for n := uint32(0); err == nil; n++ {
		if err = j.Record(ctx, "r1", 1, step(sink, n)); err == nil {
			fmt.Println(n + 1)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// step is what recordForEver records: each one carries on with p and begins another interval of q.
func step(sink string, n uint32) journal.Batch {
	at := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	return journal.Batch{
		Done:    []journal.Done{done(sink, "p", at(n), at(n+1), 1), done(sink, "q", at(2*n), at(2*n+1), 1)},
		Parts:   []journal.Part{{Sink: sink, Body: at(n)}},
		Letters: []journal.Letter{{ID: fmt.Sprintf("%s%09d", sink, n), Sink: sink}},
	}
}

// checkSteps checks that the journal holds the first steps of a sink whole, and tells how many.
func checkSteps(t *testing.T, j journal.Journal, sink string) (n uint32) {
	t.Helper()
	var cut uint32
	for d, err := range j.Finished(t.Context(), "r1") {
		switch {
		case err != nil:
			t.Fatal(err)
		case d.Sink != sink:
		case d.Partition == "q":
			cut++
		case n != 0 || binary.BigEndian.Uint32(d.Start) != 0 || d.Sum.Read != int64(binary.BigEndian.Uint32(d.End)):
			t.Errorf("%s: a gap before %+v", sink, d)
		default:
			n = binary.BigEndian.Uint32(d.End)
		}
	}
	parts, err := j.Parts(t.Context(), "r1", sink)
	for i, p := range parts {
		if binary.BigEndian.Uint32(p) != uint32(i) {
			t.Errorf("%s: part %d is %x", sink, i, p)
		}
	}
	letters := all(t, j.Letters(t.Context(), "r1", journal.LetterFilter{Sinks: []string{sink}}))
	if err != nil || cut != n || len(parts) != int(n) || len(letters) != int(n) {
		t.Errorf("%s: %d steps in p, %d in q, %d parts, %d letters, %v", sink, n, cut, len(parts), len(letters), err)
	}
	return n
}

func open(t testing.TB, path string) journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), journal.Config{SQLite: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// openRun opens a journal with run r1 in its first attempt.
func openRun(t *testing.T, path string) journal.Journal {
	t.Helper()
	j := open(t, path)
	if err := j.Begin(t.Context(), journal.Run{ID: "r1", JobFile: []byte("{}"), Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Attempt(t.Context(), "r1"); err != nil {
		t.Fatal(err)
	}
	return j
}

func TestSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a folder %41", "journal.db")
	suite(t, func(t testing.TB) journal.Journal { return open(t, path) })
}

func TestBadJournals(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	newer := filepath.Join(dir, "newer.db")
	open(t, newer).Close()
	execute(t, newer, "PRAGMA user_version = 99")
	rubbish := filepath.Join(dir, "rubbish.db")
	if err := os.WriteFile(rubbish, bytes.Repeat([]byte("no journal "), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]string{newer: "journal.newer", rubbish: "journal.damaged", dir: "journal.not_writable", filepath.Join(rubbish, "x"): "journal.not_writable"} {
		if _, err := journal.Open(ctx, journal.Config{SQLite: path}); fail.CodeOf(err) != code || fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("%s: want %s: %v", path, code, err)
		}
	}
}

func TestDamagedJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	j := openRun(t, path)
	for n := range uint32(100) {
		if err := j.Record(t.Context(), "r1", 1, step("s", n)); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file[8192:] { // behind the list of tables
		file[8192+i] = 0xff
	}
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	j, err = journal.Open(t.Context(), journal.Config{SQLite: path})
	if err == nil {
		defer j.Close()
		err = j.Record(t.Context(), "r1", 1, step("s", 100))
	}
	checkCode(t, err, "journal.damaged")
}

// TestOlderJournal: the runs of the first version's journals stay.
func TestOlderJournal(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "j.db")
	text, err := os.ReadFile(filepath.Join("testdata", "version1.sql"))
	if err != nil {
		t.Fatal(err)
	}
	execute(t, path, string(text))
	j := open(t, path)
	got, err := j.Get(ctx, "r1")
	if err != nil || got.Job != "backfill" || got.State != journal.Failed || string(got.Report) != "{}" {
		t.Errorf("%+v, %v", got, err)
	}
	if plan := all(t, j.Plan(ctx, "r1")); len(plan) != 2 || plan[1].Partition != "b" {
		t.Errorf("%v", plan)
	}
	if cause, err := j.Failure(ctx, "r1", 0); fail.CodeOf(cause) != "kafka.unreachable" || err != nil {
		t.Errorf("%v, %v", cause, err)
	}
	if n, err := j.Attempt(ctx, "r1"); n != 1 || err != nil {
		t.Error(n, err)
	}
	if err := j.Record(ctx, "r1", 1, step("s", 0)); err != nil {
		t.Error(err)
	}
}

func execute(t *testing.T, path, script string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
}

// TestKilledWriters has processes write one journal at once, and kills them one after the other while they write: the journal holds all that they
// have told of, and each of their steps whole.
func TestKilledWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	openRun(t, path)
	var writers sync.WaitGroup
	for w := range 3 {
		sink := fmt.Sprint("s", w)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "JOURNAL_WRITER="+path, "JOURNAL_SINK="+sink)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := 50 + rand.IntN(300)
		writers.Go(func() {
			var told int
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if told, err = strconv.Atoi(lines.Text()); told == kill {
					cmd.Process.Kill() // as hard as kill -9
				}
			}
			cmd.Wait()
			if n := checkSteps(t, open(t, path), sink); told < kill || int(n) < told {
				t.Errorf("%s: killed at %d, told of %d, the journal holds %d: %s", sink, kill, told, n, stderr.String())
			}
		})
	}
	writers.Wait()
}

// TestFullDisk has a process write that may not let the file grow: it ends by a clear error, and what was written is there.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	j := openRun(t, path)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JOURNAL_WRITER="+path, "JOURNAL_SINK=s", "JOURNAL_LIMIT=600000")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "[journal.disk]; see that its disk has room") {
		t.Errorf("%v: %s", err, out)
	}
	n := checkSteps(t, j, "s")
	if lines := strings.Split(string(out), "\n"); int(n) != len(lines)-2 || n < 10 {
		t.Errorf("%d steps after %s", n, lines[max(0, len(lines)-3):])
	}
	if err := j.Record(t.Context(), "r1", 1, step("s", n)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestGoneFile: a journal that was deleted under way must not go on as if nothing were missing.
func TestGoneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	j := openRun(t, path)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	checkCode(t, j.Beat(t.Context(), "r1", journal.Beat{}), "journal.gone")
	checkCode(t, j.Record(t.Context(), "r1", 1, step("s", 0)), "journal.gone")
	_, err := j.Control(t.Context(), "r1")
	checkCode(t, err, "journal.gone")
}

// TestManyOpenNewFile has many open a journal at once that is not there yet.
func TestManyOpenNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			j, err := journal.Open(context.Background(), journal.Config{SQLite: path})
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
