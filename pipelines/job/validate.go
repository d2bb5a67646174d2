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
		for _, f := range v.Validate() {
			f.Path = join(path, f.Path)
			faults = append(faults, f)
		}
	}
	for name, v := range j.Source.kinds() {
		add("source."+name, v)
	}
	faults = append(faults, j.Source.readable("source")...)
	for _, name := range slices.Sorted(maps.Keys(j.Sinks)) {
		if !sinkName.MatchString(name) {
			faults = append(faults, connector.Faultf("sinks."+name, "a sink's name has letters, digits and, within, any of . _ -"))
		}
		kinds := j.Sinks[name].kinds()
		switch targets := slices.Sorted(maps.Keys(kinds)); len(targets) {
		case 0:
			faults = append(faults, connector.Faultf("sinks."+name, "one of these is needed: cassandra, elasticsearch, files, http, iceberg, kafka"))
		case 1:
		default:
			faults = append(faults, connector.Faultf("sinks."+name, "only one target may stand here, not %s", strings.Join(targets, " and ")))
		}
		for kind, v := range kinds {
			add("sinks."+name+"."+kind, v)
		}
		if to, from := j.Sinks[name].Cassandra, j.Source.Cassandra; to != nil && from != nil && to.Write == "changes" && from.Version != "" {
			faults = append(faults, connector.Faultf("sinks."+name+".cassandra.write", "changes are told by write times, which the source's version: %s hides; leave that out", from.Version))
		}
		for i, first := range j.Sinks[name].After {
			at := fmt.Sprintf("sinks.%s.after.%d", name, i)
			if _, ok := j.Sinks[first]; !ok {
				faults = append(faults, connector.Faultf(at, "there is no sink %q", first))
			} else if j.before(name, first, nil) {
				faults = append(faults, connector.Faultf(at, "the sinks %s and %s wait for each other", name, first))
			}
		}
	}
	for kind, v := range j.DeadLetters.kinds() {
		add("dead_letters."+kind, v)
	}
	if e := j.DeadLetters.Elasticsearch; e != nil && e.Load != nil {
		faults = append(faults, connector.Faultf("dead_letters.elasticsearch.load", "only sinks are loaded so; dead letters are few"))
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
		faults = append(faults, connector.Faultf("sinks."+journal.Source, "a sink cannot be called %s: limits name what is read so", journal.Source))
	}
	if c := j.Canary; c != nil {
		before := 0.0
		for i, percent := range c.Stages {
			if percent <= before || percent >= 100 {
				faults = append(faults, connector.Faultf(fmt.Sprintf("canary.stages.%d", i), "stages rise, between 0 and 100, as in [1, 10]"))
			}
			before = percent
		}
	}
	if b := j.Limits.ErrorBudget; (b.Recent > 0) != (b.Of > 0) || b.Recent > b.Of {
		faults = append(faults, connector.Faultf("limits.error_budget", "recent and of belong together, as in {recent: 25, of: 30}"))
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

// before tells whether a sink comes before another, at once or by others in between. seen are sinks that were looked at.
func (j *Job) before(first, name string, seen []string) bool {
	return first == name || !slices.Contains(seen, name) && slices.ContainsFunc(j.Sinks[name].After, func(n string) bool {
		return j.before(first, n, append(seen, name))
	})
}

func join(path, rest string) string {
	if rest == "" {
		return path
	}
	return path + "." + rest
}

func (s Source) kinds() map[string]validator {
	kinds := map[string]validator{}
	if s.Cassandra != nil {
		kinds["cassandra"] = s.Cassandra
	}
	if s.Files != nil {
		kinds["files"] = s.Files
	}
	if s.Kafka != nil {
		kinds["kafka"] = s.Kafka
	}
	if s.Iceberg != nil {
		kinds["iceberg"] = s.Iceberg
	}
	if s.Elasticsearch != nil {
		kinds["elasticsearch"] = s.Elasticsearch
	}
	if s.HTTP != nil {
		kinds["http"] = s.HTTP
	}
	if s.Corpus != nil {
		kinds["corpus"] = s.Corpus
	}
	if s.Keys != nil {
		kinds["keys"] = s.Keys
	}
	if s.Union != nil {
		kinds["union"] = s.Union
	}
	if s.Join != nil {
		kinds["join"] = s.Join
	}
	return kinds
}

func (t Target) kinds() map[string]validator {
	kinds := map[string]validator{}
	if t.Cassandra != nil {
		kinds["cassandra"] = t.Cassandra
	}
	if t.Elasticsearch != nil {
		kinds["elasticsearch"] = t.Elasticsearch
	}
	if t.Iceberg != nil {
		kinds["iceberg"] = t.Iceberg
	}
	if t.Kafka != nil {
		kinds["kafka"] = t.Kafka
	}
	if t.Files != nil {
		kinds["files"] = t.Files
	}
	if t.HTTP != nil {
		kinds["http"] = t.HTTP
	}
	return kinds
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
