// Package travel is what Reprise sends between the steps of a Beam pipeline, whoever builds it: records and dead
// letters by coders of their own, and parts of a plan, with the tracker of those who read them.
package travel

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
	beam.RegisterCoder(reflect.TypeFor[*record.DeadLetter](), encodeLetter, decodeLetter)
	beam.RegisterCoder(reflect.TypeFor[Work](), encodeWork, decodeWork)
}

// Work is some splits of the plan: an element of the graph, and the restriction of whoever reads it.
type Work struct {
	Splits []connector.Split `json:"splits"`
	Whole  bool              `json:"whole,omitempty"` // not to be given away in part
}

// Rows is about the number of rows of the splits, at least one each: the size of the restriction.
func (w Work) Rows() float64 {
	rows := 0.0
	for _, s := range w.Splits {
		rows += float64(max(1, s.Rows))
	}
	return rows
}

// Beam finds functions by their name, which generic ones share.

func encodeWork(w Work) ([]byte, error) { return json.Marshal(w) }

func decodeWork(b []byte) (w Work, err error) {
	err = json.Unmarshal(b, &w)
	return w, err
}

// letter is a dead letter whose record has its own wire form.
type letter struct {
	record.DeadLetter
	Wire []byte `json:",omitempty"`
}

func encodeLetter(l *record.DeadLetter) ([]byte, error) {
	wire := letter{DeadLetter: *l}
	if l.Record != nil {
		wire.Wire, wire.Record = record.EncodeRecord(l.Record), nil
	}
	return json.Marshal(wire)
}

func decodeLetter(b []byte) (*record.DeadLetter, error) {
	var wire letter
	err := json.Unmarshal(b, &wire)
	if err == nil && wire.Wire != nil {
		wire.Record, err = record.DecodeRecord(wire.Wire)
	}
	return &wire.DeadLetter, err
}
