package fileio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"reprise/transforms/record"
)

const maxLine = 16 << 20

// readLines reads the lines that begin after offset start up to end; -1 is open.
func (p *pager) readLines(ctx context.Context, start, end int64) error {
	path := p.split.Partition
	l, err := openLines(path, start, int(p.c.MaxLine.Or(maxLine)))
	if err != nil {
		return readError(path, err)
	}
	defer l.close()
	for {
		line, at, tooLong, err := l.read()
		if err == io.EOF || (end >= 0 && at > end) {
			return p.end(ctx)
		}
		if err != nil {
			return readError(path, err)
		}
		p.at = at
		if tooLong {
			p.dead("files.line_too_long", line,
				fmt.Errorf("the line at byte %d of %s is longer than max_line", at, path))
		} else {
			p.line(line, at)
		}
		if !p.full() {
			continue
		}
		if err := p.end(ctx); err != nil {
			return err
		}
	}
}

// line adds the record or dead letter of a line; an empty line is neither.
func (p *pager) line(line []byte, at int64) {
	text := strings.TrimSpace(string(line))
	if at == 0 {
		text = strings.TrimPrefix(text, "\ufeff")
	}
	if text == "" {
		return
	}
	r := &record.Record{Schema: p.schema, Values: make([]record.Value, len(p.schema.Fields))}
	code, err := p.parse(r, text)
	if err == nil {
		code, err = p.complete(r)
	}
	if err != nil {
		p.dead(code, line, fmt.Errorf("the line at byte %d of %s: %w", at, p.split.Partition, err))
		return
	}
	p.page.Records = append(p.page.Records, r)
	p.page.Bytes += int64(r.Size())
}

// fieldError is what is wrong with one field.
type fieldError struct {
	code string
	err  error
}

func (e *fieldError) Error() string { return e.err.Error() }

func (p *pager) parse(r *record.Record, text string) (code string, err error) {
	if !strings.HasPrefix(text, "{") {
		return "files.not_json", errors.New("no JSON object")
	}
	err = record.JSONParts(text, func(name, value string) (err error) {
		i := p.schema.Index(name)
		switch {
		case i >= 0 && r.Values[i].Kind() != record.Unset:
			return &fieldError{"files.field_twice", fmt.Errorf("field %q stands twice", name)}
		case i >= 0:
			r.Values[i], err = p.readings[i].FromJSON(p.schema.Fields[i].Type, value)
			err = finer(err)
		case name == metaField:
			err = readMeta(r, value)
		case !p.c.IgnoreUnknown:
			return &fieldError{"files.unknown_field",
				fmt.Errorf("field %q is not among the fields; name it in fields, or set ignore_unknown", name)}
		}
		if err != nil {
			return &fieldError{"files.wrong_type", fmt.Errorf("field %q: %w", name, err)}
		}
		return nil
	})
	var field *fieldError
	if errors.As(err, &field) {
		return field.code, err
	}
	return "files.not_json", err
}

// readMeta takes over what the sink wrote of the record itself.
func readMeta(r *record.Record, value string) error {
	return record.JSONParts(value, func(name, value string) (err error) {
		switch name {
		case "version":
			r.Version, err = strconv.ParseInt(value, 10, 64)
		case "expires":
			r.Expires, err = strconv.ParseInt(value, 10, 64)
		case "op":
			err = setOp(r, strings.Trim(value, `"`))
		}
		return err
	})
}

func setOp(r *record.Record, op string) error {
	switch op {
	case record.Upsert.String():
	case record.Delete.String():
		r.Op = record.Delete
	default:
		return fmt.Errorf("%.60q is not an operation", op)
	}
	return nil
}
