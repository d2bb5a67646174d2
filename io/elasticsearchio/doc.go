// Package elasticsearchio reads documents of Elasticsearch and OpenSearch as records, and writes records as
// documents, through requests of its own. How documents are read stands at Source; what follows is about writing, but
// for the next two sections.
//
// # Servers
//
// Elasticsearch 7.17, 8 and 9, and OpenSearch from 2.7 on, which has points in time and flat objects since then. The
// tests run on Elasticsearch 8.19 and, in parts, 7.17 and OpenSearch 2.19; by hand they have run on Elasticsearch
// 9.4.3 and OpenSearch 3.9.0. The server tells what it is (GET /); a login that may not ask is taken for one of
// Elasticsearch if the server's answers say so in their headers. The requests are those of esapi and elastictransport
// alone, which do not check the product as the vendor's typed clients do. OpenSearch differs in points in time, in
// what breaks ties of sorting, and in flat_object for flattened.
//
// # Times
//
// A date of the index is read as a timestamp or a date by the format of its field, as the server reads it: by the
// default formats "2024", and also the number 2024, is a year, and 1714521600000 a number of milliseconds. What the
// server takes beyond what a format says (2024-02-30, names of zones, years of other lengths) is a dead letter, and
// formats with weeks, names of months, halves of days or without a year are refused before reading; as a text any
// date is read as it stands. The server cuts what is finer than milliseconds off a date: so does the source where
// fields names a timestamp, else such a time is an error, and so it always is for date_nanos. Fields that are no
// dates to the index hold times as the sink writes them.
//
// # Documents
//
// A record becomes the document with the fields that the settings name, in the form of Record.AppendJSON: null fields
// as null, unset fields left out. A write replaces the document as a whole. Index, id and routing come from
// templates; records that delete have only their key's fields, so templates of a job with deletes name only those.
//
// The field _rest is what a source has found in documents beside its other fields, a text with a JSON object: it is
// merged into the document, objects with objects and lists element by element. What does not go with the record's own
// fields is a dead letter. An index made for such records maps nothing but the other fields (dynamic: false).
//
// # The version rule
//
// Every write and delete carries the record's version as an external version (external_gte). The server refuses it
// where the document is newer: the outcome is Superseded. An equal version writes the same document again, so writes
// may repeat. Documents that are written without external versions count 1, 2, 3..., which every record's version
// surpasses: live writers must use external versions too.
//
// A delete leaves its version behind, also where there was no document, but the server forgets it after
// index.gc_deletes (60 s by default) and when the shard moves or restarts. A record that was read before a delete and
// arrives after that time brings the document back. Indices made here keep deletes for an hour; Prepare warns of
// existing ones that keep them for less than ten minutes.
//
// # Making indices
//
// With create the launching process makes a missing index, and a worker one whose name depends on the record when its
// first record comes. An index that holds documents which the same job has not written is refused, unless create says
// existing. What made an index is noted in its mapping, as _meta.reprise.
//
// # Settings for loading
//
// With load an index has other settings while a run goes on, on the indices that the run has made or, where load says
// existing, on the one that was there. What stood before is noted in _meta.reprise first, so that any process can put
// it back: the run at its end, however it ends, and while an operator holds it; after a crash its resumption, or
// Reset. Only what still stands as the load has set it is put back. Of two runs that load one index at a time the one
// that came last puts back what stood before the first; the other then goes on with an index as it was. Replicas of
// an index that the server expands by itself (auto_expand_replicas) stay alone. Elasticsearch has no conditional
// change of settings, nor of _meta: where one of two such runs is killed within the milliseconds in which the other
// begins or ends, settings may stay off, until `reprise unload`. The login needs the privilege manage for this.
//
// # Errors
//
// Each item of an answer counts by itself. 429, 503 and rejected executions are Throttled; connections that fail,
// timeouts, 502 and 504 Transient; documents that the mapping refuses, ids over 512 bytes and documents over the
// server's limit Permanent; a missing or read-only index, a refused login and a certificate that does not fit Fatal.
// NaN and infinities, which JSON lacks, are written as text and refused by number fields.
//
// An ingest pipeline of the index that drops documents is not noticed: such a record counts as written.
//
// # Memory
//
// A writer holds at most batch.bytes * (in_flight + 1) of records and batch.bytes * in_flight of bodies, with gzip
// twice that; a larger document counts with its size.
package elasticsearchio
