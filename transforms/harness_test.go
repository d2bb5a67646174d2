package transforms_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"reprise/transforms"
	"reprise/transforms/record"
)

var now = transforms.Options{Now: time.Date(2024, 6, 1, 12, 0, 0, 0, time.UTC)}

// schema makes a schema of "name type" lines; the key is the first field.
func schema(t testing.TB, fields ...string) *record.Schema {
	t.Helper()
	var all []record.Field
	for _, f := range fields {
		name, text, _ := strings.Cut(f, " ")
		typ, err := record.ParseType(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, record.Field{Name: name, Type: typ})
	}
	return record.MustSchema(all, all[0].Name)
}

// fromJSON makes a record; fields that are left out are unset. "_op": "delete" makes it a delete.
func fromJSON(t testing.TB, s *record.Schema, text string) *record.Record {
	t.Helper()
	r := &record.Record{Schema: s, Values: make([]record.Value, len(s.Fields)), Version: 1714557600000000}
	err := record.JSONParts(text, func(name, value string) (err error) {
		if name == "_op" {
			r.Op = record.Delete
			return nil
		}
		i := s.Index(name)
		if i < 0 {
			return fmt.Errorf("no field %q", name)
		}
		r.Values[i], err = record.FromJSON(s.Fields[i].Type, value)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// specs reads entries of `transforms` as they stand in a job file.
func specs(t testing.TB, text string) (list []transforms.Spec) {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func compile(t testing.TB, in *record.Schema, config string) *transforms.Chain {
	t.Helper()
	c, err := transforms.Compile(specs(t, config), in, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// test is what a transform should make of a record: for each record that comes out its key and its fields; "filtered";
// or "dead" with the error.
type test struct {
	name   string
	config string // "- cast: {size: int}"
	fields []string
	have   string
	want   []string
}

func runTests(t *testing.T, tests []test) {
	t.Helper()
	for _, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			in := schema(t, x.fields...)
			chain := compile(t, in, x.config)
			got := outcomes(t, chain, fromJSON(t, in, x.have))
			if diff := cmp.Diff(x.want, got); diff != "" {
				t.Errorf("%s: want -, got +:\n%s", x.config, diff)
			}
		})
	}
}

// outcomes applies a chain and tells what became of the record. It checks what holds for every transform.
func outcomes(t testing.TB, chain *transforms.Chain, r *record.Record) (got []string) {
	t.Helper()
	before := r.Clone()
	filtered := chain.Apply(r, func(out *record.Record) {
		if len(out.Values) != len(chain.Out.Fields) || out.Schema != chain.Out {
			t.Errorf("%d values for %d fields", len(out.Values), len(chain.Out.Fields))
		}
		op := ""
		if out.Op == record.Delete {
			op = "delete "
		}
		got = append(got, fmt.Sprintf("%s%s %s", op, out.KeyText(), out.AppendJSON(nil)))
	}, func(in *record.Record, step string, err error) {
		got = append(got, fmt.Sprintf("dead in %s: %v", step, err))
		if len(chain.Steps) == 1 {
			if diff := cmp.Diff(before, in, sameRecord); diff != "" {
				t.Errorf("the record is not as it entered:\n%s", diff)
			}
		}
	})
	for range filtered {
		got = append(got, "filtered")
	}
	return got
}

var sameRecord = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b *record.Schema) bool { return a.Same(b) })}

// show prints a transform's example, as `reprise transforms NAME` does.
func show(name string) {
	for _, t := range transforms.All() {
		if t.Name == name {
			var b bytes.Buffer
			if err := transforms.Describe(&b, t); err != nil {
				fmt.Println(err)
			}
			_, example, _ := strings.Cut(b.String(), "\nExample\n")
			fmt.Print(example)
		}
	}
}

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}
