package journal_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/transforms/fail"
)

func sqlite(t testing.TB) journal.Config {
	return journal.Config{SQLite: filepath.Join(t.TempDir(), "a folder %41", "journal.db")}
}

func TestSQLite(t *testing.T) { suite(t, sqlite(t)) }

func BenchmarkSQLite(b *testing.B) { benchmark(b, sqlite(b)) }

func TestBadJournals(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	newer := filepath.Join(dir, "newer.db")
	open(t, journal.Config{SQLite: newer}).Close()
	execute(t, newer, "PRAGMA user_version = 99")
	rubbish := filepath.Join(dir, "rubbish.db")
	if err := os.WriteFile(rubbish, bytes.Repeat([]byte("no journal "), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]string{newer: "journal.newer", rubbish: "journal.damaged",
		dir: "journal.not_writable", filepath.Join(rubbish, "x"): "journal.not_writable"} {
		if _, err := journal.Open(ctx, journal.Config{SQLite: path}); fail.CodeOf(err) != code ||
			fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("%s: want %s: %v", path, code, err)
		}
	}
}

func TestDamagedJournal(t *testing.T) {
	c := sqlite(t)
	j := open(t, c)
	run := attempt(t, j)
	for n := range uint32(100) {
		if err := j.Record(t.Context(), run, 1, step("s", n)); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	file, err := os.ReadFile(c.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file[8192:] { // behind the list of tables
		file[8192+i] = 0xff
	}
	if err := os.WriteFile(c.SQLite, file, 0o644); err != nil {
		t.Fatal(err)
	}
	j, err = journal.Open(t.Context(), c)
	if err == nil {
		defer j.Close()
		err = j.Record(t.Context(), run, 1, step("s", 100))
	}
	checkCode(t, err, "journal.damaged")
}

// TestOlderJournal: the runs of the first version's journals stay.
func TestOlderJournal(t *testing.T) {
	ctx := t.Context()
	c := sqlite(t)
	if err := os.Mkdir(filepath.Dir(c.SQLite), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("testdata", "version1.sql"))
	if err != nil {
		t.Fatal(err)
	}
	execute(t, c.SQLite, string(text))
	j := open(t, c)
	got, err := j.Get(ctx, "r1")
	if err != nil || got.Job != "backfill" || got.State != journal.Failed || string(got.Report) != "{}" {
		t.Errorf("%+v, %v", got, err)
	}
	if plan := all(t, j.Plan(ctx, "r1")); len(plan) != 2 || plan[1].Partition != "b" {
		t.Errorf("%v", plan)
	}
	if cause, err := j.Failure(ctx, "r1", 0, time.Time{}); fail.CodeOf(cause) != "kafka.unreachable" || err != nil {
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
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk has a process write that may not let the file grow: it ends by a clear error,
// and what was written is there.
func TestFullDisk(t *testing.T) {
	c := sqlite(t)
	j := open(t, c)
	run := attempt(t, j)
	cmd := writer(t, c, run, "s")
	cmd.Env = append(cmd.Env, "JOURNAL_LIMIT=600000")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "[journal.disk]; see that its disk has room") {
		t.Errorf("%v: %s", err, out)
	}
	n := checkSteps(t, j, run, "s")
	if lines := strings.Split(string(out), "\n"); int(n) != len(lines)-2 || n < 10 {
		t.Errorf("%d steps after %s", n, lines[max(0, len(lines)-3):])
	}
	if err := j.Record(t.Context(), run, 1, step("s", n)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestGoneFile: a journal that was deleted under way must not go on as if nothing were missing.
func TestGoneFile(t *testing.T) {
	c := sqlite(t)
	j := open(t, c)
	run := attempt(t, j)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(c.SQLite + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	checkCode(t, j.Beat(t.Context(), "r1", journal.Beat{}), "journal.gone")
	checkCode(t, j.Record(t.Context(), run, 1, step("s", 0)), "journal.gone")
	_, err := j.Control(t.Context(), "r1")
	checkCode(t, err, "journal.gone")
}

// TestManyOpenNewFile has many open a journal at once that is not there yet.
func TestManyOpenNewFile(t *testing.T) {
	c := sqlite(t)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			j, err := journal.Open(context.Background(), c)
			if err != nil {
				t.Error(err)
				return
			}
			defer j.Close()
			if err := j.Begin(context.Background(),
				journal.Run{ID: fmt.Sprint(i), JobFile: []byte("{}"), Started: time.Now()}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if runs, err := open(t, c).List(t.Context()); err != nil || len(runs) != 16 {
		t.Errorf("%d runs, %v", len(runs), err)
	}
}
