package beamio_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/stats"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/elasticsearchio"
	"reprise/io/fileio"
	"reprise/pipelines/beamio"
	"reprise/transforms/record"
)

// Every asset of a table goes into an index, and what cannot go there into a queue.
func Example_reindex() {
	p, s := beam.NewPipelineWithRoot()

	assets, unread := beamio.Read(s, beamio.Source{Kind: "cassandra", RowTimes: true, Config: cassandraio.SourceConfig{
		Connection: cassandraio.Connection{Hosts: []string{"10.0.0.1"}, User: "reprise", Password: "env:PASSWORD"},
		Keyspace:   "media", Table: "assets",
	}})

	documents, failed := beamio.Apply(s, assets,
		beamio.Transform("derive", map[string]string{"format": `string(json(payload)[?"format"].orValue("unknown"))`}),
		beamio.Transform("project", map[string][]string{"drop": {"payload"}}))

	_, refused := beamio.Write(s, documents, beamio.Sink{Kind: "elasticsearch", Config: elasticsearchio.SinkConfig{
		URLs: []string{"http://10.0.0.9:9200"}, Index: "assets-v2", Create: &elasticsearchio.Create{},
	}})

	beamio.DeadLetters(s, folder("data/dead-letters"), unread, failed, refused)
	if _, err := prism.Execute(context.Background(), p); err != nil {
		fmt.Println(err)
	}
}

// Every asset gets a major and a minor version instead of one number. What is no number is set aside.
func Example_migrateVersions() {
	dir := files(`{"id": "a", "version": "12"}`, `{"id": "b", "version": "x"}`, `{"id": "c", "version": "7"}`)
	defer os.RemoveAll(dir)
	p, s := beam.NewPipelineWithRoot()

	old, unread := beamio.Read(s, table(dir, fileio.SourceConfig{}))

	migrated, failed := beamio.Apply(s, old,
		beamio.Transform("cast", map[string]string{"version": "int"}),
		beamio.Transform("rename", map[string]string{"version": "version_major"}),
		beamio.Transform("derive", map[string]string{"version_minor": "0"}))

	outcomes, refused := beamio.Write(s, migrated, folder(dir+"/out"))

	beamio.DeadLetters(s, folder(dir+"/dead"), unread, failed, refused)
	beam.ParDo0(s, tell, stats.Count(s, beam.DropValue(s, outcomes)))
	if _, err := prism.Execute(context.Background(), p); err != nil {
		fmt.Println(err)
	}
	fmt.Println(lines(dir+"/dead"), "dead letter")
	// Output:
	// 2 written
	// 1 dead letter
}

// What has expired is deleted, with the version of the row that was read: a newer row stays.
func Example_deleteExpired() {
	dir := files(`{"id": "a", "expires": "2020-01-01"}`, `{"id": "b"}`, `{"id": "c", "expires": "2999-01-01"}`)
	defer os.RemoveAll(dir)
	p, s := beam.NewPipelineWithRoot()

	assets, unread := beamio.Read(s, table(dir, fileio.SourceConfig{Fields: times("expires")}))

	deletes, failed := beamio.Apply(s, assets,
		beamio.Transform("delete", "expires != null && expires < now"),
		beamio.Transform("filter", `_op == "delete"`))

	outcomes, refused := beamio.Write(s, deletes, folder(dir+"/out"))

	beamio.DeadLetters(s, folder(dir+"/dead"), unread, failed, refused)
	beam.ParDo0(s, tell, stats.Count(s, beam.DropValue(s, outcomes)))
	if _, err := prism.Execute(context.Background(), p); err != nil {
		fmt.Println(err)
	}
	// Output: 1 written
}

// Views and sales of an asset meet where both happened on the same day: the timestamp of a record is its version.
func Example_joinByDay() {
	views := files(`{"id": "a", "at": "2024-05-01T08:00:00Z"}`, `{"id": "b", "at": "2024-05-01T09:00:00Z"}`)
	sales := files(`{"id": "a", "at": "2024-05-01T22:00:00Z"}`, `{"id": "b", "at": "2024-05-03T10:00:00Z"}`)
	defer os.RemoveAll(views)
	defer os.RemoveAll(sales)
	p, s := beam.NewPipelineWithRoot()

	byDay := func(dir string) (daily, unread beam.PCollection) {
		all, unread := beamio.Read(s, table(dir, fileio.SourceConfig{Fields: times("at"), Version: "at"}))
		return beam.ParDo(s, keyed, beam.WindowInto(s, window.NewFixedWindows(24*time.Hour), all)), unread
	}
	viewed, unread := byDay(views)
	sold, unsold := byDay(sales)

	beam.ParDo0(s, sameDay, beam.CoGroupByKey(s, viewed, sold))

	beamio.DeadLetters(s, folder(views+"/dead"), unread, unsold)
	if _, err := prism.Execute(context.Background(), p); err != nil {
		fmt.Println(err)
	}
	// Output: a was seen and sold on 2024-05-01
}

func init() {
	register.Function2x0(tell)
	register.Function1x2(keyed)
	register.Function3x0(sameDay)
	register.Iter1[*record.Record]()
}

func tell(what string, n int) { fmt.Println(n, what) }

func keyed(r *record.Record) (string, *record.Record) { return r.KeyText(), r }

func sameDay(key string, views, sales func(**record.Record) bool) {
	var seen, sold *record.Record
	if views(&seen) && sales(&sold) {
		fmt.Println(key, "was seen and sold on", sold.VersionTime().Format(time.DateOnly))
	}
}

// table is a file of JSON lines as a source.
func table(dir string, c fileio.SourceConfig) beamio.Source {
	c.Path, c.Format, c.Key = dir+"/in", "jsonl", []string{"id"}
	return beamio.Source{Kind: "files", Config: c}
}

// times are the fields of a table of an id and a time.
func times(name string) connector.Fields {
	return connector.Fields{{Name: "id", Type: record.Of(record.Text)}, {Name: name, Type: record.Of(record.Timestamp)}}
}

func folder(path string) beamio.Sink {
	return beamio.Sink{Kind: "files", Config: fileio.SinkConfig{Path: path, Meta: true}}
}

// files makes a folder with some lines in the file "in".
func files(lines ...string) string {
	dir, err := os.MkdirTemp("", "reprise-example-")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "in"), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
	}
	if err != nil {
		panic(err)
	}
	return dir
}

func lines(dir string) (n int) {
	names, _ := filepath.Glob(dir + "/*")
	for _, name := range names {
		text, _ := os.ReadFile(name)
		n += strings.Count(string(text), "\n")
	}
	return n
}
