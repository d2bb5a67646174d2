package cli

import (
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
	const text = `
name: old
source: {corpus: {rows: 500}}
transforms: [{filter: "size != null && size > 5000"}]
sinks: {lines: {files: {path: out, meta: true}}}
purge: {reason: '"it is large"', grace: %s}
`
	s.write("job.yaml", fmt.Sprintf(text, "1ns"))
	s.write("patient.yaml", fmt.Sprintf(text, "1h"))
	if r := s.want(fail.ExitJob, "run", "job.yaml"); !strings.Contains(r.err, "reprise purge job.yaml") {
		t.Errorf("an ordinary run: %s", r.err)
	}
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--dry-run"); !strings.Contains(r.out, "would be marked") || len(s.glob("manifests/old/*")) > 0 {
		t.Errorf("a dry run: %s", r.out)
	}
	if r := s.want(fail.ExitDone, "purge", "job.yaml"); !strings.Contains(r.out, "nothing is deleted yet") || len(s.glob("manifests/old/*.jsonl")) == 0 {
		t.Errorf("marking: %s", r.out)
	}
	s.want(fail.ExitJob, "purge", "patient.yaml", "--purge", "last", "--yes")
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--purge", "last"); !strings.Contains(r.out, "would be deleted") || !strings.Contains(r.out, "deleted, then lines") || len(s.glob("out/*")) > 0 {
		t.Errorf("telling: %s", r.out)
	}
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--purge", "last", "--yes"); !strings.Contains(r.out, "--restore") {
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
	if r := s.want(fail.ExitDone, "purge", "job.yaml", "--restore", "last"); !strings.Contains(r.out, "would be written again") {
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
