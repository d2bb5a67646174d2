package services

import (
	"encoding/json"
	"strings"
	"testing"
)

// IcebergTable names a table for the independent reader, Apache Iceberg's own Java library.
type IcebergTable struct {
	Catalog   string            // path of an SQLite file, or http://HOST:PORT of a REST catalog
	Name      string            // the catalog's name in the SQLite file; empty: the only one there
	Warehouse string            // where the REST catalog asks for it
	Table     string            // NAMESPACE.TABLE
	Where     string            // COLUMN=VALUE: only such rows, found with the help of statistics; empty: all
	Props     map[string]string // of catalog and file access, such as s3.endpoint; S3Props are those of the S3 service
}

// S3Props lets the reader into the shared S3 service.
func S3Props(addr string) map[string]string {
	return map[string]string{
		"s3.endpoint": "http://" + addr, "s3.access-key-id": "testtest", "s3.secret-access-key": "testtest1",
		"s3.region": "us-east-1",
	}
}

// IcebergSnapshot is one snapshot of a table.
type IcebergSnapshot struct {
	ID        int64             `json:"id"`
	Parent    int64             `json:"parent"` // 0: none
	Time      string            `json:"time"`
	Operation string            `json:"operation"`
	Current   bool              `json:"current"`
	Summary   map[string]string `json:"summary"`
}

// ReadIceberg gives the rows of the table, deletes applied, in no certain order: each a JSON object with the fields in
// the schema's order. Times are RFC 3339 with milliseconds (with microseconds, if there are any), timestamps without
// zone lack the Z; decimals are strings, binary is base64, maps are objects, floats have a point or an exponent, as
// Java writes them.
func ReadIceberg(t testing.TB, table IcebergTable) []string {
	t.Helper()
	out := readIceberg(t, table, "--rows")
	if out == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// IcebergSnapshots gives the snapshots of the table, oldest first.
func IcebergSnapshots(t testing.TB, table IcebergTable) []IcebergSnapshot {
	t.Helper()
	var snapshots []IcebergSnapshot
	lines := json.NewDecoder(strings.NewReader(readIceberg(t, table, "--snapshots")))
	for lines.More() {
		var s IcebergSnapshot
		if err := lines.Decode(&s); err != nil {
			t.Fatal(err)
		}
		snapshots = append(snapshots, s)
	}
	return snapshots
}

// IcebergSchema gives the table's metadata as one JSON object: schema, partition-spec, sort-order, format-version,
// location, properties.
func IcebergSchema(t testing.TB, table IcebergTable) string {
	t.Helper()
	return readIceberg(t, table, "--schema")
}

func readIceberg(t testing.TB, table IcebergTable, what string) string {
	t.Helper()
	args := []string{what, "--catalog", table.Catalog, "--table", table.Table}
	for _, o := range [][2]string{{"--name", table.Name}, {"--warehouse", table.Warehouse}, {"--where", table.Where}} {
		if o[1] != "" {
			args = append(args, o[0], o[1])
		}
	}
	for key, value := range table.Props {
		args = append(args, "--prop", key+"="+value)
	}
	return launch(t, "read-iceberg", nil, args...)
}
