package kafkaio

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"

	"github.com/twmb/franz-go/pkg/sr"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// registry registers the schemas of topics.
type registry struct {
	c      Registry
	client *sr.Client
	schema sr.Schema
	name   string // of the record
}

// newRegistry gives a registry for records of a schema; fixed is the topic, or "" where it
// differs from record to record.
func newRegistry(c Registry, fixed string, schema *record.Schema) (*registry, error) {
	name := c.recordName(fixed)
	text, err := avroSchema(name, schema)
	if err != nil {
		return nil, fail.Job("kafka.avro_schema", "the records have no Avro schema: %w", err).
			WithFix("rename the field by a transform")
	}
	client, err := newRegistryClient(c)
	if err != nil {
		return nil, err
	}
	return &registry{c: c, client: client, name: name, schema: sr.Schema{Schema: text, Type: sr.TypeAvro}}, nil
}

func newRegistryClient(c Registry) (*sr.Client, error) {
	options := []sr.ClientOpt{sr.URLs(c.URL)}
	if c.User != "" {
		password, err := c.Password.Resolve()
		if err != nil {
			return nil, fail.Job("kafka.registry_password", "the password for the schema registry: %w", err)
		}
		options = append(options, sr.BasicAuth(c.User, password))
	}
	tlsConfig, err := c.TLS.Config()
	if err != nil {
		return nil, err
	}
	if tlsConfig != nil {
		options = append(options, sr.DialTLSConfig(tlsConfig))
	}
	client, err := sr.NewClient(options...)
	if err != nil {
		return nil, fail.Job("kafka.registry", "the schema registry cannot be used: %w", err)
	}
	return client, nil
}

func (r *registry) subject(topic string) string { return r.c.subject(topic, r.name) }

// subject is the subject of a topic's values, records of a name.
func (c Registry) subject(topic, name string) string {
	switch c.Subject {
	case "record":
		return name
	case "topic_record":
		return topic + "-" + name
	}
	return topic + "-value"
}

// recordName is the name of the records of a topic; topic is "" where it differs from record to record.
func (c Registry) recordName(topic string) string {
	switch {
	case c.Name != "":
		return c.Name
	case topic == "":
		return "reprise.record"
	}
	return "reprise." + avroName(topic)
}

// check asks whether the schema fits those that the subject has.
func (r *registry) check(ctx context.Context, topic string) error {
	subject := r.subject(topic)
	result, err := r.client.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), subject, -1, r.schema)
	var response *sr.ResponseError
	if errors.As(err, &response) && response.StatusCode == http.StatusNotFound {
		return nil // the first of its subject
	}
	if err == nil && !result.Is {
		err = incompatible(subject, "it is not compatible with the versions there")
		if len(result.Messages) > 0 {
			err = incompatible(subject, result.Messages[0])
		}
	}
	return registryError(subject, err)
}

// register gives what stands before each value: a zero and the schema's id.
func (r *registry) register(ctx context.Context, topic string) (head []byte, err error) {
	subject := r.subject(topic)
	id, err := r.client.RegisterSchema(ctx, subject, r.schema, -1, -1)
	if err != nil {
		return nil, registryError(subject, err)
	}
	return binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), nil
}

func incompatible(subject, reason string) error {
	return fail.Job("kafka.schema_incompatible", "the schema registry refuses the schema for subject %s: %s", subject,
		reason).
		WithFix("change the fields by a transform, write to another topic, or change the subject's compatibility")
}

func registryError(subject string, err error) error {
	var classified *fail.Error
	if err == nil || errors.As(err, &classified) || errors.Is(err, context.Canceled) {
		return err
	}
	var response *sr.ResponseError
	if !errors.As(err, &response) {
		var request *url.Error
		if errors.As(err, &request) {
			err = request // the library repeats the address
		}
		return fail.Unreachable("kafka.registry_unavailable", "the schema registry is not available: %w", err).
			WithFix("check url in registry")
	}
	switch response.StatusCode {
	case http.StatusConflict, http.StatusUnprocessableEntity:
		return incompatible(subject, response.Error())
	case http.StatusUnauthorized, http.StatusForbidden:
		e := fail.New(fail.Fatal, "kafka.registry_login", "the schema registry refuses the login: %w", err).
			WithFix("check user and password in registry")
		e.Exit = fail.ExitUnreachable
		return e
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest:
		return fail.Job("kafka.registry", "the schema registry does not understand the request for subject %s: %d %w",
			subject, response.StatusCode, err).
			WithFix("check url in registry: it must be the address under which /subjects lies")
	}
	return fail.Unreachable("kafka.registry_unavailable", "the schema registry answers %d: %w",
		response.StatusCode, err)
}
