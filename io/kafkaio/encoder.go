package kafkaio

import (
	"strings"
	"sync/atomic"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var upsert, deletion = []byte(record.Upsert.String()), []byte(record.Delete.String())

// encoder is what makes messages of the records of a run.
type encoder struct {
	topic     *connector.Template
	fixed     string // the topic, where it is the same for all records
	key       *connector.Template
	processor *connector.Template // nil: no such header
	floor     int64               // lowest version that messages are given
	headers   headers
	count     int            // of headers
	empty     bool           // messages have no value
	keys      *record.Schema // nil: values are whole rows
	registry  *registry      // nil: JSON
	average   atomic.Int64   // bytes of a message
}

// headers are version, run, op and job, processor where there is one, and value where it is not the row.
type headers [6]sarama.RecordHeader

// headerValue tells that a message holds a key alone, so that nobody takes it for a row.
const headerValue = "value"

func (s *Sink) newEncoder(run connector.Run, schema *record.Schema) (e *encoder, err error) {
	e = &encoder{floor: run.Floor, empty: s.c.Value == valueNone, headers: headers{{Key: []byte("version")},
		{Key: []byte("run"), Value: []byte(run.ID)}, {Key: []byte("op")},
		{Key: []byte("job"), Value: []byte(run.Job)}, {}, {}}}
	e.count = 4
	if s.c.Processor != "" {
		e.headers[e.count].Key = []byte(headerProcessor)
		e.count++
	}
	if s.c.keyAlone() {
		e.headers[e.count] = sarama.RecordHeader{Key: []byte(headerValue), Value: []byte(s.c.Value)}
		e.count++
	}
	if e.topic, err = connector.ParseTemplate(s.c.Topic, schema); err != nil {
		return nil, fail.Job("kafka.topic", "topic: %w", err)
	}
	if e.key, err = connector.ParseTemplate(s.c.keyTemplate(), schema); err != nil {
		return nil, fail.Job("kafka.key", "key: %w", err)
	}
	if s.c.Processor != "" {
		if e.processor, err = connector.ParseTemplate(s.c.Processor, schema); err != nil {
			return nil, fail.Job("kafka.processor", "processor: %w", err)
		}
	}
	if err := s.c.checkKey(schema); err != nil {
		return nil, err
	}
	own := "{" + strings.Join(schema.KeyNames(), ",") + "}" // of a key of one field
	if key := s.c.keyTemplate(); s.c.SoleWriter && key != "{key}" && key != own {
		return nil, fail.Job("kafka.key", "the key %s may be that of several records, of which a compacted topic "+
			"keeps the last, whichever its version", s.c.Key).
			WithFix("leave key out, so that it is the record's")
	}
	if e.topic.Fixed() {
		text, err := e.topic.Append(nil, nil)
		if err != nil {
			return nil, err
		}
		e.fixed = string(text)
	}
	if s.c.Value == valueKey {
		if e.keys, err = keysOf(schema); err != nil {
			return nil, err
		}
		schema = e.keys
	}
	if s.c.Format == formatAvro {
		e.registry, err = newRegistry(*s.c.Registry, e.fixed, schema)
	}
	return e, err
}
