package elasticsearchio

import (
	"context"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Source reads documents.
type Source struct {
	config SourceConfig
	need   connector.Need

	mu     sync.Mutex
	opened *opened
}

// NewSource gives a source; it does not connect.
func NewSource(c SourceConfig, need connector.Need) *Source {
	return &Source{config: c, need: need}
}

// opened is a source that is connected and knows its indices.
type opened struct {
	config SourceConfig
	client *client
	schema *record.Schema
}

func (s *Source) open(context.Context) (*opened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	c, err := newClient(s.config.access())
	if err != nil {
		return nil, err
	}
	schema, err := record.NewSchema(s.config.Fields, s.config.Key...)
	if err != nil {
		return nil, fail.Job("elasticsearch.fields", "fields: %w", err)
	}
	s.opened = &opened{config: s.config, client: c, schema: schema}
	return s.opened, nil
}

// Schema is the schema of the records.
func (s *Source) Schema(ctx context.Context) (*record.Schema, error) {
	o, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return o.schema, nil
}

// Close ends the connections.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		s.opened.client.close()
		s.opened = nil
	}
	return nil
}
