package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"reprise/transforms/fail"
)

// TestPurge goes through the steps of a purge; without --yes, and within the time of grace, nothing is deleted.
func TestPurge(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	const job = `
name: old
source: {corpus: {rows: 500}}
transforms: [{filter: "size != null && size > 5000"}]
sinks: {lines: {files: {path: out, meta: true}}}
purge: {reason: '"it is large"', grace: %s}
`
	s.write("job.yaml", fmt.Sprintf(job, "1ns"))
	s.write("patient.yaml", fmt.Sprintf(job, "1h"))
	if r := s.want(fail.ExitJob, "run", "job.yaml"); !strings.Contains(r.err, "reprise purge job.yaml") {
		t.Errorf("an ordinary run: %s", r.err)
	}
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--dry-run"); !strings.Contains(r.out, "would be marked") ||
		len(s.glob("manifests/old/*")) > 0 {
		t.Errorf("a dry run: %s", r.out)
	}
	if r := s.want(fail.ExitDone, "purge", "job.yaml"); !strings.Contains(r.out, "nothing is deleted yet") ||
		len(s.glob("manifests/old/*.jsonl")) == 0 {
		t.Errorf("marking: %s", r.out)
	}
	s.want(fail.ExitJob, "purge", "patient.yaml", "--purge", "last", "--yes")
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--purge", "last"); !strings.Contains(r.out,
		"would be deleted") || !strings.Contains(r.out, "deleted, then lines") || len(s.glob("out/*")) > 0 {
		t.Errorf("telling: %s", r.out)
	}
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--purge", "last", "--yes"); !strings.Contains(r.out,
		"--restore") {
		t.Errorf("purging: %s", r.out)
	}
	var deletes int
	for _, file := range s.glob("out/*.jsonl") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		deletes += strings.Count(string(text), `"op":"delete"`)
	}
	if deletes == 0 {
		t.Error("nothing was deleted")
	}
	var entry struct {
		Kind   string `json:"asset_type"`
		Bucket string `json:"bucket"`
		ID     string `json:"id"`
	}
	text, err := os.ReadFile(s.glob("manifests/old/*.jsonl")[0])
	if err == nil {
		err = json.Unmarshal(bytes.SplitN(text, []byte("\n"), 2)[0], &entry)
	}
	if err != nil {
		t.Fatal(err)
	}
	key := entry.Kind + "|" + entry.Bucket + "|" + entry.ID
	if r := s.want(fail.ExitDone, "history", key); !strings.Contains(r.out, "of old-mark: ") ||
		!strings.Contains(r.out, "whether it was read is not known: its keys come from a list, which --connect reads") {
		t.Errorf("the history without the manifest: %s", r.out)
	}
	if r := s.want(fail.ExitDone, "history", key, "--connect"); !strings.Contains(r.out, "of old-purge: ") ||
		!strings.Contains(r.out, "in an interval that is finished at deleted, lines") {
		t.Errorf("the history with the manifest: %s", r.out)
	}
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--restore", "last"); !strings.Contains(r.out,
		"would be written again") {
		t.Errorf("telling of a restore: %s", r.out)
	}
	s.want(fail.ExitDone, "purge", "job.yaml", "--restore", "last", "--yes")
	s.want(fail.ExitJob, "purge", "job.yaml", "--purge", "last", "--restore", "last")
}

func (s *scene) glob(pattern string) []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, pattern))
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}
