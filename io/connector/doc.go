// Package connector is the contract between Reprise and a system: what a source and a sink do, what a split is, and the
// parts that every system needs once and not again: batches with retries, templates, the types of settings.
//
// A system is one package io/<system>io with config.go, source.go, sink.go and tests; it
// passes the suites of io/iotest.
package connector
