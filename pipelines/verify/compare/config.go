package compare

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/invopop/jsonschema"

	"reprise/io/connector"
)

// Config says what a verification tolerates. Zero fields have defaults.
type Config struct {
	Sinks       []string             `json:"sinks,omitempty" jsonschema_description:"The sinks that are verified. Default: all."`
	Once        []string             `json:"once,omitempty" jsonschema_description:"Sinks whose targets hold each row once: a second one of the same key is a mismatch. Tables of Iceberg in mode upsert, tables of Cassandra and indices do so in any case; of topics, files and other tables the newest row counts."`
	Ignore      []string             `json:"ignore,omitempty" jsonschema_description:"Fields that may differ, such as those made from the time of the run."`
	Tolerate    map[string]Tolerance `json:"tolerate,omitempty" jsonschema_description:"How far values of a field may lie apart: {score: 0.001, changed: 2s}. Numbers for numbers, time spans for times."`
	Settle      connector.Duration   `json:"settle,omitempty" jsonschema_description:"What differs is read again after this time before it counts: longer than live writes take to come to the target. Default: 5s."`
	RepairNewer bool                 `json:"repair_newer,omitempty" jsonschema_description:"The repair job also overwrites rows that are newer at the target than what the source shows and than whatever a run of the journal has written. Only where nobody but the job writes to the target. Default: false, they are only reported."`
	Examples    int                  `json:"examples,omitempty" jsonschema:"minimum=1,maximum=1000" jsonschema_description:"Rows of each sink that the report shows. Default: 10."`
}

// SettleTime is how long live writes may take to come to a target.
func (c Config) SettleTime() time.Duration { return c.Settle.Or(defaultSettle) }

const (
	defaultSettle   = 5 * time.Second
	defaultExamples = 10
)

// Tolerance is how far two values may lie apart.
type Tolerance struct {
	Number float64
	Span   time.Duration
}

// UnmarshalJSON takes a number or a time span.
func (t *Tolerance) UnmarshalJSON(text []byte) (err error) {
	*t = Tolerance{}
	var span string
	if json.Unmarshal(text, &span) == nil {
		t.Span, err = time.ParseDuration(span)
	} else {
		t.Number, err = strconv.ParseFloat(string(text), 64)
	}
	if err != nil || t.Number < 0 || t.Span < 0 {
		return fmt.Errorf("%.40s is no number such as 0.001 and no time span such as 2s", text)
	}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (t Tolerance) MarshalJSON() ([]byte, error) {
	if t.Span > 0 {
		return json.Marshal(t.Span.String())
	}
	return json.Marshal(t.Number)
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Tolerance) JSONSchema() *jsonschema.Schema {
	span := connector.Duration(0).JSONSchema()
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "number", Minimum: "0"},
		{Type: "string", Pattern: span.Pattern}},
		Examples: []any{"0.001", "2s"}, Description: "A number, or a time span."}
}
