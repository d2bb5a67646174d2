// Package record holds the one thing that flows through a run: a record with its key, typed fields, version,
// origin and operation, and what becomes of it: an outcome at each sink, or a dead letter.
//
// The types are those of CQL, the richest of the systems that Reprise reads; every other system maps onto them.
// The package imports nothing of the project but its error type, and no system.
package record
