package cassandraio

import (
	"context"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var _ connector.Locator = (*Source)(nil)

// Locate implements connector.Locator.
func (s *Source) Locate(ctx context.Context, key *record.Record) ([]connector.Split, error) {
	o, err := s.open(ctx, 0)
	if err != nil {
		return nil, err
	}
	t := o.table
	var raw [][]byte
	for _, c := range t.keysOnly().columns {
		data, err := appendValue([]byte{}, c.typ, key.Get(c.name))
		if err != nil {
			return nil, fail.Job("cassandra.bad_key", "key column %q: %w", c.name, err)
		}
		raw = append(raw, data)
	}
	of, row := raw[:len(t.partition)], raw[len(t.partition):]
	at := connector.Split{Partition: plan.RingName}
	switch token := plan.Token(plan.SerializeKey(of)); {
	case o.config.Buckets != nil:
		values := make([]record.Value, len(of))
		for i, c := range t.partition {
			values[i] = key.Get(c.name)
		}
		at.Partition, at.End = t.partitionName(values), onlyRow
		if len(row) > 0 {
			at.End, err = t.order.Append(nil, row)
		}
	case !o.exact: // pages end behind all partitions of a token
		at.End = append(plan.AppendToken(nil, token), plan.RingRow)
	default:
		at.End, err = t.order.AppendRingRow(nil, token, of, row)
	}
	if err != nil {
		return nil, err
	}
	return []connector.Split{at}, nil
}
