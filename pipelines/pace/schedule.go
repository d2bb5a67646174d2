package pace

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // workers may run on machines without time zones

	"reprise/io/connector"
)

// period is a Period made ready.
type period struct {
	days     [7]bool
	from, to int // minutes of the day by its clock
	zone     *time.Location
	percent  float64
	text     string // "until 20:00 Europe/Berlin"
}

func (p Period) compile() (period, []connector.Fault) {
	var faults []connector.Fault
	c := period{percent: p.Percent, to: 24 * 60}
	for day := range c.days {
		c.days[day] = len(p.Days) == 0 || slices.Contains(p.Days, time.Weekday(day))
	}
	clock := func(path, text string, minutes *int) {
		if text == "" {
			return
		}
		hour, minute, _ := strings.Cut(text, ":")
		h, err1 := strconv.Atoi(hour)
		m, err2 := strconv.Atoi(minute)
		*minutes = h*60 + m
		if err1 != nil || err2 != nil || h < 0 || m < 0 || m > 59 || *minutes > 24*60 {
			faults = append(faults, connector.Faultf(path, "%q is not a time of day such as 08:00", text))
		}
	}
	clock("from", p.From, &c.from)
	clock("to", p.To, &c.to)
	if c.from == c.to {
		faults = append(faults, connector.Faultf("to",
			"the period ends when it begins; leave from and to out for whole days"))
	}
	zone, err := time.LoadLocation(p.Zone) // "" is UTC
	if err != nil || p.Zone == "Local" {
		faults = append(faults, connector.Faultf("zone", "%q is not a time zone such as Europe/Berlin", p.Zone))
		zone = time.UTC
	}
	c.zone = zone
	if p.Percent < 0 || p.Percent > 100 {
		faults = append(faults, connector.Faultf("percent", "%v is not a percentage from 0 to 100", p.Percent))
	}
	c.text = fmt.Sprintf("until %02d:%02d %s", c.to/60, c.to%60, zone)
	return c, faults
}

// covers tells whether a time is in the period. It goes by the clock on the wall: an hour that is there twice counts
// twice, and one that is left out not at all.
func (p period) covers(t time.Time) bool {
	t = t.In(p.zone)
	day, minute := t.Weekday(), t.Hour()*60+t.Minute()
	if p.from < p.to {
		return p.days[day] && p.from <= minute && minute < p.to
	}
	yesterday := (day + 6) % 7
	return p.days[day] && p.from <= minute || p.days[yesterday] && minute < p.to
}

// scheduled is the part of the full speed that the schedule allows, and until when; "" where it does not limit.
func scheduled(schedule []period, t time.Time) (scale float64, until string) {
	scale = 1
	for _, p := range schedule {
		if s := p.percent / 100; s < scale && p.covers(t) {
			scale, until = s, p.text
		}
	}
	return scale, until
}
