package compose

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/record"
)

// churn is a source around whose requests rows are written.
type churn struct {
	connector.Finder
	write func()
}

func (s churn) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	s.write()
	return s.Finder.Read(ctx, split, func(p connector.Page) error {
		s.write()
		err := page(p)
		s.write()
		return err
	})
}

func (s churn) Find(ctx context.Context, keys []*record.Record, found func(int, connector.Page) error) error {
	s.write()
	return s.Finder.Find(ctx, keys, found)
}

// Whatever is written while a union is read: each key that was there at the beginning comes, in a version that is at
// least the latest of all sources at that moment. Without live writes it comes once.
func TestUnionLosesNothing(t *testing.T) {
	started := time.UnixMicro(iotest.Base).Add(time.Hour)
	rapid.Check(t, func(t *rapid.T) {
		const keys = 8
		n := rapid.IntRange(1, 3).Draw(t, "sources")
		live := rapid.Bool().Draw(t, "live")
		tables := make([]*iotest.Memory, n)
		latest := map[string]int64{}
		clock := started.UnixMicro() - time.Minute.Microseconds() + 1 // of a writer whose clock is behind
		write := func(table *iotest.Memory, key int, version int64) {
			table.Load(iotest.Record(iotest.AssetSchema(), key, version))
		}
		for i := range tables {
			tables[i] = iotest.NewMemory()
			tables[i].PageRows = rapid.IntRange(1, 4).Draw(t, "page")
			for key := range keys {
				if version := int64(rapid.IntRange(0, 3).Draw(t, "version")); version > 0 {
					write(tables[i], key, iotest.Base+version)
					text := iotest.Record(iotest.AssetSchema(), key, 0).KeyText()
					latest[text] = max(latest[text], iotest.Base+version)
				}
			}
		}
		churning := func() {
			for live && rapid.IntRange(0, 3).Draw(t, "write") == 0 {
				clock += int64(rapid.IntRange(0, 1).Draw(t, "tick"))
				write(tables[rapid.IntRange(0, n-1).Draw(t, "table")], rapid.IntRange(0, keys-1).Draw(t, "key"), clock)
			}
		}
		var parts []connector.Source
		for i, table := range tables {
			s := connector.Source(churn{table.Source().(connector.Finder), churning})
			if i == n-1 && rapid.Bool().Draw(t, "the last one finds nothing") {
				s = plain{s}
			}
			parts = append(parts, s)
		}
		_, blind := parts[n-1].(plain)
		u := NewUnion(parts, true, started)
		// The splits are read in any order.
		var splits []connector.Split
		if err := u.Plan(t.Context(), connector.PlanOptions{Rows: 3},
			func(s connector.Split) error { splits = append(splits, s); return nil }); err != nil {
			t.Fatal(err)
		}
		splits = rapid.Permutation(splits).Draw(t, "order")
		got, times := map[string]int64{}, map[string]int{}
		rows := int64(0)
		for _, s := range splits {
			err := u.Read(t.Context(), s, func(p connector.Page) error {
				rows += p.Rows()
				for _, r := range p.Records {
					got[r.KeyText()] = max(got[r.KeyText()], r.Version)
					times[r.KeyText()]++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for key, version := range latest {
			if got[key] < version {
				t.Errorf("%s came with version %d, but was there with %d", key, got[key]-iotest.Base,
					version-iotest.Base)
			}
			if !live && (got[key] != version || times[key] != 1 && !blind) {
				t.Errorf("%s came %d times, at last with version %d, not %d", key, times[key], got[key]-iotest.Base,
					version-iotest.Base)
			}
		}
		if !live {
			want := int64(0)
			for _, table := range tables {
				want += int64(len(table.Rows()))
			}
			if rows != want {
				t.Errorf("%d of %d rows are accounted for", rows, want)
			}
		}
	})
}
