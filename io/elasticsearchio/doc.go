// Package elasticsearchio reads documents of Elasticsearch 7.17 and 8 as records, and writes records as documents, through requests of its
// own. How documents are read stands at Source; what follows is about writing.
//
// # Documents
//
// A record becomes the document with the fields that the settings name, in the form of Record.AppendJSON: null fields as
// null, unset fields left out. A write replaces the document as a whole. Index, id and routing come from templates; records that
// delete have only their key's fields, so templates of a job with deletes name only those.
//
// # The version rule
//
// Every write and delete carries the record's version as an external version (external_gte). The server refuses it where the
// document is newer: the outcome is Superseded. An equal version writes the same document again, so writes may repeat.
// Documents that are written without external versions count 1, 2, 3..., which every record's version surpasses: live writers must
// use external versions too.
//
// A delete leaves its version behind, also where there was no document, but the server forgets it after index.gc_deletes (60 s by
// default) and when the shard moves or restarts. A record that was read before a delete and arrives after that time brings the
// document back. Indices made here keep deletes for an hour; Prepare warns of existing ones that keep them for less than ten minutes.
//
// # Making indices
//
// With create the launching process makes a missing index, and a worker one whose name depends on the record when its first record comes. An index that
// holds documents which the same job has not written is refused, unless create says existing. What made an index is noted in its mapping, as
// _meta.reprise.
//
// # Settings for loading
//
// With load an index has other settings while a run goes on, on the indices that the run has made or, where load says existing, on the one that
// was there. What stood before is noted in _meta.reprise first, so that any process can put it back: the run at its end, however it ends, and while an
// operator holds it; after a crash its resumption, or Reset. Only what still stands as the load has set it is put back. Of two runs that load one
// index at a time the one that came last puts back what stood before the first; the other then goes on with an index as it was. Replicas of
// an index that the server expands by itself (auto_expand_replicas) stay alone. Elasticsearch has no conditional change of settings, nor of _meta: where
// one of two such runs is killed within the milliseconds in which the other begins or ends, settings may stay off, until `reprise unload`. The login needs the privilege manage for this.
//
// # Errors
//
// Each item of an answer counts by itself. 429, 503 and rejected executions are Throttled; connections that fail, timeouts, 502 and 504
// Transient; documents that the mapping refuses, ids over 512 bytes and documents over the server's limit Permanent;
// a missing or read-only index, a refused login and a certificate that does not fit Fatal. NaN and infinities, which
// JSON lacks, are written as text and refused by number fields.
//
// An ingest pipeline of the index that drops documents is not noticed: such a record counts as written.
//
// # Memory
//
// A writer holds at most batch.bytes * (in_flight + 1) of records and batch.bytes * in_flight of bodies, with gzip twice that; a larger
// document counts with its size.
package elasticsearchio
