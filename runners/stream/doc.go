// Package stream proves runs that go on: they follow a topic to which somebody produces all the time, with several
// members or alone, while processes are killed and frozen, brokers fail, the topic grows and its retention deletes what
// was not read. What the targets hold is read by clients that are not our own code.
//
//	go test ./runners/stream -v -kills 50 -seed 7
package stream
