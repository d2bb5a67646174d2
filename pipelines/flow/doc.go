// Package flow is the Beam graph of an attempt at a run:
//
//	plan → deal → pass → end
//
// What travels between the steps is splits alone. A pass takes the rest of its splits all the way: pages are read ahead, go through
// the transforms to the lanes of the sinks, and each page that a sink has finished is written to the journal, together with what became of
// its records, the dead letters that it left and the parts that are to be committed. So a kill at any moment costs no more than the pages on
// their way, which the window bounds, and another attempt, on whatever runner, reads only the rest. The end looks
// whether the plan is covered, commits and reports.
//
// What a DoFn needs travels in its exported fields; everything else is opened in Setup on the worker.
package flow
