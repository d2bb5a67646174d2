package services

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Instance is a server, or a cluster, of one test. Its methods fail the test when the launcher fails.
type Instance struct {
	Addr string // HOST:PORT of the first node, or of the one that Node chose
	Port int    // the same for all nodes
	Data string // folder with the data and the log of each node
	CA   string // file with the certificate that clients trust, where Env switched TLS on

	t       testing.TB
	service Service
	env     []string
	nodes   int
	args    []string
}

// Option is a setting of a server of one's own.
type Option func(*Instance)

// Nodes makes a cluster; node I is at 127.0.0.I. Of the services here Cassandra, Elasticsearch, OpenSearch and Flink
// can.
func Nodes(n int) Option { return func(i *Instance) { i.nodes = n } }

// Env sets variables of the launcher's environment, NAME=VALUE; its help tells which it knows. Security:
// CASSANDRA_AUTH=1 (user cassandra, password cassandra), CASSANDRA_TLS=1, KAFKA_AUTH=1 (PLAIN and SCRAM, user test,
// password test-secret), KAFKA_TLS=1.
func Env(vars ...string) Option { return func(i *Instance) { i.env = append(i.env, vars...) } }

// Heap limits the Java heap of each node, such as 256m.
func Heap(size string) Option { return func(i *Instance) { i.args = append(i.args, "--heap", size) } }

// Own starts a server for this test alone, on free ports, and ends and wipes it with the test. What a killed test
// process left running is wiped by the next call.
func Own(t testing.TB, s Service, opts ...Option) *Instance {
	t.Helper()
	i := &Instance{t: t, service: s, nodes: 1}
	for _, opt := range opts {
		opt(i)
	}
	dir := filepath.Join(home(), "data", "own")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	wipeLeft(t, dir)
	port, release := reserve(t, dir)
	i.Port = port
	i.Addr = fmt.Sprintf("127.0.0.1:%d", port)
	i.Data = filepath.Join(dir, fmt.Sprintf("%s-%d", s, port))
	i.CA = filepath.Join(i.Data, "tls", "ca.pem")
	i.args = append(i.args, "--port", fmt.Sprint(port), "--data", i.Data)
	t.Cleanup(func() {
		defer release()
		launch(t, s, i.env, append([]string{"stop", "--wipe"}, i.args...)...)
		os.RemoveAll(i.Data)
	})
	i.run("start", "--nodes", fmt.Sprint(i.nodes))
	return i
}

// Node is node n of the cluster (from 1): its methods act on that node alone.
func (i *Instance) Node(n int) *Instance {
	node := *i
	node.nodes = 1
	node.Addr = fmt.Sprintf("127.0.0.%d:%d", n, i.Port)
	node.args = append(append([]string(nil), i.args...), "--node", fmt.Sprint(n))
	return &node
}

// Kill ends the server at once, like a crash.
func (i *Instance) Kill() { i.t.Helper(); i.run("kill") }

// Pause freezes the server, like a hung machine: connections stay open, nothing is answered.
func (i *Instance) Pause() { i.t.Helper(); i.run("pause") }

// Resume ends a Pause.
func (i *Instance) Resume() { i.t.Helper(); i.run("resume") }

// Stop ends the server in good order.
func (i *Instance) Stop() { i.t.Helper(); i.run("stop") }

// Start starts the server again, on the same data and address, and waits until it answers.
func (i *Instance) Start() { i.t.Helper(); i.run("start", "--nodes", fmt.Sprint(i.nodes)) }

func (i *Instance) run(args ...string) {
	i.t.Helper()
	launch(i.t, i.service, i.env, append(args, i.args...)...)
}

// A server takes its ports from one block: PORT and up to 40 more, Elasticsearch and OpenSearch also PORT+100. The
// blocks lie below the ports that the kernel gives to clients.
const (
	firstBlock = 20000
	blockSize  = 200
	blocks     = 60
)

// reserve takes a block of free ports until release. A file lock holds it, which ends with the process.
func reserve(t testing.TB, dir string) (port int, release func()) {
	t.Helper()
	for _, n := range rand.Perm(blocks) {
		port := firstBlock + n*blockSize
		release, ok := lock(filepath.Join(dir, strconv.Itoa(port)+".lock"))
		if !ok {
			continue
		}
		if free(port) {
			return port, release
		}
		release()
	}
	t.Fatalf("all %d blocks of ports from %d are in use; `runners/services/all wipe --test` ends the servers of tests",
		blocks, firstBlock)
	return 0, nil
}

func lock(file string) (release func(), ok bool) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, false
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, false
	}
	return func() { f.Close() }, true
}

// free tells whether nobody listens on the ports of a block, on any loopback address that nodes use.
func free(port int) bool {
	for offset := range 110 {
		if offset > 40 && offset < 100 {
			continue
		}
		// An address of all interfaces also finds listeners on one of them.
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port+offset))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// wipeLeft ends the servers whose test process does not live any more.
func wipeLeft(t testing.TB, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range left {
		cut := strings.LastIndex(data, "-")
		port := data[cut+1:]
		release, ok := lock(filepath.Join(dir, port+".lock"))
		if !ok {
			continue
		}
		launch(t, Service(filepath.Base(data[:cut])), nil, "stop", "--wipe", "--port", port, "--data", data)
		os.RemoveAll(data)
		release()
	}
}
