// Package flow is the Beam graph of a run, the only package that builds one:
//
//	splits → read → transform → sink, sink, ...
//	           ↓        ↓          ↓     ↓
//	           dead letters and tallies, parts → queue, commit, report
//
// Read, transforms and sinks fuse into one stage, so that records are never shuffled nor encoded; only dead letters,
// counts and the parts to be committed are. What a DoFn needs travels in its exported fields; everything else is opened
// in Setup on the worker.
package flow
