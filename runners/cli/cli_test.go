package cli

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/runners/services"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const assetsFile = `{"id":"a","title":"Sunset","size":10,"tags":["x","y"],"payload":"{\"format\":\"jpg\"}"}
{"id":"b","title":"Dawn","size":20,"tags":["x"],"payload":"no json"}
{"id":"c","title":"Noon","size":30,"tags":["z"],"payload":"{}"}
{"id":"d","title":null,"size":40,"tags":["x","y","z"],"payload":"{}"}
{"id":"e","title":"Dusk","size":50,"tags":[],"payload":"{}"}
`

// exampleJob has something of everything that needs no server.
const exampleJob = `
name: example
source:
  files: {path: in.jsonl, key: [id], fields: {id: text, title: text, size: bigint, tags: list<text>, payload: text}}
transforms:
  - derive:
      format: string(json(payload)[?"format"].orValue("unknown"))
  - explode: {field: tags, as: tag}
sinks:
  all:
    files: {path: out/all}
  large:
    when: size > 15
    transforms:
      - project: {keep: [id, tags_index, tag, size, title]}
      - derive: {kind: "tag == 'y' ? string(json(title)) : tag"}
    files: {path: out/large}
dead_letters:
  files: {path: out/dead}
`

func newExample(t *testing.T) *scene {
	s := newScene(t, nil)
	s.write("in.jsonl", assetsFile)
	s.write("job.yaml", exampleJob)
	return s
}

func TestHelp(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"--help"}, &out, &errs); code != fail.ExitDone || errs.Len() > 0 {
		t.Errorf("exit code %d, %s", code, &errs)
	}
	for _, args := range [][]string{{"run", "--help"}, {"validate", "--help"}, {"plan", "--help"},
		{"sample", "--help"}} {
		out.WriteString("\n--- reprise " + strings.Join(args, " ") + "\n")
		if code := run(args, &out, &errs); code != fail.ExitDone || errs.Len() > 0 {
			t.Errorf("%q: exit code %d, %s", args, code, &errs)
		}
	}
	newScene(t, nil).golden("help.golden", out.String())
}

func TestWithoutArgumentsTheHelpIsShown(t *testing.T) {
	var help, out, errs bytes.Buffer
	run([]string{"--help"}, &help, &errs)
	if code := run(nil, &out, &errs); code != fail.ExitDone || errs.Len() > 0 || out.String() != help.String() {
		t.Errorf("exit code %d, %s%s", code, &out, &errs)
	}
}

// What a run was planned to read is an estimate: a run that is done says how much it has read, and one that is not is
// never wholly there.
func TestStatusOfARunThatIsDone(t *testing.T) {
	for _, c := range []struct {
		state journal.State
		read  int64
		want  string
	}{
		{journal.Complete, 198_980, "done, attempt 1, 198,980 rows\n"}, {journal.Running, 198_980,
			"running, attempt 1, 94 % of about 209,616 rows\n"},
		{journal.Running, 300_000, "running, attempt 1, 99 % of about 209,616 rows\n"},
	} {
		var out bytes.Buffer
		printStatus(&out, &status{Report: &flow.Report{Run: "r", Job: "j", State: c.state, Attempt: 1, Read: c.read},
			Rows: 209_616}, "")
		if first, _, _ := strings.Cut(out.String(), "\n"); first+"\n" != "run r of j: "+c.want {
			t.Errorf("%s, want %s", first, c.want)
		}
	}
}

func TestWrongCommandLine(t *testing.T) {
	var got strings.Builder
	for _, args := range [][]string{
		{"rum", "job.yaml"}, {"run"}, {"run", "job.yaml", "--reprot", "x"}, {"run", "job.yaml", "--runner", "spark"},
		{"run", "job.yaml", "--runner", "flink"}, {"run", "no-such.yaml"}, {"plan", "job.yaml", "--top", "many"},
		{"transforms", "explod"},
	} {
		var out, errs bytes.Buffer
		if code := run(args, &out, &errs); code != fail.ExitJob || out.Len() > 0 {
			t.Errorf("%q: exit code %d, %s", args, code, &out)
		}
		got.WriteString("$ reprise " + strings.Join(args, " ") + "\n" + errs.String() + "\n")
	}
	newScene(t, nil).golden("command-line.golden", got.String())
}

func TestRun(t *testing.T) {
	t.Parallel()
	s := newExample(t)
	r := s.want(fail.ExitDone, "run", "job.yaml", "--report", "report.json")
	s.golden("report.golden", r.out)

	report := s.report()
	if report.Read != 5 || report.DeadLetters != 2 || len(report.Faults) > 0 || len(report.Sinks) != 2 {
		t.Errorf("report %+v", report)
	}
	for name, sink := range report.Sinks {
		var ended int64
		for _, n := range sink.Outcomes {
			ended += n
		}
		if sink.Read+sink.Made != ended {
			t.Errorf("%s: %d read and %d made, but %d ended", name, sink.Read, sink.Made, ended)
		}
		if lines := s.lines("out/" + name + "/*.jsonl"); int64(len(lines)) != sink.Outcomes[record.Written] ||
			*sink.Committed != sink.Outcomes[record.Written] {
			t.Errorf("%s: %d lines are there; the report tells of %d written, %d committed", name, len(lines),
				sink.Outcomes[record.Written], *sink.Committed)
		}
	}
	s.golden("written.golden",
		strings.Join(slices.Concat(s.lines("out/all/*.jsonl"), []string{"---"}, s.lines("out/large/*.jsonl")),
			"\n")+"\n")

	var letters []string
	for _, line := range s.lines("out/dead/*.jsonl") {
		var l struct{ Key, Step, Sink, Class, Code, Message string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		letters = append(letters, strings.Join([]string{l.Key, l.Step, l.Sink, l.Class, l.Code, l.Message}, " | "))
	}
	slices.Sort(letters)
	s.golden("dead.golden", strings.Join(letters, "\n")+"\n")
	if diff := cmp.Diff([]journal.State{journal.Complete}, s.states()); diff != "" {
		t.Errorf("journal: %s", diff)
	}
}

// TestExitCodes shows 2, 4 and 5; TestUnreachable shows 3, TestSignal 130.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	s := newExample(t)
	s.write("limit.yaml", exampleJob+"limits: {dead_letters: 20%}\n")
	r := s.want(fail.ExitDead, "run", "limit.yaml")
	s.golden("exit-4.golden", r.out+"\n"+r.err)
	s.write("wrong.yaml", strings.Replace(exampleJob, "size, title]", "size]", 1))
	r = s.want(fail.ExitJob, "run", "wrong.yaml")
	s.golden("exit-2.golden", r.out+r.err)
}

func TestUnbalanced(t *testing.T) {
	// No job comes here by itself: the verdict on a report is what can be shown.
	err := verdict(newJob(t), &flow.Report{Run: "r1", Job: "example", State: journal.Unbalanced,
		Faults: []string{"sink a: 5 read and 0 made, but 4 ended"}})
	if fail.ExitOf(err) != fail.ExitUnbalanced {
		t.Errorf("exit code %d, want %d", fail.ExitOf(err), fail.ExitUnbalanced)
	}
	var out strings.Builder
	tell(&out, err)
	newScene(t, nil).golden("exit-5.golden", out.String())
}

func TestValidate(t *testing.T) {
	t.Parallel()
	s := newExample(t)
	s.write("faults.yaml", `name: my job
source:
  files: {path: in.jsonl, keys: [id], max_line: huge}
transforms:
  - filtr: size > 10
  - filter: size > 10
    cast: {size: int}
sinks:
  lake:
    iceberg:
      catalog: {sqlite: catalog.db, warehouse: warehouse}
      table: assets
      create: yes please
  both:
    files: {path: out, format: csv}
    kafka: {brokers: [kafka], topic: assets}
  secret:
    elasticsearch: {urls: ["http://search:9200"], index: assets, user: me, password: plain}
limits: {dead_letters: few}
`)
	r := s.want(fail.ExitJob, "validate", "faults.yaml")
	s.golden("validate.golden", r.out+r.err)
	s.write("yaml.yaml", "name: [x\nsource: {\n")
	r = s.want(fail.ExitJob, "validate", "yaml.yaml")
	s.golden("validate-yaml.golden", r.out+r.err)
	before := s.files()
	s.want(fail.ExitDone, "validate", "job.yaml")
	s.want(fail.ExitDone, "validate", "--connect", "job.yaml")
	s.unchanged(before)
}

func TestPlanAndSample(t *testing.T) {
	t.Parallel()
	s := newExample(t)
	before := s.files()
	s.golden("plan.golden", s.want(fail.ExitDone, "plan", "job.yaml").out)
	s.golden("sample.golden", s.want(fail.ExitDone, "sample", "job.yaml").out)
	if r := s.want(fail.ExitDone, "sample", "job.yaml", "--rows", "2"); !strings.Contains(r.out,
		"2 records; nothing was written") {
		t.Errorf("--rows 2 gives %s", r.out)
	}
	s.unchanged(before)
}

func TestPlanOfComposedSource(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	s.write("titles.jsonl", `{"kind": "image", "label": "picture"}`+"\n")
	s.write("job.yaml", `
name: composed
source:
  join:
    of: {union: {of: [{corpus: {rows: 300}}, {keys: {from: {corpus: {rows: 100, seed: 2}}, of: {corpus: {rows: 100, seed: 2}}, missing: filter}}]}}
    with:
      kinds: {of: {files: {path: titles.jsonl, key: [kind]}}, on: {asset_type: kind}, fields: {label: label}, broadcast: true}
      again: {of: {corpus: {rows: 300}}, on: {asset_type: asset_type, bucket: bucket, id: id}, fields: {same_title: title}}
sinks: {out: {files: {path: out}}}
`)
	s.golden("plan-composed.golden", s.want(fail.ExitDone, "plan", "job.yaml", "--speed", "100").out)
	s.write("job.yaml", strings.Replace(string(s.files()["job.yaml"]), "broadcast: true", "broadcast: true, memory: 10",
		1))
	s.golden("plan-too-large.golden", s.want(fail.ExitJob, "plan", "job.yaml").err)
}

// unchanged checks that the folder is as it was: no output, no journal.
func (s *scene) unchanged(before map[string]string) {
	s.t.Helper()
	if diff := cmp.Diff(before, s.files()); diff != "" {
		s.t.Errorf("something was written: %s", diff)
	}
}

// What one sink commits would take away what another has not committed yet.
func TestTwoSinksDoNotCommitToOnePlace(t *testing.T) {
	s := newExample(t)
	s.write("job.yaml", strings.Replace(exampleJob, "path: out/all", "path: ./out/large", 1))
	before := s.files()
	r := s.want(fail.ExitJob, "run", "job.yaml")
	if !strings.Contains(r.err, "sink all writes to the folder out/large as well") {
		t.Error(r.err)
	}
	s.unchanged(before)
	s.write("job.yaml", strings.Replace(exampleJob, "path: out/dead", "path: out/all", 1))
	s.want(fail.ExitJob, "validate", "--connect", "job.yaml")
}

func TestSchema(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"schema"}, &out, &errs); code != fail.ExitDone {
		t.Fatalf("exit code %d, %s", code, &errs)
	}
	document, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("job.schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("job.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var jobs []string
	for _, pattern := range []string{"../../testdata/jobs/*.yaml", "../../pipelines/usecases/*/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no jobs in %s: %v", pattern, err)
		}
		jobs = append(jobs, found...)
	}
	accepts := func(text []byte) error {
		asJSON, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	for _, name := range jobs {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := accepts(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := accepts(append(text, "limit: 3\n"...)); err == nil {
			t.Errorf("%s: an unknown key is accepted", name)
		}
		if code := run([]string{"validate", name}, &out, &errs); code != fail.ExitDone {
			t.Errorf("%s: exit code %d, %s", name, code, &errs)
		}
	}
}

func TestTransforms(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"transforms"}, &out, &errs); code != fail.ExitDone {
		t.Fatalf("exit code %d, %s", code, &errs)
	}
	for _, transform := range transforms.All() {
		name := transform.Name
		if transform.Example.Config == "" {
			continue // a test's own
		}
		if !strings.Contains(out.String(), "\n"+name+" ") && !strings.HasPrefix(out.String(), name+" ") {
			t.Errorf("%s is not listed", name)
		}
		var one bytes.Buffer
		if code := run([]string{"transforms", name}, &one, &errs); code != fail.ExitDone ||
			!strings.Contains(one.String(), "Example") {
			t.Errorf("%s: exit code %d, %s%s", name, code, &one, &errs)
		}
	}
	out.Reset()
	run([]string{"transforms", "explode"}, &out, &errs)
	newScene(t, nil).golden("transforms-explode.golden", out.String())
}

// TestSignal stops a run that would take very long.
func TestSignal(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	const stopJob = `
name: endless
source: {corpus: {rows: $ROWS}}
sinks:
  files: {files: {path: out}}
  lake: {iceberg: {catalog: {sqlite: catalog.db, warehouse: warehouse}, table: media.assets, create: true}}
`
	s.vars["ROWS"] = "50000000"
	s.write("job.yaml", stopJob)
	cmd, out, errs := s.command(t.Context(), "run", "job.yaml")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for len(s.lines("out/*.part")) == 0 {
		select {
		case err := <-ended:
			t.Fatalf("ended by itself: %v\n%s%s", err, out, errs)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		<-ended
		t.Fatalf("does not end\n%.20000s", errs)
	}
	if code := cmd.ProcessState.ExitCode(); code != fail.ExitStopped {
		t.Errorf("exit code %d, want %d\n%s", code, fail.ExitStopped, errs)
	}
	s.golden("exit-130.golden", errs.String())
	if diff := cmp.Diff([]journal.State{journal.Stopped}, s.states()); diff != "" {
		t.Errorf("journal: %s", diff)
	}
	for name := range maps.Keys(s.files()) {
		if strings.HasPrefix(name, "out/") && !strings.HasSuffix(name, ".part") {
			t.Errorf("%s can be seen", name)
		}
	}
	lake := services.IcebergTable{Catalog: filepath.Join(s.dir, "catalog.db"), Table: "media.assets"}
	if snapshots := services.IcebergSnapshots(t, lake); len(snapshots) != 0 {
		t.Errorf("the table has snapshots: %+v", snapshots)
	}

	s.vars["ROWS"] = "500"
	s.write("job.yaml", stopJob)
	s.want(fail.ExitDone, "run", "job.yaml", "--report", "report.json")
	if diff := cmp.Diff([]journal.State{journal.Complete, journal.Stopped}, s.states()); diff != "" {
		t.Errorf("journal: %s", diff)
	}
	sinks := s.report().Sinks
	for name, n := range map[string]int{"files": len(s.lines("out/*.jsonl")),
		"lake": len(services.ReadIceberg(t, lake))} {
		if written := sinks[name].Outcomes[record.Written]; written < 400 || int64(n) != written {
			t.Errorf("%s: %d are there, %d written", name, n, written)
		}
	}
}

// TestWorker starts the command as Beam does: it is a worker then, and asks for its work.
func TestWorker(t *testing.T) {
	t.Parallel()
	s := newExample(t)
	before := s.files()
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	asked := make(chan error, 1)
	go func() {
		c, err := control.Accept()
		if err == nil {
			c.Close()
		}
		asked <- err
	}()
	cmd, out, errs := s.command(t.Context(), "--worker=true", "--id=1-1", "--logging_endpoint=127.0.0.1:1",
		"--control_endpoint="+control.Addr().String(), "--options={}")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-asked:
		if err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		<-ended
	case err := <-ended:
		t.Errorf("ends without asking for work: %v", err)
	}
	if strings.Contains(out.String()+errs.String(), "reprise") {
		t.Errorf("does what the command line does: %s%s", out, errs)
	}
	s.unchanged(before)
}

func newJob(t *testing.T) *job.Job {
	t.Helper()
	j, err := job.Parse("job.yaml", []byte(exampleJob))
	if err != nil {
		t.Fatal(err)
	}
	return j
}
