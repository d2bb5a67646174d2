// Package beamio gives the sources, transforms and sinks of the job file as Beam steps, for programs that put
// windows, joins, stateful steps or other Beam IOs between them:
//
//	records, unread := beamio.Read(s, beamio.Source{Kind: "cassandra", Config: table})
//	ready, failed := beamio.Apply(s, records, beamio.Transform("filter", "size > 0"))
//	outcomes, refused := beamio.Write(s, ready, beamio.Sink{Kind: "elasticsearch", Config: index})
//	beamio.DeadLetters(s, beamio.Sink{Kind: "files", Config: queue}, unread, failed, refused)
//
// Records are *record.Record, whose coder is registered here. Their timestamps are their versions. A record belongs
// to nobody: a step that changes one changes a Clone of it. A stream without more ado is read, transformed and
// written in one fused stage; grouping sends records through the runner, which on Prism keeps all of them in memory.
//
// What these steps promise, and what the job runner (reprise run, package flow) adds:
//
//	                  these steps                                   the job runner
//	delivery          at least once, by bundle: one that fails is   at least once, by page
//	                  written again, if the runner tries again;
//	                  the sink's version rule makes that harmless
//	after a crash     the pipeline begins anew                      a journal, exact to the page; resume
//	dead letters      an output of each step; whoever does not      all in the queue and in the journal's index;
//	                  take it loses them                            redrive, an error budget, a limit
//	sums              metrics of namespace reprise                  read = outcomes for each sink, or exit code 5
//	checks            settings while the graph is built; fields     everything, before anything is read
//	                  and targets at the first record
//	files, Iceberg    one commit, when all records have come, of    one commit, of what the journal has; files
//	                  records of one schema; files are closed       are closed by limits.unfinished
//	                  with each bundle; bounded records alone
//	cleared values    only higher versions win                      wins over what earlier runs have written
//	deleted rows      Elasticsearch forgets deletes after           what was held for long is read again before
//	                  index.gc_deletes: raise it above the time     it is written
//	                  that records are on their way
//	pace              bounded requests in flight                    rates, schedules, probes, pause, throttle
//	a system is down  tried for as long as its client does (about   waits for pace.outage, then pauses
//	                  2 min), then the pipeline fails
//	memory            ReadAhead of each bundle, and the batches of  the same, and a limit of the heap
//	                  its sinks
//
// Settings travel as JSON with references to secrets, which are looked up on the workers. While the graph is built,
// wrong settings end it by a panic, as Beam's own functions do.
package beamio
