package travel

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/google/go-cmp/cmp"

	"reprise/transforms/record"
)

// asset has the fields of assetRecord, for Beam's row coder.
type asset struct {
	AssetType, Bucket, ID, Title, Owner, Licence string
	Width, Height                                int32
	Size                                         int64
	Created                                      int64
	Attrs                                        map[string]string
	Tags                                         []string
}

var assetSchema = record.MustSchema([]record.Field{
	{Name: "asset_type", Type: record.Of(record.Text)}, {Name: "bucket", Type: record.Of(record.Text)},
	{Name: "id", Type: record.Of(record.TimeUUID)}, {Name: "title", Type: record.Of(record.Text)},
	{Name: "owner", Type: record.Of(record.Text)}, {Name: "licence", Type: record.Of(record.Text)},
	{Name: "width", Type: record.Of(record.Int)}, {Name: "height", Type: record.Of(record.Int)},
	{Name: "size", Type: record.Of(record.BigInt)}, {Name: "created", Type: record.Of(record.Timestamp)},
	{Name: "attrs", Type: record.MapOf(record.Of(record.Text), record.Of(record.Text))},
	{Name: "tags", Type: record.SetOf(record.Of(record.Text))},
}, "asset_type", "bucket", "id")

func assetRecord() (*record.Record, asset) {
	a := asset{AssetType: "image", Bucket: "2024-05", ID: "0123456789abcdef",
		Title: "A view of the harbour at dusk", Owner: "harbour-agency", Licence: "editorial-2026",
		Width: 6000, Height: 4000, Size: 18_223_101, Created: time.Date(2024, 5, 17, 12, 0, 0, 0, time.UTC).UnixMilli(),
		Attrs: map[string]string{"camera": "X100", "iso": "200", "lens": "23mm", "place": "Bergen"},
		Tags:  []string{"dusk", "harbour", "ships", "water"}}
	r := &record.Record{Schema: assetSchema, Version: a.Created * 1000,
		Origin: record.Origin{Split: "image/2024-05", Position: []byte("0123456789abcdef")}}
	text := record.String
	var attrs, tags []record.Value
	for _, k := range []string{"camera", "iso", "lens", "place"} {
		attrs = append(attrs, text(k), text(a.Attrs[k]))
	}
	for _, tag := range a.Tags {
		tags = append(tags, text(tag))
	}
	r.Values = []record.Value{text(a.AssetType), text(a.Bucket), record.Bytes(record.TimeUUID, a.ID),
		text(a.Title), text(a.Owner), text(a.Licence),
		record.Number(record.Int, int64(a.Width)), record.Number(record.Int, int64(a.Height)),
		record.Number(record.BigInt, a.Size),
		record.Number(record.Timestamp, a.Created), record.Nested(record.Map, attrs), record.Nested(record.Set, tags)}
	return r, a
}

// TestCoderInBeam sends a record through the coder that Beam chooses for it.
func TestCoderInBeam(t *testing.T) {
	r, _ := assetRecord()
	var b bytes.Buffer
	if err := beam.NewElementEncoder(reflect.TypeFor[*record.Record]()).Encode(r, &b); err != nil {
		t.Fatal(err)
	}
	got, err := beam.NewElementDecoder(reflect.TypeFor[*record.Record]()).Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	equal := cmp.Comparer(func(a, b record.Value) bool { return a.Equal(b) })
	if diff := cmp.Diff(r, got, equal, cmp.Comparer(func(a, b *record.Schema) bool { return a.Same(b) })); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkCoder encodes and decodes an asset of 12 fields with a map and a set: by our coder alone, and by ours and
// Beam's row coder as Beam calls them.
func BenchmarkCoder(b *testing.B) {
	r, a := assetRecord()
	b.Run("record-alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := record.DecodeRecord(record.EncodeRecord(r)); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, c := range []struct {
		name  string
		value any
	}{{"record", r}, {"beam-row", a}} {
		b.Run(c.name, func(b *testing.B) {
			enc, dec := beam.NewElementEncoder(reflect.TypeOf(c.value)), beam.NewElementDecoder(reflect.TypeOf(c.value))
			var buf bytes.Buffer
			b.ReportAllocs()
			for b.Loop() {
				buf.Reset()
				if err := enc.Encode(c.value, &buf); err != nil {
					b.Fatal(err)
				}
				if _, err := dec.Decode(&buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestDeadLettersTravelWhole sends dead letters with and without a record through the coder that Beam chooses for
// them.
func TestDeadLettersTravelWhole(t *testing.T) {
	r, _ := assetRecord()
	for _, l := range []*record.DeadLetter{
		{Record: r, Run: "r", Step: "transforms.1.cast", Sink: "lake", Class: "permanent", Code: "c", Message: "m",
			Attempts: 3, Split: "s", At: 5},
		{Raw: []byte{0xff, 0}, Place: &record.Place{Partition: "p", Start: []byte{0}, End: []byte{1}}, Step: "source"},
	} {
		var b bytes.Buffer
		if err := beam.NewElementEncoder(reflect.TypeFor[*record.DeadLetter]()).Encode(l, &b); err != nil {
			t.Fatal(err)
		}
		got, err := beam.NewElementDecoder(reflect.TypeFor[*record.DeadLetter]()).Decode(&b)
		if err != nil {
			t.Fatal(err)
		}
		equal := cmp.Comparer(func(a, b record.Value) bool { return a.Equal(b) })
		same := cmp.Comparer(func(a, b *record.Schema) bool { return a.Same(b) })
		if diff := cmp.Diff(l, got, equal, same); diff != "" {
			t.Error(diff)
		}
	}
}
