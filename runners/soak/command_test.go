package soak

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/runners/launch"
	"reprise/transforms/fail"
)

var (
	kills = flag.Int("kills", 10, "kills of the main job")
	rows  = flag.Int64("rows", 30_000, "rows of the main job")
	seed  = flag.Uint64("seed", 0, "of the settings and moments; 0: another one each time")
)

var command string // the built reprise

func TestMain(m *testing.M) {
	launch.Init(os.Args[1:])
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	command = filepath.Join(dir, "reprise")
	if out, err := exec.Command("go", "build", "-o", command, "reprise/runners/reprise").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// child is a command under way.
type child struct {
	cmd   *exec.Cmd
	log   string
	began time.Time
	ended chan struct{} // closed then
	err   error         // how it ended
}

// start runs reprise in the background; what it prints goes to a file in dir.
func start(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(command, args...), ended: make(chan struct{})}
	log, err := os.CreateTemp(dir, "reprise-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.log, c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = log.Name(), dir, log, log
	c.began = time.Now()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		<-c.ended
	})
	return c
}

// kill ends the command as a crash does. It tells whether the command had not ended by itself.
func (c *child) kill(t *testing.T) bool {
	t.Helper()
	c.cmd.Process.Kill()
	<-c.ended
	if c.cmd.ProcessState.Exited() {
		c.wait(t)
		return false
	}
	return true
}

// until waits until something has come about; the command must not end before.
func (c *child) until(t *testing.T, what string, such func() bool) {
	t.Helper()
	for !such() {
		select {
		case <-c.ended:
			text, _ := os.ReadFile(c.log)
			t.Fatalf("reprise %v ends before %s: %v\n%s", c.cmd.Args[1:], what, c.err, text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// wait waits for the end of the command, which must be a good one.
func (c *child) wait(t *testing.T) {
	t.Helper()
	<-c.ended
	if c.err != nil {
		text, _ := os.ReadFile(c.log)
		t.Fatalf("reprise %v: %v\n%s", c.cmd.Args[1:], c.err, text)
	}
}

// state is what the journal knows of the only run in it.
type state struct {
	journal.RunInfo
	planned  bool
	finished map[string]journal.Sum // by sink; "" is the source
	least    int64                  // rows that the sink with the fewest has finished
	read     int64                  // rows that the workers of the last attempt have read, by their last beats
}

// store is the journal of a run, as somebody sees it who makes none.
type store struct {
	journal.Config
	session journal.Journal // with a keyspace: it stays open
}

// open opens the journal; nil: there is none yet.
func (s *store) open(t *testing.T) (j journal.Journal, done func()) {
	t.Helper()
	if s.session != nil {
		return s.session, func() {}
	}
	config := s.Config
	if config.Cassandra == nil {
		if _, err := os.Stat(config.SQLite); err != nil {
			return nil, nil
		}
	} else {
		found := *config.Cassandra
		found.Replication = nil
		config.Cassandra = &found
	}
	j, err := journal.Open(t.Context(), config)
	if fail.CodeOf(err) == "journal.no_keyspace" {
		return nil, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if config.Cassandra != nil {
		s.session = j
		t.Cleanup(func() { j.Close() })
		return j, func() {}
	}
	return j, func() { j.Close() }
}

// look reads the journal. There need not be one yet, nor a run in it.
func look(t *testing.T, at *store, sinks ...string) (s state) {
	t.Helper()
	ctx := t.Context()
	j, done := at.open(t)
	if j == nil {
		return s
	}
	defer done()
	runs, err := j.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(runs) == 0 {
		return s
	}
	if len(runs) > 1 {
		t.Fatalf("%d runs, want one", len(runs))
	}
	s.RunInfo = runs[0]
	_, err = j.Total(ctx, s.ID)
	if s.planned = err == nil; !s.planned {
		return s
	}
	s.finished = map[string]journal.Sum{}
	for d, err := range j.Finished(ctx, s.ID) {
		if err != nil {
			t.Fatal(err)
		}
		sum := s.finished[d.Sink]
		sum.Add(d.Sum)
		s.finished[d.Sink] = sum
	}
	s.least = s.finished[""].Read
	for _, name := range sinks {
		s.least = min(s.least, s.finished[name].Read)
	}
	beats, err := j.Beats(ctx, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range beats {
		s.read += b.Systems[journal.Source].Records
	}
	return s
}
