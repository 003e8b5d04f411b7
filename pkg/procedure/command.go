// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// commandRow is one line of the table of commands: who owns it, who may give it (matrix 2.2), and its rules.
type commandRow struct {
	name      string
	owner     string // empty: whichever service decides, as for Tick
	authority string // seed step or clause that the service fills in (0.7)
	roles     []emergencyv1.Role
	systems   []emergencyv1.SystemKind
	through   emergencyv1.SystemKind // the one system that gives it for a person; 0: the person gives it
	live      bool                   // the system does it, so that it cannot have happened while the system was away (G9)
	signed    bool                   // needs the person's own signature
	stepUp    bool                   // needs a fresh one (G8)
	afterEnd  bool                   // accepted after StoodDown and Closed (G7)
	closes    bool                   // accepted after StoodDown (G7)
	creates   bool
	ruleBook  bool
	archive   bool // of the history Archive
	safety    bool // goes through exclusivity with a deviation (2.3 (b))
	make      func() Command
	fields    func(*fields, Command)
	decide    func(*decision, Command) *Refusal
	claims    func(Command) []*emergencyv1.Claim
}

// command builds a row; T is the request message, f its form (G2) and decide its rules.
func command[T any, P interface {
	*T
	Command
}](row commandRow, f func(*fields, P), decide func(*decision, P) *Refusal, claims ...func(P) []*emergencyv1.Claim) commandRow {
	row.make = func() Command { return P(new(T)) }
	row.fields = func(ff *fields, c Command) { f(ff, c.(P)) }
	row.decide = func(d *decision, c Command) *Refusal { return decide(d, c.(P)) }
	if len(claims) > 0 {
		row.claims = func(c Command) []*emergencyv1.Claim { return claims[0](c.(P)) }
	}
	return row
}

// beside tells whether a command is about no incident, but about one of the histories beside them.
func (r *commandRow) beside() bool { return r.ruleBook || r.archive }

// none is the form of a command without further fields.
func none[P Command](*fields, P) {}

const (
	ca  = emergencyv1.Role_ROLE_CRITICAL_ADMIN
	sa  = emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
	sd  = emergencyv1.Role_ROLE_SOFTWARE_DEVELOPER
	se  = emergencyv1.Role_ROLE_SOFTWARE_ENGINEER
	te  = emergencyv1.Role_ROLE_TESTER
	cl  = emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD
	al  = emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD
	dro = emergencyv1.Role_ROLE_DISPUTE_OFFICER
	cm  = emergencyv1.Role_ROLE_CASE_MANAGER
	ar  = emergencyv1.Role_ROLE_ARBITRATOR
	bd  = emergencyv1.Role_ROLE_BOARD
	me  = emergencyv1.Role_ROLE_MEMBER
)

func roles(list ...emergencyv1.Role) []emergencyv1.Role { return list }

func systems(list ...emergencyv1.SystemKind) []emergencyv1.SystemKind { return list }

// commandTable is the one table of commands, in the order of procedure.md 4.
func commandTable() []commandRow {
	const (
		timer     = emergencyv1.SystemKind_SYSTEM_KIND_TIMER
		mailer    = emergencyv1.SystemKind_SYSTEM_KIND_MAILER
		reactor   = emergencyv1.SystemKind_SYSTEM_KIND_REACTOR
		hostAgent = emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT
		testAgent = emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT
		repoAgent = emergencyv1.SystemKind_SYSTEM_KIND_REPO_AGENT
		service   = emergencyv1.SystemKind_SYSTEM_KIND_SERVICE
	)
	responders := roles(ca, sa, sd, se, te)
	everybody := roles(ca, sa, sd, se, te, cm, ar, dro, bd, me)
	return slices.Concat(consoleCommands(), []commandRow{
		command(commandRow{name: "Declare", owner: OwnerIncident, authority: "seed 1.1", roles: roles(ca, sa), creates: true, safety: true}, declareFields, decideDeclare),
		command(commandRow{name: "MergeInto", owner: OwnerIncident, authority: "seed 1", roles: roles(ca, sa)}, mergeFields, decideMergeInto),
		command(commandRow{name: "AbsorbDuplicate", owner: OwnerIncident, authority: "seed 1", roles: roles(ca, sa)}, absorbFields, decideAbsorb),
		command(commandRow{name: "StandDown", owner: OwnerIncident, authority: "seed 1", roles: roles(ca, sa)}, standDownFields, decideStandDown),
		command(commandRow{name: "Escalate", owner: OwnerIncident, authority: "seed 2", roles: roles(ca, sa), signed: true}, escalateFields, decideEscalate, escalateClaims),
		command(commandRow{name: "SignJointDeclaration", owner: OwnerIncident, authority: "seed 3.2", roles: roles(ca, sa), signed: true, stepUp: true}, jointFields, decideJoint, jointClaims),
		command(commandRow{name: "DeEscalate", owner: OwnerIncident, authority: "seed 1", roles: roles(ca, sa)}, deEscalateFields, decideDeEscalate),
		command(commandRow{name: "WaiveControl", owner: OwnerIncident, authority: "SP 1.2", roles: roles(al, cl), signed: true}, waiveFields, decideWaive, waiveClaims),
		command(commandRow{name: "RecordLeadDecision", owner: OwnerIncident, authority: "SP 3.2.3.1", roles: roles(cl), afterEnd: true}, leadFields, decideLead),
		command(commandRow{name: "AnnotateLog", owner: OwnerIncident, authority: "seed 4", roles: roles(ca, sa, cm, ar), afterEnd: true}, annotateFields, decideAnnotate),
		command(commandRow{name: "ConfirmLateRecord", owner: OwnerIncident, authority: "seed 4", roles: roles(ca, sa), afterEnd: true}, confirmLateFields, decideConfirmLate),
		command(commandRow{name: "Close", owner: OwnerIncident, authority: "seed 1", roles: roles(ca, sa, cm), closes: true}, closeFields, decideClose),
		command(commandRow{name: "Tick", authority: "seed 1", systems: systems(timer), afterEnd: true}, none[*emergencyv1.TickRequest], decideTick),

		command(commandRow{name: "CallOut", owner: OwnerNotification, authority: "seed 1.2", roles: roles(ca, sa)}, callOutFields, decideCallOut),
		command(commandRow{name: "ReportDelivery", owner: OwnerNotification, authority: "seed 1.2", systems: systems(mailer), afterEnd: true}, deliveryFields, decideDelivery),
		command(commandRow{name: "Respond", owner: OwnerNotification, authority: "seed 1.3", roles: responders}, respondFields, decideRespond),
		command(commandRow{name: "CheckIn", owner: OwnerNotification, authority: "seed 1.4", roles: responders}, none[*emergencyv1.CheckInRequest], decideCheckIn),
		command(commandRow{name: "EndStandby", owner: OwnerNotification, authority: "seed 1.4", roles: responders}, endStandbyFields, decideEndStandby),
		command(commandRow{name: "SetRota", owner: OwnerNotification, authority: "SP 9.1.2", roles: roles(cl, al), ruleBook: true}, rotaFields, decideSetRota),
		command(commandRow{name: "SetContacts", owner: OwnerNotification, authority: "SP 9.1.2", roles: roles(me), ruleBook: true}, contactsFields, decideSetContacts),
		command(commandRow{name: "RecordReachability", owner: OwnerNotification, authority: "SP 9.1.2", systems: systems(mailer), ruleBook: true}, reachFields, decideReachability),

		command(commandRow{name: "RegisterPatch", owner: OwnerReview, authority: "seed 1.5", roles: roles(sa, sd, se), signed: true}, registerFields, decideRegister, registerClaims),
		command(commandRow{name: "RecordFirstReview", owner: OwnerReview, authority: "seed 1.6", roles: roles(sa), signed: true, stepUp: true, afterEnd: true}, reviewFields[*emergencyv1.RecordFirstReviewRequest], decideFirstReview, reviewClaims[*emergencyv1.RecordFirstReviewRequest]),
		command(commandRow{name: "Transfer", owner: OwnerReview, authority: "seed 1.6", roles: roles(sa), afterEnd: true}, transferFields, decideTransfer),
		command(commandRow{name: "ConfirmTestServer", owner: OwnerReview, authority: "seed 1.6", systems: systems(testAgent), afterEnd: true}, confirmServerFields, decideConfirmServer),
		command(commandRow{name: "ReportTest", owner: OwnerReview, authority: "seed 1.7", roles: roles(te), signed: true, afterEnd: true}, testFields, decideReportTest, testClaims),
		command(commandRow{name: "RecordSecondReview", owner: OwnerReview, authority: "seed 1.8", roles: roles(sa), signed: true, stepUp: true, afterEnd: true}, reviewFields[*emergencyv1.RecordSecondReviewRequest], decideSecondReview, reviewClaims[*emergencyv1.RecordSecondReviewRequest]),
		command(commandRow{name: "RaiseVeto", owner: OwnerReview, authority: "SP 7.4", roles: roles(sa), signed: true}, vetoFields, decideRaiseVeto, vetoClaims),
		command(commandRow{name: "WithdrawVeto", owner: OwnerReview, authority: "SP 7.4", roles: roles(sa), signed: true, afterEnd: true}, withdrawFields, decideWithdrawVeto, withdrawClaims),
		command(commandRow{name: "OverruleVeto", owner: OwnerReview, authority: "SP 7.4", roles: roles(al), signed: true, afterEnd: true}, overruleFields, decideOverruleVeto, overruleClaims),
		command(commandRow{name: "Forward", owner: OwnerReview, authority: "seed 1.8", roles: roles(sa), signed: true, stepUp: true}, forwardFields, decideForward, forwardClaims),

		command(commandRow{name: "EnterUpdateCycle", owner: OwnerReview, authority: "seed 2.5, 3.8", roles: roles(sa), afterEnd: true}, enterFields, decideEnter),
		command(commandRow{name: "ConcludeUpdateCycle", owner: OwnerReview, authority: "seed 2.5, 3.8", roles: roles(sa), afterEnd: true}, concludeFields, decideConclude),

		command(commandRow{name: "DryRun", owner: OwnerDeployment, authority: "seed 1.9", roles: roles(ca)}, dryRunFields, decideDryRun),
		command(commandRow{name: "ConfirmObserver", owner: OwnerDeployment, authority: "SP 4.1", roles: roles(ca), afterEnd: true}, observerFields, decideObserver),
		command(commandRow{name: "StartApply", owner: OwnerDeployment, authority: "seed 1.9", roles: roles(ca), signed: true, stepUp: true}, startApplyFields, decideStartApply, startApplyClaims),
		command(commandRow{name: "ReportApply", owner: OwnerDeployment, authority: "seed 1.9", roles: roles(ca), systems: systems(hostAgent)}, reportApplyFields, decideReportApply),
		command(commandRow{name: "ReportTree", owner: OwnerDeployment, authority: "seed 1.9", roles: roles(ca), systems: systems(hostAgent)}, reportTreeFields, decideReportTree),
		command(commandRow{name: "BackOut", owner: OwnerDeployment, authority: "seed 1.9", roles: roles(ca), safety: true}, backOutFields, decideBackOut),
		command(commandRow{name: "RollBack", owner: OwnerDeployment, authority: "seed 1.9", roles: roles(ca), signed: true, stepUp: true}, rollBackFields, decideRollBack, rollBackClaims),
		command(commandRow{name: "RecordHealth", owner: OwnerDeployment, authority: "seed 1.9", roles: roles(ca), afterEnd: true}, healthFields, decideHealth),
		command(commandRow{name: "PushReplication", owner: OwnerDeployment, authority: "seed 2.5", roles: roles(ca), systems: systems(repoAgent), afterEnd: true}, none[*emergencyv1.PushReplicationRequest], decidePush),
		command(commandRow{name: "CheckReplication", owner: OwnerDeployment, authority: "seed 2.5", roles: roles(ca, sa), systems: systems(repoAgent), afterEnd: true}, checkReplicationFields, decideCheckReplication),
		command(commandRow{name: "ExplainDrift", owner: OwnerDeployment, authority: "seed 2.5", roles: roles(ca, sa), afterEnd: true}, explainFields, decideExplainDrift),

		command(commandRow{name: "Document", owner: OwnerArbitration, authority: "seed 1", roles: roles(ca), afterEnd: true}, documentFields, decideDocument),
		command(commandRow{name: "RecordBoardSummary", owner: OwnerArbitration, authority: "SP 4.1.3", roles: roles(cl, bd), afterEnd: true}, boardFields, decideBoardSummary),
		command(commandRow{name: "FileDispute", owner: OwnerArbitration, authority: "DRP 1", roles: everybody, afterEnd: true}, fileDisputeFields, decideFileDispute),
		command(commandRow{name: "ReportFiling", owner: OwnerArbitration, authority: "seed 2.4, 3.7", systems: systems(mailer), afterEnd: true}, reportFilingFields, decideReportFiling),
		command(commandRow{name: "OpenCase", owner: OwnerArbitration, authority: "DRP 1.3", roles: roles(cm), afterEnd: true}, openCaseFields, decideOpenCase),
		command(commandRow{name: "ProposeArbitrator", owner: OwnerArbitration, authority: "DRP 1.5", roles: roles(cm), afterEnd: true}, proposeFields, decidePropose),
		command(commandRow{name: "RespondAppointment", owner: OwnerArbitration, authority: "DRP 1.5", roles: roles(ar), afterEnd: true}, respondAppointmentFields, decideRespondAppointment),
		command(commandRow{name: "CloseDeclined", owner: OwnerArbitration, authority: "DRP 1.5", roles: roles(cm), afterEnd: true}, closeDeclinedFields, decideCloseDeclined),
		command(commandRow{name: "RecordPreliminaries", owner: OwnerArbitration, authority: "DRP 2", roles: roles(ar), afterEnd: true}, preliminariesFields, decidePreliminaries),
		command(commandRow{name: "DeliverRuling", owner: OwnerArbitration, authority: "DRP 3.1", roles: roles(ar), signed: true, stepUp: true, afterEnd: true}, rulingFields, decideRuling, rulingClaims),
		command(commandRow{name: "PublishRuling", owner: OwnerArbitration, authority: "DRP 3.2", roles: roles(cm), afterEnd: true}, publishRulingFields, decidePublishRuling),
		command(commandRow{name: "ReportDirectionDone", owner: OwnerArbitration, authority: "DRP 3.1", roles: roles(ca, sa, sd, se, te, cm, bd, me), afterEnd: true}, reportDirectionFields, decideReportDirection),
		command(commandRow{name: "ConfirmDirection", owner: OwnerArbitration, authority: "DRP 3.1", roles: roles(cm, ar), afterEnd: true}, confirmDirectionFields, decideConfirmDirection),
		command(commandRow{name: "RequestReview", owner: OwnerArbitration, authority: "DRP 3.4", roles: everybody, afterEnd: true}, requestReviewFields, decideRequestReview),
		command(commandRow{name: "FormAppealPanel", owner: OwnerArbitration, authority: "DRP 3.4", roles: roles(dro), afterEnd: true}, appealPanelFields, decideAppealPanel),
		command(commandRow{name: "Redact", owner: OwnerArbitration, authority: "SP 5.6", roles: roles(cl, ar), signed: true, stepUp: true, afterEnd: true, live: true}, redactFields, decideRedact, redactClaims),
		command(commandRow{name: "ReportRedaction", owner: OwnerArbitration, authority: "SP 5.6", systems: systems(reactor), afterEnd: true}, reportRedactionFields, decideReportRedaction),
		command(commandRow{name: "Disclose", owner: OwnerArbitration, authority: "SP 5.6", roles: roles(cl, ar), systems: systems(reactor), afterEnd: true}, discloseFields, decideDisclose),
		command(commandRow{name: "SyncObligations", owner: OwnerArbitration, authority: "SP 2.3.4", systems: systems(reactor), afterEnd: true}, none[*emergencyv1.SyncObligationsRequest], decideSync),
		command(commandRow{name: "Establish", owner: OwnerArbitration, authority: "SP 3.4.2", systems: systems(service), ruleBook: true}, establishFields, decideEstablish),
		command(commandRow{name: "PublishPolicy", owner: OwnerArbitration, authority: "SP 3.4.2", roles: roles(bd), ruleBook: true, signed: true}, policyFields, decidePublishPolicy, policyClaims),
		command(commandRow{name: "GrantRole", owner: OwnerArbitration, authority: "SP 3.4.2", roles: roles(bd), ruleBook: true}, grantFields, decideGrantRole),
		command(commandRow{name: "RevokeRole", owner: OwnerArbitration, authority: "SP 3.4.2", roles: roles(bd), ruleBook: true}, revokeRoleFields, decideRevokeRole),
		command(commandRow{name: "AddKey", owner: OwnerArbitration, authority: "SP 3.4.2", roles: roles(bd, me), ruleBook: true}, addKeyFields, decideAddKey),
		command(commandRow{name: "RevokeKey", owner: OwnerArbitration, authority: "SP 3.4.2", roles: roles(bd, me), ruleBook: true}, revokeKeyFields, decideRevokeKey),
		command(commandRow{name: "ImportArchive", owner: OwnerArbitration, authority: "seed 4", roles: roles(cl, cm), archive: true, signed: true}, importFields, decideImport, importClaims),
	})
}

// commandRows is the table, commandIndex the same by message; built once, never changed.
var (
	commandRows  []commandRow
	commandIndex map[protoreflect.FullName]*commandRow
)

func init() { // not a plain variable: Options, reached from the table, would make it refer to itself
	commandRows = commandTable()
	commandIndex = make(map[protoreflect.FullName]*commandRow, len(commandRows))
	for i := range commandRows {
		commandIndex[commandRows[i].make().ProtoReflect().Descriptor().FullName()] = &commandRows[i]
	}
}

func commandOf(m proto.Message) (*commandRow, bool) {
	row, ok := commandIndex[m.ProtoReflect().Descriptor().FullName()]
	return row, ok
}

// CommandName returns the name of a command, such as RecordFirstReview; empty for a message that is none.
func CommandName(m proto.Message) string {
	if row, ok := commandOf(m); ok {
		return row.name
	}
	return ""
}

// CommandOwner returns the service that decides a command; empty for Tick, which every service decides for itself.
func CommandOwner(m proto.Message) string {
	if row, ok := commandOf(m); ok {
		return row.owner
	}
	return ""
}

// CommandInfo describes a command of the table, for tests and documentation.
type CommandInfo struct {
	Name, Owner, Authority string
	Roles                  []emergencyv1.Role
	Systems                []emergencyv1.SystemKind
	Signed, StepUp         bool
	RuleBook, AfterEnd     bool
	Archive                bool
	New                    func() Command
}

// Commands lists the commands in the order of procedure.md. Their lists are shared: never write to them.
func Commands() []CommandInfo {
	var list []CommandInfo
	for _, r := range commandRows {
		list = append(list, CommandInfo{r.name, r.owner, r.authority, r.roles, r.systems, r.signed, r.stepUp, r.ruleBook, r.afterEnd, r.archive, r.make})
	}
	return list
}
