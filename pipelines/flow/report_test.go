package flow

import (
	"strings"
	"testing"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func outcomes(written, unchanged, superseded, filtered, dead int64) record.Counts {
	return record.Counts{written, unchanged, superseded, filtered, dead}
}

// good is the tallies of a run of ten rows in which everything happened once.
func good() map[string]map[string]tally {
	return map[string]map[string]tally{
		stageSource:          {"s1": {In: 10, Out: 9, Outcomes: outcomes(0, 0, 0, 0, 1)}},
		stageTransforms:      {"s1": {In: 9, Made: 2, Out: 9, Outcomes: outcomes(0, 0, 0, 1, 1)}},
		stageSink("a"):       {"s1": {In: 9, Out: 9, Outcomes: outcomes(6, 1, 1, 0, 1)}},
		stageSink("b"):       {"s1": {In: 9, Out: 8, Outcomes: outcomes(8, 0, 0, 1, 0)}},
		"commit " + "sink b": {"": {Out: 8}},
		stageQueue:           {"": {Out: 3}},
	}
}

func TestBalance(t *testing.T) {
	run := connector.Run{ID: "r", Job: "j"}
	r := balance(run, []string{"a", "b"}, good())
	if len(r.Faults) > 0 {
		t.Fatalf("a good run has faults: %q", r.Faults)
	}
	if r.Read != 10 || r.DeadLetters != 3 || r.Splits != 1 {
		t.Errorf("read %d, dead letters %d, splits %d", r.Read, r.DeadLetters, r.Splits)
	}
	if got, want := r.Sinks["a"].Outcomes, outcomes(6, 1, 1, 1, 3); got != want {
		t.Errorf("sink a: %v, want %v", got, want)
	}
	if got, want := r.Sinks["b"].Outcomes, outcomes(8, 0, 0, 2, 2); got != want {
		t.Errorf("sink b: %v, want %v", got, want)
	}
}

// TestBalanceFindsEveryLoss changes each number of a good run by one: each time the run must not balance.
func TestBalanceFindsEveryLoss(t *testing.T) {
	run := connector.Run{ID: "r", Job: "j"}
	for stage, of := range good() {
		for split, was := range of {
			changes := map[string]func(*tally){
				"out": func(x *tally) { x.Out-- },
				"in":  func(x *tally) { x.In++ },
			}
			for o := range was.Outcomes {
				changes[record.Outcome(o).String()] = func(x *tally) { x.Outcomes[o]++ }
			}
			for name, change := range changes {
				if stage == stageQueue && name != "out" || strings.HasPrefix(stage, "commit") && name != "out" {
					continue // these stages count what they wrote alone
				}
				if strings.HasPrefix(stage, "sink") && name == "out" {
					continue // what a sink's own chain hands on is inside its outcomes
				}
				sums := good()
				x := was
				change(&x)
				sums[stage][split] = x
				if r := balance(run, []string{"a", "b"}, sums); len(r.Faults) == 0 {
					t.Errorf("%s of %q changed, and the run still balances", name, stage)
				}
			}
		}
	}
	lost := good()
	delete(lost, stageSink("a"))
	if r := balance(run, []string{"a", "b"}, lost); len(r.Faults) == 0 {
		t.Error("a sink that told nothing balances")
	}
}
