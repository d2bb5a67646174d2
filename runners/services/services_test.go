package services

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestName(t *testing.T) {
	t.Run("With spaces, Ünïcode and a name that is much longer than a keyspace may be", func(t *testing.T) {
		a, b := Name(t), Name(t)
		if a == b {
			t.Errorf("twice the same name %s", a)
		}
		if !regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`).MatchString(a) {
			t.Errorf("name %q", a)
		}
	})
}

// TestNeedAtOnce starts the shared broker from several sides.
func TestNeedAtOnce(t *testing.T) {
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if addr := Need(t, Kafka); !answers(addr) {
				t.Errorf("%s does not answer", addr)
			}
		})
	}
	all.Wait()
}

func TestOwn(t *testing.T) {
	t.Parallel()
	var addr, data string
	t.Run("life", func(t *testing.T) {
		broker := Own(t, Kafka, Heap("256m"))
		addr, data = broker.Addr, broker.Data
		if !answers(addr) {
			t.Fatalf("%s does not answer", addr)
		}
		broker.Pause()
		broker.Resume()
		broker.Stop()
		if answers(addr) {
			t.Error("answers after Stop")
		}
		broker.Start()
		if !answers(addr) {
			t.Error("does not answer after Start")
		}
		broker.Node(1).Kill()
		if answers(addr) {
			t.Error("answers after Kill")
		}
	})
	if answers(addr) {
		t.Error("answers after its test")
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", data, err)
	}
}

// TestLeftServer kills a test process that has a server of its own; the next Own must end the server.
func TestLeftServer(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(home(), "data", "own")
	if os.Getenv("LEAVE_SERVER") != "" {
		broker := Own(t, Kafka)
		os.Stdout.WriteString("left:" + broker.Addr + "\n")
		os.Exit(3)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLeftServer$")
	cmd.Env = append(os.Environ(), "LEAVE_SERVER=1")
	out, _ := cmd.CombinedOutput()
	found := regexp.MustCompile(`left:(\S+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("the process that leaves a server said\n%s", out)
	}
	addr := string(found[1])
	if !answers(addr) {
		t.Fatalf("%s ended with its test process; this test shows nothing", addr)
	}
	wipeLeft(t, dir)
	if answers(addr) {
		t.Errorf("%s still answers", addr)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*-"+addr[strings.LastIndex(addr, ":")+1:])); left != nil {
		t.Errorf("%v is left", left)
	}
}

// TestFailedStart shows what a test prints whose server does not start.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	said := failure(t, func(t testing.TB) { Own(t, Kafka, Heap("2m")) })
	for _, want := range []string{"kafka start", "cannot format", "OutOfMemoryError"} {
		if !strings.Contains(said, want) {
			t.Errorf("the failure does not say %q:\n%s", want, said)
		}
	}
}

// failure is what f fails its test with.
func failure(t *testing.T, f func(testing.TB)) string {
	t.Helper()
	fake := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f(fake)
	}()
	<-done
	if fake.said == "" {
		t.Fatal("does not fail")
	}
	return fake.said
}

func answers(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// failing is a test that keeps its failure instead of ending the real one.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f.said)
}
