package transforms_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func Example_redact() {
	show("redact")
	// Output:
	//   redact: {fields: [owner_email], with: mask, keep_last: 4}
	//
	//   {"id": "a", "owner_email": "ada@example.org"}
	//     owner_email: "ada@example.org" → "****.org"
}

func TestRedact(t *testing.T) {
	fields := []string{"id text", "s text", "n int", "l list<text>"}
	runTests(t, []test{
		{"remove", `- redact: {fields: [s, n, l], with: remove}`, fields, `{"id":"k","s":"x","n":1,"l":["a"]}`,
			[]string{`k {"id":"k","s":null,"n":null,"l":null}`}},
		{"mask", `- redact: {fields: [s], with: mask}`, fields, `{"id":"k","s":"secret"}`,
			[]string{`k {"id":"k","s":"****"}`}},
		{"mask keeps the last", `- redact: {fields: [s], with: mask, keep_last: 2}`, fields, `{"id":"k","s":"secräß"}`,
			[]string{`k {"id":"k","s":"****äß"}`}},
		{"too short to keep any", `- redact: {fields: [s], with: mask, keep_last: 3}`, fields,
			`{"id":"k","s":"12345678"}`, []string{`k {"id":"k","s":"****"}`}},
		{"null", `- redact: {fields: [s], with: mask}`, fields, `{"id":"k","s":null}`,
			[]string{`k {"id":"k","s":null}`}},
	})
}

func TestRedactHash(t *testing.T) {
	t.Setenv("REDACT_TEST_KEY", "sesame")
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte("sesame"))
	mac.Write([]byte("ada"))
	sum := hex.EncodeToString(mac.Sum(nil))
	in := schema(t, "id text", "s text", "u uuid", "b blob")
	for _, secret := range []string{"env:REDACT_TEST_KEY", "file:" + file} {
		chain := compile(t, in, fmt.Sprintf(`- redact: {fields: [id, s, u, b], with: hash, secret: %q}`, secret))
		for range 2 { // the same every time
			r := fromJSON(t, in, `{"id":"ada","s":"ada","u":"123e4567-e89b-42d3-a456-426614174000","b":"YWRh"}`)
			chain.Apply(r, func(out *record.Record) {
				if out.KeyText() != sum || out.Get("s").Str() != sum {
					t.Errorf("%s: got %s and %s, want %s", secret, out.KeyText(), out.Get("s").Str(), sum)
				}
				if got := hex.EncodeToString([]byte(out.Get("b").Str())); got != sum {
					t.Errorf("%s: blob %s, want %s", secret, got, sum)
				}
				if u := out.Get("u").Text(record.Of(record.UUID)); u[14] != '8' || strings.HasPrefix(u, "123e4567") {
					t.Errorf("%s: uuid %s", secret, u)
				}
			}, func(_ *record.Record, _ string, err error) { t.Error(err) })
		}
	}
}

// A secret that is not there stops the run, where it is first needed and not where the job is checked. Its name is
// told, nothing else.
func TestRedactSecretMissing(t *testing.T) {
	in := schema(t, "id text", "s text")
	chain := compile(t, in, `- redact: {fields: [s], with: hash, secret: "env:REDACT_TEST_NOT_SET"}`)
	dead := 0
	chain.Apply(fromJSON(t, in, `{"id":"k","s":"x"}`), func(*record.Record) { t.Error("the record went on") },
		func(r *record.Record, _ string, err error) {
			dead++
			if fail.ClassOf(err) != fail.Fatal || fail.CodeOf(err) != "transform.secret" ||
				!strings.Contains(err.Error(), "REDACT_TEST_NOT_SET") {
				t.Errorf("got %v of class %s", err, fail.ClassOf(err))
			}
		})
	if dead != 1 {
		t.Errorf("%d errors", dead)
	}
}

func TestSecretNeverShown(t *testing.T) {
	in := schema(t, "id text", "s text")
	_, err := transforms.Compile(specs(t, `- redact: {fields: [s], with: hash, secret: hunter2}`), in, now)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
