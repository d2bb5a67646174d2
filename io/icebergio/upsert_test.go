package icebergio

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// An upsert keeps one row of each key, whatever is written, and carries out deletes.
func TestUpsertConformance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	settings := func(target string) SinkConfig {
		return SinkConfig{Table: "iotest." + target, Create: true, Mode: modeUpsert, Catalog: CatalogConfig{SQLite: filepath.Join(dir, "catalog.db"), Warehouse: dir}}
	}
	lines, at := map[string][]string{}, map[string]string{}
	read := func(t *testing.T, target string) []string {
		now := current(t, newSink(t, settings(target))).MetadataLocation()
		if at[target] != now {
			lines[target], at[target] = services.ReadIceberg(t, reader(settings(target))), now
		}
		return lines[target]
	}
	iotest.TestSink(t, iotest.Sink{
		New: func(t *testing.T, target string) connector.Sink { return NewSink(settings(target)) },
		Read: func(t *testing.T, target string) map[string]string {
			found := latest(t, read(t, target))
			if n := len(read(t, target)); n != len(found) {
				t.Errorf("%d rows of %d keys", n, len(found))
			}
			return found
		},
		Deletes: true,
		Refused: func() *record.Record {
			r := iotest.Record(iotest.AssetSchema(), 99999, iotest.Base)
			r.Values[2] = record.String("not \xff UTF-8")
			return r
		},
	})
}

// versions are those of the rows that the independent reader finds, by id; two of the same id fail the test.
func versions(t testing.TB, r services.IcebergTable) map[int]int64 {
	t.Helper()
	found := map[int]int64{}
	for _, line := range services.ReadIceberg(t, r) {
		var row struct {
			ID      int   `json:"id"`
			Version int64 `json:"_version"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if _, twice := found[row.ID]; twice {
			t.Errorf("two rows of id %d", row.ID)
		}
		found[row.ID] = row.Version
	}
	return found
}
