package corpusio

import (
	"sort"
	"strings"
	"time"

	"reprise/transforms/record"
)

// Bucket is a partition of the table.
type Bucket struct {
	AssetType string
	Bucket    string // month: "2024-05"
	Rows      int64

	start time.Time
	ticks int64   // of 100 ns in the month
	slots []int64 // rows n with n modulo the cycle in slots lie in the bucket; ascending
	cycle int64
}

// Name names the bucket in splits: "image/2024-05".
func (b *Bucket) Name() string { return b.AssetType + "/" + b.Bucket }

// row is the number of the bucket's row of that rank; it grows with the rank.
func (b *Bucket) row(rank int64) int64 {
	m := int64(len(b.slots))
	return rank/m*b.cycle + b.slots[rank%m]
}

// rank is the number of the bucket's rows below row n.
func (b *Bucket) rank(n int64) int64 {
	return int64(sort.Search(int(b.Rows), func(i int) bool { return b.row(int64(i)) >= n }))
}

const (
	months      = 12
	hotBucket   = "image/2024-05"
	emptyOnes   = "audio/2024-02 video/2024-07 document/2024-11 image/2024-12"
	skewedCycle = 1000
)

// Buckets are all buckets, those without rows too.
func Buckets(c SourceConfig) []*Bucket {
	var all, filled []*Bucket
	var hot *Bucket
	for _, kind := range []string{"audio", "document", "image", "video"} {
		for month := range months {
			start := time.Date(2024, time.Month(1+month), 1, 0, 0, 0, 0, time.UTC)
			b := &Bucket{AssetType: kind, Bucket: start.Format("2006-01"), start: start,
				ticks: int64(start.AddDate(0, 1, 0).Sub(start) / 100)}
			all = append(all, b)
			switch {
			case b.Name() == hotBucket:
				hot = b
			case !strings.Contains(emptyOnes, b.Name()):
				filled = append(filled, b)
			}
		}
	}
	if c.Layout == "even" {
		for i, b := range all {
			b.cycle, b.slots = int64(len(all)), []int64{int64(i)}
		}
	} else {
		for slot := range int64(skewedCycle) {
			b := hot
			if slot%2 == 1 {
				// The square makes the first buckets larger than the last ones.
				b = filled[int64(len(filled))*slot*slot/(skewedCycle*skewedCycle)]
			}
			b.cycle, b.slots = skewedCycle, append(b.slots, slot)
		}
	}
	for _, b := range all {
		for _, slot := range b.slots {
			if slot < c.Rows {
				b.Rows += (c.Rows - slot + b.cycle - 1) / b.cycle
			}
		}
	}
	return all
}

// BucketRecords are the rows of the table asset_buckets.
func BucketRecords(c SourceConfig) []*record.Record {
	schema := BucketSchema()
	var rows []*record.Record
	for _, b := range Buckets(c) {
		rows = append(rows, &record.Record{Schema: schema, Version: b.start.UnixMicro(),
			Values: []record.Value{record.String(b.AssetType), record.String(b.Bucket)}})
	}
	return rows
}
