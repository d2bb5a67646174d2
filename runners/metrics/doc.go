// Package metrics shows a run to Prometheus: a Collector, a Server for it, and rules for alerts in alerts.yaml.
//
// Metrics come from the run's journal, not from its workers: what is finished, and the heartbeats, in which each worker
// tells four times a second what it has done. So one scrape shows the whole run on any number of machines, also one
// that somebody else started, and there are as many series as the job has sinks and systems, whatever the number of
// splits and workers.
//
// Counters belong to the run: they go on where they stood when it is resumed. reprise_records_total counts each record
// once, as the report does, when the journal knows it to be finished; reprise_system_records_total counts what passes
// to and from the systems at once, and again what is done again. What a worker did in the quarter of a second before it
// was killed is missing from the latter.
package metrics
