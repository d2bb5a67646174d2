package job

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"reprise/io/connector"
	"reprise/transforms"
	"reprise/transforms/record"
)

// Compiled is what a job's transforms become on a schema.
type Compiled struct {
	Shared *transforms.Chain
	Sinks  map[string]*transforms.Chain
}

// Compile compiles all transforms of the job for records of a schema. Its error tells all faults as that of Parse does;
// those of sinks only once the shared transforms are right, since they depend on them.
func (j *Job) Compile(in *record.Schema, o transforms.Options) (*Compiled, error) {
	shared, err := transforms.Compile(j.Transforms, in, o)
	if err != nil {
		return nil, j.file.err(transformFaults(err, ""))
	}
	c := &Compiled{Shared: shared, Sinks: map[string]*transforms.Chain{}}
	var faults []fault
	for _, name := range slices.Sorted(maps.Keys(j.Sinks)) {
		chain, wrong := j.sinkChain(name, shared.Out, o)
		c.Sinks[name] = chain
		if faults = append(faults, wrong...); len(wrong) == 0 {
			faults = append(faults, j.onceFaults(name, shared, chain)...)
		}
	}
	if len(faults) > 0 {
		return nil, j.file.err(faults)
	}
	return c, nil
}

// SinkChain is the chain of one sink alone: its condition, then its transforms.
func (j *Job) SinkChain(name string, in *record.Schema, o transforms.Options) (*transforms.Chain, error) {
	chain, faults := j.sinkChain(name, in, o)
	if len(faults) > 0 {
		return nil, j.file.err(faults)
	}
	return chain, nil
}

func (j *Job) sinkChain(name string, in *record.Schema, o transforms.Options) (*transforms.Chain, []fault) {
	sink := j.Sinks[name]
	chain, err := transforms.CompileWhen(sink.When, sink.Transforms, in, o)
	return chain, transformFaults(err, "sinks."+name+".")
}

// Placed shows an error at its place in the job file, where it has one.
func (j *Job) Placed(err error) error {
	if m, ok := errors.AsType[*connector.Misplaced](err); ok && j.file != nil {
		return j.file.err([]fault{{path: m.Fault.Path, message: m.Fault.Message}})
	}
	return err
}

// transformFaults takes apart what transforms.Compile joins; path is of what holds the transforms.
func transformFaults(err error, path string) (faults []fault) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, e := range all {
		x, ok := e.(*transforms.FaultError)
		switch {
		case e == nil:
		case !ok:
			faults = append(faults, fault{path: path + "transforms", message: e.Error()})
		case x.Index < 0:
			faults = append(faults, fault{path: path + x.Path, message: x.Message})
		default:
			faults = append(faults, fault{path: fmt.Sprintf("%stransforms.%d.%s", path, x.Index, x.Path),
				message: x.Message})
		}
	}
	return faults
}
