// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// ServerConf is one server of a cluster, as its configuration file says it (hardening 4): every write synced, mutual TLS on client and
// route ports, no other way in, monitoring on this machine only.
type ServerConf struct {
	// Name is the server's, Cluster the cluster's name.
	Name, Cluster string
	// Listen and Route are host:port of clients and of the other servers; Monitor of the monitoring page on loopback, none if empty.
	Listen, Route, Monitor string
	// Routes are the Route addresses of all servers of the cluster.
	Routes []string
	// Advertise is set where the servers reach each other by Routes alone, as behind forwarders: the host:port that is gossiped instead of
	// Route, which no other server has to be able to reach. Clients are then told of no other servers either.
	Advertise string
	// Store is the folder of the streams, on a file system of its own; StoreBytes how much of it they may reserve.
	Store      string
	StoreBytes int64
	// Cert, Key and CA are the files of the server's certificate and of the authorities of clients and servers.
	Cert, Key, CA string
	// Accounts is what Accounts returned.
	Accounts string
}

// Conf is the text of the configuration file.
func (c ServerConf) Conf() (string, error) {
	for _, x := range []struct{ name, value string }{
		{"Name", c.Name}, {"Listen", c.Listen}, {"Store", c.Store}, {"Cert", c.Cert}, {"Key", c.Key}, {"CA", c.CA}, {"Accounts", c.Accounts},
	} {
		if x.value == "" {
			return "", fmt.Errorf("configuration of a nats server: %s is missing", x.name)
		}
	}
	if (c.Route == "") != (len(c.Routes) == 0) || (c.Route == "") != (c.Cluster == "") || c.Route == "" && c.Advertise != "" {
		return "", errors.New("configuration of a nats server: Cluster, Route, Routes and Advertise belong together")
	}
	if host, _, err := net.SplitHostPort(c.Monitor); c.Monitor != "" && (err != nil || host != "localhost" && !net.ParseIP(host).IsLoopback()) {
		return "", fmt.Errorf("configuration of a nats server: Monitor %q is not this machine: the page has no login", c.Monitor)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %q\nlisten: %q\nmax_payload: %d\nping_interval: %q\nping_max: %d\n", c.Name, c.Listen, MaxMessage, pingEvery, pingsOut)
	if c.Monitor != "" {
		fmt.Fprintf(&b, "http: %q\n", c.Monitor)
	}
	fmt.Fprintf(&b, "jetstream: { store_dir: %q, sync_interval: always", c.Store)
	if c.StoreBytes > 0 {
		fmt.Fprintf(&b, ", max_file_store: %d", c.StoreBytes)
	}
	b.WriteString(" }\n")
	tls := fmt.Sprintf("tls: { cert_file: %q, key_file: %q, ca_file: %q, verify: true, min_version: \"1.3\" }", c.Cert, c.Key, c.CA)
	b.WriteString(tls + "\n")
	if c.Route != "" {
		var routes []string
		for _, r := range c.Routes {
			routes = append(routes, fmt.Sprintf("%q", "tls://"+r))
		}
		fmt.Fprintf(&b, "cluster: {\n  name: %q\n  listen: %q\n  ping_interval: %q\n  ping_max: %d\n  %s\n  routes: [%s]\n", c.Cluster, c.Route, pingEvery, pingsOut, tls, strings.Join(routes, ", "))
		if c.Advertise != "" {
			fmt.Fprintf(&b, "  advertise: %q\n  no_advertise: true\n", c.Advertise)
		}
		b.WriteString("}\n")
	}
	b.WriteString(c.Accounts)
	return b.String(), nil
}
