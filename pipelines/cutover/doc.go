// Package cutover moves searches from an old index to a new one, which may be on another cluster, in steps of which
// each is refused unless the one before is proven.
//
//	create     makes the new index
//	backfill   a run of the job fills it, beside the live feed
//	catch-up   a further run brings what was written since the backfill began
//	verify     source and index are compared, both ways
//	swap       the alias moves to the new index, in one request; searches notice nothing
//	switch     from another cluster alone: the application is given the new address, and searches come there
//	settle     a last run brings what was written through the alias into the old index since the last catch-up began
//	watch      searches through the alias, the number of documents and a probe are looked at for a time
//	retire     the old index is deleted, when asked for by name alone
//
// # Live writes
//
// All runs write with external_gte: what a live writer has written to the new index stays where it is newer. Live
// writers should write to both indices before catch-up begins, with the version of the source; deletes need that,
// since a scan of the source does not see what is gone, and verification finds those that are left over. Writers that
// know the alias alone write into the old index until the swap: what came after catch-up began is missing in the new
// one until settle has ended. Before retire they stop writing to the old index: the server would make it anew.
//
// # What is remembered
//
// The state is noted in the new index's mapping (_meta.reprise.cutover), not in the journal: it goes when the index
// is deleted, so nothing is taken as proven of another index of the same name; every machine that reaches the index
// finds it; and a journal that is lost takes no proof along. That the backfill is whole is asked of the journal each
// time. Before the alias moves, the old index is noted with its UUID, so that a crash at any moment leaves enough to
// go on, to roll back or to retire. Every step may be repeated.
//
// # Rolling back
//
// Back moves the alias to the old index, in one request, as long as that is there. It then lacks what was written
// since the swap through the alias alone. To go forward again, catch-up and verify are needed again. The command goes
// back by itself when the watch fails: searches that fail do more harm than ones that miss what is minutes old, and
// nobody may be awake.
//
// # Across clusters
//
// An alias belongs to one cluster, so none moves: the swap makes it on the new cluster, and it is the application
// that is switched to its address. Whether it has is seen by the shards' own count of searches, which asks for no
// trust: switch waits until it rises on the new index; Back removes the alias only once it rises there no more, and
// retire deletes the old index only once it rises there no more. Until then nothing on the old cluster is changed. A
// watch that fails tells what to do, since nobody but the application can go back.
package cutover
