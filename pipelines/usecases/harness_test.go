// Package usecases_test proves the use cases on real servers: each test follows its page, command by command, while a
// writer keeps creating, updating and deleting assets. It then compares what other programs find in the targets with a
// model of what must be there. All tests share this package, since each further test binary takes longer to link than
// the commands of a page take to run.
package usecases_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/cassandraio"
	"reprise/io/corpusio"
	"reprise/io/journal"
	"reprise/runners/cli"
	"reprise/runners/corpus"
	"reprise/runners/launch"
	"reprise/runners/services"
	_ "reprise/runners/systems"
)

const (
	rows = 2000 // of the corpus
	rate = 500  // rows a second of a run, so that production changes some before and some after they are read
)

// TestMain lets the test binary be the commands that pages tell of: reprise, and a cqlsh that executes what follows -e.
func TestMain(m *testing.M) {
	switch os.Getenv("USECASES_COMMAND") {
	case "reprise":
		os.Exit(cli.Main(os.Args[1:]))
	case "cqlsh":
		os.Exit(cqlsh(os.Args[1:]))
	}
	launch.Init(os.Args[1:]) // corpora are loaded by runs in this process
	os.Exit(m.Run())
}

// cqlsh is `cqlsh -e STATEMENTS`.
func cqlsh(args []string) int {
	if len(args) != 2 || args[0] != "-e" {
		fmt.Fprintf(os.Stderr, "cqlsh -e STATEMENTS, not %q\n", args)
		return 2
	}
	c := cassandraio.Connection{Hosts: []string{os.Getenv("USECASES_CASSANDRA")}}
	if err := cassandraio.Execute(context.Background(), c, cassandraio.Statements(args[1])...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// usecase is one page with a keyspace and indices of its own. Its commands run in a copy of its folder.
type usecase struct {
	*live
	t         *testing.T
	dir       string
	cassandra string
	search    string // its prefix of names is that of the page's: asset-search
	names     *strings.Replacer
	left      []string // the page's commands that have not been run
}

// loading is held while a corpus is loaded: a process makes one run at a time.
var loading sync.Mutex

// begin makes the corpus and the folder. The job files run with the test's servers and names, at the test's rate.
func begin(t *testing.T, page string, needs ...services.Service) *usecase {
	t.Helper()
	t.Parallel()
	c := &usecase{t: t, dir: filepath.Join(t.TempDir(), page), cassandra: services.Need(t, services.Cassandra)}
	name := services.Name(t)
	replace := []string{"asset-search", name + "-search", "asset-events", name + "-events", "media", name,
		"[127.0.0.1]", `["` + c.cassandra + `"]`}
	for _, s := range needs {
		addr := services.Need(t, s)
		_, port, _ := net.SplitHostPort(addr)
		n, _ := strconv.Atoi(port)
		replace = append(replace, fmt.Sprintf("127.0.0.1:%d", n-10_000), addr)
		if s == services.Elasticsearch {
			c.search = "http://" + addr + "/" + name + "-search"
		}
	}
	c.names = strings.NewReplacer(replace...)

	loading.Lock()
	_, err := corpus.Corpus{Connection: cassandraio.Connection{Hosts: []string{c.cassandra}}, Keyspace: name,
		Source:  corpusio.SourceConfig{Rows: rows},
		Journal: filepath.Join(c.dir, "load.db")}.Load(t.Context())
	loading.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	c.live = newLive(t, connect(t, c.cassandra), name, 1)
	c.files()
	c.left = steps(t, page)
	return c
}

func connect(t *testing.T, addr string) *gocql.Session {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	cluster := gocql.NewCluster(host)
	cluster.Port, _ = strconv.Atoi(port)
	cluster.ProtoVersion, cluster.Timeout, cluster.ConnectTimeout, cluster.DisableInitialHostLookup = 4, 30*time.Second,
		30*time.Second, true
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

// files copies the folders of all use cases, and puts the commands beside them.
func (c *usecase) files() {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	base := filepath.Dir(c.dir)
	for _, name := range jobFiles(c.t, "*") {
		text, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		if filepath.Ext(name) == ".yaml" && !strings.Contains(string(text), "\npace:") {
			text = fmt.Appendf(text, "pace: {rates: {source: {records: %d}}}\n", rate)
		}
		if filepath.Ext(name) == ".yaml" && !strings.Contains(string(text), "\nverify:") {
			text = fmt.Appendf(text, "verify: {settle: 1s}\n") // production follows at once
		}
		to := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(c.names.Replace(string(text))), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := os.Mkdir(c.bin(), 0o755); err != nil {
		c.t.Fatal(err)
	}
	for _, command := range []string{"reprise", "cqlsh"} {
		script := fmt.Sprintf("#!/bin/sh\nUSECASES_COMMAND=%s USECASES_CASSANDRA=%s exec %s \"$@\"\n", command,
			c.cassandra, self)
		if err := os.WriteFile(filepath.Join(c.bin(), command), []byte(script), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
}

// bin is the folder of the commands.
func (c *usecase) bin() string { return filepath.Join(filepath.Dir(c.dir), "bin") }

// jobFiles are the job files and what belongs to them, in the folders whose names match.
func jobFiles(t *testing.T, folders string) (all []string) {
	t.Helper()
	for _, kind := range []string{"*.yaml", "*.json"} {
		found, err := filepath.Glob(filepath.Join(folders, kind))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		t.Fatalf("there are no job files in %s", folders)
	}
	return all
}

// until runs the page's commands up to the next one that begins with a text.
func (c *usecase) until(prefix string) {
	c.t.Helper()
	for len(c.left) > 0 && !strings.HasPrefix(c.left[0], prefix) {
		c.next()
	}
	if len(c.left) == 0 {
		c.t.Fatalf("the page has no further command %q", prefix)
	}
}

// rest runs the page's other commands.
func (c *usecase) rest() {
	c.t.Helper()
	for len(c.left) > 0 {
		c.next()
	}
}

// next runs the page's next command and gives what it prints.
func (c *usecase) next() string {
	c.t.Helper()
	command := c.left[0]
	c.left = c.left[1:]
	return c.run(command)
}

// stopped runs the page's next command, which begins a run, stops it once it has read something, and lets it go on.
func (c *usecase) stopped() {
	c.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		command := c.left[0]
		if out, err := c.try(command + "; test $? = 130"); err != nil {
			c.t.Errorf("%s does not stop: %v\n%s", command, err, out)
		}
	}()
	for c.hasRead() == 0 {
		select {
		case <-ended:
			c.t.Fatal("the run ends before it can be stopped")
		case <-time.After(50 * time.Millisecond):
		}
	}
	c.run("reprise stop last")
	<-ended
	c.left = c.left[1:]
	c.run("reprise resume last")
}

// hasRead is how many rows the last run has read.
func (c *usecase) hasRead() (n int64) {
	c.t.Helper()
	file := filepath.Join(c.dir, ".reprise", "journal.db")
	if _, err := os.Stat(file); err != nil {
		return 0
	}
	j, err := journal.Open(c.t.Context(), journal.Config{SQLite: file})
	if err != nil {
		c.t.Fatal(err)
	}
	defer j.Close()
	runs, err := j.List(c.t.Context())
	if err != nil || len(runs) == 0 {
		return 0
	}
	beats, err := j.Beats(c.t.Context(), runs[0].ID)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, b := range beats {
		n += b.Systems[journal.Source].Records
	}
	return n
}

// run runs a command, which must succeed.
func (c *usecase) run(command string) string {
	c.t.Helper()
	out, err := c.try(command)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func (c *usecase) try(command string) (string, error) {
	began := time.Now()
	out, err := c.command(command)
	c.t.Logf("%s: %s", command, time.Since(began).Round(10*time.Millisecond))
	return out, err
}

// command is try without telling of it.
func (c *usecase) command(command string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), "bash", "-c", c.names.Replace(command))
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "PATH="+c.bin()+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// steps are the commands under Steps of a page.
func steps(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(page, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Steps\n")
	section, _, _ = strings.Cut(section, "\n## ")
	all := commands(section)
	if !found || len(all) == 0 {
		t.Fatalf("%s has no steps", page)
	}
	return all
}

// commands are the lines of a text that are set off as code.
func commands(text string) (all []string) {
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			all = append(all, strings.TrimSpace(command))
		}
	}
	return all
}
