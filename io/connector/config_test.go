package connector

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("two words\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REPRISE_TEST_SECRET", "swordfish")
	t.Setenv("REPRISE_TEST_EMPTY", "")
	for s, want := range map[Secret]string{"": "", "env:REPRISE_TEST_SECRET": "swordfish", "env:REPRISE_TEST_EMPTY": "",
		Secret("file:" + file): "two words"} {
		if got, err := s.Resolve(); err != nil || got != want {
			t.Errorf("%q gives %q (%v), want %q", s, got, err, want)
		}
	}
	for s, want := range map[Secret]string{"env:REPRISE_TEST_NONE": "REPRISE_TEST_NONE is not set",
		"file:/nowhere/at/all": "/nowhere/at/all", "swordfish": "a secret is env:NAME or file:PATH"} {
		if got, err := s.Resolve(); err == nil || got != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %q (%v), want an error with %q", s, got, err, want)
		}
	}
	if _, err := Secret("swordfish").Resolve(); strings.Contains(err.Error(), "swordfish") {
		t.Errorf("the error tells the secret: %v", err)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"1.5s": 1500 * time.Millisecond, "2m": 2 * time.Minute,
		"1h30m": 90 * time.Minute, "0s": 0} {
		var d Duration
		if err := json.Unmarshal([]byte(`"`+text+`"`), &d); err != nil || d.Std() != want {
			t.Errorf("%s gives %s (%v), want %s", text, d.Std(), err, want)
		}
	}
	for _, text := range []string{`"-1s"`, `"10"`, `""`, `"1 s"`, `"soon"`, `5`} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("%s is accepted as %s", text, d.Std())
		}
	}
	if d := Duration(0).Or(time.Second); d != time.Second {
		t.Errorf("the default of a duration is %s", d)
	}
	if d := Duration(5).Or(time.Second); d != 5 {
		t.Errorf("a duration with a default is %s", d)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{`"64MiB"`: 64 << 20, `"1 GiB"`: 1 << 30, `"500KiB"`: 500 << 10, `"7"`: 7,
		`7`: 7, `"7B"`: 7, `"0"`: 0, `"2TiB"`: 2 << 40,
		`"8388607TiB"`: 8388607 << 40} {
		var b Bytes
		if err := json.Unmarshal([]byte(text), &b); err != nil || b != want {
			t.Errorf("%s gives %d (%v), want %d", text, b, err, want)
		}
	}
	for _, text := range []string{`"8388608TiB"`, `"99999999999999999999"`, `-1`, `1.5`, `"1.5MiB"`, `"64MB"`,
		`"64 mib"`, `""`, `null`, `true`, `"MiB"`} {
		b := Bytes(math.MinInt64)
		if err := json.Unmarshal([]byte(text), &b); err == nil && text != "null" {
			t.Errorf("%s is accepted as %d", text, b)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Range(0, math.MaxInt64).Draw(t, "bytes"))
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		var again Bytes
		if err := json.Unmarshal(text, &again); err != nil || again != b {
			t.Errorf("%d is written as %s and read as %d (%v)", b, text, again, err)
		}
	})
	if b := Bytes(0).Or(5); b != 5 {
		t.Errorf("the default of bytes is %d", b)
	}
}

// What the types take and what their JSON schemas allow is the same.
func TestSchemasOfSettings(t *testing.T) {
	duration := regexp.MustCompile(Duration(0).JSONSchema().Pattern)
	secret := regexp.MustCompile(Secret("").JSONSchema().Pattern)
	for _, text := range []string{"1s", "1.5h", "1h30m", "", "-1s", "10", "1 s"} {
		var d Duration
		if ok := d.UnmarshalText([]byte(text)) == nil; ok != duration.MatchString(text) {
			t.Errorf("duration %q: taken %t, allowed by the schema %t", text, ok, !ok)
		}
	}
	for text, want := range map[string]bool{"env:A_1": true, "file:/a b": true, "env:": false, "env:1A": false,
		"plain": false, "file:": false} {
		if secret.MatchString(text) != want {
			t.Errorf("secret %q: allowed by the schema %t", text, !want)
		}
	}
}

func TestFault(t *testing.T) {
	f := Faultf("buckets.range", "from %d is after to %d", 2, 1)
	if f != (Fault{Path: "buckets.range", Message: "from 2 is after to 1"}) {
		t.Errorf("%+v", f)
	}
}

// A time in a job file is read in all forms of times, and travels.
func TestTimes(t *testing.T) {
	for text, want := range map[string]string{`"2024-05-01"`: `"2024-05-01T00:00:00Z"`,
		`"2024-05-01 14:00+02"`:    `"2024-05-01T12:00:00Z"`,
		`"2024-05-01T12:00:00.5Z"`: `"2024-05-01T12:00:00.5Z"`, `"2024"`: "",
		`2024`: "", `"1714557600000"`: "", `null`: ""} {
		var at Time
		err := json.Unmarshal([]byte(text), &at)
		got, _ := json.Marshal(at)
		if (err == nil) != (want != "") || err == nil && string(got) != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}
