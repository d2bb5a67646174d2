package elasticsearchio

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/record"
)

// loadState is what the server tells of an index's settings, and whether anything is noted there.
func (s server) loadState(index string) string {
	s.t.Helper()
	var got map[string]struct {
		Settings map[string]any
		Mappings struct {
			Meta struct {
				Reprise struct{ Load json.RawMessage }
			} `json:"_meta"`
		}
	}
	s.get("/"+index+"?flat_settings=true", &got)
	text := fmt.Sprint(got[index].Settings[settingRefresh], " ", got[index].Settings[settingReplicas])
	if got[index].Mappings.Meta.Reprise.Load != nil {
		text += " noted"
	}
	return text
}

func loading(c SinkConfig, refresh string, replicas int, existing bool) SinkConfig {
	c.Load = &Load{Refresh: refresh, Replicas: &replicas, Existing: existing}
	return c
}

var (
	runA = connector.Run{ID: "a", Job: "job"}
	runB = connector.Run{ID: "b", Job: "job"}
)

// loader calls Load and Unload as a process of its own would.
type loader struct {
	t *testing.T
	c SinkConfig
}

func (l loader) load(run connector.Run, attempt int) []string {
	l.t.Helper()
	s := NewSink(l.c)
	defer s.Close()
	told, err := s.Load(l.t.Context(), run, attempt)
	if err != nil {
		l.t.Fatal(err)
	}
	return told
}

func (l loader) unload(run connector.Run, attempt int) []string {
	l.t.Helper()
	s := NewSink(l.c)
	defer s.Close()
	told, err := s.Unload(l.t.Context(), run, attempt)
	if err != nil {
		l.t.Fatal(err)
	}
	return told
}

func TestLoad(t *testing.T) {
	es := shared(t)
	// made is an index that run a has made, with some settings.
	made := func(t *testing.T, settings string) loader {
		c := loading(es.config(es.index(name(t))), "off", 0, false)
		c.Create = &Create{}
		if err := json.Unmarshal([]byte(settings), &c.Create.Settings); err != nil {
			t.Fatal(err)
		}
		s := NewSink(c)
		defer s.Close()
		if err := s.Prepare(t.Context(), runA, iotest.AssetSchema(), false); err != nil {
			t.Fatal(err)
		}
		return loader{t, c}
	}
	want := func(t *testing.T, l loader, want string) {
		t.Helper()
		if got := es.loadState(l.c.Index); got != want {
			t.Errorf("the index has %q, want %q", got, want)
		}
	}
	t.Run("put back", func(t *testing.T) {
		for settings, was := range map[string]string{`{}`: "<nil> 1",
			`{"refresh_interval":"5s","number_of_replicas":2}`: "5s 2", `{"index":{"refresh_interval":"-1"}}`: "-1 1"} {
			l := made(t, settings)
			want(t, l, was)
			told := l.load(runA, 1)
			want(t, l, "-1 0 noted")
			if len(told) != 1 || !strings.Contains(told[0], "refresh_interval -1, was") {
				t.Errorf("told %q", told)
			}
			l.load(runA, 1)
			want(t, l, "-1 0 noted")
			l.unload(runA, 1)
			want(t, l, was)
			if told := l.unload(runA, 1); told != nil {
				t.Errorf("the second time it told %q", told)
			}
			want(t, l, was)
		}
	})
	t.Run("killed and resumed", func(t *testing.T) {
		l := made(t, `{"refresh_interval":"5s"}`)
		l.load(runA, 1)
		l.load(runA, 2) // by another process, after the first was killed
		if told := l.unload(runA, 1); told != nil {
			t.Errorf("the attempt that was overtaken put back %q", told)
		}
		want(t, l, "-1 0 noted")
		l.unload(runA, 2)
		want(t, l, "5s 1")
	})
	t.Run("killed, and another run came", func(t *testing.T) {
		l := made(t, `{"refresh_interval":"5s"}`)
		l.load(runA, 1)
		other := loader{t, loading(l.c, "30s", 0, true)}
		other.load(runB, 1)
		want(t, l, "30s 0 noted")
		l.unload(runA, 1)
		want(t, l, "30s 0 noted")
		other.unload(runB, 1)
		want(t, l, "5s 1")
	})
	t.Run("killed between the note and the settings", func(t *testing.T) {
		l := made(t, `{"refresh_interval":"5s"}`)
		l.load(runA, 1)
		es.must("PUT", "/"+l.c.Index+"/_settings", `{"index.refresh_interval":"5s","index.number_of_replicas":1}`)
		l.load(runA, 2)
		want(t, l, "-1 0 noted")
		l.unload(runA, 2)
		want(t, l, "5s 1")
	})
	t.Run("somebody else changes it", func(t *testing.T) {
		l := made(t, `{"refresh_interval":"5s"}`)
		l.load(runA, 1)
		es.must("PUT", "/"+l.c.Index+"/_settings", `{"index.refresh_interval":"7s"}`)
		if told := strings.Join(l.unload(runA, 1), ""); !strings.Contains(told, "refresh_interval stays 7s") {
			t.Errorf("told %q", told)
		}
		want(t, l, "7s 1")
	})
	t.Run("an index of others", func(t *testing.T) {
		index := es.index(name(t))
		es.must("PUT", "/"+index, `{"settings":{"refresh_interval":"5s"},"mappings":{"_meta":{"owner":"them"}}}`)
		l := loader{t, loading(es.config(index), "off", 0, false)}
		if told := l.load(runA, 1); told != nil {
			t.Errorf("told %q", told)
		}
		want(t, l, "5s 1")
		l.c.Load.Existing = true
		l.load(runA, 1)
		want(t, l, "-1 0 noted")
		l.unload(runA, 1)
		want(t, l, "5s 1")
		if text := string(es.must("GET", "/"+index+"/_mapping", nil)); !strings.Contains(text, `"owner":"them"`) {
			t.Errorf("the mapping has lost what stood there: %s", text)
		}
	})
	t.Run("the server sets the replicas", func(t *testing.T) {
		l := made(t, `{"refresh_interval":"5s","auto_expand_replicas":"0-1"}`)
		l.load(runA, 1)
		want(t, l, "-1 0 noted")
		l.unload(runA, 1)
		want(t, l, "5s 0")
	})
	t.Run("by a command", func(t *testing.T) {
		l := made(t, `{"refresh_interval":"5s"}`)
		l.load(runA, 1)
		s := NewSink(l.c)
		defer s.Close()
		if runs, err := s.Loading(t.Context()); err != nil || !cmp.Equal(runs, map[string]string{l.c.Index: "a"}) {
			t.Error(runs, err)
		}
		if _, err := s.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, l, "5s 1")
	})
	t.Run("gone", func(t *testing.T) {
		l := made(t, `{}`)
		l.load(runA, 1)
		es.must("DELETE", "/"+l.c.Index, nil)
		if told := l.unload(runA, 1); told != nil {
			t.Errorf("told %q", told)
		}
	})
}

// Indices whose names depend on the record are made by the writers, with the settings of the load.
func TestCreateByRecord(t *testing.T) {
	es, schema := shared(t), iotest.AssetSchema()
	prefix := name(t)
	c := loading(es.config(prefix+"-{asset_type}"), "off", 0, false)
	c.Create = &Create{Settings: map[string]any{"number_of_shards": 2, "refresh_interval": "5s"}}
	s := NewSink(c)
	defer s.Close()
	if err := s.Prepare(t.Context(), runA, schema, false); err != nil {
		t.Fatal(err)
	}
	records := iotest.Records(schema, 0, 40, iotest.Base)
	kinds := map[string]int{}
	for i, r := range records {
		kind := []string{"image", "video", "audio"}[i%3]
		r.Values[schema.Index("asset_type")] = record.String(kind)
		kinds[es.index(prefix+"-"+kind)]++
	}
	bad := iotest.Record(schema, 100, iotest.Base)
	bad.Values[schema.Index("asset_type")] = record.String("im*,age")
	got, err := writeTo(t, s, runA, append(records, bad)...)
	if err != nil {
		t.Fatal(err)
	}
	if all := outcomes(got); slices.ContainsFunc(all[:40], func(o string) bool { return o != "written" }) ||
		all[40] != "dead elasticsearch.index_name" {
		t.Error(all)
	}
	for index, n := range kinds {
		if got := es.loadState(index); got != "-1 0 noted" {
			t.Errorf("during the load %s has %q", index, got)
		}
		if got := es.count(index); got != n {
			t.Errorf("%s has %d documents, want %d", index, got, n)
		}
		if mapping := string(es.must("GET", "/"+index+"/_mapping/field/title", nil)); !strings.Contains(mapping,
			`"ignore_above":256`) {
			t.Errorf("%s has the mapping %s", index, mapping)
		}
	}
	l := loader{t, c}
	if told := l.load(runA, 2); len(told) != 3 {
		t.Errorf("the next attempt told %q", told)
	}
	l.unload(runA, 2)
	for index := range kinds {
		if got := es.loadState(index); got != "5s 1" {
			t.Errorf("after the load %s has %q", index, got)
		}
	}
	// Another job does not get in.
	_, err = write(t, c, records[0])
	wantError(t, err, "elasticsearch.not_empty", 2, prefix+"-", "made by the job job", "existing: true")
}

// writeTo is write through a sink of its own, for a run.
func writeTo(t *testing.T, s *Sink, run connector.Run, records ...*record.Record) ([]connector.Result, error) {
	t.Helper()
	at := map[*record.Record]int{}
	results := make([]connector.Result, len(records))
	for i, r := range records {
		at[r] = i
	}
	w, err := s.Open(context.WithoutCancel(t.Context()), run, records[0].Schema, func(all []connector.Result) {
		for _, r := range all {
			results[at[r.Record]] = r
		}
	})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(t.Context(), r); err != nil {
			return nil, err
		}
	}
	_, err = w.Flush(t.Context())
	return results, err
}
