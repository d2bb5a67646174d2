// Package flow is the Beam graph of an attempt at a run:
//
//	plan → deal → pass → end
//
// What travels between the steps is splits alone. A pass takes the rest of its splits all the way: pages are read
// ahead, go through the transforms to the lanes of the sinks, and each page that a sink has finished is written to
// the journal, together with what became of its records, the dead letters that it left and the parts that are to be
// committed. So a kill at any moment costs no more than the pages on their way, which the window bounds, and another
// attempt, on whatever runner, reads only the rest. The end looks whether the plan is covered, commits and reports.
//
// A pass has three parts. The reader reads the rest of the splits ahead and claims each page before anybody gets it
// (reader.go, tracker.go, rest.go). The lanes take its records through the transforms to the sinks, and give up a
// sink that fails (handout.go, lanes.go, after.go). The keeper makes checkpoints and writes down in the journal what
// is finished (keeper.go). The ledger stands between the last two: it knows of each page what every lane still owes.
// The heart keeps the pass in touch with the run's journal meanwhile, and window.go says how much may be under way.
//
// What a DoFn needs travels in its exported fields; everything else is opened in Setup on the worker.
package flow
