// Command bench measures Reprise against loops written by hand with the same drivers, in one run and on the same data,
// and prints the report in figures.md. Both sides take turns, so that what else the machine does meets both. It needs
// bin/reprise and the local servers, and leaves nothing behind but the corpora.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	_ "reprise/runners/systems"
)

// bench is the run of this program.
type bench struct {
	Large         int64    `default:"2000000" help:"Rows of the large corpus; 0 leaves it out."`
	Rounds        int      `default:"3" help:"Turns of each side."`
	Parts         []string `default:"memory,read,search,lake,publish,verify,reverse,purge,coder,steps,pace" enum:"memory,read,search,lake,publish,verify,reverse,purge,coder,steps,pace" help:"What is measured."`
	Cassandra     string   `default:"127.0.0.1:9042" help:"Cassandra, for the corpora."`
	Elasticsearch string   `default:"http://127.0.0.1:9200" help:"Elasticsearch."`
	Kafka         string   `default:"127.0.0.1:9092" help:"Kafka."`

	dir    string // for jobs and tables, deleted at the end
	report report
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == asSteps {
		if err := beSteps(ctx, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	b := &bench{}
	kong.Parse(b, kong.Description("Measure Reprise against loops written by hand. Run it from the project's folder "+
		"after make build."))
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parts are in the order in which they must run: memory comes while this process is still small, since Linux starts the
// peak of a child's memory with that of its parent.
var parts = []struct {
	name string
	run  func(*bench, context.Context) error
}{{"memory", (*bench).memory}, {"read", (*bench).read}, {"search", (*bench).search}, {"lake", (*bench).lake},
	{"publish", (*bench).publish}, {"verify", (*bench).verify}, {"reverse", (*bench).reverse},
	{"purge", (*bench).purge}, {"coder", (*bench).coder}, {"steps", (*bench).steps}, {"pace", (*bench).pace}}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "reprise-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := b.load(ctx); err != nil {
		return err
	}
	for _, p := range parts {
		if !slices.Contains(b.Parts, p.name) {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	b.report.print(os.Stdout)
	return nil
}

// rows is how many the corpora have that most parts use; that of make run is one of them. few has the one of parts that
// write much for each row.
const (
	rows = 200_000
	few  = 40_000
)

// The keyspaces of the corpora.
const (
	skewed = "media"
	even   = "media_even"
	large  = "media_large"
	small  = "media_small"
)

// load loads the corpora, each where it is not there yet.
func (b *bench) load(ctx context.Context) error {
	type corpus struct {
		keyspace, layout string
		size             int64
	}
	measured := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(name string) bool { return slices.Contains(b.Parts, name) })
	}
	var corpora []corpus
	if measured("memory", "read", "search", "lake", "publish", "coder", "steps", "pace") {
		corpora = append(corpora, corpus{skewed, "skewed", rows})
	}
	if measured("verify", "reverse", "purge") {
		corpora = append(corpora, corpus{small, "skewed", few})
	}
	if measured("memory") {
		corpora = append(corpora, corpus{even, "even", rows})
	}
	if b.Large > 0 && slices.ContainsFunc([]string{"memory", "search", "lake", "publish"},
		func(part string) bool { return slices.Contains(b.Parts, part) }) {
		corpora = append(corpora, corpus{large, "skewed", b.Large})
	}
	for _, c := range corpora {
		cmd := exec.CommandContext(ctx, "go", "run", "./runners/corpus/load", "--keyspace", c.keyspace, "--layout",
			c.layout,
			"--rows", strconv.FormatInt(c.size, 10), "--host", b.Cassandra, "--journal",
			filepath.Join(b.dir, "journal.db"))
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("loading %s: %w", c.keyspace, err)
		}
	}
	return nil
}

// eachSize measures the small corpus in all rounds, and the large one once.
func (b *bench) eachSize(measure func(keyspace string, rounds int) error) error {
	err := measure(skewed, b.Rounds)
	if err == nil && b.Large > 0 {
		err = measure(large, 1)
	}
	return err
}

// say tells on standard error what goes on.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, strings.TrimRight(format, "\n")+"\n", args...)
}
