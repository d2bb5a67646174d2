package launch_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/transforms/record"
)

const heldJob = `
name: held
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets}}
sinks:
  search: {elasticsearch: {urls: ["http://%[3]s"], index: %[2]s, batch: {rows: 20}}}
dead_letters: {files: {path: "%[4]s/dead"}}
journal: {sqlite: "%[4]s/journal.db"}
limits: {unfinished: "5000"}
pace: {rates: {search: {records: 40}}}
`

// What production deletes while a run holds its rows does not come back, although the index has forgotten the deletes
// by the time the run writes them.
func TestRowsHeldLongerThanTheIndexRemembersDeletesAreReadAgain(t *testing.T) {
	t.Parallel()
	s := newClearedScene(t)
	const rows = 400
	for i := range rows {
		s.exec(t, "INSERT INTO assets (part, id, title) VALUES (?, ?, 'title')", fmt.Sprint("p", i%4), fmt.Sprint("k",
			i))
	}
	s.http(t, http.MethodPut, "", `{"settings": {"index.gc_deletes": "1s", "index.refresh_interval": "200ms"}}`)
	control := func(j journal.Journal, run string, want journal.Want) {
		err := j.SetControl(t.Context(), run, journal.Event{Kind: string(want)}, func(c *journal.Control) {
			c.Want, c.Rates = want, map[string]journal.Rate{"search": {}}
		})
		if err != nil {
			t.Error(err)
		}
	}
	deleted := make(chan int, 1)
	_, report, err := execute(t, fmt.Sprintf(heldJob, s.cassandra, s.name, s.search, s.dir), func(_ journal.Journal,
		run string, _ int, _ journal.Total) func() {
		j := open(t, s.dir)
		go func() {
			for finished(t, j, run) == 0 && t.Context().Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			control(j, run, journal.Pause)
			n := 0
			for i := 0; i < rows; i += 2 {
				part, id := fmt.Sprint("p", i%4), fmt.Sprint("k", i)
				at := time.Now().UnixMicro()
				s.exec(t, fmt.Sprintf("DELETE FROM assets USING TIMESTAMP %d WHERE part = ? AND id = ?", at), part, id)
				status, _ := s.http(t, http.MethodDelete, fmt.Sprintf("/_doc/%s%%7C%s?version=%d&version_type=external",
					part, id, at), "")
				if status == http.StatusOK || status == http.StatusNotFound {
					n++
				}
			}
			time.Sleep(4 * time.Second) // until the index has forgotten them
			deleted <- n
			control(j, run, journal.Go)
		}()
		return nil
	})
	if err != nil || len(report.Faults) > 0 {
		t.Fatal(report, err)
	}
	if n := <-deleted; n != rows/2 {
		t.Fatalf("%d documents were deleted, want %d", n, rows/2)
	}
	s.http(t, http.MethodPost, "/_refresh", "")
	for i := range rows {
		status, _ := s.http(t, http.MethodGet, fmt.Sprintf("/_doc/p%d%%7Ck%d", i%4, i), "")
		if want := []int{http.StatusNotFound, http.StatusOK}[i%2]; status != want {
			t.Errorf("document %d: status %d, want %d", i, status, want)
		}
	}
	if gone := report.Sinks["search"].Outcomes[record.Superseded]; gone < rows/4 {
		t.Errorf("%d rows were found to be gone: the run held too few", gone)
	}
}
