package cassandraio

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"github.com/invopop/jsonschema"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// SourceConfig says what is read of a table, and how.
type SourceConfig struct {
	Connection  Connection       `json:"connection" reprise:"tuning" jsonschema:"required" jsonschema_description:"How to reach the cluster."`
	Keyspace    string           `json:"keyspace" jsonschema:"required" jsonschema_description:"Keyspace of the table, written as Cassandra shows it."`
	Table       string           `json:"table" jsonschema:"required" jsonschema_description:"Table to read. Tables with counters cannot be reprocessed."`
	Columns     []string         `json:"columns,omitempty" jsonschema_description:"Columns to read; those of the key are always read. Default: all."`
	Buckets     *Buckets         `json:"buckets,omitempty" jsonschema_description:"Read partition by partition, each in the order of its clustering columns, wide ones cut by key: for tables whose partitions are wide. Name exactly one way to find the partitions. Default: the whole table by token ranges, which suits many small partitions, never cuts a partition in the plan, and needs no list of them."`
	Partitions  map[string]Match `json:"partitions,omitempty" jsonschema_description:"Read only partitions with one of these values in a column of the partition key, such as {asset_type: [image, video]}, or between two, as in {bucket: {from: 2024-01, to: 2024-12}}; both ends included. Needs buckets."`
	IDs         *Interval        `json:"ids,omitempty" jsonschema_description:"Read only rows whose first clustering column lies in an interval; needs buckets."`
	Version     string           `json:"version,omitempty" jsonschema_description:"Column with the record's version: a timestamp, a timeuuid, or a bigint of microseconds since 1970. Default: the latest write time of the columns that are read; on Cassandra 4 without those of collections that are not frozen."`
	Expiry      bool             `json:"expiry,omitempty" jsonschema_description:"Read when each record expires, by the TTL of its columns. Default: only where a sink keeps it (Cassandra) or the table has a default_time_to_live, since it costs about a fifth of the reading speed."`
	Consistency string           `json:"consistency,omitempty" reprise:"tuning" jsonschema:"enum=ONE,enum=TWO,enum=THREE,enum=QUORUM,enum=ALL,enum=LOCAL_QUORUM,enum=EACH_QUORUM,enum=LOCAL_ONE" jsonschema_description:"How many replicas must agree on what is read. Default: LOCAL_QUORUM, which finds every row that was written with it; LOCAL_ONE costs the cluster less, but misses what the replica that answers has missed."`
	Page        connector.Bytes  `json:"page,omitempty" reprise:"tuning" jsonschema_description:"Approximate bytes of a response; fewer after timeouts. Default: 1MiB."`
	MaxRow      connector.Bytes  `json:"max_row,omitempty" jsonschema_description:"A larger row becomes a dead letter with only its key. Default: 64MiB."`
}

// Buckets is one way to find the partitions.
type Buckets struct {
	Discover bool     `json:"discover,omitempty" jsonschema_description:"Ask the table itself (SELECT DISTINCT): reads the key of every partition."`
	Table    string   `json:"table,omitempty" jsonschema_description:"Another table, as KEYSPACE.NAME or in the same keyspace, that lists the partitions in columns named like those of the partition key."`
	Query    string   `json:"query,omitempty" jsonschema_description:"A CQL query whose columns are named like those of the partition key, such as SELECT asset_type, bucket FROM media.buckets."`
	List     []Bucket `json:"list,omitempty" jsonschema_description:"The partitions themselves, such as {asset_type: image, bucket: 2024-05} or [image, 2024-05]."`
	Range    *Range   `json:"range,omitempty" jsonschema_description:"Calendar buckets."`
}

// Range is one partition for each period, and for each combination of the other columns' values.
type Range struct {
	Column string              `json:"column" jsonschema:"required" jsonschema_description:"The column of the partition key that holds the period: text, an integer, date or timestamp."`
	From   string              `json:"from" jsonschema:"required" jsonschema_description:"A time in the first period: 2024, 2024-01, 2024-01-31, 2024-01-31T15 or with minutes, in UTC."`
	To     string              `json:"to" jsonschema:"required" jsonschema_description:"A time in the last period, which is read too: no longer than a period, as 2024-12 for months."`
	Every  string              `json:"every" jsonschema:"required,enum=hour,enum=day,enum=week,enum=month,enum=year" jsonschema_description:"Length of a period. Weeks start on Monday."`
	Format string              `json:"format,omitempty" jsonschema_description:"How a period is written in a text or integer column: Go's reference time 2006-01-02 15:04 in the wanted form, or iso_week for 2024-W05. Default: 2006, 2006-01, 2006-01-02 (also of weeks, their Monday), 2006-01-02T15; for integers the same without separators."`
	Values map[string][]Scalar `json:"values,omitempty" jsonschema_description:"The values of each other column of the partition key, such as {asset_type: [image, video]}."`
}

// Interval is from a value up to another.
type Interval struct {
	From Scalar `json:"from,omitempty" jsonschema_description:"First value. For a timeuuid column also a time, such as 2024-05-01 or 2024-05-01T12:00:00Z. Default: no bound."`
	To   Scalar `json:"to,omitempty" jsonschema_description:"Value to stop before. Default: no bound."`
}

// Validate gives the faults that a schema cannot find.
func (c SourceConfig) Validate() []connector.Fault {
	faults := tableFaults(c.Connection, c.Keyspace, c.Table)
	add := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	if c.Buckets == nil {
		if len(c.Partitions) > 0 {
			add("partitions", "partitions can be chosen only with buckets; add buckets: {discover: true}")
		}
		if c.IDs != nil {
			add("ids", "ids can be chosen only with buckets; add buckets: {discover: true}")
		}
	} else {
		for _, f := range c.Buckets.validate() {
			add("buckets."+f.Path, "%s", f.Message)
		}
	}
	if c.IDs != nil && c.IDs.From == "" && c.IDs.To == "" {
		add("ids", "from or to is missing")
	}
	for name, m := range c.Partitions {
		if len(m.Values) == 0 && m.From == "" && m.To == "" {
			add("partitions."+name, "this lets no partition through; give values, or from and to")
		}
	}
	if _, err := c.consistency(); err != nil {
		add("consistency", "%q is not a consistency level; LOCAL_QUORUM is one", c.Consistency)
	}
	if c.Page < 0 || c.Page > maxPage {
		add("page", "page is at most %s", connector.Bytes(maxPage))
	}
	return faults
}

const maxPage = 64 << 20

func (b Buckets) validate() []connector.Fault {
	var faults []connector.Fault
	add := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	ways := 0
	for _, given := range []bool{b.Discover, b.Table != "", b.Query != "", len(b.List) > 0, b.Range != nil} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		add("discover", "%d ways to find the partitions; give one of discover: true, table, query, list or range", ways)
	}
	if b.Range == nil {
		return faults
	}
	if b.Range.Column == "" {
		add("range.column", "the column is missing")
	}
	from, errFrom := parsePeriod(b.Range.From)
	if errFrom != nil {
		add("range.from", "%v", errFrom)
	}
	to, errTo := parsePeriod(b.Range.To)
	if errTo != nil {
		add("range.to", "%v", errTo)
	}
	if _, ok := periodFormats[b.Range.Every]; !ok {
		add("range.every", "every is hour, day, week, month or year, not %q", b.Range.Every)
	} else if errFrom == nil && errTo == nil && to.Before(from) {
		add("range.to", "the range ends before it begins")
	} else if length := tooLong(b.Range.To, b.Range.Every); length != "" {
		add("range.to", "the whole %s %s may or may not be meant, since a %s is read at a time; write the last one",
			length, b.Range.To, b.Range.Every)
	}
	return faults
}

func (c SourceConfig) consistency() (level gocql.Consistency, err error) {
	if c.Consistency == "" {
		return gocql.LocalQuorum, nil
	}
	err = level.UnmarshalText([]byte(strings.ToUpper(c.Consistency)))
	return level, err
}

// Scalar is a value as its text; the column that it is for gives it a type.
type Scalar string

// UnmarshalJSON takes texts, numbers and booleans.
func (s *Scalar) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && strings.IndexByte("{[n", text[0]) >= 0 {
		return fmt.Errorf("%.40s is not a text, number or boolean", text)
	}
	if text[0] != '"' {
		*s = Scalar(text)
		return nil
	}
	return json.Unmarshal(text, (*string)(s))
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Scalar) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}},
		Description: "A text, number or boolean."}
}

// Match is what a column may hold: one of some values, or what lies between two.
type Match struct {
	Values   []Scalar
	From, To Scalar
}

type between struct {
	From Scalar `json:"from,omitempty"`
	To   Scalar `json:"to,omitempty"`
}

// UnmarshalJSON takes a list of values or an object with from and to.
func (m *Match) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &m.Values) == nil {
		return nil
	}
	var b between
	if err := json.Unmarshal(text, &b); err != nil {
		return fmt.Errorf("%.60s is not a list of values nor {from: ..., to: ...}", text)
	}
	*m = Match{From: b.From, To: b.To}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (m Match) MarshalJSON() ([]byte, error) {
	if m.Values != nil {
		return json.Marshal(m.Values)
	}
	return json.Marshal(between{m.From, m.To})
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Match) JSONSchema() *jsonschema.Schema {
	properties := jsonschema.NewProperties()
	properties.Set("from", Scalar("").JSONSchema())
	properties.Set("to", Scalar("").JSONSchema())
	return &jsonschema.Schema{Description: "Values, or {from: ..., to: ...} with both ends included.",
		OneOf: []*jsonschema.Schema{
			{Type: "array", Items: Scalar("").JSONSchema(), MinItems: new(uint64(1))},
			{Type: "object", Properties: properties, AdditionalProperties: jsonschema.FalseSchema},
		}}
}

// Bucket is one partition: its key's values by column, or in order.
type Bucket struct {
	Named  map[string]Scalar
	Values []Scalar
}

// UnmarshalJSON takes an object or an array.
func (b *Bucket) UnmarshalJSON(text []byte) error {
	*b = Bucket{}
	if json.Unmarshal(text, &b.Values) == nil {
		return nil
	}
	b.Values = nil
	if err := json.Unmarshal(text, &b.Named); err != nil {
		return fmt.Errorf("%.60s is not a partition such as {asset_type: image, bucket: 2024-05} or [image, 2024-05]",
			text)
	}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (b Bucket) MarshalJSON() ([]byte, error) {
	if b.Named != nil {
		return json.Marshal(b.Named)
	}
	return json.Marshal(b.Values)
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Bucket) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Description: "The values of the partition key, by column or in order.",
		OneOf: []*jsonschema.Schema{
			{Type: "array", Items: Scalar("").JSONSchema()},
			{Type: "object", AdditionalProperties: Scalar("").JSONSchema()},
		}}
}

// periodFormats is how a period is written unless the settings say otherwise.
var periodFormats = map[string]string{"hour": "2006-01-02T15", "day": "2006-01-02", "week": "2006-01-02",
	"month": "2006-01", "year": "2006"}

// parsePeriod reads a time in a period, which may be written as a whole year, month, day or hour: its first moment.
func parsePeriod(s string) (time.Time, error) {
	for _, length := range periodLengths {
		if at, err := time.Parse(periodFormats[length], s); err == nil {
			return at, nil
		}
	}
	at, err := record.ParseTime(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time such as 2024, 2024-01, 2024-01-31 or 2024-01-31T15", s)
	}
	return at, nil
}

// periodLengths are the lengths of periods, the shortest first.
var periodLengths = []string{"hour", "day", "week", "month", "year"}

// tooLong tells a time that is written as a period longer than another, such as the year 2024 among months: its first
// moment is hardly what is meant as an end. It gives "" or the length of the time.
func tooLong(s, every string) string {
	for i, length := range periodLengths {
		if _, err := time.Parse(periodFormats[length], s); err == nil {
			if i > slices.Index(periodLengths, every) {
				return length
			}
			break
		}
	}
	return ""
}

// start is the beginning of the period that holds at.
func (r Range) start(at time.Time) time.Time {
	y, m, d := at.Date()
	switch r.Every {
	case "hour":
		return at.Truncate(time.Hour)
	case "week":
		monday := (int(at.Weekday()) + 6) % 7
		return time.Date(y, m, d-monday, 0, 0, 0, 0, time.UTC)
	case "month":
		return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
	case "year":
		return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func (r Range) next(start time.Time) time.Time {
	switch r.Every {
	case "hour":
		return start.Add(time.Hour)
	case "week":
		return start.AddDate(0, 0, 7)
	case "month":
		return start.AddDate(0, 1, 0)
	case "year":
		return start.AddDate(1, 0, 0)
	}
	return start.AddDate(0, 0, 1)
}

// value is a period as a column of type t holds it.
func (r Range) value(start time.Time, t record.Type) (record.Value, error) {
	switch t.Kind {
	case record.Timestamp:
		return record.Number(t.Kind, start.UnixMilli()), nil
	case record.Date:
		return record.Parse(t, start.Format(time.DateOnly))
	}
	format := r.Format
	if format == "" {
		format = periodFormats[r.Every]
		if t.Kind.Integer() {
			format = strings.NewReplacer("-", "", "T", "").Replace(format)
		}
	}
	if format == "iso_week" {
		year, week := start.ISOWeek()
		return record.Parse(t, fmt.Sprintf("%04d-W%02d", year, week))
	}
	return record.Parse(t, start.Format(format))
}

// periods calls each with the start of every period of the range, until it fails.
func (r Range) periods(each func(start time.Time) error) error {
	from, err := parsePeriod(r.From)
	if err != nil {
		return err
	}
	to, err := parsePeriod(r.To)
	if err != nil {
		return err
	}
	for at := r.start(from); !at.After(to); at = r.next(at) {
		if err := each(at); err != nil {
			return err
		}
	}
	return nil
}

// columnNames joins names for a message.
func columnNames(names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	return strings.Join(sorted, ", ")
}
