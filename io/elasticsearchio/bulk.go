package elasticsearchio

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// maxID is the longest document id that servers take, in bytes.
const maxID = 512

// format turns records into the lines of a bulk body.
type format struct {
	index, id, routing *connector.Template // index nil: the request names it; routing nil: none
	names              [][]byte            // of fields, `"name":`; nil: not in the document, or the rest of one
	rest               int                 // the field with the rest of a document; -1: there is none
	shape              shape               // of the other fields of documents
}

// newFormat checks the settings against the schema.
func newFormat(c SinkConfig, schema *record.Schema) (*format, error) {
	f := &format{names: make([][]byte, len(schema.Fields)), rest: -1}
	for _, t := range []struct {
		path, text string
		to         **connector.Template
	}{{"index", c.Index, &f.index}, {"id", c.idTemplate(), &f.id}, {"routing", c.Routing, &f.routing}} {
		parsed, err := connector.ParseTemplate(t.text, schema)
		if err != nil {
			return nil, fail.Job("elasticsearch.template", "%s: %w", t.path, err)
		}
		*t.to = parsed
	}
	if f.index.Fixed() {
		f.index = nil
	}
	if c.Routing == "" {
		f.routing = nil
	}
	fields, err := documentFields(c, schema)
	if err != nil {
		return nil, err
	}
	if err := allowed(fields); err != nil {
		return nil, err
	}
	for _, field := range fields {
		i := schema.Index(field.Name)
		switch {
		case field.Name != restName:
			f.names[i] = append(record.AppendQuoted(nil, field.Name), ':')
		case field.Type.Kind != record.Text:
			return nil, fail.Job("elasticsearch.fields",
				"the field %s is a %s; it is merged into the document, and so must be a text with a JSON object",
				restName, field.Type).
				WithFix("rename it by a transform: rename: {%s: rest}", restName)
		default:
			f.rest = i
		}
	}
	f.shape, err = newShape(schema.Fields, func(i int) bool { return f.names[i] == nil }, nil, false)
	if err != nil {
		return nil, fail.Job("elasticsearch.fields", "field %w", err).
			WithFix("rename it by a transform, or leave it out with exclude")
	}
	return f, nil
}

// metadata are names that a document's fields cannot have.
var metadata = []string{"_id", "_index", "_routing", "_source", "_version", "_seq_no",
	"_primary_term", "_type", "_ignored",
	"_field_names", "_nested_path", "_tier", "_data_stream_timestamp", "_ignored_source"}

// allowed refuses fields whose names no document can have.
func allowed(fields []record.Field) error {
	var kept, empty []string
	blank := func(part string) bool { return strings.TrimSpace(part) == "" }
	for _, f := range fields {
		switch {
		case slices.Contains(metadata, f.Name):
			kept = append(kept, f.Name)
		case slices.ContainsFunc(strings.Split(f.Name, "."), blank):
			empty = append(empty, strconv.Quote(f.Name))
		}
	}
	switch {
	case kept != nil:
		all := strings.Join(kept, ", ")
		return fail.Job("elasticsearch.field_name",
			"the server keeps these names for itself, so that no document can have them as fields: %s", all).
			WithFix("rename the fields by a transform, as in rename: {%s: doc%s}, or leave them out of the document: "+
				"exclude: [%s]",
				kept[0], kept[0], all)
	case empty != nil:
		return fail.Job("elasticsearch.field_name",
			"a dot in a name stands for an object, whose name is empty here: %s",
			strings.Join(empty, ", ")).
			WithFix("rename the fields by a transform")
	}
	return nil
}

// documentFields are the fields of the schema that documents have.
func documentFields(c SinkConfig, schema *record.Schema) ([]record.Field, error) {
	named := make(map[string]bool)
	for _, name := range append(append([]string(nil), c.Fields...), c.Exclude...) {
		if schema.Index(name) < 0 {
			return nil, fail.Job("elasticsearch.fields", "fields and exclude: there is no field %q", name).
				WithFix("there are %v", schema.Names())
		}
		named[name] = true
	}
	var fields []record.Field
	for _, f := range schema.Fields {
		if named[f.Name] == (len(c.Fields) > 0) {
			fields = append(fields, f)
		}
	}
	return fields, nil
}

// append appends a record's action and, unless it is a delete, its document. Its error is of class Permanent.
func (f *format) append(b []byte, r *record.Record) ([]byte, error) {
	if r.Version < 0 {
		return b, fail.New(fail.Permanent, "elasticsearch.version",
			"the version %d is negative, which the server refuses", r.Version).
			WithFix("set another version field")
	}
	if r.Op == record.Delete {
		b = append(b, `{"delete":{"_id":"`...)
	} else {
		b = append(b, `{"index":{"_id":"`...)
	}
	b, n, err := appendTemplate(b, f.id, r)
	if err != nil {
		return b, err
	}
	if n == 0 || n > maxID {
		return b, fail.New(fail.Permanent, "elasticsearch.id",
			"the document's id has %d bytes; the server takes 1 to %d", n, maxID).
			WithFix("set another id template, or shorten the key by a transform")
	}
	if f.index != nil {
		b = append(b, `,"_index":"`...)
		if b, _, err = appendTemplate(b, f.index, r); err != nil {
			return b, err
		}
	}
	if f.routing != nil {
		b = append(b, `,"routing":"`...)
		if b, _, err = appendTemplate(b, f.routing, r); err != nil {
			return b, err
		}
	}
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, r.Version, 10)
	b = append(b, `,"version_type":"external_gte"}}`+"\n"...)
	if r.Op == record.Delete {
		return b, nil
	}
	from := len(b)
	b = append(b, '{')
	separator := false
	for i, name := range f.names {
		if name == nil || r.Values[i].Kind() == record.Unset {
			continue
		}
		if separator {
			b = append(b, ',')
		}
		separator = true
		b = append(b, name...)
		b = r.Values[i].AppendJSON(b, r.Schema.Fields[i].Type)
	}
	b = append(b, '}')
	if f.rest >= 0 && !r.Values[f.rest].IsNull() {
		whole, err := f.withRest(string(b[from:]), r.Values[f.rest].Str())
		if err != nil {
			return b, err
		}
		b = append(b[:from], whole...)
	}
	return append(b, '\n'), nil
}

// appendTemplate appends the rest of a JSON string whose opening quote stands at the end of b, and gives the number
// of bytes of the text.
func appendTemplate(b []byte, t *connector.Template, r *record.Record) ([]byte, int, error) {
	from := len(b)
	b, err := t.Append(b, r)
	if err != nil {
		return b, 0, fail.New(fail.Permanent, "elasticsearch.template", "%w", err).
			WithFix("give the field a value by a transform; a delete has values in its key's fields only")
	}
	n := len(b) - from
	for _, c := range b[from:] {
		if c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			text := string(b[from:])
			return record.AppendQuoted(b[:from-1], text), n, nil
		}
	}
	return append(b, '"'), n, nil
}

// bulk writes batches by requests to _bulk.
type bulk struct {
	client  *client
	format  *format
	index   string                                        // "": the actions name theirs
	make    func(ctx context.Context, index string) error // before the first record of an index; nil: the server does
	floor   int64                                         // of the run
	limit   int                                           // bytes of a body with more than one document
	gzip    bool
	refresh string
	buffers *buffers
}

// item is a record's place in a body and its result.
type item struct {
	from, to int
	result   *connector.Result
}

// write implements connector.WriteBatch. What loses to a version below the floor is written again at the floor,
// where it loses to newer ones alone.
func (w *bulk) write(ctx context.Context, batch []*record.Record) []connector.Result {
	results := w.writeOnce(ctx, batch)
	var again []*record.Record
	var places []int
	for i, r := range batch {
		if r.Version < w.floor && results[i].Err == nil && results[i].Outcome == record.Superseded {
			again, places = append(again, r.Raised(w.floor)), append(places, i)
		}
	}
	if len(again) > 0 {
		for i, res := range w.writeOnce(ctx, again) {
			results[places[i]] = res
		}
	}
	return results
}

// writeOnce writes a batch. A body ends before the record that would make it longer than the limit.
func (w *bulk) writeOnce(ctx context.Context, batch []*record.Record) []connector.Result {
	results := make([]connector.Result, len(batch))
	items := make([]item, 0, len(batch))
	body := w.buffers.get()
	for i, r := range batch {
		from := len(body)
		err := w.ready(ctx, r)
		if err == nil {
			body, err = w.format.append(body, r)
		}
		if err != nil {
			body, results[i].Err = body[:from], err
			continue
		}
		if len(items) > 0 && len(body) > w.limit {
			next := append(w.buffers.get(), body[from:]...)
			w.send(ctx, body[:from], items)
			body, items, from = next, items[:0], 0
		}
		items = append(items, item{from, len(body), &results[i]})
	}
	w.send(ctx, body, items)
	return results
}

// ready sees to it that the index of a record is there.
func (w *bulk) ready(ctx context.Context, r *record.Record) error {
	if w.make == nil {
		return nil
	}
	name, err := w.format.index.Append(nil, r)
	if err != nil {
		return nil // as the format tells
	}
	if !isIndexName(string(name)) {
		return fail.New(fail.Permanent, "elasticsearch.index_name", "%q is not a valid index name", name).
			WithFix("cut and lower-case the fields in the index template by a transform")
	}
	return w.make(ctx, string(name))
}

// send sends a body and gives the buffer back once nobody reads it any more.
func (w *bulk) send(ctx context.Context, body []byte, items []item) {
	if w.deliver(ctx, body, items) {
		w.buffers.put(body)
	}
}

// deliver sends items of a body and sets their results. What a server, or a shard, refuses as a whole it sends in
// halves, down to the record that is at fault. It tells whether the body was read to its end: else the connection may
// be reading it still.
func (w *bulk) deliver(ctx context.Context, body []byte, items []item) (read bool) {
	if len(items) == 0 {
		return true
	}
	err := w.post(ctx, body[items[0].from:items[len(items)-1].to], items)
	for _, it := range items {
		if err == nil && len(items) > 1 && fail.CodeOf(it.result.Err) == tooLargeCode {
			err = it.result.Err // of all that went to one shard
		}
	}
	if err == nil {
		return true
	}
	if half := len(items) / 2; half > 0 && fail.ClassOf(err) == fail.Permanent {
		w.deliver(ctx, body, items[:half])
		w.deliver(ctx, body, items[half:])
		return false
	}
	for _, it := range items {
		it.result.Err = err
	}
	return false
}

// post sends one request. Without an error each item's result is set.
func (w *bulk) post(ctx context.Context, body []byte, items []item) error {
	request := bulkRequest{index: w.index, body: body, refresh: w.refresh}
	if w.gzip {
		packed, err := w.buffers.compress(body)
		if err != nil {
			return err
		}
		request.body, request.gzip = packed, true
		err = w.client.bulk(ctx, request, func(in io.Reader) error { return w.settle(in, items) })
		if err == nil {
			w.buffers.put(packed)
		}
		return err
	}
	return w.client.bulk(ctx, request, func(in io.Reader) error { return w.settle(in, items) })
}

// itemReply is the answer to one item, with the fields that the filter of the request lets through.
type itemReply struct {
	Status int    `json:"status"`
	Error  *cause `json:"error"`
}

// allWritten begins an answer without errors.
const allWritten = `{"errors":false`

// answerLimit bounds an answer, which may quote each value that it refuses more than once.
func answerLimit(body, items int) int64 { return int64(4*body + 4096*(items+1)) }

// settle reads the answer to a request: {"errors":true,"items":[{"index":{"status":201}},...]}. After an answer that
// ends early all items are to be written again, which changes nothing for those that were.
func (w *bulk) settle(reply io.Reader, items []item) error {
	size := items[len(items)-1].to - items[0].from
	in := w.buffers.reader(io.LimitReader(reply, answerLimit(size, len(items))))
	defer w.buffers.readers.Put(in)
	if start, _ := in.Peek(len(allWritten)); string(start) == allWritten {
		_, err := io.Copy(io.Discard, in)
		return err
	}
	dec := json.NewDecoder(in)
	for {
		token, err := dec.Token()
		if err != nil {
			return fmt.Errorf("answer of _bulk: %w", err)
		}
		if token == json.Delim('[') {
			break
		}
	}
	for _, it := range items {
		var answer struct{ Index, Delete itemReply }
		if err := dec.Decode(&answer); err != nil {
			return fmt.Errorf("answer of _bulk: %w", err)
		}
		got := answer.Index
		if got.Status == 0 {
			got = answer.Delete
		}
		it.result.Outcome, it.result.Err = outcome(got)
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// outcome is what became of an item. A delete of a document that was not there is an answer without an error (404):
// the server keeps its version all the same.
func outcome(a itemReply) (record.Outcome, error) {
	switch {
	case a.Error == nil:
		return record.Written, nil
	case a.Error.Type == "version_conflict_engine_exception":
		return record.Superseded, nil
	}
	return record.Dead, itemError(a.Status, a.Error)
}

// buffers keeps the memory of bodies and answers for the next ones.
type buffers struct {
	largest int // larger ones are not kept
	bodies  sync.Pool
	zippers sync.Pool
	readers sync.Pool
}

func (p *buffers) get() []byte {
	if b, ok := p.bodies.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return nil
}

func (p *buffers) put(b []byte) {
	if cap(b) <= p.largest {
		p.bodies.Put(&b)
	}
}

func (p *buffers) reader(in io.Reader) *bufio.Reader {
	if r, ok := p.readers.Get().(*bufio.Reader); ok {
		r.Reset(in)
		return r
	}
	return bufio.NewReader(in)
}

// compress gives body in the form of gzip, in a buffer of the pool.
func (p *buffers) compress(body []byte) ([]byte, error) {
	out := bytes.NewBuffer(p.get())
	zip, ok := p.zippers.Get().(*gzip.Writer)
	if !ok {
		zip, _ = gzip.NewWriterLevel(out, gzip.BestSpeed)
	}
	zip.Reset(out)
	if _, err := zip.Write(body); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	p.zippers.Put(zip)
	return out.Bytes(), nil
}
