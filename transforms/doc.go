// Package transforms is what happens to records between source and sink: a Chain of steps, compiled from the entries of
// `transforms` in a job file against the schema of the records. Each transform is one file here; a team adds its own
// with Register.
//
// A step changes a record in place or makes several of one. What cannot be done is an error and becomes a dead letter,
// with the record as it entered the step. A delete has only its key: transforms leave its other fields unset, but for
// the one that route writes, since sinks find the record's place by it.
//
// # Expressions
//
// filter, delete, derive and route take CEL (cel.dev), checked against the schema when the job is compiled. Fields are
// variables:
//
//	boolean                                bool
//	tinyint, smallint, int, bigint         int
//	float, double                          double
//	timestamp, date                        timestamp (a date: its midnight, UTC)
//	blob                                   bytes
//	list, set, vector, tuple               list
//	map, UDT                               map
//	text and all others                    string, in the form that JSON output has: double(price), time_of(id)
//
// A plain field may be null: test `size != null` first, since an operation on null is an error and so a dead letter. A
// list, set, map or UDT that is null is empty; a key that may be missing is attrs[?"camera"], which derive sets as
// null, or attrs[?"camera"].orValue(""). A field whose name is no identifier is fields["its name"]; so are fields named
// like these variables:
//
//	_version   timestamp at which the record was written at its source
//	_key       its key as text, parts joined by "|"
//	_op        "upsert" or "delete"
//	now        start of the run, the same for every record and retry
//	fields     all fields by name
//
// Functions are those of CEL and its libraries for strings, math, lists, sets, regex, encoders and optional values, and
//
//	s.lower(), s.upper()   of any alphabet
//	time_of(id)            timestamp in a timeuuid, a UUID of version 7 or a ULID
//	json(s)                what a JSON text holds: json(payload)[?"format"].orValue("unknown"); its type is only known
//	                       then, so derive wants string(...), int(...), double(...) or bool(...) around it
//	hash(x)                of a string or bytes: an int from 0, stable for ever: hash(id) % 16
//	merge(m, n)            the map m with the entries of n, which win: merge(attrs, {"licence": "CC-BY"})
//	without(m, keys)       the map m without some keys: without(attrs, ["draft"]); lists: (tags + ["web"]).distinct()
package transforms
