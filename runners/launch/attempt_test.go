package launch_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/runners/launch"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const attemptRows = 6000

// attempts is a job whose sinks differ in what they filter, make and refuse; some payloads are no JSON, and Iceberg
// takes no deletes.
const attempts = `
name: attempts
source: {corpus: {rows: %[2]d}}
transforms:
  - derive:
      format: string(json(payload)[?"format"].orValue("unknown"))
sinks:
  lines: {files: {path: "%[1]s/lines", meta: true, file_size: 200KiB}}
  tags:
    when: views > 100
    transforms: [{explode: {field: tags, as: tag}}, {project: {keep: [asset_type, bucket, id, tag, title]}}]
    files: {path: "%[1]s/tags"}
  lake: {iceberg: {catalog: {sqlite: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}, table: media.assets, create: true}}
dead_letters: {files: {path: "%[1]s/dead"}}
limits: {split_rows: %[3]d, readers: %[4]d, unfinished: "%[5]d", read_ahead: %[6]s}
journal: {sqlite: "%[1]s/journal.db"}
`

// tuned is the job with limits: rows of a split, readers, rows unfinished, bytes.
func tuned(dir string, limits ...any) string {
	return fmt.Sprintf(attempts, append([]any{dir, attemptRows}, limits...)...)
}

func parse(t *testing.T, text string) *job.Job {
	t.Helper()
	j, err := job.Parse("job.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func execute(t *testing.T, text string, watch runs.Watch) (run string, report *flow.Report, err error) {
	t.Helper()
	p, err := runs.Prepare(t.Context(), parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	report, err = launch.Runner{Name: "prism", Watch: watch}.Execute(t.Context(), p)
	return p.Run.ID, report, err
}

func resume(t *testing.T, j journal.Journal, run string, r runs.Resumption, watch runs.Watch) (*flow.Report, error) {
	t.Helper()
	p, report, err := launch.Runner{Name: "prism", Watch: watch}.Resume(t.Context(), j, run, r)
	if err == nil {
		p.Close()
	}
	return report, err
}

func open(t *testing.T, dir string) journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), journal.Config{SQLite: filepath.Join(dir, "journal.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// finished is how many rows a run has read and written down.
func finished(t *testing.T, j journal.Journal, run string) (read int64) {
	for d, err := range j.Finished(context.WithoutCancel(t.Context()), run) {
		if err != nil {
			t.Error(err)
		}
		if d.Sink == "" {
			read += d.Sum.Read
		}
	}
	return read
}

// meanwhile slows an attempt down and, once it has finished some rows more, does something.
func meanwhile(t *testing.T, more int64, do func(j journal.Journal, run string)) runs.Watch {
	return func(j journal.Journal, run string, _ int, _ journal.Total) func() {
		slow(t, j, run, 1000)
		least := finished(t, j, run) + more
		mine := open(t, filepath.Dir(parse(t, jobOf(t, j, run)).Journal.SQLite))
		go func() {
			for finished(t, mine, run) < least && t.Context().Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			do(mine, run)
		}()
		return nil
	}
}

// jobOf is the job file of a run; JSON is YAML.
func jobOf(t *testing.T, j journal.Journal, run string) string {
	t.Helper()
	info, err := j.Get(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return string(info.JobFile)
}

// slow lets a run read some records a second; 0: as many as it can.
func slow(t *testing.T, j journal.Journal, run string, rate float64) {
	t.Helper()
	err := j.SetControl(t.Context(), run, journal.Event{Kind: "throttle"}, func(c *journal.Control) {
		c.Rates = map[string]journal.Rate{journal.Source: {Records: rate}}
	})
	if err != nil {
		t.Error(err)
	}
}

func stop(t *testing.T) func(journal.Journal, string) {
	return func(j journal.Journal, run string) {
		if err := j.SetControl(t.Context(), run, journal.Event{Kind: "stop"},
			func(c *journal.Control) { c.Want = journal.Stop }); err != nil {
			t.Error(err)
		}
	}
}

// lines are those of all files of a folder, without what differs between runs, sorted.
func lines(t *testing.T, dir string) (all []string) {
	t.Helper()
	names, err := filepath.Glob(dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".part") {
			t.Errorf("%s is left behind", name)
		}
		in := bufio.NewScanner(bytes.NewReader(text))
		in.Buffer(nil, 8<<20)
		for in.Scan() {
			var line map[string]any
			if err := json.Unmarshal(in.Bytes(), &line); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, steady(t, line))
		}
	}
	slices.Sort(all)
	return all
}

func steady(t *testing.T, line map[string]any) string {
	t.Helper()
	if meta, ok := line["_meta"].(map[string]any); ok {
		delete(meta, "run")
	}
	for _, key := range []string{"run", "at", "id", "split",
		"record"} { // of dead letters; others have an asset's id in _meta, too
		if _, letter := line["code"]; letter {
			delete(line, key)
		}
	}
	text, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func lake(t *testing.T, dir string) (all []string) {
	t.Helper()
	for _, row := range services.ReadIceberg(t, services.IcebergTable{Catalog: dir + "/catalog.db",
		Table: "media.assets"}) {
		var line map[string]any
		if err := json.Unmarshal([]byte(row), &line); err != nil {
			t.Fatal(err)
		}
		delete(line, "_run")
		all = append(all, steady(t, line))
	}
	slices.Sort(all)
	return all
}

// result is all that a run leaves behind.
type result struct {
	Report *flow.Report
	Lines  map[string][]string
}

func resultOf(t *testing.T, dir string, r *flow.Report) result {
	t.Helper()
	return result{r, map[string][]string{"lines": lines(t, dir+"/lines"), "tags": lines(t, dir+"/tags"),
		"dead": lines(t, dir+"/dead"), "lake": lake(t, dir)}}
}

// TestStopAndResume stops a run twice and resumes it with other limits; what it leaves behind is what an undisturbed
// run leaves.
func TestStopAndResume(t *testing.T) {
	quiet, dir := t.TempDir(), t.TempDir()
	_, report, err := execute(t, tuned(quiet, 20000, 4, 2000, "32MiB"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := resultOf(t, quiet, report)
	if report.State != journal.Complete || report.DeadLetters == 0 ||
		len(want.Lines["dead"]) != int(report.DeadLetters) || report.Sinks["tags"].Made == 0 ||
		report.Sinks["tags"].Outcomes[record.Filtered] == 0 ||
		report.Sinks["lake"].Outcomes[record.Dead] == report.Sinks["lines"].Outcomes[record.Dead] {
		t.Fatalf("the undisturbed run shows little: %+v, %d dead letters", report, len(want.Lines["dead"]))
	}

	run, report, err := execute(t, tuned(dir, 700, 2, 600, "32MiB"), meanwhile(t, 1200, stop(t)))
	if err != nil || report.State != journal.Stopped || report.Read == want.Report.Read ||
		report.Sinks["lines"].Open == 0 {
		t.Fatalf("the first attempt: %+v, %v", report, err)
	}
	j := open(t, dir)
	// The plan is made once: the splits are those of before.
	report, err = resume(t, j, run, runs.Resumption{Job: parse(t, tuned(dir, 300, 7, 5000, "1MiB"))}, meanwhile(t, 1000,
		stop(t)))
	if err != nil || report.State != journal.Stopped || report.Read == want.Report.Read || report.Attempt != 2 {
		t.Fatalf("the second attempt: %+v, %v", report, err)
	}
	slow(t, j, run, 0)
	report, err = resume(t, j, run, runs.Resumption{Job: parse(t, tuned(dir, 300, 1, 1000, "100KiB"))}, nil)
	if err != nil || report.State != journal.Complete || report.Attempt != 3 {
		t.Fatalf("the third attempt: %+v, %v", report, err)
	}
	if diff := cmp.Diff(want, resultOf(t, dir, report), cmpopts.IgnoreFields(flow.Report{}, "Run", "Attempt",
		"Splits")); diff != "" {
		t.Errorf("undisturbed -, resumed +: %.3000s", diff)
	}
	if _, err := resume(t, j, run, runs.Resumption{}, nil); fail.CodeOf(err) != "run.done" {
		t.Errorf("it can be resumed again: %v", err)
	}
}

// TestFenced begins another attempt while one goes on, as if that had been lost out of sight: it ends, and changes
// nothing any more.
func TestFenced(t *testing.T) {
	dir := t.TempDir()
	run, _, err := execute(t, tuned(dir, 700, 2, 600, "32MiB"), meanwhile(t, 1000, func(j journal.Journal, run string) {
		if _, err := j.Attempt(t.Context(), run); err != nil {
			t.Error(err)
		}
	}))
	if fail.CodeOf(err) != "journal.fenced" {
		t.Fatalf("the attempt that is over ends with: %v", err)
	}
	j := open(t, dir)
	if info, err := j.Get(t.Context(), run); err != nil || info.State != journal.Running || info.Attempt != 2 {
		t.Errorf("the attempt that is over leaves the run %s at attempt %d, %v", info.State, info.Attempt, err)
	}
	slow(t, j, run, 0)
	report, err := resume(t, j, run, runs.Resumption{}, nil)
	if err != nil || report.State != journal.Complete || report.Read != report.Sinks["lines"].Outcomes.Total() {
		t.Fatalf("the next: %+v, %v", report, err)
	}
	if got := lines(t, dir+"/lines"); int64(len(got)) != report.Sinks["lines"].Outcomes[record.Written] ||
		len(slices.Compact(got)) != len(lines(t, dir+"/lines")) {
		t.Errorf("%d lines, not as the report says or some twice: %+v", len(got), report)
	}
}

// TestChanged refuses to go on with another job, unless forced to.
func TestChanged(t *testing.T) {
	dir := t.TempDir()
	run, _, err := execute(t, tuned(dir, 700, 2, 600, "32MiB"), meanwhile(t, 1000, stop(t)))
	if err != nil {
		t.Fatal(err)
	}
	j := open(t, dir)
	slow(t, j, run, 0)
	other := strings.Replace(tuned(dir, 700, 2, 600, "32MiB"), `"unknown"`, `"none"`, 1)
	_, err = resume(t, j, run, runs.Resumption{Job: parse(t, other)}, nil)
	if fail.CodeOf(err) != "run.changed" || !strings.Contains(err.Error(), "Transforms.0") || !strings.Contains(err.Error(), `\"none\"`) {
		t.Errorf("another job: %v", err)
	}
	report, err := resume(t, j, run, runs.Resumption{Job: parse(t, other), Force: true}, nil)
	if err != nil || report.State != journal.Complete || report.Read != report.Sinks["lines"].Outcomes.Total() {
		t.Errorf("forced: %+v, %v", report, err)
	}
}

// TestOneSink resumes a run for one of its sinks alone, then for the others.
func TestOneSink(t *testing.T) {
	dir := t.TempDir()
	run, _, err := execute(t, tuned(dir, 700, 2, 600, "32MiB"), meanwhile(t, 1000, stop(t)))
	if err != nil {
		t.Fatal(err)
	}
	j := open(t, dir)
	slow(t, j, run, 0)
	report, err := resume(t, j, run, runs.Resumption{Sinks: []string{"tags"}}, nil)
	if err != nil || report.State != journal.Incomplete || report.Sinks["tags"].Open != 0 ||
		report.Sinks["lines"].Open == 0 {
		t.Fatalf("one sink: %+v, %v", report, err)
	}
	if report, err = resume(t, j, run, runs.Resumption{}, nil); err != nil || report.State != journal.Complete ||
		len(report.Faults) > 0 {
		t.Fatalf("the others: %+v, %v", report, err)
	}
	for name, s := range report.Sinks {
		if s.Read != report.Read || s.Read+s.Made != s.Outcomes.Total() {
			t.Errorf("%s: %+v of %d read", name, s, report.Read)
		}
	}
	if _, err := resume(t, j, run, runs.Resumption{Sinks: []string{"none"}}, nil); fail.CodeOf(err) != "run.done" {
		t.Errorf("after its end: %v", err)
	}
}

// TestAfter lets a sink come after another one, in a run that is stopped in between: whatever moment that is, it has
// finished nothing that the other has not, and it never gets what failed there.
func TestAfter(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(tuned(dir, 700, 2, 600, "32MiB"), "  lines: {files:", "  lines: {after: [lake], files:", 1)
	run, report, err := execute(t, text, meanwhile(t, 1200, stop(t)))
	if err != nil || report.State != journal.Stopped {
		t.Fatalf("the first attempt: %+v, %v", report, err)
	}
	j := open(t, dir)
	early := func() {
		t.Helper()
		rows := map[string][]journal.Done{}
		for d, err := range j.Finished(t.Context(), run) {
			if err != nil {
				t.Fatal(err)
			}
			rows[d.Sink] = append(rows[d.Sink], d)
		}
		for _, d := range rows["lines"] {
			if !slices.ContainsFunc(rows["lake"], func(first journal.Done) bool {
				return first.Partition == d.Partition && bytes.Compare(first.Start, d.Start) <= 0 &&
					(first.End == nil || d.End != nil && bytes.Compare(d.End, first.End) <= 0)
			}) {
				t.Errorf("%s %x to %x is finished at the sink that comes after alone", d.Partition, d.Start, d.End)
			}
		}
		if len(rows["lines"]) == 0 {
			t.Error("the sink that comes after has got nothing")
		}
	}
	early()
	slow(t, j, run, 0)
	if report.Sinks["lake"].Open > 0 {
		if _, err := resume(t, j, run, runs.Resumption{Sinks: []string{"lines"}},
			nil); fail.CodeOf(err) != "run.order" {
			t.Errorf("the sink that comes after alone: %v", err)
		}
	}
	// Now what failed before is known from the journal alone.
	if report, err = resume(t, j, run, runs.Resumption{Sinks: []string{"lake"}}, nil); err != nil ||
		report.Sinks["lake"].Open != 0 {
		t.Fatalf("the first sink alone: %+v, %v", report, err)
	}
	early()
	if report, err = resume(t, j, run, runs.Resumption{}, nil); err != nil || report.State != journal.Complete {
		t.Fatalf("the rest: %+v, %v", report, err)
	}
	refused, kept := map[string]bool{}, map[string]bool{}
	for l, err := range j.Letters(t.Context(), run, journal.LetterFilter{}) {
		switch {
		case err != nil:
			t.Fatal(err)
		case l.Sink == "lake":
			refused[l.Key] = true
		case l.Sink == "lines" && l.Code == "sink.after":
			kept[l.Key] = true
		}
	}
	if diff := cmp.Diff(refused, kept); diff != "" || len(refused) == 0 {
		t.Errorf("what failed at the first sink -, what did not get to the other +: %s", diff)
	}
}

// TestCanary lets a run try itself out on parts of the source: it waits where it is told to, pauses where too much
// fails, and what it leaves behind is what a run without stages leaves.
func TestCanary(t *testing.T) {
	quiet, dir := t.TempDir(), t.TempDir()
	_, report, err := execute(t, tuned(quiet, 700, 4, 2000, "32MiB"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := resultOf(t, quiet, report)

	run, report, err := execute(t, tuned(dir, 700, 4, 2000,
		"32MiB")+"canary: {stages: [1, 10, 40], dead_letters: 50%, wait: true}\n", nil)
	if err != nil || report.State != journal.Paused || report.Stage != 1 || report.Read == 0 {
		t.Fatalf("the first stage: %+v, %v", report, err)
	}
	j, read := open(t, dir), report.Read
	for _, stage := range []float64{10, 40} {
		if report, err = resume(t, j, run, runs.Resumption{}, nil); err != nil || report.State != journal.Paused ||
			report.Stage != stage || report.Read <= read || report.Read >= want.Report.Read {
			t.Fatalf("the stage of %g %% after %d rows: %+v, %v", stage, read, report, err)
		}
		read = report.Read
	}
	if report, err = resume(t, j, run, runs.Resumption{}, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, resultOf(t, dir, report), cmpopts.IgnoreFields(flow.Report{}, "Run",
		"Attempt")); diff != "" {
		t.Errorf("without stages -, with +: %.3000s", diff)
	}

	strict := t.TempDir()
	run, report, err = execute(t, tuned(strict, 700, 4, 2000,
		"32MiB")+"canary: {stages: [30, 60], dead_letters: \"0\"}\n", nil)
	if err != nil || report.State != journal.Paused || report.Stage != 30 || !strings.Contains(report.Reason, "30 %") {
		t.Fatalf("dead letters: %+v, %v", report, err)
	}
	mild := tuned(strict, 700, 4, 2000, "32MiB") + "canary: {stages: [30, 60], dead_letters: 50%}\n"
	if report, err = resume(t, open(t, strict), run, runs.Resumption{Job: parse(t, mild)}, nil); err != nil ||
		report.State != journal.Complete || report.Attempt != 3 {
		t.Errorf("the rest, by a milder rule: %+v, %v", report, err)
	}
}

// TestBrokenSink takes the folder of a sink away, which ends the run; once it is back the run goes on.
func TestBrokenSink(t *testing.T) {
	dir := t.TempDir()
	folder, away := dir+"/lines", dir+"/away"
	run, _, err := execute(t, tuned(dir, 700, 2, 600, "32MiB"), meanwhile(t, 1000, func(journal.Journal, string) {
		if err := os.Rename(folder, away); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(folder, nil, 0o600); err != nil {
			t.Error(err)
		}
	}))
	if fail.CodeOf(err) != "files.write" || !strings.Contains(err.Error(), "check the disk") {
		t.Fatalf("without the folder: %v", err)
	}
	j := open(t, dir)
	if info, err := j.Get(t.Context(), run); err != nil || info.State != journal.Failed {
		t.Errorf("the run is %s, %v", info.State, err)
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, folder); err != nil {
		t.Fatal(err)
	}
	slow(t, j, run, 0)
	report, err := resume(t, j, run, runs.Resumption{}, nil)
	if err != nil || report.State != journal.Complete || int64(len(lines(t,
		folder))) != report.Sinks["lines"].Outcomes[record.Written] {
		t.Fatalf("mended: %+v, %v", report, err)
	}
}

// TestErrorBudget stops a run whose transforms fail for every record, for all sinks or for one of them; a mended job
// goes on.
func TestErrorBudget(t *testing.T) {
	const broken = `{derive: {title: 'string(json("no JSON")["title"])'}}`
	for name, c := range map[string]struct{ good, bad string }{
		"all sinks": {"transforms:\n", "transforms:\n  - " + broken + "\n"},
		"one sink":  {"transforms: [", "transforms: [" + broken + ", "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mended := tuned(dir, 700, 2, 600, "32MiB")
			run, report, err := execute(t, strings.Replace(mended, c.good, c.bad, 1), nil)
			if err != nil || report.State != journal.Paused || !strings.Contains(report.Reason,
				"of the last 30 records") || report.Read > attemptRows/2 {
				t.Fatalf("every record is dead: %+v, %v", report, err)
			}
			j := open(t, dir)
			before := report.DeadLetters
			report, err = resume(t, j, run, runs.Resumption{Job: parse(t, mended), Force: true}, nil)
			if err != nil || report.State != journal.Complete || report.DeadLetters < before || report.Reason != "" {
				t.Fatalf("mended: %+v, %v", report, err)
			}
			for name, s := range report.Sinks {
				if s.Read != report.Read || s.Read+s.Made != s.Outcomes.Total() {
					t.Errorf("%s: %+v of %d read", name, s, report.Read)
				}
			}
			if got := len(lines(t, dir+"/dead")); int64(got) != report.DeadLetters {
				t.Errorf("%d dead letters are in the queue, %d in the report", got, report.DeadLetters)
			}
		})
	}
}
