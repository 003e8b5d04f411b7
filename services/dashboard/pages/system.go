// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"strings"
	"time"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
)

// Process is what the process knows about itself and about the services around it.
type Process struct {
	Version string
	// Stored is the last sequence of the store; 0 with StoreAway, which says why it is not known.
	Stored    uint64
	StoreAway string
	// Stream is the store's log; nil if it is away.
	Stream *Stream
	// Ahead is how far the process's clock is ahead of the store's; negative if it is behind.
	Ahead time.Duration
	// Waiting counts, by service, the records with effects that are not finished; Trouble are the effects that fail.
	Waiting map[string]int
	Trouble map[string][]effect.Trouble
	// Services tells, by service, why it does not answer; empty for one that does. One that is missing was not asked.
	Services map[string]string
	// Kept are the projections whose rows are kept in a database.
	Kept []projection.KeeperStatus
}

// Stream is the log of all histories.
type Stream struct {
	Name            string
	Messages, Bytes uint64
	First           uint64
	LastAt          time.Time
	// Copies is on how many servers it is; Leader and Behind name them, where there is more than one.
	Copies int
	Leader string
	Behind []string
}

// systemView is what the process knows of itself.
type systemView struct {
	Process
	LastAt      *when
	ClockOff    string // how far the clock is ahead or behind; empty if that is within the tolerance
	Size        string
	Owners      []owner
	Projections []projected
	Foreign     int
	Applied     uint64
	Lag         uint64
	Parked      []parked
	Trouble     []trouble
	Failing     []failing
	Incidents   int
	Events      uint64
	Sessions    int
}

// owner is one of the services and how many records have effects of it that are not finished.
type owner struct {
	Name    string
	Asked   bool
	Away    string
	Waiting int
	Failing int
}

// projected is a projection and how far it has come.
type projected struct {
	Name     string
	Version  int
	Position uint64
	Lag      uint64
	// In is where its rows are kept; empty for this process. Building: nobody looks at them yet. Trouble is why they stand still.
	In       string
	Building bool
	Trouble  string
}

// trouble is an effect that fails.
type trouble struct {
	effect.Trouble
	Owner string
	Cause *event
	What  string
	Badge badge
}

// parked is an incident that a projection could not fold.
type parked struct {
	Event event
	Why   string
}

// failing is a page that did not arrive, in an emergency that is open.
type failing struct {
	call
	Person *person
}

func (p *Pages) system(v *viewer, _ *http.Request) (*content, error) {
	reader, err := p.cfg.Reader()
	if err != nil {
		return nil, err
	}
	d := systemView{Foreign: reader.Foreign(), Applied: reader.Sequence(), Sessions: p.sessions.count()}
	d.Process = p.cfg.Process(v.ctx) // after the reader's mark, or what came meanwhile would look read before it was written
	if d.Stored > d.Applied {
		d.Lag = d.Stored - d.Applied
	}
	if d.Stream != nil {
		d.LastAt, d.Size = v.when(d.Stream.LastAt), v.size(d.Stream.Bytes)
	}
	if policy := p.cfg.Incidents.Book().LatestPolicy(); policy != nil && d.Ahead.Abs() > policy.Duration("clock.tolerance") { // 0.6
		d.ClockOff = d.Ahead.Abs().Round(time.Second).String()
	}
	for _, x := range reader.Projections() {
		d.Projections = append(d.Projections, projected{Name: x.Name(), Version: x.Version(), Position: d.Applied, Lag: d.Lag})
	}
	for _, k := range d.Kept {
		d.Projections = append(d.Projections, keptIn(k, d.Stored))
	}
	for _, name := range procedure.Owners() {
		away, asked := d.Services[name]
		d.Owners = append(d.Owners, owner{name, asked, away, d.Waiting[name], len(d.Process.Trouble[name])})
		for _, t := range d.Process.Trouble[name] {
			d.Trouble = append(d.Trouble, v.trouble(name, t))
		}
	}
	p.cfg.Incidents.Each(func(st *procedure.State) {
		d.Incidents, d.Events = d.Incidents+1, d.Events+st.Position
		if st.Status == procedure.Open {
			d.Failing = append(d.Failing, v.failing(st)...)
		}
	})
	d.Parked = parkedIn(p.cfg.Incidents)
	return &content{Title: "system.title", Section: "system", Template: "system", Data: d}, nil
}

// keptIn is a projection whose rows are in the database.
func keptIn(k projection.KeeperStatus, stored uint64) projected {
	x := projected{Name: k.Name, Version: k.Version, Position: k.Kept, In: "PostgreSQL", Building: !k.Complete, Trouble: k.Trouble}
	if stored > k.Kept {
		x.Lag = stored - k.Kept
	}
	return x
}

func parkedIn(incidents *projection.Incidents) []parked {
	var list []parked
	for _, id := range incidents.AllParked() {
		if from, err := incidents.Parked(id); err != nil {
			list = append(list, parked{event{id, from}, err.Error()})
		}
	}
	return list
}

// trouble puts an effect that fails into words. Its key begins with the id of the event that wants it.
func (v *viewer) trouble(owner string, t effect.Trouble) trouble {
	x := trouble{Trouble: t, Owner: owner, What: t.Key, Badge: badge{v.say("system.again", t.Tries), warn}}
	if t.GivenUp {
		x.Badge = badge{v.say("system.givenup"), bad}
	}
	if parts := strings.SplitN(t.Key, "/", 3); len(parts) == 3 {
		if x.Cause = causeOf(parts[0] + "/" + parts[1]); x.Cause != nil {
			x.What = parts[2]
		}
	}
	return x
}

// size is a number of bytes in the unit in which it is easy to read.
func (v *viewer) size(n uint64) string {
	switch {
	case n >= 10<<30:
		return v.say("size.gib", n>>30)
	case n >= 10<<20:
		return v.say("size.mib", n>>20)
	}
	return v.say("size.kib", (n+1023)>>10)
}

// failing are the pages that failed, or of which nothing is known.
func (v *viewer) failing(st *procedure.State) []failing {
	var list []failing
	for _, pg := range st.Pages {
		state := strings.TrimPrefix(pg.State.String(), "DELIVERY_STATE_")
		if state == "FAILED" || state == "UNKNOWN" {
			list = append(list, failing{call{Channel: pg.Channel, Badge: v.badge(bad, "delivery", state), Detail: pg.Detail, Event: event{st.Incident, pg.Position}, At: v.when(pg.SentAt)}, v.person(pg.Person)})
		}
	}
	return list
}
