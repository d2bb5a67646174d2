package journal_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"reprise/io/journal"
)

// TestMain lets the test binary be a second process that writes a journal until it is killed.
func TestMain(m *testing.M) {
	if config := os.Getenv("JOURNAL_WRITER"); config != "" {
		recordForEver(config, os.Getenv("JOURNAL_RUN"), os.Getenv("JOURNAL_SINK"))
	}
	os.Exit(m.Run())
}

// recordForEver records one step after the other, and prints how many are in the journal.
func recordForEver(config, run, sink string) {
	ctx := context.Background()
	var c journal.Config
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err)
	}
	if size, err := strconv.ParseUint(os.Getenv("JOURNAL_LIMIT"), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size}); err != nil {
			panic(err)
		}
	}
	j, err := journal.Open(ctx, c)
	for n := uint32(0); err == nil; n++ {
		if err = j.Record(ctx, run, 1, step(sink, n)); err == nil {
			fmt.Println(n + 1)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// writer is such a process, which is to be started.
func writer(t *testing.T, c journal.Config, run, sink string) *exec.Cmd {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JOURNAL_WRITER="+string(config), "JOURNAL_RUN="+run, "JOURNAL_SINK="+sink)
	return cmd
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
func checkSteps(t *testing.T, j journal.Journal, run, sink string) (n uint32) {
	t.Helper()
	var cut uint32
	for d, err := range j.Finished(t.Context(), run) {
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
	parts, err := j.Parts(t.Context(), run, sink)
	for i, p := range parts {
		if binary.BigEndian.Uint32(p) != uint32(i) {
			t.Errorf("%s: part %d is %x", sink, i, p)
		}
	}
	letters := all(t, j.Letters(t.Context(), run, journal.LetterFilter{Sinks: []string{sink}}))
	if err != nil || cut != n || len(parts) != int(n) || len(letters) != int(n) {
		t.Errorf("%s: %d steps in p, %d in q, %d parts, %d letters, %v", sink, n, cut, len(parts), len(letters), err)
	}
	return n
}

// checkKilledWriters has processes write one journal at once, and kills them one after the other while they write: the
// journal holds all that they have told of, and each of their steps whole.
func checkKilledWriters(t *testing.T, c journal.Config) {
	run := attempt(t, open(t, c))
	var writers sync.WaitGroup
	for w := range 3 {
		sink := fmt.Sprint("s", w)
		cmd := writer(t, c, run, sink)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := 20 + rand.IntN(50)
		writers.Go(func() {
			var told int
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if told, err = strconv.Atoi(lines.Text()); told == kill {
					cmd.Process.Kill() // as hard as kill -9
				}
			}
			cmd.Wait()
			if n := checkSteps(t, open(t, c), run, sink); told < kill || int(n) < told {
				t.Errorf("%s: killed at %d, told of %d, the journal holds %d: %s", sink, kill, told, n, stderr.String())
			}
		})
	}
	writers.Wait()
}
