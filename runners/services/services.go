// Package services starts real servers for tests: Cassandra, Kafka, Elasticsearch and others, as processes on loopback
// addresses of a Linux machine, with the launchers in this folder. They need Java 17, and Maven for the first start.
//
// Need gives the address of a server that all tests share and that keeps running afterwards; Own gives a test a server
// that it may disturb. `runners/services/all` stops and wipes both kinds.
package services

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Service is the name of a launcher.
type Service string

const (
	Cassandra      Service = "cassandra"
	Kafka          Service = "kafka"
	Elasticsearch  Service = "elasticsearch"
	OpenSearch     Service = "opensearch"
	SchemaRegistry Service = "schema-registry" // Confluent's API lies under /apis/ccompat/v7
	IcebergREST    Service = "iceberg-rest"
	S3             Service = "s3"
	Flink          Service = "flink" // Beam's job service; Flink's REST interface is two ports higher
)

// testPort is the port of the server that tests share.
func (s Service) testPort() int {
	switch s {
	case Cassandra:
		return 19042
	case Kafka:
		return 19092
	case Elasticsearch:
		return 19200
	case OpenSearch:
		return 19201
	case SchemaRegistry:
		return 18081
	case IcebergREST:
		return 18181
	case S3:
		return 19000
	case Flink:
		return 18099
	}
	panic("unknown service " + string(s))
}

// Need gives the address HOST:PORT of the server that all tests share. It starts the server when it does not run, also
// when several processes ask at once, and fails the test with the end of the server's log when that is impossible. The
// server keeps running and keeps its data: tests use names of their own (Name) and leave its settings alone.
func Need(t testing.TB, s Service) string {
	t.Helper()
	port := s.testPort()
	launch(t, s, nil, "start", "--port", fmt.Sprint(port))
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// Name gives a name that no other test and no other run uses: lower-case letters, digits and _, at most 40 bytes, a
// letter first; fit for a keyspace, table, index, topic, bucket of rows or folder.
func Name(t testing.TB) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	return fmt.Sprintf("t%.28s_%s", plain, strings.ToLower(rand.Text()[:10]))
}

// launch runs a launcher and fails the test with what it printed if it fails.
func launch(t testing.TB, s Service, env []string, args ...string) string {
	t.Helper()
	dir, err := launchers()
	if err != nil {
		t.Fatalf("unpack the launchers: %v", err)
	}
	cmd := exec.Command(filepath.Join(dir, string(s)), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", s, strings.Join(args, " "), err, out.Bytes(), messages.Bytes())
	}
	return out.String()
}

//go:embed lib.sh cassandra kafka elasticsearch opensearch OpenSearch.java schema-registry iceberg-rest s3 flink
//go:embed read-iceberg ReadIceberg.java
var scripts embed.FS

// launchers is a folder with the launchers as they were when this program was built, so that it works from any folder.
func launchers() (string, error) {
	files, err := fs.Glob(scripts, "*")
	if err != nil {
		return "", err
	}
	content := sha256.New()
	for _, name := range files {
		script, err := scripts.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(content, "%s %d\n%s", name, len(script), script)
	}
	parent := filepath.Join(home(), "launchers")
	dir := filepath.Join(parent, hex.EncodeToString(content.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(parent, "part")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	for _, name := range files {
		script, err := scripts.ReadFile(name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(part, name), script, 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return "", err
	}
	// Another process may have been first.
	if err := os.Rename(part, dir); err != nil {
		if _, missing := os.Stat(dir); missing != nil {
			return "", err
		}
	}
	return dir, nil
}

// home is where the launchers keep artifacts and data; the same rule as in lib.sh.
func home() string {
	if dir := os.Getenv("SERVICES_HOME"); dir != "" {
		return dir
	}
	return filepath.Join(os.Getenv("HOME"), ".cache", "reprise")
}
