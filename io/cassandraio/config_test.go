package cassandraio

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func TestSourceConfigFaults(t *testing.T) {
	t.Parallel()
	const good = `{"connection": {"hosts": ["10.0.0.1"]}, "keyspace": "k", "table": "t", %}`
	for settings, want := range map[string][]string{
		`"page": "2MiB"`: nil,
		`"buckets": {"discover": true}, "ids": {"from": 5}, "partitions": {"a": [1, true, "x"], "b": {"from": 1}}`: nil,
		`"buckets": {"list": [["image", 1], {"type": "image"}]}`:                                                   nil,
		`"buckets": {}`: {"buckets.discover"},
		`"buckets": {"discover": true, "table": "x"}`:                       {"buckets.discover"},
		`"ids": {"from": 5}`:                                                {"ids"},
		`"partitions": {"a": [1]}`:                                          {"partitions"},
		`"buckets": {"discover": true}, "ids": {}, "partitions": {"a": {}}`: {"ids", "partitions.a"},
		`"consistency": "most"`:                                             {"consistency"},
		`"page": "1GiB"`:                                                    {"page"},
		`"buckets": {"range": {"from": "x", "to": "2024-13", "every": "never"}}`: {"buckets.range.column",
			"buckets.range.from", "buckets.range.to", "buckets.range.every"},
		`"buckets": {"range": {"column": "b", "from": "2024-02", "to": "2024-01", "every": "day"}}`: {
			"buckets.range.to"},
		`"connection": {"hosts": [""], "user": "u", "only_hosts": ["a"], "avoid_hosts": ["10.0.0.0/99"]}`: {
			"connection.hosts", "connection.only_hosts", "connection.avoid_hosts", "connection.user"},
		`"connection": {}, "keyspace": "", "table": ""`: {"connection.hosts", "keyspace", "table"},
	} {
		var c SourceConfig
		d := json.NewDecoder(strings.NewReader(strings.Replace(good, "%", settings, 1)))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			t.Errorf("%s: %v", settings, err)
			continue
		}
		if strings.Contains(settings, `"connection": {}`) {
			c.Connection.Hosts = nil
		}
		var got []string
		for _, f := range c.Validate() {
			got = append(got, f.Path)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("faults of %s (-want +got):\n%s", settings, diff)
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var back SourceConfig
		if err := json.Unmarshal(again, &back); err != nil {
			t.Errorf("%s: %v", again, err)
		}
		if diff := cmp.Diff(c, back); diff != "" {
			t.Errorf("%s comes back as (-want +got):\n%s", settings, diff)
		}
	}
	for _, wrong := range []string{`{"ids": {"from": null}}`, `{"ids": {"from": [1]}}`, `{"partitions": {"a": 1}}`,
		`{"buckets": {"list": [1]}}`} {
		if err := json.Unmarshal([]byte(wrong), &SourceConfig{}); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}

// Every setting tells what it does.
func TestSettingsAreDescribed(t *testing.T) {
	t.Parallel()
	schema := (&jsonschema.Reflector{}).Reflect(SourceConfig{})
	for name, def := range schema.Definitions {
		for p := def.Properties.Oldest(); p != nil; p = p.Next() {
			if p.Value.Description == "" && def.Description == "" {
				t.Errorf("%s.%s has no description", name, p.Key)
			}
		}
	}
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r    Range
		kind record.Kind
		want string
	}{
		"hours": {Range{From: "2024-02-28T22:30", To: "2024-02-29T01", Every: "hour"}, record.Text,
			"2024-02-28T22 2024-02-28T23 2024-02-29T00 2024-02-29T01"},
		"days": {Range{From: "2024-02-28", To: "2024-03-01", Every: "day"}, record.Text,
			"2024-02-28 2024-02-29 2024-03-01"},
		"days as int": {Range{From: "2024-02-28", To: "2024-02-29", Every: "day"}, record.Int, "20240228 20240229"},
		"days as date": {Range{From: "2024-02-28", To: "2024-02-29", Every: "day"}, record.Date,
			"2024-02-28 2024-02-29"},
		"weeks": {Range{From: "2024-12-25", To: "2025-01-06", Every: "week"}, record.Text,
			"2024-12-23 2024-12-30 2025-01-06"},
		"ISO weeks": {Range{From: "2024-12-25", To: "2025-01-06", Every: "week", Format: "iso_week"}, record.Text,
			"2024-W52 2025-W01 2025-W02"},
		"months": {Range{From: "2024-11", To: "2025-01", Every: "month"}, record.Text,
			"2024-11 2024-12 2025-01"},
		"months written": {Range{From: "2024-11", To: "2024-12", Every: "month", Format: "Jan06"},
			record.Text, "Nov24 Dec24"},
		"months as time": {Range{From: "2024-11", To: "2024-12", Every: "month"}, record.Timestamp,
			"2024-11-01T00:00:00.000Z 2024-12-01T00:00:00.000Z"},
		"years": {Range{From: "2023-06", To: "2024-01", Every: "year"}, record.BigInt, "2023 2024"},
	} {
		var got []string
		err := c.r.periods(func(start time.Time) error {
			v, err := c.r.value(start, record.Of(c.kind))
			got = append(got, v.Text(record.Of(c.kind)))
			return err
		})
		if text := strings.Join(got, " "); err != nil || text != c.want {
			t.Errorf("%s: %s, %v, want %s", name, text, err, c.want)
		}
	}
}

// An end that is written as a longer period than is read could mean its first or its last one.
func TestAnEndLongerThanAPeriodIsAFault(t *testing.T) {
	t.Parallel()
	for to, fits := range map[string]string{"2024": "year", "2024-12": "month year",
		"2024-12-31": "day week month year", "2024-12-31T23": "hour day week month year",
		"2024-12-31T23:30": "hour day week month year", "2024-12-31T23:30:00Z": "hour day week month year"} {
		for _, every := range periodLengths {
			c := SourceConfig{Buckets: &Buckets{Range: &Range{Column: "bucket", From: "2024", To: to, Every: every}}}
			faults := slices.DeleteFunc(c.Validate(),
				func(f connector.Fault) bool { return f.Path != "buckets.range.to" })
			if want := slices.Contains(strings.Fields(fits), every); want != (len(faults) == 0) {
				t.Errorf("%s up to %s: %v, fits is %v", every, to, faults, want)
			}
		}
	}
}

func TestPartitionNames(t *testing.T) {
	t.Parallel()
	tab := &table{partition: []column{{name: "a", typ: record.Of(record.Text)},
		{name: "b", typ: record.Of(record.Date)}, {name: "c", typ: record.Of(record.Text)}}}
	for _, text := range []string{"", "a", "/", `\`, `\/`, "//", `a\\/b`, "ü"} {
		values := []record.Value{record.String(text), record.Number(record.Date, 19_000), record.String(text)}
		name := tab.partitionName(values)
		back, raw, err := tab.parsePartition(name)
		if err != nil || !slices.EqualFunc(values, back, record.Value.Equal) || string(raw[0]) != text {
			t.Errorf("%q is named %s and comes back as %v, %v", text, name, back, err)
		}
	}
	for _, wrong := range []string{"", "a/b", "a/b/c", "a/2024-01-01/c/d"} {
		if _, _, err := tab.parsePartition(wrong); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}

func TestNodeFilter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		connection Connection
		nodes      string // address@dc, in the order seen
		want       string
	}{
		"first dc": {Connection{}, "10.0.0.1@a 10.0.0.2@b 10.0.0.3@a", "10.0.0.1@a 10.0.0.3@a"},
		"given dc": {Connection{LocalDC: "b"}, "10.0.0.1@a 10.0.0.2@b", "10.0.0.2@b"},
		"only": {Connection{OnlyHosts: []string{"10.0.0.0/31", "10.0.0.9"}}, "10.0.0.1@a 10.0.0.2@a 10.0.0.9@a",
			"10.0.0.1@a 10.0.0.9@a"},
		"avoid": {Connection{AvoidHosts: []string{"10.0.0.1", "::ffff:10.0.0.2"}},
			"10.0.0.1@a 10.0.0.2@b 10.0.0.3@c 10.0.0.4@a", "10.0.0.3@c"},
		"both, v6": {Connection{OnlyHosts: []string{"fd00::/8"}, AvoidHosts: []string{"fd00::1"}},
			"fd00::1@a fd00::2@a 10.0.0.1@a", "fd00::2@a"},
	} {
		f, err := newNodeFilter(c.connection)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for node := range strings.FieldsSeq(c.nodes) {
			address, dc, _ := strings.Cut(node, "@")
			if f.accept(netip.MustParseAddr(address), dc) {
				got = append(got, node)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}
