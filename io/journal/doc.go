// Package journal is the durable state of runs: what each one is to do, how far it has come, how it ended. It is a store like the
// others, since steps on workers write it. This one is an SQLite file, which several processes of one machine, or of machines that
// share a disk with working locks, may use at once.
//
// Nothing in it is secret: job files hold references to secrets alone.
package journal
