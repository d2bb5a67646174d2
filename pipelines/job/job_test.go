package job

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/corpusio"
	"reprise/io/fileio"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/golden"
	"reprise/transforms/record"
)

// shipped are the job files that users find.
var shipped = []string{"../../testdata/jobs/*.yaml", "../usecases/*/*.yaml"}

func files(t testing.TB, patterns ...string) (all []string) {
	t.Helper()
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s gives %d files (%v)", pattern, len(names), err)
		}
		all = append(all, names...)
	}
	return all
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// assets is the schema of the corpus.
func assets(t *testing.T) *record.Schema {
	t.Helper()
	j := &Job{Source: connector.From(&corpusio.SourceConfig{Rows: 1})}
	source, err := j.Source.Open(j.Need(connector.Run{ID: "run"}))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	schema, err := source.Schema(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestFaults keeps what people read when a job file is wrong.
func TestFaults(t *testing.T) {
	in := assets(t)
	for _, name := range files(t, "testdata/bad/*.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			j, err := Parse(filepath.Base(name), read(t, name))
			if err == nil {
				_, err = j.Compile(in, transforms.Options{})
			}
			if err == nil {
				t.Fatal("no fault")
			}
			if code, exit := fail.CodeOf(err), fail.ExitOf(err); code != "job.wrong" || exit != fail.ExitJob {
				t.Errorf("code %s, exit code %d", code, exit)
			}
			if strings.Contains(err.Error(), "swordfish") || strings.Contains(err.Error(), "123456") {
				t.Error("the error tells a secret")
			}
			golden.Compare(t, strings.TrimSuffix(name, ".yaml")+".golden", err.Error()+"\n")
		})
	}
}

// TestTravel: the JSON of a job, which goes to workers and the journal, gives the same job, and holds references to
// secrets alone.
func TestTravel(t *testing.T) {
	for _, name := range files(t, append(shipped, "testdata/good/*.yaml")...) {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CASSANDRA_PASSWORD", "swordfish")
			t.Setenv("KAFKA_PASSWORD", "swordfish")
			t.Setenv("API_KEY", "swordfish")
			j, err := Load(name)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(j)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte("swordfish")) {
				t.Errorf("a secret travels: %s", text)
			}
			again, err := decode(text)
			if err != nil {
				t.Fatal(err)
			}
			compact := cmp.Transformer("compact", func(raw json.RawMessage) string {
				var b bytes.Buffer
				if err := json.Compact(&b, raw); err != nil {
					t.Error(err)
				}
				b2 := &bytes.Buffer{}
				json.HTMLEscape(b2, b.Bytes())
				return b2.String()
			})
			if diff := cmp.Diff(j, again, cmpopts.IgnoreUnexported(Job{}), cmpopts.EquateEmpty(), compact); diff != "" {
				t.Errorf("as written -, as it travelled +:\n%s", diff)
			}
		})
	}
}

func TestReferencesTravel(t *testing.T) {
	j, err := Load("testdata/good/secrets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"env:CASSANDRA_PASSWORD", "env:KAFKA_PASSWORD", "env:API_KEY",
		"file:/run/secrets/salt"} {
		if !bytes.Contains(text, []byte(ref)) {
			t.Errorf("%s is lost: %s", ref, text)
		}
	}
}

func TestAliases(t *testing.T) {
	j, err := Load("testdata/good/aliases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, meta := range map[string]bool{"a": false, "b": false, "c": true} {
		if f := j.Sinks[name].SinkConfig.(*fileio.SinkConfig); f.Path != "out" || f.Format != "jsonl" ||
			f.Meta != meta {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestUnreadable(t *testing.T) {
	if _, err := Load("testdata/none.yaml"); fail.CodeOf(err) != "job.unreadable" || fail.ExitOf(err) != fail.ExitJob {
		t.Errorf("got %v", err)
	}
}

// A job that a program builds has no file to show.
func TestFaultsWithoutFile(t *testing.T) {
	j := &Job{Transforms: []transforms.Spec{{Name: "filter", Config: json.RawMessage(`"titel != ''"`)}}}
	_, err := j.Compile(assets(t), transforms.Options{})
	golden.Compare(t, "testdata/without_file.golden", err.Error()+"\n")
}

func TestSinkChain(t *testing.T) {
	j := &Job{Sinks: map[string]Sink{"search": {Route: Route{When: `title != "\u0001"`,
		Transforms: []transforms.Spec{{Name: "cast", Config: json.RawMessage(`{"size": "text"}`)}}}}}}
	chain, err := j.SinkChain("search", assets(t), transforms.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, s := range chain.Steps {
		labels = append(labels, s.Label())
	}
	if diff := cmp.Diff([]string{"when", "transforms.0.cast"}, labels); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults(t *testing.T) {
	j, err := Parse("job.yaml", []byte("name: a\nsource: {corpus: {rows: 1}}\nsinks: {x: {files: {path: out}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Limits{SplitRows: 20_000, SplitBytes: 64 << 20, Readers: 4, ReadAhead: 32 << 20, Memory: 256 << 20,
		Unfinished:  "1%",
		ErrorBudget: &ErrorBudget{Recent: 25, Of: 30}}
	if diff := cmp.Diff(want, j.Limits); diff != "" || j.Journal.SQLite != ".reprise/journal.db" ||
		j.DeadLetters.Place() != "the folder dead-letters/a" {
		t.Errorf("journal %+v, dead letters %+v, limits: %s", j.Journal, j.DeadLetters.SinkConfig, diff)
	}
}

func TestTooManyDead(t *testing.T) {
	for _, x := range []struct {
		limit      string
		dead, read int64
		want       bool
	}{
		{"", 1000, 1000, false},
		{"0", 0, 1000, false},
		{"0", 1, 1000, true},
		{"0%", 0, 0, false},
		{"0%", 1, 1000, true},
		{"10", 10, 10, false},
		{"10", 11, 1000, true},
		{"1%", 10, 1000, false},
		{"1%", 11, 1000, true},
		{"0.5%", 5, 1000, false},
		{"0.5%", 6, 1000, true},
		{"100%", 1000, 1000, false},
		{"1%", 1, 0, true},
		{"1%", 10_000_000, 1_000_000_000, false},
		{"1%", 10_000_001, 1_000_000_000, true},
	} {
		if got := (Limits{DeadLetters: x.limit}).TooManyDead(x.dead, x.read); got != x.want {
			t.Errorf("limit %q, %d dead of %d: got %t", x.limit, x.dead, x.read, got)
		}
	}
}

// TestSchema keeps the schema that is shipped equal to the program's, and the example jobs valid against it.
func TestSchema(t *testing.T) {
	text, err := json.MarshalIndent(Schema(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const file = "../../testdata/job.schema.json"
	golden.Compare(t, file, string(text)+"\n")
	schema, err := jsonschema.NewCompiler().Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, shipped...) {
		asJSON, faults := newFile(name, read(t, name)).read()
		if len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
			continue
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSchemaDescribes: every setting is described.
func TestSchemaDescribes(t *testing.T) {
	text, err := json.Marshal(Schema())
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	settings := 0
	var visit func(path string, node any)
	visit = func(path string, node any) {
		switch n := node.(type) {
		case []any:
			for _, v := range n {
				visit(path, v)
			}
		case map[string]any:
			properties, _ := n["properties"].(map[string]any)
			for name, p := range properties {
				settings++
				if d, _ := walk(p, []string{"description"}).(string); d == "" {
					t.Errorf("%s.%s has no description", path, name)
				}
				visit(path+"."+name, p)
			}
			for _, key := range []string{"items", "additionalProperties", "oneOf"} {
				visit(path, n[key])
			}
		}
	}
	visit("", doc)
	if settings < 100 {
		t.Errorf("only %d settings were seen", settings)
	}
}

// FuzzParse: damaged files give errors, never a panic.
func FuzzParse(f *testing.F) {
	for _, name := range files(f, append(shipped, "testdata/bad/*.yaml", "testdata/good/*.yaml")...) {
		f.Add(read(f, name))
	}
	for _, text := range strange {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { parses(t, text) })
}

// strange are texts that YAML's grammar has traps for.
var strange = []string{"name: &a [*a]", "name: &a *a", "<<: {a: 1}", "? {a: 1}\n: 2", "!!binary x", "- - - -", "\"",
	"name: !!int a", "*a : 1", "a: !x &b *b", "\t", "\x00", "{",
	"%YAML 1.2\n---\n", "name: |\n", "name: &a", "name: !!str", "source: !!map\n", "- &a", "&a", "!!str", "name: 1e999",
	"name: -", ": a", "? ", "<<: *a"}

func parses(t interface{ Errorf(string, ...any) }, text []byte) {
	j, err := Parse("job.yaml", text)
	if (j == nil) == (err == nil) {
		t.Errorf("job %v, error %v", j, err)
	}
}

// TestDamaged damages job files at random: a fuzz run that needs no build of its own.
func TestDamaged(t *testing.T) {
	var seeds [][]byte
	for _, name := range files(t, append(shipped, "testdata/bad/*.yaml", "testdata/good/*.yaml")...) {
		seeds = append(seeds, read(t, name))
	}
	rapid.Check(t, func(t *rapid.T) {
		text := bytes.Clone(rapid.SampledFrom(seeds).Draw(t, "file"))
		for range rapid.IntRange(1, 5).Draw(t, "damages") {
			from := rapid.IntRange(0, len(text)).Draw(t, "from")
			to := min(len(text), from+rapid.IntRange(0, 12).Draw(t, "length"))
			patch := rapid.SampledFrom([]string{"", "\n", "  ", "\t", ":", ": ", "- ", "[", "]", "{", "}", "\"", "'",
				"&a ", "*a", "<<: ", "|\n", ">\n", "!!int ", "!!str ", "#", "? ", "---\n", "\x00", "\xff", "ü", "7",
				"null"}).Draw(t, "patch")
			text = slices.Concat(text[:from], []byte(patch), text[to:])
		}
		parses(t, text)
	})
}
