package transforms

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"unicode/utf8"

	"reprise/transforms/fail"
	"reprise/transforms/record"
	"reprise/transforms/secret"
)

// RedactConfig names fields whose content must not go on.
type RedactConfig struct {
	Fields   []string      `json:"fields" jsonschema:"required,minItems=1" jsonschema_description:"The fields."`
	With     string        `json:"with" jsonschema:"required,enum=remove,enum=mask,enum=hash" jsonschema_description:"remove: null. mask: ****, however long the text was. hash: HMAC-SHA256 with a secret, so that equal values stay equal and nobody without the secret can try values out (text: 64 hex digits, blob: 32 bytes, uuid: a UUID of version 8)."`
	KeepLast int           `json:"keep_last,omitempty" jsonschema:"minimum=0,maximum=16" jsonschema_description:"mask: this many characters at the end stay, if the text is at least three times as long. Default: 0."`
	Secret   secret.Secret `json:"secret,omitempty" jsonschema_description:"hash: the secret, env:NAME or file:PATH. The same secret gives the same hashes in every run."`
}

var redact = builtin(Transform{
	Name:    "redact",
	Summary: "Removes, masks or hashes the content of fields. Hashed fields may be part of the key.",
	Config:  new(RedactConfig),
	Example: Example{
		Config:  "redact: {fields: [owner_email], with: mask, keep_last: 4}",
		Fields:  []string{"id text", "owner_email text"},
		Records: []string{`{"id": "a", "owner_email": "ada@example.org"}`},
	},
	Compile: compileWith(compileRedact),
})

func compileRedact(c RedactConfig, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	var f faults
	places := f.fields(in, "fields", c.Fields)
	allowed := map[string][]record.Kind{"mask": {record.Text}, "hash": {record.Text, record.Blob, record.UUID}}[c.With]
	for _, p := range places {
		field := in.Fields[p]
		switch {
		case c.With != "hash" && slices.Contains(in.Key, p):
			f.addf("fields", "%q is part of the key, where different records would become one; hash it", field.Name)
		case c.With != "remove" && len(allowed) > 0 && !slices.Contains(allowed, field.Type.Kind):
			f.addf("fields", "%q is a %s, but %s needs one of %v; cast or flatten it first, or remove it", field.Name,
				field.Type, c.With, allowed)
		}
	}
	switch c.With {
	case "remove", "mask", "hash":
	default:
		f.addf("with", "%q is none of remove, mask and hash", c.With)
	}
	if c.With == "hash" && !c.Secret.Valid() {
		f.addf("secret", "hash needs a secret as env:NAME or file:PATH")
	}
	if c.With != "hash" && c.Secret != "" {
		f.addf("secret", "only hash takes a secret")
	}
	if c.KeepLast != 0 && c.With != "mask" || c.KeepLast < 0 {
		f.addf("keep_last", "only mask keeps characters, 0 or more")
	}
	s := &redactStep{places: places, values: make([]record.Value, len(places)), config: c}
	return Each(s.apply), in, f.err()
}

type redactStep struct {
	config RedactConfig
	places []int
	mac    hash.Hash
	values []record.Value // reused
}

func (s *redactStep) apply(r *record.Record) error {
	for i, p := range s.places {
		v := r.Values[p]
		if !v.IsNull() {
			var err error
			if v, err = s.redacted(v); err != nil {
				return err
			}
		}
		s.values[i] = v
	}
	for i, p := range s.places {
		r.Values[p] = s.values[i]
	}
	return nil
}

func (s *redactStep) redacted(v record.Value) (record.Value, error) {
	switch s.config.With {
	case "remove":
		return record.NullValue, nil
	case "mask":
		return record.String(mask(v.Str(), s.config.KeepLast)), nil
	}
	if s.mac == nil {
		key, err := s.config.Secret.Resolve()
		if err == nil && key == "" { // whose hashes anybody could make
			err = fmt.Errorf("the secret %s is empty", s.config.Secret)
		}
		if err != nil {
			return v, fail.Job("transform.secret", "redact: %w", err).WithFix("set it on every worker")
		}
		s.mac = hmac.New(sha256.New, []byte(key))
	}
	s.mac.Reset()
	s.mac.Write([]byte(v.Str()))
	sum := s.mac.Sum(nil)
	switch v.Kind() {
	case record.Blob:
		return record.Bytes(record.Blob, string(sum)), nil
	case record.UUID:
		u := sum[:16]
		u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // version 8, variant of RFC 9562
		return record.Bytes(record.UUID, string(u)), nil
	case record.Text:
		return record.String(hex.EncodeToString(sum)), nil
	}
	return v, fmt.Errorf("a %s cannot be hashed", v.Kind())
}

// mask keeps the last characters of a text that is at least three times as long.
func mask(s string, last int) string {
	const stars = "****"
	if utf8.RuneCountInString(s) < 3*last {
		return stars
	}
	from := len(s)
	for range last {
		_, n := utf8.DecodeLastRuneInString(s[:from])
		from -= n
	}
	return stars + s[from:]
}
