package cassandraio

import (
	"context"
	"fmt"
	"strings"
)

// Execute runs CQL statements one after the other, each with its own values; for set-up, not for records. Each must be
// safe to repeat (IF NOT EXISTS).
func Execute(ctx context.Context, c Connection, statements ...Statement) error {
	session, err := connect(ctx, c)
	if err != nil {
		return err
	}
	defer session.Close()
	for _, s := range statements {
		if err := session.Query(s.CQL, s.Values...).WithContext(ctx).Exec(); err != nil {
			return fmt.Errorf("%.60q: %w", s.CQL, classify(err))
		}
	}
	return nil
}

// Statement is a CQL statement with the values for its markers.
type Statement struct {
	CQL    string
	Values []any
}

// Statements cuts a script at its semicolons, which must not stand within a text; lines with -- are comments.
func Statements(script string) []Statement {
	var lines []string
	for line := range strings.Lines(script) {
		if code, _, _ := strings.Cut(line, "--"); strings.TrimSpace(code) != "" {
			lines = append(lines, code)
		}
	}
	var all []Statement
	for s := range strings.SplitSeq(strings.Join(lines, "\n"), ";") {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, Statement{CQL: s})
		}
	}
	return all
}
