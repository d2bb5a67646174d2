package shadow

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"reprise/io/iotest"
	"reprise/pipelines/job"
	"reprise/transforms"
)

func compiled(t *testing.T, steps string) *job.Compiled {
	t.Helper()
	j, err := job.Parse("job.yaml",
		[]byte("name: x\nsource: {corpus: {rows: 1}}\ntransforms: "+steps+"\nsinks: {out: {files: {path: out}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := j.Compile(iotest.AssetSchema(), transforms.Options{Now: time.UnixMicro(iotest.Base)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each class is told where it is, and nothing else.
func TestClasses(t *testing.T) {
	const same = "[]"
	for _, c := range []struct {
		was, is string
		want    []Difference
	}{
		{same, same, nil},
		{same, `[{derive: {size: size}}]`, nil},
		{same, `[{derive: {size: size + 1}}]`, []Difference{{Field: "size", Class: Value, Count: 2}}},
		{same, `[{cast: {size: text}}]`, []Difference{{Field: "size", Class: Type, Count: 2}}},
		{same, `[{project: {drop: [size]}}]`, []Difference{{Field: "size", Class: OnlyOld, Count: 2}}},
		{same, `[{derive: {more: size}}]`, []Difference{{Field: "more", Class: OnlyNew, Count: 2}}},
		{same, `[{derive: {id: id + "x"}}]`, []Difference{{Class: Key, Count: 2}, {Field: "id", Class: Value, Count: 2}}},
		{same, `[{delete: "true"}]`, []Difference{{Class: Operation, Count: 2}}},
		{same, `[{delete: {when: "true", version: "5"}}]`, []Difference{{Class: Operation, Count: 2}, {Class: Version, Count: 2}}},
		{same, `[{filter: "false"}]`, []Difference{{Class: FilterNew, Count: 2}}},
		{`[{filter: "false"}]`, same, []Difference{{Class: FilterOld, Count: 2}}},
		{same, `[{filter: "int(title) > 0"}]`, []Difference{{Class: DeadNew, Count: 2}}},
		{`[{filter: "int(title) > 0"}]`, same, []Difference{{Class: DeadOld, Count: 2}}},
		{`[{filter: "int(title) > 0"}]`, `[{cast: {title: int}}]`, []Difference{{Class: DeadBoth, Count: 2}}},
		{same, `[{explode: {field: tags, as: tag}}]`, []Difference{{Class: OnlyNew, Count: 5}, {Class: OnlyOld, Count: 2}}},
	} {
		s := New(compiled(t, c.was), compiled(t, c.is))
		for n := range 2 {
			r := iotest.Record(iotest.AssetSchema(), n, iotest.Base)
			if err := s.Add(r, r); err != nil {
				t.Fatal(err)
			}
		}
		sink := s.Report().Sinks[0]
		if diff := cmp.Diff(c.want, sink.Differences, cmpopts.IgnoreFields(Difference{}, "Examples")); diff != "" {
			t.Errorf("%s → %s: %s", c.was, c.is, diff)
		}
		if equal := s.Report().Equal(); equal != (c.want == nil) {
			t.Errorf("%s → %s: equal: %t", c.was, c.is, equal)
		}
	}
}

// A row that one job does not find is a difference.
func TestMissingRow(t *testing.T) {
	s := New(compiled(t, "[]"), compiled(t, "[]"))
	if err := s.Add(iotest.Record(iotest.AssetSchema(), 1, iotest.Base), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(nil, iotest.Record(iotest.AssetSchema(), 2, iotest.Base)); err != nil {
		t.Fatal(err)
	}
	want := []Difference{{Class: OnlyNew, Count: 1}, {Class: OnlyOld, Count: 1}}
	if diff := cmp.Diff(want, s.Report().Sinks[0].Differences, cmpopts.IgnoreFields(Difference{},
		"Examples")); diff != "" {
		t.Error(diff)
	}
	if r := s.Report(); r.Sinks[0].Different != 2 || r.Rows != 2 {
		t.Errorf("%+v", r)
	}
}
