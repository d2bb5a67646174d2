// Package faults disturbs the connections between a client and a real server: a TCP proxy for tests that cuts, delays,
// refuses or swallows, as the test tells it while it runs.
//
// Some clients ask a server for its address and go around a proxy. They need a dialer that connects to Addr in any
// case: HostDialer of gocql, Net.Proxy of sarama.
package faults

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Proxy forwards each connection to one server. Each method that sets a fault replaces the former one and takes effect
// at once, on connections that are there too. What it did goes to the test's log. Safe for concurrent use.
type Proxy struct {
	Addr string // HOST:PORT, where clients connect

	t       testing.TB
	target  string
	running sync.WaitGroup
	control sync.Mutex // one change at a time

	mu       sync.Mutex
	listener net.Listener
	conns    map[*conn]bool
	fault    fault
	set      int           // counts the faults that were set
	changed  chan struct{} // closed by the next change of fault
	random   *rand.Rand
	cuts     int
	closed   bool
}

type fault struct {
	refuse bool
	hold   bool
	delay  time.Duration
	limit  func() int64 // bytes of responses that pass on a connection before the cut
	times  int          // cuts that are left
}

// conn is one client's connection with the one to the server.
type conn struct {
	client, server net.Conn
	ended          chan struct{}
	end            sync.Once
	set            int   // the fault for which left was drawn
	left           int64 // bytes until the cut; of the response's goroutine alone
}

// New starts a proxy to the server at target, HOST:PORT, on a free port, and ends it with the test. It draws random
// numbers from the seed in FAULTS_SEED, else from one of its own, which it logs.
func New(t testing.TB, target string) *Proxy { t.Helper(); return At(t, "127.0.0.1:0", target) }

// At is New on an address of the test's own, for a server that tells its clients where to connect.
func At(t testing.TB, addr, target string) *Proxy {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("FAULTS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("FAULTS_SEED: %v", err)
		}
	}
	p := &Proxy{t: t, target: target, conns: map[*conn]bool{}, changed: make(chan struct{}),
		random: rand.New(rand.NewPCG(seed, 0))}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p.Addr = listener.Addr().String()
	t.Logf("faults: %s to %s, FAULTS_SEED=%d", p.Addr, target, seed)
	p.serve(listener)
	t.Cleanup(p.close)
	return p
}

// Pass ends any fault.
func (p *Proxy) Pass() { p.change("pass", fault{}) }

// Hold stops all bytes, both ways, as a hung machine or a lost route does; new connections are accepted. The next
// fault, or Pass, lets the bytes go on.
func (p *Proxy) Hold() { p.change("hold", fault{hold: true}) }

// Delay holds up each part of a response for d.
func (p *Proxy) Delay(d time.Duration) { p.change("delay "+d.String(), fault{delay: d}) }

// Cut lets n bytes of responses pass on a connection and resets it instead of passing more, the given number of times;
// then all passes. With n = 0 the server gets a request and the client no answer.
func (p *Proxy) Cut(n int64, times int) {
	p.change(fmt.Sprintf("cut after %d bytes, %d times", n, times),
		fault{times: times, limit: func() int64 { return n }})
}

// CutRandomly is Cut with a random number below n for each connection.
func (p *Proxy) CutRandomly(n int64, times int) {
	p.change(fmt.Sprintf("cut within %d bytes, %d times", n, times),
		fault{times: times, limit: func() int64 { return p.random.Int64N(n) }})
}

// Refuse resets all connections and refuses new ones, as the machine of a crashed server does, until the next fault or
// Pass.
func (p *Proxy) Refuse() { p.change("refuse", fault{refuse: true}) }

// Cuts is the number of connections that Cut and CutRandomly have reset.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func (p *Proxy) change(what string, f fault) {
	p.t.Helper()
	p.t.Logf("faults: %s: %s", p.Addr, what)
	p.control.Lock()
	defer p.control.Unlock()
	p.mu.Lock()
	refused := p.fault.refuse
	p.fault = f
	p.set++
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	switch {
	case f.refuse && !refused:
		p.listener.Close()
		p.reset()
	case !f.refuse && refused:
		listener, err := net.Listen("tcp", p.Addr)
		if err != nil {
			p.t.Errorf("faults: another process took the port while the proxy refused: %v", err)
			return
		}
		p.serve(listener)
	}
}

func (p *Proxy) serve(listener net.Listener) {
	p.mu.Lock()
	p.listener = listener
	p.mu.Unlock()
	p.running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.forward(client) })
		}
	})
}

func (p *Proxy) forward(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		p.t.Logf("faults: %s: %v", p.Addr, err)
		client.Close()
		return
	}
	c := &conn{client: client, server: server, ended: make(chan struct{})}
	p.mu.Lock()
	refused := p.closed || p.fault.refuse
	if !refused {
		p.conns[c] = true
	}
	p.mu.Unlock()
	if refused {
		c.close(true)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(c, server, client, false) })
	both.Go(func() { p.pump(c, client, server, true) })
	both.Wait()
	c.close(false)
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// pump carries bytes in one direction until the end of the stream or of the connection.
func (p *Proxy) pump(c *conn, to, from net.Conn, response bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			pass, cut, ok := p.admit(c, int64(n), response)
			if !ok {
				return
			}
			if _, err := to.Write(buf[:pass]); err != nil {
				c.close(true)
				return
			}
			if cut {
				p.t.Logf("faults: %s: cut %s", p.Addr, c.client.RemoteAddr())
				c.close(true)
				return
			}
		}
		if err == io.EOF {
			// The other direction may go on.
			if half, ok := to.(*net.TCPConn); ok {
				half.CloseWrite()
			}
			return
		}
		if err != nil {
			c.close(true)
			return
		}
	}
}

// admit waits as the fault demands; then tells how many of n bytes pass and whether the connection is cut after them.
// It is not ok when the connection ended meanwhile.
func (p *Proxy) admit(c *conn, n int64, response bool) (pass int64, cut, ok bool) {
	delayed := false
	for {
		p.mu.Lock()
		f, changed := p.fault, p.changed
		switch {
		case f.hold:
			p.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-c.ended:
				return 0, false, false
			}
		case f.delay > 0 && response && !delayed:
			p.mu.Unlock()
			select {
			case <-time.After(f.delay):
				delayed = true
				continue
			case <-changed:
				continue
			case <-c.ended:
				return 0, false, false
			}
		}
		pass, cut = p.measure(c, n, response)
		p.mu.Unlock()
		return pass, cut, true
	}
}

// measure counts a response against the limit of the fault; p.mu is held.
func (p *Proxy) measure(c *conn, n int64, response bool) (pass int64, cut bool) {
	f := &p.fault
	if !response || f.times == 0 {
		return n, false
	}
	if c.set != p.set {
		c.set, c.left = p.set, f.limit()
	}
	if n <= c.left {
		c.left -= n
		return n, false
	}
	f.times--
	p.cuts++
	return c.left, true
}

// close ends both connections; with a TCP reset, as a crash does, or in good order.
func (c *conn) close(reset bool) {
	c.end.Do(func() {
		close(c.ended)
		for _, side := range []net.Conn{c.client, c.server} {
			if tcp, ok := side.(*net.TCPConn); ok && reset {
				tcp.SetLinger(0)
			}
			side.Close()
		}
	})
}
func (p *Proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.close(true)
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.listener.Close()
	p.mu.Unlock()
	p.reset()
	p.running.Wait()
}
