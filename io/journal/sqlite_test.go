package journal_test

import (
	"path/filepath"
	"testing"

	"reprise/io/journal"
)

func open(t testing.TB, path string) journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), journal.Config{SQLite: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func TestSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a folder %41", "journal.db")
	suite(t, func(t testing.TB) journal.Journal { return open(t, path) })
}
