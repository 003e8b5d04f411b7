// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"cacert.org/emergency/pkg/procedure"
)

// grants shows the accesses: who may, who watches, how long.
func (a *app) grants(st *procedure.State) {
	if len(st.Grants) > 0 {
		a.part("access")
	}
	for i := range st.Grants {
		g := &st.Grants[i]
		a.out.line("  %s  %s, %s on %s, watched by %s, granted by %s", bold(g.ID), grantStanding(g), g.Subject, g.Host, g.Watcher, g.Granter)
		for _, l := range a.grantLines(st, g) {
			a.out.line("      %s", l)
		}
	}
}

func grantStanding(g *procedure.Grant) styled {
	w := grantWord(g.State)
	switch g.State {
	case procedure.GrantLive, procedure.GrantFrozen, procedure.GrantWatcherReady:
		return alert(w)
	case procedure.GrantStillUsable:
		return bad(w)
	case procedure.GrantProvenUnusable, procedure.GrantSealed:
		return good(w)
	case procedure.GrantIssued, procedure.GrantExpired, procedure.GrantTerminated, procedure.GrantDisabled:
	}
	return styled(w)
}

// grantLines are what matters of a grant now, and what to type about it.
func (a *app) grantLines(st *procedure.State, g *procedure.Grant) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, a.typing(fmt.Sprintf(format, args...))) }
	switch g.State {
	case procedure.GrantIssued:
		add("usable until %s, once %s watches: epatch watch-console %s", a.out.at(g.FirstUseUntil), g.Watcher, g.ID)
	case procedure.GrantWatcherReady:
		add("usable until %s by %s: epatch connect %s", a.out.at(g.FirstUseUntil), g.Subject, g.ID)
	case procedure.GrantLive, procedure.GrantFrozen:
		if g.State == procedure.GrantFrozen {
			add("frozen%s: epatch resume %s", becauseOf(g.FreezeCause), g.ID)
		}
		add("ends at the latest %s; end it: epatch terminate %s", a.out.at(g.EndsBy()), g.ID)
		add("the watcher's presence counts until %s", a.out.at(st.PresenceUntil(g)))
	case procedure.GrantTerminated, procedure.GrantExpired:
		add("over%s: epatch disable %s", becauseOf(g.Cause), g.ID)
	case procedure.GrantDisabled:
		add("to be proven: epatch prove-unusable %s", g.ID)
	case procedure.GrantStillUsable:
		add("it could still be used, or that could not be tried: epatch disable %s", g.ID)
	case procedure.GrantProvenUnusable:
		if g.Opened.Position > 0 {
			add("to be sealed: epatch seal %s", g.ID)
		}
	case procedure.GrantSealed:
		add("recording %s: epatch replay-console %s", word(g.Record), g.ID)
	}
	if n := len(unexplained(g)); n > 0 {
		add("%s to be explained: epatch leftovers %s", plural(n, "leftover", "leftovers"), g.ID)
	}
	if n := len(g.Diff.Paths); n > 0 {
		add("%s of the host's tree changed", plural(n, "path", "paths"))
	}
	return list
}

// permissions shows the team lead's valid ones that nobody has used.
func (a *app) permissions(st *procedure.State, now time.Time) {
	for _, p := range st.Permissions {
		if !now.After(p.ValidUntil) && st.OpenGrant() == nil {
			a.out.field("permitted", "%s, until %s: %s", p.Subject, a.out.at(p.ValidUntil), a.typing("epatch grant "+p.Subject))
		}
	}
}

// court shows disputes and directions.
func (a *app) court(st *procedure.State) {
	if len(st.Disputes) > 0 {
		a.part("disputes")
		a.disputes(st)
	}
	if len(st.Directions) > 0 {
		a.part("directions")
		a.directions(st)
	}
}
