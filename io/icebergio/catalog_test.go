package icebergio

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// TestLogin goes to a REST catalog through TLS, with a token.
func TestLogin(t *testing.T) {
	forward := httputil.NewSingleHostReverseProxy(
		&url.URL{Scheme: "http", Host: services.Need(t, services.IcebergREST)})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer the-token":
			http.Error(w, `{"error":{"message":"who are you","type":"NotAuthorizedException","code":401}}`, 401)
		case r.URL.Query().Get("warehouse") == "nowhere":
			http.Error(w, `{"error":{"message":"Unable to find warehouse nowhere","type":"NotFoundException","code":404}}`, 404)
		default:
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ICEBERG_TEST_TOKEN", "the-token")
	schema := simpleSchema()
	c := SinkConfig{Table: services.Name(t) + ".assets", Create: true,
		Catalog: CatalogConfig{REST: server.URL, Token: "env:ICEBERG_TEST_TOKEN", TLS: &connector.TLS{CA: ca}}}
	put(t, newSink(t, c), simple(schema, "a", 1, "x"))

	wrong := c
	wrong.Catalog.Warehouse = "nowhere"
	wantError(t, newSink(t, wrong).Prepare(t.Context(), newRun(), schema, false), "iceberg.warehouse",
		"check catalog.warehouse")
	wrong = c
	wrong.Catalog.TLS = nil
	wantError(t, newSink(t, wrong).Prepare(t.Context(), newRun(), schema, false), "iceberg.unreachable", "certificate")
	t.Setenv("ICEBERG_TEST_TOKEN", "wrong-token")
	err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false)
	wantError(t, err, "iceberg.denied", "catalog.token")
	if fail.ExitOf(err) != fail.ExitUnreachable || strings.Contains(err.Error(), "wrong-token") {
		t.Errorf("exit %d: %v", fail.ExitOf(err), err)
	}
}

// TestFullDisk runs itself again with a small disk: a file system of its own, or, where no user
// may mount one, a limit for files.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv("ICEBERG_SMALL_DISK"); dir != "" {
		fillDisk(t, dir, os.Getenv("ICEBERG_MOUNT") != "")
		return
	}
	again := func(mount string, namespaces *syscall.SysProcAttr) ([]byte, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), "ICEBERG_SMALL_DISK="+t.TempDir(), "ICEBERG_MOUNT="+mount)
		cmd.SysProcAttr = namespaces
		return cmd.CombinedOutput()
	}
	root := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	out, err := again("yes", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: root(os.Getuid()), GidMappings: root(os.Getgid())})
	if err != nil && !strings.Contains(string(out), "=== RUN") {
		t.Logf("no file system of its own: %v", err)
		out, err = again("", nil)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func fillDisk(t *testing.T, dir string, mount bool) {
	const size = 2 << 20
	warehouse := filepath.Join(dir, "warehouse")
	if err := os.Mkdir(warehouse, 0o755); err != nil {
		t.Fatal(err)
	}
	if mount {
		if err := syscall.Mount("tmpfs", warehouse, "tmpfs", 0, "size=2m"); err != nil {
			t.Fatal(err)
		}
	}
	c := local(t)
	c.Catalog.Warehouse = warehouse
	c.RowGroup = 1 << 20
	s := newSink(t, c)
	schema, run := corpusSchema(), newRun()
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	if !mount {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size}); err != nil {
			t.Fatal(err)
		}
	}
	w, err := s.Open(t.Context(), run, schema, func([]connector.Result) {})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; err == nil && n < 100_000; n++ {
		err = w.Write(t.Context(), corpusRecord(schema, n))
	}
	wantError(t, err, "iceberg.disk_full", "free space")
	if fail.ClassOf(err) != fail.Fatal {
		t.Errorf("class %s", fail.ClassOf(err))
	}
	if _, err := w.Flush(t.Context()); fail.CodeOf(err) != "iceberg.disk_full" {
		t.Errorf("Flush: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(current(t, s).Location(), "data", "*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}
