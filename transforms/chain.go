package transforms

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Chain is a job's transforms, compiled for records of one schema. It is used by one goroutine at a time.
type Chain struct {
	Steps []CompiledStep
	In    *record.Schema // of what enters
	Out   *record.Schema // of what comes out

	known    *record.Schema // the last schema of a record that was found to be the same as In
	next     []func(*record.Record)
	emit     func(*record.Record)
	dead     func(*record.Record, string, error)
	filtered int
}

// CompiledStep is a step with its place in the chain.
type CompiledStep struct {
	Name    string
	Index   int // from 0; -1: a sink's own condition
	Step    Step
	In, Out *record.Schema

	config json.RawMessage
	run    *runner
}

// Label is the step's place in the job file, as dead letters and faults name it: "transforms.1.cast".
func (s CompiledStep) Label() string {
	if s.Index < 0 {
		return s.Name
	}
	return fmt.Sprintf("transforms.%d.%s", s.Index, s.Name)
}

// Is tells whether the step is called so, also by the labels of older releases: "transform 2: cast".
func (s CompiledStep) Is(label string) bool {
	return label == s.Label() || label == fmt.Sprintf("transform %d: %s", s.Index+1, s.Name)
}

// Apply applies the step alone. Unlike Step.Apply it turns a panic of the step into an error.
func (s CompiledStep) Apply(r *record.Record, emit func(*record.Record)) error {
	_, err := s.run.apply(r, emit)
	return err
}

// Compile compiles the transforms of a job for records of schema in. Its error joins a *FaultError for each fault, up
// to the first transform that has any: what follows depends on it. Unknown names are told of all.
func Compile(specs []Spec, in *record.Schema, o Options) (*Chain, error) {
	return CompileWhen("", specs, in, o)
}

const stepWhen = "when"

// CompileWhen is Compile with a condition before the transforms, which job files call `when`; "": none.
func CompileWhen(when string, specs []Spec, in *record.Schema, o Options) (*Chain, error) {
	c := &Chain{In: in, Out: in}
	var found faults
	if when != "" {
		config, err := json.Marshal(when)
		if err != nil {
			return nil, err
		}
		step, out, err := filter.Compile(config, in, o)
		if err != nil {
			found = append(found, placed(err, -1, stepWhen)...)
		} else {
			c.Steps = append(c.Steps, CompiledStep{Name: stepWhen, Index: -1, Step: step, In: in, Out: out,
				run: newRunner(step, out, true)})
		}
	}
	ofWhen := len(found) // they leave the schema as it is
	for i, spec := range specs {
		t, ok := registry[spec.Name]
		if !ok {
			var known []string
			for _, t := range All() {
				known = append(known, t.Name)
			}
			found.add(&FaultError{Index: i, Path: spec.Name,
				Message: "there is no such transform; " + fail.Suggest(spec.Name, known)})
			continue
		}
		if len(found) > ofWhen {
			continue
		}
		step, out, err := t.Compile(spec.Config, c.Out, o)
		if err != nil {
			found = append(found, placed(err, i, spec.Name)...)
			continue
		}
		c.Steps = append(c.Steps, CompiledStep{Name: spec.Name, Index: i, Step: step, In: c.Out, Out: out,
			config: spec.Config, run: newRunner(step, out, t.builtin)})
		c.Out = out
	}
	for i := range c.Steps {
		c.next = append(c.next, func(r *record.Record) { c.enter(i+1, r) })
	}
	return c, found.err()
}

// placed are the faults of one transform's Compile, with their place.
func placed(err error, index int, name string) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, placed(e, index, name)...)
		}
		return all
	}
	path, message := name, err.Error()
	if f, ok := errors.AsType[*FaultError](err); ok {
		message = f.Message
		if f.Path != "" {
			path += "." + f.Path
		}
	}
	return []error{&FaultError{Index: index, Path: path, Message: message}}
}

// Apply runs r through all steps. emit gets what comes out; dead gets a record as it entered the step that failed, that
// step's label and the error; filtered is the number of records that a step dropped. Each record ends in exactly one of
// the three. An error of class Fatal concerns every record: the caller ends the run. A panic of emit or dead is passed
// on, one of a step is an error "transform.panic".
func (c *Chain) Apply(r *record.Record, emit func(*record.Record),
	dead func(r *record.Record, step string, err error)) (filtered int) {
	if r.Schema != c.In {
		if r.Schema != c.known && !r.Schema.Same(c.In) {
			dead(r, "transforms", fail.New(fail.Fatal, "transform.schema",
				"a record has other fields than the transforms were compiled for"))
			return 0
		}
		c.known, r.Schema = r.Schema, c.In
	}
	c.emit, c.dead, c.filtered = emit, dead, 0
	c.enter(0, r)
	return c.filtered
}

func (c *Chain) enter(i int, r *record.Record) {
	if i == len(c.Steps) {
		c.emit(r)
		return
	}
	emitted, err := c.Steps[i].run.apply(r, c.next[i])
	switch {
	case err != nil:
		c.dead(r, c.Steps[i].Label(), err)
	case emitted == 0:
		c.filtered++
	}
}

// runner applies one step, and holds a team's own step to the contract.
type runner struct {
	step    Step
	out     *record.Schema
	builtin bool

	forward func(*record.Record) // what the step emits to
	emit    func(*record.Record)
	outside bool // emit is running: a panic is not the step's
	emitted int
	wrong   error // of what the step emitted

	before       record.Record // the record as it entered a team's own step
	beforeValues []record.Value
	beforeCells  []record.Cell
}

func newRunner(step Step, out *record.Schema, builtin bool) *runner {
	g := &runner{step: step, out: out, builtin: builtin}
	g.forward = func(r *record.Record) {
		if r.Schema != out {
			if !r.Schema.Same(out) || len(r.Values) != len(out.Fields) {
				g.wrong = fail.New(fail.Permanent, "transform.schema",
					"the step emitted a record that is not of the schema that its Compile gave")
				return
			}
			r.Schema = out
		}
		g.emitted++
		g.outside = true
		g.emit(r)
		g.outside = false
	}
	return g
}

func (g *runner) apply(r *record.Record, emit func(*record.Record)) (emitted int, err error) {
	g.emit, g.outside, g.emitted, g.wrong = emit, false, 0, nil
	if !g.builtin {
		g.save(r)
	}
	err = g.guarded(r)
	if err == nil {
		err = g.wrong
	}
	if err == nil {
		return g.emitted, nil
	}
	if !g.builtin && g.emitted == 0 {
		g.restore(r)
	}
	if _, classed := errors.AsType[*fail.Error](err); !classed {
		err = fail.New(fail.Permanent, "transform.failed", "%w", err)
	}
	return g.emitted, err
}

func (g *runner) guarded(r *record.Record) (err error) {
	defer func() {
		if g.outside {
			return
		}
		if p := recover(); p != nil {
			err = fail.New(fail.Permanent, "transform.panic", "%v, in %s", p, panicked())
		}
	}()
	return g.step.Apply(r, g.forward)
}

func (g *runner) save(r *record.Record) {
	g.before = *r
	g.beforeValues = append(g.beforeValues[:0], r.Values...)
	g.beforeCells = append(g.beforeCells[:0], r.Cells...)
}

func (g *runner) restore(r *record.Record) {
	*r = g.before
	copy(r.Values, g.beforeValues)
	copy(r.Cells, g.beforeCells)
}

// panicked is the function and line that panicked; it is called by a deferred function.
func panicked() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line)
		}
		if !more {
			return "unknown code"
		}
	}
}

// resize gives a record n fields; new ones are Unset.
func resize(r *record.Record, n int) {
	r.Values = resized(r.Values, n)
	if r.Cells != nil {
		r.Cells = resized(r.Cells, n)
	}
}

func resized[T any](s []T, n int) []T {
	if n <= len(s) {
		clear(s[n:])
		return s[:n]
	}
	was := len(s)
	if n > cap(s) {
		s = append(make([]T, 0, n+n/2), s...)
	}
	s = s[:n]
	clear(s[was:])
	return s
}

// derived is the cell of a field whose value was made of the record.
func derived(r *record.Record) record.Cell {
	return record.Cell{Version: r.Version, Expires: r.Expires}
}
