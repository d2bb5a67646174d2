package services

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/gocql/gocql"
)

func TestCassandraSecurity(t *testing.T) {
	t.Parallel()
	server := Own(t, Cassandra, Env("CASSANDRA_AUTH=1", "CASSANDRA_TLS=1"))
	connect := func(password string, roots *x509.CertPool) error {
		cluster := gocql.NewCluster(server.Addr)
		cluster.ProtoVersion = 4
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: "cassandra", Password: password}
		if roots != nil {
			cluster.SslOpts = &gocql.SslOptions{Config: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}}
		}
		cluster.DisableInitialHostLookup = true
		session, err := cluster.CreateSession()
		if err != nil {
			return err
		}
		defer session.Close()
		return session.Query("SELECT release_version FROM system.local").Exec()
	}
	roots := pool(t, server.CA)
	if err := connect("cassandra", roots); err != nil {
		t.Errorf("right password: %v", err)
	}
	if err := connect("wrong", roots); err == nil || !strings.Contains(err.Error(), "password are incorrect") {
		t.Errorf("wrong password: %v", err)
	}
	if err := connect("cassandra", x509.NewCertPool()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown certificate: %v", err)
	}
	if err := connect("cassandra", nil); err == nil {
		t.Error("connects without TLS")
	}
}

func TestKafkaSecurity(t *testing.T) {
	t.Parallel()
	server := Own(t, Kafka, Env("KAFKA_AUTH=1", "KAFKA_TLS=1"))
	connect := func(password string, roots *x509.CertPool) error {
		conf := sarama.NewConfig()
		conf.Version = sarama.V2_8_0_0
		conf.Metadata.Retry.Max = 0
		conf.Net.SASL.Enable = true
		conf.Net.SASL.Mechanism = sarama.SASLTypePlaintext
		conf.Net.SASL.User, conf.Net.SASL.Password = "test", password
		conf.Net.TLS.Enable = true
		conf.Net.TLS.Config = &tls.Config{RootCAs: roots}
		admin, err := sarama.NewClusterAdmin([]string{server.Addr}, conf)
		if err != nil {
			return err
		}
		defer admin.Close()
		users, err := admin.DescribeUserScramCredentials([]string{"test"})
		if err != nil {
			return err
		}
		if len(users) != 1 || len(users[0].CredentialInfos) != 2 {
			t.Errorf("SCRAM credentials %+v, want two of user test", users)
		}
		return nil
	}
	roots := pool(t, server.CA)
	if err := connect("test-secret", roots); err != nil {
		t.Errorf("right password: %v", err)
	}
	if err := connect("wrong", roots); err == nil {
		t.Error("connects with a wrong password")
	}
	if err := connect("test-secret", x509.NewCertPool()); err == nil {
		t.Error("connects to an unknown certificate")
	}
}

func TestSecureProxy(t *testing.T) {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the server behind gets the credentials")
		}
		body, _ := io.ReadAll(r.Body)
		w.Write([]byte(r.Method + " " + r.URL.String() + " " + string(body)))
	}))
	t.Cleanup(behind.Close)
	url, user, password, ca := SecureProxy(t, strings.TrimPrefix(behind.URL, "http://"))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, ca)}}}
	t.Cleanup(client.CloseIdleConnections)
	post := func(password string) (int, string) {
		r, err := http.NewRequest("POST", url+"/a?b=c", strings.NewReader("content"))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(user, password)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if status, body := post(password); status != 200 || body != "POST /a?b=c content" {
		t.Errorf("right password: %d %s", status, body)
	}
	if status, _ := post("wrong"); status != 401 {
		t.Errorf("wrong password: %d", status)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("a client that does not trust the certificate connects")
	}
}

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	ca, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificate in %s", file)
	}
	return roots
}
