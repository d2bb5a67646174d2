// Package advise turns what a sample of documents weighs into advice on indices, shards and routing.
//
// The aims are Elasticsearch's own for searches: shards of 10 to 50 GB, of at most 200 million documents; few small
// ones, since each costs memory of the nodes and of the cluster's state.
package advise

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"unicode/utf16"

	"reprise/io/connector"
)

const (
	aim   = 30 << 30 // bytes of a shard
	most  = 50 << 30
	small = 1 << 30
	many  = 200_000_000 // documents of a shard
	skew  = 1.5         // of the largest shard against the mean
)

// Document is one document of the sample, with how many it stands for.
type Document struct {
	Index   string
	Routing string // "": its id
	Weight  float64
}

// Index is the advice on one index.
type Index struct {
	Name      string   `json:"name"`
	Documents int64    `json:"documents"` // about
	Bytes     int64    `json:"bytes"`     // of one copy, about
	Shards    int      `json:"shards"`
	Largest   int64    `json:"largest"` // bytes of the largest shard, about
	Reasons   []string `json:"reasons"`
}

// Indices gives advice on each index, the largest first, from a sample and the bytes that a document takes on disk.
// shards are those that the job asks for; 0: it does not say.
func Indices(sample []Document, perDocument float64, shards int) (all []Index, general []string) {
	type group struct {
		documents float64
		routing   map[string]float64
	}
	groups := map[string]*group{}
	for _, d := range sample {
		g := groups[d.Index]
		if g == nil {
			g = &group{routing: map[string]float64{}}
			groups[d.Index] = g
		}
		g.documents += d.Weight
		if d.Routing != "" {
			g.routing[d.Routing] += d.Weight
		}
	}
	tiny := 0
	for name, g := range groups {
		i := Index{Name: name, Documents: int64(g.documents), Bytes: int64(g.documents * perDocument)}
		i.Shards = int(max(1, (i.Bytes+aim-1)/aim, (i.Documents+many-1)/many))
		switch {
		case (i.Documents+many-1)/many > (i.Bytes+aim-1)/aim && i.Shards > 1:
			i.because("%d shards, so that none has more than %d million documents", i.Shards, many/1_000_000)
		case i.Shards > 1:
			i.because("%d shards of about %s: between 10 and 50 GB", i.Shards,
				connector.HumanBytes(i.Bytes/int64(i.Shards)))
		default:
			i.because("one shard holds %s", connector.HumanBytes(i.Bytes))
		}
		i.Largest = i.Bytes / int64(i.Shards)
		if len(g.routing) > 0 {
			i.Largest = int64(largest(g.routing, i.Shards) * perDocument)
			top := slices.MaxFunc(slices.Sorted(maps.Keys(g.routing)),
				func(a, b string) int { return cmp.Compare(g.routing[a], g.routing[b]) })
			share := g.routing[top] / g.documents
			switch {
			case i.Shards > 1 && float64(i.Largest) > skew*float64(i.Bytes)/float64(i.Shards):
				i.because("routing is uneven: the largest shard gets %.1f times the mean, %s; the value %q alone has "+
					"%.0f %% of the documents", float64(i.Largest)/(float64(i.Bytes)/float64(i.Shards)),
					connector.HumanBytes(i.Largest), top, 100*share)
				if i.Largest > most {
					i.because("that is more than 50 GB: set index.routing_partition_size, or route by a field with " +
						"more values")
				}
			default:
				i.because("routing is even enough: the value with most documents has %.0f %%", 100*share)
			}
		}
		if shards > 0 && shards != i.Shards {
			i.because("the job asks for %d shards, of about %s each", shards,
				connector.HumanBytes(i.Bytes/int64(shards)))
		}
		if i.Bytes < small {
			tiny++
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b Index) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name))
	})
	if len(all) > 1 {
		general = append(general, "indices that no record of the sample goes to are not listed")
		if tiny > 1 {
			general = append(general, fmt.Sprintf("%d of %d indices are below 1 GB: name them by a coarser time or "+
				"put small types together", tiny, len(all)))
		}
		if sizes := all[0].Bytes / max(1, all[len(all)-1].Bytes); sizes > 20 {
			general = append(general, "the largest index is more than 20 times the smallest: give it shards of its "+
				"own number, by an index template or a job of its own")
		}
	}
	return all, general
}

func (i *Index) because(format string, args ...any) {
	i.Reasons = append(i.Reasons, fmt.Sprintf(format, args...))
}

// largest is the weight of the largest shard, as Elasticsearch spreads routing values.
func largest(routing map[string]float64, shards int) float64 {
	of := make([]float64, shards)
	for value, weight := range routing {
		of[Shard(value, shards)] += weight
	}
	return slices.Max(of)
}

// Shard is the shard that Elasticsearch puts a routing value in, in an index with the default number of routing shards.
func Shard(routing string, shards int) int {
	slots := shards
	for shards > 1 && slots*2 <= 1024 {
		slots *= 2
	}
	if shards == 1 {
		return 0
	}
	hash := int64(int32(murmur3(routing)))
	slot := ((hash % int64(slots)) + int64(slots)) % int64(slots)
	return int(slot) / (slots / shards)
}

// murmur3 is MurmurHash3 (x86, 32 bits, seed 0) of a text in UTF-16, little endian.
func murmur3(text string) uint32 {
	var data []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		data = append(data, byte(unit), byte(unit>>8))
	}
	const c1, c2 = 0xcc9e2d51, 0x1b873593
	rotate := func(x uint32, by int) uint32 { return x<<by | x>>(32-by) }
	h, n := uint32(0), len(data)
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		h = rotate(h^rotate(k*c1, 15)*c2, 13)*5 + 0xe6546b64
	}
	if len(data) > 0 { // two bytes
		h ^= rotate((uint32(data[0])|uint32(data[1])<<8)*c1, 15) * c2
	}
	h ^= uint32(n)
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}
