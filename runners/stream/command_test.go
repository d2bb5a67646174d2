package stream

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/flow"
)

var (
	kills = flag.Int("kills", 10, "kills of each run that is killed")
	seed  = flag.Uint64("seed", 0, "of events and moments; 0: another one each time")
)

var command string // the built reprise

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8") // the tests mostly wait
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "stream")
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

// draws gives the random numbers of a test.
func draws(t *testing.T, stream uint64) *rand.Rand {
	t.Logf("-seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, stream))
}

// place is a folder with a job, its journal and what its runs print.
type place struct {
	t   *testing.T
	dir string
}

// newPlace writes the job, to which a journal and a queue of dead letters are added.
func newPlace(t *testing.T, text string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir()}
	p.job(text)
	t.Cleanup(func() {
		if t.Failed() {
			name := fmt.Sprintf("reprise-%s-%d", filepath.Base(t.Name()), time.Now().Unix())
			kept := filepath.Join(os.TempDir(), name)
			t.Logf("see %s: %v", kept, os.CopyFS(kept, os.DirFS(p.dir)))
		}
	})
	return p
}

func (p *place) job(text string) {
	p.t.Helper()
	text += "\ndead_letters: {files: {path: dead}}\njournal: {sqlite: journal.db}\n"
	if err := os.WriteFile(filepath.Join(p.dir, "job.yaml"), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// child is a command under way.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed then
}

// start starts reprise in the background; what it prints goes to a file.
func (p *place) start(args ...string) *child {
	p.t.Helper()
	c := &child{t: p.t, cmd: exec.Command(command, args...), ended: make(chan struct{})}
	log, err := os.CreateTemp(p.dir, "reprise-*.log")
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	c.log, c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = log.Name(), p.dir, log, log
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		c.cmd.Wait()
		close(c.ended)
	}()
	p.t.Cleanup(func() {
		c.cmd.Process.Kill()
		<-c.ended
	})
	return c
}

// says is what the command has printed.
func (c *child) says() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// kill ends the command as a crash does; it must not have ended by itself.
func (c *child) kill() {
	c.t.Helper()
	c.cmd.Process.Kill()
	<-c.ended
	if c.cmd.ProcessState.Exited() {
		c.t.Fatalf("%v has ended by itself: %v\n%s", c.cmd.Args[1:], c.cmd.ProcessState, c.says())
	}
}

// end waits for the end of the command, which must be that with an exit code, and gives what it said.
func (c *child) end(code int) string {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("%v does not end\n%s", c.cmd.Args[1:], c.says())
	}
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Fatalf("%v: exit code %d, want %d\n%s", c.cmd.Args[1:], got, code, c.says())
	}
	return c.says()
}

// freeze stops the process, but not while it has the lock of the journal's file, which nobody else could take then.
func (c *child) freeze(p *place) {
	c.t.Helper()
	for {
		c.signal(syscall.SIGSTOP)
		c.t.Helper()
		await(c.t, "a frozen process", nil, func() bool {
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.cmd.Process.Pid))
			return err == nil && !slices.ContainsFunc(threads, func(file string) bool {
				text, err := os.ReadFile(file)
				_, state, _ := bytes.Cut(text, []byte(") "))
				return err == nil && !bytes.HasPrefix(state, []byte("T"))
			})
		})
		if p.unlocked() {
			return
		}
		c.signal(syscall.SIGCONT)
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// await waits until something has come about. None of some commands may end before.
func await(t *testing.T, what string, alive []*child, such func() bool) {
	t.Helper()
	for began := time.Now(); !such(); time.Sleep(50 * time.Millisecond) {
		for _, c := range alive {
			select {
			case <-c.ended:
				t.Fatalf("%v ends before %s: %v\n%s", c.cmd.Args[1:], what, c.cmd.ProcessState, c.says())
			default:
			}
		}
		if time.Since(began) > 2*time.Minute {
			for _, c := range alive {
				t.Logf("%v: %s", c.cmd.Args[1:], c.says())
			}
			t.Fatalf("there is never %s", what)
		}
	}
}

// read is how many rows of the source all sinks have finished; 0 where there is no run yet.
func (p *place) read() (least int64) {
	p.t.Helper()
	finished := map[string]int64{}
	p.inJournal(func(j journal.Journal, run string) {
		for d, err := range j.Finished(p.t.Context(), run) {
			if err != nil {
				p.t.Fatal(err)
			}
			finished[d.Sink] += d.Sum.Read
		}
	})
	for _, n := range finished {
		if least == 0 || n < least {
			least = n
		}
	}
	return least
}

func (p *place) inJournal(do func(j journal.Journal, run string)) {
	p.t.Helper()
	file := filepath.Join(p.dir, "journal.db")
	if _, err := os.Stat(file); err != nil {
		return
	}
	j, err := journal.Open(p.t.Context(), journal.Config{SQLite: file})
	if err != nil {
		p.t.Fatal(err)
	}
	defer j.Close()
	all, err := j.List(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	if len(all) > 1 {
		p.t.Fatalf("there are %d runs: %v", len(all), all)
	}
	if len(all) == 1 {
		do(j, all[0].ID)
	}
}

// status is what the command says of the run.
type status struct {
	flow.Report
	Waiting string `json:"waiting"`
	Behind  *struct {
		Records int64 `json:"records"`
	} `json:"behind"`
	Events []struct{ Kind, Text string } `json:"events"`
}

func (p *place) status() (s status) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.run("status", "last", "--journal", "journal.db", "--json")), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// run runs reprise to its good end and gives what it printed.
func (p *place) run(args ...string) string {
	p.t.Helper()
	cmd := exec.Command(command, args...)
	var out, messages bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, &out, &messages
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("%v: %v\n%s%s", args, err, &out, &messages)
	}
	return out.String()
}

func (p *place) stop() { p.t.Helper(); p.run("stop", "last", "--journal", "journal.db") }

// caughtUp waits until nothing that has come is unfinished, by the run's own word.
func (p *place) caughtUp(alive ...*child) {
	p.t.Helper()
	await(p.t, "an end of what has come", alive, func() bool {
		s := p.status()
		return s.Behind != nil && s.Behind.Records == 0
	})
}

// balanced checks that each message of the topic is in the sums of each sink once.
func (p *place) balanced(total int64) status {
	p.t.Helper()
	s := p.status()
	if len(s.Faults) > 0 || s.Read != total {
		p.t.Errorf("read %d of %d messages; faults: %s", s.Read, total, strings.Join(s.Faults, "; "))
	}
	for name, sink := range s.Sinks {
		if sink.Read != total || sink.Read+sink.Made != sink.Outcomes.Total() {
			p.t.Errorf("sink %s, of %d messages: %+v", name, total, sink)
		}
	}
	return s
}
