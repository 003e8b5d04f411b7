// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/testenv"
)

// partitions are faults of the network between the servers of the log. Whoever is cut off does not know: no connection is closed.
func (f *faults) partitions() map[string]func() {
	cutOff := func(which func() *cluster.Server, clients bool) func() {
		return func() {
			s := which()
			f.c.CutOff(s, clients)
			f.alone(s)
			f.everybody(s.Name + " was cut off")
			f.c.Mend()
			f.healthy()
		}
	}
	return map[string]func(){
		"the leader of the histories cut off from the other servers": cutOff(f.leader, false),
		"a server of the log cut off from the other servers":         cutOff(f.server, false),
		"a server of the log cut off from everybody":                 cutOff(f.server, true),
		"a server of the log that hears and is not heard": func() {
			s := f.leader()
			for _, o := range f.c.Servers {
				if o != s {
					f.c.Silence(s, o)
				}
			}
			f.alone(s)
			f.everybody(s.Name + " was not heard")
			f.c.Mend()
			f.healthy()
		},
		"an instance cut off from the server of the log that it uses": func() { // and from no other: it finds another server
			i := f.instance()
			at := slices.IndexFunc(f.c.Servers, func(s *cluster.Server) bool { return f.c.Uses(i, s) })
			if at < 0 {
				f.t.Fatalf("%s is connected to no server", i.Name())
			}
			s := f.c.Servers[at]
			f.c.Part(i, s)
			f.everybody(i.Name() + " was cut off from " + s.Name)
			for end := time.Now().Add(testenv.Patience); !f.usesAnother(i, s); time.Sleep(50 * time.Millisecond) { // between two looks
				f.l.more()
				if time.Now().After(end) {
					f.t.Fatalf("%s uses no other server than %s, from which it is cut off", i.Name(), s.Name)
				}
			}
			f.c.Mend()
			f.healthy()
		},
		"every server of the log cut off from every other": func() {
			for _, s := range f.c.Servers {
				f.c.CutOff(s, false)
			}
			end := f.standstill("no two servers of the log hear each other")
			end()
			f.c.Mend()
			f.healthy()
		},
	}
}

// usesAnother tells whether an instance is connected to another server than one.
func (f *faults) usesAnother(i *cluster.Instance, than *cluster.Server) bool {
	return slices.ContainsFunc(f.c.Servers, func(s *cluster.Server) bool { return s != than && f.c.Uses(i, s) })
}

// alone waits until a server has given up the others, with everything that this brings about. The load goes on meanwhile.
func (f *faults) alone(s *cluster.Server) {
	f.t.Helper()
	for end := time.Now().Add(testenv.Patience); ; time.Sleep(50 * time.Millisecond) { // between two looks
		f.l.more()
		var routes struct {
			Number int `json:"num_routes"`
		}
		must(f.t, monitor(s, "routez", &routes))
		if routes.Number == 0 {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("%s still has %d routes", s.Name, routes.Number)
		}
	}
}

// monitor reads a page of a server's monitoring.
func monitor(s *cluster.Server, page string, into any) error {
	res, err := http.Get("http://" + s.Monitor + "/" + page)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(into)
}

// everybody waits until each person's commands are acknowledged again, whichever instance and server they have come to.
func (f *faults) everybody(after string) {
	f.t.Helper()
	count := func() map[string]int {
		n := map[string]int{}
		for _, a := range f.l.acks {
			n[a.person]++
		}
		return n
	}
	f.l.mu.Lock()
	before := count()
	f.l.limit = 0
	f.l.poke()
	f.l.mu.Unlock()
	begun := time.Now()
	if !f.l.await(func() bool {
		for person, n := range count() {
			if n < before[person]+6 {
				return false
			}
		}
		return true
	}) {
		f.t.Fatalf("after %s some commands are not acknowledged any more", after)
	}
	f.l.more()
	f.t.Logf("%s: everybody is served after %s", after, time.Since(begun).Round(time.Millisecond))
}

// leader is the server that leads the histories.
func (f *faults) leader() *cluster.Server {
	f.t.Helper()
	js, err := f.c.Log()
	must(f.t, err)
	defer js.Conn().Close()
	stream, err := js.Stream(f.t.Context(), natsd.Stream)
	must(f.t, err)
	name := stream.CachedInfo().Cluster.Leader
	for _, s := range f.c.Servers {
		if s.Name == name {
			return s
		}
	}
	panic(fmt.Sprintf("no server is called %q", name))
}

// noWayAround finds that servers and clients know of no way that goes around the links: not one that they were told by another.
func (f *faults) noWayAround() {
	f.t.Helper()
	for _, s := range f.c.Servers {
		var page struct {
			Routes []struct{ Port int } // the other end, as the server sees it
		}
		must(f.t, monitor(s, "routez", &page))
		if len(page.Routes) == 0 {
			f.t.Errorf("%s has no routes", s.Name)
		}
		for _, r := range page.Routes {
			if !f.c.IsLink(r.Port) {
				f.t.Errorf("%s went around the links, to port %d", s.Name, r.Port)
			}
		}
	}
	js, err := f.c.Log()
	must(f.t, err)
	defer js.Conn().Close()
	if told := js.Conn().DiscoveredServers(); len(told) > 0 {
		f.t.Errorf("clients are told of %v", told)
	}
}
