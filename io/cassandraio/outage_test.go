package cassandraio

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// outage is a table on a server that the test disturbs.
type outage struct {
	server *services.Instance
	config SourceConfig
}

const outageRows = 3000

func newOutage(t *testing.T) *outage {
	server := services.Own(t, services.Cassandra)
	c := Connection{Hosts: []string{server.Addr}, Timeout: connector.Duration(time.Minute)}
	session, err := connect(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for _, cql := range []string{"CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', " +
		"'replication_factor': 1}",
		"CREATE TABLE k.t (p int, id int, v text, PRIMARY KEY (p, id))"} {
		if err := session.Query(cql).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	for from := 0; from < outageRows; from += 100 {
		b := session.NewBatch(gocql.UnloggedBatch)
		for i := from; i < from+100; i++ {
			b.Query("INSERT INTO k.t (p, id, v) VALUES (1, ?, 'x')", i)
		}
		if err := session.ExecuteBatch(b); err != nil {
			t.Fatal(err)
		}
	}
	c.Timeout, c.ConnectTimeout = connector.Duration(4*time.Second), connector.Duration(4*time.Second) // noticed soon
	return &outage{server, SourceConfig{Connection: c, Keyspace: "k", Table: "t",
		Buckets: &Buckets{Discover: true}, Page: 2000}}
}

// read reads the rows in order.
func (o *outage) read(ctx context.Context, t *testing.T, s *Source, page func(n int)) error {
	n := 0
	err := s.Read(ctx, connector.Split{Partition: "1"}, func(p connector.Page) error {
		for _, d := range p.Dead {
			t.Errorf("a dead letter: %s", d.Message)
		}
		for _, r := range p.Records {
			if id := r.Get("id").Int(); id != int64(n) {
				t.Errorf("row %d comes after %d", id, n-1)
			}
			n++
		}
		page(n)
		return nil
	})
	if err == nil && n != outageRows {
		err = fmt.Errorf("%d rows of %d", n, outageRows)
	}
	return err
}

// disturb reads while the server goes and comes back, by a source that has begun to read and
// by one that connects meanwhile.
func (o *outage) disturb(t *testing.T, gate *iotest.Gate, begin, end func()) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	reading := ctx
	if gate != nil {
		reading = connector.WithGate(ctx, gate)
	}
	third, gone := make(chan struct{}), make(chan struct{})
	var once sync.Once
	readers, reading := errgroup.WithContext(reading)
	early, late := NewSource(o.config, connector.Need{}), NewSource(o.config, connector.Need{})
	defer early.Close()
	defer late.Close()
	readers.Go(func() error {
		return o.read(reading, t, early, func(n int) {
			if n > outageRows/3 {
				once.Do(func() { close(third) })
				<-gone
			}
		})
	})
	select {
	case <-third:
	case <-reading.Done():
		t.Fatal(readers.Wait())
	}
	begin()
	readers.Go(func() error { return o.read(reading, t, late, func(int) {}) })
	close(gone)
	if gate != nil {
		if err := gate.Wait(ctx, func(p iotest.Passed) bool { return len(p.Errors) >= 8 }); err != nil {
			t.Errorf("the requests that failed: %v, %v", gate.Passed().Errors, err)
		}
	}
	end()
	if err := readers.Wait(); err != nil {
		t.Error(err)
	}
}

// A server that is killed or frozen while it is read costs nothing but time.
func TestServerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	t.Run("killed", func(t *testing.T) { o.disturb(t, nil, o.server.Kill, o.server.Start) })
	t.Run("killed behind a gate", func(t *testing.T) { o.disturb(t, iotest.NewGate(), o.server.Kill, o.server.Start) })
	t.Run("frozen behind a gate",
		func(t *testing.T) { o.disturb(t, iotest.NewGate(), o.server.Pause, o.server.Resume) })
}

// The gate says how long a server is waited for, and its error ends the reading.
func TestGateGivesUp(t *testing.T) {
	t.Parallel()
	c := SourceConfig{Connection: Connection{Hosts: []string{"127.0.0.1:1"}}, Keyspace: "k", Table: "t"}
	s := NewSource(c, connector.Need{})
	defer s.Close()
	gate := &givesUp{left: 3}
	err := s.Read(connector.WithGate(t.Context(), gate), connector.Split{Partition: plan.RingName},
		func(connector.Page) error { return nil })
	if fail.CodeOf(err) != "cassandra.unreachable" || gate.left != 0 {
		t.Errorf("%d tries are left, the error is %v", gate.left, err)
	}
}

// givesUp lets some requests pass, then none.
type givesUp struct {
	left int
	last error
}

func (g *givesUp) Enter(context.Context, int, int64) (func(int, int64, error), error) {
	if g.left == 0 {
		return nil, g.last
	}
	g.left--
	return func(_ int, _ int64, err error) { g.last = err }, nil
}
