package cli

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"reprise/transforms/fail"
)

// unpack puts down what an older release has left: two job files, the journal with a run, its redrives, its
// verification and a run that was stopped, and the dead letters and files of those.
func (s *scene) unpack(archive string) {
	s.t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		s.t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.t.Fatal(err)
		}
		path := filepath.Join(s.dir, h.Name)
		if h.FileInfo().IsDir() {
			continue
		}
		text, err := io.ReadAll(r)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644))
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// What a release has begun the next one ends, and reads: its journal, its job files, its dead letters.
func TestRunsOfTheLastReleaseGoOn(t *testing.T) {
	const first, stopped = "20261129-125824-8afa995a", "20261129-125829-9d5aa81c"
	s := newScene(t, nil)
	s.unpack("testdata/release/9b9d059.tar.gz")
	says := func(code int, words string, args ...string) {
		t.Helper()
		r := s.want(code, append(args, "--journal", "journal.db")...)
		if !strings.Contains(r.out+r.err, words) {
			t.Errorf("reprise %s does not say %q:\n%s%s", strings.Join(args, " "), words, r.out, r.err)
		}
	}
	says(fail.ExitDone, "release", "status")
	says(fail.ExitDone, "403", "status", first)
	says(fail.ExitDone, "transform 2: derive", "dead", "list", first)
	says(fail.ExitDone, "read in", "history", "image|2024-05|992add52-0cb8-11ef-8000-0100000000c6")
	says(fail.ExitDone, "65 failed again", "redrive", first)
	says(fail.ExitDone, "failed again", "redrive", first, "--kept")
	says(fail.ExitDone, "403 rows", "resume", stopped)
	says(fail.ExitDone, "403", "status", stopped)
}
