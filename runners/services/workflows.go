package services

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Workflow is what Workflows knows of one idempotency key.
type Workflow struct {
	ID       string // the idempotency key
	Path     string // of the address that triggered it
	Body     string
	Header   http.Header
	Triggers int // how often it was triggered; it runs once
	Ends     time.Time
	State    string // in which it ends: "succeeded", "failed"
}

// WorkflowOptions are how Workflows behaves; nil is the usual.
type WorkflowOptions struct {
	Takes func(w Workflow) time.Duration // from the trigger to the end; usual: 0
	State func(w Workflow) string        // in which it ends; usual: succeeded
	// a status in place of the n-th trigger (from 1), which then starts nothing; 0: as usual, -1: the connection is
	// cut, though it starts, -2: no answer
	Answer  func(n int, r *http.Request) int
	Again   int              // status of a trigger that is repeated; usual: 200
	Forgets bool             // every trigger starts a workflow
	Ended   func(w Workflow) // called at the end of each
}

// Workflows is a service that runs workflows, in this process, over real HTTP: POST or PUT to any address under /start/
// triggers one, once for each idempotency key, and answers 202 with Location /runs/ID; GET /runs/ID tells its state. It
// remembers everything over Stop and Start.
type Workflows struct {
	URL  string
	t    testing.TB
	addr string
	o    WorkflowOptions

	mu       sync.Mutex
	server   *http.Server
	closed   chan struct{}
	resumed  chan struct{} // closed while it answers
	all      map[string]*Workflow
	triggers int
	asked    int
	now      int
	most     int
	runs     int
}

// NewWorkflows starts a service that ends with the test.
func NewWorkflows(t testing.TB, o WorkflowOptions) *Workflows {
	t.Helper()
	s := &Workflows{t: t, o: o, addr: "127.0.0.1:0", all: map[string]*Workflow{}, resumed: make(chan struct{})}
	close(s.resumed)
	s.Start()
	s.URL = "http://" + s.addr
	t.Cleanup(s.Stop)
	return s
}

// Start listens again, at the same address.
func (s *Workflows) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	listener, err := net.Listen("tcp", s.addr)
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); listener, err = net.Listen("tcp",
		s.addr) {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		s.t.Error(err)
		return
	}
	s.addr = listener.Addr().String()
	s.server, s.closed = &http.Server{Handler: http.HandlerFunc(s.serve)}, make(chan struct{})
	go s.server.Serve(listener)
}

// Stop cuts all connections and refuses new ones.
func (s *Workflows) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		close(s.closed)
		s.server.Close()
		s.server = nil
	}
}

// Pause leaves requests without an answer until Resume.
func (s *Workflows) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumed = make(chan struct{})
}

// Resume ends a Pause.
func (s *Workflows) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.resumed)
}

// All are the workflows by idempotency key.
func (s *Workflows) All() map[string]Workflow {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]Workflow{}
	for id, w := range s.all {
		all[id] = *w
	}
	return all
}

// Seen is the number of triggers, of questions, of workflows that ran, and the highest number of requests at once.
func (s *Workflows) Seen() (triggers, asked, runs, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.triggers, s.asked, s.runs, s.most
}

func (s *Workflows) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	resumed, closed := s.resumed, s.closed
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.now--; s.mu.Unlock() }()
	select {
	case <-resumed:
	case <-closed:
		return
	case <-r.Context().Done():
		return
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/start/") && r.Method != http.MethodGet:
		s.start(w, r, string(body))
	case strings.HasPrefix(r.URL.Path, "/runs/"):
		s.state(w, strings.TrimPrefix(r.URL.Path, "/runs/"))
	default:
		http.NotFound(w, r)
	}
}

func (s *Workflows) start(w http.ResponseWriter, r *http.Request, body string) {
	s.mu.Lock()
	s.triggers++
	n, status := s.triggers, 0
	s.mu.Unlock()
	if s.o.Answer != nil {
		status = s.o.Answer(n, r)
	}
	switch status {
	case -2:
		<-r.Context().Done()
		return
	case 0, -1:
	default:
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, fmt.Sprintf("no, since this is trigger\n  %d", n), status)
		return
	}
	id := r.Header.Get("Idempotency-Key")
	again := s.trigger(id, r, body)
	if status == -1 {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Location", "/runs/"+id)
	w.Header().Set("Content-Type", "application/json")
	status = http.StatusAccepted
	if again {
		status = s.o.Again
		if status == 0 {
			status = http.StatusOK
		}
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"run": map[string]any{"id": id}})
}

// trigger starts a workflow, unless one with its idempotency key has been.
func (s *Workflows) trigger(id string, r *http.Request, body string) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := s.all[id]
	again = run != nil
	if !again {
		run = &Workflow{ID: id, Path: r.URL.EscapedPath(), Body: body, Header: r.Header.Clone(), State: "succeeded",
			Ends: time.Now()}
		if s.o.State != nil {
			run.State = s.o.State(*run)
		}
		s.all[id] = run
	}
	run.Triggers++
	if again && !s.o.Forgets {
		return again
	}
	s.runs++
	takes := time.Duration(0)
	if s.o.Takes != nil {
		takes = s.o.Takes(*run)
		run.Ends = time.Now().Add(takes)
	}
	if s.o.Ended != nil {
		ended := *run
		time.AfterFunc(takes, func() { s.o.Ended(ended) })
	}
	return again
}

func (s *Workflows) state(w http.ResponseWriter, id string) {
	s.mu.Lock()
	s.asked++
	run, ok := s.all[id]
	var state string
	if ok {
		state = run.State
		if time.Now().Before(run.Ends) {
			state = "running"
		}
	}
	s.mu.Unlock()
	if !ok {
		http.Error(w, "no such workflow", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"workflow": map[string]any{"state": state}, "error": "so it was told"})
}
