package merge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
)

// DeletesProperty begins the names of table properties that remember a run's deletes, so that no older row comes after
// them: the run's id follows, the value is the path of a file of them.
const DeletesProperty = "reprise.deletes."

// deletesFile begins the name of such a file; the milliseconds since 1970 follow.
const deletesFile = "reprise-deletes-"

// DeleteBytes is the size of a delete in a list: each half of its key and its version, 8 bytes each, big-endian.
const DeleteBytes = 24

// AppendDelete appends a delete to a list.
func AppendDelete(b []byte, k Key, version int64) []byte {
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, k.hi), k.lo)
	return binary.BigEndian.AppendUint64(b, uint64(version))
}

// EachDelete gives the deletes of a list, which holds whole ones.
func EachDelete(list []byte, do func(k Key, version int64) error) error {
	for ; len(list) >= DeleteBytes; list = list[DeleteBytes:] {
		k := Key{binary.BigEndian.Uint64(list), binary.BigEndian.Uint64(list[8:])}
		if err := do(k, int64(binary.BigEndian.Uint64(list[16:]))); err != nil {
			return err
		}
	}
	return nil
}

// WriteDeletes writes a file of lists of deletes beside the metadata of a table, and gives its path.
func WriteDeletes(ctx context.Context, t *table.Table, lists [][]byte) (string, error) {
	files, err := t.FS(ctx)
	if err != nil {
		return "", err
	}
	to, ok := files.(iceio.WriteFileIO)
	if !ok {
		return "", table.ErrWriteIORequired
	}
	places, err := t.LocationProvider()
	if err != nil {
		return "", err
	}
	path := places.NewMetadataLocation(fmt.Sprintf("%s%d-%s", deletesFile, time.Now().UnixMilli(), uuid.NewString()))
	return path, to.WriteFile(path, bytes.Join(lists, nil))
}

// readEarlier adds the deletes that earlier runs left in the table. A file of them that somebody has
// cleaned away is as good as expired.
func (m *Merge) readEarlier(ctx context.Context, t *table.Table, touched filter) error {
	for name, path := range t.Properties() {
		if !strings.HasPrefix(name, DeletesProperty) || name == DeletesProperty+m.Run || m.deletes[path] {
			continue
		}
		m.deletes[path] = true
		list := make([]byte, 4096*DeleteBytes)
		for from := int64(0); ; from += int64(len(list)) {
			n := 0
			err := connector.Request(ctx, m.Retry, func() (_ int, _ int64, err error) {
				n, err = readAt(ctx, t, path, list, from)
				return n / DeleteBytes, int64(n), tables.Classify(err, "reading "+path)
			})
			if err != nil {
				return err
			}
			err = EachDelete(list[:n], func(k Key, version int64) error {
				if !m.mine.has(k) {
					return nil
				}
				if touched != nil {
					touched.add(k)
				}
				return m.spill.add(entry{key: k, version: version, file: earlierEntry})
			})
			if err != nil {
				return tables.Classify(err, "comparing keys with table "+m.Table)
			}
			if n < len(list) {
				break
			}
		}
	}
	return nil
}

// readAt reads a part of a file, less at its end; of a file that is not there nothing.
func readAt(ctx context.Context, t *table.Table, path string, b []byte, from int64) (int, error) {
	files, err := t.FS(ctx)
	if err != nil {
		return 0, err
	}
	f, err := files.Open(path)
	if errors.Is(err, fs.ErrNotExist) || err != nil && tables.ContainsAny(err, "NoSuchKey") {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(b, from)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// DeletedAt is when a file of deletes was written, as its name tells.
func DeletedAt(file string) time.Time {
	at, _, _ := strings.Cut(strings.TrimPrefix(path.Base(file), deletesFile), "-")
	ms, _ := strconv.ParseInt(at, 10, 64)
	return time.UnixMilli(ms)
}
