package icebergio

import (
	"net/url"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"

	"reprise/io/connector"
)

// SinkConfig are the settings of a table that is written.
type SinkConfig struct {
	Catalog        CatalogConfig     `json:"catalog" jsonschema:"required" jsonschema_description:"The catalog that knows the table."`
	S3             *S3Config         `json:"s3,omitempty" jsonschema_description:"How files on S3 are reached. Default: what the catalog and the environment say."`
	Table          string            `json:"table" jsonschema:"required,pattern=^[^./]+([.][^./]+)+$" jsonschema_description:"The table with its namespace: media.assets."`
	Create         bool              `json:"create,omitempty" reprise:"tuning" jsonschema_description:"Create the table, its namespace and an SQLite catalog where they do not exist yet. Default: false, the table must exist."`
	Columns        map[string]string `json:"columns,omitempty" jsonschema_description:"Types of columns that the defaults do not suit: decimal(PRECISION,SCALE) for fields of type decimal and varint, whose default is string, which keeps every digit. A number that does not fit is a dead letter."`
	Mode           string            `json:"mode,omitempty" jsonschema:"enum=append,enum=upsert" jsonschema_description:"append adds every record as a row: readers take the newest of a key. upsert keeps one row of each key that the run writes, the newest, whoever wrote it, and carries out deletes; the commit reads the keys of the table for that. Default: append."`
	MergeMemory    connector.Bytes   `json:"merge_memory,omitempty" reprise:"tuning" jsonschema_description:"Memory in which the commit of an upsert compares keys; beyond that they go to temporary files, 32 bytes of each row. Default: 64MiB."`
	Schema         string            `json:"schema,omitempty" jsonschema:"enum=fail,enum=ignore,enum=add" jsonschema_description:"What happens when an existing table lacks columns for fields: fail tells what is missing; ignore leaves the fields out and says so; add adds columns, and widens types as Iceberg can (int to long, float to double, decimals of more digits). What would lose values always fails. Default: fail."`
	Rename         map[string]string `json:"rename,omitempty" jsonschema_description:"Columns that the source has renamed: the table's name and the field's, {title: headline}. The column keeps its rows. Needs schema: add."`
	Partition      []string          `json:"partition,omitempty" jsonschema_description:"How a new table is partitioned, and what an existing one must have: columns or year(c), month(c), day(c), hour(c), bucket(N, c), truncate(N, c). Default: a new table is not partitioned, an existing one may be as it likes."`
	FileSize       connector.Bytes   `json:"file_size,omitempty" reprise:"tuning" jsonschema_description:"Size at which a data file is closed and the next one begun. Default: what the table says, else 256MiB."`
	RowGroup       connector.Bytes   `json:"row_group,omitempty" reprise:"tuning" jsonschema_description:"Size of a row group, which is held in memory until it is complete; no more than file_size. Default: 16MiB, shared by the open partitions where the table has some."`
	Compression    string            `json:"compression,omitempty" reprise:"tuning" jsonschema:"enum=zstd,enum=snappy,enum=gzip,enum=uncompressed" jsonschema_description:"How data files are compressed. Default: what the table says, else zstd."`
	OpenPartitions int               `json:"open_partitions,omitempty" reprise:"tuning" jsonschema:"minimum=1,maximum=256" jsonschema_description:"Partitions with an open file on each worker, each of which takes memory; the one not used for longest is closed first. More give fewer, larger files where records are not ordered by partition. Default: 8, or as many as there are buckets, up to 32."`
	VersionColumn  string            `json:"version_column,omitempty" jsonschema_description:"Column (bigint) for the record's version, by which readers take the latest of several rows with the same key. Default: _version; - for none."`
	RunColumn      string            `json:"run_column,omitempty" jsonschema_description:"Column (string) for the run that wrote the row. Default: none."`
}

// SourceConfig are the settings of a table that is read.
type SourceConfig struct {
	Catalog       CatalogConfig    `json:"catalog" jsonschema:"required" jsonschema_description:"The catalog that knows the table."`
	S3            *S3Config        `json:"s3,omitempty" jsonschema_description:"How files on S3 are reached. Default: what the catalog and the environment say."`
	Table         string           `json:"table" jsonschema:"required,pattern=^[^./]+([.][^./]+)+$" jsonschema_description:"The table with its namespace: media.assets. One snapshot is read: the current one when the run is planned."`
	Snapshot      *SnapshotConfig  `json:"snapshot,omitempty" jsonschema_description:"A snapshot other than the current one."`
	Key           []string         `json:"key,omitempty" jsonschema_description:"The fields that make up a record's key. Default: the table's identifier fields."`
	Fields        connector.Fields `json:"fields,omitempty" jsonschema_description:"Name and CQL type of each field, such as {id: uuid, tags: set<text>}. Default: all columns, with the types that their docs name, as the sink writes them, else those of the table."`
	IgnoreUnknown bool             `json:"ignore_unknown,omitempty" jsonschema_description:"Leave out columns that fields does not name. Default: false, such a column is an error."`
	Version       string           `json:"version,omitempty" jsonschema_description:"Field with the record's version: a timestamp, a timeuuid, or a bigint of microseconds since 1970. Default: the column _version, which is then not a field, else the snapshot's time."`
	CutTimestamps bool             `json:"cut_timestamps,omitempty" jsonschema_description:"Cut timestamps to whole milliseconds, which is all that a timestamp holds; those of the key and the version stay whole. Default: false, one with microseconds is a dead letter. Read as bigint such a column keeps its microseconds since 1970."`
}

// SnapshotConfig names a snapshot by one of these.
type SnapshotConfig struct {
	ID   int64           `json:"id,omitempty" jsonschema_description:"Its id."`
	Time *connector.Time `json:"time,omitempty" jsonschema_description:"The snapshot that was the current one at this time, such as 2026-05-01T12:00:00Z."`
	Ref  string          `json:"ref,omitempty" jsonschema_description:"A branch or tag."`
}

// CatalogConfig is one kind of catalog.
type CatalogConfig struct {
	SQLite     string           `json:"sqlite,omitempty" jsonschema_description:"An embedded catalog: the path of an SQLite file. Other engines read it as a JDBC or SQL catalog."`
	REST       string           `json:"rest,omitempty" jsonschema:"format=uri" jsonschema_description:"A REST catalog: its URL."`
	Warehouse  string           `json:"warehouse,omitempty" jsonschema_description:"Where new tables go. With sqlite: a folder as a plain path, or s3://BUCKET/PATH. With rest: the name that the catalog gives the warehouse; default: its own default."`
	Name       string           `json:"name,omitempty" jsonschema_description:"The name of the catalog within an SQLite file, which other engines must use as well. Default: default."`
	Token      connector.Secret `json:"token,omitempty" reprise:"tuning" jsonschema_description:"Bearer token for a REST catalog: env:NAME or file:PATH."`
	Credential connector.Secret `json:"credential,omitempty" reprise:"tuning" jsonschema_description:"OAuth2 credential ID:SECRET for a REST catalog: env:NAME or file:PATH."`
	TLS        *connector.TLS   `json:"tls,omitempty" reprise:"tuning" jsonschema_description:"Settings of an https connection to a REST catalog."`
}

// S3Config is an object store with the API of S3.
type S3Config struct {
	Endpoint     string           `json:"endpoint,omitempty" reprise:"tuning" jsonschema:"format=uri" jsonschema_description:"URL of the store. Default: AWS."`
	Region       string           `json:"region,omitempty" jsonschema_description:"Region of the bucket. Default: what the environment says."`
	AccessKey    connector.Secret `json:"access_key,omitempty" reprise:"tuning" jsonschema_description:"Access key: env:NAME or file:PATH. Default: the usual AWS sources."`
	SecretKey    connector.Secret `json:"secret_key,omitempty" reprise:"tuning" jsonschema_description:"Secret key: env:NAME or file:PATH."`
	SessionToken connector.Secret `json:"session_token,omitempty" reprise:"tuning" jsonschema_description:"Session token of temporary keys: env:NAME or file:PATH."`
}

// The defaults of SinkConfig.
const (
	defaultFileSize       = 256 << 20
	defaultRowGroup       = 16 << 20
	smallestRowGroup      = 1 << 20
	defaultOpenPartitions = 8
	mostOpenBuckets       = 32
	defaultMergeMemory    = 64 << 20
	defaultVersionColumn  = "_version"
	noColumn              = "-"
	defaultCatalogName    = "default"
)

// Validate tells what the JSON schema cannot.
func (c SinkConfig) Validate() []connector.Fault {
	faults := c.Catalog.validate()
	add := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	faults = append(faults, validateTable(c.Table, c.S3)...)
	if c.Catalog.SQLite != "" && c.Catalog.REST == "" && c.Catalog.Warehouse == "" {
		add("catalog.warehouse", "is missing: the folder that new tables go to")
	}
	for _, name := range sortedKeys(c.Columns) {
		if _, err := parseDecimal(c.Columns[name]); err != nil {
			add("columns."+name, "%v", err)
		}
	}
	for _, p := range c.Partition {
		if _, err := parsePartition(p); err != nil {
			add("partition", "%v", err)
		}
	}
	if c.Upserts() && c.versionColumn() == "" {
		add("version_column", "mode upsert needs it, to tell which row is newer")
	}
	if len(c.Rename) > 0 && c.Schema != schemaAdd {
		add("rename", "needs schema: add")
	}
	if c.RunColumn != "" && c.RunColumn == c.versionColumn() {
		add("run_column", "is the version column already")
	}
	return faults
}

// Validate tells what the JSON schema cannot.
func (c SourceConfig) Validate() []connector.Fault {
	faults := append(c.Catalog.validate(), validateTable(c.Table, c.S3)...)
	if at := c.Snapshot; at != nil {
		named := 0
		for _, is := range []bool{at.ID != 0, at.Time != nil, at.Ref != ""} {
			if is {
				named++
			}
		}
		if named != 1 {
			faults = append(faults, connector.Faultf("snapshot", "takes one of id, time and ref"))
		}
	}
	if len(c.Fields) == 0 && c.IgnoreUnknown {
		faults = append(faults, connector.Faultf("ignore_unknown", "name the fields to read in fields"))
	}
	return append(faults, c.Fields.Check(c.Key, c.Version)...)
}

func validateTable(name string, s3 *S3Config) (faults []connector.Fault) {
	if parts := strings.Split(name, "."); len(parts) < 2 || slices.Contains(parts, "") {
		faults = append(faults, connector.Faultf("table", "%q has no namespace: write NAMESPACE.TABLE", name))
	}
	if s3 != nil && (s3.AccessKey == "") != (s3.SecretKey == "") {
		faults = append(faults, connector.Faultf("s3", "access_key and secret_key come together"))
	}
	return faults
}

func (c CatalogConfig) validate() []connector.Fault {
	var faults []connector.Fault
	add := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf("catalog."+path, format, args...))
	}
	switch {
	case c.SQLite == "" && c.REST == "":
		return []connector.Fault{connector.Faultf("catalog", "needs sqlite or rest")}
	case c.SQLite != "" && c.REST != "":
		return []connector.Fault{connector.Faultf("catalog", "sqlite and rest exclude each other")}
	case c.SQLite != "":
		if c.Token != "" || c.Credential != "" || c.TLS != nil {
			add("sqlite", "takes no token, credential or tls")
		}
		if rest, file := strings.CutPrefix(c.Warehouse, "file:"); file {
			add("warehouse", "a folder is given as a plain path: %s", "/"+strings.TrimLeft(rest, "/"))
		} else if c.Warehouse != "" && !plainLocation(c.Warehouse) {
			add("warehouse", "%q holds characters that URLs escape, which readers of the table take differently: use "+
				"letters, digits and any of / . _ -", c.Warehouse)
		}
	default:
		if u, err := url.Parse(c.REST); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			add("rest", "%q is not a URL such as https://catalog.example.com", c.REST)
		} else if u.User != nil {
			add("rest", "a login does not belong into the URL: use token or credential")
		}
		if c.Token != "" && c.Credential != "" {
			add("token", "token and credential exclude each other")
		}
	}
	return faults
}

// plainLocation tells whether a location reads the same as a path and as a URL: iceberg-go
// escapes locations, Java does not.
func plainLocation(location string) bool {
	u, err := url.Parse(location)
	return err == nil && !strings.Contains(location, "%") && u.RawQuery == "" && u.Fragment == "" &&
		u.JoinPath("x").String() == strings.TrimRight(location, "/")+"/x"
}

func (c SinkConfig) versionColumn() string {
	switch c.VersionColumn {
	case "":
		return defaultVersionColumn
	case noColumn:
		return ""
	}
	return c.VersionColumn
}

// modeUpsert is the mode that is not the default.
const modeUpsert = "upsert"

// Upserts tells whether mode is upsert.
func (c SinkConfig) Upserts() bool { return c.Mode == modeUpsert }

// rowGroup is the size of row groups where so many files are open at once.
func (c SinkConfig) rowGroup(open int) int64 {
	return c.RowGroup.Or(max(smallestRowGroup, defaultRowGroup/int64(open)))
}

// openPartitions is how many files a writer keeps open. Records are spread over buckets, so
// that there all are in use at once.
func (c SinkConfig) openPartitions(parts []partitionKey) int {
	switch {
	case len(parts) == 0:
		return 1
	case c.OpenPartitions > 0:
		return c.OpenPartitions
	}
	n := defaultOpenPartitions
	for _, p := range parts {
		if b, ok := p.partition.transform.(iceberg.BucketTransform); ok {
			n = max(n, min(b.NumBuckets, mostOpenBuckets))
		}
	}
	return n
}
