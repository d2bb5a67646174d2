package cli

import (
	"strings"
	"testing"

	"reprise/transforms/fail"
)

// changedJob differs from exampleJob in something of each class.
var changedJob = strings.NewReplacer(
	`.orValue("unknown"))`, `.orValue("none"))
      size: {value: string(size), type: text}
      id: "id == 'b' ? 'B' : id"
  - delete: id == "c"`,
	`size > 15`, `size > "25"`,
	`kind: "tag == 'y' ? string(json(title)) : tag"`, `more: tag`,
	`  all:
    files: {path: out/all}
`, `  all:
    files: {path: out/all}
  another:
    files: {path: out/another}
`).Replace(exampleJob)

func TestShadow(t *testing.T) {
	t.Parallel()
	s := newExample(t)
	s.write("new.yaml", changedJob)
	s.write("other.yaml", strings.Replace(exampleJob, "payload: text", "payload: text, more: text", 1))
	before := s.files()
	same := s.want(fail.ExitDone, "shadow", "job.yaml", "job.yaml")
	r := s.want(fail.ExitMismatch, "shadow", "job.yaml", "new.yaml")
	s.golden("shadow.golden", same.out+"\n"+r.out+r.err)
	if again := s.want(fail.ExitMismatch, "shadow", "job.yaml", "new.yaml"); again.out != r.out {
		t.Errorf("another time it is\n%s", again.out)
	}
	s.golden("shadow-json.golden", s.want(fail.ExitMismatch, "shadow", "job.yaml", "new.yaml", "--json").out)
	if r := s.want(fail.ExitDone, "shadow", "job.yaml", "job.yaml", "--rows", "2", "--seed",
		"7"); !strings.HasPrefix(r.out, "2 rows") {
		t.Errorf("--rows 2 gives %s", r.out)
	}
	s.golden("shadow-source.golden", s.want(fail.ExitJob, "shadow", "job.yaml", "other.yaml").err)
	s.unchanged(before)
}

// Of jobs with different sources the same rows are compared, where the second finds them.
func TestShadowOfOtherSources(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	const corpus = `
name: corpus
source: {corpus: {rows: 300}}
transforms: [{filter: title != null}, {project: {keep: [asset_type, bucket, id, title]}}]
sinks: {out: {files: {path: out}}}
`
	s.write("old.yaml", corpus)
	joined := strings.Replace(corpus, "{corpus: {rows: 300}}", `
  join:
    of: {corpus: {rows: 300}}
    with:
      same: {of: {corpus: {rows: 300}}, on: {asset_type: asset_type, bucket: bucket, id: id}, fields: {other: title}}`, 1)
	s.write("new.yaml", joined)
	s.write("joined.yaml", strings.Replace(joined, "{project: {keep: [asset_type, bucket, id, title]}}",
		"{project: {keep: [asset_type, bucket, id, other]}}, {rename: {other: title}}", 1))
	for _, other := range []string{"new.yaml", "joined.yaml"} {
		if r := s.want(fail.ExitDone, "shadow", "old.yaml", other, "--rows", "50"); !strings.HasPrefix(r.out,
			"50 rows") || !strings.Contains(r.out, "50 rows the same, 0 different") {
			t.Errorf("%s: %s", other, r.out)
		}
	}
}
