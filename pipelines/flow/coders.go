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
	// Registered functions are called without reflection.
	register.Function1x1(record.EncodeRecord)
	register.Function1x2(record.DecodeRecord)
	beam.RegisterCoder(reflect.TypeFor[*record.Record](), record.EncodeRecord, record.DecodeRecord)
	beam.RegisterCoder(reflect.TypeFor[*record.DeadLetter](), encodeDeadLetter, record.DecodeDeadLetter)
	beam.RegisterCoder(reflect.TypeFor[work](), encodeWork, decodeWork)
	beam.RegisterCoder(reflect.TypeFor[tally](), encodeTally, decodeTally)
	register.Emitter1[*record.Record]()
	register.Emitter1[*record.DeadLetter]()
	register.Emitter1[work]()
	register.Emitter1[tally]()
	register.Emitter1[[]byte]()
	register.Iter1[tally]()
	register.Iter1[[]byte]()
}

func encodeDeadLetter(l *record.DeadLetter) []byte { return record.AppendDeadLetter(nil, l) }

// Beam finds functions by their name, which generic ones share.

func encodeWork(w work) ([]byte, error) { return json.Marshal(w) }

func decodeWork(b []byte) (w work, err error) {
	err = json.Unmarshal(b, &w)
	return w, err
}

func encodeTally(t tally) ([]byte, error) { return json.Marshal(t) }

func decodeTally(b []byte) (t tally, err error) {
	err = json.Unmarshal(b, &t)
	return t, err
}

// work is some splits of the plan: an element of the graph, and the restriction of whoever reads it.
type work struct {
	Splits []connector.Split `json:"splits"`
}

// tally counts what became of the records of one split in one stage.
type tally struct {
	Stage    string        `json:"stage"` // "source", "transforms", "sink NAME", "dead letters", "commit NAME"
	Split    string        `json:"split"`
	In       int64         `json:"in"`   // taken from the stage before, or read
	Made     int64         `json:"made"` // by steps that make several records of one: one less than they made
	Out      int64         `json:"out"`  // handed to the next stage
	Outcomes record.Counts `json:"outcomes"`
}
