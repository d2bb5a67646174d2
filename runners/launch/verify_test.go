package launch_test

import (
	"fmt"
	"slices"
	"testing"

	"reprise/pipelines/verify"
	"reprise/runners/launch"
)

// checked runs a verification of a job.
func checked(t *testing.T, text string, with launch.Verification) *verify.Report {
	t.Helper()
	r, err := launch.Verify(t.Context(), parse(t, text), launch.Runner{Name: "prism"}, with)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wrong is what a report says of a sink.
func wrong(r *verify.Report, sink string) string {
	s := r.Sinks[sink]
	text := ""
	for _, kind := range verify.Kinds {
		if n := s.Wrong[kind]; n > 0 {
			text += fmt.Sprintf("%d %s ", n, kind)
		}
	}
	if s.InFlight+s.Unsettled > 0 {
		text += fmt.Sprintf("%d in flight %d unsettled", s.InFlight, s.Unsettled)
	}
	return text
}

const verifyFiles = `
name: files
source: {corpus: {rows: 3000}}
transforms:
  - derive:
      format: string(json(payload)[?"format"].orValue("unknown"))
sinks:
  lines: {files: {path: "%[1]s/lines", meta: true}}
  tags:
    when: views > 100
    transforms: [{explode: {field: tags, as: tag}}, {project: {keep: [asset_type, bucket, id, tag, title]}}]
    files: {path: "%[1]s/tags", format: parquet}
  lake: {iceberg: {catalog: {sqlite: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}, table: media.assets, create: true}}
dead_letters: {files: {path: "%[1]s/dead"}}
journal: {sqlite: "%[1]s/journal.db"}
verify: {settle: 100ms}
`

func TestVerifyFiles(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(verifyFiles, dir)
	if _, _, err := execute(t, text, nil); err != nil {
		t.Fatal(err)
	}
	r := checked(t, text, launch.Verification{Folder: dir})
	// The table takes no deletes: they are dead letters of the run.
	if got, want := []string{wrong(r, "lines"), wrong(r, "tags"), wrong(r, "lake")}, []string{"", "", "13 extra "}; !slices.Equal(got, want) {
		t.Errorf("wrong are %q, want %q\n%+v", got, want, r)
	}
}
