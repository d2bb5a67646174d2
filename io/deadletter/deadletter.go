// Package deadletter gives dead letters the form of records of one fixed schema, so that any sink can hold the
// queue and any source read it again.
package deadletter

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"reprise/transforms/record"
)

// The fields of the schema.
const (
	id = iota
	run
	step
	sink
	class
	code
	message
	attempts
	split
	at
	key
	fields
	wire
	raw
)

var schema = func() *record.Schema {
	text := record.Of(record.Text)
	return record.MustSchema([]record.Field{
		id:       {Name: "id", Type: text},
		run:      {Name: "run", Type: text},
		step:     {Name: "step", Type: text},
		sink:     {Name: "sink", Type: text},
		class:    {Name: "class", Type: text},
		code:     {Name: "code", Type: text},
		message:  {Name: "message", Type: text},
		attempts: {Name: "attempts", Type: record.Of(record.Int)},
		split:    {Name: "split", Type: text},
		at:       {Name: "at", Type: record.Of(record.Timestamp)},
		key:      {Name: "key", Type: text},
		fields:   {Name: "fields", Type: text},
		wire:     {Name: "record", Type: record.Of(record.Blob)},
		raw:      {Name: "raw", Type: record.Of(record.Blob)},
	}, "id")
}()

// Schema is the schema of the queue; its key is id. The fields key and fields show the record to people (as text and as
// JSON), record holds it exactly, for FromRecord; raw holds what a source could not decode.
func Schema() *record.Schema { return schema }

// ToRecord gives a dead letter the form of a record. Its id is the same each time the same record fails at the same
// place of a run; the version is the time of the failure.
func ToRecord(l *record.DeadLetter) *record.Record {
	text := func(s string) record.Value { return record.String(strings.ToValidUTF8(s, "\ufffd")) }
	v := make([]record.Value, len(schema.Fields))
	v[run], v[step], v[sink] = text(l.Run), text(l.Step), text(l.Sink)
	v[class], v[code], v[message] = text(l.Class), text(l.Code), text(l.Message)
	v[attempts] = record.Number(record.Int, int64(l.Attempts))
	v[split] = text(l.Split)
	v[at] = record.Number(record.Timestamp, l.At)
	for i := key; i <= raw; i++ {
		v[i] = record.NullValue
	}
	hash := sha256.New()
	write := func(part []byte) {
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		hash.Write(part)
	}
	for _, part := range []string{l.Run, l.Step, l.Sink} {
		write([]byte(part))
	}
	if r := l.Record; r != nil {
		json := r.AppendJSON(nil)
		v[key], v[fields] = text(r.KeyText()), text(string(json))
		v[wire] = record.Bytes(record.Blob, string(record.AppendRecord(nil, r)))
		// Not the wire form: it tells the split, and a resumed run may split otherwise.
		write(r.AppendKey(nil))
		write(binary.BigEndian.AppendUint64([]byte{byte(r.Op)}, uint64(r.Version)))
		write(json)
	}
	if l.Raw != nil {
		v[raw] = record.Bytes(record.Blob, string(l.Raw))
	}
	write(l.Raw)
	if l.Place != nil { // other rows may hold the same
		write([]byte(l.Place.String()))
	}
	v[id] = record.String(hex.EncodeToString(hash.Sum(nil)[:16]))
	return &record.Record{Schema: schema, Values: v, Version: l.At * 1000}
}

// FromRecord reads what ToRecord made, wherever it was stored: fields are found by name.
func FromRecord(r *record.Record) (*record.DeadLetter, error) {
	get := func(field int) record.Value { return r.Get(schema.Fields[field].Name) }
	for _, i := range []int{id, run, step, class, code, at} {
		if f := schema.Fields[i]; get(i).Kind() != f.Type.Kind {
			return nil, fmt.Errorf("%s is not a dead letter: its field %s is a %s, not a %s", r.KeyText(),
				f.Name, get(i).Kind(), f.Type)
		}
	}
	l := &record.DeadLetter{Run: get(run).Str(), Step: get(step).Str(), Sink: get(sink).Str(),
		Class: get(class).Str(), Code: get(code).Str(),
		Message: get(message).Str(), Attempts: int(get(attempts).Int()), Split: get(split).Str(), At: get(at).Int()}
	if v := get(raw); v.Kind() == record.Blob {
		l.Raw = []byte(v.Str())
	}
	v := get(wire)
	if v.IsNull() {
		return l, nil
	}
	var err error
	if l.Record, err = record.DecodeRecord([]byte(v.Str())); err != nil {
		return nil, fmt.Errorf("the record in dead letter %s: %w", r.KeyText(), err)
	}
	return l, nil
}
