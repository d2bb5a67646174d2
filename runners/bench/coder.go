package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
)

// coder measures the coder of records against Beam's row coder, by the benchmark of pipelines/travel. Beam's share in
// calling a coder is in the row coder's time; so ours is told alone, which has the target, and as Beam calls it.
func (b *bench) coder(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkCoder$", "-count",
		fmt.Sprint(b.Rounds), "./pipelines/travel").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	ours, err := fastest(out, "record-alone")
	if err != nil {
		return err
	}
	called, err := fastest(out, "record")
	if err != nil {
		return err
	}
	beam, err := fastest(out, "beam-row")
	if err != nil {
		return err
	}
	b.report.add(line{"encoding and decoding an asset of 12 fields", fmt.Sprintf("%.0f ns", ours.ns),
		fmt.Sprintf("Beam's row coder: %.0f ns", beam.ns), beam.ns / ours.ns, atLeast(5)})
	b.report.add(line{what: "as Beam calls it", ours: fmt.Sprintf("%.0f ns, %v allocations", called.ns, called.allocs),
		theirs: fmt.Sprintf("Beam's row coder takes %.1f times as long", beam.ns/called.ns)})
	b.report.add(line{"its allocations", fmt.Sprint(ours.allocs), fmt.Sprintf("Beam's row coder: %v", beam.allocs),
		ours.allocs / beam.allocs, atMost(0.333, "")})
	return nil
}

type operation struct{ ns, allocs float64 }

// fastest reads the output of go test -bench.
func fastest(out []byte, name string) (operation, error) {
	best := operation{}
	is := regexp.MustCompile(`^BenchmarkCoder/` + name + `(-\d+)?\s`) // with the number of processors
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if !is.MatchString(lines.Text()) {
			continue
		}
		var full string
		var n, size int64
		var o operation
		if _, err := fmt.Sscanf(lines.Text(), "%s %d %f ns/op %d B/op %f allocs/op", &full, &n, &o.ns, &size,
			&o.allocs); err != nil {
			return best, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if best.ns == 0 || o.ns < best.ns {
			best = o
		}
	}
	if best.ns == 0 {
		return best, fmt.Errorf("BenchmarkCoder/%s has not run: %s", name, out)
	}
	return best, nil
}
