package pace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	careful   = 0.2  // part of the full speed while nothing is known of production
	creep     = 0.01 // part of the full speed that remains while production is too slow
	regain    = 0.02 // part of the full speed that comes back in a second
	patience  = 10 * time.Second
	askWithin = 5 * time.Second // of Prometheus
)

// guard makes of what the probe finds a part of the full speed.
type guard struct {
	config Probe
	factor float64
	far    bool   // nothing may pass
	why    string // "": production is well
	last   time.Time
	blind  time.Time // since when the probe fails; zero: it does not
}

func newGuard(c Probe) *guard { return &guard{config: c, factor: careful} }

// see takes in what the probe found.
func (g *guard) see(now time.Time, found float64, err error) {
	elapsed := min(now.Sub(g.last), 2*g.config.every())
	g.last = now
	if err != nil {
		if g.blind.IsZero() {
			g.blind = now
		}
		if now.Sub(g.blind) >= max(patience, 5*g.config.every()) {
			g.far, g.factor, g.why = false, min(g.factor, careful), "the production probe fails: "+err.Error()
		}
		return
	}
	g.blind = time.Time{}
	bound := float64(g.config.Bound)
	if !(found > bound) { // NaN is the quantile of no requests: nobody suffers
		g.far, g.why = false, ""
		g.factor = min(1, g.factor+regain*elapsed.Seconds())
		return
	}
	g.far = found > g.config.far()
	g.factor = max(creep, g.factor*decrease)
	what := "the probe's query is"
	if g.config.HTTP != nil {
		what = g.config.HTTP.URL + " takes"
	}
	g.why = fmt.Sprintf("production is too slow: %s %s, bound %s", what, g.text(found), g.text(bound))
}

func (g *guard) text(v float64) string {
	if g.config.HTTP != nil && !math.IsInf(v, 0) {
		return time.Duration(v * float64(time.Second)).Round(100 * time.Microsecond).String()
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

func (g *guard) slowed() string { return fmt.Sprintf("slowed to %.0f %%: %s", 100*g.factor, g.why) }

// watch asks the probe until ctx ends.
func (p *Pace) watch(ctx context.Context, c Probe) {
	var asker asker
	for {
		found, err := asker.ask(ctx, c)
		if ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		before := *p.guard
		p.guard.see(time.Now(), found, err)
		switch after := p.guard; {
		case after.why == "" && before.why != "":
			p.log.Info("production is well again")
		case after.why != "" && before.why == "", !after.blind.IsZero() && after.why != before.why:
			p.log.Warn("slowing down", "reason", after.slowed())
		}
		p.decide(time.Now())
		p.mu.Unlock()

		every := c.every()
		timer := time.NewTimer(every*4/5 + rand.N(every*2/5)) // workers do not ask in step
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// asker asks the probe.
type asker struct {
	client *http.Client
	last   []float64 // seconds that the last requests took
}

// Check asks the probe once; its error says what is wrong with the settings or the systems behind them.
func (p Probe) Check(ctx context.Context) error {
	var a asker
	_, err := a.ask(ctx, p)
	return err
}

func (a *asker) ask(ctx context.Context, c Probe) (float64, error) {
	if a.client == nil {
		tls, err := c.TLS.Config()
		if err != nil {
			return 0, err
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = tls
		a.client = &http.Client{Transport: transport}
	}
	if c.HTTP != nil {
		return a.time(ctx, c)
	}
	return a.query(ctx, c)
}

// time is the median of what the last requests took, in seconds.
func (a *asker) time(ctx context.Context, c Probe) (float64, error) {
	longest := time.Duration(2 * c.far() * float64(time.Second))
	limited, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	began := time.Now()
	status, _, err := a.get(limited, c, c.HTTP.URL)
	took := time.Since(began)
	switch {
	case errors.Is(err, context.DeadlineExceeded), err == nil && status >= 500:
		took = longest
	case err != nil:
		return 0, err
	case status >= 400:
		return 0, fmt.Errorf("GET %s gives status %d", c.HTTP.URL, status)
	}
	a.last = append(a.last, took.Seconds())
	a.last = a.last[max(0, len(a.last)-5):]
	sorted := slices.Sorted(slices.Values(a.last))
	return sorted[len(sorted)/2], nil
}

// query is the value of the query.
func (a *asker) query(ctx context.Context, c Probe) (float64, error) {
	limited, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	at := strings.TrimSuffix(c.Prometheus.URL, "/") + "/api/v1/query?query=" + url.QueryEscape(c.Prometheus.Query)
	status, body, err := a.get(limited, c, at)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		return 0, fmt.Errorf("Prometheus gives status %d: %s", status,
			cmp.Or(answer.Error, string(body[:min(len(body), 200)])))
	}
	var value [2]any // time and number, which is text
	switch answer.Data.ResultType {
	case "scalar":
		err = json.Unmarshal(answer.Data.Result, &value)
	case "vector":
		var samples []struct{ Value [2]any }
		err = json.Unmarshal(answer.Data.Result, &samples)
		if err == nil && len(samples) != 1 {
			return 0, fmt.Errorf("the query gives %d samples, not one; aggregate them, as in max(...), and check the "+
				"names of metrics and labels", len(samples))
		}
		if err == nil {
			value = samples[0].Value
		}
	default:
		return 0, fmt.Errorf("the query gives a %s, not one number", answer.Data.ResultType)
	}
	text, ok := value[1].(string)
	if err != nil || !ok {
		return 0, fmt.Errorf("Prometheus gives something other than a sample: %.200s", answer.Data.Result)
	}
	return strconv.ParseFloat(text, 64)
}

// get gives status and body of an address.
func (a *asker) get(ctx context.Context, c Probe, at string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return 0, nil, err
	}
	token, err := c.Token.Resolve()
	if err != nil {
		return 0, nil, err
	}
	password, err := c.Password.Resolve()
	if err != nil {
		return 0, nil, err
	}
	switch {
	case token != "":
		req.Header.Set("Authorization", "Bearer "+token)
	case c.User != "":
		req.SetBasicAuth(c.User, password)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, body, err
}
