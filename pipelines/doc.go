// Package pipelines is what a stranger opens first: the words of Reprise, and the way of a record.
//
// # The way of a record
//
//	job file    job.Parse reads it, job.Validate checks it; connector.Kind says which systems it may name
//	plan        Source.Plan cuts the source into splits; the journal writes down what of them is finished
//	read        Source.Read gives pages of records; what cannot be decoded is a dead letter
//	transforms  transforms.Chain.Apply; a step that fails makes a dead letter
//	write       Sink.Open gives a Writer, whose connector.Batcher sends batches and settles each record once
//	outcome     written, unchanged, superseded, filtered or dead, for each record at each sink
//	checkpoint  once every sink has settled a page, the journal knows its interval and its counts
//	commit      files and Iceberg show their rows at the end of the run, by one commit
//	report      read = the sum of outcomes, for each sink; else the run is unbalanced and exits with 5
//
// Package flow fuses all of this but the commit in one Beam step: only whoever sees all of it knows when a page is
// finished everywhere. Package beamio offers the same parts as Beam steps of their own.
//
// # Features
//
// What is more than a run has a package of its own, with its sources and sinks, the jobs that it makes of a job, and
// its runs. Its command in runners/cli is a thin file.
//
//	verify     proves that targets hold what a job would write, and writes a job that repairs what is wrong
//	redrive    sends dead letters again
//	purge      marks rows, deletes them after a time of grace, restores them
//	cutover    moves searches to a new index, step by step
//	shadow     compares two versions of a job before anything is written
//	advise     recommends shards, sizes and routing from a sample
//	history    tells what the runs of a journal have done about one row
//	maintain   compacts Iceberg tables, expires their snapshots, restores settings of indices after a crash
//
// A feature prepares its jobs with package runs and gives them to a runs.Engine, which runners/launch implements and
// runners/cli hands in. What workers need of a feature stands in a package below it that knows no runs: verify/compare,
// redrive/letters, purge/manifest.
//
// # Words
//
//	attempt      one try to bring a run to its end; resume begins another, which fences off the one before
//	bucket       a partition of a Cassandra table, of rows in the order of their clustering key
//	canary       a part of the source that is done first
//	catch up     a further run over what has changed since a run
//	commit       what makes all rows of a run visible at once, at sinks that stage them
//	dead letter  a record that could not be processed, with step, code, cause and attempts
//	engine       what makes runs: executes a prepared job, or resumes a run (runs.Engine)
//	fault        something wrong in a job file, at its place
//	finder       a source that finds single rows by their keys
//	floor        the version up to which earlier runs have written a target: a run wins below it (connector.Run.Floor)
//	gate         what every request passes: rates, pauses, outages (package pace)
//	interval     the keys of a partition after one position up to another
//	job          a file that names a source, transforms and sinks
//	journal      the durable state of runs: plan, finished intervals, counts, dead letters, control
//	kind         a kind of system as job files name it
//	outcome      how a record ended at a sink
//	page         some records of a split, read by one request
//	place        what a sink writes to, in words
//	position     a data key as bytes, in the order of reading
//	prepared     of a job: its source is open, its transforms are compiled, nothing is written (runs.Prepared)
//	purge        a job that deletes what it reads, in two steps: mark, then delete
//	queue        where dead letters are kept
//	record       one row on its way: key, typed fields, version, origin, operation
//	redrive      a run that sends dead letters again
//	repair       a job that a verification has made to write again what it found wrong
//	run          one execution of a job, with an id and a report
//	settle       of a record: to learn its outcome; of a verification: to wait, then to read again what differs
//	shadow       a comparison of two versions of a job on the same records, before anything is written
//	sink         what writes to a system
//	source       what reads a system
//	split        what one reader reads: an interval of one partition
//	superseded   the outcome of a write that a newer version won over
//	transform    what happens to each record on its way
//	tuning       settings that say how fast, not what: a run may be resumed with others
//	unbalanced   a run whose report does not add up; Reprise refuses to act on it
//	version      a record's write time at its source in microseconds, or a field that the job names; the higher wins
//	verification a proof that targets hold what a job would write, and nothing else
//	window       the rows that may be read and not yet finished everywhere
package pipelines
