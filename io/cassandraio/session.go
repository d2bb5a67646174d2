package cassandraio

import (
	"context"
	"iter"

	"github.com/gocql/gocql"

	"reprise/io/connector"
)

// Session runs statements on what is not records: the tables of a journal. It reads and writes at LOCAL_QUORUM,
// conditions at LOCAL_SERIAL, and passes no gate. Its methods may be called from several goroutines.
type Session struct {
	session *gocql.Session
}

// NewSession connects to a cluster.
func NewSession(ctx context.Context, c Connection) (*Session, error) {
	session, err := connect(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Session{session}, nil
}

// Close closes the connections.
func (s *Session) Close() { s.session.Close() }

// Exec runs a statement that may be repeated: it does so for as long as connector.DefaultRetry says.
func (s *Session) Exec(ctx context.Context, st Statement) error {
	return again(ctx, func() error {
		return s.session.Query(st.CQL, st.Values...).WithContext(ctx).Consistency(gocql.LocalQuorum).Exec()
	})
}

// Rows gives the rows of a query, each as a function that scans it.
func (s *Session) Rows(ctx context.Context, st Statement) iter.Seq2[func(...any) error, error] {
	return s.rows(ctx, gocql.LocalQuorum, st)
}

// Latest gives the rows of a query about one partition, which see all that conditional statements have written,
// also those that ended in a timeout: what has not been written by then on account of such a one will not be,
// unless its condition still holds.
func (s *Session) Latest(ctx context.Context, st Statement) iter.Seq2[func(...any) error, error] {
	return s.rows(ctx, gocql.Consistency(gocql.LocalSerial), st)
}

func (s *Session) rows(ctx context.Context, level gocql.Consistency,
	st Statement) iter.Seq2[func(...any) error, error] {
	return func(yield func(func(...any) error, error) bool) {
		for state := []byte(nil); ; {
			var page *gocql.Iter
			err := again(ctx, func() error {
				page = s.session.Query(st.CQL, st.Values...).WithContext(ctx).Consistency(level).PageSize(1000).
					PageState(state).Iter()
				if len(page.Columns()) == 0 { // which an error leaves
					return page.Close()
				}
				return nil
			})
			if err != nil {
				yield(nil, err)
				return
			}
			state = page.PageState()
			rows := page.Scanner()
			for rows.Next() {
				if !yield(rows.Scan, nil) {
					page.Close()
					return
				}
			}
			if err := rows.Err(); err != nil {
				yield(nil, classify(err))
				return
			}
			if len(state) == 0 {
				return
			}
		}
	}
}

// Apply runs statements about one partition, one of which at least has a condition, as one: all of them if all
// conditions hold. It tells else what the columns of the conditions hold. It tries once; an error of class Transient or
// Throttled leaves open whether they were applied.
func (s *Session) Apply(ctx context.Context,
	statements ...Statement) (applied bool, current map[string]any, err error) {
	batch := s.session.NewBatch(gocql.LoggedBatch).WithContext(ctx).SerialConsistency(gocql.LocalSerial)
	batch.SetConsistency(gocql.LocalQuorum)
	for _, st := range statements {
		batch.Query(st.CQL, st.Values...)
	}
	current = map[string]any{}
	applied, rows, err := s.session.MapExecuteBatchCAS(batch, current)
	if err == nil {
		err = rows.Close()
	}
	return applied, current, classify(lost(ctx, err))
}

// again sends a request until it passes or fails for good.
func again(ctx context.Context, send func() error) error {
	return connector.Request(connector.WithGate(ctx, nil), connector.DefaultRetry, func() (int, int64, error) {
		return 0, 0, classify(lost(ctx, send()))
	})
}
