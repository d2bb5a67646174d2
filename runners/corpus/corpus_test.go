package corpus

import (
	"path/filepath"
	"testing"
)

// TestDeadLettersStayBesideTheJournal: loading a corpus leaves nothing in the working folder.
func TestDeadLettersStayBesideTheJournal(t *testing.T) {
	dir := t.TempDir()
	place := Corpus{Journal: filepath.Join(dir, "load.db")}.job().DeadLetters.Place()
	if want := "the folder " + filepath.Join(dir, "load-dead-letters"); place != want {
		t.Errorf("dead letters go to %s, not to %s", place, want)
	}
}
