package flow

import (
	"reflect"
	"testing"
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
