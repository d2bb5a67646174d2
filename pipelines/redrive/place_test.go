package redrive

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Kept records go on behind the steps that they have passed, wherever others were put since; a job that has other
// steps there is refused.
func TestKeptRecordsGoOnBehindTheStepsTheyHavePassed(t *testing.T) {
	steps := func(text string) (specs []transforms.Spec) {
		if err := json.Unmarshal([]byte("["+text+"]"), &specs); err != nil {
			t.Fatal(err)
		}
		return specs
	}
	const drop, size, title = `{"project": {"drop": ["note"]}}`, `{"cast": {"size": "bigint"}}`,
		`{"derive": {"title": "title.trim()"}}`
	const other, more = `{"cast":{"size":"double"}}`, `{"set_defaults": {"size": "0"}}`
	of := func(shared, when, own string) *job.Job {
		return &job.Job{Transforms: steps(shared), Sinks: map[string]job.Sink{"search": {Route: job.Route{When: when,
			Transforms: steps(own)}}, "lake": {}}}
	}
	was := of(drop+","+size, "size > 1", title)
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "title", Type: record.Of(record.Text)},
		{Name: "note", Type: record.Of(record.Text)}, {Name: "size", Type: record.Of(record.Text)}}, "id")
	compiled, err := was.Compile(schema, transforms.Options{Now: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, sink, step string
		now              *job.Job
		want             string // the steps that are left, or what is wrong
	}{
		{"the step itself is mended", "", "transforms.1.cast", of(drop+","+other, "size > 1", title),
			"cast search:when,derive lake:"},
		{"by the label of an older release", "", "transform 2: cast", of(drop+","+other, "", title),
			"cast search:derive lake:"},
		{"a step is put before it", "", "transforms.1.cast", of(drop+","+more+","+size, "", ""),
			"set_defaults,cast search: lake:"},
		{"the step is gone", "", "transforms.1.cast", of(drop, "", ""), " search: lake:"},
		{"a step is put before one that was passed", "", "transforms.1.cast", of(more+","+drop+","+size, "", ""),
			"transforms.0 differs"},
		{"a step of the same kind is put before one that was passed", "", "transforms.1.cast", of(`{"project": {"drop": ["size"]}},`+drop+","+size, "", ""), "transforms.0 differs"},
		{"a step that was passed is mended", "", "transforms.1.cast", of(`{"project": {"drop": ["title"]}}`+","+size, "", ""), "cast search: lake:"},
		{"a condition", "search", "sink search when", of(drop+","+size, "size > 2", title), " search:when,derive"},
		{"a sink's own step", "search", "sink search transforms.0.derive", of(drop+","+size, "size > 1", more),
			" search:set_defaults"},
		{"a sink", "search", "sink search", of(drop+","+size, "size > 1", title+","+more), " search:set_defaults"},
		{"another condition before a sink's step", "search", "sink search", of(drop+","+size, "", title),
			"sinks.search.when differs"},
		{"a further step before a sink's condition", "search", "sink search",
			of(drop+","+size+","+more, "size > 1", title), "transforms.2 differs"},
		{"another step before a sink", "search", "sink search", of(drop+","+size, "size > 1", more),
			"sinks.search.transforms.0 differs"},
		{"no such step", "", "transforms.7.cast", was, `no step "transforms.7.cast"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, _, err := placeOf(c.sink, c.step, compiled)
			var rest *job.Job
			if err == nil {
				rest, err = from(c.now, was, at)
			}
			if err != nil {
				if !strings.Contains(err.Error(), c.want) || fail.ExitOf(err) != fail.ExitJob {
					t.Errorf("%v, want %s", err, c.want)
				}
				return
			}
			names := func(when string, specs []transforms.Spec) string {
				var all []string
				if when != "" {
					all = append(all, "when")
				}
				for _, s := range specs {
					all = append(all, s.Name)
				}
				return strings.Join(all, ",")
			}
			got := names("", rest.Transforms)
			for _, sink := range []string{"search", "lake"} {
				if s, ok := rest.Sinks[sink]; ok {
					got += " " + sink + ":" + names(s.When, s.Transforms)
				}
			}
			if got != c.want {
				t.Errorf("goes on with %q, want %q", got, c.want)
			}
		})
	}
}
