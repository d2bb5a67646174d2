package fileio

import (
	"bufio"

	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// lineEncoder writes JSON lines.
type lineEncoder struct {
	w     io.Writer
	frame frame // of the compression; nil: none
	begun bool  // something stands in the frame
	out   *counter
	c     SinkConfig
	run   connector.Run
	line  []byte
	key   []byte
}

// frame compresses. A file may consist of several frames.
type frame interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// counter counts what passes.
type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n += int64(n)
	return n, err
}

func newLineEncoder(w io.Writer, c SinkConfig, run connector.Run) (encoder, error) {
	out := &counter{Writer: w}
	e := &lineEncoder{w: out, out: out, c: c, run: run}
	switch c.compress() {
	case "gzip":
		e.frame = gzip.NewWriter(out)
	case "zstd":
		z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
		e.frame = z
	}
	if e.frame != nil {
		e.w = e.frame
	}
	return e, nil
}

func (e *lineEncoder) write(r *record.Record) error {
	e.line = r.AppendJSON(e.line[:0])
	// Without _meta the line of a delete would read as a record without values.
	if e.c.Meta || r.Op == record.Delete {
		e.line = e.line[:len(e.line)-1]
		if len(e.line) > 1 {
			e.line = append(e.line, ',')
		}
		e.line = append(e.line, `"_meta":`...)
		e.line = e.appendMeta(e.line, r)
		e.line = append(e.line, '}')
	}
	e.line = append(e.line, '\n')
	e.begun = true
	_, err := e.w.Write(e.line)
	return err
}

func (e *lineEncoder) appendMeta(b []byte, r *record.Record) []byte {
	e.key = r.AppendKey(e.key[:0])
	b = append(b, `{"key":`...)
	b = record.AppendQuoted(b, string(e.key))
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, max(r.Version, e.run.Floor), 10)
	b = append(b, `,"op":"`...)
	b = append(b, r.Op.String()...)
	b = append(b, `","run":`...)
	b = record.AppendQuoted(b, e.run.ID)
	if r.Expires != 0 {
		b = append(b, `,"expires":`...)
		b = strconv.AppendInt(b, r.Expires, 10)
	}
	return append(b, '}')
}

func (e *lineEncoder) size() int64 { return e.out.n }

// cut ends the frame.
func (e *lineEncoder) cut() (bool, error) {
	if e.frame == nil || !e.begun {
		return true, nil
	}
	e.begun = false
	err := e.frame.Close()
	e.frame.Reset(e.out)
	return true, err
}

func (e *lineEncoder) close() error {
	_, err := e.cut()
	return err
}

// lineReader reads the lines of a file, holding at most max bytes of one.
type lineReader struct {
	file *os.File
	in   *bufio.Reader
	zstd *zstd.Decoder
	next int64 // offset of the next line, uncompressed
	max  int
	long []byte
}

func compressed(path string) bool {
	return strings.HasSuffix(path, ".gz") || strings.HasSuffix(path, ".zst")
}

// openLines opens a file at the first line that begins after offset; -1 is the first of all.
func openLines(path string, after int64, max int) (*lineReader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l := &lineReader{file: file, max: max}
	in := io.Reader(file)
	switch {
	case strings.HasSuffix(path, ".gz"):
		in, err = gzip.NewReader(bufio.NewReader(file))
	case strings.HasSuffix(path, ".zst"):
		l.zstd, err = zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		in = l.zstd
	case after > 0:
		_, err = file.Seek(after, io.SeekStart)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.in = bufio.NewReaderSize(in, 256<<10)
	if after < 0 {
		return l, nil
	}
	if compressed(path) {
		_, err = io.CopyN(io.Discard, l.in, after)
	}
	l.next = after
	if err == nil {
		err = l.discardLine()
	}
	if err != nil && err != io.EOF {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lineReader) close() {
	if l.zstd != nil {
		l.zstd.Close()
	}
	_ = l.file.Close()
}

func (l *lineReader) discardLine() error {
	for {
		b, err := l.in.ReadSlice('\n')
		l.next += int64(len(b))
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// read gives the next line, which stays valid until the next call, and the offset at which it begins. A line that is
// too long is cut. At the end it returns io.EOF.
func (l *lineReader) read() (line []byte, at int64, tooLong bool, err error) {
	at = l.next
	line, err = l.in.ReadSlice('\n')
	l.next += int64(len(line))
	for l.long = l.long[:0]; errors.Is(err, bufio.ErrBufferFull); {
		l.long = append(l.long, line...)
		if len(l.long) > l.max {
			err = l.discardLine()
			line, tooLong = nil, true
			break
		}
		line, err = l.in.ReadSlice('\n')
		l.next += int64(len(line))
	}
	if len(l.long) > 0 {
		l.long = append(l.long, line...)
		line = l.long
	}
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return line, at, tooLong || len(line) > l.max, err
}
