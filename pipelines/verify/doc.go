// Package verify proves that the targets of a job hold what the job would write, and writes a job that repairs what is
// wrong.
//
// Both directions are ordinary runs, so they are resumed, paced and spread as any other:
//
//	source → transforms → Check    looks each record up in the target by its key, and compares hashes, then fields
//	keys of the target → Tally     counts and hashes the keys in segments: where a segment holds what Check has
//	                               found there, nothing is extra; an Index counts its own
//	keys of the target → Extras    in the other segments: is there still a row at the source that becomes this key?
//
// What does not match is only suspected: it is read again on both sides after a settle time, and counts once it reads
// the same wrong way twice. What reads differently each time is in flight.
//
// A side that cannot find rows by key is copied into an Index first, an SQLite file with the latest row of each key; a
// verification that needs one runs in one process.
package verify
