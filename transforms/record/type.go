package record

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kind is the kind of a value or type, one for each type of CQL.
type Kind uint8

// The kinds. Unset means "not there" (a column that is not to be written), Null means "known to be nothing".
const (
	Unset Kind = iota
	Null
	Boolean
	TinyInt
	SmallInt
	Int
	BigInt
	Varint
	Decimal
	Float
	Double
	Text // text, varchar and ascii
	Blob
	UUID
	TimeUUID
	Inet
	Timestamp // milliseconds since 1970
	Date      // days since 1970
	Time      // nanoseconds since midnight
	Duration  // months, days, nanoseconds
	List
	Set
	Map
	Tuple
	UDT
	Vector // of a fixed number of elements
	numKinds
)

var kindNames = [numKinds]string{
	"unset", "null", "boolean", "tinyint", "smallint", "int", "bigint", "varint", "decimal", "float", "double",
	"text", "blob", "uuid", "timeuuid", "inet", "timestamp", "date", "time", "duration",
	"list", "set", "map", "tuple", "udt", "vector",
}

// String is the name of the kind in CQL.
func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Nested tells whether values of the kind hold other values.
func (k Kind) Nested() bool { return k >= List && k < numKinds }

// Integer tells whether the kind is a whole number of at most 64 bits.
func (k Kind) Integer() bool { return k >= TinyInt && k <= BigInt }

// Type is the type of a field.
type Type struct {
	Kind   Kind
	Elems  []Type   // List, Set, Vector: one; Map: key and value; Tuple and UDT: one for each part
	Names  []string // UDT: the names of its parts
	Name   string   // UDT: its name, with its keyspace where known
	Dim    int      // Vector: the number of elements
	Frozen bool     // a collection or UDT that is one cell in Cassandra
}

// Of is the plain type of a kind that is not nested.
func Of(k Kind) Type { return Type{Kind: k} }

// ListOf is list<elem>.
func ListOf(elem Type) Type { return Type{Kind: List, Elems: []Type{elem}} }

// SetOf is set<elem>.
func SetOf(elem Type) Type { return Type{Kind: Set, Elems: []Type{elem}} }

// MapOf is map<key, value>.
func MapOf(key, value Type) Type { return Type{Kind: Map, Elems: []Type{key, value}} }

// TupleOf is tuple<elems...>.
func TupleOf(elems ...Type) Type { return Type{Kind: Tuple, Elems: elems} }

// UDTOf is a user-defined type with the given parts.
func UDTOf(name string, parts ...Field) Type {
	t := Type{Kind: UDT, Name: name}
	for _, p := range parts {
		t.Names = append(t.Names, p.Name)
		t.Elems = append(t.Elems, p.Type)
	}
	return t
}

// String is the type as CQL writes it; a UDT shows its parts: udt<name:text,size:int>.
func (t Type) String() string {
	var b strings.Builder
	t.write(&b)
	return b.String()
}

func (t Type) write(b *strings.Builder) {
	if t.Frozen {
		b.WriteString("frozen<")
		defer b.WriteByte('>')
	}
	b.WriteString(t.Kind.String())
	if !t.Kind.Nested() {
		return
	}
	b.WriteByte('<')
	for i, e := range t.Elems {
		if i > 0 {
			b.WriteString(", ")
		}
		if t.Kind == UDT {
			b.WriteString(quotedName(t.Names[i]))
			b.WriteByte(':')
		}
		e.write(b)
	}
	if t.Kind == Vector {
		fmt.Fprintf(b, ", %d", t.Dim)
	}
	b.WriteByte('>')
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// quotedName is a name as CQL writes it where it is not plain.
func quotedName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// Same tells whether two types hold the same values; whether they are frozen does not count.
func (t Type) Same(u Type) bool {
	if t.Kind != u.Kind || len(t.Elems) != len(u.Elems) || t.Dim != u.Dim {
		return false
	}
	for i := range t.Elems {
		if !t.Elems[i].Same(u.Elems[i]) || (t.Kind == UDT && t.Names[i] != u.Names[i]) {
			return false
		}
	}
	return true
}

// ParseType reads a type as CQL and String write it. A name that is not CQL's own is looked up in udts
// (by its bare name), which may be nil. Counters are refused: a counter cannot be written a second time
// with the same result.
func ParseType(text string, udts map[string]Type) (Type, error) {
	p := typeParser{rest: text, udts: udts}
	t, err := p.parse(0)
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = fmt.Errorf("%.60q after the type", strings.TrimSpace(p.rest))
	}
	if err != nil {
		return Type{}, fmt.Errorf("type %.200q: %w", text, err)
	}
	return t, nil
}

type typeParser struct {
	rest string
	udts map[string]Type
}

const space = " \t\r\n"

// word takes the next name or number; within quotes "" is a quote.
func (p *typeParser) word() string {
	p.rest = strings.TrimLeft(p.rest, space)
	if rest, quoted := strings.CutPrefix(p.rest, `"`); quoted {
		var w strings.Builder
		for {
			part, after, closed := strings.Cut(rest, `"`)
			if !closed {
				break
			}
			w.WriteString(part)
			if rest, quoted = strings.CutPrefix(after, `"`); !quoted {
				p.rest = after
				return w.String()
			}
			w.WriteByte('"')
		}
	}
	end := strings.IndexAny(p.rest, `<>,:"`+space)
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

// take consumes c if it comes next.
func (p *typeParser) take(c byte) bool {
	p.rest = strings.TrimLeft(p.rest, space)
	if len(p.rest) > 0 && p.rest[0] == c {
		p.rest = p.rest[1:]
		return true
	}
	return false
}

func (p *typeParser) parse(depth int) (Type, error) {
	if depth == maxDepth {
		return Type{}, fmt.Errorf("nested too deeply")
	}
	name := p.word()
	switch strings.ToLower(name) {
	case "":
		return Type{}, fmt.Errorf("a type is missing")
	case "counter":
		return Type{}, fmt.Errorf("counters cannot be reprocessed: writing one again would count twice")
	case "ascii", "varchar":
		return Of(Text), nil
	case "frozen":
		if !p.take('<') {
			return Type{}, fmt.Errorf("frozen needs <type>")
		}
		t, err := p.parse(depth + 1)
		if err == nil && !p.take('>') {
			err = fmt.Errorf("> is missing")
		}
		t.Frozen = true
		return t, err
	}
	for k := Boolean; k < List; k++ {
		if strings.EqualFold(name, kindNames[k]) {
			return Of(k), nil
		}
	}
	for k := List; k < numKinds; k++ {
		if strings.EqualFold(name, kindNames[k]) {
			return p.nested(k, depth)
		}
	}
	if t, ok := p.udts[name]; ok {
		return t, nil
	}
	return Type{}, fmt.Errorf("unknown type %.60q", name)
}

func (p *typeParser) nested(k Kind, depth int) (Type, error) {
	t := Type{Kind: k}
	if !p.take('<') {
		return t, fmt.Errorf("%s needs <...>", k)
	}
	for first := true; first || p.take(','); first = false {
		if k == Vector && len(t.Elems) == 1 {
			n, err := strconv.ParseInt(p.word(), 10, 32)
			if err != nil || n < 1 {
				return t, fmt.Errorf("vector needs a number of elements")
			}
			t.Dim = int(n)
			break
		}
		if k == UDT {
			name := p.word()
			if name == "" || !p.take(':') {
				return t, fmt.Errorf("udt needs name:type")
			}
			if slices.Contains(t.Names, name) {
				return t, fmt.Errorf("%q stands twice", name)
			}
			t.Names = append(t.Names, name)
		}
		e, err := p.parse(depth + 1)
		if err != nil {
			return t, err
		}
		t.Elems = append(t.Elems, e)
	}
	if !p.take('>') {
		return t, fmt.Errorf("> is missing")
	}
	return t, t.complete()
}

// complete checks that a nested type has the parts that its kind needs.
func (t Type) complete() error {
	if want := map[Kind]int{List: 1, Set: 1, Map: 2, Vector: 1}[t.Kind]; want > 0 && len(t.Elems) != want {
		return fmt.Errorf("%s takes %d types", t.Kind, want)
	}
	if t.Kind == Vector && t.Dim < 1 {
		return fmt.Errorf("vector needs a number of elements")
	}
	return nil
}
