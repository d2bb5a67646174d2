package job

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"reprise/io/connector"
	"reprise/io/journal"
)

// validator is what every system's settings can do.
type validator interface{ Validate() []connector.Fault }

var sinkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Validate finds what the schema cannot say. It asks no system.
func (j *Job) Validate() []connector.Fault {
	var faults []connector.Fault
	add := func(path string, v validator) {
		faults = append(faults, connector.Below(path, v.Validate())...)
	}
	if j.Source.SourceConfig != nil { // else the schema tells
		add("source", j.Source)
	}
	faults = append(faults, connector.Below("source", j.Source.Scans())...)
	for _, name := range slices.Sorted(maps.Keys(j.Sinks)) {
		if !sinkName.MatchString(name) {
			faults = append(faults, connector.Faultf("sinks."+name,
				"a sink's name has letters, digits and, within, any of . _ -"))
		}
		sink := j.Sinks[name]
		add("sinks."+name, sink)
		if p, ok := sink.SinkConfig.(connector.Partner); ok {
			faults = append(faults, connector.Below("sinks."+name+"."+sink.Kind(), p.Suits(j.Source.SourceConfig))...)
		}
		for i, first := range sink.After {
			at := fmt.Sprintf("sinks.%s.after.%d", name, i)
			if _, ok := j.Sinks[first]; !ok {
				faults = append(faults, connector.Faultf(at, "there is no sink %q", first))
			} else if j.before(name, first, nil) {
				faults = append(faults, connector.Faultf(at, "the sinks %s and %s wait for each other", name, first))
			}
		}
	}
	if queue := j.DeadLetters; queue.SinkConfig != nil {
		add("dead_letters", queue)
		if _, ok := queue.SinkConfig.(connector.Queue); !ok {
			faults = append(faults, connector.Faultf("dead_letters",
				"%s cannot hold records of every kind; there are %s",
				queue.Kind(), strings.Join(queues(), ", ")))
		}
		if p, ok := queue.SinkConfig.(connector.Reduced); ok && p.Reduced() != "" {
			faults = append(faults, connector.Faultf("dead_letters."+queue.Kind()+"."+p.Reduced(),
				"a queue must hold its letters whole, for reprise redrive; leave it out"))
		}
	}
	if j.Purge != nil {
		faults = append(faults, j.validatePurge()...)
	}
	add("journal", j.Journal)
	add("pace", j.Pace)
	for _, system := range j.Pace.Systems() {
		if _, sink := j.Sinks[system]; !sink && system != journal.Source {
			faults = append(faults, connector.Faultf("pace", "%q is neither source nor the name of a sink", system))
		}
	}
	if _, taken := j.Sinks[journal.Source]; taken {
		faults = append(faults, connector.Faultf("sinks."+journal.Source,
			"a sink cannot be called %s: in limits this name stands for what is read", journal.Source))
	}
	if j.Retry != nil && !j.Source.Follows() {
		faults = append(faults, connector.Faultf("retry",
			"only a run that goes on (follow) sends dead letters again by itself; else use reprise redrive"))
	}
	if j.Source.Follows() {
		faults = append(faults, j.endless()...)
	} else if j.Limits.CommitEvery != nil {
		faults = append(faults, connector.Faultf("limits.commit_every",
			"a run that ends commits at its end; leave it out, or let the source go on (follow)"))
	}
	if c := j.Canary; c != nil {
		before := 0.0
		for i, percent := range c.Stages {
			if percent <= before || percent >= 100 {
				faults = append(faults, connector.Faultf(fmt.Sprintf("canary.stages.%d", i),
					"stages rise, between 0 and 100, as in [1, 10]"))
			}
			before = percent
		}
	}
	if b := j.Limits.ErrorBudget; (b.Recent > 0) != (b.Of > 0) || b.Recent > b.Of {
		faults = append(faults, connector.Faultf("limits.error_budget",
			"recent and of belong together, as in {recent: 25, of: 30}"))
	}
	return faults
}

// endless finds what needs an end of the source, where it has none.
func (j *Job) endless() (faults []connector.Fault) {
	if j.Purge != nil {
		faults = append(faults, connector.Faultf("purge", "a purge ends, and its source goes on; leave out follow"))
	}
	if j.Canary != nil {
		faults = append(faults, connector.Faultf("canary", "stages end, and the source goes on; leave out one of both"))
	}
	if *j.Limits.CommitEvery == (CommitEvery{}) {
		faults = append(faults, connector.Faultf("limits.commit_every", "name time, rows or bytes"))
	}
	if strings.HasSuffix(j.Limits.Unfinished, "%") {
		faults = append(faults, connector.Faultf("limits.unfinished", "nobody knows how many rows come; name a number"))
	}
	return faults
}

// Rank is how many sinks one after the other come before a sink; 0: none.
func (j *Job) Rank(sink string) int {
	n := 0
	for _, first := range j.Sinks[sink].After {
		n = max(n, 1+j.Rank(first))
	}
	return n
}

// before tells whether a sink comes before another, at once or by others in between. seen are sinks that were looked
// at.
func (j *Job) before(first, name string, seen []string) bool {
	return first == name || !slices.Contains(seen, name) &&
		slices.ContainsFunc(j.Sinks[name].After, func(n string) bool {
			return j.before(first, n, append(seen, name))
		})
}

// queues are the kinds of sinks that can hold dead letters.
func queues() (names []string) {
	for _, k := range connector.Kinds() {
		if holdsLetters(k) {
			names = append(names, k.Name)
		}
	}
	return names
}

func holdsLetters(k connector.Kind) bool {
	if k.Sink == nil {
		return false
	}
	_, ok := k.Sink().(connector.Queue)
	return ok
}

// TooManyDead tells whether dead letters of a run are above the job's limit.
func (l Limits) TooManyDead(dead, read int64) bool { return tooMany(l.DeadLetters, dead, read) }

// tooMany tells whether dead letters are more than a number or percentage; "" is no limit.
func tooMany(most string, dead, read int64) bool {
	number, percent := strings.CutSuffix(most, "%")
	limit, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return false
	}
	if percent {
		limit *= float64(read) / 100
	}
	return float64(dead) > limit
}
