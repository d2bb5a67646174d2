// Package soak proves that runs survive kills: its tests end the built command with SIGKILL again and again while it
// runs the main job, go on with other settings each time, and compare what other programs then read in the targets with
// an undisturbed run.
//
//	go test ./runners/soak -v -run TestKills -kills 50 -rows 200000 -seed 7
//
// A run that publishes events is killed too; what is counted there are the messages that a kill repeats
// (-publish-kills).
//
// A few kills are part of all tests; `make soak` is the long form. A seed draws the settings and the moments of the
// kills; what the machine does at those moments it cannot repeat.
package soak
