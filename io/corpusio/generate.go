package corpusio

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"reprise/transforms/record"
)

// Row is one asset of the corpus.
type Row struct {
	Record    *record.Record
	Deletion  *record.Record // of the same key, later; nil: the asset stays
	Malformed bool           // the payload is no JSON
}

// How often things happen: once in so many rows.
const (
	oneDeleted   = 200
	oneMalformed = 1000
	oneExpiring  = 100
	oneHuge      = 10_000
	oneExtreme   = 1000
	hugeLeast    = 64_000 // bytes
	hugeMost     = 900_000
)

// random is a stream of numbers (SplitMix64).
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return mix(uint64(*r))
}

func mix(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// below is a number from 0 to n-1.
func (r *random) below(n int) int { return int(r.next() >> 32 * uint64(n) >> 32) }

// oneIn is true once in n times.
func (r *random) oneIn(n int) bool { return r.below(n) == 0 }

// generator makes rows. It is used by one goroutine.
type generator struct {
	random
	schema  *record.Schema
	seed    uint64
	expires int64
	long    func() string // at least hugeMost bytes, of whole paragraphs

	row   []record.Value
	parts []record.Value // of nested values, not yet taken
	buf   []byte         // the bytes of the row's values
	marks []mark
}

// mark is a value whose bytes stand in buf until the row is complete, when all become parts of one string.
type mark struct {
	value *record.Value
	kind  record.Kind
	from  int
	end   int
}

var paragraph = strings.Join(sentences[:], "")

func longText() string { return strings.Repeat(paragraph, hugeMost/len(paragraph)+1) }

// put makes v the bytes of buf from that place on.
func (g *generator) put(v *record.Value, kind record.Kind, from int) {
	g.marks = append(g.marks, mark{v, kind, from, len(g.buf)})
}

// nest makes v a nested value of n parts, which it gives.
func (g *generator) nest(v *record.Value, kind record.Kind, n int) []record.Value {
	parts := g.parts[:n:n]
	g.parts = g.parts[n:]
	*v = record.Nested(kind, parts)
	return parts
}

// Row makes row n, which must lie in the bucket.
func (g *generator) Row(b *Bucket, n int64) Row {
	g.random = random(mix(g.seed+1) ^ mix(uint64(n)+0x632be59bd9b4e019))
	tagCount, attributeCount, renditionCount, relatedCount, regionCount := g.below(5), g.below(4), g.below(3),
		g.below(2), 1+g.below(3)
	all := make([]record.Value, numFields+tagCount+2*attributeCount+5*renditionCount+4*relatedCount+4+regionCount+3+4)
	g.row, g.parts = all[:numFields:numFields], all[numFields:]
	g.buf, g.marks = g.buf[:0], g.marks[:0]

	ticks := b.start.Unix()*1e7 + int64(g.next()%uint64(b.ticks))
	v := g.row
	v[assetType], v[bucket] = record.String(b.AssetType), record.String(b.Bucket)
	g.timeUUID(&v[id], ticks, n)
	v[createdAt] = record.Number(record.Timestamp, ticks/1e4)
	malformed := g.texts(v, n)
	g.numbers(v)
	g.collections(v, n, tagCount, attributeCount, renditionCount, relatedCount, regionCount)
	if b.AssetType == "audio" || b.AssetType == "video" {
		v[playTime] = record.Span(0, int32(g.below(2)), int64(g.below(7_200_000))*1e6)
	}

	s := string(g.buf)
	for _, m := range g.marks {
		if m.kind == record.Decimal {
			*m.value = record.Dec(s[m.from:m.end], 2)
		} else {
			*m.value = record.Bytes(m.kind, s[m.from:m.end])
		}
	}
	for i := title; i < numFields; i++ {
		if i == payload || i == schemaVersion || i == createdAt {
			continue
		}
		switch g.below(100) {
		case 0:
			v[i] = record.NullValue
		case 1, 2:
			v[i] = record.Value{}
		}
	}

	// Written within a month of its creation, to the microsecond.
	r := &record.Record{Schema: g.schema, Values: v, Version: ticks/10 + int64(g.next()%(30*86400e6))}
	if g.oneIn(oneExpiring) {
		r.Expires = g.expires + int64(g.below(365*86400))
	}
	row := Row{Record: r, Malformed: malformed}
	if g.oneIn(oneDeleted) {
		row.Deletion = &record.Record{Schema: g.schema, Op: record.Delete, Values: make([]record.Value, numFields),
			Version: r.Version + 1 + int64(g.next()%(10*86400e6))}
		copy(row.Deletion.Values, v[:title])
	}
	return row
}

// gregorian is the start of a timeuuid's clock, in ticks of 100 ns before 1970.
const gregorian = 0x01B21DD213814000

// timeUUID has the row's number as its node, so that no two are the same.
func (g *generator) timeUUID(v *record.Value, ticks, n int64) {
	from := len(g.buf)
	t := uint64(ticks + gregorian)
	g.buf = binary.BigEndian.AppendUint32(g.buf, uint32(t))
	g.buf = binary.BigEndian.AppendUint16(g.buf, uint16(t>>32))
	g.buf = binary.BigEndian.AppendUint16(g.buf, uint16(t>>48)&0x0fff|0x1000)
	g.buf = append(g.buf, 0x80, byte(g.seed), 0x01) // the multicast bit: no address of a machine
	g.buf = append(g.buf, byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	g.put(v, record.TimeUUID, from)
}

// rowNumber is the number of the row that has the id.
func rowNumber(timeUUID string) (n int64) {
	for _, c := range []byte(timeUUID[11:]) {
		n = n<<8 | int64(c)
	}
	return n
}

func (g *generator) uuid(v *record.Value) {
	from := len(g.buf)
	g.buf = binary.BigEndian.AppendUint64(g.buf, g.next())
	g.buf = binary.BigEndian.AppendUint64(g.buf, g.next())
	g.buf[from+6] = g.buf[from+6]&0x0f | 0x40
	g.buf[from+8] = g.buf[from+8]&0x3f | 0x80
	g.put(v, record.UUID, from)
}

// integer puts n in the fewest bytes of two's complement.
func (g *generator) integer(v *record.Value, kind record.Kind, n int64) {
	from, length := len(g.buf), 1
	for rest := n; rest > math.MaxInt8 || rest < math.MinInt8; rest >>= 8 {
		length++
	}
	for i := length - 1; i >= 0; i-- {
		g.buf = append(g.buf, byte(n>>(8*i)))
	}
	g.put(v, kind, from)
}

// texts makes title, description and payload.
func (g *generator) texts(v []record.Value, n int64) (malformed bool) {
	from := len(g.buf)
	if !g.oneIn(100) {
		g.buf = append(g.buf, adjectives[g.below(len(adjectives))]...)
		g.buf = append(g.buf, ' ')
		g.buf = append(g.buf, nouns[g.below(len(nouns))]...)
		g.buf = append(g.buf, ' ')
		g.buf = strconv.AppendInt(g.buf, n, 10)
	}
	g.put(&v[title], record.Text, from)

	if g.oneIn(oneHuge) {
		size := hugeLeast + g.below(hugeMost-hugeLeast)
		v[description] = record.String(g.long()[:size-size%len(paragraph)])
	} else {
		from = len(g.buf)
		for range g.below(3) {
			g.buf = append(g.buf, sentences[g.below(len(sentences))]...)
		}
		g.put(&v[description], record.Text, from)
	}

	version := 3
	switch g.below(20) {
	case 0, 1, 2:
		version = 1
	case 3, 4, 5, 6, 7:
		version = 2
	}
	v[schemaVersion] = record.Number(record.TinyInt, int64(version))
	width, height, format := int64(320+g.below(4000)), int64(240+g.below(3000)), formats[g.below(len(formats))]
	from = len(g.buf)
	number := func(before string, n int64) {
		g.buf = strconv.AppendInt(append(g.buf, before...), n, 10)
	}
	switch version {
	case 1:
		number(`{"w":`, width)
		number(`,"h":`, height)
	case 2:
		number(`{"width":`, width)
		number(`,"height":`, height)
		g.buf = append(append(append(g.buf, `,"format":"`...), format...), '"')
	default:
		number(`{"dimensions":{"width":`, width)
		number(`,"height":`, height)
		g.buf = append(append(append(g.buf, `},"format":"`...), format...), `","colours":["#ff8800","#0a0b0c"]`...)
	}
	g.buf = append(g.buf, '}')
	if malformed = g.oneIn(oneMalformed); malformed {
		g.buf = g.buf[:len(g.buf)-1-g.below(len(g.buf)-from-1)]
	}
	g.put(&v[payload], record.Text, from)
	return malformed
}

// numbers makes everything that is neither text nor nested.
func (g *generator) numbers(v []record.Value) {
	v[published] = record.Bool(g.below(3) > 0)
	v[priority] = record.Number(record.SmallInt, int64(g.below(10)))
	v[views] = record.Number(record.Int, int64(g.below(1_000_000)))
	v[size] = record.Number(record.BigInt, int64(g.next()>>34))
	if g.oneIn(oneExtreme) {
		v[priority], v[views], v[size] = record.Number(record.SmallInt, math.MinInt16),
			record.Number(record.Int, math.MaxInt32), record.Number(record.BigInt, math.MinInt64)
	}
	g.integer(&v[checksum], record.Varint, int64(g.next()))
	g.integer(&v[price], record.Decimal, int64(g.below(100_000))-1000)
	v[score] = record.Float32(float32(g.below(1000)) / 10)
	v[rating] = record.Float64(float64(g.below(1_000_000)) / 7)
	from := len(g.buf)
	for range g.below(4) {
		g.buf = binary.BigEndian.AppendUint64(g.buf, g.next())
	}
	g.put(&v[thumbnail], record.Blob, from)
	g.uuid(&v[owner])
	from = len(g.buf)
	if g.oneIn(10) {
		g.buf = binary.BigEndian.AppendUint64(append(g.buf, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0), g.next())
	} else {
		g.buf = append(g.buf, 10, byte(g.below(256)), byte(g.below(256)), byte(g.below(256)))
	}
	g.put(&v[uploadedFrom], record.Inet, from)
	v[shotOn] = record.Number(record.Date, int64(g.below(30_000))-10_000) // from 1942 on
	v[shotAt] = record.Number(record.Time, int64(g.below(86_400_000))*1e6)
}

// collections makes the nested values.
func (g *generator) collections(v []record.Value, n int64, tagCount, attributeCount, renditionCount, relatedCount,
	regionCount int) {
	g.pick(g.nest(&v[tags], record.Set, tagCount), 1, sortedTags[:])
	pairs := g.nest(&v[attributes], record.Map, 2*attributeCount)
	g.pick(pairs, 2, sortedAttributes[:])
	for i := range attributeCount {
		pairs[2*i+1] = record.String(attributeValues[g.below(len(attributeValues))])
	}
	list := g.nest(&v[renditions], record.List, renditionCount)
	for i := range list {
		part := g.nest(&list[i], record.UDT, 4)
		part[0] = record.String(renditionNames[i])
		part[1], part[2] = record.Number(record.Int, int64(160<<i)), record.Number(record.Int, int64(90<<i))
		from := len(g.buf)
		g.buf = strconv.AppendInt(append(g.buf, "https://cdn.example/"...), n, 10)
		g.buf = append(append(g.buf, '/'), renditionNames[i]...)
		g.put(&part[3], record.Text, from)
	}
	others := g.nest(&v[related], record.Map, 2*relatedCount)
	for i := range relatedCount {
		others[2*i] = record.String("sequel")
		ids := g.nest(&others[2*i+1], record.List, 2)
		g.uuid(&ids[0])
		g.uuid(&ids[1])
	}
	part := g.nest(&v[rights], record.UDT, 4)
	part[0], part[1] = record.String(licences[g.below(len(licences))]), record.NullValue
	if !g.oneIn(10) {
		part[1] = record.String(holders[g.below(len(holders))])
	}
	const middle = 20_454 // 2026-01-01: about half have expired
	part[2] = record.Number(record.Date, int64(middle-2000+g.below(4000)))
	g.pick(g.nest(&part[3], record.Set, regionCount), 1, sortedRegions[:])
	point := g.nest(&v[place], record.Tuple, 3)
	point[0], point[1] = record.Float64(float64(g.below(180_000))/1000-90),
		record.Float64(float64(g.below(360_000))/1000-180)
	point[2] = record.String(places[g.below(len(places))])
	vector := g.nest(&v[embeddings], record.Vector, 4)
	for i := range vector {
		vector[i] = record.Float32(float32(g.below(2000))/1000 - 1)
	}
}

// pick fills every step-th value with different words, in their order.
func (g *generator) pick(to []record.Value, step int, words []string) {
	left := len(to) / step
	for i, next := 0, 0; left > 0; i++ {
		if g.below(len(words)-i) < left {
			to[next] = record.String(words[i])
			next += step
			left--
		}
	}
}
