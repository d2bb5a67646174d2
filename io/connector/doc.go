// Package connector is the contract between Reprise and a system: what a source and a sink do, what a split is, and the
// parts that every system needs once and not again: batches with retries, templates, the types of settings.
//
// A system is one package io/NAMEio with config.go, kind.go, source.go, sink.go and tests. It registers itself as a
// Kind, with what its settings can do beyond reading and writing, and passes the suites of io/iotest; runners/newsystem
// is the recipe.
package connector
