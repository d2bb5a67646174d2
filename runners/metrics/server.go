package metrics

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
)

// Server serves metrics at /metrics. A nil one serves nothing.
type Server struct {
	registry *prometheus.Registry
	listener net.Listener
	http     http.Server
}

// Listen begins to serve at an address, HOST:PORT. Where other machines can reach it, whoever scrapes needs a token, as
// "Authorization: Bearer TOKEN"; it is asked for wherever one is given.
func Listen(address string, token connector.Secret) (*Server, error) {
	secret, err := token.Resolve()
	if err != nil {
		return nil, fail.Job("metrics.token", "the token of the metrics: %w", err)
	}
	if token != "" && secret == "" {
		return nil, fail.Job("metrics.token", "the token of the metrics is empty").WithFix("put one into %s", token)
	}
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fail.Job("metrics.address", "metrics cannot be served at %s: %w", address,
			err).WithFix("give HOST:PORT, such as 127.0.0.1:9464")
	}
	if !at.IP.IsLoopback() && secret == "" {
		return nil, fail.Job("metrics.no_token", "other machines can reach %s, and no token is given", address).
			WithFix("give --metrics-token env:NAME or file:PATH, or listen at 127.0.0.1")
	}
	listener, err := net.ListenTCP("tcp", at)
	if err != nil {
		return nil, fail.Job("metrics.address", "metrics cannot be served at %s: %w", address,
			err).WithFix("choose another port")
	}
	s := &Server{registry: prometheus.NewRegistry(), listener: listener}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics",
		guarded(secret, promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{ErrorLog: failures{}})))
	s.http = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 2 * time.Minute,
		IdleTimeout: 5 * time.Minute}
	go s.http.Serve(listener)
	return s, nil
}

// URL is where the metrics are.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() + "/metrics" }

// Show serves the metrics of a run, as long as the journal is open. Before, there are none.
func (s *Server) Show(j journal.Journal, run string) {
	if s != nil {
		s.registry.MustRegister(NewCollector(j, run))
	}
}

// Close ends serving.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	return s.http.Close()
}

// guarded lets requests with the token pass; "": all.
func guarded(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Digests have one length, so that the time tells nothing.
		got := sha256.Sum256([]byte(strings.TrimSpace(r.Header.Get("Authorization"))))
		if token != "" && subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a token is needed", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// failures logs scrapes that fail.
type failures struct{}

// Println implements promhttp.Logger.
func (failures) Println(v ...any) { slog.Warn("a scrape fails", "error", v[len(v)-1]) }
