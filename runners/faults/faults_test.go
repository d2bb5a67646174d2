package faults

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends a test that hangs; no test waits for it when all is well.
const patience = 20 * time.Second

func TestPass(t *testing.T) {
	p := New(t, echo(t))
	c := dial(t, p)
	sent := bytes.Repeat([]byte("some bytes "), 100_000)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes and %v came back of %d", len(got), err, len(sent))
	}
	if p.Cuts() != 0 {
		t.Errorf("%d cuts", p.Cuts())
	}
}

func TestCut(t *testing.T) {
	p := New(t, echo(t))
	for _, n := range []int64{0, 5} {
		p.Cut(n, 2)
		for range 2 {
			c := dial(t, p)
			if got, err := ask(c, "0123456789"); got != "0123456789"[:n] || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut after %d: got %q, %v", n, got, err)
			}
		}
		if got, err := ask(dial(t, p), "0123456789"); got != "0123456789" {
			t.Errorf("after the cuts: got %q, %v", got, err)
		}
	}
	if p.Cuts() != 4 {
		t.Errorf("%d cuts, want 4", p.Cuts())
	}
}

// TestCutPresent counts from the moment of the call on a connection that is there.
func TestCutPresent(t *testing.T) {
	p := New(t, echo(t))
	c := dial(t, p)
	if got, err := ask(c, "before"); got != "before" {
		t.Fatalf("got %q, %v", got, err)
	}
	p.Cut(3, 1)
	if got, err := ask(c, "after"); got != "aft" || err == nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCutRandomly(t *testing.T) {
	t.Setenv("FAULTS_SEED", "7")
	lengths := func() (lengths []int) {
		p := New(t, echo(t))
		p.CutRandomly(10, 5)
		for range 5 {
			got, err := ask(dial(t, p), "0123456789")
			if err == nil {
				t.Errorf("no cut after %q", got)
			}
			lengths = append(lengths, len(got))
		}
		return lengths
	}
	a, b := lengths(), lengths()
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("one seed, two courses: %v, %v", a, b)
		}
	}
}

func TestHold(t *testing.T) {
	p := New(t, echo(t))
	p.Hold()
	c := dial(t, p)
	if _, err := io.WriteString(c, "held"); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	buf := make([]byte, 4)
	if n, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %q, %v while held", buf[:n], err)
	}
	p.Pass()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "held" {
		t.Errorf("read %q, %v after Pass", buf, err)
	}
}

func TestDelay(t *testing.T) {
	p := New(t, echo(t))
	c := dial(t, p)
	const delay = 50 * time.Millisecond
	p.Delay(delay)
	began := time.Now()
	if got, err := ask(c, "late"); got != "late" || time.Since(began) < delay {
		t.Errorf("got %q, %v after %s", got, err, time.Since(began))
	}
	// The end of the fault ends the wait.
	p.Delay(time.Hour)
	if _, err := io.WriteString(c, "on"); err != nil {
		t.Fatal(err)
	}
	p.Pass()
	if got, err := ask(c, "e"); got != "o" && got != "on" && got != "one" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRefuse(t *testing.T) {
	p := New(t, echo(t))
	c := dial(t, p)
	if got, err := ask(c, "there"); got != "there" {
		t.Fatalf("got %q, %v", got, err)
	}
	p.Refuse()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that is there: %v", err)
	}
	if _, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v", err)
	}
	p.Pass()
	if got, err := ask(dial(t, p), "again"); got != "again" {
		t.Errorf("after Pass: got %q, %v", got, err)
	}
}

func TestNoServer(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	p := New(t, gone.Addr().String())
	if got, err := ask(dial(t, p), "x"); got != "" || err == nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestManyHands changes faults while connections come and go; for the race detector.
func TestManyHands(t *testing.T) {
	p := New(t, echo(t))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				c, err := net.Dial("tcp", p.Addr)
				if err != nil {
					continue
				}
				c.SetDeadline(time.Now().Add(patience))
				io.WriteString(c, "hello")
				io.ReadFull(c, make([]byte, 5))
				c.Close()
			}
		})
	}
	all.Go(func() {
		for i := range 20 {
			p.CutRandomly(5, 1)
			p.Hold()
			if i%5 == 0 {
				p.Refuse()
			}
			p.Delay(time.Millisecond)
			p.Pass()
		}
	})
	all.Wait()
}

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// ask sends text and reads as many bytes, or fewer if the connection ends.
func ask(c net.Conn, text string) (string, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	buf := make([]byte, len(text))
	n, err := io.ReadFull(c, buf)
	return string(buf[:n]), err
}
