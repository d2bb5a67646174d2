package elasticsearchio

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// dateTexts are values of dates as JSON, of which each format takes some.
func dateTexts() (all []string) {
	days := []string{"2024", "24", "2024-05", "2024-5", "2024-05-06", "2024-5-6", "24-05-06", "2024-02-29",
		"2023-02-29", "2024-02-30", "2024-13-01", "2024-00-01",
		"0000-05-06", "0024-05-06", "-2024-05-06", "+12024-05-06", "12024-05-06", "12345", "123456", "20240506",
		"20240230", "240506", "202405", "2024/05/06", "06.05.2024",
		"6.5.2024", "05/06/2024", "2024-W19-1", "2024-127", "-2024", "-0000", "0000", "06 May 2024"}
	clocks := []string{"", "T", "T07", "T7", "T07:08", "T07:08:09", "T7:8:9", "T07:08:09.1", "T07:08:09,1",
		"T07:08:09.123", "T07:08:09.123456789",
		"T24:00:00", "T23:59:60", "T070809", "T070809.123", " 07:08", " 07:08:09", " 07:08:09.123",
		" 07:08:09,123", "070809"}
	zones := []string{"", "Z", "+02", "+0200", "-11:30", "+18:01", "UTC", " +0200"}
	for i, day := range days {
		for j, clock := range clocks {
			for k, zone := range zones {
				if i == 4 || day == "20240506" && k < 4 || k+j == 0 || k == 1 && j == 9 {
					all = append(all, strconv.Quote(day+clock+zone))
				}
			}
		}
	}
	for _, n := range []string{"0", "-0", "5", "-5", "99", "999", "2024", "-2024", "9999", "10000", "12345", "202405",
		"20240506", "1714521600", "1714521600000",
		"-1714521600000", "1714521600000.7", "-1714521600000.7", "1714521600.123456", "1.5", "1e3", "1.5e12",
		"20240506070809", "99999999999999999", "1714521600000.0"} {
		all = append(all, n, strconv.Quote(n))
	}
	return append(all, `""`, `" 2024"`, `"2024 "`, "true", `"7"`, `"May"`)
}

// dateFormats are the formats of mappings, of all kinds.
var dateFormats = []string{"", "strict_date_optional_time", "date_optional_time",
	"strict_date_optional_time||epoch_second", "epoch_millis", "epoch_second",
	"date_optional_time||epoch_millis", "epoch_millis||strict_date_optional_time", "iso8601", "strict_date", "date",
	"strict_date_time", "date_time",
	"strict_date_time_no_millis", "date_time_no_millis",
	"strict_date_time_no_millis||strict_date_optional_time||epoch_millis", "basic_date", "basic_date_time",
	"basic_date_time_no_millis", "strict_year", "year", "strict_year_month", "year_month", "strict_year_month_day",
	"year_month_day", "strict_date_hour", "date_hour",
	"strict_date_hour_minute", "date_hour_minute", "strict_date_hour_minute_second", "date_hour_minute_second",
	"strict_date_hour_minute_second_millis",
	"date_hour_minute_second_millis", "date_hour_minute_second_fraction", "strict_date_optional_time_nanos",
	"yyyy-MM-dd", "uuuu-MM-dd", "yyyy-MM-dd HH:mm:ss",
	"yyyy-MM-dd HH:mm:ss||yyyy-MM-dd||epoch_millis", "yyyy-MM-dd HH:mm:ss.SSS", "yyyy-MM-dd HH:mm:ss,SSS",
	"yyyy-MM-dd'T'HH:mm:ssX", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
	"yyyy-MM-dd'T'HH:mm:ss.SSSZ", "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXX", "dd.MM.yyyy", "d.M.yyyy", "MM/dd/yyyy",
	"yyyy/MM/dd||epoch_second", "yyyyMMdd", "yyyyMMddHHmmss", "yyyyMM",
	"yyyyMM||epoch_millis", "yyyy", "yyyy||epoch_millis", "epoch_millis||yyyy", "yy-MM-dd", "yyMMdd", "yyyy-M-d",
	"yyyy-MM-dd[ HH:mm[:ss]]", "8yyyy-MM-dd", "yyyy-MM-dd HH:mm:ss Z",
	"yyyy-dd-MM", "week_date", "strict_ordinal_date", "dd MMM yyyy", "HH:mm:ss", "YYYY-MM-dd", "yyyy-MM-dd hh:mm:ss a",
	"strict_date_optional_time||dd MMM yyyy"}

// A date is what the server has understood, by whatever format, or an error; never something else. The servers tell
// by their doc values.
func TestDatesAreWhatTheServerHasUnderstood(t *testing.T) {
	t.Parallel()
	texts := dateTexts()
	for _, s := range servers {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			es := sharedOf(t, s)
			index := es.index(name(t))
			properties, wanted := object{}, []any{}
			formats := slices.Clone(dateFormats)
			for i, format := range formats {
				p := object{"type": "date", "ignore_malformed": true}
				if format != "" {
					p["format"] = format
				}
				properties[fmt.Sprint("f", i)] = p
				wanted = append(wanted, object{"field": fmt.Sprint("f", i), "format": "epoch_millis"})
			}
			es.must("PUT", "/"+index,
				object{"settings": object{"number_of_shards": 1, "index.max_docvalue_fields_search": 200},
					"mappings": object{"dynamic": false, "properties": properties}})
			var docs []string
			for _, text := range texts {
				var doc strings.Builder
				for i := range formats {
					fmt.Fprintf(&doc, `%c"f%d":%s`, "{,"[min(i, 1)], i, text)
				}
				docs = append(docs, doc.String()+"}")
			}
			es.bulk(index, docs...)
			var found struct {
				Hits struct {
					Hits []struct {
						ID     string `json:"_id"`
						Fields map[string][]string
					}
				}
			}
			text := es.must("POST", "/"+index+"/_search",
				object{"size": 10_000, "_source": false, "docvalue_fields": wanted})
			if err := json.Unmarshal(text, &found); err != nil || len(found.Hits.Hits) != len(docs) {
				t.Fatal(len(found.Hits.Hits), err)
			}
			reads := make([]int, len(formats))
			takes := make([]int, len(formats))
			for _, h := range found.Hits.Hits {
				n, _ := strconv.Atoi(strings.TrimPrefix(h.ID, "doc-"))
				for i, format := range formats {
					server := strings.Join(h.Fields[fmt.Sprint("f", i)], " ")
					takes[i] += min(len(server), 1)
					d := newDates(&property{Type: "date", Format: format})
					d.floor = true
					v, err := d.value(record.Timestamp, texts[n])
					if err != nil {
						continue
					}
					reads[i]++
					if got := fmt.Sprint(v.Int()); got != server {
						t.Errorf("%s as %q: %s, but the server has %q", texts[n], format, got, server)
					}
				}
			}
			for i, format := range formats {
				known := newDates(&property{Type: "date", Format: format}).known()
				if (reads[i] == 0) == (known && takes[i] > 0) && !strings.Contains(format, "||") {
					t.Errorf("%q: %d texts are read of %d that the server takes", format, reads[i], takes[i])
				}
				t.Logf("%q: %d texts are read of %d that the server takes", format, reads[i], takes[i])
			}
		})
	}
}

// Times are read by the format of their field wherever they lie, each document's by that of its own index.
func TestAYearIsNoNumberOfMilliseconds(t *testing.T) {
	t.Parallel()
	es := shared(t)
	prefix := name(t)
	one, two := es.index(prefix+"-1"), es.index(prefix+"-2")
	const mapping = `{"mappings":{"properties":{"id":{"type":"keyword"},"at":{"type":"date"},"s":{"type":"date","format":"%s"},"o":{"properties":{"s":{"type":"date","format":"epoch_second"}}},
		"l":{"type":"nested","properties":{"at":{"type":"date"}}},"plain":{"type":"long"}}}}`
	es.must("PUT", "/"+one, fmt.Sprintf(mapping, "epoch_second"))
	es.must("PUT", "/"+two, fmt.Sprintf(mapping, "yyyy/MM/dd||epoch_millis"))
	es.bulk(one, `{"id":"a","at":["2024",2025,1714521600000],"s":1714521600,"o":{"s":"7"},"l":[{"at":"2024-05"},{"at":null}],"plain":1714521600000}`)
	es.bulk(two, `{"id":"b","at":"2024-05-06T07","s":"2024/05/06","o.s":8}`, `{"id":"c","s":1714521600,"at":[]}`)
	s := es.source(prefix+"-*", func(c *SourceConfig) {
		c.Fields = fields(`{"id":"text","at":"set<timestamp>","s":"timestamp","o":"udt<s:timestamp>","l":"list<udt<at:date>>","plain":"timestamp"}`)
	})
	got := read(t, s, connector.PlanOptions{})
	for _, d := range got.dead {
		t.Error(d.Message)
	}
	want := map[string]string{
		"a": `{"id":"a","at":["2024-01-01T00:00:00.000Z","2025-01-01T00:00:00.000Z","2024-05-01T00:00:00.000Z"],"s":"2024-05-01T00:00:00.000Z","o":{"s":"1970-01-01T00:00:07.000Z"},"l":[{"at":"2024-05-01"},{"at":null}],"plain":"2024-05-01T00:00:00.000Z"}`,
		"b": `{"id":"b","at":["2024-05-06T07:00:00.000Z"],"s":"2024-05-06T00:00:00.000Z","o":{"s":"1970-01-01T00:00:08.000Z"}}`,
		"c": `{"id":"c","at":[],"s":"1970-01-20T20:15:21.600Z"}`,
	}
	if diff := cmp.Diff(want, asJSON(slices.Collect(maps.Values(got.records)))); diff != "" {
		t.Error(diff)
	}
	es.must("PUT", "/"+one+"/_mapping",
		`{"properties":{"odd":{"type":"date","format":"E, dd MMM yyyy"},"dates":{"properties":{"x":{"type":"date"}}}}}`)
	for types, part := range map[string]string{
		`"odd":"timestamp"`:              `field odd: the format "E, dd MMM yyyy" of the index cannot be read as a timestamp: read it as a text`,
		`"odd":"list<date>"`:             "field odd: the format",
		`"dates":"map<text, timestamp>"`: "field dates: the dates of the index cannot be read as a map"} {
		_, err := es.source(one, func(c *SourceConfig) { c.Fields = fields(`{"id":"text",` + types + `}`) }).
			Schema(t.Context())
		wantError(t, err, "elasticsearch.fields", fail.ExitJob, part)
	}
}

// What is finer than a timestamp is lost only where the server does not look at it either, and the fields have been
// named.
func TestNanosecondsAreNotLostSilently(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	es.must("PUT", "/"+index,
		`{"mappings":{"properties":{"id":{"type":"keyword"},"at":{"type":"date"},"ns":{"type":"date_nanos"},"day":{"type":"date"}}}}`)
	es.bulk(index, `{"id":"a","at":"2024-05-06T07:08:09.123456Z"}`, `{"id":"b","ns":"2024-05-06T07:08:09.123456Z"}`,
		`{"id":"c","ns":"2024-05-06T07:08:09.123000000Z"}`,
		`{"id":"d","day":"2024-05-06T00:00:00.001Z"}`, `{"id":"e","day":"2024-05-06T02:00:00+02:00"}`,
		`{"id":"f","ns":"2024"}`)
	got := read(t, es.source(index, func(c *SourceConfig) {
		c.Fields = fields(`{"id":"text","at":"timestamp","ns":"timestamp","day":"date"}`)
	}), connector.PlanOptions{})
	want := map[string]string{"a": `{"id":"a","at":"2024-05-06T07:08:09.123Z"}`,
		"c": `{"id":"c","ns":"2024-05-06T07:08:09.123Z"}`, "e": `{"id":"e","day":"2024-05-06"}`,
		"f": `{"id":"f","ns":"2024-01-01T00:00:00.000Z"}`}
	if diff := cmp.Diff(want, asJSON(slices.Collect(maps.Values(got.records)))); diff != "" {
		t.Error(diff)
	}
	letters := map[string]string{}
	for _, d := range got.dead {
		letters[d.Record.KeyText()] = d.Message
	}
	if len(letters) != 2 || !strings.Contains(letters["b"], "digits below milliseconds") ||
		!strings.Contains(letters["d"], "a time of day") {
		t.Error(letters)
	}
	_, err := es.source(index, func(c *SourceConfig) { c.Fields = nil }).Schema(t.Context())
	wantError(t, err, "elasticsearch.fields", fail.ExitJob, `at: "text"`, `ns: "text"`)
}
