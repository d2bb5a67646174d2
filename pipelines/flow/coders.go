package flow

import (
	"encoding/json"
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func init() {
	// Registered functions are called without reflection. Records travel only where a step groups them.
	register.Function1x1(record.EncodeRecord)
	register.Function1x2(record.DecodeRecord)
	beam.RegisterCoder(reflect.TypeFor[*record.Record](), record.EncodeRecord, record.DecodeRecord)
	beam.RegisterCoder(reflect.TypeFor[work](), encodeWork, decodeWork)
	// By reflection: package register's wrappers spare some microseconds a call, of a few calls a run, and take a
	// minute to compile.
	for _, fn := range []any{&dealFn{}, &passFn{}, &endFn{}} {
		beam.RegisterDoFn(reflect.TypeOf(fn).Elem())
	}
}

// work is some splits of the plan: an element of the graph, and the restriction of whoever reads it.
type work struct {
	Splits []connector.Split `json:"splits"`
	Whole  bool              `json:"whole,omitempty"` // one pass reads all of it side by side: no part is given away
}

// Beam finds functions by their name, which generic ones share.

func encodeWork(w work) ([]byte, error) { return json.Marshal(w) }

func decodeWork(b []byte) (w work, err error) {
	err = json.Unmarshal(b, &w)
	return w, err
}
