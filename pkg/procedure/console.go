// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The watched one-time console until it is open (seed 3.3, 3.4; procedure.md 4.4): permission, grant, watch, connection.
// Opening acts are decided and recorded before they are done; what closes or freezes is done first and recorded then.

// consoleGateway is the broker: by itself, or for the subject whose key it has verified.
const consoleGateway = emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY

// console are the facts of a command; never nil.
func (d *decision) console() *ConsoleFacts {
	if c := d.env.Facts.Console; c != nil {
		return c
	}
	return &ConsoleFacts{}
}

var grantForm = regexp.MustCompile(`^G[1-9][0-9]{0,3}$`)

func (f *fields) grant(id string) { f.want(grantForm.MatchString(id), "grant", "a grant such as G1") }

func grantOnly[P interface{ GetGrant() string }](f *fields, c P) { f.grant(c.GetGrant()) }

// hidden is a claim about a restricted value: its digest, with the request id before it so that equal values look different.
func hidden(name, requestID, value string) *emergencyv1.Claim {
	if value == "" {
		return claim(name, "")
	}
	sum := sha256.Sum256([]byte(requestID + "\n" + value))
	return claim(name, "sha256:"+hex.EncodeToString(sum[:]))
}

// grantOf returns a grant of the incident (G4).
func (d *decision) grantOf(id string) (*Grant, *Refusal) {
	if g, ok := d.s.Grant(id); ok {
		return g, nil
	}
	return nil, refuse(ReasonGrant, "%s has no grant %s", d.s.Incident, id).allow("GrantAccess", "", "a critical admin grants the access first")
}

// grantState refuses a command that the grant's state does not take.
func (d *decision) grantState(g *Grant) *Refusal {
	r := refuse(ReasonGrantState, "%s is %s and takes no %s", g.ID, g.words(), d.row.name)
	if g.Over() {
		return r.allow("GrantAccess", "", "a new grant is needed for another session")
	}
	return r.allow(d.row.name, g.ID, "wait until it is in the right state")
}

// words is the grant's state for a sentence.
func (g *Grant) words() string {
	if g.State == GrantWatcherReady && g.Consumed.Position > 0 {
		return "being opened"
	}
	return statusWord(Status(g.State))
}

func (d *decision) strategy3() *Refusal {
	if d.s.Strategy == 3 {
		return nil
	}
	return refuse(ReasonStrategy, "strategy %d is active; remote access is for strategy 3", d.s.Strategy).
		allow("SignJointDeclaration", "", "one critical admin and one software assessor sign the joint declaration")
}

// noOpenGrant refuses what cannot be done while an access may still be usable (4.1).
func (d *decision) noOpenGrant() *Refusal { return openGrantRefusal(d.s) }

func openGrantRefusal(s *State) *Refusal {
	g := s.OpenGrant()
	if g == nil {
		return nil
	}
	return refuse(ReasonGrantOpen, "grant %s is %s and not yet proven unusable", g.ID, g.words()).
		allow("Disable", g.ID, "disable it").allow("ProveUnusable", g.ID, "then have it proven unusable")
}

func permitFields(f *fields, c *emergencyv1.PermitAccessRequest) {
	f.word("subject", c.GetSubject())
	f.want(len(c.GetPurpose()) >= 10, "purpose", "what the access is for, at least 10 characters")
}

func permitClaims(c *emergencyv1.PermitAccessRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{
		claim("subject", c.GetSubject()), claim("valid_minutes", minutesText(c.GetValidMinutes())), hidden("purpose", c.GetMeta().GetRequestId(), c.GetPurpose()),
	}
}

// minutesText is a number of minutes as it is signed; empty where it is left to the policy.
func minutesText(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// decidePermit is the critical team lead's permission (SP 4.1.1.1).
func decidePermit(d *decision, c *emergencyv1.PermitAccessRequest) *Refusal {
	if refusal := d.strategy3(); refusal != nil {
		return refusal
	}
	if c.GetSubject() == d.person {
		return subjectIsWatcher("%s cannot permit the access to oneself", d.person).allow("PermitAccess", "", "%s", d.another(cl))
	}
	valid := d.s.Policy.Duration("lead_permission.valid")
	if refusal := d.within("valid_minutes", &valid, c.GetValidMinutes(), 0); refusal != nil {
		return refusal
	}
	var deviations []emergencyv1.Deviation
	if d.s.leadActs(d.person) {
		deviations = append(deviations, emergencyv1.Deviation_DEVIATION_LEAD_IS_ACTOR)
	}
	given := d.at
	if captured(d.meta) { // it holds from when it was given, not from when that could be recorded
		given = d.meta.GetCapturedAt().AsTime()
	}
	d.emit(&emergencyv1.AccessPermitted{Subject: c.GetSubject(), Purpose: d.seal(c.GetPurpose()), ValidUntil: timestamppb.New(given.Add(valid))}, deviations...)
	return nil
}

// leadActs tells whether the lead who permits also declared, the emergency or that nothing but access helps, or watched or
// granted a session before (SP 1.2).
func (s *State) leadActs(person string) bool {
	joint := slices.ContainsFunc(s.Strategies, func(c StrategyChange) bool { return slices.Contains(c.Signers, person) })
	return joint || s.Declared.By == person || slices.ContainsFunc(s.Grants, func(g Grant) bool { return g.Watcher == person || g.Named == person || g.Granter == person })
}

// within lowers a limit of the policy to the configured one and then to the one that is asked for; more than either is
// refused, configuration may only tighten.
func (d *decision) within(what string, limit *time.Duration, minutes uint32, configured time.Duration) *Refusal {
	if configured > 0 {
		*limit = min(*limit, configured)
	}
	asked := time.Duration(minutes) * time.Minute
	if asked > *limit {
		return refuse(ReasonLimit, "%s of %s is more than the %s that are allowed", what, asked, *limit).allow(d.row.name, "", "ask for %d minutes or less", int(limit.Minutes()))
	}
	if asked > 0 {
		*limit = asked
	}
	return nil
}

func subjectIsWatcher(format string, args ...any) *Refusal {
	return refuse(ReasonSubjectIsWatcher, format, args...)
}

func grantAccessFields(f *fields, c *emergencyv1.GrantAccessRequest) {
	f.word("subject", c.GetSubject())
	f.optionalWord("watcher", c.GetWatcher())
	f.optionalWord("host", c.GetHost())
	f.optionalWord("account", c.GetAccount())
	f.want(len(c.GetPurpose()) >= 10, "purpose", "what the access is for, at least 10 characters")
	f.want(c.GetSourceAddress() == "" || sourceForm(c.GetSourceAddress()), "source_address", "an IP address or prefix, or empty")
}

func grantAccessClaims(c *emergencyv1.GrantAccessRequest) []*emergencyv1.Claim {
	id := c.GetMeta().GetRequestId()
	return []*emergencyv1.Claim{
		claim("subject", c.GetSubject()), claim("watcher", c.GetWatcher()), claim("host", c.GetHost()), claim("max_minutes", minutesText(c.GetMaxMinutes())),
		hidden("account", id, c.GetAccount()), hidden("source_address", id, c.GetSourceAddress()), hidden("purpose", id, c.GetPurpose()),
	}
}

// decideGrant installs a one-time connection for one named person. Whoever grants acts as access engineer from then on, for
// this grant alone: never silently (10.2).
func decideGrant(d *decision, c *emergencyv1.GrantAccessRequest) *Refusal {
	host, refusal := d.hostOf(c.GetHost())
	if refusal != nil {
		return refusal
	}
	if refusal := d.strategy3(); refusal != nil {
		return refusal
	}
	watcher := c.GetWatcher()
	if watcher == "" {
		watcher = d.person
	}
	deviations, refusal := d.parties(c.GetSubject(), watcher)
	if refusal != nil {
		return refusal
	}
	permission, more, refusal := d.leadPermission(c.GetSubject(), watcher)
	if refusal != nil {
		return refusal
	}
	if refusal := d.noOpenGrant(); refusal != nil {
		return refusal
	}
	x := d.console()
	length := d.s.Policy.Duration("session.max")
	if refusal := d.within("a session", &length, c.GetMaxMinutes(), x.MaxLength); refusal != nil {
		return refusal
	}
	if d.hypothetical {
		return nil
	}
	if x.Before == nil || x.Before.Tree == "" {
		return refuse(ReasonManifestMissing, "the files of %s are not listed as they are before", host).
			allow("GrantAccess", "", "see that the agent on %s runs and reaches the deployment service, then grant again", host)
	}
	account := firstOf(c.GetAccount(), x.Account)
	if account == "" {
		return refuse(ReasonField, "no account on %s is named, and none is configured", host).allow("GrantAccess", "", "name the account that the session logs in to")
	}
	ev := &emergencyv1.AccessGrantIssued{
		Grant: fmt.Sprintf("G%d", len(d.s.Grants)+1), Subject: c.GetSubject(), Watcher: watcher, Host: host, Account: d.seal(account),
		Purpose: d.seal(c.GetPurpose()), SourceAddress: d.seal(c.GetSourceAddress()), FirstUseUntil: timestamppb.New(d.at.Add(d.firstUse(x))),
		MaxMinutes: uint32(length / time.Minute), Permission: permission, BeforeTree: x.Before.Tree, BeforeManifest: x.Before.Manifest, Agent: x.Agent,
		Gateway: x.Instance,
	}
	d.emit(ev, append(deviations, more...)...)
	d.emit(&emergencyv1.RoleAssumed{Grant: ev.GetGrant(), Person: d.person, Role: emergencyv1.Role_ROLE_ACCESS_ENGINEER}, emergencyv1.Deviation_DEVIATION_ROLE_ASSUMPTION)
	return nil
}

// sourceForm tells whether a text is an IP address or a prefix of addresses.
func sourceForm(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	_, err := netip.ParsePrefix(s)
	return err == nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (d *decision) firstUse(x *ConsoleFacts) time.Duration {
	first := d.s.Policy.Duration("grant.first_use")
	if x.FirstUse > 0 {
		first = min(first, x.FirstUse)
	}
	return first
}

// parties checks subject and watcher: humans, whatever keys and connections they use (X13).
func (d *decision) parties(subject, watcher string) ([]emergencyv1.Deviation, *Refusal) {
	assessor := d.holds(subject, sa)
	if d.hypothetical && subject == "" {
		assessor = true // whom it will be is asked later
	}
	if !assessor && !d.holds(subject, se) {
		return nil, refuse(ReasonSubjectRole, "%s is neither software assessor nor software engineer", subject).
			allow("GrantAccess", "", "name one of %s", d.whoHas(roles(sa, se)))
	}
	if !d.holds(watcher, ca) {
		return nil, refuse(ReasonWatcherRole, "%s is no critical admin and cannot watch", watcher).allow("GrantAccess", "", "name one of %s", d.whoHas(roles(ca)))
	}
	if subject == watcher || subject == d.person {
		return nil, subjectIsWatcher("%s cannot be subject and watch or grant the access too", subject).allow("GrantAccess", "", "name another subject or watcher")
	}
	if !assessor {
		return []emergencyv1.Deviation{emergencyv1.Deviation_DEVIATION_SUBJECT_NOT_ASSESSOR}, nil
	}
	return nil, nil
}

// leadPermission is the position of a valid permission, or 0 where every critical team lead is proven unreachable (10.14).
func (d *decision) leadPermission(subject, watcher string) (uint64, []emergencyv1.Deviation, *Refusal) {
	for i := len(d.s.Permissions) - 1; i >= 0; i-- {
		p := d.s.Permissions[i]
		if p.Subject != subject && (subject != "" || !d.hypothetical) || d.at.After(p.ValidUntil) {
			continue
		}
		if p.By == watcher || p.By == d.person {
			return p.Position, []emergencyv1.Deviation{emergencyv1.Deviation_DEVIATION_LEAD_IS_ACTOR}, nil
		}
		return p.Position, nil, nil
	}
	if missing := d.leadReachable(); missing != "" {
		return 0, nil, refuse(ReasonLeadPermissionMissing, "the critical team lead has not permitted the access of %s, and %s", subject, missing).
			allow("PermitAccess", subject, "ask %s", d.whoHas(roles(cl))).
			allow("CallOut", "", "where the lead cannot be reached: call the critical team, and wait %s", d.s.Policy.Duration("lead_unreachable.min_time"))
	}
	return 0, []emergencyv1.Deviation{emergencyv1.Deviation_DEVIATION_NO_LEAD_PERMISSION}, nil
}

// leadReachable says what is missing for the proof that no critical team lead could be reached; empty if it is complete. A
// lead counts as unreachable who was paged in this incident over enough channels, long enough ago, and did nothing in it since.
func (d *decision) leadReachable() string {
	leads := d.env.Book.PersonsWith(cl, d.env.Now)
	if len(leads) == 0 {
		return "nobody is critical team lead, so nobody could be called"
	}
	least, channels := d.s.Policy.Duration("lead_unreachable.min_time"), d.s.Policy.Count("callout.channels_min")
	for _, lead := range leads {
		var used []string
		var first Mark
		for _, p := range d.s.Pages {
			if p.Person != lead {
				continue
			}
			if len(used) == 0 {
				first = Mark{Position: p.Position, At: p.SentAt}
			}
			if !slices.Contains(used, p.Channel) {
				used = append(used, p.Channel)
			}
		}
		switch {
		case len(used) < channels:
			return fmt.Sprintf("%s was called over %d channels, not over %d", lead, len(used), channels)
		case d.at.Sub(first.At) < least:
			return fmt.Sprintf("%s was called first at %s, less than %s ago", lead, stamp(first.At), least)
		}
		if answer := d.s.lastActOf(lead); answer.First > first.Position {
			return fmt.Sprintf("%s answered at %s", lead, stamp(answer.RecordedAt))
		}
	}
	return ""
}

// lastActOf is the result of a person's last command of this incident; zero if there is none.
func (s *State) lastActOf(person string) Result {
	var last Result
	for k, r := range s.Requests {
		if k.Person == person && r.First > last.First {
			last = r
		}
	}
	return last
}

func armFields(f *fields, c *emergencyv1.ArmWatchRequest) {
	f.grant(c.GetGrant())
	f.want(c.GetTakeOverReason() == "" || len(c.GetTakeOverReason()) >= 10, "take_over_reason", "at least 10 characters, or empty")
}

func armClaims(c *emergencyv1.ArmWatchRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("grant", c.GetGrant()), hidden("take_over_reason", c.GetMeta().GetRequestId(), c.GetTakeOverReason())}
}

// decideArm confirms the watch: by the watcher whom the grant names or who watches now, or by another critical admin who
// takes over by name. Repeated it is the proof of presence.
func decideArm(d *decision, c *emergencyv1.ArmWatchRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	mine := d.person == g.Watcher || d.person == g.Named
	if !mine && c.GetTakeOverReason() == "" && !d.hypothetical {
		return refuse(ReasonWatcherRole, "%s watches %s, not %s", g.Watcher, g.ID, d.person).allow("ArmWatch", g.ID, "give the reason why you take the watch over")
	}
	if d.person == g.Subject {
		return subjectIsWatcher("%s is the subject of %s and cannot watch it", d.person, g.ID).allow("ArmWatch", g.ID, "%s", d.another(ca))
	}
	x := d.console()
	if !d.hypothetical && !(x.RecorderReady && x.Anchored) {
		return refuse(ReasonRecorderNotReady, "the recorder of %s cannot write, or the history does not take its checkpoints", g.ID).
			allow("ArmWatch", g.ID, "the operator sees to disk and history of the deployment service; then arm again")
	}
	if !(g.unused() || g.live() || g.State == GrantWatcherReady) || g.unused() && d.at.After(g.FirstUseUntil) {
		return d.grantState(g)
	}
	var deviations []emergencyv1.Deviation
	if d.person != g.Watcher && d.s.permits(g, d.person) {
		deviations = append(deviations, emergencyv1.Deviation_DEVIATION_LEAD_IS_ACTOR)
	}
	renewed := d.person == g.Watcher && g.Armed.Position > 0
	d.emit(&emergencyv1.WatchArmed{Grant: g.ID, Watcher: d.person, Renewed: renewed, OutputOffset: x.OutputOffset}, deviations...)
	if !mine {
		d.emit(&emergencyv1.SessionMarked{Grant: g.ID, Kind: emergencyv1.MarkKind_MARK_KIND_TAKEOVER, Text: d.seal(c.GetTakeOverReason()), OutputOffset: x.OutputOffset})
	}
	return nil
}

// permits tells whether a person gave the permission of a grant.
func (s *State) permits(g *Grant, person string) bool {
	return slices.ContainsFunc(s.Permissions, func(p Permission) bool { return p.Position == g.Permission && p.By == person })
}

func connectFields(f *fields, c *emergencyv1.ConnectRequest) {
	f.grant(c.GetGrant())
	f.want(len(c.GetCertificate()) <= 64<<10, "certificate", "at most 64 KiB")
}

// decideConnect is the one use of the credential, in exactly the order of 4.4: whoever is appended first has it, and nothing
// is opened before that.
func decideConnect(d *decision, c *emergencyv1.ConnectRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	if g.Terminated.Position > 0 || g.Disabled.Position > 0 {
		return d.grantState(g)
	}
	if refusal := d.watched(g); refusal != nil {
		return refusal
	}
	x := d.console()
	switch {
	case d.person != g.Subject || !x.KeyProven:
		return refuse(ReasonNotSubject, "%s is for another person, or the key of its certificate was not proven", g.ID).
			allow("GrantAccess", "", "only the person whom the grant names connects, with the certificate that was fetched for it")
	case !x.SourceAllowed:
		return refuse(ReasonSourceAddress, "%s may not be used from this address", g.ID).allow("Connect", g.ID, "connect from the address that the credential was fetched from, and that the grant allows")
	case d.at.After(g.FirstUseUntil):
		return refuse(ReasonGrantExpired, "%s had to be used by %s", g.ID, stamp(g.FirstUseUntil)).allow("GrantAccess", "", "a new grant is needed")
	case g.Consumed.Position > 0:
		return refuse(ReasonCredentialConsumed, "the credential of %s was used at %s", g.ID, stamp(g.Consumed.At)).allow("GrantAccess", "", "a new grant is needed; this one is for a single connection")
	}
	d.emit(&emergencyv1.CredentialConsumed{Grant: g.ID, SourceAddress: d.seal(c.GetSourceAddress()), KeyFingerprint: d.seal(c.GetKeyFingerprint()), TargetKey: d.console().TargetKey})
	return nil
}

// watched wants the watch armed, its presence fresh, its lease alive, and its watcher still critical admin.
func (d *decision) watched(g *Grant) *Refusal {
	why := ""
	switch {
	case g.Armed.Position == 0:
		why = "has not armed the watch"
	case d.at.After(d.s.PresenceUntil(g)):
		why = "has not confirmed to be present since " + stamp(g.Armed.At)
	case !d.holds(g.Watcher, ca):
		why = "is no critical admin any more"
	case !d.hypothetical && !d.console().LeaseAlive:
		why = "does not watch now"
	default:
		return nil
	}
	return refuse(ReasonWatcherAbsent, "%s %s", g.Watcher, why).allow("ArmWatch", g.ID, "%s arms the watch and keeps it open", g.Watcher)
}

func reportConnectionFields(f *fields, c *emergencyv1.ReportConnectionRequest) {
	f.grant(c.GetGrant())
	f.want(c.GetHostKeyFingerprint() != "" && len(c.GetHostKeyFingerprint()) <= 100, "host_key_fingerprint", "the fingerprint of the target's host key")
}

// decideReportConnection records that the target is open: a production effect from then on.
func decideReportConnection(d *decision, c *emergencyv1.ReportConnectionRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	if g.State != GrantWatcherReady || g.Consumed.Position == 0 {
		return d.grantState(g)
	}
	var deviations []emergencyv1.Deviation
	if !c.GetAgent() {
		deviations = append(deviations, emergencyv1.Deviation_DEVIATION_FREEZE_NOT_AVAILABLE)
	}
	d.emit(&emergencyv1.ConnectionOpened{Grant: g.ID, HostKeyFingerprint: c.GetHostKeyFingerprint(), Agent: c.GetAgent()}, deviations...)
	return nil
}
