package usecases

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"reprise/pipelines/job"
)

var (
	named = regexp.MustCompile("testdata/jobs/[a-z.-]+")
	link  = regexp.MustCompile(`\]\(([a-z-]+)\.md\)`)
	row   = regexp.MustCompile(`(?m)^\| (.+?) \| (.+?) \| \[(.+?)\]\((.+?)\.md\) \|$`)
)

// TestPages holds together what users find: the table of the use cases, a page for each, its job files, and commands that there are.
func TestPages(t *testing.T) {
	table, err := os.ReadFile(filepath.Join(pages, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed, used, tried := map[string]bool{"README": true}, map[string]bool{}, map[string]bool{}
	for _, m := range link.FindAllStringSubmatch(string(table), -1) {
		listed[m[1]] = true
	}
	for _, m := range row.FindAllStringSubmatch(string(table), -1) {
		page := m[4]
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(pages, page+".md"))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"\n**When**", "\n**What it does to the live system**", "\n## Steps\n", "\n## Stop\n", "\n## Undo\n"} {
				if !strings.Contains(string(text), want) {
					t.Errorf("it has no %q", strings.TrimSpace(want))
				}
			}
			if lines := strings.Count(string(text), "\n"); lines > 60 {
				t.Errorf("it has %d lines, which is no screen", lines)
			}
			inTable := named.FindAllString(m[2], -1)
			if len(inTable) == 0 {
				t.Error("the table names no job of it")
			}
			for _, file := range append(named.FindAllString(string(text), -1), inTable...) {
				if !strings.Contains(string(text), file) {
					t.Errorf("it does not name %s, as the table does", file)
				}
				check(t, file)
				used[filepath.Base(file)] = true
			}
			for _, command := range append(commands(string(text)), quoted(string(text))...) {
				if alike := named.ReplaceAllString(command, "JOB"); strings.HasPrefix(command, "reprise ") && !tried[alike] {
					tried[alike] = true
					known(t, command)
				}
			}
		})
	}
	files, err := filepath.Glob(pages + "/*.md")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if page := strings.TrimSuffix(filepath.Base(file), ".md"); !listed[page] {
			t.Errorf("README.md does not link to %s", page)
		}
	}
	files, _ = filepath.Glob(jobs + "/*")
	for _, file := range files {
		if name := filepath.Base(file); !used[name] && !strings.HasPrefix(name, "assets-to-") {
			t.Errorf("no page tells of %s", name)
		}
	}
}

// check loads a job file.
func check(t *testing.T, file string) {
	t.Helper()
	path := filepath.Join("../..", file)
	var err error
	if filepath.Ext(file) == ".yaml" {
		_, err = job.Load(path)
	} else {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Error(err)
	}
}

// quoted are the commands between back-quotes.
func quoted(text string) (all []string) {
	for _, m := range regexp.MustCompile("`(reprise [^`]+)`").FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// known asks the command itself whether there is such a one, with such settings.
func known(t *testing.T, command string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.Replace(command, "reprise", self, 1)+" --help")
	cmd.Env = append(os.Environ(), "USECASES_COMMAND=reprise")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}
