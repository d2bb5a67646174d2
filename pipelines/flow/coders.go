package flow

import (
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	// By reflection: package register's wrappers spare some microseconds a call, of a few calls a run, and take a
	// minute to compile.
	for _, fn := range []any{&dealFn{}, &passFn{}, &endFn{}} {
		beam.RegisterDoFn(reflect.TypeOf(fn).Elem())
	}
}
