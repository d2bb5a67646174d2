package cassandraio

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"reprise/transforms/fail"
)

// connect opens a session. Requests go to a replica of their partition, in one data centre, once: retries are up to the
// caller, and there is no speculative execution, which would double the load of a slow cluster.
//
// Its errors have the codes cassandra.unreachable, cassandra.auth, cassandra.tls,
// cassandra.no_host and cassandra.secret.
func connect(ctx context.Context, c Connection) (*gocql.Session, error) {
	cluster, attempts, err := c.cluster()
	if err != nil {
		return nil, err
	}
	type result struct {
		session *gocql.Session
		err     error
	}
	done := make(chan result, 1)
	go func() {
		session, err := cluster.CreateSession()
		done <- result{session, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, connectFailure(c, attempts.all(), r.err)
		}
		return r.session, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.session != nil {
				r.session.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (c Connection) cluster() (*gocql.ClusterConfig, *attempts, error) {
	filter, err := newNodeFilter(c)
	if err != nil {
		return nil, nil, fail.Job("cassandra.hosts", "%w", err)
	}
	seen := &attempts{}
	cluster := gocql.NewCluster(c.Hosts...)
	cluster.Port = c.port()
	cluster.ProtoVersion = 4 // gocql 1.7 fails with version 5 of Cassandra 5
	cluster.ConnectTimeout = c.ConnectTimeout.Or(5 * time.Second)
	cluster.Timeout = c.Timeout.Or(12 * time.Second)
	cluster.Consistency = gocql.LocalOne // of what is read about the cluster itself; sources and sinks have their own
	cluster.HostFilter = filter
	// The policy holds the state of one session. The filter leaves one data centre, so any of
	// its nodes will do as a fallback.
	cluster.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.RoundRobinHostPolicy())
	cluster.ReconnectInterval = 2 * time.Second
	cluster.DefaultTimestamp = false
	cluster.Logger = driverLog{}
	cluster.ConnectObserver = seen
	if c.User != "" {
		password, err := c.Password.Resolve()
		if err != nil {
			return nil, nil, fail.Job("cassandra.secret", "the password of %s: %w", c.User, err)
		}
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: c.User, Password: password}
	}
	if c.TLS != nil {
		config, err := c.TLS.Config()
		if err != nil {
			return nil, nil, err
		}
		// gocql takes the name to check from the address, unless the settings have one.
		cluster.SslOpts = &gocql.SslOptions{Config: config, EnableHostVerification: !c.TLS.Insecure}
	}
	return cluster, seen, nil
}

// nodeFilter lets gocql see nothing but the nodes that may be used.
type nodeFilter struct {
	only, avoid []netip.Prefix

	mu sync.Mutex
	dc string // "": that of the first node let through, which is the one that gocql has connected to first
}

func newNodeFilter(c Connection) (*nodeFilter, error) {
	only, err := prefixes(c.OnlyHosts)
	if err != nil {
		return nil, err
	}
	avoid, err := prefixes(c.AvoidHosts)
	return &nodeFilter{only: only, avoid: avoid, dc: c.LocalDC}, err
}

// Accept implements gocql.HostFilter.
func (f *nodeFilter) Accept(h *gocql.HostInfo) bool {
	address, ok := netip.AddrFromSlice(h.ConnectAddress())
	return ok && f.accept(address.Unmap(), h.DataCenter())
}

func (f *nodeFilter) accept(address netip.Addr, dc string) bool {
	within := func(p netip.Prefix) bool { return p.Contains(address) }
	if slices.ContainsFunc(f.avoid, within) || (len(f.only) > 0 && !slices.ContainsFunc(f.only, within)) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dc == "" {
		f.dc = dc
	}
	return dc == f.dc
}

// attempts keeps why connections could not be opened: CreateSession tells the text of one error alone.
type attempts struct {
	mu   sync.Mutex
	errs []error
}

// ObserveConnect implements gocql.ConnectObserver.
func (a *attempts) ObserveConnect(o gocql.ObservedConnect) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o.Err != nil && len(a.errs) < 16 { // later ones are those of a session long open
		a.errs = append(a.errs, fmt.Errorf("%s: %w", o.Host.ConnectAddressAndPort(), o.Err))
	}
}

func (a *attempts) all() []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.errs)
}

// driverLog sends gocql's log, which tells what its errors tell again, to the debug level.
type driverLog struct{}

func (driverLog) Print(v ...any) { slog.Debug(strings.TrimSpace(fmt.Sprint(v...))) }
func (driverLog) Printf(format string, v ...any) {
	slog.Debug(strings.TrimSpace(fmt.Sprintf(format, v...)))
}
func (driverLog) Println(v ...any) { slog.Debug(strings.TrimSpace(fmt.Sprintln(v...))) }
