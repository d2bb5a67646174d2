package cassandraio

import (
	"bytes"
	"math"
	"strings"

	"github.com/gocql/gocql"
)

// scan is one query. A split is read by one or several, whose rows follow each other in the order of positions.
type scan struct {
	cql   string // the whole query; "": what follows makes it
	where string
	tail  string // what follows the conditions
	args  []any
}

// rawValue is a value in Cassandra's binary form, as it is bound.
type rawValue []byte

// MarshalCQL implements gocql.Marshaler.
func (v rawValue) MarshalCQL(gocql.TypeInfo) ([]byte, error) { return v, nil }

// edge is where an interval of rows begins or ends: at values of the first clustering columns, or of all.
type edge struct {
	values   [][]byte
	included bool // rows with these values belong to the interval
}

// partitionScans read the rows of a partition between two edges, the first before the second and either of them nil for
// none, in the order of the table. Each scan fixes some clustering columns and bounds the next: the form that fits
// every mixture of ascending and descending columns.
func (t *table) partitionScans(key [][]byte, from, to *edge) []scan {
	base := scan{}
	for i, c := range t.partition {
		base = base.and(c.quoted+" = ?", key[i])
	}
	return t.boxes(base, 0, from, to)
}

func (t *table) boxes(base scan, depth int, from, to *edge) []scan {
	if depth == len(t.clustering) || from == nil && to == nil {
		return []scan{base}
	}
	c := t.clustering[depth]
	if from != nil && to != nil && bytes.Equal(from.values[depth], to.values[depth]) {
		v := from.values[depth]
		if depth+1 == len(from.values) {
			if !from.included {
				return nil
			}
			from = nil
		}
		if depth+1 == len(to.values) {
			if !to.included {
				return nil
			}
			to = nil
		}
		return t.boxes(base.and(c.quoted+" = ?", v), depth+1, from, to)
	}
	after, before := ">", "<"
	if c.desc {
		after, before = "<", ">"
	}
	var all []scan
	middle := base
	if from != nil {
		v := from.values[depth]
		switch {
		case depth+1 < len(from.values):
			all = t.boxes(base.and(c.quoted+" = ?", v), depth+1, from, nil)
			middle = middle.and(c.quoted+" "+after+" ?", v)
		case from.included:
			middle = middle.and(c.quoted+" "+after+"= ?", v)
		default:
			middle = middle.and(c.quoted+" "+after+" ?", v)
		}
	}
	if to == nil {
		return append(all, middle)
	}
	v := to.values[depth]
	if depth+1 == len(to.values) && to.included {
		return append(all, middle.and(c.quoted+" "+before+"= ?", v))
	}
	all = append(all, middle.and(c.quoted+" "+before+" ?", v))
	if depth+1 < len(to.values) {
		all = append(all, t.boxes(base.and(c.quoted+" = ?", v), depth+1, nil, to)...)
	}
	return all
}

// and adds a condition.
func (s scan) and(condition string, values ...[]byte) scan {
	if s.where != "" {
		condition = s.where + " AND " + condition
	}
	args := append([]any(nil), s.args...)
	for _, v := range values {
		args = append(args, rawValue(v))
	}
	return scan{where: condition, args: args}
}

// tokenScan reads partitions from a token on, up to and with another.
func (t *table) tokenScan(from, to int64) scan {
	var conditions []string
	var args []any
	if from > math.MinInt64 {
		conditions, args = append(conditions, t.tokenOf()+" >= ?"), append(args, from)
	}
	if to < math.MaxInt64 {
		conditions, args = append(conditions, t.tokenOf()+" <= ?"), append(args, to)
	}
	return scan{where: strings.Join(conditions, " AND "), args: args}
}
