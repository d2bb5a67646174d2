package beamio

import (
	"context"
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/util/reflectx"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"reprise/transforms/record"
)

func init() {
	for _, fn := range []any{&planFn{}, &readFn{}, &applyFn{}, &writeFn{}, &commitFn{}, &letterFn{}} {
		beam.RegisterDoFn(reflect.TypeOf(fn).Elem())
	}
	beam.RegisterType(reflect.TypeFor[part]())
	register.Emitter1[*record.Record]()
	register.Emitter2[beam.EventTime, *record.Record]()
	register.Emitter3[beam.EventTime, string, *record.Record]()
	// What is called for each record goes without reflection. Package register does so too, by wrappers that take a
	// minute to compile.
	reflectx.RegisterFunc(reflect.TypeFor[applies](), func(fn any) reflectx.Func { return &applyCall{fn.(applies)} })
	reflectx.RegisterFunc(reflect.TypeFor[writes](), func(fn any) reflectx.Func { return &writeCall{fn.(writes)} })
}

// The types of the ProcessElement of applyFn and writeFn.
type (
	applies = func(context.Context, *record.Record, func(*record.Record), func(*record.DeadLetter)) error
	writes  = func(context.Context, beam.EventTime, *record.Record, func(beam.EventTime, string, *record.Record),
		func(beam.EventTime, *record.DeadLetter), func(part)) error
)

type applyCall struct{ fn applies }

// Name implements reflectx.Func.
func (c *applyCall) Name() string { return reflectx.FunctionName(c.fn) }

// Type implements reflectx.Func.
func (c *applyCall) Type() reflect.Type { return reflect.TypeOf(c.fn) }

// Call implements reflectx.Func.
func (c *applyCall) Call(args []any) []any {
	return []any{c.Call4x1(args[0], args[1], args[2], args[3])}
}

// Call4x1 implements reflectx.Func4x1.
func (c *applyCall) Call4x1(ctx, r, emit, dead any) any {
	return c.fn(ctx.(context.Context), r.(*record.Record), emit.(func(*record.Record)), dead.(func(*record.DeadLetter)))
}

type writeCall struct{ fn writes }

// Name implements reflectx.Func.
func (c *writeCall) Name() string { return reflectx.FunctionName(c.fn) }

// Type implements reflectx.Func.
func (c *writeCall) Type() reflect.Type { return reflect.TypeOf(c.fn) }

// Call implements reflectx.Func.
func (c *writeCall) Call(args []any) []any {
	return []any{c.Call6x1(args[0], args[1], args[2], args[3], args[4], args[5])}
}

// Call6x1 implements reflectx.Func6x1.
func (c *writeCall) Call6x1(ctx, at, r, outcome, dead, parts any) any {
	return c.fn(ctx.(context.Context), at.(beam.EventTime), r.(*record.Record),
		outcome.(func(beam.EventTime, string, *record.Record)), dead.(func(beam.EventTime, *record.DeadLetter)),
		parts.(func(part)))
}
