package transforms

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// costLimit bounds the work of one expression on one record, in CEL's units: about 0.3 s.
const costLimit = 1_000_000

// language is CEL with its libraries and our functions, without variables. Nothing in it can grow a value but by the
// size of the expression: no bindings, no ranges of numbers beyond this bound.
var language = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewCustomEnv(append(functions(),
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{
			ExcludeFunctions: []*env.Function{{Name: overloads.TypeConvertTimestamp}}})),
		ext.Strings(), ext.Math(), ext.Encoders(), ext.Sets(), ext.Lists(ext.ListsMaxRangeSize(100_000)),
		cel.OptionalTypes(), ext.Regex(),
		cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true), cel.RegexProgramSizeLimit(10_000),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals()),
	)...)
})

// The variables that every expression has beside the fields. They hide fields of the same name, which fields["now"]
// still gives.
const (
	varVersion = "_version"
	varKey     = "_key"
	varOp      = "_op"
	varNow     = "now"
	varFields  = "fields"
)

// scope is the language with the fields of a schema as variables.
type scope struct {
	env *cel.Env
	in  *record.Schema
	all record.Type // the fields as one UDT
	now types.Timestamp
}

func newScope(in *record.Schema, o Options) (*scope, error) {
	base, err := language()
	if err != nil {
		return nil, err
	}
	variables := []cel.EnvOption{
		cel.Variable(varVersion, cel.TimestampType), cel.Variable(varKey, cel.StringType),
		cel.Variable(varOp, cel.StringType),
		cel.Variable(varNow, cel.TimestampType), cel.Variable(varFields, cel.MapType(cel.StringType, cel.DynType)),
	}
	for _, f := range in.Fields {
		if isVariable(f.Name) {
			variables = append(variables, cel.Variable(f.Name, variableType(f.Type)))
		}
	}
	env, err := base.Extend(variables...)
	return &scope{env: env, in: in, all: record.UDTOf(varFields, in.Fields...),
		now: types.Timestamp{Time: o.Now.UTC()}}, err
}

var (
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	reserved   = []string{"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
		"let", "loop",
		"namespace", "null", "package", "return", "true", "var", "void", "while", varVersion, varKey, varOp, varNow,
		varFields}
)

// isVariable tells whether an expression can name a field directly.
func isVariable(name string) bool {
	return identifier.MatchString(name) && !slices.Contains(reserved, name)
}

// expression is a compiled CEL expression.
type expression struct {
	text    string
	program cel.Program
	out     *cel.Type
	typ     record.Type // of a plain path to a field or part; else of kind Unset
	vars    []variable
	keyOnly bool // reads nothing but fields of the key, or asks for _op: a delete can be judged
	scope   *scope
	r       *record.Record // while it runs
}

// variable is a variable that an expression reads.
type variable struct {
	name  string
	field int // -1: one of the special ones
}

// compile compiles text; it reports faults, each with line, column and a caret.
func (s *scope) compile(f *faults, path, text string) *expression {
	if strings.TrimSpace(text) == "" {
		f.addf(path, "an expression is needed")
		return nil
	}
	checked, issues := s.env.Compile(text)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			f.addf(path, "%s", s.explain(text, e.Location.Line(), e.Location.Column(), e.Message))
			if strings.HasPrefix(e.Message, "Syntax error") {
				break // the others follow from it
			}
		}
		return nil
	}
	x := &expression{text: text, out: checked.OutputType(), scope: s}
	tree := checked.NativeRep()
	limited := false
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			limited = true
		case ast.CallKind:
			fn := e.AsCall().FunctionName()
			limited = limited || strings.HasPrefix(fn, "sets.") || strings.HasPrefix(fn, "lists.") || fn == "distinct"
		case ast.IdentKind:
			x.reads(tree, e)
		}
		s.checkPart(f, path, text, tree, e)
	}))
	x.typ, _ = s.pathType(tree.Expr())
	x.keyOnly = s.keyOnly(x.vars)
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	// without loops the work is bounded by the sizes of expression and record, and counting would double its time
	if limited {
		options = append(options, cel.CostLimit(costLimit))
	}
	var err error
	if x.program, err = s.env.Program(checked, options...); err != nil {
		f.addf(path, "%v", err)
	}
	return x
}

// condition compiles an expression that must be true or false.
func (s *scope) condition(f *faults, path, text string) *expression {
	x := s.compile(f, path, text)
	if x != nil && x.out.Kind() != types.BoolKind && x.out.Kind() != types.DynKind {
		f.addf(path, "a condition is true or false, but this gives %s: %s", typeName(x.out), text)
	}
	return x
}

// reads notes a variable of the scope that the expression reads; those of loops are not.
func (x *expression) reads(tree *ast.AST, e ast.Expr) {
	reference, ok := tree.ReferenceMap()[e.ID()]
	if !ok || reference.Name == "" ||
		slices.ContainsFunc(x.vars, func(v variable) bool { return v.name == reference.Name }) {
		return
	}
	switch name := reference.Name; name {
	case varVersion, varKey, varOp, varNow, varFields:
		x.vars = append(x.vars, variable{name, -1})
	default:
		if i := x.scope.in.Index(name); i >= 0 && isVariable(name) {
			x.vars = append(x.vars, variable{name, i})
		}
	}
}

func (s *scope) keyOnly(vars []variable) bool {
	only := true
	for _, v := range vars {
		if v.name == varOp {
			return true
		}
		only = only && v.name != varFields && (v.field < 0 || slices.Contains(s.in.Key, v.field))
	}
	return only
}

// pathType is the type of an expression that is a field or a part of one.
func (s *scope) pathType(e ast.Expr) (record.Type, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		if e.AsIdent() == varFields {
			return s.all, true
		}
		if i := s.in.Index(e.AsIdent()); i >= 0 && isVariable(e.AsIdent()) {
			return s.in.Fields[i].Type, true
		}
	case ast.SelectKind, ast.CallKind:
		whole, part, ok := partOf(e)
		if !ok {
			break
		}
		t, ok := s.pathType(whole)
		switch i := slices.Index(t.Names, part); {
		case ok && t.Kind == record.UDT && i >= 0:
			return t.Elems[i], true
		case ok && t.Kind == record.Map:
			return t.Elems[1], true
		}
	}
	return record.Type{}, false
}

// partOf takes whole.part and whole["part"] apart.
func partOf(e ast.Expr) (whole ast.Expr, part string, ok bool) {
	if e.Kind() == ast.SelectKind {
		return e.AsSelect().Operand(), e.AsSelect().FieldName(), !e.AsSelect().IsTestOnly()
	}
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.Index ||
		e.AsCall().Args()[1].Kind() != ast.LiteralKind {
		return nil, "", false
	}
	text, ok := e.AsCall().Args()[1].AsLiteral().(types.String)
	return e.AsCall().Args()[0], string(text), ok
}

// checkPart reports a part that a UDT, or the fields, do not have, which CEL would only find at run time.
func (s *scope) checkPart(f *faults, path, text string, tree *ast.AST, e ast.Expr) {
	whole, part, ok := partOf(e)
	if !ok {
		return
	}
	t, ok := s.pathType(whole)
	if ok && t.Kind == record.UDT && !slices.Contains(t.Names, part) {
		at := tree.SourceInfo().GetStartLocation(e.ID())
		f.addf(path, "%s", s.explain(text, at.Line(), at.Column(),
			fmt.Sprintf("there is no %q; %s", part, fail.Suggest(part, t.Names))))
	}
}

var (
	wrapper    = regexp.MustCompile(`wrapper\((\w+)\)`)
	operator   = regexp.MustCompile(`'?[!_]?([^\s\w']+|in)_'?|_\[_\]`)
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'.*`)
	unexpected = regexp.MustCompile(`^Syntax error: .* input '(\w+)'`)
	expecting  = regexp.MustCompile(` expecting \{.*`)
)

// explain is a fault of an expression: where, what, what would be right where that is known, the line and a caret.
func (s *scope) explain(text string, line, column int, message string) string {
	message = expecting.ReplaceAllString(readable(message), "")
	hint := ""
	switch {
	case undeclared.MatchString(message):
		name := undeclared.FindStringSubmatch(message)[1]
		message = fmt.Sprintf("there is no field or function %q", name)
		if hint = "the fields are " + strings.Join(s.in.Names(), ", "); fail.Nearest(name, s.known()) != "" {
			hint = fail.Suggest(name, s.known())
		}
	case strings.Contains(message, "null)'") || strings.Contains(message, "'(null, "):
		hint = "a list, set, map or UDT is never null here but empty: compare its size() with 0"
	case strings.Contains(message, "'(int, double)'") || strings.Contains(message, "'(double, int)'"):
		hint = "write double(x) or int(x) to make both the same"
	case strings.Contains(message, "'(string, int)'") || strings.Contains(message, "'(string, double)'"):
		hint = "write int(x) or double(x) for the number in a text; decimals and varints are texts here"
	case strings.Contains(message, "token recognition error at: '='"),
		strings.Contains(message, "token recognition error at: '= '"):
		hint = "write == to compare"
	case message == "invalid timestamp argument":
		hint = `write timestamp("2024-05-01") or timestamp("2024-05-01T12:00:00Z"); numbers are seconds since 1970`
	case unexpected.MatchString(message):
		if name := unexpected.FindStringSubmatch(message)[1]; s.in.Index(name) >= 0 {
			hint = fmt.Sprintf("the word has a meaning of its own: write fields[%q]", name)
		}
	}
	if hint != "" {
		message += "; " + hint
	}
	var b strings.Builder
	fmt.Fprintf(&b, "line %d, column %d: %s", line, column+1, message)
	if lines := strings.Split(text, "\n"); line >= 1 && line <= len(lines) {
		column = max(0, min(column, utf8.RuneCountInString(lines[line-1])))
		fmt.Fprintf(&b, "\n  %s\n  %s^", lines[line-1], strings.Repeat(" ", column))
	}
	return b.String()
}

// known are the names that an expression can use; the fields stand first.
func (s *scope) known() []string {
	names := slices.DeleteFunc(s.in.Names(), func(name string) bool { return !isVariable(name) })
	names = append(names, varVersion, varKey, varOp, varNow, varFields)
	var functions []string
	for name := range s.env.Functions() {
		if identifier.MatchString(name) && name[0] != '_' {
			functions = append(functions, name)
		}
	}
	slices.Sort(functions)
	return append(names, functions...)
}

// readable writes CEL's names of operators and nullable types as people do.
func readable(message string) string {
	return operator.ReplaceAllString(wrapper.ReplaceAllString(message, "$1"), "$1")
}

func typeName(t *cel.Type) string { return wrapper.ReplaceAllString(t.String(), "$1") }

// eval is the value of the expression for a record.
func (x *expression) eval(r *record.Record) (ref.Val, error) {
	x.r = r
	v, _, err := x.program.Eval(x)
	x.r = nil
	if err != nil {
		return nil, x.failed(r, err)
	}
	return v, nil
}

// holds is the truth of a condition for a record.
func (x *expression) holds(r *record.Record) (bool, error) {
	v, err := x.eval(r)
	if err != nil {
		return false, err
	}
	if b, ok := v.(types.Bool); ok {
		return bool(b), nil
	}
	return false, x.failed(r, fmt.Errorf("neither true nor false but %s", v.Type().TypeName()))
}

// failed is the error of an expression; it names the fields that are null, the usual reason.
func (x *expression) failed(r *record.Record, err error) error {
	if cancelled, ok := errors.AsType[interpreter.EvalCancelledError](err); ok &&
		cancelled.Cause == interpreter.CostLimitExceeded {
		return fail.New(fail.Permanent, "transform.cost", "%s: more work than one record may take", x.text)
	}
	failure := fail.New(fail.Permanent, "transform.expression", "%s: %s", x.text, readable(err.Error()))
	for _, v := range x.vars {
		if v.field >= 0 && r.Values[v.field].IsNull() {
			failure.Message += "; " + v.name + " is null"
			failure.Fix = "test for it: " + v.name + " != null && ..."
			if x.scope.in.Fields[v.field].Type.Kind.Nested() {
				failure.Fix = "test for it: size(" + v.name + ") > 0 && ..."
			}
		}
	}
	return failure
}

// ResolveName implements cel.Activation: values are converted when an expression asks for them.
func (x *expression) ResolveName(name string) (any, bool) {
	for i := range x.vars {
		if v := &x.vars[i]; v.name == name {
			if v.field >= 0 {
				return toCEL(x.r.Values[v.field], &x.scope.in.Fields[v.field].Type), true
			}
			return x.special(name), true
		}
	}
	return nil, false
}

// Parent implements cel.Activation.
func (x *expression) Parent() cel.Activation { return nil }

func (x *expression) special(name string) any {
	switch name {
	case varVersion:
		return types.Timestamp{Time: time.UnixMicro(x.r.Version).UTC()}
	case varKey:
		return types.String(x.r.KeyText())
	case varOp:
		return types.String(x.r.Op.String())
	case varNow:
		return x.scope.now
	}
	return &mapValue{record.Nested(record.UDT, x.r.Values), &x.scope.all}
}
