package flow

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
)

// TestWhatTravels looks at every DoFn: what it is told must be in exported fields, of types that Beam carries; Beam
// drops unexported ones without a word, and panics on an exported interface.
func TestWhatTravels(t *testing.T) {
	for _, fn := range []any{&dealFn{}, &passFn{}, &endFn{}} {
		typ := reflect.TypeOf(fn).Elem()
		if f, ok := typ.FieldByName("Setting"); !ok || f.Type != reflect.TypeFor[Setting]() {
			t.Errorf("%s has no Setting", typ)
		}
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() {
				carried(t, typ.Name()+"."+f.Name, f.Type)
			}
		}
	}
}

func carried(t *testing.T, path string, typ reflect.Type) {
	switch typ.Kind() {
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.Pointer:
		t.Errorf("%s: a %s does not travel", path, typ)
	case reflect.Map: // Beam writes a DoFn as JSON
		if typ.Key().Kind() != reflect.String {
			t.Errorf("%s: a %s does not travel", path, typ)
		}
		carried(t, path+"[]", typ.Elem())
	case reflect.Struct:
		if typ.PkgPath() == "time" {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			if !f.IsExported() {
				t.Errorf("%s.%s is not exported: it would be dropped", path, f.Name)
			}
			carried(t, path+"."+f.Name, f.Type)
		}
	}
}

// TestWorkTravels: splits keep their bounds, open ones too; the runner is told how much there is and how far it has
// got.
func TestWorkTravels(t *testing.T) {
	w := work{Whole: true, Splits: []connector.Split{{Partition: "a", Rows: 7},
		{Partition: "b", Start: []byte{1}, End: []byte{9}, Sinks: []string{"s"}}}}
	text, err := encodeWork(w)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeWork(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, got); diff != "" {
		t.Error(diff)
	}
	if size := (&passFn{}).RestrictionSize(w, w); size != 8 {
		t.Errorf("size %v, want 8: a split of unknown size counts as one row", size)
	}
	tr := newTracker(w)
	tr.TryClaim(claim{split: 0, end: true})
	tr.TryClaim(claim{split: 1, last: []byte{2}})
	if done, left := tr.GetProgress(); done != 1.5 || left != 0.5 || !tr.IsBounded() || tr.IsDone() {
		t.Errorf("%v done, %v left", done, left)
	}
	if _, left := newTracker(w).GetProgress(); left != 2 {
		t.Errorf("%v left of two splits", left)
	}
	if primary, residual, err := tr.TrySplit(0.5); residual != nil || err != nil || len(primary.(work).Splits) != 2 {
		t.Errorf("work that is whole was split: %v, %v, %v", primary, residual, err)
	}
}
