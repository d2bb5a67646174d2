// Command load loads the corpus into the local Cassandra of `make run`, where it is not there yet.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"reprise/io/cassandraio"
	"reprise/io/corpusio"
	"reprise/runners/corpus"
	"reprise/runners/launch"
	_ "reprise/runners/systems"
)

func main() {
	launch.Init(os.Args[1:])
	slog.SetDefault(slog.New(launch.NewHandler(os.Stderr, false, false)))
	var args struct {
		Rows     int64  `default:"200000" help:"Number of assets."`
		Keyspace string `default:"media" help:"Keyspace, which is made."`
		Layout   string `default:"skewed" enum:"skewed,even" help:"skewed: one bucket holds half of the assets."`
		Host     string `default:"127.0.0.1:9042" help:"Cassandra."`
		Journal  string `default:"data/journal.db" help:"Journal of the run."`
	}
	kong.Parse(&args, kong.Description("Load the corpus of test assets into a local Cassandra."))
	began := time.Now()
	report, err := corpus.Corpus{
		Connection: cassandraio.Connection{Hosts: []string{args.Host}}, Keyspace: args.Keyspace,
		Source: corpusio.SourceConfig{Rows: args.Rows, Layout: args.Layout}, Journal: args.Journal,
	}.Load(context.Background())
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	case report == nil:
		fmt.Printf("%s.assets holds the corpus of %d assets already\n", args.Keyspace, args.Rows)
	default:
		fmt.Printf("%s.assets: %d records written in %s, deleted assets among them\n", args.Keyspace, report.Read,
			time.Since(began).Round(time.Second))
	}
}
