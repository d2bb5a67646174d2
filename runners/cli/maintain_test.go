package cli

import (
	"fmt"
	"strings"
	"testing"
)

// Two runs of an upsert leave one row of each key; compact and expire show what they would do, and do it when told.
func TestCompactAndExpire(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	job := func(name, mode string) {
		s.write(name, `
name: assets
source: {files: {path: in.jsonl, fields: {id: text, size: int}, key: [id]}}
sinks:
  lake: {iceberg: {catalog: {sqlite: catalog.db, warehouse: lake}, table: media.assets, create: true, mode: `+mode+`}}
`)
	}
	job("append.yaml", "append")
	job("upsert.yaml", "upsert")
	for run := range 6 {
		s.write("in.jsonl", fmt.Sprintf("{\"id\":\"a\",\"size\":%d}\n{\"id\":\"b\",\"size\":%d}\n", run, run))
		s.want(0, "run", "append.yaml")
	}
	want := func(r result, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(r.out+r.err, w) {
				t.Errorf("%q is missing in:\n%s%s", w, r.out, r.err)
			}
		}
	}
	for range 2 {
		want(s.want(0, "compact", "upsert.yaml"), "10 rows are older", "6 of 6 data files would be", "--yes does it")
	}
	want(s.want(0, "compact", "upsert.yaml", "--sink", "lake", "--yes"), "10 rows were older", "6 files of")
	want(s.want(0, "compact", "upsert.yaml", "--yes"), "0 rows are older", "none of 1 data files needs it")
	want(s.want(0, "run", "upsert.yaml"), "written")
	want(s.want(0, "expire", "upsert.yaml"), "0 snapshots of", "would be removed", "--yes does it")
	want(s.want(0, "expire", "upsert.yaml", "--older-than", "0", "--keep", "2", "--yes"), "have expired")
	want(s.want(0, "expire", "upsert.yaml", "--older-than", "0", "--keep", "2"), "0 snapshots of 2 would")

	want(s.want(2, "compact", "upsert.yaml", "--sink", "search"), "no Iceberg sink search", "lake")
	want(s.want(2, "expire", "upsert.yaml", "--older-than", "week"), "7d or 36h")
	want(s.want(2, "expire", "upsert.yaml", "--orphans", "1h"), "may belong to runs in progress")
}
