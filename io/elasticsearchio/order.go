package elasticsearchio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"reprise/transforms/fail"
)

// order is how the documents of an index are read: by the values of some fields, as the server sorts by them. A
// position is these values, so that it means the same under any point in time. Documents that share their values
// share a position.
type order []orderField

type orderField struct {
	name string
	kind orderKind
}

// orderKind is how the values of a field are compared.
type orderKind uint8

const (
	byText orderKind = iota + 1
	byInteger
	byFloat
	byDate
	byNanos
	byAddress
)

// orderKinds are the field types that documents can be read by.
var orderKinds = map[string]orderKind{
	"keyword": byText,
	"long":    byInteger, "integer": byInteger, "short": byInteger, "byte": byInteger,
	"double": byFloat, "float": byFloat, "half_float": byFloat, "scaled_float": byFloat,
	"date": byDate, "date_nanos": byNanos, "ip": byAddress,
}

// newOrder looks the fields up in a mapping. A text is ordered by the keyword beside it.
func newOrder(index string, names []string, mapping *property) (order, error) {
	var o order
	for _, name := range names {
		path, p, err := mapping.find(name)
		if err == nil && p.Type == "text" {
			for _, beside := range slices.Sorted(maps.Keys(p.Fields)) {
				if p.Fields[beside].Type == "keyword" {
					path, p = path+"."+beside, p.Fields[beside]
					break
				}
			}
		}
		kind := byText
		switch {
		case err != nil:
		case orderKinds[p.Type] == 0:
			err = fmt.Errorf("it is of type %s", orDefault(p.Type, "object"))
		case p.DocValues != nil && !*p.DocValues:
			err = errors.New("it has no doc values")
		case p.Index != nil && !*p.Index:
			err = errors.New("it is not indexed")
		default:
			kind = orderKinds[p.Type]
		}
		if err != nil {
			return nil, fail.Job("elasticsearch.order",
				"the documents of %s cannot be read in the order of field %q: %w", index, name, err).
				WithFix("name in order one or more keywords, numbers, dates or addresses with doc values and an " +
					"index, which together differ for nearly all documents")
		}
		o = append(o, orderField{path, kind})
	}
	return o, nil
}

// find gives a field by its path, whose dots lead into objects or from a text to what is beside it.
func (p *property) find(name string) (path string, found *property, err error) {
	at := p
	rest := name
	for rest != "" {
		next, after := at.Properties[rest], ""
		for i := strings.LastIndexByte(rest, '.'); next == nil && i > 0; i = strings.LastIndexByte(rest[:i], '.') {
			next, after = at.Properties[rest[:i]], rest[i+1:]
		}
		if next == nil && at != p {
			next, after = at.Fields[rest], ""
		}
		if next == nil {
			return "", nil, errUnmapped
		}
		if next.Type == "nested" {
			return "", nil, errors.New("it is nested, so that a document has many of it")
		}
		at, rest = next, after
	}
	return name, at, nil
}

// position is the order-preserving form of a document's sort values, which stand as JSON; what follows them is passed
// over.
func (o order) position(sort []string) ([]byte, error) {
	if len(sort) < len(o) {
		return nil, fail.New(fail.Transient, "elasticsearch.answer",
			"a document has %d sort values, asked for were %d", len(sort), len(o))
	}
	b := []byte{}
	for i, f := range o {
		var err error
		if b, err = f.append(b, sort[i]); err != nil {
			return nil, fail.New(fail.Fatal, "elasticsearch.order",
				"the sort value %.60s of field %s is not understood: %w", sort[i], f.name, err).
				WithFix("name other fields in order")
		}
	}
	if len(o) == 0 {
		b = append(b, 1)
	}
	return b, nil
}

const signBit = 1 << 63

func (f orderField) append(b []byte, value string) ([]byte, error) {
	switch f.kind {
	case byText:
		text, err := parseText(value)
		if value == "null" {
			err = errors.New("it is null")
		}
		for i := range len(text) {
			if b = append(b, text[i]); text[i] == 0 {
				b = append(b, 0xff)
			}
		}
		return append(b, 0, 0), err
	case byFloat:
		v, err := strconv.ParseFloat(value, 64)
		bits := math.Float64bits(v)
		if bits>>63 != 0 {
			bits = ^bits
		} else {
			bits |= signBit
		}
		return binary.BigEndian.AppendUint64(b, bits), err
	case byAddress:
		text, err := parseText(value)
		if err != nil {
			return b, err
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return b, err
		}
		full := a.As16()
		return append(b, full[:]...), nil
	}
	v, err := strconv.ParseInt(value, 10, 64)
	return binary.BigEndian.AppendUint64(b, uint64(v)^signBit), err
}

var errPosition = fail.New(fail.Fatal, "elasticsearch.position",
	"a position is none of the order in which the index is read").
	WithFix("the index's mapping has changed since the run was planned: start a new run")

// values are the sort values of a position, as JSON has them.
func (o order) values(position []byte) ([]any, error) {
	var values []any
	for _, f := range o {
		v, n, ok := f.cut(position)
		if !ok {
			return nil, errPosition
		}
		values = append(values, v)
		position = position[n:]
	}
	if len(position) > 0 && len(o) > 0 {
		return nil, errPosition
	}
	return values, nil
}

// cut reads the value that a position begins with, and its length.
func (f orderField) cut(b []byte) (v any, n int, ok bool) {
	size := 8
	switch f.kind {
	case byText:
		var text []byte
		for i := 0; i+1 < len(b); i++ {
			if text = append(text, b[i]); b[i] != 0 {
				continue
			}
			if i++; b[i] == 0 {
				return string(text[:len(text)-1]), i + 1, true
			}
		}
		return nil, 0, false
	case byAddress:
		size = 16
	}
	if len(b) < size {
		return nil, 0, false
	}
	if f.kind == byAddress {
		return netip.AddrFrom16([16]byte(b[:size])).Unmap().String(), size, true
	}
	bits := binary.BigEndian.Uint64(b)
	if f.kind != byFloat {
		return int64(bits ^ signBit), size, true
	}
	if bits&signBit != 0 {
		return math.Float64frombits(bits &^ signBit), size, true
	}
	return math.Float64frombits(^bits), size, true
}

type object = map[string]any

// sort is what the server is asked to sort by.
func (o order) sort() (by []any) {
	for _, f := range o {
		by = append(by, object{f.name: "asc"})
	}
	return by
}

// lastTie is a sort value after that of any document of the same position.
const lastTie = math.MaxInt64

// within is a query for what has a value in each field of the order and lies after a position and up to another one;
// nil: open. It lets some more through: it only bounds the first field in which the positions differ, since ranges
// with an open end cost the server as much as all that they hold.
func (o order) within(after, upTo []byte) ([]any, error) {
	var all []any
	for _, f := range o {
		all = append(all, object{"exists": object{"field": f.name}})
	}
	var low, high []any
	var err error
	if after != nil {
		if low, err = o.values(after); err != nil {
			return nil, err
		}
	}
	if upTo != nil {
		if high, err = o.values(upTo); err != nil {
			return nil, err
		}
	}
	for i, f := range o {
		bounds := object{}
		if low != nil {
			bounds["gte"] = f.bound(low[i])
		}
		if high != nil {
			name, bound := "lte", f.bound(high[i])
			if ms, ok := bound.(int64); ok && f.kind == byDate && ms < math.MaxInt64 {
				name, bound = "lt", ms+1 // with lte OpenSearch leaves out what equals a bound before 1970
			}
			bounds[name] = bound
		}
		if len(bounds) == 0 {
			break
		}
		if format, ok := formats[f.kind]; ok {
			bounds["format"] = format
		}
		all = append(all, object{"range": object{f.name: bounds}})
		if low == nil || high == nil || low[i] != high[i] {
			break
		}
	}
	return all, nil
}

// without is the query for what lacks a value in some field of the order.
func (o order) without() any {
	all, _ := o.within(nil, nil)
	return object{"bool": object{"must_not": []any{allOf(all)}}}
}

func allOf(conditions []any) any { return object{"bool": object{"filter": conditions}} }

// formats are those of bounds.
var formats = map[orderKind]string{byDate: "epoch_millis", byNanos: "strict_date_optional_time_nanos"}

// bound is a sort value as a range takes it.
func (f orderField) bound(value any) any {
	if nanos, ok := value.(int64); ok && f.kind == byNanos {
		return time.Unix(0, nanos).UTC().Format("2006-01-02T15:04:05.000000000Z")
	}
	return value
}

// names are the fields, for a message.
func (o order) names() string {
	var names []string
	for _, f := range o {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}
