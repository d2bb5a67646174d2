package record

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// FromJSON reads a value of type t as AppendJSON writes it, and null. Nothing is lost or guessed: a number that does
// not fit, a fraction for an integer, a text for a number, bytes that are not UTF-8, a part that stands twice or that a
// UDT does not have are errors. Decimals and varints may also be numbers, whose digits are all kept; 1.0 is an integer;
// a timestamp may be a number of milliseconds (see Millis); a UDT may leave parts out. Texts without escapes share
// memory with s.
func FromJSON(t Type, s string) (Value, error) { return Reading{}.FromJSON(t, s) }

// FromJSON is FromJSON, in another way.
func (how Reading) FromJSON(t Type, s string) (Value, error) {
	p := jsonParser{s: s, how: how}
	v, err := p.value(t, 0)
	if err == nil {
		err = p.end()
	}
	return v, err
}

// JSONParts calls part with the JSON of each member of an object, or of each element of an array (name ""), in order.
func JSONParts(s string, part func(name, value string) error) error {
	p := jsonParser{s: s}
	err := p.parts(func(name string) error {
		from := p.i
		if err := p.skip(0); err != nil {
			return err
		}
		return part(name, s[from:p.i])
	})
	if err == nil {
		err = p.end()
	}
	return err
}

var errJSON = errors.New("not JSON")

type jsonParser struct {
	s   string
	i   int
	how Reading
}

func (p *jsonParser) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d", errJSON, what, p.i)
}

// peek skips white space and gives the next byte; 0 at the end.
func (p *jsonParser) peek() byte {
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (p *jsonParser) end() error {
	if p.peek(); p.i < len(p.s) {
		return p.fail("more than one value")
	}
	return nil
}

func (p *jsonParser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.i++
	return true
}

func (p *jsonParser) word(w string) bool {
	if !strings.HasPrefix(p.s[p.i:], w) {
		return false
	}
	p.i += len(w)
	return true
}

// parts walks through an object or array; part must consume the value that comes next.
func (p *jsonParser) parts(part func(name string) error) error {
	object := p.peek() == '{'
	closing := byte('}')
	if !object {
		closing = ']'
		if p.peek() != '[' {
			return p.fail("no object or array")
		}
	}
	p.i++
	if p.take(closing) {
		return nil
	}
	for {
		name := ""
		if object {
			var err error
			if p.peek(); !p.at('"') {
				return p.fail("no name of a member")
			}
			if name, err = p.text(); err != nil {
				return err
			}
			if !p.take(':') {
				return p.fail("no colon")
			}
		}
		p.peek()
		if err := part(name); err != nil {
			return err
		}
		if p.take(closing) {
			return nil
		}
		if !p.take(',') {
			return p.fail("no comma")
		}
	}
}

func (p *jsonParser) at(c byte) bool { return p.i < len(p.s) && p.s[p.i] == c }

// skip passes over one value.
func (p *jsonParser) skip(depth int) error {
	if depth > maxDepth {
		return p.fail("too deeply nested")
	}
	switch c := p.peek(); {
	case c == '{' || c == '[':
		return p.parts(func(string) error { return p.skip(depth + 1) })
	case c == '"':
		_, err := p.text()
		return err
	case p.word("null"), p.word("true"), p.word("false"):
		return nil
	}
	_, err := p.number()
	return err
}

// text reads a string; without escapes it is a part of the input.
func (p *jsonParser) text() (string, error) {
	p.i++
	from := p.i
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == '"':
			s := p.s[from:p.i]
			p.i++
			if !utf8.ValidString(s) {
				return "", p.fail("bytes that are not UTF-8 before")
			}
			return s, nil
		case c == '\\':
			return p.escaped(from)
		case c < 0x20:
			return "", p.fail("a control character in a text")
		}
		p.i++
	}
	return "", p.fail("a text without end")
}

func (p *jsonParser) escaped(from int) (string, error) {
	b := append(make([]byte, 0, p.i-from+64), p.s[from:p.i]...)
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == '"':
			if !utf8.Valid(b) {
				return "", p.fail("bytes that are not UTF-8 before")
			}
			return string(b), nil
		case c < 0x20:
			return "", p.fail("a control character in a text")
		case c != '\\':
			b = append(b, c)
			continue
		}
		if p.i == len(p.s) {
			break
		}
		c = p.s[p.i]
		p.i++
		switch c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r := p.hex()
			if utf16.IsSurrogate(r) {
				if !p.word(`\u`) {
					return "", p.fail("half of a surrogate pair")
				}
				if r = utf16.DecodeRune(r, p.hex()); r == utf8.RuneError {
					return "", p.fail("half of a surrogate pair")
				}
			}
			if r < 0 {
				return "", p.fail(`\u without four digits`)
			}
			b = utf8.AppendRune(b, r)
		default:
			return "", p.fail("an unknown escape")
		}
	}
	return "", p.fail("a text without end")
}

// hex reads four hexadecimal digits; -1 where there are none.
func (p *jsonParser) hex() rune {
	if p.i+4 > len(p.s) {
		return -1
	}
	n, err := strconv.ParseUint(p.s[p.i:p.i+4], 16, 16)
	if err != nil {
		return -1
	}
	p.i += 4
	return rune(n)
}

// number reads a number in JSON's grammar.
func (p *jsonParser) number() (string, error) {
	from := p.i
	digits := func() bool {
		start := p.i
		for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
			p.i++
		}
		return p.i > start
	}
	p.word("-")
	if !p.word("0") && !digits() {
		p.i = from
		return "", p.fail("no value")
	}
	if p.word(".") && !digits() {
		return "", p.fail("a number without digits")
	}
	if p.word("e") || p.word("E") {
		if !p.word("+") {
			p.word("-")
		}
		if !digits() {
			return "", p.fail("a number without digits")
		}
	}
	return p.s[from:p.i], nil
}

func (p *jsonParser) value(t Type, depth int) (Value, error) {
	if depth > maxDepth {
		return Value{}, p.fail("too deeply nested")
	}
	c := p.peek()
	if c == 'n' && p.word("null") {
		return NullValue, nil
	}
	switch t.Kind {
	case Boolean:
		if p.word("true") {
			return Bool(true), nil
		}
		if p.word("false") {
			return Bool(false), nil
		}
		return p.mismatch(t)
	case TinyInt, SmallInt, Int, BigInt, Varint, Decimal, Float, Double, Timestamp:
		if c == '-' || (c >= '0' && c <= '9') {
			n, err := p.number()
			if err != nil {
				return Value{}, err
			}
			return parseNumber(t, n)
		}
		if c != '"' || t.Kind.Integer() {
			return p.mismatch(t)
		}
		s, err := p.text()
		if err != nil {
			return Value{}, err
		}
		if f, isNumber := strconv.ParseFloat(s, 64); (t.Kind == Float || t.Kind == Double) && isNumber == nil &&
			!math.IsNaN(f) && !math.IsInf(f, 0) {
			return Value{}, fmt.Errorf("a text, not a %s", t)
		}
		return p.how.Parse(t, s)
	case List, Set, Tuple, Vector:
		if c != '[' {
			return p.mismatch(t)
		}
		return p.array(t, depth)
	case Map, UDT:
		if c != '{' {
			return p.mismatch(t)
		}
		if t.Kind == Map {
			return p.mapOf(t, depth)
		}
		return p.udt(t, depth)
	}
	if c != '"' {
		return p.mismatch(t)
	}
	s, err := p.text()
	if err != nil {
		return Value{}, err
	}
	return Parse(t, s)
}

func (p *jsonParser) mismatch(t Type) (Value, error) {
	from := p.i
	if err := p.skip(0); err != nil {
		return Value{}, err
	}
	return Value{}, fmt.Errorf("%.60s is not a valid %s", p.s[from:p.i], t)
}

func parseNumber(t Type, n string) (Value, error) {
	fraction := strings.ContainsAny(n, ".eE")
	switch t.Kind {
	case Decimal:
		return Parse(t, n)
	case Float, Double:
		v, err := Parse(t, n)
		// Beyond 2^53 (2^24) not each integer is a double (float).
		if i, e := strconv.ParseInt(n, 10, 64); err == nil && !fraction && (e != nil || int64(v.Float()) != i) {
			return Value{}, fmt.Errorf("%.60s has more digits than a %s holds", n, t)
		}
		return v, err
	}
	if whole, zeros, dot := strings.Cut(n, "."); dot && strings.Trim(zeros, "0") == "" {
		n = whole
	}
	if t.Kind == Timestamp {
		ms, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return Value{}, fmt.Errorf("%.60s is not a valid %s", n, t)
		}
		return Millis(ms)
	}
	return Parse(t, n)
}

func (p *jsonParser) array(t Type, depth int) (Value, error) {
	var elems []Value
	err := p.parts(func(string) error {
		if t.Kind == Tuple && len(elems) == len(t.Elems) {
			return fmt.Errorf("more than the %d parts of a %s", len(elems), t)
		}
		v, err := p.value(part(t, len(elems)), depth+1)
		elems = append(elems, v)
		return err
	})
	switch {
	case err != nil:
		return Value{}, err
	case t.Kind == Tuple && len(elems) != len(t.Elems), t.Kind == Vector && len(elems) != t.Dim:
		return Value{}, fmt.Errorf("%d parts are no %s", len(elems), t)
	case t.Kind == Set:
		if twice := firstTwice(elems, 1); twice != nil {
			return Value{}, fmt.Errorf("%.60s stands twice in a set", twice.AppendJSON(nil, part(t, 0)))
		}
	}
	return Nested(t.Kind, elems), nil
}

func (p *jsonParser) mapOf(t Type, depth int) (Value, error) {
	var elems []Value
	err := p.parts(func(name string) error {
		key, err := p.how.ParseText(part(t, 0), name)
		if err != nil {
			return err
		}
		v, err := p.value(part(t, 1), depth+1)
		elems = append(elems, key, v)
		return err
	})
	if err != nil {
		return Value{}, err
	}
	if twice := firstTwice(elems, 2); twice != nil {
		return Value{}, fmt.Errorf("%.60q stands twice in a map", twice.Text(part(t, 0)))
	}
	return Nested(Map, elems), nil
}

func (p *jsonParser) udt(t Type, depth int) (Value, error) {
	elems := make([]Value, len(t.Elems))
	err := p.parts(func(name string) (err error) {
		i := 0
		for i < len(t.Names) && t.Names[i] != name {
			i++
		}
		if i == len(elems) {
			return fmt.Errorf("%.60q is not part of a %s", name, t)
		}
		if elems[i].Kind() != Unset {
			return fmt.Errorf("%.60q stands twice", name)
		}
		elems[i], err = p.value(t.Elems[i], depth+1)
		return err
	})
	for i := range elems {
		if elems[i].Kind() == Unset {
			elems[i] = NullValue
		}
	}
	return Nested(UDT, elems), err
}

// firstTwice is the first of each step-th value that equals one before it.
func firstTwice(elems []Value, step int) *Value {
	if len(elems) <= 16*step {
		for i := step; i < len(elems); i += step {
			for j := 0; j < i; j += step {
				if elems[i].Equal(elems[j]) {
					return &elems[i]
				}
			}
		}
		return nil
	}
	seen := make(map[string]struct{}, len(elems)/step)
	var b []byte
	for i := 0; i < len(elems); i += step {
		b = AppendValue(b[:0], elems[i])
		if _, twice := seen[string(b)]; twice {
			return &elems[i]
		}
		seen[string(b)] = struct{}{}
	}
	return nil
}
