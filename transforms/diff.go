package transforms

import (
	"strconv"

	"reprise/transforms/record"
)

// Change is what happened to one field. Before and After are JSON, with the type where that alone changed; "" where
// there is no such field or it is unset.
type Change struct {
	Field         string
	Before, After string
}

// String is a line such as `title: "a" → "A"`, `+ month: "2024-05"` or `- notes: null`.
func (c Change) String() string {
	switch {
	case c.Before == "":
		return "+ " + c.Field + ": " + c.After
	case c.After == "":
		return "- " + c.Field + ": " + c.Before
	}
	return c.Field + ": " + c.Before + " → " + c.After
}

// Diff is what changed between two records: fields in their order before, then new ones, then _key, _version and _op.
func Diff(before, after *record.Record) []Change {
	var changes []Change
	note := func(field, b, a string) {
		if b != a {
			changes = append(changes, Change{field, b, a})
		}
	}
	for i, f := range before.Schema.Fields {
		b, a := asJSON(before, i), ""
		if j := after.Schema.Index(f.Name); j >= 0 {
			a = asJSON(after, j)
			if t := after.Schema.Fields[j].Type; a == b && a != "" && a != "null" && !t.Same(f.Type) {
				b, a = b+" ("+f.Type.String()+")", a+" ("+t.String()+")"
			}
		}
		note(f.Name, b, a)
	}
	for j, f := range after.Schema.Fields {
		if before.Schema.Index(f.Name) < 0 {
			note(f.Name, "", asJSON(after, j))
		}
	}
	note(varKey, quoted(before.KeyText()), quoted(after.KeyText()))
	note(varVersion, strconv.FormatInt(before.Version, 10), strconv.FormatInt(after.Version, 10))
	note(varOp, before.Op.String(), after.Op.String())
	return changes
}

func asJSON(r *record.Record, i int) string {
	if r.Values[i].Kind() == record.Unset {
		return ""
	}
	return string(r.Values[i].AppendJSON(nil, r.Schema.Fields[i].Type))
}

func quoted(s string) string { return string(record.AppendQuoted(nil, s)) }
