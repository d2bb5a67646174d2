// Package outage proves what a run does while one of its servers is killed, stopped, frozen, slow, overloaded, or cut
// off in the middle of an answer: it waits, or leaves the sink behind, or pauses with the reason, and in the end the
// targets hold what they should. What a production that suffers does to it, and a journal that is gone, is shown here,
// too.
//
//	go test ./runners/outage -v -all -rows 20000
//
// Some outages are part of all tests; -all is each server with each of them.
package outage
