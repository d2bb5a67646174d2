package job

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// file is the text of a job, to show where a fault is.
type file struct {
	name  string
	text  []byte
	lines []string
	root  ast.Node
}

// login is that of a URL, which belongs into no message.
var login = regexp.MustCompile(`://[^/\s"'@]+@`)

func newFile(name string, text []byte) *file {
	text = []byte(strings.TrimPrefix(string(text), "\ufeff"))
	shown := login.ReplaceAllStringFunc(string(text), func(s string) string {
		return "://" + strings.Repeat("*", len([]rune(s))-4) + "@"
	})
	return &file{name: name, text: text, lines: strings.Split(strings.ReplaceAll(shown, "\r\n", "\n"), "\n")}
}

// read gives the file as JSON, or says why it is no YAML that can be read.
func (f *file) read() (asJSON []byte, faults []fault) {
	tree, err := parser.ParseBytes(f.text, 0)
	if err != nil {
		return nil, []fault{noYAML(err)}
	}
	if len(tree.Docs) > 1 {
		return nil, []fault{{at: tree.Docs[1].Start,
			message: "a job file holds one YAML document, and another begins here"}}
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil, []fault{{message: "the file is empty; a job needs name, source and sinks"}}
	}
	f.root = tree.Docs[0].Body
	found := misread{texts: map[ast.Node]bool{}}
	ast.Walk(&found, f.root)
	if len(found.faults) > 0 {
		return nil, found.faults
	}
	if asJSON, err = yaml.YAMLToJSON(f.quoted(found.starts)); err != nil {
		return nil, []fault{noYAML(err)}
	}
	return asJSON, nil
}

// quoted is the text with quotes around the plain texts that begin at some places.
func (f *file) quoted(starts []*token.Position) []byte {
	if len(starts) == 0 {
		return f.text
	}
	lines := strings.Split(string(f.text), "\n")
	// from the end of each line on
	slices.SortFunc(starts, func(a, b *token.Position) int { return cmp.Or(a.Line-b.Line, b.Column-a.Column) })
	for _, at := range starts {
		line := []rune(lines[at.Line-1])
		before, rest := string(line[:at.Column-1]), string(line[at.Column-1:])
		text := plainInFlow.FindString(rest)
		lines[at.Line-1] = before + "'" + strings.ReplaceAll(text, "'", "''") + "'" + rest[len(text):]
	}
	return []byte(strings.Join(lines, "\n"))
}

// plainInFlow is a text without quotes within [] or {}.
var plainInFlow = regexp.MustCompile(`^(?:[^\s,\[\]{}]|[ \t]+[^\s,\[\]{}#])*`)

func noYAML(err error) fault {
	located, ok := err.(interface {
		GetMessage() string
		GetToken() *token.Token
	})
	if !ok {
		return fault{message: err.Error()}
	}
	message := located.GetMessage()
	switch {
	case strings.Contains(message, "'\t'"):
		message = "this line is indented with a tab; YAML needs spaces"
	case strings.Contains(message, "invalid key for this map"), strings.Contains(message, "could not find '['"):
		message += "; put a text with a colon at one of its ends in quotes"
	}
	return fault{at: located.GetToken(), message: message}
}

// misread finds what is read as something else than it looks like: numbers, such as 007 as 7, 2024_01 as 202401 and
// 1.10 as 1.1; and texts in lists within {}, such as {hosts: [127.0.0.1:9042]}, which the library takes for maps,
// though YAML wants a blank behind the colon of one.
type misread struct {
	faults []fault
	texts  map[ast.Node]bool
	starts []*token.Position // of those texts
}

// Visit implements ast.Visitor.
func (n *misread) Visit(node ast.Node) ast.Visitor {
	if n.texts[node] {
		return nil
	}
	if list, ok := node.(*ast.SequenceNode); ok && list.IsFlowStyle {
		for _, entry := range list.Values {
			if start := textAsMap(entry); start != nil {
				n.texts[entry], n.starts = true, append(n.starts, start)
			}
		}
	}
	number, ok := node.(ast.ScalarNode)
	if !ok {
		return n
	}
	switch node.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		if text, err := json.Marshal(number.GetValue()); err != nil {
			n.faults = append(n.faults, fault{at: node.GetToken(), message: "not a valid number here; " +
				"if it is text, put it in quotes"})
		} else if string(text) != node.GetToken().Value {
			n.faults = append(n.faults, fault{at: node.GetToken(), message: fmt.Sprintf(
				"YAML reads this as the number %s; write that, or put a text in quotes", text)})
		}
	}
	return n
}

// textAsMap is where a text begins that was taken for a map; nil where an entry of a list is what it looks like.
func textAsMap(entry ast.Node) *token.Position {
	m, ok := entry.(*ast.MappingNode)
	if !ok || m.IsFlowStyle || len(m.Values) != 1 {
		return nil
	}
	v := m.Values[0]
	key, colon := v.Key.GetToken(), v.Start.Position
	value, ok := v.Value.(ast.ScalarNode)
	if !ok || key.Type == token.SingleQuoteType || key.Type == token.DoubleQuoteType {
		return nil
	}
	if at := value.GetToken().Position; at.Line != colon.Line || at.Column != colon.Column+1 {
		return nil
	}
	return key.Position
}

// locate finds the token of a path in a node. Of a path that is not there it is the nearest key above it.
func locate(n ast.Node, path string, onKey bool) *token.Token {
	at := n.GetToken()
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		at = m.Values[0].Key.GetToken()
	}
	for path != "" {
		switch t := content(n).(type) {
		case *ast.MappingNode:
			v, rest := member(t, path)
			if v == nil {
				return at
			}
			at, n, path = v.Key.GetToken(), v.Value, rest
		case *ast.SequenceNode:
			index, rest, _ := strings.Cut(path, ".")
			i, err := strconv.Atoi(index)
			if err != nil || i < 0 || i >= len(t.Values) {
				return at
			}
			n, path = t.Values[i], rest
			at = first(n)
		default:
			return at
		}
	}
	switch content(n).(type) {
	case *ast.MappingNode, *ast.SequenceNode, *ast.NullNode, nil:
		return at
	}
	if onKey {
		return at
	}
	return content(n).GetToken()
}

// content is a node without its anchor and tag.
func content(n ast.Node) ast.Node {
	for {
		switch t := n.(type) {
		case *ast.AnchorNode:
			n = t.Value
		case *ast.TagNode:
			n = t.Value
		default:
			return n
		}
	}
}

// first is where an entry of a list begins.
func first(n ast.Node) *token.Token {
	if m, ok := content(n).(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

// member is the entry that a path leads into. Keys may hold dots: the longest that fits is meant.
func member(m *ast.MappingNode, path string) (found *ast.MappingValueNode, rest string) {
	longest := -1
	for _, v := range m.Values {
		key := v.Key.GetToken().Value
		if after, ok := strings.CutPrefix(path, key); ok && (after == "" || after[0] == '.') && len(key) > longest {
			found, rest, longest = v, strings.TrimPrefix(after, "."), len(key)
		}
	}
	return found, rest
}
