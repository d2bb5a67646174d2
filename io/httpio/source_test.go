package httpio

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func licences(base string) SourceConfig {
	return SourceConfig{URL: base + "/licences/{tenant}?name={licence}", Key: []string{"tenant", "licence"},
		Row: "data.licence", Version: "changed", Fields: connector.Fields{
			{Name: "tenant", Type: record.Of(record.Text)}, {Name: "licence", Type: record.Of(record.Text)},
			{Name: "expires", Type: record.Of(record.Timestamp)},
			{Name: "seats", Type: record.Of(record.Int)}, {Name: "regions", Type: record.SetOf(record.Of(record.Text))},
			{Name: "changed", Type: record.Of(record.BigInt)}}}
}

func questions(t *testing.T, s *Source, licences ...string) []*record.Record {
	t.Helper()
	schema, err := s.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var keys []*record.Record
	for i, l := range licences {
		r := &record.Record{Schema: schema, Values: make([]record.Value, len(schema.Fields)),
			Origin: record.Origin{Split: "s", Position: []byte{byte(i)}}}
		r.Values[0], r.Values[1] = record.String("a/b"), record.String(l)
		keys = append(keys, r)
	}
	return keys
}

// find gives what was found for each key: JSON, "" for none, or the code of the dead letter.
func find(t *testing.T, ctx context.Context, s *Source, keys []*record.Record) (found map[string]string) {
	t.Helper()
	found = map[string]string{}
	err := s.Find(ctx, keys, func(i int, p connector.Page) error {
		name := keys[i].Values[1].Str()
		switch {
		case len(p.Dead) == 1 && len(p.Records) == 0:
			found[name] = p.Dead[0].Code
		case len(p.Records) == 1:
			r := p.Records[0]
			found[name] = string(r.AppendJSON(nil)) + " " + strconv.FormatInt(r.Version, 10)
			if diff := cmp.Diff(keys[i].Origin, r.Origin); diff != "" || r.Schema != keys[i].Schema ||
				r.KeyText() != keys[i].KeyText() {
				t.Errorf("%s: origin, schema or key differ: %s", name, diff)
			}
		default:
			found[name] = ""
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestFind finds rows, in whatever way a service says that there is none, and makes dead letters of what is no row.
func TestFind(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tries := map[string]int{}
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		tenant, _ := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/licences/"))
		name := r.URL.Query().Get("name")
		mu.Lock()
		tries[name]++
		n := tries[name]
		mu.Unlock()
		if status, err := strconv.Atoi(name); err == nil {
			if status >= 408 && n > 2 {
				status = http.StatusOK
			}
			w.WriteHeader(status)
		}
		switch name {
		case "null":
			fmt.Fprint(w, `{"data": {"licence": null}}`)
		case "html":
			fmt.Fprint(w, `<html>`)
		case "list":
			fmt.Fprint(w, `{"data": {"licence": [1]}}`)
		case "typed":
			fmt.Fprint(w, `{"data": {"licence": {"seats": "many"}}}`)
		case "elsewhere":
			fmt.Fprint(w, `{"licence": {}}`)
		case "cut":
			fmt.Fprint(w, `{"data": {"licence": {"seats": 1`)
		default:
			fmt.Fprintf(w, `{"data": {"licence": {"licence": "another", "expires": "2026-05-01T00:00:00Z", "seats": %d, "regions": ["de", "at"], "changed": 17, "more": {}}}, "tenant": %q}`, len(name), tenant)
		}
	})
	s := NewSource(licences(server), connector.Need{})
	defer s.Close()
	gate := iotest.NewGate()
	found := find(t, connector.WithGate(t.Context(), gate), s,
		questions(t, s, "x&y=z", "404", "204", "null", "429", "503", "html", "list", "typed", "elsewhere",
			"cut", "400", "409", ""))
	row := func(name string, seats int) string {
		return fmt.Sprintf(`{"tenant":"a/b","licence":%q,"expires":"2026-05-01T00:00:00.000Z","seats":%d,"regions":["de","at"],"changed":17} 17`, name, seats)
	}
	if diff := cmp.Diff(map[string]string{"x&y=z": row("x&y=z", 5), "429": row("429", 3), "503": row("503", 3),
		"404": "", "204": "", "null": "", "html": "http.answer", "list": "http.answer",
		"typed": "http.value", "elsewhere": "http.answer", "cut": "http.answer", "400": "http.refused",
		"409": "http.refused", "": "http.url"}, found); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if p := gate.Passed(); p.Entered != 17 || p.Left != 17 || p.Bytes == 0 {
		t.Errorf("the gate saw %+v", p)
	}
}

// TestFindAtOnce: no more than in_flight questions at once, an error of found comes back,
// and a cancelled context ends all.
func TestFindAtOnce(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		defer now.Add(-1)
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		fmt.Fprint(w, `{"data": {"licence": {}}}`)
	})
	c := licences(server)
	c.InFlight = 3
	s := NewSource(c, connector.Need{})
	defer s.Close()
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprint("l", i))
	}
	keys := questions(t, s, names...)
	if found := find(t, t.Context(), s, keys); len(found) != 300 || most.Load() > 3 {
		t.Errorf("%d found, %d at once", len(found), most.Load())
	}
	stop := errors.New("no more, please")
	if err := s.Find(t.Context(), keys, func(int, connector.Page) error { return stop }); err != stop {
		t.Errorf("Find gave %v", err)
	}
	gate := iotest.NewGate()
	gate.Shut()
	ctx, cancel := context.WithCancel(connector.WithGate(t.Context(), gate))
	go func() {
		_ = gate.Wait(ctx, func(p iotest.Passed) bool { return p.Waiting > 0 })
		cancel()
	}()
	if err := s.Find(ctx, keys, func(int, connector.Page) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Find gave %v", err)
	}
}

// TestNotReadable: the source says what it cannot do.
func TestNotReadable(t *testing.T) {
	s := NewSource(licences("http://127.0.0.1:1"), connector.Need{})
	for _, err := range []error{s.Plan(t.Context(), connector.PlanOptions{}, nil),
		s.Read(t.Context(), connector.Split{}, nil)} {
		if fail.CodeOf(err) != "http.not_readable" || fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("got %v", err)
		}
	}
	c := licences("http://127.0.0.1:1")
	c.URL += "&x={seats}"
	if _, err := NewSource(c, connector.Need{}).Schema(t.Context()); fail.CodeOf(err) != "http.template" {
		t.Errorf("a field that is not of the key: %v", err)
	}
}
