package elasticsearchio

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// proxy stands between the sink and a real server: it sees the bulk requests and their answers and can cut connections.
type proxy struct {
	*httptest.Server
	hang int // as many bulk requests are never answered
	// For the n-th bulk request, from 1: bytes to let through; -1: all
	cut      func(n int) (requestAfter, answerAfter int)
	answered func(n int, answer []byte) // after the server's answer, before it is passed on

	mu     sync.Mutex
	bodies []string // of bulk requests, unpacked
}

func newProxy(t *testing.T, target string) *proxy {
	p := &proxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { p.pass(t, target, w, r) }))
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) pass(t *testing.T, target string, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	n, bulk := 0, strings.HasSuffix(r.URL.Path, "/_bulk")
	if bulk {
		n = p.see(t, r, body)
	}
	if bulk && n <= p.hang {
		<-r.Context().Done()
		return
	}
	requestAfter, answerAfter := -1, -1
	if bulk && p.cut != nil {
		requestAfter, answerAfter = p.cut(n)
	}
	if requestAfter >= 0 {
		hangUp(t, w, "")
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, target+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header = r.Header.Clone()
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(res.Body)
	if bulk && p.answered != nil {
		p.answered(n, answer)
	}
	if answerAfter >= 0 {
		head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(answer)) +
			"\r\n\r\n"
		hangUp(t, w, head+string(answer[:min(answerAfter, len(answer))]))
		return
	}
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(answer)
}

func (p *proxy) see(t *testing.T, r *http.Request, body []byte) int {
	if r.Header.Get("Content-Encoding") == "gzip" {
		zip, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0
		}
		if body, err = io.ReadAll(zip); err != nil {
			t.Error(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bodies = append(p.bodies, string(body))
	return len(p.bodies)
}

// hangUp sends text and resets the connection.
func hangUp(t *testing.T, w http.ResponseWriter, text string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.WriteString(conn, text)
	if text == "" {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	_ = conn.Close()
}

// requests are the bodies seen so far.
func (p *proxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.bodies...)
}
