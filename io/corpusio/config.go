package corpusio

import (
	"time"

	"reprise/io/connector"
)

// SourceConfig says which corpus.
type SourceConfig struct {
	Rows    int64  `json:"rows" jsonschema:"required,minimum=1" jsonschema_description:"Number of assets."`
	Seed    uint64 `json:"seed,omitempty" jsonschema_description:"Another seed gives other assets. Default: 0."`
	Layout  string `json:"layout,omitempty" jsonschema:"enum=skewed,enum=even" jsonschema_description:"skewed: one bucket holds half of the assets, some hold none. even: all hold the same number. Default: skewed."`
	Expires string `json:"expires,omitempty" jsonschema:"format=date" jsonschema_description:"The first day on which assets expire, such as 2035-01-01; those that expire do so within a year of it. Default: 2035-01-01."`
}

const defaultExpires = "2035-01-01"

// Validate finds what the schema cannot say.
func (c SourceConfig) Validate() []connector.Fault {
	var faults []connector.Fault
	if c.Rows < 1 {
		faults = append(faults, connector.Faultf("rows", "at least 1 row is needed, not %d", c.Rows))
	}
	if c.Layout != "" && c.Layout != "skewed" && c.Layout != "even" {
		faults = append(faults, connector.Faultf("layout", "layout is skewed or even, not %q", c.Layout))
	}
	if _, err := c.expires(); err != nil {
		faults = append(faults, connector.Faultf("expires", "%q is not a day such as %s", c.Expires, defaultExpires))
	}
	return faults
}

// expires is the day in seconds since 1970.
func (c SourceConfig) expires() (int64, error) {
	day := c.Expires
	if day == "" {
		day = defaultExpires
	}
	at, err := time.Parse(time.DateOnly, day)
	return at.Unix(), err
}
