package cassandraio

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"reprise/io/connector"
)

// Connection says how to reach a cluster. A job has one for each of its ends, so that reading
// can be kept to nodes of its own.
type Connection struct {
	Hosts          []string           `json:"hosts" jsonschema:"required,minItems=1" jsonschema_description:"Nodes to contact first, which name the others: addresses or host names, with :PORT unless it is the default."`
	Port           int                `json:"port,omitempty" jsonschema:"minimum=1,maximum=65535" jsonschema_description:"Port of every node. Default: that of the first host that names one, else 9042."`
	LocalDC        string             `json:"local_dc,omitempty" jsonschema_description:"Data centre whose nodes are used, and no others. Default: that of the first host that answers."`
	OnlyHosts      []string           `json:"only_hosts,omitempty" jsonschema_description:"Use only these nodes: addresses or ranges such as 10.0.8.0/24. Default: all of the data centre."`
	AvoidHosts     []string           `json:"avoid_hosts,omitempty" jsonschema_description:"Never send requests to these nodes, for example those that serve live traffic: addresses or ranges. They still answer other nodes for what only they hold."`
	User           string             `json:"user,omitempty" jsonschema_description:"User name; with password. Default: no login."`
	Password       connector.Secret   `json:"password,omitempty" jsonschema_description:"The user's password: env:NAME or file:PATH."`
	TLS            *connector.TLS     `json:"tls,omitempty" jsonschema_description:"Encrypt connections; {} checks the server's certificate against the system's certificates. Default: not encrypted."`
	ConnectTimeout connector.Duration `json:"connect_timeout,omitempty" jsonschema_description:"How long one node may take to accept a connection and the login. Default: 5s."`
	Timeout        connector.Duration `json:"timeout,omitempty" jsonschema_description:"How long one request may take. Keep it above the server's own limits (5s for reads), so that the server can say what is wrong. Default: 12s."`
}

// Validate gives the faults that a schema cannot find.
func (c Connection) Validate() []connector.Fault {
	var faults []connector.Fault
	add := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	if len(c.Hosts) == 0 {
		add("hosts", "at least one node is needed, such as 10.0.0.1")
	}
	for _, h := range c.Hosts {
		if h == "" || strings.ContainsAny(h, "/ ,") {
			add("hosts", "%q is not an address or name of a node, such as 10.0.0.1 or 10.0.0.1:9042", h)
		}
	}
	if _, err := prefixes(c.OnlyHosts); err != nil {
		add("only_hosts", "%v", err)
	}
	if _, err := prefixes(c.AvoidHosts); err != nil {
		add("avoid_hosts", "%v", err)
	}
	if (c.User == "") != (c.Password == "") {
		add("user", "user and password belong together")
	}
	return faults
}

// port is the one that nodes not named in Hosts are reached at: Cassandra has the same on all.
func (c Connection) port() int {
	if c.Port != 0 {
		return c.Port
	}
	for _, h := range c.Hosts {
		if _, text, err := net.SplitHostPort(h); err == nil {
			if n, err := strconv.Atoi(text); err == nil {
				return n
			}
		}
	}
	return 9042
}

// prefixes reads addresses and ranges of addresses.
func prefixes(texts []string) ([]netip.Prefix, error) {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			all[i] = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address such as 10.0.0.1 nor a range such as 10.0.8.0/24", text)
		}
		all[i] = p
	}
	return all, nil
}

// tableFaults finds what is wrong with the settings that name a table, of sources and sinks alike.
func tableFaults(c Connection, keyspace, table string) []connector.Fault {
	var faults []connector.Fault
	for _, f := range c.Validate() {
		faults = append(faults, connector.Fault{Path: "connection." + f.Path, Message: f.Message})
	}
	if keyspace == "" {
		faults = append(faults, connector.Faultf("keyspace", "the keyspace is missing"))
	}
	if table == "" {
		faults = append(faults, connector.Faultf("table", "the table is missing"))
	}
	return faults
}
