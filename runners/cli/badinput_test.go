package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/gocql/gocql"

	"reprise/io/journal"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// limitFiles makes every file of this process end at a size, like a full disk; "": no limit.
func limitFiles(size string) {
	limit, err := strconv.ParseUint(size, 10, 64)
	if err != nil {
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// filesTo is a job from the file in.jsonl to one sink, after another sink that would take everything.
func filesTo(sink string) string {
	return `
name: bad
source:
  files: {path: in.jsonl, key: [id], fields: {id: text, title: text, size: bigint}}
sinks:
  good: {files: {path: out}}
  target:
    ` + sink + "\n"
}

// cassandraFrom is a job from a table of Cassandra to a folder.
func cassandraFrom(source string) string {
	return `
name: bad
source:
  cassandra: ` + source + `
sinks: {good: {files: {path: out}}}
`
}

const threeAssets = `{"id":"a","title":"Sunset","size":10}
{"id":"b","title":"Dawn","size":20}
{"id":"c","title":"Noon","size":30}
`

// refused runs a job that must not begin: its message is the golden file's, it has the exit code, and nothing was
// written.
func (s *scene) refused(golden string, code int, job string, args ...string) {
	s.t.Helper()
	s.write("in.jsonl", threeAssets)
	s.write("job.yaml", job)
	before := s.files()
	began := time.Now()
	r := s.want(code, append([]string{"run", "job.yaml"}, args...)...)
	if took := time.Since(began); took > 25*time.Second {
		s.t.Errorf("the message took %s", took)
	}
	s.golden("bad/"+golden+".golden", r.out+r.err)
	s.unchanged(before)
}

// silent is the address of a server that takes connections and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestUnreachable names a system that is not there, or that does not answer.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	kafka := services.Need(t, services.Kafka)
	for name, job := range map[string]string{
		"cassandra-source": cassandraFrom(`{connection: {hosts: ["$ADDR"]}, keyspace: media, table: assets}`),
		"cassandra":        filesTo(`cassandra: {connection: {hosts: ["$ADDR"]}, keyspace: media, table: assets}`),
		"elasticsearch":    filesTo(`elasticsearch: {urls: ["http://$ADDR"], index: assets, create: {}}`),
		"kafka":            filesTo(`kafka: {brokers: ["$ADDR"], topic: assets, create: {partitions: 1}}`),
		"registry": filesTo(
			`kafka: {brokers: ["$KAFKA"], topic: $NAME, create: {partitions: 1}, format: avro, registry: {url: "http://$ADDR"}}`),
		"iceberg-rest": filesTo(
			`iceberg: {catalog: {rest: "http://$ADDR", warehouse: w}, table: media.assets, create: true}`),
		"flink": filesTo(`files: {path: out2}`), // with --runner flink
	} {
		for how, addr := range map[string]string{"refused": "127.0.0.1:1", "silent": silent(t)} {
			if how == "silent" && (name == "flink" || name == "iceberg-rest" || name == "elasticsearch" ||
				name == "registry") {
				continue // they wait longer, for a server that works hard; the setting timeout bounds it
			}
			t.Run(name+"-"+how, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, map[string]string{"ADDR": addr, "KAFKA": kafka, "NAME": services.Name(t)})
				var args []string
				if name == "flink" {
					args = []string{"--runner", "flink", "--endpoint", addr}
				}
				s.refused("unreachable-"+name+"-"+how, fail.ExitUnreachable, job, args...)
				if name == "registry" && topicExists(t, kafka, s.vars["NAME"]) {
					t.Error("the topic was made")
				}
			})
		}
	}
}

func topicExists(t *testing.T, kafka, topic string) bool {
	t.Helper()
	client, err := sarama.NewClient([]string{kafka}, sarama.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topics, err := client.Topics()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(topics, topic)
}

// TestLogin has passwords that are wrong or missing. None of them occurs anywhere afterwards.
func TestLogin(t *testing.T) {
	t.Parallel()
	const planted = "planted-9c1f37-secret"
	refuse := func(t *testing.T, golden string, vars map[string]string, job string) {
		t.Helper()
		s := newScene(t, vars)
		s.env = []string{"WRONG_PASSWORD=" + planted}
		s.refused(golden, fail.ExitUnreachable, job)
		for _, args := range [][]string{{"run", "-v", "job.yaml"}, {"validate", "-v", "--connect", "job.yaml"}} {
			if r := s.run(args...); strings.Contains(r.out+r.err, planted) {
				t.Errorf("%q tells the password: %s%s", args, r.out, r.err)
			}
		}
	}
	t.Run("cassandra", func(t *testing.T) {
		t.Parallel()
		server := services.Own(t, services.Cassandra, services.Env("CASSANDRA_AUTH=1"))
		vars := map[string]string{"ADDR": server.Addr}
		refuse(t, "login-cassandra", vars,
			cassandraFrom(`{connection: {hosts: ["$ADDR"], user: cassandra, password: "env:WRONG_PASSWORD"}, keyspace: media, table: assets}`))
		refuse(t, "login-cassandra-none", vars,
			filesTo(`cassandra: {connection: {hosts: ["$ADDR"]}, keyspace: media, table: assets}`))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		server := services.Own(t, services.Kafka, services.Env("KAFKA_AUTH=1"))
		vars := map[string]string{"ADDR": server.Addr}
		refuse(t, "login-kafka", vars,
			filesTo(`kafka: {brokers: ["$ADDR"], topic: assets, create: {partitions: 1}, sasl: {mechanism: scram-sha-512, user: test, password: "env:WRONG_PASSWORD"}}`))
	})
	t.Run("elasticsearch", func(t *testing.T) {
		t.Parallel()
		url, _, _, ca := services.SecureProxy(t, services.Need(t, services.Elasticsearch))
		vars := map[string]string{"URL": url, "CA": ca}
		refuse(t, "login-elasticsearch", vars,
			filesTo(`elasticsearch: {urls: ["$URL"], index: assets, user: reprise, password: "env:WRONG_PASSWORD", tls: {ca: $CA}}`))
	})
	t.Run("unset", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, map[string]string{"ADDR": services.Need(t, services.Cassandra)})
		s.refused("secret-unset", fail.ExitJob,
			filesTo(`cassandra: {connection: {hosts: ["$ADDR"], user: u, password: "env:NO_SUCH_VARIABLE"}, keyspace: media, table: assets}`))
	})
}

// TestSecret runs a job with a right password and dead letters, and looks for the password in all that the run leaves.
func TestSecret(t *testing.T) {
	t.Parallel()
	url, _, password, ca := services.SecureProxy(t, services.Need(t, services.Elasticsearch))
	s := newScene(t, map[string]string{"URL": url, "CA": ca, "NAME": services.Name(t)})
	s.env = []string{"SEARCH_PASSWORD=" + password}
	s.write("in.jsonl", threeAssets+`{"id":"d","title":3,"size":"many"}`+"\n")
	s.write("job.yaml", filesTo(
		`elasticsearch: {urls: ["$URL"], index: $NAME, create: {}, user: reprise, password: "env:SEARCH_PASSWORD", tls: {ca: $CA}}`)+
		"transforms: [{derive: {big: \"100 / (size - 20)\"}}]\n")
	r := s.want(fail.ExitDone, "run", "-v", "job.yaml", "--report", "report.json")
	if len(s.lines("dead-letters/bad/*")) != 2 {
		t.Errorf("dead letters: %q", s.lines("dead-letters/bad/*"))
	}
	if strings.Contains(r.out+r.err, password) {
		t.Errorf("the output tells the password: %s%s", r.out, r.err)
	}
	for name := range s.files() {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), password) {
			t.Errorf("%s holds the password", name)
		}
	}
}

// TestTargets has systems that answer, but where something is missing or does not fit.
func TestTargets(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"CASSANDRA": services.Need(t, services.Cassandra),
		"KAFKA": services.Need(t, services.Kafka), "SEARCH": services.Need(t, services.Elasticsearch),
		"NAME": services.Name(t)}
	session := cql(t, vars["CASSANDRA"])
	for _, statement := range []string{
		"CREATE KEYSPACE $NAME WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
		"CREATE TABLE $NAME.other (id text PRIMARY KEY, title int, size bigint)",
		"CREATE TABLE $NAME.counted (id text PRIMARY KEY, views counter)",
		"CREATE TABLE $NAME.times (day date, id timeuuid, title text, PRIMARY KEY (day, id))",
	} {
		if err := session.Query(strings.ReplaceAll(statement, "$NAME", vars["NAME"])).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := session.Query("DROP KEYSPACE " + vars["NAME"]).Exec(); err != nil {
			t.Error(err)
		}
		session.Close()
	})
	search(t, "PUT", vars["SEARCH"], "/"+vars["NAME"],
		`{"mappings": {"dynamic": "strict", "properties": {"id": {"type": "keyword"}, "title": {"type": "object"}, "size": {"type": "boolean"}}}}`)
	t.Cleanup(func() { search(t, "DELETE", vars["SEARCH"], "/"+vars["NAME"], "") })

	const table = `connection: {hosts: ["$CASSANDRA"]}, keyspace: `
	times := func(indent string) string {
		return strings.ReplaceAll("\nconnection: {hosts: [\"$CASSANDRA\"]}\nkeyspace: $NAME\ntable: "+
			"times\nbuckets: {discover: true}\n", "\n", "\n"+indent)
	}
	t.Run("all", func(t *testing.T) {
		for name, job := range map[string]string{
			"cassandra-no-keyspace-source": cassandraFrom(`{` + table + `media_of_nobody, table: assets}`),
			"cassandra-no-table-source":    cassandraFrom(`{` + table + `$NAME, table: othr}`),
			"cassandra-counter":            cassandraFrom(`{` + table + `$NAME, table: counted}`),
			"cassandra-ids-year":           cassandraFrom(times("    ") + "ids: {from: 2024}"),
			"cassandra-partitions-year": strings.Replace(cassandraFrom(times("        ")+"partitions: {day: "+
				"{from: 2024-01-01, to: \"2025\"}}"),
				"  cassandra:", "  union:\n    of:\n    - cassandra:", 1),
			"cassandra-no-keyspace":  filesTo(`cassandra: {` + table + `media_of_nobody, table: assets}`),
			"cassandra-no-table":     filesTo(`cassandra: {` + table + `$NAME, table: othr}`),
			"cassandra-types":        filesTo(`cassandra: {` + table + `$NAME, table: other}`),
			"elasticsearch-no-index": filesTo(`elasticsearch: {urls: ["http://$SEARCH"], index: $NAME-none}`),
			"elasticsearch-mapping":  filesTo(`elasticsearch: {urls: ["http://$SEARCH"], index: $NAME}`),
			"kafka-no-topic":         filesTo(`kafka: {brokers: ["$KAFKA"], topic: $NAME-none}`),
			"iceberg-no-table": filesTo(
				`iceberg: {catalog: {sqlite: catalog.db, warehouse: w}, table: media.assets}`),
			"files-no-folder": filesTo(`files: {path: in.jsonl/out}`),
			"source-no-file":  strings.Replace(filesTo(`files: {path: out2}`), "in.jsonl", "none.jsonl", 1),
			"transform-field": filesTo(`files: {path: out2}`) + "    when: sise > 3\n    transforms: " +
				"[{rename: {titel: name}}]\n",
			"two-sinks": filesTo(`kafka: {brokers: ["$KAFKA"], topic: $NAME-none}`) + "  third: " +
				"{elasticsearch: {urls: [\"http://$SEARCH\"], index: $NAME-none}}\n",
			"dead-letters": filesTo(`elasticsearch: {urls: ["http://$SEARCH"], index: $NAME-made, create: {}}`) +
				"dead_letters: {kafka: {brokers: [\"$KAFKA\"], topic: $NAME-none}}\n",
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, vars)
				s.refused(name, fail.ExitJob, job)
				if status, _ := search(t, "GET", vars["SEARCH"], "/"+vars["NAME"]+"-made",
					""); status != http.StatusNotFound {
					t.Errorf("the index was made: status %d", status)
				}
			})
		}
	})
}

// TestIcebergSchema writes to a table that was made for other records.
func TestIcebergSchema(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	const sink = `iceberg: {catalog: {sqlite: catalog.db, warehouse: $DIR/warehouse}, table: media.assets, create: true}`
	s.write("in.jsonl", threeAssets)
	s.write("job.yaml", filesTo(sink))
	s.want(fail.ExitDone, "run", "job.yaml")
	before := s.files()
	s.write("other.yaml", strings.Replace(filesTo(sink), "{id: text, title: text, size: bigint}",
		"{id: text, title: int, made: timestamp}", 1))
	before["other.yaml"] = s.files()["other.yaml"]
	r := s.want(fail.ExitJob, "run", "other.yaml")
	s.golden("bad/iceberg-schema.golden", r.out+r.err)
	s.unchanged(before)
}

func cql(t *testing.T, addr string) *gocql.Session {
	t.Helper()
	cluster := gocql.NewCluster(addr)
	cluster.ProtoVersion = 4
	cluster.Timeout = 30 * time.Second
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// search sends a request to Elasticsearch.
func search(t *testing.T, method, addr, path, body string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, "http://"+addr+path,
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(all)
}

// TestFullDisk has no room for the output of a sink, or for dead letters. The run fails and nothing becomes visible.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	const source = "name: full\nsource: {corpus: {rows: 100000}}\nlimits: {unfinished: \"2000000\", error_budget: " +
		"{percent: 100}}\n"
	for name, job := range map[string]string{
		"files": source + "sinks: {files: {files: {path: out}}}\n",
		// its files must outgrow the journal
		"iceberg": source + "sinks: {lake: {iceberg: {catalog: {sqlite: catalog.db, warehouse: $DIR/out}, table: " +
			"media.assets, create: true, row_group: 1MiB}}}\n",
		"dead-letters": source + "transforms: [{derive: {x: 1 / 0}}]\nsinks: {lake: {files: {path: elsewhere}}}\n" +
			"dead_letters: {files: {path: out}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			s.env = []string{"REPRISE_FILE_LIMIT=6000000"}
			s.write("job.yaml", job)
			r := s.want(fail.ExitInternal, "run", "job.yaml")
			s.golden("bad/full-disk-"+name+".golden", r.out+r.err)
			if states := s.states(); len(states) != 1 || states[0] != journal.Failed {
				t.Errorf("journal: %s", states)
			}
			for file := range s.files() {
				if strings.HasPrefix(file, "out/") && strings.HasSuffix(file, ".jsonl") {
					t.Errorf("%s can be seen", file)
				}
			}
			if name == "iceberg" {
				if snapshots := services.IcebergSnapshots(t,
					services.IcebergTable{Catalog: filepath.Join(s.dir, "catalog.db"),
						Table: "media.assets"}); len(snapshots) > 0 {
					t.Errorf("snapshots %+v", snapshots)
				}
			}
		})
	}
}

// TestRowTooLarge has one row that the topic does not take: it is a dead letter, and the others are written.
func TestRowTooLarge(t *testing.T) {
	t.Parallel()
	kafka := services.Need(t, services.Kafka)
	s := newScene(t, map[string]string{"KAFKA": kafka, "NAME": services.Name(t)})
	s.write("in.jsonl", threeAssets+fmt.Sprintf(`{"id":"d","title":%q,"size":1}`, strings.Repeat("long ", 10_000))+"\n")
	s.write("job.yaml", filesTo(
		`kafka: {brokers: ["$KAFKA"], topic: $NAME, compress: none, create: {partitions: 1, config: {max.message.bytes: "5000"}}}`))
	s.want(fail.ExitDone, "run", "job.yaml", "--report", "report.json")
	report := s.report()
	target := report.Sinks["target"].Outcomes
	if target[record.Written] != 3 || target[record.Dead] != 1 || report.Sinks["good"].Outcomes[record.Written] != 4 {
		t.Errorf("report %+v", report)
	}
	if messages := services.ConsumeKafka(t, kafka, s.vars["NAME"]); len(messages) != 3 {
		t.Errorf("%d messages in the topic, want 3", len(messages))
	}
	var letter struct{ Key, Step, Class, Code, Message string }
	lines := s.lines("dead-letters/bad/*")
	if len(lines) != 1 {
		t.Fatalf("dead letters: %.300q", lines)
	}
	if err := json.Unmarshal([]byte(lines[0]), &letter); err != nil {
		t.Fatal(err)
	}
	s.golden("bad/row-too-large.golden", fmt.Sprintf("%+v\n", letter))
}

// TestDeadLettersNotWritten has a queue that refuses the letters: the run fails, since nothing else would know of them.
func TestDeadLettersNotWritten(t *testing.T) {
	t.Parallel()
	s := newScene(t, map[string]string{"KAFKA": services.Need(t, services.Kafka), "NAME": services.Name(t)})
	s.write("in.jsonl", fmt.Sprintf(`{"id":"d","title":%q,"size":1}`, strings.Repeat("long ", 10_000))+"\n"+threeAssets)
	s.write("job.yaml", filesTo(`files: {path: out2}`)+`
transforms: [{derive: {x: 1 / (size - 1)}}]
dead_letters: {kafka: {brokers: ["$KAFKA"], topic: $NAME, compress: none, create: {partitions: 1, config: {max.message.bytes: "5000"}}}}
`)
	r := s.want(fail.ExitInternal, "run", "job.yaml")
	s.golden("bad/dead-letters-not-written.golden", r.out+r.err)
	if states := s.states(); len(states) != 1 || states[0] != journal.Failed {
		t.Errorf("journal: %s", states)
	}
}
