package cli

import (
	"context"
	"fmt"

	"reprise/io/connector"
	"reprise/runners/metrics"
)

// exposed are the flags of commands that may show their run to Prometheus.
type exposed struct {
	Metrics string `placeholder:"HOST:PORT" help:"Serve the run's metrics to Prometheus at this address, path /metrics."`
	token
}

// token guards metrics.
type token struct {
	MetricsToken connector.Secret `placeholder:"env:NAME|file:PATH" help:"The bearer token that scrapers must send; required if other machines can reach the address."`
}

// serve begins to serve metrics, if they are asked for. It comes before anything of the run, which must not fail for
// its metrics later.
func (e exposed) serve(con *console) (*metrics.Server, error) {
	if e.Metrics == "" {
		return nil, nil
	}
	s, err := metrics.Listen(e.Metrics, e.MetricsToken)
	if err == nil {
		fmt.Fprintf(con.err, "reprise: metrics are at %s\n", s.URL())
	}
	return s, err
}

// metricsCommand is `reprise metrics RUN`.
type metricsCommand struct {
	one
	Listen string `required:"" placeholder:"HOST:PORT" help:"The address to serve on, path /metrics."`
	token
}

// Run serves the metrics of a run until a signal comes.
func (c *metricsCommand) Run(ctx context.Context, con *console) error {
	j, info, err := c.find(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	s, err := metrics.Listen(c.Listen, c.MetricsToken)
	if err != nil {
		return err
	}
	defer s.Close()
	s.Show(j, info.ID)
	fmt.Fprintf(con.out, "metrics of run %s are at %s\n", info.ID, s.URL())
	<-ctx.Done()
	return nil
}
