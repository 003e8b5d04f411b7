// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Command is a request message of the API that is decided on an incident or on the rule book.
type Command interface {
	proto.Message
	GetMeta() *emergencyv1.CommandMeta
}

// Actor is who gives a command, as the service recognised it.
type Actor struct {
	// KeyID is the key of the connection; it is resolved to a person or system by the rule book (G1).
	KeyID string
	// Person is set, with System REACTOR, when a service follows up on that person's earlier command.
	Person string
	// System is set for the service's own parts, which have no key: timer, mailer, reactor, repository agent.
	System emergencyv1.SystemKind
	// SystemName names the system, such as the owner whose timer it is.
	SystemName string
}

// Env is everything a decision needs from outside, as values.
type Env struct {
	// Owner is the service that decides.
	Owner string
	// Now is stamped by the service that received the command.
	Now time.Time
	// Actor gives the command.
	Actor Actor
	// Book is the rule book as the service knows it.
	Book *rulebook.Book
	// Facts are what the service found out for this command.
	Facts Facts
	// Salt is fresh randomness for commitments; two restricted values never share one.
	Salt []byte
	// Causation is the id of the event that caused the command, if one did; Correlation that of the chain's root.
	Causation, Correlation string
}

// present is the earliest that it can be: Now, or the time of the rule book's last record where Now is behind it by no more than
// clock.tolerance (0.6). What the service has read has happened, so no clock that is a little behind lets a revoked key or an ended role act.
func (e Env) present() time.Time {
	last := e.Book.RecordedAt()
	if p := e.Book.LatestPolicy(); p != nil && last.After(e.Now) && last.Sub(e.Now) <= p.Duration("clock.tolerance") {
		return last
	}
	return e.Now
}

// Facts are what a service finds out for one command. Only the fields of that command are set.
type Facts struct {
	// Duplicates are open incidents of the same system; Declare.
	Duplicates []string
	// Other is the state of the other incident of a merge.
	Other *State
	// Patch is what the service computed from the bytes; RegisterPatch.
	Patch *PatchFacts
	// Pushed is what the repository holds after the push; Transfer, PushReplication.
	Pushed *PushFacts
	// Agent is what the host's agent answered; DryRun, ConfirmObserver after. For ReportTest it is the test server's.
	Agent *AgentFacts
	// Replication is the computed comparison; CheckReplication.
	Replication *ReplicationFacts
	// Overdue is what the actor owes and is late with in other incidents, as "KIND in incident"; Escalate.
	Overdue []string
	// DisputeNumber is the first number that no dispute of the day has in any incident that the service knows; FileDispute,
	// RequestReview.
	DisputeNumber int
	// Parties are the names in a dispute's claimants and respondents, which are restricted; commands of appointment.
	Parties []string
	// Revealed is the value behind a commitment, from its owner; Disclose.
	Revealed *Revealed
	// Console is what broker, agent and artefact store say; the commands of strategy 3's console.
	Console *ConsoleFacts
	// BugNote is the tracker's id of the note the service wrote or queued; ReportTest.
	BugNote string
}

// PatchFacts are computed from the bytes of a patch and never believed.
type PatchFacts struct {
	Artefact   *emergencyv1.Artefact
	BaseTree   string
	ResultTree string
	Files      int
	// Problem is set when the bytes are no acceptable patch: reason code of the decoder, and where.
	Problem string
}

// PushFacts are read back from the repository.
type PushFacts struct {
	Commit, Tree, Ref string
	Signed            bool
}

// AgentFacts are an agent's answer.
type AgentFacts struct {
	Host, HostTree, ResultTree string
	Clean                      bool
	Rejected, Files            int
}

// ReplicationFacts are the computed comparison of host and branch.
type ReplicationFacts struct {
	Host, HostTree, BranchTree, BranchCommit string
	// ArrivedAt is when the branch's commit arrived.
	ArrivedAt time.Time
	// Unexplained are the paths that differ and that no applied revision accounts for; Pending says that the whole
	// difference is exactly applied revisions that have not arrived.
	Unexplained []string
	Pending     bool
}

// Decision is an accepted command, ready to be recorded.
type Decision struct {
	// Repeated is set when the command was accepted before; then nothing else is, and nothing is recorded (G3).
	Repeated *Result
	// Owner records the events.
	Owner string
	// Command is the command's name.
	Command string
	// Digest is the command's digest (G3).
	Digest string
	// Actor as it is recorded.
	Actor *emergencyv1.Actor
	// Authority is the ground of the act.
	Authority string
	// RecordedAt never goes back within the incident; Skew says by how much it was moved.
	RecordedAt time.Time
	Skew       time.Duration
	// OccurredAt is when it happened: RecordedAt, or when it was captured offline; then Late is set (G9).
	OccurredAt time.Time
	Late       bool
	// PolicyDigest is the policy the incident is under.
	PolicyDigest string
	// Events of the command; none if there was nothing to record, as for a tick with nothing due.
	Events []*emergencyv1.Event
	// Sealed are the restricted values, to be stored before the record is.
	Sealed []Sealed
}

// Sealed is a restricted value, its salt and its commitment SHA-256(salt || value).
type Sealed struct {
	Commitment  string
	Salt, Value []byte
}

// decision is a command being decided.
type decision struct {
	s            *State
	env          Env
	row          *commandRow
	meta         *emergencyv1.CommandMeta
	person       string
	role         emergencyv1.Role
	at           time.Time // recorded_at
	skew         time.Duration
	events       []*emergencyv1.Event
	sealed       []Sealed
	hypothetical bool
	repeated     *Result // the command was done before, under another request id, and that result is the answer
	extra        []emergencyv1.Deviation
	err          error
}

// Decide answers a command on the whole state of its incident: a Decision to record, or a Refusal. It changes neither
// state nor command. An error is a defect of the caller, such as a command sent to a service that does not own it.
func Decide(s *State, c Command, env Env) (*Decision, *Refusal, error) {
	d, err := newDecision(s, c, env)
	if err != nil {
		return nil, nil, err
	}
	digest, err := RequestDigest(c)
	if err != nil {
		return nil, nil, err
	}
	actor, refusal := d.recognise(digest) // G1
	if refusal != nil {
		return nil, refusal, nil
	}
	// A repeated command gets its first result even if what was signed then no longer fits the history (G3 before G2): the
	// history has moved on, not least by the command itself.
	old, known := s.Requests[requestKey(actor, d.row.name, d.meta.GetRequestId())]
	if known && old.Digest == digest {
		return &Decision{Repeated: &old}, nil, nil
	}
	if refusal := d.wellFormed(c); refusal != nil { // G2
		return nil, refusal, nil
	}
	if known {
		return nil, refuse(ReasonRequestIDReused, "request id %q was used before for another %s", d.meta.GetRequestId(), d.row.name).
			allow("", "", "send the command again under a new request id"), nil
	}
	if refusal := d.permit(c, actor); refusal != nil {
		return nil, refusal, nil
	}
	if refusal := d.row.decide(d, c); refusal != nil {
		return nil, refusal, nil
	}
	if d.err != nil {
		return nil, nil, fmt.Errorf("decide %s: %w", d.row.name, d.err)
	}
	if d.repeated != nil {
		return &Decision{Repeated: d.repeated}, nil, nil
	}
	return d.result(actor, digest), nil, nil
}

func newDecision(s *State, c Command, env Env) (*decision, error) {
	row, ok := commandOf(c)
	if !ok {
		return nil, fmt.Errorf("message %s is no command", c.ProtoReflect().Descriptor().FullName())
	}
	if row.owner != "" && row.owner != env.Owner {
		return nil, fmt.Errorf("command %s belongs to service %s, not to %s", row.name, row.owner, env.Owner)
	}
	return &decision{s: s, env: env, row: row, meta: c.GetMeta(), at: env.Now}, nil
}

func (d *decision) result(actor *emergencyv1.Actor, digest string) *Decision {
	out := &Decision{
		Owner: d.env.Owner, Command: d.row.name, Digest: digest, Actor: actor, Authority: d.meta.GetAuthority(),
		RecordedAt: d.at, OccurredAt: d.at, Skew: d.skew, Events: d.events, Sealed: d.sealed,
	}
	if out.Authority == "" {
		out.Authority = seedStep(d.row, d.s.Strategy)
	}
	if captured(d.meta) {
		out.OccurredAt, out.Late = d.meta.GetCapturedAt().AsTime(), true
	}
	if d.s.Policy != nil {
		out.PolicyDigest = d.s.Policy.Digest
	} else if p := d.env.Book.PolicyInForce(d.at); p != nil {
		out.PolicyDigest = p.Digest
	}
	return out
}

// RequestDigest is SHA-256 over a command without its approval and pinned position, lower-case hex: what makes two
// commands under one request id the same (G3). A person's signature may differ when the same command is sent again.
func RequestDigest(c Command) (string, error) {
	plain, ok := proto.Clone(c).(Command)
	if !ok {
		return "", fmt.Errorf("message %T is no command", c)
	}
	if m := plain.GetMeta(); m != nil {
		m.Approval, m.ExpectedPosition = nil, nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(plain)
	if err != nil {
		return "", fmt.Errorf("encode command: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// authenticate resolves the key to one person or system (G1).
func (d *decision) authenticate() (*emergencyv1.Actor, *Refusal) {
	a := d.env.Actor
	if a.System != emergencyv1.SystemKind_SYSTEM_KIND_UNSPECIFIED {
		d.person = a.Person
		return &emergencyv1.Actor{Person: a.Person, KeyId: a.KeyID, System: a.System, SystemName: a.SystemName}, nil
	}
	if a.KeyID == "" {
		return nil, refuse(ReasonNoIdentity, "the caller showed no certificate").allow("", "", "connect with a client certificate whose key is in the rule book")
	}
	entry, ok := d.env.Book.Key(a.KeyID)
	if !ok {
		return nil, refuse(ReasonKeyUnknown, "key %s is not in the rule book", short(a.KeyID)).
			allow("AddKey", a.KeyID, "the person adds the key with a key already listed, or the Board does")
	}
	if !entry.RevokedAt.IsZero() && !d.env.present().Before(entry.RevokedAt) {
		return nil, refuse(ReasonKeyRevoked, "key %s was revoked at %s", short(a.KeyID), stamp(entry.RevokedAt)).
			allow("AddKey", "", "use another key of yours, or have the Board add one")
	}
	if entry.Key.GetPasskey() != nil {
		return nil, refuse(ReasonKeyUnknown, "key %s is a passkey, which signs in a page and identifies no connection", short(a.KeyID)).
			allow("", "", "connect with a client certificate whose key is in the rule book")
	}
	d.person = entry.Key.GetPerson()
	return &emergencyv1.Actor{Person: d.person, KeyId: a.KeyID, System: entry.Key.GetSystem(), SystemName: entry.Key.GetSystemName()}, nil
}

var (
	requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._-]{8,64}$`)
	incidentForm  = regexp.MustCompile(`^[ex][0-9]{8}\.[1-9][0-9]{0,5}$`)
	digestForm    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	treeForm      = regexp.MustCompile(`^(sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64})$`)
	wordForm      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/+-]{0,99}$`)
)

// textLimit bounds every text of a command, in bytes: a record must stay well under the stream's 1 MiB.
const textLimit = 16 << 10

// wellFormed checks fields and signature (G2).
func (d *decision) wellFormed(c Command) *Refusal {
	f := &fields{}
	f.want(requestIDForm.MatchString(d.meta.GetRequestId()), "meta.request_id", "8 to 64 characters of A-Z a-z 0-9 . _ -")
	f.want(len(d.meta.GetAuthority()) <= 200, "meta.authority", "at most 200 bytes")
	if d.row.creates {
		f.want(d.meta.GetIncident() == "", "meta.incident", "empty: the service gives the new incident its id")
	} else if d.row.ruleBook {
		f.want(d.meta.GetIncident() == RuleBook, "meta.incident", "%q", RuleBook)
	} else if d.row.archive {
		f.want(d.meta.GetIncident() == Archive, "meta.incident", "%q", Archive)
	} else {
		f.want(incidentForm.MatchString(d.meta.GetIncident()), "meta.incident", "an incident id such as e20261124.1")
	}
	f.want(!captured(d.meta) || !d.meta.GetForwarded(), "meta.forwarded", "unset for what was captured offline, which its person hands in")
	f.values(c.ProtoReflect())
	d.row.fields(f, c)
	if f.refusal != nil || d.hypothetical {
		return f.refusal
	}
	if !needsSignature(d.row, d.meta) {
		return d.noApproval()
	}
	return d.checkApproval(c)
}

// permit runs G4 to G11 after the repetition check.
func (d *decision) permit(c Command, actor *emergencyv1.Actor) *Refusal {
	checks := []func() *Refusal{
		d.exists, // G4
		func() *Refusal { return d.roleAllows(c, actor) }, // G5
		d.exclusivity,  // G6
		d.stateAccepts, // G7
		func() *Refusal { return d.steppedUp(c) }, // G8, and G1 for what is forwarded
		d.timeRule, func() *Refusal { return d.capturedInTime(c) }, // G9
		d.pinned, // G10
	}
	for _, check := range checks {
		if refusal := check(); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (d *decision) exists() *Refusal {
	if d.row.creates || d.row.beside() || d.s.Status != Absent {
		return nil
	}
	return refuse(ReasonIncident, "there is no incident %s", d.meta.GetIncident()).allow("Declare", "", "a critical admin or software assessor declares an emergency")
}

// roleAllows checks the matrix of procedure.md 2.2.
func (d *decision) roleAllows(c Command, actor *emergencyv1.Actor) *Refusal {
	switch {
	case d.row.through != 0 && d.row.through != actor.GetSystem():
		return refuse(ReasonRole, "%s is given by the %s, for the person whom it has recognised", d.row.name, systemWord(d.row.through)).
			allow("", "", "connect with ssh and the credential of the grant")
	case d.person == "" || actor.GetSystem() == consoleGateway && d.row.through == 0:
		if slices.Contains(d.row.systems, actor.GetSystem()) {
			return nil
		}
		return refuse(ReasonRole, "%s may not be given by the %s", d.row.name, systemWord(actor.GetSystem())).allow(d.row.name, "", "%s", d.givenBy(rolesFor(c, d.row)))
	}
	allowed := rolesFor(c, d.row)
	wanted := allowed
	if st := d.statementRole(); st != emergencyv1.Role_ROLE_UNSPECIFIED && slices.Contains(wanted, st) {
		wanted = []emergencyv1.Role{st} // the role the person signed in
	}
	for _, r := range wanted {
		if d.holds(d.person, r) {
			d.role, actor.Role = r, r
			return nil
		}
	}
	what := d.row.name
	if w, ok := c.(*emergencyv1.WaiveControlRequest); ok {
		what = "waiving " + controlWord(w.GetControl())
	}
	return refuse(ReasonRole, "%s is for %s", what, roleList(allowed)).allow(d.row.name, "", "%s", d.givenBy(allowed))
}

// givenBy tells by whom a command can be given instead.
func (d *decision) givenBy(allowed []emergencyv1.Role) string {
	if len(allowed) > 0 {
		return "ask " + d.whoHas(allowed)
	}
	var parts []string
	for _, k := range d.row.systems {
		parts = append(parts, "the "+systemWord(k))
	}
	return "nobody gives it by hand: it comes from " + strings.Join(parts, " or ")
}

// rolesFor are the roles that may give a command. Each control has its own lead who may waive it (10.3, 10.5).
func rolesFor(c Command, row *commandRow) []emergencyv1.Role {
	if w, ok := c.(*emergencyv1.WaiveControlRequest); ok {
		switch w.GetControl() {
		case emergencyv1.Control_CONTROL_TEST_QUORUM:
			return roles(al)
		case emergencyv1.Control_CONTROL_OBSERVER:
			return roles(cl)
		case emergencyv1.Control_CONTROL_UNSPECIFIED:
		}
	}
	return row.roles
}

// holds tells whether a person has a role (2.2): by the service's clock, and still when the rule book was last changed.
func (d *decision) holds(person string, role emergencyv1.Role) bool {
	return d.env.Book.Has(person, role, d.env.Now) && d.env.Book.Has(person, role, d.env.present())
}

// exclusivity checks X1 to X3 (SP 3.4.2). Safety commands go through with a deviation (2.3 (b)).
func (d *decision) exclusivity() *Refusal {
	if d.person == "" || d.role == 0 { // a system, for somebody or by itself
		return nil
	}
	for _, held := range d.env.Book.Roles(d.person, d.env.Now) {
		if !excludes(d.role, held) {
			continue
		}
		if d.row.safety {
			d.extra = append(d.extra, emergencyv1.Deviation_DEVIATION_ROLE_EXCLUSIVITY)
			return nil
		}
		return refuse(ReasonRoleExclusivity, "%s holds %s and %s, which exclude each other", d.person, roleWord(d.role), roleWord(held)).
			allow("RevokeRole", d.person, "the Board revokes one of the two roles")
	}
	return nil
}

// excludes tells whether nobody may hold both roles: X1 critical admin and assessor, X2 access engineer and any other, X3
// support engineer and critical admin or access engineer (SP 3.4.2). A team lead is of the team; everybody is a member.
func excludes(a, b emergencyv1.Role) bool {
	is := func(x, y emergencyv1.Role) bool { return a == x && b == y || a == y && b == x }
	a, b = teamRole(a), teamRole(b)
	ae := emergencyv1.Role_ROLE_ACCESS_ENGINEER
	switch {
	case a == b || a == me || b == me:
		return false
	case a == ae || b == ae:
		return true
	}
	return is(ca, sa) || is(emergencyv1.Role_ROLE_SUPPORT_ENGINEER, ca)
}

// teamRole is the role that a team lead also holds, else the role itself.
func teamRole(r emergencyv1.Role) emergencyv1.Role {
	switch r {
	case cl:
		return ca
	case al:
		return sa
	default:
		return r
	}
}

// Exclusive finds two roles of a list that exclude each other.
func Exclusive(roles []emergencyv1.Role) (a, b emergencyv1.Role, conflict bool) {
	for i, a := range roles {
		for _, b := range roles[i+1:] {
			if excludes(a, b) {
				return a, b, true
			}
		}
	}
	return 0, 0, false
}

// stateAccepts checks that the incident still takes the command (G7).
func (d *decision) stateAccepts() *Refusal {
	if d.row.creates && d.s.Status != Absent {
		return refuse(ReasonIncidentState, "incident %s was already declared", d.s.Incident)
	}
	if d.row.creates || d.row.beside() || d.s.Status == Open {
		return nil
	}
	if d.s.Status != Merged && (d.row.afterEnd || d.s.Status == StoodDown && d.row.closes) {
		return nil
	}
	r := refuse(ReasonIncidentState, "incident %s is %s and takes no %s", d.s.Incident, statusWord(d.s.Status), d.row.name)
	if d.s.Status == Merged {
		return r.allow(d.row.name, d.s.MergedInto, "give it in %s, which goes on", d.s.MergedInto)
	}
	return r.allow("Declare", "", "a new emergency has to be declared")
}

// timeRule keeps recorded_at from going back (G9, procedure.md 0.6).
func (d *decision) timeRule() *Refusal {
	if !d.env.Now.Before(d.s.RecordedAt) {
		return nil
	}
	d.skew = d.s.RecordedAt.Sub(d.env.Now)
	if d.skew > d.tolerance() {
		return refuse(ReasonClockSkew, "the service's clock is %s behind the incident's last record of %s", d.skew.Round(time.Second), stamp(d.s.RecordedAt)).
			allow("", "", "the operator sets the clock of the %s service right", d.env.Owner)
	}
	d.at = d.s.RecordedAt
	return nil
}

func (d *decision) tolerance() time.Duration {
	if d.s.Policy != nil {
		return d.s.Policy.Duration("clock.tolerance")
	}
	if p := d.env.Book.LatestPolicy(); p != nil {
		return p.Duration("clock.tolerance")
	}
	return 0
}

func (d *decision) pinned() *Refusal {
	if d.meta.ExpectedPosition == nil || d.meta.GetExpectedPosition() == d.s.Position {
		return nil
	}
	return refuse(ReasonPositionMismatch, "the incident stands at position %d, not at %d", d.s.Position, d.meta.GetExpectedPosition()).
		allow("", "", "look at what happened since, then give the command again")
}

// emit adds an event.
func (d *decision) emit(m proto.Message, deviations ...emergencyv1.Deviation) {
	if len(d.events) == 0 && len(d.extra) > 0 {
		deviations = append(deviations, d.extra...)
	}
	e, err := EncodeEvent(d.env.Owner, m, deviations...)
	if err != nil {
		d.err = err
		return
	}
	d.events = append(d.events, e)
}

// leastSalt is how much randomness commitments need, in bytes.
const leastSalt = 16

// seal keeps a value out of the history: the event gets its commitment, the owner's store value and salt (0.8).
func (d *decision) seal(value string) *emergencyv1.Restricted {
	if value == "" {
		return nil
	}
	if len(d.env.Salt) < leastSalt && !d.hypothetical {
		d.err = fmt.Errorf("salt of %d bytes, commitments need %d: without it short values could be guessed", len(d.env.Salt), leastSalt)
	}
	h := sha256.New()
	h.Write(d.env.Salt)
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(d.sealed))))
	salt := h.Sum(nil)
	commitment := Commit(salt, []byte(value))
	d.sealed = append(d.sealed, Sealed{commitment, salt, []byte(value)})
	return &emergencyv1.Restricted{Commitment: commitment}
}

// Commit is the commitment of a restricted value: SHA-256(salt || value), lower-case hex (procedure.md 0.8).
func Commit(salt, value []byte) string {
	h := sha256.New()
	h.Write(salt)
	h.Write(value)
	return hex.EncodeToString(h.Sum(nil))
}

// EachRefusalRecorded tells whether every refusal of a command on an existing incident is recorded, of any kind and however
// many there are: the attempts to use a credential (procedure.md 4.0).
func EachRefusalRecorded(c Command) bool {
	row, ok := commandOf(c)
	return ok && row.through == consoleGateway
}

// CountedRefusal tells whether a record is that of a refusal which counts towards how many are recorded of one person in an hour: any but
// those of which each is.
func CountedRefusal(rec *emergencyv1.Record) bool {
	if len(rec.GetEvents()) != 1 || rec.GetEvents()[0].GetType() != refusedByOwner[rec.GetOwner()] {
		return false
	}
	return !slices.ContainsFunc(commandRows, func(r commandRow) bool { return r.name == rec.GetCommand() && r.through == consoleGateway })
}

// RefusedEvent is the record of a refusal (procedure.md 4.0).
func RefusedEvent(owner string, c Command, r *Refusal, suppressed int) (*emergencyv1.Event, error) {
	row, ok := commandOf(c)
	if !ok {
		return nil, fmt.Errorf("message %T is no command", c)
	}
	return EncodeEvent(owner, &emergencyv1.CommandRefused{
		Command: row.name, Code: string(r.Code), Reason: string(r.Reason), Rule: r.Rule, Suppressed: uint32(suppressed),
	})
}
