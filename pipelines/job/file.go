package job

import (
	"encoding/json"
	"fmt"
	"regexp"
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
		return nil, []fault{{at: tree.Docs[1].Start, message: "a job file holds one YAML document, and another begins here"}}
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil, []fault{{message: "the file is empty; a job needs name, source and sinks"}}
	}
	f.root = tree.Docs[0].Body
	numbers := numbers{}
	ast.Walk(&numbers, f.root)
	if len(numbers.faults) > 0 {
		return nil, numbers.faults
	}
	if asJSON, err = yaml.YAMLToJSON(f.text); err != nil {
		return nil, []fault{noYAML(err)}
	}
	return asJSON, nil
}

func noYAML(err error) fault {
	located, ok := err.(interface {
		GetMessage() string
		GetToken() *token.Token
	})
	if !ok {
		return fault{message: err.Error()}
	}
	message := located.GetMessage()
	if strings.Contains(message, "'\t'") {
		message = "a tab indents this line; YAML indents with blanks"
	}
	return fault{at: located.GetToken(), message: message}
}

// numbers finds those that YAML reads as something else than they look like: 007 as 7, 2024_01 as 202401, 1.10 as 1.1.
type numbers struct{ faults []fault }

// Visit implements ast.Visitor.
func (n *numbers) Visit(node ast.Node) ast.Visitor {
	number, ok := node.(ast.ScalarNode)
	if !ok {
		return n
	}
	switch node.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		if text, err := json.Marshal(number.GetValue()); err != nil {
			n.faults = append(n.faults, fault{at: node.GetToken(), message: "not a number that can stand here; if it is a text, put it in quotes"})
		} else if string(text) != node.GetToken().Value {
			n.faults = append(n.faults, fault{at: node.GetToken(), message: fmt.Sprintf("YAML reads this as the number %s; write that, or put a text in quotes", text)})
		}
	}
	return n
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
