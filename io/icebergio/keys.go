package icebergio

import (
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"reprise/io/icebergio/merge"
	"reprise/transforms/record"
)

// keyBatcher makes keys of records, as they would lie in the table.
type keyBatcher struct{ *batcher }

// keyBatcher gives a batcher of the key's columns alone.
func (l *layout) keyBatcher() *keyBatcher {
	var columns []column
	var fields []arrow.Field
	for _, at := range l.schema.Key {
		i := slices.IndexFunc(l.columns, func(c column) bool { return c.field == at })
		columns, fields = append(columns, l.columns[i]), append(fields, l.arrow.Field(i))
	}
	only := &layout{schema: l.schema, columns: columns, arrow: arrow.NewSchema(fields, nil)}
	return &keyBatcher{only.newBatcher()}
}

// keys are those of some records that fit, and the bounds of the columns, as far as they are known.
func (k *keyBatcher) keys(records []*record.Record) ([]merge.Key, map[string][][]byte, error) {
	batch, err := k.batch(records)
	if err != nil {
		return nil, nil, err
	}
	defer batch.Release()
	keys := make([]merge.Key, len(records))
	var cells []byte
	for i := range keys {
		cells = cells[:0]
		for _, column := range batch.Columns() {
			cells = merge.AppendCell(cells, column, i)
		}
		keys[i] = merge.KeyOf(cells)
	}
	bounds := map[string][][]byte{}
	for i, column := range batch.Columns() {
		if b := merge.ColumnBounds(column); b != nil {
			bounds[batch.ColumnName(i)] = b
		}
	}
	return keys, bounds, nil
}
