package corpusio

import "reprise/transforms/record"

func frozen(t record.Type) record.Type {
	t.Frozen = true
	return t
}

// Schema is that of the table assets in testdata/corpus.cql.
func Schema() *record.Schema {
	of := record.Of
	text := of(record.Text)
	rendition := frozen(record.UDTOf("rendition",
		record.Field{Name: "name", Type: text},
		record.Field{Name: "width", Type: of(record.Int)},
		record.Field{Name: "height", Type: of(record.Int)},
		record.Field{Name: "url", Type: text}))
	licence := frozen(record.UDTOf("licence",
		record.Field{Name: "name", Type: text},
		record.Field{Name: "holder", Type: text},
		record.Field{Name: "expires", Type: of(record.Date)},
		record.Field{Name: "regions", Type: frozen(record.SetOf(text))}))
	embedding := record.Type{Kind: record.Vector, Elems: []record.Type{of(record.Float)}, Dim: 4}
	fields := [...]record.Field{
		assetType:     {Name: "asset_type", Type: text},
		bucket:        {Name: "bucket", Type: text},
		id:            {Name: "id", Type: of(record.TimeUUID)},
		title:         {Name: "title", Type: text},
		description:   {Name: "description", Type: text},
		payload:       {Name: "payload", Type: text},
		schemaVersion: {Name: "schema_version", Type: of(record.TinyInt)},
		published:     {Name: "published", Type: of(record.Boolean)},
		priority:      {Name: "priority", Type: of(record.SmallInt)},
		views:         {Name: "views", Type: of(record.Int)},
		size:          {Name: "size", Type: of(record.BigInt)},
		checksum:      {Name: "checksum", Type: of(record.Varint)},
		price:         {Name: "price", Type: of(record.Decimal)},
		score:         {Name: "score", Type: of(record.Float)},
		rating:        {Name: "rating", Type: of(record.Double)},
		thumbnail:     {Name: "thumbnail", Type: of(record.Blob)},
		owner:         {Name: "owner", Type: of(record.UUID)},
		uploadedFrom:  {Name: "uploaded_from", Type: of(record.Inet)},
		createdAt:     {Name: "created_at", Type: of(record.Timestamp)},
		shotOn:        {Name: "shot_on", Type: of(record.Date)},
		shotAt:        {Name: "shot_at", Type: of(record.Time)},
		playTime:      {Name: "play_time", Type: of(record.Duration)},
		tags:          {Name: "tags", Type: record.SetOf(text)},
		attributes:    {Name: "attributes", Type: record.MapOf(text, text)},
		renditions:    {Name: "renditions", Type: frozen(record.ListOf(rendition))},
		related:       {Name: "related", Type: record.MapOf(text, frozen(record.ListOf(of(record.UUID))))},
		rights:        {Name: "licence", Type: licence},
		place:         {Name: "place", Type: frozen(record.TupleOf(of(record.Double), of(record.Double), text))},
		embeddings:    {Name: "embedding", Type: embedding},
	}
	return record.MustSchema(fields[:], "asset_type", "bucket", "id")
}

// The places of the fields.
const (
	assetType = iota
	bucket
	id
	title
	description
	payload
	schemaVersion
	published
	priority
	views
	size
	checksum
	price
	score
	rating
	thumbnail
	owner
	uploadedFrom
	createdAt
	shotOn
	shotAt
	playTime
	tags
	attributes
	renditions
	related
	rights
	place
	embeddings
	numFields
)

// BucketSchema is that of the table asset_buckets in testdata/corpus.cql.
func BucketSchema() *record.Schema {
	text := record.Of(record.Text)
	return record.MustSchema([]record.Field{{Name: "asset_type", Type: text}, {Name: "bucket", Type: text}},
		"asset_type", "bucket")
}
