package connector

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/invopop/jsonschema"

	"reprise/transforms/fail"
	"reprise/transforms/record"
	"reprise/transforms/secret"
)

// Fault is something wrong in a job file.
type Fault struct {
	Path    string // within the settings, as in "buckets.range.from"
	Message string // what is wrong and what would be right
	Secret  bool   // what stands there may be a secret: it is not shown
}

// Faultf is a Fault with a formatted message.
func Faultf(path, format string, args ...any) Fault {
	return Fault{Path: path, Message: fmt.Sprintf(format, args...)}
}

// Misplaced is an error of the job at a place that only the system shows to be wrong, such as a bound that a column
// does not take.
type Misplaced struct {
	Fault Fault // by the whole path, as in "source.cassandra.ids.from"
	Err   *fail.Error
}

// Error implements error.
func (m *Misplaced) Error() string { return m.Err.Error() }

// Unwrap is the error without its place.
func (m *Misplaced) Unwrap() error { return m.Err }

// Misplaced tells what is wrong at a path of the source's settings.
func (n Need) Misplaced(code, path, format string, args ...any) error {
	f := Faultf(n.At+"."+path, format, args...)
	return &Misplaced{Fault: f, Err: fail.Job(code, "%s: %s", path, f.Message)}
}

// Time is a time in a job file, in one of the forms of record.ParseTime.
type Time struct{ time.Time }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(text []byte) (err error) {
	t.Time, err = record.ParseTime(string(text))
	return err
}

// UnmarshalJSON stands in front of that of time.Time, which takes fewer forms.
func (t *Time) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	return t.UnmarshalText([]byte(s))
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Time) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Examples: []any{"2026-05-01", "2026-05-01T12:00:00Z"},
		Description: "A time, such as 2026-05-01T12:00:00Z; without a zone it is UTC, and a date is its beginning."}
}

// Secret refers to a secret.
type Secret = secret.Secret

// Duration is a time span written as "1.5s", "200ms", "2m".
type Duration time.Duration

// Std is the standard library's form.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Or is d, or a default where d is 0.
func (d Duration) Or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = fmt.Errorf("%s is negative", text)
	}
	*d = Duration(v)
	return err
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Duration) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`,
		Examples: []any{"200ms", "30s", "2h"}, Description: "A time span, such as 200ms, 30s or 2h."}
}

// Bytes is a number of bytes written as "64MiB", "1GiB", "500KiB" or a plain number.
type Bytes int64

var bytesForm = regexp.MustCompile(`^([0-9]+)\s*(B|KiB|MiB|GiB|TiB)?$`)

var byteUnits = map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// Or is b, or a default where b is 0.
func (b Bytes) Or(def int64) int64 {
	if b == 0 {
		return def
	}
	return int64(b)
}

// String writes whole units: "64MiB".
func (b Bytes) String() string {
	for _, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if n := byteUnits[u]; b != 0 && int64(b)%n == 0 {
			return strconv.FormatInt(int64(b)/n, 10) + u
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	m := bytesForm.FindStringSubmatch(string(text))
	if m == nil {
		return fmt.Errorf("%q is not a number of bytes such as 64MiB", text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	unit := byteUnits[m[2]]
	if err != nil || n > math.MaxInt64/unit {
		return fmt.Errorf("%q are too many bytes", text)
	}
	*b = Bytes(n * unit)
	return nil
}

// UnmarshalJSON also takes plain numbers.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) != nil {
		s = string(text)
	}
	return b.UnmarshalText([]byte(s))
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Bytes) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string", Pattern: bytesForm.String()},
		{Type: "integer", Minimum: "0"}},
		Examples: []any{"64MiB"}, Description: "A number of bytes, such as 64MiB."}
}

// TLS are the settings of an encrypted connection.
type TLS struct {
	CA         string `json:"ca,omitempty" jsonschema_description:"File (PEM) with the certificates to check the server's against; default: the system's."`
	Cert       string `json:"cert,omitempty" jsonschema_description:"File with the client's certificate (PEM)."`
	Key        Secret `json:"key,omitempty" jsonschema_description:"The client's private key (PEM): file:PATH or env:NAME."`
	ServerName string `json:"server_name,omitempty" jsonschema_description:"The name that the server's certificate must have; default: the host's."`
	Insecure   bool   `json:"insecure,omitempty" jsonschema_description:"Do not check the server's certificate. Only for tests."`
}

// HumanBytes writes a number of bytes for a person: "1.4 GiB".
func HumanBytes(n int64) string {
	value, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, u
	}
	if unit == "B" {
		return strconv.FormatInt(n, 10) + " B"
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + unit
}
