package connector

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"reprise/transforms/fail"
)

// Config makes the settings those of crypto/tls; without settings it is nil.
func (t *TLS) Config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.Insecure}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fail.Job("tls.ca", "the certificates to check the server by cannot be read: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fail.Job("tls.ca", "there is no certificate in %s", t.CA).
				WithFix("name a PEM file with -----BEGIN CERTIFICATE-----")
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, fail.Job("tls.cert", "a client's certificate needs both cert and key")
	}
	if t.Cert == "" {
		return c, nil
	}
	cert, err := os.ReadFile(t.Cert)
	if err != nil {
		return nil, fail.Job("tls.cert", "the client's certificate cannot be read: %w", err)
	}
	key, err := t.Key.Resolve()
	if err != nil {
		return nil, fail.Job("tls.key", "the client's private key cannot be read: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, []byte(key))
	if err != nil {
		return nil, fail.Job("tls.cert", "the client's certificate %s and its key: %w", t.Cert, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
