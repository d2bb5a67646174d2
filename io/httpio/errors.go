package httpio

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"reprise/transforms/fail"
)

// requestError is the error of a request that got no answer. It tells the host and not the address,
// which holds values of the record.
func requestError(ctx context.Context, host string, err error) error {
	err = bare(err)
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &cert), errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"),
		strings.Contains(err.Error(), "remote error: tls"):
		e := fail.New(fail.Fatal, "http.tls", "no secure connection to %s: %w", host, err).
			WithFix("check that url says http or https as the server does, and tls.ca, tls.cert and tls.server_name")
		e.Exit = fail.ExitUnreachable
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return fail.Unreachable("http.timeout", "no answer of %s in time: %w", host, err).
			WithFix("check that the service is up, else raise timeout or lower in_flight")
	}
	return fail.Unreachable("http.unreachable", "cannot reach %s: %w", host, err).
		WithFix("check url, and that the service is up")
}

// bare is an error without the address that net/http puts before it.
func bare(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// statusError is the error of an answer that is none of success.
func statusError(a answer, means Answer) error {
	where := a.url.Host
	switch {
	case means == answerDead:
		return fail.New(fail.Permanent, "http.refused", "status %d of %s: %s", a.status, where, excerpt(a.body))
	case a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable:
		e := fail.New(fail.Throttled, "http.throttled", "status %d of %s: %s", a.status, where, excerpt(a.body)).
			WithFix("lower the run's rate or in_flight, or give the service more room")
		e.Exit = fail.ExitUnreachable
		return e
	case means == answerRetry:
		return fail.Unreachable("http.server", "status %d of %s: %s", a.status, where, excerpt(a.body)).
			WithFix("see the service's log")
	case a.status == http.StatusUnauthorized:
		e := fail.New(fail.Fatal, "http.auth", "%s refuses the login: %s", where, excerpt(a.body)).
			WithFix("check login")
		e.Exit = fail.ExitUnreachable
		return e
	}
	to := "nowhere"
	if u, err := url.Parse(a.header.Get("Location")); err == nil && u.Host != "" {
		to = u.Scheme + "://" + u.Host
	} else if err == nil && u.Path != "" {
		to = "another address of its own, by another method"
	}
	return fail.Job("http.redirect", "%s answers with status %d and sends us to %s", where, a.status, to).
		WithFix("name the address itself; redirects are followed only on the same host and with the same method")
}

// excerpt is the beginning of a text, on one line.
func excerpt(text []byte) string {
	const enough = 300
	if len(bytes.TrimSpace(text)) == 0 {
		return "no reason given"
	}
	short := text[:min(len(text), 4*enough)]
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(short), "")), " ")
	if len(s) > enough {
		s = strings.ToValidUTF8(s[:enough], "") + "..."
	}
	return s
}

// validValue tells whether a text can be the value of a header.
func validValue(text string) bool { return httpguts.ValidHeaderFieldValue(text) }
