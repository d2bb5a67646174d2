package iotest

import (
	"bytes"
	"testing"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// Places checks that each row which a source could not decode can be read again: by its key, or at its place, where it
// stands alone.
func Places(t testing.TB, source connector.Source, dead []*record.DeadLetter) {
	t.Helper()
	for _, l := range dead {
		if l.Record != nil {
			if _, ok := source.(connector.Finder); !ok || l.Place != nil {
				t.Errorf("a row is to be found by its key %s, which the source cannot", l.Record.KeyText())
			}
			continue
		}
		if l.Place == nil {
			t.Errorf("nothing tells where the row is: %s", l.Message)
			continue
		}
		var again []*record.DeadLetter
		rows := int64(0)
		err := source.Read(t.Context(), connector.Split{Partition: l.Place.Partition, Start: l.Place.Start,
			End: l.Place.End}, func(p connector.Page) error {
			again, rows = append(again, p.Dead...), rows+p.Rows()
			return nil
		})
		if err != nil || rows != 1 || len(again) != 1 || again[0].Code != l.Code || !bytes.Equal(again[0].Raw, l.Raw) ||
			again[0].Place.String() != l.Place.String() {
			t.Errorf("%s: at its place %s there are %d rows, %+v (%v)", l.Message, l.Place, rows, again, err)
		}
	}
}
