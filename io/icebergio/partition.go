package icebergio

import (
	"encoding/binary"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"

	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// partition is one part of a partition spec as the job file writes it.
type partition struct {
	column    string
	transform iceberg.Transform
}

var partitionForm = regexp.MustCompile(`^(?:([a-z]+)\s*\(\s*(?:([0-9]+)\s*,\s*)?)?([^\s(),]+)\s*(\)?)$`)

// parsePartition reads "asset_type", "month(created)", "bucket(16, id)", "truncate(4, name)".
func parsePartition(text string) (partition, error) {
	m := partitionForm.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil || (m[1] == "") != (m[4] == "") {
		return partition{}, fmt.Errorf("%q is not a partition such as asset_type, month(created) or bucket(16, id)",
			text)
	}
	name, width, p := m[1], m[2], partition{column: m[3]}
	n, _ := strconv.ParseInt(width, 10, 32)
	if wide := name == "bucket" || name == "truncate"; wide != (n > 0) {
		if wide {
			return p, fmt.Errorf("%q: %s needs a number first, as in %s(16, %s)", text, name, name, p.column)
		}
		return p, fmt.Errorf("%q: only bucket and truncate take a number", text)
	}
	switch name {
	case "", "identity":
		p.transform = iceberg.IdentityTransform{}
	case "year":
		p.transform = iceberg.YearTransform{}
	case "month":
		p.transform = iceberg.MonthTransform{}
	case "day":
		p.transform = iceberg.DayTransform{}
	case "hour":
		p.transform = iceberg.HourTransform{}
	case "bucket":
		p.transform = iceberg.BucketTransform{NumBuckets: int(n)}
	case "truncate":
		p.transform = iceberg.TruncateTransform{Width: int(n)}
	default:
		return p, fmt.Errorf("%q: there are year, month, day, hour, bucket(N, c) and truncate(N, c)", text)
	}
	return p, nil
}

// name is what Iceberg's own writers call the part, as far as manifests, which are Avro, take it: a column may have any
// name, a part of the partition only one of letters, digits and _.
func (p partition) name() string {
	column := avroName(p.column)
	switch p.transform.(type) {
	case iceberg.IdentityTransform:
		return column
	case iceberg.BucketTransform:
		return column + "_bucket"
	case iceberg.TruncateTransform:
		return column + "_trunc"
	}
	return column + "_" + p.transform.String()
}

// avroName writes what no name of Avro holds as Iceberg does: _x and the code point, and a digit in front with a _
// before it.
func avroName(name string) string {
	var b strings.Builder
	for i, r := range name {
		switch {
		case r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && r >= '0' && r <= '9':
			b.WriteRune(r)
		case r >= '0' && r <= '9':
			b.WriteString("_" + string(r))
		default:
			fmt.Fprintf(&b, "_x%X", r)
		}
	}
	return b.String()
}

// String is the part as the job file writes it.
func (p partition) String() string {
	switch t := p.transform.(type) {
	case iceberg.IdentityTransform:
		return p.column
	case iceberg.BucketTransform:
		return fmt.Sprintf("bucket(%d, %s)", t.NumBuckets, p.column)
	case iceberg.TruncateTransform:
		return fmt.Sprintf("truncate(%d, %s)", t.Width, p.column)
	}
	return fmt.Sprintf("%s(%s)", p.transform, p.column)
}

// newSpec is the partition spec of a new table.
func newSpec(parts []string, schema *iceberg.Schema) (*iceberg.PartitionSpec, error) {
	var opts []iceberg.PartitionOption
	for _, text := range parts {
		p, err := parsePartition(text)
		if err == nil {
			if f, ok := schema.FindFieldByName(p.column); !ok {
				err = fmt.Errorf("%q: there is no such column; there are %s", text,
					strings.Join(columnNames(schema), ", "))
			} else if !partitions(p.transform, f.Type) {
				err = fmt.Errorf("%q: a column of type %s cannot be partitioned like this", text, f.Type)
			}
		}
		if err != nil {
			return nil, fail.Job("iceberg.partition", "%w", err)
		}
		opts = append(opts, iceberg.AddPartitionFieldByName(p.column, p.name(), p.transform, schema, nil))
	}
	spec, err := iceberg.NewPartitionSpecOpts(opts...)
	if err != nil {
		return nil, fail.Job("iceberg.partition", "partition %s: %w", strings.Join(parts, ", "), err)
	}
	return &spec, nil
}

// partitions tells whether a column can be partitioned like this. By floats it cannot, whatever a transform says: what
// is equal differs in bits.
func partitions(t iceberg.Transform, column iceberg.Type) bool {
	switch column.(type) {
	case iceberg.Float32Type, iceberg.Float64Type:
		return false
	}
	return t.CanTransform(column)
}

// specParts are the parts of a table's spec, or what is wrong with it.
func specParts(spec iceberg.PartitionSpec, schema *iceberg.Schema) (parts []partition, problems []string) {
	for _, f := range spec.Fields() {
		if _, void := f.Transform.(iceberg.VoidTransform); void {
			continue
		}
		column, ok := schema.FindColumnName(f.SourceID())
		if !ok {
			// Trap: iceberg-go's SQL catalog lets the column be dropped, and then no file of the table can be written.
			problems = append(problems,
				fmt.Sprintf("it is partitioned by a column (field %d, %s) that has been dropped; replace the "+
					"partition field", f.SourceID(), f.Name))
			continue
		}
		if avroName(f.Name) != f.Name {
			problems = append(problems, fmt.Sprintf("its partition field %s has a name that manifests cannot "+
				"hold; rename it (ALTER TABLE ... REPLACE PARTITION FIELD ... AS %s)", f.Name, avroName(f.Name)))
		}
		parts = append(parts, partition{column: column, transform: f.Transform})
	}
	return parts, problems
}

// partitionKey is a part of the spec, bound to what records hold.
type partitionKey struct {
	partition
	field     int                    // of the record
	text      bool                   // an empty value must not become a partition
	identity  bool                   // of a text: the key is the value
	value     func(record.Value) any // as Iceberg holds it
	transform func(any) any
}

// maxPartitionText is the longest name of a folder that file systems take, with some left for the name of the part.
const maxPartitionText = 200

// partitionKey appends what tells the record's partition from others, or the error of a
// record that no partition can hold.
func (l *layout) partitionKey(b []byte, r *record.Record) ([]byte, error) {
	for i := range l.partitions {
		k := &l.partitions[i]
		v := l.value(r, k.field)
		switch {
		case v.IsNull():
			b = append(b, 0)
			continue
		case k.text && v.Str() == "":
			// Trap: its manifest gets a null bound, and readers skip rows of other partitions.
			return b, fail.New(fail.Permanent, "iceberg.empty_partition_value",
				"%s is empty, which cannot be a partition", k.column).
				WithFix("give it a value or null by a transform")
		case k.identity:
			b = append(binary.AppendUvarint(append(b, 1), uint64(len(v.Str()))), v.Str()...)
			continue
		}
		b = tables.AppendPartitionValue(append(b, 1), k.transform(k.value(v)))
	}
	return b, nil
}

// partitionFits tells whether the partition of a record can be a folder; it is asked once for each new partition.
func (l *layout) partitionFits(r *record.Record) error {
	for i := range l.partitions {
		k := &l.partitions[i]
		v := l.value(r, k.field)
		if !k.text || v.IsNull() {
			continue
		}
		text, _ := k.transform(k.value(v)).(string)
		if n := len(url.QueryEscape(text)); n > maxPartitionText {
			return fail.New(fail.Permanent, "iceberg.partition_value",
				"%s is too long for the name of a partition's folder: %d of at most %d bytes when escaped",
				k.column, n, maxPartitionText).
				WithFix("partition by truncate(N, %s) or bucket(N, %s)", k.column, k.column)
		}
		// gocloud.dev writes the key of an object with "../" in it otherwise than the
		// manifest says, and no reader finds it.
		if strings.HasSuffix(text, "..") {
			return fail.New(fail.Permanent, "iceberg.partition_value",
				"%s ends with two points, which the name of a partition's folder cannot", k.column).
				WithFix("give it another value by a transform, or partition by bucket(N, %s)", k.column)
		}
	}
	return nil
}

// bindTransform is what a transform does to the values of a type.
func bindTransform(t iceberg.Transform, source iceberg.Type) (func(any) any, error) {
	number := func(f func(any) iceberg.Optional[int32]) func(any) any {
		return func(v any) any { return f(v).Val }
	}
	switch t := t.(type) {
	case iceberg.IdentityTransform:
		return func(v any) any { return v }, nil
	case iceberg.BucketTransform:
		if !t.CanTransform(source) {
			return nil, fmt.Errorf("%s cannot be put in buckets", source)
		}
		return number(t.Transformer(source)), nil
	case iceberg.TruncateTransform:
		return t.Transformer(source)
	case iceberg.TimeTransform:
		f, err := t.Transformer(source)
		return number(f), err
	}
	return nil, fmt.Errorf("the partition transform %s is not known", t)
}
