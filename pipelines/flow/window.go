package flow

import "reprise/pipelines/job"

// What may be read and not finished is a limit of the whole run (job.Limits.Window). It is shared out here:
//
//   - Each worker has its part of it.
//   - Two thirds of the part are rows that have been handed to the lanes and are not finished: the window of a pass.
//   - The last third is for readers, each of which holds two pages: one that waits to be taken, one that is being read.
//     So a page has at most a quarter of a reader's part of the window: 2 * 1/4 of two thirds is a third.
//
// Sinks are told to send what they have gathered once that is a quarter of the window, so that several requests are
// under way while the next are filled. A sink that commits writes a file each time, of which there should be few: it
// gathers half of the window, or all of it where no other sink waits for room.

// WindowOf is the Setting.Window of each of some workers, for a run that is planned to read some rows.
func WindowOf(limits job.Limits, planned int64, workers int) int {
	return max(1, limits.Window(planned)*2/3/workers)
}

// window is the number of rows that a pass may have handed out and not finished.
type window int64

// page is the largest page that one of some readers may read.
func (w window) page(readers int) int { return max(1, int(w)/(4*readers)) }

// quarter is what is worth a request, or an entry in the journal.
func (w window) quarter() int64 { return max(1, int64(w)/4) }

// gathers is how much a sink gathers before it is told to send. alone: all sinks commit.
func (w window) gathers(commits, alone bool) int64 {
	switch {
	case commits && alone:
		return max(1, int64(w))
	case commits:
		return max(1, int64(w)/2)
	}
	return w.quarter()
}
