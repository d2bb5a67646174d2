package record

import (
	"fmt"
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
			b.WriteString(t.Names[i])
			b.WriteByte(':')
		}
		e.write(b)
	}
	if t.Kind == Vector {
		fmt.Fprintf(b, ", %d", t.Dim)
	}
	b.WriteByte('>')
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
	t, err := p.parse()
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = fmt.Errorf("%q after the type", strings.TrimSpace(p.rest))
	}
	if err != nil {
		return Type{}, fmt.Errorf("type %q: %w", text, err)
	}
	return t, nil
}

type typeParser struct {
	rest string
	udts map[string]Type
}

// word takes the next name or number.
func (p *typeParser) word() string {
	p.rest = strings.TrimLeft(p.rest, " ")
	i := 0
	if strings.HasPrefix(p.rest, `"`) {
		if j := strings.IndexByte(p.rest[1:], '"'); j >= 0 {
			w := p.rest[1 : j+1]
			p.rest = p.rest[j+2:]
			return w
		}
	}
	for i < len(p.rest) && !strings.ContainsRune("<>,: ", rune(p.rest[i])) {
		i++
	}
	w := p.rest[:i]
	p.rest = p.rest[i:]
	return w
}

// take consumes c if it comes next.
func (p *typeParser) take(c byte) bool {
	p.rest = strings.TrimLeft(p.rest, " ")
	if len(p.rest) > 0 && p.rest[0] == c {
		p.rest = p.rest[1:]
		return true
	}
	return false
}

func (p *typeParser) parse() (Type, error) {
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
		t, err := p.parse()
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
			return p.nested(k)
		}
	}
	if t, ok := p.udts[name]; ok {
		return t, nil
	}
	return Type{}, fmt.Errorf("unknown type %q", name)
}

func (p *typeParser) nested(k Kind) (Type, error) {
	t := Type{Kind: k}
	if !p.take('<') {
		return t, fmt.Errorf("%s needs <...>", k)
	}
	for {
		if k == Vector && len(t.Elems) == 1 {
			if _, err := fmt.Sscanf(p.word(), "%d", &t.Dim); err != nil || t.Dim < 1 {
				return t, fmt.Errorf("vector needs a number of elements")
			}
		} else {
			if k == UDT {
				t.Names = append(t.Names, p.word())
				if !p.take(':') {
					return t, fmt.Errorf("udt needs name:type")
				}
			}
			e, err := p.parse()
			if err != nil {
				return t, err
			}
			t.Elems = append(t.Elems, e)
		}
		if p.take('>') {
			break
		}
		if !p.take(',') {
			return t, fmt.Errorf("> is missing")
		}
	}
	if want := map[Kind]int{List: 1, Set: 1, Map: 2, Vector: 1}[k]; want > 0 && len(t.Elems) != want {
		return t, fmt.Errorf("%s takes %d types", k, want)
	}
	if k == Vector && t.Dim == 0 {
		return t, fmt.Errorf("vector needs a number of elements")
	}
	return t, nil
}
