package connector

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"reprise/transforms/fail"
)

// certificate writes a self-signed certificate for localhost and its key, and gives the names of the files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotAfter: time.Now().Add(time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

// shake connects a client to a server that asks for the client's certificate.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = tls.Server(c, server).Write([]byte("hello"))
	}()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The client's certificate is refused after its own handshake: only reading shows it.
	_, err = tls.Client(c, client).Read(make([]byte, 5))
	return err
}

func TestTLS(t *testing.T) {
	if c, err := (*TLS)(nil).Config(); c != nil || err != nil {
		t.Errorf("no settings give %v, %v", c, err)
	}
	cert, key := certificate(t)
	settings := TLS{CA: cert, Cert: cert, Key: Secret("file:" + key), ServerName: "localhost"}
	client, err := settings.Config()
	if err != nil {
		t.Fatal(err)
	}
	server := client.Clone()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, client.RootCAs
	if err := shake(t, server, client); err != nil {
		t.Errorf("handshake: %v", err)
	}
	other := settings
	other.ServerName = "elsewhere"
	for _, test := range []struct {
		settings TLS
		want     bool
	}{{other, false}, {TLS{CA: cert, ServerName: "localhost"}, false},
		{TLS{Cert: cert, Key: settings.Key, Insecure: true}, true}} {
		c, err := test.settings.Config()
		if err != nil {
			t.Fatal(err)
		}
		if err := shake(t, server, c); (err == nil) != test.want {
			t.Errorf("%+v: handshake gives %v", test.settings, err)
		}
	}
}

func TestTLSErrors(t *testing.T) {
	cert, key := certificate(t)
	_, otherKey := certificate(t)
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := Secret("file:" + key)
	for _, test := range []struct {
		settings TLS
		want     string
	}{
		{TLS{CA: "/nowhere/ca.pem"}, "/nowhere/ca.pem"},
		{TLS{CA: junk}, "no certificate in " + junk},
		{TLS{Cert: cert}, "needs both"},
		{TLS{Key: secret}, "needs both"},
		{TLS{Cert: "/nowhere/cert.pem", Key: secret}, "/nowhere/cert.pem"},
		{TLS{Cert: junk, Key: secret}, junk},
		{TLS{Cert: cert, Key: "env:REPRISE_TEST_NONE"}, "REPRISE_TEST_NONE is not set"},
		{TLS{Cert: cert, Key: Secret("file:" + otherKey)}, "does not match"},
	} {
		_, err := test.settings.Config()
		if err == nil || !strings.Contains(err.Error(), test.want) || fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("%+v: error %v, want one with %q", test.settings, err, test.want)
		}
	}
}
