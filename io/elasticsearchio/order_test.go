package elasticsearchio

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// value draws the sort value of a field, as JSON and as what compares it.
func value(t *rapid.T, kind orderKind) (string, func(other any) int, any) {
	switch kind {
	case byText:
		v := rapid.StringMatching(`[\x00a-cäß😀]{0,4}`).Draw(t, "text")
		text, _ := json.Marshal(v)
		return string(text), func(o any) int { return cmp.Compare(v, o.(string)) }, v
	case byFloat:
		// Adding 0 leaves no -0.
		v := rapid.OneOf(rapid.Float64Range(-3, 3), rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64)).
			Draw(t, "float") + 0
		text, _ := json.Marshal(v)
		return string(text), func(o any) int { return cmp.Compare(v, o.(float64)) }, v
	case byAddress:
		b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")
		a := netip.AddrFrom4([4]byte(b))
		if rapid.Bool().Draw(t, "v6") {
			a = netip.AddrFrom16([16]byte(append(slices.Repeat(b, 3), b...)))
		}
		whole := a.As16()
		return fmt.Sprintf("%q", a), func(o any) int {
			other := netip.MustParseAddr(o.(string)).As16()
			return bytes.Compare(whole[:], other[:])
		}, a.Unmap().String()
	}
	v := rapid.OneOf(rapid.Int64Range(-3, 3), rapid.Int64()).Draw(t, "integer")
	return fmt.Sprint(v), func(o any) int { return cmp.Compare(v, o.(int64)) }, v
}

// Positions compare as the values do, and give them back.
func TestPositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := rapid.SliceOfN(rapid.SampledFrom([]orderKind{byText, byInteger, byFloat, byDate, byNanos, byAddress}),
			1, 3).Draw(t, "kinds")
		var o order
		var a, b []string
		var left []any
		want := 0
		for _, kind := range kinds {
			o = append(o, orderField{"f", kind})
			x, compare, v := value(t, kind)
			y, _, w := value(t, kind)
			a, b, left = append(a, x), append(b, y), append(left, v)
			want = cmp.Or(want, compare(w))
		}
		p, err := o.position(append(a, "7"))
		if err != nil {
			t.Fatal(err)
		}
		q, err := o.position(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Compare(p, q); got != want {
			t.Errorf("%v and %v: positions %x and %x compare as %d, want %d", a, b, p, q, got, want)
		}
		values, err := o.values(p)
		if err != nil || fmt.Sprint(values) != fmt.Sprint(left) {
			t.Errorf("%x gave %v (%v), want %v", p, values, err, left)
		}
		for n := range p {
			if _, err := o.values(p[:n]); err == nil {
				t.Errorf("%x, cut to %d bytes, is taken for a position", p, n)
			}
		}
	})
}

func TestNewOrder(t *testing.T) {
	var mapping property
	err := json.Unmarshal([]byte(`{"properties":{
		"id":{"type":"text","fields":{"english":{"type":"text"},"keyword":{"type":"keyword","ignore_above":256}}},
		"n":{"type":"long"},"t":{"type":"date"},"body":{"type":"text"},"o":{"properties":{"k":{"type":"keyword"},"a.b":{"type":"ip"}}},
		"stored":{"type":"keyword","doc_values":false},"hidden":{"type":"long","index":false},"many":{"type":"nested","properties":{"k":{"type":"keyword"}}},
		"flag":{"type":"boolean"},"shape":{"type":"geo_point"}}}`), &mapping)
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOrder("i", []string{"id", "n", "t", "o.k", "o.a.b"}, &mapping)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(o),
		fmt.Sprint(order{{"id.keyword", byText}, {"n", byInteger}, {"t", byDate}, {"o.k", byText},
			{"o.a.b", byAddress}}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if o, err := newOrder("i", []string{"id.keyword"}, &mapping); err != nil || o[0].name != "id.keyword" {
		t.Errorf("%v %v", o, err)
	}
	for name, want := range map[string]string{
		"body": "of type text", "o": "of type object", "stored": "no doc values", "hidden": "not indexed",
		"many.k": "nested", "flag": "of type boolean",
		"shape": "of type geo_point", "nothing": "does not have it", "o.x": "does not have it",
		"id.german": "does not have it", "": "of type object",
	} {
		_, err := newOrder("i", []string{name}, &mapping)
		wantError(t, err, "elasticsearch.order", 2, want, "i")
	}
}
