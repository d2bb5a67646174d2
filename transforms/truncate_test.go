package transforms_test

import "testing"

func Example_truncate() {
	show("truncate")
	// Output:
	//   truncate: {fields: [title], chars: 6}
	//
	//   {"id": "a", "title": "Sunset over Oslo"}
	//     title: "Sunset over Oslo" → "Sunset"
	//
	//   {"id": "b", "title": "Dawn"}
	//     unchanged
}

func TestTruncate(t *testing.T) {
	text, blob := []string{"id text", "s text"}, []string{"id text", "b blob"}
	runTests(t, []test{
		{"chars", `- truncate: {fields: [s], chars: 3}`, text, `{"id":"k","s":"äöüß"}`,
			[]string{`k {"id":"k","s":"äöü"}`}},
		{"just as long", `- truncate: {fields: [s], chars: 4}`, text, `{"id":"k","s":"äöüß"}`,
			[]string{`k {"id":"k","s":"äöüß"}`}},
		{"bytes", `- truncate: {fields: [s], bytes: 5}`, text, `{"id":"k","s":"äöüß"}`,
			[]string{`k {"id":"k","s":"äö"}`}},
		{"bytes within the first", `- truncate: {fields: [s], bytes: 1}`, text, `{"id":"k","s":"äöüß"}`,
			[]string{`k {"id":"k","s":""}`}},
		{"both", `- truncate: {fields: [s], bytes: 6, chars: 2}`, text, `{"id":"k","s":"äöüß"}`,
			[]string{`k {"id":"k","s":"äö"}`}},
		{"null", `- truncate: {fields: [s], chars: 1}`, text, `{"id":"k","s":null}`, []string{`k {"id":"k","s":null}`}},
		{"blob", `- truncate: {fields: [b], bytes: 2}`, blob, `{"id":"k","b":"AAECAw=="}`,
			[]string{`k {"id":"k","b":"AAE="}`}},
	})
}
