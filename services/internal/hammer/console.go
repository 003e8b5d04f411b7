// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"time"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// grantFile is what the rules need to remember of one access.
type grantFile struct {
	id, subject, watcher, granter string
	firstUse, armed, frozen       time.Time
	armedAt, frozenAt             uint64 // positions
	consumed, opened, ended       bool
	isFrozen, extended, disabled  bool
	proven, roleEnded, diff       bool
	looked, sealed                bool
	frame                         uint64
	open                          map[string]bool // leftovers that nobody explained
}

type permission struct {
	subject string
	until   time.Time
}

// consoleFile is strategy 3's part of an incident.
type consoleFile struct {
	strategy    uint32
	permissions map[uint64]permission
	grants      []*grantFile
}

func (c *consoleFile) grant(id string) *grantFile {
	for _, g := range c.grants {
		if g.id == id {
			return g
		}
	}
	return nil
}

// openGrant is an access that is not proven unusable; nil if there is none.
func (c *consoleFile) openGrant() *grantFile {
	for _, g := range c.grants {
		if !g.proven {
			return g
		}
	}
	return nil
}

// console judges the events of strategy 3's access, and what may not happen while there is one.
func (j *judge) console(c *caseFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.StrategyEscalated:
		c.console.strategy = e.GetTo()
	case *emergencyv1.StrategyDeEscalated:
		c.console.strategy = e.GetTo()
		j.noGrant(c, "went back to a lower strategy")
	case *emergencyv1.IncidentClosed, *emergencyv1.IncidentStoodDown, *emergencyv1.IncidentMerged:
		j.noGrant(c, "ended")
	case *emergencyv1.AccessPermitted:
		j.want(c, c.console.strategy == 3, "access permitted under strategy %d", c.console.strategy)
		j.signed(c, nil)
		j.distinct(c, "the permitting lead", c.who(), e.GetSubject())
		if c.console.permissions == nil {
			c.console.permissions = map[uint64]permission{}
		}
		c.console.permissions[c.position] = permission{e.GetSubject(), e.GetValidUntil().AsTime()}
	case *emergencyv1.AccessGrantIssued:
		j.issued(c, e)
	case interface{ GetGrant() string }:
		if g := c.console.grant(e.GetGrant()); g != nil {
			j.session(c, g, payload)
		} else {
			j.want(c, false, "%T of grant %q, which nobody issued", payload, e.GetGrant())
		}
	}
}

func (j *judge) noGrant(c *caseFile, did string) {
	if g := c.console.openGrant(); g != nil {
		j.want(c, false, "%s while grant %s is not proven unusable", did, g.id)
	}
}

func (j *judge) issued(c *caseFile, e *emergencyv1.AccessGrantIssued) {
	j.want(c, c.console.strategy == 3, "access granted under strategy %d", c.console.strategy)
	j.signed(c, nil)
	j.distinct(c, "subject", e.GetSubject(), e.GetWatcher(), c.who())
	j.noGrant(c, "another access granted")
	j.want(c, c.console.grant(e.GetGrant()) == nil, "grant %s issued twice", e.GetGrant())
	j.want(c, e.GetBeforeTree() != "", "granted without the tree before")
	j.want(c, e.GetMaxMinutes() <= 60 && e.GetFirstUseUntil().AsTime().Sub(c.at) <= 10*time.Minute, "granted for %d minutes, first use by %s", e.GetMaxMinutes(), e.GetFirstUseUntil().AsTime())
	if p := e.GetPermission(); p > 0 {
		given, ok := c.console.permissions[p]
		j.want(c, ok && given.subject == e.GetSubject() && !c.at.After(given.until), "granted on the permission at %d, which is for %q until %s", p, given.subject, given.until)
	}
	c.console.grants = append(c.console.grants, &grantFile{
		id: e.GetGrant(), subject: e.GetSubject(), watcher: e.GetWatcher(), granter: c.who(), firstUse: e.GetFirstUseUntil().AsTime(), open: map[string]bool{},
	})
}

// session judges the events of one access until it has ended.
func (j *judge) session(c *caseFile, g *grantFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.RoleAssumed:
		j.want(c, e.GetPerson() == g.granter, "%s acts as access engineer for %s", e.GetPerson(), g.granter)
	case *emergencyv1.WatchArmed:
		j.signed(c, nil)
		j.want(c, e.GetWatcher() == c.who() && !g.ended, "armed by %s for %s, ended %t", c.who(), e.GetWatcher(), g.ended)
		j.distinct(c, "watcher", e.GetWatcher(), g.subject)
		g.watcher, g.armed, g.armedAt = e.GetWatcher(), c.at, c.position
	case *emergencyv1.CredentialConsumed:
		j.want(c, !g.consumed, "the credential of %s used twice", g.id)
		j.want(c, !g.ended && !g.disabled, "the credential of %s used after its end", g.id)
		j.want(c, c.who() == g.subject, "the credential of %s used by %s", g.subject, c.who())
		j.want(c, !g.armed.IsZero() && c.at.Sub(g.armed) <= 5*time.Minute, "the credential of %s used unwatched", g.id)
		j.want(c, !c.at.After(g.firstUse), "the credential of %s used too late", g.id)
		g.consumed = true
	case *emergencyv1.ConnectionOpened:
		j.want(c, g.consumed && !g.opened && !g.ended, "opened: used %t, open before %t, ended %t", g.consumed, g.opened, g.ended)
		g.opened, c.produced = true, true
	case *emergencyv1.SessionFrozen:
		j.want(c, g.opened && !g.isFrozen && !g.ended, "frozen: open %t, frozen before %t, ended %t", g.opened, g.isFrozen, g.ended)
		g.isFrozen, g.frozen, g.frozenAt = true, c.at, c.position
	case *emergencyv1.SessionResumed:
		j.want(c, g.isFrozen && !g.ended && c.who() == g.watcher, "resumed by %s: frozen %t, ended %t, watched by %s", c.who(), g.isFrozen, g.ended, g.watcher)
		j.want(c, g.armedAt > g.frozenAt && c.at.Sub(g.frozen) <= time.Minute, "resumed without a fresh watch, or after the grace")
		g.isFrozen = false
	case *emergencyv1.SessionMarked:
		if p := e.GetCheckpoint(); p != nil {
			j.want(c, p.GetFrame() > g.frame, "the checkpoint at frame %d follows that at %d", p.GetFrame(), g.frame)
			g.frame = p.GetFrame()
		}
	case *emergencyv1.SessionExtended:
		j.want(c, !g.extended && g.opened && !g.ended && c.who() == g.watcher, "extended by %s: before %t, open %t, ended %t", c.who(), g.extended, g.opened, g.ended)
		g.extended = true
	case *emergencyv1.GrantExpired:
		j.want(c, !g.consumed && !g.ended && c.at.After(g.firstUse), "expired: used %t, ended %t", g.consumed, g.ended)
		g.ended = true
	case *emergencyv1.SessionTerminated:
		j.want(c, c.once("terminated/%s", g.id), "%s terminated twice", g.id)
		g.ended = true
	default:
		j.afterSession(c, g, payload)
	}
}

// afterSession judges the rest: disabled, proven unusable, looked at, sealed.
func (j *judge) afterSession(c *caseFile, g *grantFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.ConnectionDisabled:
		j.want(c, g.ended, "%s disabled and not ended", g.id)
		g.disabled = true
	case *emergencyv1.CredentialProvenUnusable:
		j.want(c, g.disabled, "%s proven unusable and not disabled", g.id)
		g.proven = true
	case *emergencyv1.CredentialStillUsable:
		j.want(c, g.disabled && !g.sealed, "%s tried again: disabled %t, sealed %t", g.id, g.disabled, g.sealed)
		g.proven = false
	case *emergencyv1.RoleAssumptionEnded:
		j.want(c, g.proven && !g.roleEnded && e.GetPerson() == g.granter, "the role of %s ended: proven %t, before %t", e.GetPerson(), g.proven, g.roleEnded)
		g.roleEnded = true
	case *emergencyv1.SessionDiffCaptured:
		j.want(c, g.opened && g.ended, "the difference of %s captured: open %t, ended %t", g.id, g.opened, g.ended)
		g.diff = true
	case *emergencyv1.LeftoversReported:
		j.want(c, g.opened && g.ended && !g.sealed, "leftovers of %s: open %t, ended %t, sealed %t", g.id, g.opened, g.ended, g.sealed)
		g.looked = true
		for _, l := range e.GetItems() {
			j.want(c, c.once("leftover/%s/%s", g.id, l.GetItem()), "leftover %s of %s is there twice", l.GetItem(), g.id)
			g.open[l.GetItem()] = true
		}
	case *emergencyv1.LeftoversExplained:
		for _, item := range e.GetItems() {
			j.want(c, g.open[item], "leftover %s of %s explained, which was not open", item, g.id)
			delete(g.open, item)
		}
	case *emergencyv1.SessionSealed:
		j.want(c, g.proven && g.diff && g.looked && len(g.open) == 0 && !g.sealed, "%s sealed: proven %t, difference %t, looked at %t, %d left, before %t",
			g.id, g.proven, g.diff, g.looked, len(g.open), g.sealed)
		g.sealed = true
	}
}
