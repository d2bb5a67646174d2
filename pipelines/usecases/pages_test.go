package usecases_test

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
	named = regexp.MustCompile(`[a-z-]+\.(yaml|json)\b`)
	row   = regexp.MustCompile(`(?m)^\| .+ \| \[.+?\]\((.+?)/README\.md\) \|$`)
)

// TestPages holds together what users find: the table of the use cases, the folder of each with its page and its job
// files, and commands that exist.
func TestPages(t *testing.T) {
	table, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed, tried := map[string]bool{}, map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(table), -1) {
		page := m[1]
		listed[page] = true
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(page, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"\n**When**", "\n**What it does to the live system**", "\n## Steps\n",
				"\n## Stop\n", "\n## Undo\n"} {
				if !strings.Contains(string(text), want) {
					t.Errorf("it has no %q", strings.TrimSpace(want))
				}
			}
			if lines := strings.Count(string(text), "\n"); lines > 60 {
				t.Errorf("it has %d lines: more than a screen", lines)
			}
			if strings.Contains(string(text), "\\\n") {
				t.Error("a command is not on one line: within quotes a shell keeps the \\ at its end")
			}
			for _, file := range named.FindAllString(string(text), -1) {
				if _, err := os.Stat(filepath.Join(page, file)); err != nil {
					t.Errorf("it names a file that is not there: %v", err)
				}
			}
			for _, file := range jobFiles(t, page) {
				if !strings.Contains(string(text), "`"+filepath.Base(file)+"`") {
					t.Errorf("it does not name %s", file)
				}
				if filepath.Ext(file) != ".yaml" {
					continue
				}
				if _, err := job.Load(file); err != nil {
					t.Error(err)
				}
			}
			for _, command := range append(commands(string(text)), quoted(string(text))...) {
				alike := named.ReplaceAllString(command, "JOB")
				if strings.HasPrefix(command, "reprise ") && !tried[alike] {
					tried[alike] = true
					known(t, command)
				}
			}
		})
	}
	for _, file := range jobFiles(t, "*") {
		if folder := filepath.Dir(file); !listed[folder] {
			t.Errorf("the table in README.md does not list %s", folder)
		}
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
