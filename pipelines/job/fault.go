package job

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/token"

	"reprise/transforms/fail"
)

// fault is something wrong at a place of a job.
type fault struct {
	path    string // "sinks.lake.iceberg.table"; "" is the whole job
	message string
	onKey   bool         // the key is wrong, not its value
	secret  bool         // the value may be a secret: it is not shown
	at      *token.Token // the place, where path does not tell
}

// err tells all faults in the order of the file, each with its line and a caret. For a job without a file it tells
// paths and messages.
func (f *file) err(faults []fault) error {
	var texts []string
	if f == nil {
		for _, x := range faults {
			texts = append(texts, x.path+": "+x.message)
		}
	} else {
		texts = f.show(faults)
	}
	noun := "faults"
	if len(texts) == 1 {
		noun = "fault"
	}
	return fail.Job("job.wrong", "the job is wrong\n%s\n%d %s", strings.Join(texts, "\n"), len(texts), noun)
}

// show gives one text for each fault: FILE:LINE:COLUMN: PATH: MESSAGE, and below it the line with a caret.
func (f *file) show(faults []fault) []string {
	faults = slices.Clone(faults)
	for i := range faults {
		x := &faults[i]
		if x.at == nil && f.root != nil {
			x.at = locate(f.root, x.path, x.onKey)
		}
		if x.secret {
			f.hide(x)
		}
	}
	type place struct {
		line, column int
		text         string
	}
	var places []place
	for _, x := range faults {
		p := place{1, 1, x.message}
		if x.at != nil {
			p.line, p.column, p.text = f.narrow(x.at, x.message)
		}
		if x.path != "" {
			p.text = x.path + ": " + p.text
		}
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column), strings.Compare(a.text, b.text))
	})
	var texts []string
	for _, p := range slices.Compact(places) {
		text := strings.ReplaceAll(p.text, "\n", "\n      ")
		texts = append(texts, fmt.Sprintf("%s:%d:%d: %s\n%s", f.name, p.line, p.column, text,
			f.excerpt(p.line, p.column)))
	}
	return texts
}

// inExpression is the message of a fault of an expression: the place within it, what is wrong, and the expression's
// line over a caret.
var inExpression = regexp.MustCompile(`^line (\d+), column \d+: (.*)\n  (.*)\n  ( *)\^$`)

// narrow gives the place of a fault within an expression, where the file holds the expression's line as it is. The
// message then needs no excerpt of its own.
func (f *file) narrow(at *token.Token, message string) (line, column int, text string) {
	line, column = at.Position.Line, at.Position.Column
	m := inExpression.FindStringSubmatch(message)
	if m == nil {
		return line, column, message
	}
	inner, _ := strconv.Atoi(m[1])
	begin := column - 1
	if at.Type == token.LiteralType || at.Type == token.FoldedType {
		inner++ // its text begins in the next line
	}
	if inner > 1 {
		begin = 0
	}
	if line+inner-1 > len(f.lines) {
		return line, column, message
	}
	runes := []rune(f.lines[line+inner-2])
	begin = min(begin, len(runes))
	before, _, found := strings.Cut(string(runes[begin:]), m[3])
	if !found {
		return line, column, message
	}
	return line + inner - 1, begin + len([]rune(before)) + len(m[4]) + 1, m[2]
}

// excerpt is a line with a caret below it.
func (f *file) excerpt(line, column int) string {
	text := ""
	if line <= len(f.lines) {
		text = f.lines[line-1]
	}
	margin := []rune(text)
	margin = margin[:min(column-1, len(margin))]
	for i, r := range margin {
		if r != '\t' {
			margin[i] = ' '
		}
	}
	return fmt.Sprintf("%5d | %s\n      | %s^", line, text, string(margin))
}

// hide writes stars over the rest of the line from the value on.
func (f *file) hide(x *fault) {
	begin := x.at.Position.Column - 1
	if x.onKey {
		begin += len([]rune(x.at.Value)) + len(":")
	}
	line := &f.lines[x.at.Position.Line-1]
	runes := []rune(*line)
	for i := min(begin, len(runes)); i < len(runes); i++ {
		runes[i] = '*'
	}
	*line = string(runes)
}
