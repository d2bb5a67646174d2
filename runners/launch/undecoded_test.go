package launch_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/cassandraio"
	"reprise/io/journal"
	"reprise/pipelines/redrive"
	"reprise/runners/services"
)

const undecodedJob = `
name: undecoded
source: {%s}
sinks: {lines: {files: {path: %[2]s/lines}}}
dead_letters: {files: {path: %[2]s/dead}}
journal: {sqlite: "%[2]s/journal.db"}
`

// TestRedriveUndecoded sends rows again that the source could not decode: with the settings that were wrong in vain,
// with others with success.
func TestRedriveUndecoded(t *testing.T) {
	rows := []string{`{"id":"a","n":1}`, `{"id":"b","n":5000000000}`, `{"id":"c","n":3}`, `{"id":"b","n":5000000000}`, `{"id":"d","n":6000000000}`}
	for name, source := range map[string]func(t *testing.T, dir string) (bad, good string){
		"files": func(t *testing.T, dir string) (bad, good string) {
			in := filepath.Join(dir, "in.jsonl")
			fileOf(t, in, rows)
			of := "files: {path: " + in + ", key: [id], fields: {id: text, n: %s}}"
			return fmt.Sprintf(of, "int"), fmt.Sprintf(of, "bigint")
		},
		"kafka": func(t *testing.T, dir string) (bad, good string) {
			in, addr, topic := filepath.Join(dir, "in.jsonl"), services.Need(t, services.Kafka), services.Name(t)
			fileOf(t, in, rows)
			complete(t,
				fmt.Sprintf("name: load\nsource: {files: {path: %s, key: [id]}}\nsinks: {k: "+
					"{kafka: {brokers: [\"%s\"], topic: %s, create: {partitions: 2}}}}\n"+
					"journal: {sqlite: \"%s/load.db\"}\n",
					in, addr, topic, dir))
			of := `kafka: {brokers: ["` + addr + `"], topic: ` + topic + ", key: [id], fields: {id: text, n: %s}}"
			return fmt.Sprintf(of, "int"), fmt.Sprintf(of, "bigint")
		},
		"cassandra": func(t *testing.T, dir string) (bad, good string) {
			addr, keyspace := services.Need(t, services.Cassandra), services.Name(t)
			exec := func(cql string, values ...any) {
				t.Helper()
				if err := cassandraio.Execute(context.WithoutCancel(t.Context()),
					cassandraio.Connection{Hosts: []string{addr}}, cassandraio.Statement{CQL: strings.ReplaceAll(cql,
						"KS", keyspace), Values: values}); err != nil {
					t.Fatal(err)
				}
			}
			exec("CREATE KEYSPACE KS WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
			t.Cleanup(func() { exec("DROP KEYSPACE KS") })
			exec("CREATE TABLE KS.pages (day text, id int, title text, PRIMARY KEY (day, id))")
			for i, length := range []int{1, 500, 1, 600, 700} {
				exec("INSERT INTO KS.pages (day, id, title) VALUES (?, ?, ?)", "mon", i, strings.Repeat("x", length))
			}
			of := `cassandra: {connection: {hosts: ["` + addr + `"]}, keyspace: ` + keyspace + ", table: pages, max_row: %s}"
			return fmt.Sprintf(of, "200"), fmt.Sprintf(of, "1MiB")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			bad, good := source(t, dir)
			run, j := complete(t, fmt.Sprintf(undecodedJob, bad, dir))
			if n := len(written(t, dir)); n != 2 {
				t.Fatalf("%d rows were written, want 2", n)
			}
			if diff := cmp.Diff(redrive.Result{Again: 3}, redriven(t, j, run, redrive.Redrive{})); diff != "" {
				t.Fatal(diff)
			}
			if diff := cmp.Diff(redrive.Result{Sent: 3}, redriven(t, j, run, redrive.Redrive{Job: parse(t,
				fmt.Sprintf(undecodedJob, good, dir))})); diff != "" {
				t.Fatal(diff)
			}
			if diff := cmp.Diff(redrive.Result{}, redriven(t, j, run, redrive.Redrive{})); diff != "" {
				t.Error(diff)
			}
			for l, err := range j.Letters(t.Context(), run, journal.LetterFilter{}) {
				if err != nil || l.State != journal.Sent || l.Redrives != 2 {
					t.Errorf("%+v, %v", l, err)
				}
			}
			undisturbed := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(undisturbed, 0o755); err != nil {
				t.Fatal(err)
			}
			complete(t, fmt.Sprintf(undecodedJob, good, undisturbed))
			if diff := cmp.Diff(written(t, undisturbed), written(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func fileOf(t *testing.T, name string, all []string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(strings.Join(all, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// written is what the sink of undecodedJob holds.
func written(t *testing.T, dir string) []string {
	t.Helper()
	all := strings.Split(strings.TrimSpace(string(contents(t, dir+"/lines/*.jsonl"))), "\n")
	slices.Sort(all)
	return all
}
