// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	leadIsActor   = emergencyv1.Deviation_DEVIATION_LEAD_IS_ACTOR
	noPermission  = emergencyv1.Deviation_DEVIATION_NO_LEAD_PERMISSION
	notAssessor   = emergencyv1.Deviation_DEVIATION_SUBJECT_NOT_ASSESSOR
	assumed       = emergencyv1.Deviation_DEVIATION_ROLE_ASSUMPTION
	cannotFreeze  = emergencyv1.Deviation_DEVIATION_FREEZE_NOT_AVAILABLE
	gateway       = "gateway"
	gatewayOfEmil = "gateway:emil"
)

// found are good facts for a command with something changed, whatever the state then is.
func found(c procedure.Command, change func(*procedure.ConsoleFacts)) []pt.Option {
	return []pt.Option{pt.WithEnv(func(e *procedure.Env) {
		if e.Facts.Console == nil {
			e.Facts.Console = &procedure.ConsoleFacts{}
		}
		change(e.Facts.Console)
	})}
}

// expired lets the time for the first use pass.
func expired(w *pt.World) { w.Wait(11 * time.Minute); w.Tick(procedure.OwnerDeployment) }

// stillUsable has the reuse of the disabled credential succeed on the host.
func stillUsable(w *pt.World) {
	w.Do("carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"}, found(nil, func(x *procedure.ConsoleFacts) { x.Attempts = pt.Attempts(w.Now, false) })...)
}

// TestConsoleStory plays a watched session as it should go, from the joint declaration to the seal.
func TestConsoleStory(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Sealed)).World()
	g := w.State.Grants[0]
	if g.State != procedure.GrantSealed || w.State.OpenGrant() != nil {
		t.Fatalf("%+v", g)
	}
	for _, kind := range []string{"DISABLE_ACCESS", "PROVE_UNUSABLE", "SEAL_SESSION", "EXPLAIN_LEFTOVERS"} {
		if o, ok := debt(w.State, kind); !ok || o.Open() {
			t.Errorf("%s: %+v", kind, o)
		}
	}
	if o, ok := debt(w.State, "REPLICATE"); !ok || !o.Open() {
		t.Errorf("the session changed the host: %+v", o)
	}
	if !w.State.ProductionEffect() {
		t.Error("a session is no production effect")
	}
	states := map[pt.Milestone]procedure.GrantState{
		pt.Granted: procedure.GrantIssued, pt.Armed: procedure.GrantWatcherReady, pt.Consumed: procedure.GrantWatcherReady, pt.Live: procedure.GrantLive,
		pt.Frozen: procedure.GrantFrozen, pt.Resumed: procedure.GrantLive, pt.Terminated: procedure.GrantTerminated, pt.Disabled: procedure.GrantDisabled,
		pt.Proven: procedure.GrantProvenUnusable, pt.Explained: procedure.GrantProvenUnusable, pt.Sealed: procedure.GrantSealed,
	}
	for m, want := range states {
		if got := pt.Given(t, pt.Story(m)).World().State.Grants[0].State; got != want {
			t.Errorf("%s: %s, want %s", m, got, want)
		}
	}
	if got := pt.Given(t, pt.Story(pt.Disabled), stillUsable).World().State.Grants[0].State; got != procedure.GrantStillUsable {
		t.Errorf("reuse succeeded: %s", got)
	}
	if got := pt.Given(t, pt.Story(pt.Armed), expired).World().State.Grants[0].State; got != procedure.GrantExpired {
		t.Errorf("not used in time: %s", got)
	}
}

func TestPermitAccess(t *testing.T) {
	t.Parallel()
	joined := pt.Story(pt.Joined)
	valid := func(minutes uint32) procedure.Command {
		return with(pt.Permit("emil"), func(c *emergencyv1.PermitAccessRequest) { c.ValidMinutes = minutes })
	}
	until := func(d time.Duration) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if p := w.State.Permissions[0]; !p.ValidUntil.Equal(w.Now.Add(d)) || p.Subject != "emil" || p.By != "clara" {
				t.Errorf("%+v", p)
			}
		}
	}
	byClara := func(w *pt.World) { w.Change(func(s *procedure.State) { s.Declared.By = "clara" }) }
	run(t, []row{
		{name: "for the policy's time", given: history(joined), when: pt.Permit("emil"), by: "clara", then: events("AccessPermitted"), check: until(2 * time.Hour)},
		{name: "for less", given: history(joined), when: valid(30), by: "clara", then: events("AccessPermitted"), check: until(30 * time.Minute)},
		{name: "for more than the policy's time", given: history(joined), when: valid(121), by: "clara", refused: procedure.ReasonLimit},
		{name: "for oneself", given: history(joined), when: pt.Permit("clara"), by: "clara", refused: procedure.ReasonSubjectIsWatcher},
		{name: "in strategy 1", given: history(pt.Story(pt.Called)), when: pt.Permit("emil"), by: "clara", refused: procedure.ReasonStrategy},
		{name: "in strategy 2", given: history(pt.Story(pt.Escalated)), when: pt.Permit("emil"), by: "clara", refused: procedure.ReasonStrategy},
		{name: "by a critical admin", given: history(joined), when: pt.Permit("emil"), by: "carla", refused: procedure.ReasonRole},
		{name: "without a purpose", given: history(joined), when: &emergencyv1.PermitAccessRequest{Subject: "emil"}, by: "clara", refused: procedure.ReasonField},
		{name: "by the lead who declared", given: history(joined, byClara), when: pt.Permit("emil"), by: "clara", then: events("AccessPermitted"), check: wantDeviation(leadIsActor)},
		{name: "by the lead who signed the joint declaration", given: history(pt.Story(pt.Called), pt.Does("clara", pt.Joint()), pt.Does("anna", pt.Joint())), when: pt.Permit("emil"), by: "clara", then: events("AccessPermitted"), check: wantDeviation(leadIsActor)},
		{name: "by the lead who watched before", given: history(joined, pt.Does("clara", pt.Permit("emil")), pt.Does("carla", pt.GrantTo("emil", "clara"))), when: pt.Permit("anna"), by: "clara", then: events("AccessPermitted"), check: wantDeviation(leadIsActor)},
	})
}

func TestGrantAccess(t *testing.T) {
	t.Parallel()
	permitted := pt.Story(pt.Permitted)
	grant := pt.GrantTo("emil", "carl")
	change := func(f func(*emergencyv1.GrantAccessRequest)) procedure.Command { return with(grant, f) }
	minutes := func(n uint32) procedure.Command {
		return change(func(c *emergencyv1.GrantAccessRequest) { c.MaxMinutes = n })
	}
	issued := func(check func(g procedure.Grant) bool, deviations ...emergencyv1.Deviation) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			wantDeviation(deviations...)(t, w)
			if g := w.State.Grants[len(w.State.Grants)-1]; !check(g) {
				t.Errorf("%+v", g)
			}
		}
	}
	any := func(procedure.Grant) bool { return true }
	// under strategy 3 the lead is called with the team, on duty or not, over two channels
	called := history(pt.Story(pt.Joined), pt.Does("carla", &emergencyv1.CallOutRequest{Teams: []emergencyv1.Team{critical}}))
	sealedGrant := history(pt.Story(pt.Proven), pt.Does("clara", pt.Permit("emil")))
	run(t, []row{
		{name: "to an engineer", given: history(permitted), when: grant, by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(func(g procedure.Grant) bool {
			return g.ID == "G1" && g.Subject == "emil" && g.Watcher == "carl" && g.Granter == "carla" && g.Host == pt.Host && g.Max == time.Hour && g.Agent &&
				g.BeforeTree == pt.BaseTree() && g.FirstUseUntil.Equal(g.IssuedAt.Add(10*time.Minute)) && g.Permission > 0 && g.Account != "" && g.Source != ""
		}, notAssessor, assumed)},
		{name: "to an assessor", given: history(pt.Story(pt.Joined), pt.Does("clara", pt.Permit("bert"))), when: pt.GrantTo("bert", "carl"), by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(any, assumed)},
		{name: "the actor watches", given: history(permitted), when: pt.GrantTo("emil", ""), by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(func(g procedure.Grant) bool { return g.Watcher == "carla" }, notAssessor, assumed)},
		{name: "shorter", given: history(permitted), when: minutes(5), by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(func(g procedure.Grant) bool { return g.Max == 5*time.Minute }, notAssessor, assumed)},
		{name: "configuration tightens", given: history(permitted), when: grant, by: "carla", with: found(grant, func(x *procedure.ConsoleFacts) { x.MaxLength, x.FirstUse = 20*time.Minute, time.Minute }), then: events("AccessGrantIssued", "RoleAssumed"), check: issued(func(g procedure.Grant) bool {
			return g.Max == 20*time.Minute && g.FirstUseUntil.Equal(g.IssuedAt.Add(time.Minute))
		}, notAssessor, assumed)},
		{name: "configuration never widens", given: history(permitted), when: grant, by: "carla", with: found(grant, func(x *procedure.ConsoleFacts) { x.MaxLength, x.FirstUse = 20*time.Hour, time.Hour }), then: events("AccessGrantIssued", "RoleAssumed"), check: issued(func(g procedure.Grant) bool {
			return g.Max == time.Hour && g.FirstUseUntil.Equal(g.IssuedAt.Add(10*time.Minute))
		}, notAssessor, assumed)},
		{name: "longer than the policy", given: history(permitted), when: minutes(61), by: "carla", refused: procedure.ReasonLimit},
		{name: "longer than the configuration", given: history(permitted), when: minutes(21), by: "carla", with: found(grant, func(x *procedure.ConsoleFacts) { x.MaxLength = 20 * time.Minute }), refused: procedure.ReasonLimit},
		{name: "in strategy 1", given: history(pt.Story(pt.Called)), when: grant, by: "carla", refused: procedure.ReasonStrategy},
		{name: "G11 on another host", given: history(permitted), when: change(func(c *emergencyv1.GrantAccessRequest) { c.Host = pt.OtherHost }), by: "carla", refused: procedure.ReasonDrillBoundary},
		{name: "G11 on the drill's host", given: history(permitted), when: change(func(c *emergencyv1.GrantAccessRequest) { c.Host = pt.DrillHost }), by: "carla", refused: procedure.ReasonDrillBoundary},
		{name: "to a tester", given: history(permitted), when: pt.GrantTo("theo", "carl"), by: "carla", refused: procedure.ReasonSubjectRole},
		{name: "to nobody of the directory", given: history(permitted), when: pt.GrantTo("nobody", "carl"), by: "carla", refused: procedure.ReasonSubjectRole},
		{name: "watched by an assessor", given: history(permitted), when: pt.GrantTo("emil", "anna"), by: "carla", refused: procedure.ReasonWatcherRole},
		{name: "X13 the subject watches", given: history(permitted), when: pt.GrantTo("xaver", "xaver"), by: "carla", refused: procedure.ReasonSubjectIsWatcher},
		{name: "X13 the subject grants", given: history(permitted, engineer("carla")), when: pt.GrantTo("carla", "carl"), by: "carla", refused: procedure.ReasonSubjectIsWatcher},
		{name: "X13 the subject grants by another key", given: history(permitted, engineer("carla")), when: pt.GrantTo("carla", "carl"), by: "carla2", refused: procedure.ReasonSubjectIsWatcher},
		{name: "X13 the subject watches, another grants by key", given: history(permitted, engineer("carl")), when: pt.GrantTo("carl", "carl"), by: "carla2", refused: procedure.ReasonSubjectIsWatcher},
		{name: "permission for another person", given: history(permitted), when: pt.GrantTo("anna", "carl"), by: "carla", refused: procedure.ReasonLeadPermissionMissing},
		{name: "permission exactly at its end", given: history(permitted, pt.Waits(119*time.Minute)), when: grant, by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(any, notAssessor, assumed)},
		{name: "permission too old", given: history(permitted, pt.Waits(119*time.Minute+1)), when: grant, by: "carla", refused: procedure.ReasonLeadPermissionMissing},
		{name: "the permitting lead watches", given: history(permitted), when: pt.GrantTo("emil", "clara"), by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(any, notAssessor, leadIsActor, assumed)},
		{name: "the permitting lead grants", given: history(permitted), when: grant, by: "clara", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(any, notAssessor, leadIsActor, assumed)},
		{name: "no permission, the lead was never called", given: history(pt.Story(pt.Joined)), when: grant, by: "carla", refused: procedure.ReasonLeadPermissionMissing},
		{name: "no permission, the lead was called half an hour ago", given: append(slices.Clone(called), pt.Waits(30*time.Minute)), when: grant, by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(func(g procedure.Grant) bool { return g.Permission == 0 }, notAssessor, noPermission, assumed)},
		{name: "no permission, the lead was called less than half an hour ago", given: append(slices.Clone(called), pt.Waits(30*time.Minute-1)), when: grant, by: "carla", refused: procedure.ReasonLeadPermissionMissing},
		{name: "no permission, and the lead answered", given: append(slices.Clone(called), pt.Does("clara", pt.Decline(critical)), pt.Waits(time.Hour)), when: grant, by: "carla", refused: procedure.ReasonLeadPermissionMissing},
		{name: "no permission, the lead was called over one channel", given: append(slices.Clone(called), pt.Waits(time.Hour), oneChannel("clara")), when: grant, by: "carla", refused: procedure.ReasonLeadPermissionMissing},
		{name: "another grant is open", given: history(pt.Story(pt.Granted)), when: grant, by: "carla", refused: procedure.ReasonGrantOpen},
		{name: "another one is terminated and disabled", given: history(pt.Story(pt.Disabled)), when: grant, by: "carla", refused: procedure.ReasonGrantOpen},
		{name: "another one is proven unusable", given: sealedGrant, when: grant, by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(func(g procedure.Grant) bool { return g.ID == "G2" }, notAssessor, assumed)},
		{name: "no manifest", given: history(permitted), when: grant, by: "carla", with: found(grant, func(x *procedure.ConsoleFacts) { x.Before = nil }), refused: procedure.ReasonManifestMissing},
		{name: "no facts at all", given: history(permitted), when: grant, by: "carla", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonManifestMissing},
		{name: "no account, neither named nor configured", given: history(permitted), when: change(func(c *emergencyv1.GrantAccessRequest) { c.Account = "" }), by: "carla", with: found(grant, func(x *procedure.ConsoleFacts) { x.Account = "" }), refused: procedure.ReasonField},
		{name: "a source that is no address", given: history(permitted), when: change(func(c *emergencyv1.GrantAccessRequest) { c.SourceAddress = "home" }), by: "carla", refused: procedure.ReasonField},
		{name: "one source address", given: history(permitted), when: change(func(c *emergencyv1.GrantAccessRequest) { c.SourceAddress = "2001:db8::7" }), by: "carla", then: events("AccessGrantIssued", "RoleAssumed"), check: issued(any, notAssessor, assumed)},
		{name: "by an assessor", given: history(permitted), when: grant, by: "anna", refused: procedure.ReasonRole},
		{name: "by a service, for a person", given: history(permitted), when: grant, by: "reactor:carla", refused: procedure.ReasonSignature},
	})
}

// engineer makes a person a software engineer too.
func engineer(person string) pt.Step {
	return book(func(b *pt.World) {
		b.Do("bea", &emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{
			Person: person, Role: emergencyv1.Role_ROLE_SOFTWARE_ENGINEER, EffectiveAt: stampOf(b.Now), BoardDecision: "m1",
		}})
	})
}

// oneChannel leaves a person's pages on one channel only.
func oneChannel(person string) pt.Step {
	return func(w *pt.World) {
		w.Change(func(s *procedure.State) {
			for i := range s.Pages {
				if s.Pages[i].Person == person {
					s.Pages[i].Channel = "mail"
				}
			}
		})
	}
}

func TestArmWatch(t *testing.T) {
	t.Parallel()
	granted := pt.Story(pt.Granted)
	over := with(pt.Arm(), func(c *emergencyv1.ArmWatchRequest) { c.TakeOverReason = "carl has gone home" })
	renewed := func(want bool, watcher string) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			m, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
			if err != nil {
				t.Fatal(err)
			}
			if e := m.(*emergencyv1.WatchArmed); e.GetRenewed() != want || w.State.Grants[0].Watcher != watcher {
				t.Errorf("%v, watcher %s", e, w.State.Grants[0].Watcher)
			}
		}
	}
	run(t, []row{
		{name: "by the watcher", given: history(granted), when: pt.Arm(), by: "carl", then: events("WatchArmed"), check: renewed(false, "carl")},
		{name: "again", given: history(pt.Story(pt.Armed)), when: pt.Arm(), by: "carl", then: events("WatchArmed"), check: renewed(true, "carl")},
		{name: "in the session", given: history(pt.Story(pt.Live)), when: pt.Arm(), by: "carl", then: events("WatchArmed"), check: renewed(true, "carl")},
		{name: "by another admin", given: history(granted), when: pt.Arm(), by: "carla", refused: procedure.ReasonWatcherRole},
		{name: "taken over by name", given: history(pt.Story(pt.Live)), when: over, by: "carla", then: events("WatchArmed", "SessionMarked"), check: renewed(false, "carla")},
		{name: "taken back by the named watcher", given: history(pt.Story(pt.Live), pt.Does("carla", over)), when: pt.Arm(), by: "carl", then: events("WatchArmed"), check: renewed(false, "carl")},
		{name: "taken over by the lead who permitted", given: history(granted), when: over, by: "clara", then: events("WatchArmed", "SessionMarked"), check: wantDeviation(leadIsActor)},
		{name: "taken over in a word", given: history(granted), when: with(pt.Arm(), func(c *emergencyv1.ArmWatchRequest) { c.TakeOverReason = "so" }), by: "carla", refused: procedure.ReasonField},
		{name: "X13 taken over by the subject", given: history(granted, subject("carla")), when: over, by: "carla", refused: procedure.ReasonSubjectIsWatcher},
		{name: "X13 by the subject's other key", given: history(granted, subject("carla")), when: over, by: "carla2", refused: procedure.ReasonSubjectIsWatcher},
		{name: "recorder not ready", given: history(granted), when: pt.Arm(), by: "carl", with: found(pt.Arm(), func(x *procedure.ConsoleFacts) { x.RecorderReady = false }), refused: procedure.ReasonRecorderNotReady},
		{name: "history not anchored", given: history(granted), when: pt.Arm(), by: "carl", with: found(pt.Arm(), func(x *procedure.ConsoleFacts) { x.Anchored = false }), refused: procedure.ReasonRecorderNotReady},
		{name: "no facts", given: history(granted), when: pt.Arm(), by: "carl", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonRecorderNotReady},
		{name: "exactly at the end of the first use", given: history(granted, pt.Waits(9*time.Minute)), when: pt.Arm(), by: "carl", then: events("WatchArmed")},
		{name: "after the first use", given: history(granted, pt.Waits(9*time.Minute+1)), when: pt.Arm(), by: "carl", refused: procedure.ReasonGrantState},
		{name: "expired", given: history(pt.Story(pt.Armed), expired), when: pt.Arm(), by: "carl", refused: procedure.ReasonGrantState},
		{name: "ended", given: history(pt.Story(pt.Terminated)), when: pt.Arm(), by: "carl", refused: procedure.ReasonGrantState},
		{name: "no such grant", given: history(granted), when: with(pt.Arm(), func(c *emergencyv1.ArmWatchRequest) { c.Grant = "G7" }), by: "carl", refused: procedure.ReasonGrant},
		{name: "by an assessor", given: history(granted), when: over, by: "anna", refused: procedure.ReasonRole},
		{name: "unsigned", given: history(granted, func(w *pt.World) { w.Unsigned = true }), when: pt.Arm(), by: "carl", refused: procedure.ReasonSignature},
	})
}

// subject makes somebody else the subject of the grant.
func subject(person string) pt.Step {
	return func(w *pt.World) { w.Change(func(s *procedure.State) { s.Grants[0].Subject = person }) }
}

// TestConnect is the order of 4.4, one step further with each line.
func TestConnect(t *testing.T) {
	t.Parallel()
	armed := pt.Story(pt.Armed)
	lacks := func(f func(*procedure.ConsoleFacts)) []pt.Option { return found(pt.Connect(), f) }
	nothing := []pt.Option{pt.Facts(procedure.Facts{})}
	noCA := book(func(b *pt.World) { b.Do("bea", revokeRole("carl", emergencyv1.Role_ROLE_CRITICAL_ADMIN, b.Now)) })
	run(t, []row{
		{name: "once", given: history(armed), when: pt.Connect(), by: gatewayOfEmil, then: events("CredentialConsumed")},
		{name: "directly, without the broker", given: history(armed), when: pt.Connect(), by: "emil", refused: procedure.ReasonRole},
		{name: "by the broker for nobody", given: history(armed), when: pt.Connect(), by: gateway, refused: procedure.ReasonRole},
		{name: "by another service for the subject", given: history(armed), when: pt.Connect(), by: "reactor:emil", refused: procedure.ReasonRole},
		{name: "for a person who may never", given: history(armed), when: pt.Connect(), by: "gateway:theo", refused: procedure.ReasonRole},
		{name: "no such grant", given: history(armed), when: with(pt.Connect(), func(c *emergencyv1.ConnectRequest) { c.Grant = "G2" }), by: gatewayOfEmil, refused: procedure.ReasonGrant},
		{name: "terminated comes before everything", given: history(pt.Story(pt.Terminated)), when: pt.Connect(), by: "gateway:anna", with: nothing, refused: procedure.ReasonGrantState},
		{name: "disabled", given: history(pt.Story(pt.Disabled)), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonGrantState},
		{name: "not armed", given: history(pt.Story(pt.Granted)), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonWatcherAbsent},
		{name: "lease lost comes before the subject", given: history(armed), when: pt.Connect(), by: "gateway:anna", with: nothing, refused: procedure.ReasonWatcherAbsent},
		{name: "watcher is no critical admin any more", given: history(armed, noCA), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonWatcherAbsent},
		{name: "presence exactly at its end", given: history(armed, pt.Waits(4*time.Minute)), when: pt.Connect(), by: gatewayOfEmil, then: events("CredentialConsumed")},
		{name: "presence too old", given: history(armed, pt.Waits(4*time.Minute+1)), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonWatcherAbsent},
		{name: "another person comes before the source", given: history(armed), when: pt.Connect(), by: "gateway:anna", with: lacks(func(x *procedure.ConsoleFacts) { x.SourceAllowed = false }), refused: procedure.ReasonNotSubject},
		{name: "key not proven (N24)", given: history(armed), when: pt.Connect(), by: gatewayOfEmil, with: lacks(func(x *procedure.ConsoleFacts) { x.KeyProven = false }), refused: procedure.ReasonNotSubject},
		{name: "another source comes before the time", given: history(armed, late), when: pt.Connect(), by: gatewayOfEmil, with: lacks(func(x *procedure.ConsoleFacts) { x.SourceAllowed = false }), refused: procedure.ReasonSourceAddress},
		{name: "exactly at the end of the first use", given: history(armed, pt.Waits(7*time.Minute), pt.Does("carl", pt.Arm()), pt.Waits(time.Minute)), when: pt.Connect(), by: gatewayOfEmil, then: events("CredentialConsumed")},
		{name: "too late", given: history(armed, late), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonGrantExpired},
		{name: "too late comes before a second use", given: history(pt.Story(pt.Live), pt.Waits(9*time.Minute), pt.Does("carl", pt.Arm())), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonGrantExpired},
		{name: "a second time", given: history(pt.Story(pt.Consumed)), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonCredentialConsumed},
		{name: "a second time, in the session", given: history(pt.Story(pt.Live)), when: pt.Connect(), by: gatewayOfEmil, refused: procedure.ReasonCredentialConsumed},
	})
}

// late is after the first use, with a fresh watch.
func late(w *pt.World) {
	w.Wait(7 * time.Minute)
	w.Do("carl", pt.Arm())
	w.Wait(time.Minute + 1)
}

// TestConnectRace: two attempts decided on one state, of which one is recorded, are two answers: the second, decided again,
// finds the credential used.
func TestConnectRace(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Armed)).World()
	first, second := w.Prepare(gatewayOfEmil, pt.Connect()), w.Prepare(gatewayOfEmil, pt.Connect())
	a, b := w.Decide(gatewayOfEmil, first), w.Decide(gatewayOfEmil, second)
	if a.Decision == nil || b.Decision == nil {
		t.Fatalf("%v, %v", a.Refusal, b.Refusal)
	}
	w.Record(first, a.Decision)
	if out := w.Decide(gatewayOfEmil, second); out.Refusal == nil || out.Refusal.Reason != procedure.ReasonCredentialConsumed {
		t.Errorf("%+v", out)
	}
	// and whoever would record it all the same is not believed by anybody who reads it
	rec := w.Fork().Records[len(w.Records)-1]
	if err := procedure.VerifyRecord(w.State, rec, w.Book); err == nil {
		t.Error("a second use verifies")
	}
	if !procedure.EachRefusalRecorded(pt.Connect()) || procedure.EachRefusalRecorded(pt.Arm()) {
		t.Error("refused uses of a credential, and they alone, are recorded one by one")
	}
}

// TestConsoleIsLive: what only the system does cannot have happened while it was away; a signature of then would stand for a
// watcher who is not there now. What a person decided, a permission, counts from when it was given.
func TestConsoleIsLive(t *testing.T) {
	t.Parallel()
	ago := time.Minute
	run(t, []row{
		{name: "a grant", given: history(pt.Story(pt.Permitted)), as: later(pt.GrantTo("emil", "carl"), ago), by: "carla", refused: procedure.ReasonCapturedAt},
		{name: "a watch", given: history(pt.Story(pt.Granted)), as: later(pt.Arm(), ago), by: "carl", refused: procedure.ReasonCapturedAt},
		{name: "a resumption", given: history(pt.Story(pt.Frozen), pt.Does("carl", pt.Arm())), as: later(resume, time.Second), by: "carl", refused: procedure.ReasonCapturedAt},
		{name: "an extension", given: history(pt.Story(pt.Live)), as: later(extend, time.Second), by: "carl", refused: procedure.ReasonCapturedAt},
		{name: "a permission", given: history(pt.Story(pt.Joined), pt.Waits(time.Hour), pt.Does("carla", note())), as: later(pt.Permit("emil"), time.Hour), by: "clara", then: events("AccessPermitted"), check: func(t *testing.T, w *pt.World) {
			if p := w.State.Permissions[0]; !p.ValidUntil.Equal(w.Now.Add(time.Hour)) {
				t.Errorf("given an hour ago for two, and valid until %s; it is %s", p.ValidUntil, w.Now)
			}
		}},
	})
}

func TestReportConnection(t *testing.T) {
	t.Parallel()
	consumed := pt.Story(pt.Consumed)
	run(t, []row{
		{name: "open", given: history(consumed), when: pt.Opened(true), by: gatewayOfEmil, then: events("ConnectionOpened"), check: wantDeviation()},
		{name: "by the broker itself", given: history(consumed), when: pt.Opened(true), by: gateway, then: events("ConnectionOpened")},
		{name: "without an agent", given: history(consumed), when: pt.Opened(false), by: gateway, then: events("ConnectionOpened"), check: wantDeviation(cannotFreeze)},
		{name: "before the credential was used", given: history(pt.Story(pt.Armed)), when: pt.Opened(true), by: gateway, refused: procedure.ReasonGrantState},
		{name: "twice", given: history(pt.Story(pt.Live)), when: pt.Opened(true), by: gateway, refused: procedure.ReasonGrantState},
		{name: "after the end", given: history(consumed, pt.Does("carl", &emergencyv1.TerminateRequest{Grant: "G1"})), when: pt.Opened(true), by: gateway, refused: procedure.ReasonGrantState},
		{name: "by the subject", given: history(consumed), when: pt.Opened(true), by: "emil", refused: procedure.ReasonRole},
		{name: "by an admin", given: history(consumed), when: pt.Opened(true), by: "carl", refused: procedure.ReasonRole},
		{name: "without the target's key", given: history(consumed), when: &emergencyv1.ReportConnectionRequest{Grant: "G1"}, by: gateway, refused: procedure.ReasonField},
	})
}
