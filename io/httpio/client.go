package httpio

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// client sends requests to one service, and again those that failed by what may pass.
type client struct {
	http    *http.Client
	pool    *http.Transport
	login   http.Header // with secrets
	timeout time.Duration
	retry   connector.Retry

	triggers, questions chan struct{} // under way: neither waits for the other
	// Of the triggers that wait at the gate only the one in here stands before it, so that questions, which carry no
	// records, pass.
	door     chan struct{}
	answered atomic.Int64 // requests that the service has dealt with
	silence  atomic.Int64 // nanoseconds since 1970 until which it wants to hear nothing
}

// newClient resolves the secrets and reads the certificates; it does not connect.
func newClient(s settings) (*client, error) {
	login, err := s.login.resolve()
	if err != nil {
		return nil, err
	}
	encryption, err := s.tls.Config()
	if err != nil {
		return nil, err
	}
	pool := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     encryption,
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 2 * s.inFlight,
		IdleConnTimeout:     90 * time.Second,
	}
	return &client{pool: pool, http: &http.Client{Transport: pool, CheckRedirect: stay}, login: login,
		timeout: s.timeout, retry: s.retry,
		triggers: make(chan struct{}, s.inFlight), questions: make(chan struct{}, s.inFlight),
		door: make(chan struct{}, 1)}, nil
}

func (c *client) close() { c.pool.CloseIdleConnections() }

// resolve is the login as headers.
func (l *Login) resolve() (http.Header, error) {
	h := http.Header{}
	if l == nil {
		return h, nil
	}
	secret := func(of string, s connector.Secret) (string, error) {
		text, err := s.Resolve()
		if err == nil && !validValue(text) {
			return "", fail.Job("http.secret", "login.%s holds what a header cannot", of)
		}
		if err != nil {
			return "", fail.Job("http.secret", "login.%s: %w", of, err)
		}
		return text, nil
	}
	password, err := secret("password", l.Password)
	if err != nil {
		return nil, err
	}
	token, err := secret("token", l.Token)
	if err != nil {
		return nil, err
	}
	if l.User != "" {
		request := http.Request{Header: h}
		request.SetBasicAuth(l.User, password)
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	for name, s := range l.Headers {
		text, err := secret("headers."+name, s)
		if err != nil {
			return nil, err
		}
		h.Set(name, text)
	}
	return h, nil
}

// stay follows redirects within the host that was asked, where they keep the method. Others are answers.
func stay(next *http.Request, asked []*http.Request) error {
	const enough = 5
	first := asked[0]
	if len(asked) > enough || next.Method != first.Method || next.URL.Host != first.URL.Host ||
		next.URL.Scheme != first.URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

// message is a request that can be sent again.
type message struct {
	method string
	url    string
	header http.Header
	body   []byte

	records int // that it carries; 0: it is a question
	size    int64
}

// answer is what came back, its body as far as it goes.
type answer struct {
	status int
	header http.Header
	body   []byte
	url    *url.URL // that answered
	cut    bool     // the body was longer
}

// maxBody bounds what is read of an answer.
const maxBody = 4 << 20

// do sends a message once. Its error says that there was no answer.
func (c *client) do(ctx context.Context, m message) (answer, error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, m.method, m.url, bytes.NewReader(m.body))
	if err != nil {
		return answer{}, fail.New(fail.Permanent, "http.request", "the request cannot be made: %w", bare(err))
	}
	for name, values := range m.header {
		request.Header[name] = values
	}
	for name, values := range c.login {
		request.Header[name] = values
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, requestError(ctx, request.URL.Host, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return answer{}, requestError(ctx, request.URL.Host, err)
	}
	a := answer{status: response.StatusCode, header: response.Header, body: body, url: response.Request.URL}
	if len(body) > maxBody {
		a.body, a.cut = body[:maxBody], true
	}
	return a, nil
}

// sent is how a message ended.
type sent struct {
	answer   answer
	attempts int
	dead     error // why this message will never be answered well; the service is
}

// gatedPause is the longest pause behind a gate while nothing is answered: it is the gate that waits.
const gatedPause = time.Second

// witnesses is how many attempts of a message must have failed while others were answered, before the fault is its own.
const witnesses = 3

// send sends a message until judge has no error for the answer, or one that lasts. An error of send itself is no matter
// of this message: the service is down, or refuses whoever asks.
func (c *client) send(ctx context.Context, m message, judge func(answer) error) (s sent, err error) {
	pause := &backoff.ExponentialBackOff{InitialInterval: c.retry.First, MaxInterval: c.retry.Max,
		Multiplier: 2, RandomizationFactor: 1}
	spent, seen, others := time.Duration(0), int64(0), 0
	for s.attempts = 1; ; s.attempts++ {
		if err := sleep(ctx, time.Until(time.Unix(0, c.silence.Load()))); err != nil {
			return s, err
		}
		began, gated, failed, err := c.attempt(ctx, m, judge, &s.answer)
		if err != nil {
			return s, err
		}
		if ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		switch fail.ClassOf(failed) {
		case fail.Fatal:
			return s, failed
		case fail.Permanent:
			c.answered.Add(1)
			s.dead = failed
			return s, nil
		}
		if failed == nil {
			c.answered.Add(1)
			return s, nil
		}
		if now := c.answered.Load(); s.attempts > 1 && now != seen {
			others++
		}
		seen = c.answered.Load()
		spent += time.Since(began)
		if late := spent >= c.retry.Deadline; late && others >= witnesses {
			s.dead = failed
			return s, nil
		} else if late && !gated {
			return s, failed
		}
		c.heed(s.answer)
		wait := min(pause.NextBackOff(), c.retry.Max)
		if gated && others == 0 {
			wait = min(wait, gatedPause)
		}
		spent += wait
		if err := sleep(ctx, wait); err != nil {
			return s, err
		}
	}
}

// attempt sends a message once, when its turn has come and the gate lets it pass. failed is what judge says, or why
// there is no answer; err comes from the gate.
func (c *client) attempt(ctx context.Context, m message, judge func(answer) error,
	a *answer) (began time.Time, gated bool, failed, err error) {
	turns := c.questions
	if m.records > 0 {
		turns = c.triggers
	}
	if err := take(ctx, turns); err != nil {
		return began, false, nil, err
	}
	defer func() { <-turns }()
	if m.records > 0 {
		if err := take(ctx, c.door); err != nil {
			return began, false, nil, err
		}
	}
	leave, gated, err := connector.Enter(ctx, m.records, m.size)
	if m.records > 0 {
		<-c.door
	}
	if err != nil {
		return began, gated, nil, err
	}
	began = time.Now()
	if *a, failed = c.do(ctx, m); failed == nil {
		failed = judge(*a)
	}
	came := 0
	if m.records == 0 && failed == nil {
		came = len(a.body)
	}
	leave(0, int64(came), failed)
	return began, gated, failed, nil
}

// longestPause is how long a service is left alone at most.
const longestPause = 5 * time.Minute

// pause is how long an answer asks to be left alone.
func (a answer) pause() time.Duration {
	text := a.header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, longestPause)
	}
	if until, err := http.ParseTime(text); err == nil {
		return max(0, min(time.Until(until), longestPause))
	}
	return 0
}

// heed keeps all requests back for as long as an answer asks for.
func (c *client) heed(a answer) {
	until := time.Now().Add(a.pause()).UnixNano()
	for was := c.silence.Load(); until > was && !c.silence.CompareAndSwap(was, until); was = c.silence.Load() {
	}
}

func take(ctx context.Context, turns chan struct{}) error {
	select {
	case turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
