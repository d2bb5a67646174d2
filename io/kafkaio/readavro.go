package kafkaio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// avroReader reads values in Confluent's wire format by the schemas of a registry.
type avroReader struct {
	c             Registry
	client        *sr.Client
	retry         connector.Retry
	ignoreUnknown bool
	version       string
	cut           bool // timestamps

	lookUp sync.Mutex
	known  sync.Map // id → *writtenAs
}

// writtenAs is how values with a schema of the registry are read as records of a schema.
type writtenAs struct {
	err    error // of class Permanent: they cannot be
	fields []writtenField
}

type writtenField struct {
	name  string
	place int // of the record's fields; -1: unknown
	read  avroValue
}

// avroValue reads one value.
type avroValue func(in *avroInput) (record.Value, error)

func newAvroReader(c SourceConfig, retry connector.Retry) (*avroReader, error) {
	client, err := newRegistryClient(*c.Registry)
	if err != nil {
		return nil, err
	}
	return &avroReader{c: *c.Registry, client: client, retry: retry, ignoreUnknown: c.IgnoreUnknown,
		version: c.Version, cut: c.CutTimestamps}, nil
}

// get asks the registry.
func (a *avroReader) get(ctx context.Context, subject string, ask func() error) error {
	return connector.Request(ctx, a.retry, func() (int, int64, error) { return 0, 0, registryError(subject, ask()) })
}

// fields are those of the latest schema of a topic.
func (a *avroReader) fields(ctx context.Context, topic string) (fields connector.Fields, err error) {
	subject := a.c.subject(topic, a.c.recordName(topic))
	var found sr.SubjectSchema
	if err := a.get(ctx, subject, func() (err error) {
		found, err = a.client.SchemaByVersion(ctx, subject, -1)
		if notFound(err) {
			return fail.Job("kafka.no_schema", "the registry has no subject %s", subject).
				WithFix("check subject and name in registry, or name the fields and their types in fields")
		}
		return err
	}); err != nil {
		return nil, err
	}
	root, err := parseAvro(found.Schema)
	if err != nil {
		return nil, fail.Job("kafka.avro_schema", "the schema of subject %s: %w", subject, err).
			WithFix("name the fields and their types in fields")
	}
	for _, f := range root.Fields {
		t, err := avroType(&f.Type)
		if err != nil {
			return nil, fail.Job("kafka.avro_schema", "field %s of subject %s: %w", f.Name, subject, err).
				WithFix("name the fields and their types in fields")
		}
		fields = append(fields, record.Field{Name: f.Name, Type: t})
	}
	return fields, nil
}

func notFound(err error) bool {
	var response *sr.ResponseError
	return errors.As(err, &response) && response.StatusCode == http.StatusNotFound
}

// parseAvro reads the schema of a record.
func parseAvro(s sr.Schema) (*avro.SchemaNode, error) {
	if s.Type != sr.TypeAvro || len(s.References) > 0 {
		return nil, errors.New("is none of Avro that stands by itself")
	}
	parsed, err := avro.Parse(s.Schema)
	if err != nil {
		return nil, err
	}
	root := parsed.Root().ExpandReferences()
	if root.Type != "record" {
		return nil, fmt.Errorf("is a %s, not a record", root.Type)
	}
	return root, nil
}

// read reads the fields of a record.
func (a *avroReader) read(ctx context.Context, r *record.Record, value []byte) error {
	const head = 5
	if len(value) < head || value[0] != 0 {
		return unreadable("not_avro", "the value does not begin with a zero and a schema's id")
	}
	w, err := a.writtenAs(ctx, int(binary.BigEndian.Uint32(value[1:])), r.Schema)
	if err != nil {
		return err
	}
	if w.err != nil {
		return w.err
	}
	r.Values = make([]record.Value, len(r.Schema.Fields))
	in := &avroInput{rest: string(value[head:])}
	for _, f := range w.fields {
		v, err := f.read(in)
		switch {
		case err != nil:
			return wrongType(f.name, err)
		case f.place >= 0:
			r.Values[f.place] = v
		}
	}
	if in.rest != "" {
		return unreadable("not_avro", "%d bytes follow the value", len(in.rest))
	}
	return nil
}

// writtenAs looks a schema up, the first time in the registry.
func (a *avroReader) writtenAs(ctx context.Context, id int, schema *record.Schema) (*writtenAs, error) {
	if w, ok := a.known.Load(id); ok {
		return w.(*writtenAs), nil
	}
	a.lookUp.Lock()
	defer a.lookUp.Unlock()
	if w, ok := a.known.Load(id); ok {
		return w.(*writtenAs), nil
	}
	var found sr.Schema
	w := &writtenAs{}
	if err := a.get(ctx, fmt.Sprint("of schema ", id), func() (err error) {
		found, err = a.client.SchemaByID(ctx, id)
		if notFound(err) {
			w.err = unreadable("no_schema", "the registry has no schema %d", id)
			return nil
		}
		return err
	}); err != nil {
		return nil, err
	}
	if w.err == nil {
		a.prepare(w, found, id, schema)
	}
	a.known.Store(id, w)
	return w, nil
}

func (a *avroReader) prepare(w *writtenAs, s sr.Schema, id int, schema *record.Schema) {
	root, err := parseAvro(s)
	if err != nil {
		w.err = unreadable("avro_schema", "schema %d: %w", id, err)
		return
	}
	readings := connector.Readings(schema, a.version, a.cut)
	places := map[string]int{}
	for i, f := range schema.Fields {
		places[avroName(f.Name)] = i
	}
	for _, f := range root.Fields {
		if i, ok := places[f.Name]; ok {
			read := readAvro(&f.Type, schema.Fields[i].Type, readings[i])
			w.fields = append(w.fields, writtenField{schema.Fields[i].Name, i, read})
			continue
		}
		if !a.ignoreUnknown {
			w.err = unknownField(f.Name)
		}
		w.fields = append(w.fields, writtenField{f.Name, -1,
			func(in *avroInput) (record.Value, error) { return record.Value{}, in.skip(&f.Type) }})
	}
}

// avroType is the type that holds the values of an Avro type.
func avroType(n *avro.SchemaNode) (record.Type, error) {
	switch n.LogicalType {
	case "uuid":
		return record.Of(record.UUID), nil
	case "timestamp-millis":
		return record.Of(record.Timestamp), nil
	case "date":
		return record.Of(record.Date), nil
	case "time-millis", "time-micros":
		return record.Of(record.Time), nil
	case "decimal":
		return record.Of(record.Decimal), nil
	}
	switch n.Type {
	case "boolean":
		return record.Of(record.Boolean), nil
	case "int":
		return record.Of(record.Int), nil
	case "long":
		return record.Of(record.BigInt), nil
	case "float":
		return record.Of(record.Float), nil
	case "double":
		return record.Of(record.Double), nil
	case "string", "enum":
		return record.Of(record.Text), nil
	case "bytes", "fixed":
		return record.Of(record.Blob), nil
	case "array":
		elem, err := avroType(n.Items)
		return record.ListOf(elem), err
	case "map":
		value, err := avroType(n.Values)
		return record.MapOf(record.Of(record.Text), value), err
	case "record":
		parts := make([]record.Field, len(n.Fields))
		for i, f := range n.Fields {
			t, err := avroType(&f.Type)
			if err != nil {
				return t, err
			}
			parts[i] = record.Field{Name: f.Name, Type: t}
		}
		return record.UDTOf("", parts...), nil
	case "union":
		var only *avro.SchemaNode
		for i := range n.Branches {
			if n.Branches[i].Type == "null" {
				continue
			}
			if only != nil {
				return record.Type{}, errors.New("a union of several types cannot be guessed")
			}
			only = &n.Branches[i]
		}
		if only != nil {
			return avroType(only)
		}
		return record.Of(record.Text), nil
	}
	return record.Type{}, fmt.Errorf("values of Avro's type %s cannot be read", n.Type)
}

// avroInput is what is left of a value.
type avroInput struct{ rest string }

var errShort = errors.New("the value ends too early")

func (in *avroInput) take(n int64) (string, error) {
	if n < 0 || n > int64(len(in.rest)) {
		return "", errShort
	}
	taken := in.rest[:n]
	in.rest = in.rest[n:]
	return taken, nil
}

func (in *avroInput) number() (int64, error) {
	u := uint64(0)
	for i := 0; i < len(in.rest) && i < binary.MaxVarintLen64; i++ {
		c := in.rest[i]
		u |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			in.rest = in.rest[i+1:]
			return int64(u>>1) ^ -int64(u&1), nil
		}
	}
	return 0, errShort
}

func (in *avroInput) text() (string, error) {
	n, err := in.number()
	if err != nil {
		return "", err
	}
	return in.take(n)
}

// choice is a number below n.
func (in *avroInput) choice(n int) (int, error) {
	i, err := in.number()
	if err == nil && (i < 0 || i >= int64(n)) {
		err = fmt.Errorf("a union or enum of %d has no %d", n, i)
	}
	return int(i), err
}

// blocks calls each for every element of an array or map.
func (in *avroInput) blocks(each func() error) error {
	for {
		n, err := in.number()
		if err == nil && n < 0 {
			n = -n
			_, err = in.number() // the block's size in bytes
		}
		if err != nil || n == 0 {
			return err
		}
		if n > int64(len(in.rest)) || n < 0 {
			return errShort
		}
		for range n {
			if err := each(); err != nil {
				return err
			}
		}
	}
}

// readAvro reads values of an Avro type as those of a type. What would lose something is an error.
func readAvro(n *avro.SchemaNode, t record.Type, how record.Reading) avroValue {
	switch n.Type {
	case "null":
		return func(*avroInput) (record.Value, error) { return record.NullValue, nil }
	case "union":
		branches := make([]avroValue, len(n.Branches))
		for i := range n.Branches {
			branches[i] = readAvro(&n.Branches[i], t, how)
		}
		return func(in *avroInput) (record.Value, error) {
			i, err := in.choice(len(branches))
			if err != nil {
				return record.Value{}, err
			}
			return branches[i](in)
		}
	case "array":
		if t.Kind == record.List || t.Kind == record.Set || t.Kind == record.Vector {
			return readArray(readAvro(n.Items, t.Elems[0], how), t)
		}
	case "map":
		if t.Kind == record.Map {
			return readMap(readAvro(n.Values, t.Elems[1], how), t, how)
		}
	case "record":
		if t.Kind == record.UDT || t.Kind == record.Tuple {
			return readParts(n, t, how)
		}
	case "boolean":
		if t.Kind == record.Boolean {
			return func(in *avroInput) (record.Value, error) {
				b, err := in.take(1)
				return record.Bool(b == "\x01"), err
			}
		}
	case "int", "long":
		return readInteger(n, t, how)
	case "float":
		return func(in *avroInput) (record.Value, error) {
			b, err := in.take(4)
			if err != nil {
				return record.Value{}, err
			}
			f := math.Float32frombits(binary.LittleEndian.Uint32([]byte(b)))
			switch t.Kind {
			case record.Float:
				return record.Float32(f), nil
			case record.Double:
				return record.Float64(float64(f)), nil
			}
			return record.Value{}, notReadable(n, t)
		}
	case "double":
		if t.Kind == record.Double {
			return func(in *avroInput) (record.Value, error) {
				b, err := in.take(8)
				if err != nil {
					return record.Value{}, err
				}
				return record.Float64(math.Float64frombits(binary.LittleEndian.Uint64([]byte(b)))), nil
			}
		}
	case "string":
		return func(in *avroInput) (record.Value, error) {
			s, err := in.text()
			if err != nil {
				return record.Value{}, err
			}
			return fromText(s, t, how)
		}
	case "enum":
		return func(in *avroInput) (record.Value, error) {
			i, err := in.choice(len(n.Symbols))
			if err != nil {
				return record.Value{}, err
			}
			return fromText(n.Symbols[i], t, how)
		}
	case "bytes":
		return func(in *avroInput) (record.Value, error) {
			b, err := in.text()
			if err != nil {
				return record.Value{}, err
			}
			return fromBytes(b, n, t)
		}
	case "fixed":
		return func(in *avroInput) (record.Value, error) {
			b, err := in.take(int64(n.Size))
			if err != nil {
				return record.Value{}, err
			}
			return fromBytes(b, n, t)
		}
	}
	return func(*avroInput) (record.Value, error) { return record.Value{}, notReadable(n, t) }
}

func notReadable(n *avro.SchemaNode, t record.Type) error {
	return fmt.Errorf("Avro's %s cannot be read as %s", strings.TrimSpace(n.LogicalType+" "+n.Type), t)
}

func fromText(s string, t record.Type, how record.Reading) (record.Value, error) {
	if !utf8.ValidString(s) {
		return record.Value{}, errors.New("bytes that are not UTF-8")
	}
	return how.ParseText(t, s)
}

func fromBytes(b string, n *avro.SchemaNode, t record.Type) (record.Value, error) {
	switch {
	case n.LogicalType == "decimal" && t.Kind == record.Decimal:
		return record.Dec(b, int32(n.Scale)), nil
	case t.Kind == record.Blob, (t.Kind == record.UUID || t.Kind == record.TimeUUID) && len(b) == 16:
		return record.Bytes(t.Kind, b), nil
	}
	return record.Value{}, notReadable(n, t)
}

// readInteger reads numbers and what Avro counts by them. Without a logical type a timestamp counts
// milliseconds and a time nanoseconds.
func readInteger(n *avro.SchemaNode, t record.Type, how record.Reading) avroValue {
	var of func(n int64) (record.Value, error)
	switch t.Kind {
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt:
		of = func(n int64) (record.Value, error) {
			if spare := 64 - record.IntBits(t.Kind); n<<spare>>spare != n {
				return record.Value{}, fmt.Errorf("%d is no %s", n, t)
			}
			return record.Number(t.Kind, n), nil
		}
	case record.Varint, record.Decimal, record.Double:
		of = func(n int64) (record.Value, error) { return record.FromJSON(t, fmt.Sprint(n)) }
	case record.Date:
		of = func(n int64) (record.Value, error) {
			if n != int64(int32(n)) {
				return record.Value{}, fmt.Errorf("day %d is beyond the dates of Avro", n)
			}
			return record.Number(t.Kind, n), nil
		}
	case record.Time:
		if nanos, ok := map[string]int64{"time-millis": 1e6, "time-micros": 1e3, "": 1}[n.LogicalType]; ok {
			of = func(n int64) (record.Value, error) {
				if nanos > 1 && (n < 0 || n >= int64(24*time.Hour)/nanos) {
					return record.Value{}, fmt.Errorf("%d is no time of day", n)
				}
				return record.Number(t.Kind, n*nanos), nil
			}
		}
	case record.Timestamp:
		units := map[string]int64{"timestamp-millis": 1, "timestamp-micros": 1e3, "timestamp-nanos": 1e6}
		if n.LogicalType == "" {
			of = record.Millis
		} else if parts, ok := units[n.LogicalType]; ok {
			of = func(n int64) (record.Value, error) {
				ms := n / parts
				switch {
				case n%parts != 0 && !how.CutTimestamps:
					return record.Value{}, record.ErrFiner
				case n%parts < 0:
					ms--
				}
				return record.Number(t.Kind, ms), nil
			}
		}
	}
	return func(in *avroInput) (record.Value, error) {
		i, err := in.number()
		if err == nil && of == nil {
			err = notReadable(n, t)
		}
		if err != nil {
			return record.Value{}, err
		}
		return of(i)
	}
}

func readArray(elem avroValue, t record.Type) avroValue {
	return func(in *avroInput) (record.Value, error) {
		var elems []record.Value
		err := in.blocks(func() error {
			v, err := elem(in)
			elems = append(elems, v)
			return err
		})
		if err == nil && t.Kind == record.Vector && len(elems) != t.Dim {
			err = fmt.Errorf("%d elements are no %s", len(elems), t)
		}
		return record.Nested(t.Kind, elems), err
	}
}

func readMap(value avroValue, t record.Type, how record.Reading) avroValue {
	return func(in *avroInput) (record.Value, error) {
		var elems []record.Value
		err := in.blocks(func() error {
			text, err := in.text()
			if err != nil {
				return err
			}
			k, err := fromText(text, t.Elems[0], how)
			if err != nil {
				return err
			}
			v, err := value(in)
			elems = append(elems, k, v)
			return err
		})
		return record.Nested(record.Map, elems), err
	}
}

// readParts reads tuples and UDTs; parts that were not written are null.
func readParts(n *avro.SchemaNode, t record.Type, how record.Reading) avroValue {
	places := map[string]int{}
	for i := range t.Elems {
		places[avroName(partName(t, i))] = i
	}
	fields := make([]writtenField, len(n.Fields))
	for i, f := range n.Fields {
		if place, ok := places[f.Name]; ok {
			fields[i] = writtenField{f.Name, place, readAvro(&f.Type, t.Elems[place], how)}
		} else {
			fields[i] = writtenField{f.Name, -1, func(*avroInput) (record.Value, error) {
				return record.Value{}, errors.New("is no part of " + t.String())
			}}
		}
	}
	return func(in *avroInput) (record.Value, error) {
		elems := make([]record.Value, len(t.Elems))
		for i := range elems {
			elems[i] = record.NullValue
		}
		for _, f := range fields {
			v, err := f.read(in)
			if err != nil {
				return record.Value{}, fmt.Errorf("part %s: %w", f.name, err)
			}
			elems[f.place] = v
		}
		return record.Nested(t.Kind, elems), nil
	}
}

// skip passes over a value.
func (in *avroInput) skip(n *avro.SchemaNode) (err error) {
	switch n.Type {
	case "null":
	case "boolean":
		_, err = in.take(1)
	case "int", "long", "enum":
		_, err = in.number()
	case "float":
		_, err = in.take(4)
	case "double":
		_, err = in.take(8)
	case "string", "bytes":
		_, err = in.text()
	case "fixed":
		_, err = in.take(int64(n.Size))
	case "union":
		var i int
		if i, err = in.choice(len(n.Branches)); err == nil {
			err = in.skip(&n.Branches[i])
		}
	case "array":
		err = in.blocks(func() error { return in.skip(n.Items) })
	case "map":
		err = in.blocks(func() error {
			if _, err := in.text(); err != nil {
				return err
			}
			return in.skip(n.Values)
		})
	case "record":
		for i := range n.Fields {
			if err := in.skip(&n.Fields[i].Type); err != nil {
				return err
			}
		}
	default:
		err = fmt.Errorf("values of Avro's type %s cannot be read", n.Type)
	}
	return err
}
