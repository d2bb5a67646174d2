package launch_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/runners/launch"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// queueJob sets aside every third record.
const queueJob = `
name: queue
source:
  files: {path: %[1]s/in.jsonl, key: [id]}
transforms:
  - cast: {size: bigint}
sinks:
  out: {files: {path: %[1]s/out}}
dead_letters:
  %[2]s
journal: {sqlite: "%[1]s/journal.db"}
`

// TestQueues writes dead letters to Kafka and to Iceberg, and reads the records back as they were, by other programs.
func TestQueues(t *testing.T) {
	const rows, dead = 30, 10
	kafka, topic := services.Need(t, services.Kafka), services.Name(t)
	for name, c := range map[string]struct {
		queue string
		read  func(dir string) (letters []string)
	}{
		"kafka": {fmt.Sprintf(`kafka: {brokers: ["%s"], topic: %s, create: {partitions: 2}}`, kafka, topic), func(string) (letters []string) {
			for _, m := range services.ConsumeKafka(t, kafka, topic) {
				letters = append(letters, string(m.Value))
			}
			return letters
		}},
		"iceberg": {`iceberg: {catalog: {sqlite: %[1]s/dead.db, warehouse: %[1]s/dead}, table: ops.dead_letters, create: true}`, func(dir string) []string {
			return services.ReadIceberg(t, services.IcebergTable{Catalog: dir + "/dead.db", Table: "ops.dead_letters"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var lines []byte
			for i := range rows {
				size := fmt.Sprint(i)
				if i%3 == 0 {
					size = "large"
				}
				lines = fmt.Appendf(lines, `{"id": "a%d", "size": "%s"}`+"\n", i, size)
			}
			if err := os.WriteFile(filepath.Join(dir, "in.jsonl"), lines, 0o644); err != nil {
				t.Fatal(err)
			}
			queue := c.queue
			if name == "iceberg" {
				queue = fmt.Sprintf(queue, dir)
			}
			j, err := job.Parse("job.yaml", fmt.Appendf(nil, queueJob, dir, queue))
			if err != nil {
				t.Fatal(err)
			}
			p, err := runs.Prepare(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			report, err := launch.Runner{Name: "prism"}.Execute(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Faults) > 0 || report.DeadLetters != dead ||
				report.Sinks["out"].Outcomes != (record.Counts{record.Written: rows - dead, record.Dead: dead}) {
				t.Fatalf("report: %+v", report)
			}
			seen := map[string]bool{}
			for _, text := range c.read(dir) {
				var l struct {
					Record []byte // base64 in both
					Key    string
					Code   string
				}
				if err := json.Unmarshal([]byte(text), &l); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				r, err := record.DecodeRecord(l.Record)
				if err != nil || r.KeyText() != l.Key || r.Get("size").Str() != "large" || l.Code != "transform.cast" {
					t.Errorf("dead letter %s: %v, %v", text, r, err)
				}
				seen[l.Key] = true
			}
			if len(seen) != dead {
				t.Errorf("%d dead letters are in the queue: %v", len(seen), seen)
			}
		})
	}
}
