package pace

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/journal"
)

func periods(t *testing.T, text string) (schedule []period) {
	t.Helper()
	var all []Period
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		c, faults := p.compile()
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		schedule = append(schedule, c)
	}
	return schedule
}

func TestSchedule(t *testing.T) {
	for _, x := range []struct {
		name, schedule, at string
		percent            float64
	}{
		{"by day", `[{"days": "mon-fri", "from": "08:00", "to": "20:00", "percent": 20}]`, "2026-03-02T08:00:00Z", 20},
		{"at its end", `[{"days": "mon-fri", "from": "08:00", "to": "20:00", "percent": 20}]`, "2026-03-02T20:00:00Z",
			100},
		{"before", `[{"days": "mon-fri", "from": "08:00", "to": "20:00", "percent": 20}]`, "2026-03-02T07:59:59Z", 100},
		{"another day", `[{"days": "mon-fri", "from": "08:00", "to": "20:00", "percent": 20}]`, "2026-03-01T12:00:00Z",
			100},
		{"a list of days", `[{"days": ["sun", "tue-wed"], "percent": 0}]`, "2026-03-03T00:00:00Z", 0},
		{"round the weekend", `[{"days": "fri-mon", "percent": 50}]`, "2026-03-01T23:59:59Z", 50},
		{"not on thursday", `[{"days": "fri-mon", "percent": 50}]`, "2026-03-05T12:00:00Z", 100},
		{"its zone", `[{"from": "08:00", "to": "20:00", "zone": "Europe/Berlin", "percent": 20}]`,
			"2026-03-02T07:00:00Z", 20},
		{"its zone in summer", `[{"from": "08:00", "to": "20:00", "zone": "Europe/Berlin", "percent": 20}]`,
			"2026-07-02T06:00:00Z", 20},
		{"its day, not that of UTC", `[{"days": "mon", "zone": "Asia/Tokyo", "percent": 20}]`, "2026-03-01T15:00:00Z",
			20},
		{"over midnight, before", `[{"days": "fri", "from": "22:00", "to": "06:00", "percent": 10}]`,
			"2026-03-06T23:00:00Z", 10},
		{"over midnight, after", `[{"days": "fri", "from": "22:00", "to": "06:00", "percent": 10}]`,
			"2026-03-07T05:59:00Z", 10},
		{"over midnight, its end", `[{"days": "fri", "from": "22:00", "to": "06:00", "percent": 10}]`,
			"2026-03-07T06:00:00Z", 100},
		{"over midnight, of the day before", `[{"days": "fri", "from": "22:00", "to": "06:00", "percent": 10}]`,
			"2026-03-06T05:00:00Z", 100},
		{"until midnight", `[{"from": "22:00", "to": "00:00", "percent": 10}]`, "2026-03-06T23:59:59Z", 10},
		{"until 24:00", `[{"from": "22:00", "to": "24:00", "percent": 10}]`, "2026-03-07T00:00:00Z", 100},
		{"the lowest", `[{"percent": 50}, {"from": "08:00", "percent": 20}, {"percent": 80}]`, "2026-03-06T09:00:00Z",
			20},
		{"no limit", `[{"percent": 100}]`, "2026-03-06T09:00:00Z", 100},
		// In Berlin, clocks went from 02:00 to 03:00 on 29 March 2026, and go from 03:00 back to 02:00 on 25 October.
		{"an hour that is left out, before",
			`[{"from": "02:15", "to": "02:45", "zone": "Europe/Berlin", "percent": 20}]`, "2026-03-29T00:59:59Z", 100},
		{"an hour that is left out, after",
			`[{"from": "02:15", "to": "02:45", "zone": "Europe/Berlin", "percent": 20}]`, "2026-03-29T01:00:00Z", 100},
		{"a period that ends in the hour that is left out",
			`[{"from": "01:00", "to": "02:30", "zone": "Europe/Berlin", "percent": 20}]`, "2026-03-29T01:00:00Z", 100},
		{"a period that begins in it", `[{"from": "02:30", "to": "04:00", "zone": "Europe/Berlin", "percent": 20}]`,
			"2026-03-29T01:00:00Z", 20},
		{"an hour that is there twice, first",
			`[{"from": "02:15", "to": "02:45", "zone": "Europe/Berlin", "percent": 20}]`, "2026-10-25T00:30:00Z", 20},
		{"an hour that is there twice, between",
			`[{"from": "02:15", "to": "02:45", "zone": "Europe/Berlin", "percent": 20}]`, "2026-10-25T01:00:00Z", 100},
		{"an hour that is there twice, second",
			`[{"from": "02:15", "to": "02:45", "zone": "Europe/Berlin", "percent": 20}]`, "2026-10-25T01:30:00Z", 20},
	} {
		t.Run(x.name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, x.at)
			if err != nil {
				t.Fatal(err)
			}
			if scale, _ := scheduled(periods(t, x.schedule), at); scale != x.percent/100 {
				t.Errorf("%s: %v %%, want %v %%", x.at, 100*scale, x.percent)
			}
		})
	}
}

// TestScheduledRate: by day a rate is cut to its percentage, and no percentage pauses. Virtual time begins on Saturday
// 1 January 2000, 00:00 UTC.
func TestScheduledRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun()
		c := Config{Rates: map[string]journal.Rate{"sink": {Records: 1000}}, Schedule: []Period{
			{From: "00:01", To: "00:02", Percent: 20}, {From: "00:02", To: "00:03", Percent: 0}}}
		var kills []func()
		for _, name := range []string{"a", "b"} {
			kills = append(kills, r.start(c, name, 4, 250*time.Millisecond, writing(5, time.Millisecond)))
		}
		time.Sleep(4 * time.Minute)
		for _, kill := range kills {
			kill()
		}
		r.all.Wait()
		within(t, r, 1000, 2*time.Second, 60*time.Second, 0.05)
		within(t, r, 200, 63*time.Second, 120*time.Second, 0.05)
		if n := r.sum(120*time.Second+300*time.Millisecond, 180*time.Second); n > 0 {
			t.Errorf("%v records while the schedule pauses the run", n)
		}
		within(t, r, 1000, 182*time.Second, 240*time.Second, 0.05)
	})
}

// TestScheduledSpeed: a system without a rate goes at the percentage of the speed that it had.
func TestScheduledSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun()
		c := Config{Schedule: []Period{{From: "00:01", To: "00:02", Percent: 20}}}
		kill := r.start(c, "a", 4, 250*time.Millisecond, writing(10, 10*time.Millisecond))
		time.Sleep(3 * time.Minute)
		kill()
		r.all.Wait()
		within(t, r, 4000, 0, 60*time.Second, 0.05)
		within(t, r, 800, 61*time.Second, 120*time.Second, 0.05)
		within(t, r, 4000, 121*time.Second, 180*time.Second, 0.05)
	})
}

// TestUnknownSpeed: one that begins in such a period is not let loose to be measured.
func TestUnknownSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun()
		c := Config{Schedule: []Period{{Percent: 20}}}
		kill := r.start(c, "a", 4, 250*time.Millisecond, reading(10, 10*time.Millisecond))
		time.Sleep(time.Minute)
		kill()
		r.all.Wait()
		within(t, r, 800, time.Second, 60*time.Second, 0.1)
		if n := r.sum(0, time.Second); n > 1000 {
			t.Errorf("%v records in the first second, at 800/s", n)
		}
	})
}

func TestScheduleTellsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{Schedule: []Period{{From: "00:00", To: "06:30", Zone: "UTC", Percent: 0}}})
		if got, want := p.Waiting(), "paused by the schedule until 06:30 UTC"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		_, err := entering(gate)
		drive(p, journal.Control{}, 7*time.Hour)
		if e := <-err; e != nil {
			t.Error(e)
		}
	})
}

func TestConfig(t *testing.T) {
	parse := func(text string) (c Config, err error) {
		err = json.Unmarshal([]byte(text), &c)
		return c, err
	}
	good := `{"rates": {"source": {"records": 5000}, "search": {"bytes": "5MiB"}}, "requests": {"search": 2},
		"schedule": [{"days": ["mon-fri"], "from": "08:00", "to": "20:00", "zone": "Europe/Berlin", "percent": 20}],
		"probe": {"prometheus": {"url": "https://prometheus:9090", "query": "max(p99)"}, "bound": "50ms", "token": "env:T"}, "outage": "1h", "retries": "10.5%"}`
	c, err := parse(good)
	if err != nil || len(c.Validate()) > 0 {
		t.Fatal(err, c.Validate())
	}
	if c.Probe.Bound != 0.05 || c.Probe.far() != 0.1 || c.retries() != 0.105 {
		t.Errorf("bound %v, far %v, retries %v", c.Probe.Bound, c.Probe.far(), c.retries())
	}
	again, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := parse(string(again)); err != nil || !cmp.Equal(c, back) {
		t.Errorf("%v: %s", err, cmp.Diff(c, back))
	}
	for text, path := range map[string]string{
		`{"rates": {"source": {"records": -1}}}`:                                                                   "rates.source",
		`{"requests": {"search": 0}}`:                                                                              "requests.search",
		`{"schedule": [{"from": "8 o'clock", "percent": 1}]}`:                                                      "schedule[0].from",
		`{"schedule": [{"percent": 1}, {"to": "25:00", "percent": 1}]}`:                                            "schedule[1].to",
		`{"schedule": [{"from": "08:00", "to": "08:00", "percent": 1}]}`:                                           "schedule[0].to",
		`{"schedule": [{"zone": "Berlin", "percent": 1}]}`:                                                         "schedule[0].zone",
		`{"schedule": [{"percent": 101}]}`:                                                                         "schedule[0].percent",
		`{"probe": {"bound": 1}}`:                                                                                  "probe",
		`{"probe": {"http": {"url": "x"}, "bound": 1}}`:                                                            "probe.http.url",
		`{"probe": {"http": {"url": "http://a:b@x"}, "bound": 1}}`:                                                 "probe.http.url",
		`{"probe": {"http": {"url": "http://x"}, "bound": 0}}`:                                                     "probe.bound",
		`{"probe": {"http": {"url": "http://x"}, "bound": 2, "far": 1}}`:                                           "probe.far",
		`{"probe": {"prometheus": {"url": "http://x"}, "bound": 2}}`:                                               "probe.prometheus.query",
		`{"probe": {"http": {"url": "http://x"}, "bound": 2, "user": "u"}}`:                                        "probe.user",
		`{"probe": {"http": {"url": "http://x"}, "bound": 2, "user": "u", "password": "env:P", "token": "env:T"}}`: "probe.token",
		`{"retries": "many"}`:                                                                                      "retries",
	} {
		c, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if faults := c.Validate(); len(faults) != 1 || faults[0].Path != path {
			t.Errorf("%s: got %v, want one fault at %s", text, faults, path)
		}
	}
	for _, text := range []string{`{"schedule": [{"days": "monday"}]}`, `{"schedule": [{"days": 1}]}`,
		`{"probe": {"bound": "soon"}}`} {
		if _, err := parse(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
