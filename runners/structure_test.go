// Package runners_test holds the project to its structure.
package runners_test

import (
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

const root = ".."

// TestTopLevel keeps the top level as the README shows it.
func TestTopLevel(t *testing.T) {
	out, err := exec.Command("git", "-C", root, "ls-files").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	allowed := []string{"pipelines", "transforms", "io", "runners", "testdata", "go.mod", "go.sum", "Makefile",
		"README.md"}
	for _, file := range strings.Fields(string(out)) {
		top, _, _ := strings.Cut(file, "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(allowed, top) {
			t.Errorf("%s: only %s, .ci and dotfiles may stand at the top", file, strings.Join(allowed, ", "))
		}
	}
}

// layers lists for each part what it may import of the others. Tests of io and pipelines may start servers.
var layers = []struct {
	part    string
	imports []string
	inTests []string
}{
	{"transforms/fail", nil, nil},
	{"transforms/secret", nil, nil},
	{"transforms/record", []string{"transforms/fail"}, []string{"transforms/golden"}},
	{"transforms", []string{"transforms"}, nil},
	{"io", []string{"io", "transforms/record", "transforms/fail", "transforms/secret"},
		[]string{"runners/services", "runners/faults", "transforms/golden"}},
	{"pipelines/usecases", nil, []string{"pipelines/job", "io", "runners/cli", "runners/corpus", "runners/launch",
		"runners/services", "runners/systems"}},
	{"pipelines", []string{"pipelines", "io", "transforms"},
		[]string{"runners/services", "runners/faults", "runners/systems"}},
	{"runners", []string{"runners", "pipelines", "io", "transforms"}, nil},
}

// TestArrows keeps the arrows pointing one way: runners → pipelines → io, transforms.
func TestArrows(t *testing.T) {
	eachImport(t, func(file, dir, path string, test bool) {
		of, ours := strings.CutPrefix(path, "reprise/")
		if !ours {
			return
		}
		for _, l := range layers {
			if !within(dir, l.part) {
				continue
			}
			allowed := l.imports
			if test {
				allowed = append(slices.Clone(allowed), l.inTests...)
			}
			if dir != of && !slices.ContainsFunc(allowed, func(a string) bool { return within(of, a) }) {
				t.Errorf("%s imports %s: %s may import %s", file, path, l.part, strings.Join(allowed, ", "))
			}
			return
		}
	})
}

// homes lists who may import what the project hides behind one package; with /... also the packages below it.
var homes = []struct {
	library string
	homes   []string
}{
	{"github.com/gocql/gocql", []string{"io/cassandraio"}},
	{"github.com/IBM/sarama", []string{"io/kafkaio"}},
	{"github.com/elastic/go-elasticsearch", []string{"io/elasticsearchio"}},
	{"github.com/apache/iceberg-go", []string{"io/icebergio/..."}},
	{"github.com/apache/beam/sdks/v2/go/pkg/beam",
		[]string{"pipelines/travel", "pipelines/flow", "pipelines/beamio", "runners/launch"}},
	{"cel.dev/cel-go", []string{"transforms"}},
}

// heavy are packages that would bring in what the project leaves out on purpose.
var heavy = map[string]string{
	"github.com/apache/beam/sdks/v2/go/pkg/beam/x/beamx": "it links Dataflow and Spark; import the runners one by one",
	"github.com/elastic/go-elasticsearch/v8": "the typed API triples the packages; import esapi and " +
		"elastictransport",
	"github.com/elastic/go-elasticsearch/v8/esutil": "its bulk indexer does not retry items",
	"github.com/stretchr/testify/assert":            "tests use the standard library and go-cmp",
	"github.com/stretchr/testify/require":           "tests use the standard library and go-cmp",
	"gopkg.in/yaml.v3":                              "it is archived; YAML is read with goccy/go-yaml",
}

// TestHomes keeps each library behind its one package. Tests, which also need clients that are not our own code, and
// benchmarks may use all of them.
func TestHomes(t *testing.T) {
	eachImport(t, func(file, dir, path string, test bool) {
		if why, ok := heavy[path]; ok {
			t.Errorf("%s imports %s: %s", file, path, why)
		}
		if test || within(dir, "runners/bench") {
			return
		}
		for _, h := range homes {
			home := func(home string) bool {
				above, below := strings.CutSuffix(home, "/...")
				return dir == home || below && within(dir, above)
			}
			if within(path, h.library) && !slices.ContainsFunc(h.homes, home) {
				t.Errorf("%s imports %s: only %s may", file, path, strings.Join(h.homes, ", "))
			}
		}
	})
}

// TestSystemsAreListedOnce: whoever knows kinds knows no systems, so that a new one needs no change but in the list.
func TestSystemsAreListedOnce(t *testing.T) {
	const list = "runners/systems"
	importers := map[string]map[string]bool{}
	eachImport(t, func(_, dir, path string, test bool) {
		if system, ok := strings.CutPrefix(path, "reprise/io/"); ok && !test && strings.HasSuffix(system, "io") {
			if importers[dir] == nil {
				importers[dir] = map[string]bool{}
			}
			importers[dir][system] = true
		}
	})
	all := len(importers[list])
	for dir, systems := range importers {
		if dir != list && len(systems) > all/2+1 {
			t.Errorf("%s imports %d of %d systems; only %s lists them", dir, len(systems), all, list)
		}
	}
	for _, dir := range []string{"pipelines/flow", "pipelines/verify/compare"} {
		if len(importers[dir]) > 0 {
			t.Errorf("%s imports systems: %v", dir, importers[dir])
		}
	}
}

const columns = 120

// TestLinesFit keeps lines of Go files and of prose in Markdown within 120 columns, a tab taking four. What another
// program reads may be longer, since a break could change it: raw strings with struct tags, JSON, CQL or YAML in Go;
// commands and tables in Markdown; URLs.
func TestLinesFit(t *testing.T) {
	eachFile(t, ".go", func(file, dir string, src []byte) {
		raw := rawLines(src)
		eachLine(src, func(n int, line string) {
			if !raw[n] && !strings.Contains(line, "://") && !fits(line) {
				t.Errorf("%s:%d is longer than %d columns", file, n, columns)
			}
		})
	})
	eachFile(t, ".md", func(file, _ string, src []byte) {
		fenced := false
		eachLine(src, func(n int, line string) {
			fence := strings.HasPrefix(line, "```")
			fenced = fenced != fence
			free := fence || fenced || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "|")
			if !free && !strings.Contains(line, "://") && !fits(line) {
				t.Errorf("%s:%d is longer than %d columns", file, n, columns)
			}
		})
	})
}

// rawLines are the lines of Go source that hold a part of a raw string.
func rawLines(src []byte) map[int]bool {
	var s scanner.Scanner
	files := token.NewFileSet()
	of := files.AddFile("", -1, len(src))
	s.Init(of, src, nil, 0)
	lines := map[int]bool{}
	for {
		switch pos, tok, text := s.Scan(); {
		case tok == token.EOF:
			return lines
		case tok == token.STRING && text[0] == '`':
			for n := range strings.Count(text, "\n") + 1 {
				lines[of.Line(pos)+n] = true
			}
		}
	}
}

// eachLine calls f with each line and its number, which begins with 1.
func eachLine(src []byte, f func(n int, line string)) {
	n := 0
	for line := range strings.Lines(string(src)) {
		n++
		f(n, strings.TrimSuffix(line, "\n"))
	}
}

func fits(line string) bool {
	return utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")) <= columns
}

func within(path, part string) bool { return path == part || strings.HasPrefix(path, part+"/") }

// eachImport calls f for every import of every Go file.
func eachImport(t *testing.T, f func(file, dir, path string, test bool)) {
	t.Helper()
	eachFile(t, ".go", func(file, dir string, src []byte) {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			f(file, dir, path, strings.HasSuffix(file, "_test.go"))
		}
	})
}

// eachFile calls f for every file whose name ends so.
func eachFile(t *testing.T, ext string, f func(file, dir string, src []byte)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ext) {
			return nil
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		files++
		dir, _ := filepath.Rel(root, filepath.Dir(file))
		f(file, filepath.ToSlash(dir), src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d files named *%s found under %s", files, ext, root)
	}
}
