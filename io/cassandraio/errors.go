package cassandraio

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"

	"github.com/gocql/gocql"

	"reprise/transforms/fail"
)

// connectFailure explains why no session could be opened.
func connectFailure(c Connection, attempts []error, err error) error {
	for _, attempt := range attempts {
		var refused gocql.RequestError
		switch text := attempt.Error(); {
		case errors.As(attempt, &refused) && refused.Code() == gocql.ErrCodeCredentials:
			return errAuth("Cassandra refuses the login of %q: %w", c.User, attempt).
				WithFix("check user and password of the connection")
		case strings.Contains(text, "authentication required"):
			return errAuth("Cassandra asks for a login: %w", attempt).WithFix("set user and password of the connection")
		case strings.Contains(text, "unexpected authenticator"):
			return errAuth("Cassandra asks for a login of a kind that is not supported: %w", attempt)
		}
		var certificate *tls.CertificateVerificationError
		var noTLS tls.RecordHeaderError
		if errors.As(attempt, &certificate) || errors.As(attempt, &noTLS) {
			e := fail.New(fail.Fatal, "cassandra.tls", "no encrypted connection: %w", attempt)
			e.Exit = fail.ExitUnreachable
			return e.WithFix("check tls of the connection: ca, server_name, and whether this port is encrypted at all")
		}
		err = attempt
	}
	var dial *net.OpError
	if errors.As(err, &dial) {
		err = dial // which names the address itself
	}
	if strings.Contains(err.Error(), "no response ") { // gocql has several texts for it
		err = errors.New("the connection is taken, but no answer comes")
	}
	if strings.Contains(err.Error(), "host was filtered") ||
		errors.Is(err, gocql.ErrNoConnectionsStarted) && len(attempts) == 0 {
		return fail.Job("cassandra.no_host", "of the cluster at %s no node is left to use",
			strings.Join(c.Hosts, ", ")).
			WithFix("check local_dc, only_hosts and avoid_hosts of the connection")
	}
	return fail.Unreachable("cassandra.unreachable", "Cassandra does not answer at %s: %w",
		strings.Join(c.Hosts, ", "), err).
		WithFix("check hosts and port of the connection, and that the cluster runs")
}

func errAuth(format string, args ...any) *fail.Error {
	e := fail.New(fail.Fatal, "cassandra.auth", format, args...)
	e.Exit = fail.ExitUnreachable
	return e
}

// lost is an error as gocql should tell it: when it closes a connection, it cancels what waits there
// for a statement to be prepared.
func lost(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return gocql.ErrConnectionClosed
	}
	return err
}

// codeTombstones is the code of a request that the servers give up since it meets too many deleted rows. Less may pass.
const codeTombstones = "cassandra.tombstones"

// classify gives an error of a request its class and code. An error that has them, and a
// cancelled context, stay as they are.
func classify(err error) error {
	var known *fail.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	var refused gocql.RequestError
	if errors.As(err, &refused) {
		return classifyRefusal(refused)
	}
	var network net.Error
	switch {
	case errors.Is(err, gocql.ErrTimeoutNoResponse), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return fail.New(fail.Transient, "cassandra.timeout", "Cassandra did not answer in time: %w", err)
	case errors.Is(err, gocql.ErrNoStreams):
		return fail.New(fail.Throttled, "cassandra.overloaded", "too many requests are under way: %w", err)
	case errors.Is(err, gocql.ErrFrameTooBig):
		return fail.New(fail.Transient, "cassandra.frame_too_big",
			"the answer is larger than the driver takes (256 MiB): %w", err)
	case errors.Is(err, gocql.ErrSessionClosed):
		return fail.New(fail.Fatal, "cassandra.closed", "the session was closed: %w", err)
	}
	return fail.Unreachable("cassandra.unreachable", "Cassandra does not answer: %w", err).
		WithFix("check that the cluster runs")
}

func classifyRefusal(err gocql.RequestError) error {
	switch err.Code() {
	case gocql.ErrCodeReadTimeout, gocql.ErrCodeWriteTimeout:
		return fail.New(fail.Transient, "cassandra.timeout", "replicas did not answer in time: %w", err)
	case gocql.ErrCodeReadFailure, gocql.ErrCodeWriteFailure:
		if strings.Contains(err.Message(), "TOO_MANY_TOMBSTONES") {
			return fail.New(fail.Permanent, codeTombstones,
				"the rows asked for lie among more deleted ones than the servers read at once "+
					"(tombstone_failure_threshold): %w", err).
				WithFix("lower gc_grace_seconds for a time and run nodetool compact, or raise the threshold")
		}
		return fail.New(fail.Transient, "cassandra.failure", "replicas failed: %w", err).
			WithFix("the servers' logs tell why")
	case gocql.ErrCodeUnavailable:
		return fail.New(fail.Transient, "cassandra.unavailable", "too few replicas are up: %w", err).
			WithFix("bring nodes up, or choose a lower consistency")
	case gocql.ErrCodeOverloaded:
		return fail.New(fail.Throttled, "cassandra.overloaded", "Cassandra is overloaded: %w", err)
	case gocql.ErrCodeBootstrapping, gocql.ErrCodeServer, gocql.ErrCodeTruncate, gocql.ErrCodeUnprepared,
		gocql.ErrCodeCASWriteUnknown, gocql.ErrCodeCDCWriteFailure:
		return fail.New(fail.Transient, "cassandra.server", "Cassandra failed: %w", err)
	case gocql.ErrCodeCredentials:
		return errAuth("Cassandra refuses the login: %w", err).WithFix("check user and password of the connection")
	case gocql.ErrCodeUnauthorized:
		return fail.Job("cassandra.unauthorized", "the user may not do this: %w", err).
			WithFix("grant it, or connect as another user")
	}
	return fail.Job("cassandra.refused", "Cassandra refuses the request: %w", err)
}

// shrinks tells whether an error may be due to the size of a page, so that a smaller one may pass.
func shrinks(err error) bool {
	switch fail.CodeOf(err) {
	case "cassandra.timeout", "cassandra.failure", "cassandra.frame_too_big", "cassandra.server":
		return true
	}
	return false
}
