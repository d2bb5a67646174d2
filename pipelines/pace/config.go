package pace

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"reprise/io/connector"
	"reprise/io/journal"
)

// Config are the settings of a run's pace. Systems are "source" and the sinks by their names.
type Config struct {
	Rates    map[string]journal.Rate `json:"rates,omitempty" jsonschema_description:"What the whole run may do per second, by system: 'source' or a sink's name. Retries count again. Default: no limit."`
	Requests map[string]int          `json:"requests,omitempty" jsonschema_description:"Requests that each worker may have under way at once, by system: 'source' or a sink's name. Default: no limit beyond the system's own settings."`
	Schedule []Period                `json:"schedule,omitempty" jsonschema_description:"Times at which the run goes slower. Where several apply, the lowest percentage counts."`
	Adaptive *Adaptive               `json:"adaptive,omitempty" jsonschema_description:"Slowing down systems that are overloaded. Default: on."`
	Probe    *Probe                  `json:"probe,omitempty" jsonschema_description:"A measurement of production that slows the run down when production suffers. Default: none."`
	Outage   connector.Duration      `json:"outage,omitempty" jsonschema_description:"How long to wait for a system that does not answer. Default: 15m."`
	Retries  string                  `json:"retries,omitempty" jsonschema:"pattern=^[0-9]+(\\.[0-9]+)?%$,example=20%" jsonschema_description:"Retries for each system and worker, as a percentage of its requests, and 100 more. Beyond that, a single failure is enough to let only one request through at a time. Default: 20%."`
}

// Adaptive are the settings of the adaptive pace.
type Adaptive struct {
	Off bool `json:"off,omitempty" jsonschema_description:"Do not slow down for what systems say, nor for rising latencies. Default: false."`
}

// Period is a time at which the run goes slower, or not at all.
type Period struct {
	Days    Days    `json:"days,omitempty" jsonschema_description:"Days on which it begins. Default: all."`
	From    string  `json:"from,omitempty" jsonschema:"pattern=^([01][0-9]|2[0-3]):[0-5][0-9]$,example=08:00" jsonschema_description:"When it begins, by the clocks of zone. Default: 00:00."`
	To      string  `json:"to,omitempty" jsonschema:"pattern=^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$,example=20:00" jsonschema_description:"When it ends; on the next day where that is before from. Default: 24:00."`
	Zone    string  `json:"zone,omitempty" jsonschema:"example=Europe/Berlin" jsonschema_description:"Time zone, as in Europe/Berlin. Default: UTC."`
	Percent float64 `json:"percent" jsonschema:"required,minimum=0,maximum=100" jsonschema_description:"Percentage of the rates, and for a system without a rate of its speed. 0 pauses the run."`
}

// Days are days of the week; in a job file [mon, wed] or mon-fri.
type Days []time.Weekday

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// UnmarshalJSON takes a day or a range, or several of them.
func (d *Days) UnmarshalJSON(text []byte) error {
	var one string
	several := []string{}
	if json.Unmarshal(text, &one) == nil {
		several = []string{one}
	} else if err := json.Unmarshal(text, &several); err != nil {
		return fmt.Errorf("days are a list such as [mon, wed], or a range such as mon-fri")
	}
	*d = nil
	for _, s := range several {
		from, to, isRange := strings.Cut(s, "-")
		if !isRange {
			to = from
		}
		first, last := slices.Index(weekdays, from), slices.Index(weekdays, to)
		if first < 0 || last < 0 {
			return fmt.Errorf("%q is not a day (%s) nor a range such as mon-fri", s, strings.Join(weekdays, ", "))
		}
		for day := first; ; day = (day + 1) % len(weekdays) {
			*d = append(*d, time.Weekday(day))
			if day == last {
				break
			}
		}
	}
	return nil
}

// MarshalJSON writes a list of days.
func (d Days) MarshalJSON() ([]byte, error) {
	names := make([]string, len(d))
	for i, day := range d {
		names[i] = weekdays[day]
	}
	return json.Marshal(names)
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Days) JSONSchema() *jsonschema.Schema {
	one := "(" + strings.Join(weekdays, "|") + ")"
	day := &jsonschema.Schema{Type: "string", Pattern: "^" + one + "(-" + one + ")?$"}
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{day, {Type: "array", Items: day}},
		Examples: []any{"mon-fri", []string{"sat", "sun"}}}
}

// Probe are the settings of a look at production: exactly one kind.
type Probe struct {
	Prometheus *Prometheus        `json:"prometheus,omitempty" jsonschema_description:"The value of a Prometheus query."`
	HTTP       *HTTP              `json:"http,omitempty" jsonschema_description:"The time that an HTTP GET takes: the median of the last five."`
	Bound      Level              `json:"bound" jsonschema:"required" jsonschema_description:"Above it the run goes slower."`
	Far        Level              `json:"far,omitempty" jsonschema_description:"Above it the run pauses. Default: twice the bound."`
	Every      connector.Duration `json:"every,omitempty" jsonschema_description:"How often each worker asks. Default: 1s."`
	User       string             `json:"user,omitempty" jsonschema_description:"User name; with password. Default: no login."`
	Password   connector.Secret   `json:"password,omitempty" jsonschema_description:"The user's password: env:NAME or file:PATH."`
	Token      connector.Secret   `json:"token,omitempty" jsonschema_description:"Bearer token, instead of user and password: env:NAME or file:PATH."`
	TLS        *connector.TLS     `json:"tls,omitempty" jsonschema_description:"Settings of the encrypted connection, for https."`
}

// Prometheus is a query.
type Prometheus struct {
	URL   string `json:"url" jsonschema:"required,example=http://prometheus:9090" jsonschema_description:"Address of Prometheus or a compatible server, without /api/v1."`
	Query string `json:"query" jsonschema:"required" jsonschema_description:"PromQL that yields a scalar or one sample: lower is better. A short range, such as rate(...[30s]), lets the run react soon. NaN, the quantile of no requests, counts as within the bound."`
}

// HTTP is an address.
type HTTP struct {
	URL string `json:"url" jsonschema:"required" jsonschema_description:"What to GET: cheap, and served as production's requests are. An answer of 5xx, or none in time, counts as far above the bound."`
}

// Level is a number, or a time span in seconds: in a job file 0.05 and 50ms are the same.
type Level float64

// UnmarshalJSON takes a number or a time span.
func (l *Level) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, (*float64)(l)) == nil {
		return nil
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is neither a number nor a time span such as 50ms", s)
	}
	*l = Level(d.Seconds())
	return nil
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Level) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "number", ExclusiveMinimum: "0"},
		{Type: "string", Pattern: connector.Duration(0).JSONSchema().Pattern}},
		Examples: []any{0.05, "50ms"}}
}

func (p Probe) far() float64 {
	if p.Far == 0 {
		return 2 * float64(p.Bound)
	}
	return float64(p.Far)
}

func (p Probe) every() time.Duration { return p.Every.Or(time.Second) }

func (p Probe) url() string {
	if p.HTTP != nil {
		return p.HTTP.URL
	}
	return p.Prometheus.URL
}

const (
	defaultOutage  = 15 * time.Minute
	defaultRetries = "20%"
)

var retriesForm = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?%$`)

// retries is the fraction of requests.
func (c Config) retries() float64 {
	text := c.Retries
	if text == "" {
		text = defaultRetries
	}
	percent, _ := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	return percent / 100
}

// Systems are the names that rates and requests are given for.
func (c Config) Systems() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(c.Rates)), maps.Keys(c.Requests))
	slices.Sort(names)
	return slices.Compact(names)
}

// Validate finds what the schema of the settings cannot say. Whether there are systems of these names its caller knows.
func (c Config) Validate() (faults []connector.Fault) {
	for _, name := range c.Systems() {
		if r := c.Rates[name]; r.Records < 0 || r.Bytes < 0 {
			faults = append(faults, connector.Faultf("rates."+name,
				"a rate is not below 0; to pause a run, use 'reprise pause'"))
		}
		if n, ok := c.Requests[name]; ok && n < 1 {
			faults = append(faults, connector.Faultf("requests."+name,
				"at least one request must be allowed; leave it out for no limit"))
		}
	}
	for i, p := range c.Schedule {
		_, fs := p.compile()
		for _, f := range fs {
			faults = append(faults, connector.Fault{Path: fmt.Sprintf("schedule[%d].%s", i, f.Path),
				Message: f.Message})
		}
	}
	if c.Probe != nil {
		faults = append(faults, c.Probe.validate()...)
	}
	if c.Retries != "" && !retriesForm.MatchString(c.Retries) {
		faults = append(faults, connector.Faultf("retries", "%q is not a percentage such as 20%%", c.Retries))
	}
	return faults
}

func (p Probe) validate() (faults []connector.Fault) {
	if (p.Prometheus == nil) == (p.HTTP == nil) {
		return append(faults, connector.Faultf("probe", "exactly one of these is needed: http, prometheus"))
	}
	kind := "http"
	if p.Prometheus != nil {
		kind = "prometheus"
		if p.Prometheus.Query == "" {
			faults = append(faults, connector.Faultf("probe.prometheus.query", "name the query"))
		}
	}
	if u, err := url.Parse(p.url()); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		faults = append(faults, connector.Faultf("probe."+kind+".url", "%q is not an address such as http://host:9090",
			p.url()))
	} else if u.User != nil {
		faults = append(faults, connector.Faultf("probe."+kind+".url",
			"no login may stand in an address; give user and password"))
	}
	if p.Bound <= 0 {
		faults = append(faults, connector.Faultf("probe.bound", "the bound must be above 0"))
	} else if p.far() <= float64(p.Bound) {
		faults = append(faults, connector.Faultf("probe.far", "what is far above the bound must be above the bound"))
	}
	if p.Token != "" && p.User != "" {
		faults = append(faults, connector.Faultf("probe.token", "give either a token, or user and password"))
	}
	if (p.User == "") != (p.Password == "") {
		faults = append(faults, connector.Faultf("probe.user", "a login needs both user and password"))
	}
	return faults
}
