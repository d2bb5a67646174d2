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
	topic    *connector.Template
	fixed    string // the topic, where it is the same for all records
	key      *connector.Template
	floor    int64                  // lowest version that messages are given
	headers  [4]sarama.RecordHeader // version, run, op, job
	registry *registry              // nil: JSON
	average  atomic.Int64           // bytes of a message
}

func (s *Sink) newEncoder(run connector.Run, schema *record.Schema) (e *encoder, err error) {
	e = &encoder{floor: run.Floor, headers: [4]sarama.RecordHeader{{Key: []byte("version")},
		{Key: []byte("run"), Value: []byte(run.ID)}, {Key: []byte("op")},
		{Key: []byte("job"), Value: []byte(run.Job)}}}
	if e.topic, err = connector.ParseTemplate(s.c.Topic, schema); err != nil {
		return nil, fail.Job("kafka.topic", "topic: %w", err)
	}
	if e.key, err = connector.ParseTemplate(s.c.keyTemplate(), schema); err != nil {
		return nil, fail.Job("kafka.key", "key: %w", err)
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
	if s.c.Format == formatAvro {
		e.registry, err = newRegistry(*s.c.Registry, e.fixed, schema)
	}
	return e, err
}
