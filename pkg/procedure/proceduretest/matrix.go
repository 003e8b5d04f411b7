// SPDX-License-Identifier: Apache-2.0

package proceduretest

import "strings"

// matrix is procedure.md 2.2 (and 4.6 for the rule book), literally: x allowed, (x) only in the named relation, . refused. The columns CL
// and AL show only what is added to CA and SA. Arbitrators and dispute officers are members, too, and may be named in a direction; what a
// tick would disclose (4.5) the reactor does, with the values. The last column names systems.
const matrix = `
command                CA   SA   SD   SE   TE   CL   AL   CM   AR   DO   BD   ME   SY
Declare                x    x    .    .    .    .    .    .    .    .    .    .    -
MergeInto              x    x    .    .    .    .    .    .    .    .    .    .    -
AbsorbDuplicate        x    x    .    .    .    .    .    .    .    .    .    .    -
StandDown              x    x    .    .    .    .    .    .    .    .    .    .    -
Escalate               x    x    .    .    .    .    .    .    .    .    .    .    -
SignJointDeclaration   x    x    .    .    .    .    .    .    .    .    .    .    -
DeEscalate             x    x    .    .    .    .    .    .    .    .    .    .    -
CallOut                x    x    .    .    .    .    .    .    .    .    .    .    -
ConfirmLateRecord      x    x    .    .    .    .    .    .    .    .    .    .    -
EnterUpdateCycle       .    x    .    .    .    .    .    .    .    .    .    .    -
ConcludeUpdateCycle    .    x    .    .    .    .    .    .    .    .    .    .    -
ExplainDrift           x    x    .    .    .    .    .    .    .    .    .    .    -
Respond                (x)  (x)  (x)  (x)  (x)  .    .    .    .    .    .    .    -
CheckIn                (x)  (x)  (x)  (x)  (x)  .    .    .    .    .    .    .    -
EndStandby             (x)  (x)  (x)  (x)  (x)  .    .    .    .    .    .    .    -
ReportDelivery         .    .    .    .    .    .    .    .    .    .    .    .    mailer
RegisterPatch          .    x    x    x    .    .    .    .    .    .    .    .    -
RecordFirstReview      .    x    .    .    .    .    .    .    .    .    .    .    -
RecordSecondReview     .    x    .    .    .    .    .    .    .    .    .    .    -
Transfer               .    x    .    .    .    .    .    .    .    .    .    .    -
Forward                .    x    .    .    .    .    .    .    .    .    .    .    -
RaiseVeto              .    x    .    .    .    .    .    .    .    .    .    .    -
WithdrawVeto           .    (x)  .    .    .    .    .    .    .    .    .    .    -
ConfirmTestServer      .    .    .    .    .    .    .    .    .    .    .    .    test_agent
ReportTest             .    .    .    .    x    .    .    .    .    .    .    .    -
ConfirmObserver        x    .    .    .    .    .    .    .    .    .    .    .    -
DryRun                 x    .    .    .    .    .    .    .    .    .    .    .    -
StartApply             x    .    .    .    .    .    .    .    .    .    .    .    -
BackOut                x    .    .    .    .    .    .    .    .    .    .    .    -
RollBack               x    .    .    .    .    .    .    .    .    .    .    .    -
RecordHealth           x    .    .    .    .    .    .    .    .    .    .    .    -
Document               x    .    .    .    .    .    .    .    .    .    .    .    -
GrantAccess            x    .    .    .    .    .    .    .    .    .    .    .    -
ArmWatch               x    .    .    .    .    .    .    .    .    .    .    .    -
Freeze                 x    .    .    .    .    .    .    .    .    .    .    .    gateway
Resume                 x    .    .    .    .    .    .    .    .    .    .    .    -
ExtendSession          x    .    .    .    .    .    .    .    .    .    .    .    -
MarkSession            x    .    .    .    .    .    .    .    .    .    .    .    gateway
Disable                x    .    .    .    .    .    .    .    .    .    .    .    -
Connect                .    (x)  .    (x)  .    .    .    .    .    .    .    .    -
ReportConnection       .    .    .    .    .    .    .    .    .    .    .    .    gateway
Terminate              x    (x)  .    (x)  .    .    .    .    .    .    .    .    gateway,host_agent
ProveUnusable          x    .    .    .    .    .    .    .    .    .    .    .    gateway,host_agent
CaptureSessionDiff     x    .    .    .    .    .    .    .    .    .    .    .    gateway,host_agent
ReportLeftovers        x    .    .    .    .    .    .    .    .    .    .    .    gateway,host_agent
ExplainLeftovers       x    .    .    .    .    .    .    .    .    .    .    .    -
SealSession            x    .    .    .    .    .    .    .    .    .    .    .    -
PlayRecording          x    x    .    .    .    .    .    x    (x)  .    .    .    service
PermitAccess           .    .    .    .    .    x    .    .    .    .    .    .    -
ReportApply            (x)  .    .    .    .    .    .    .    .    .    .    .    host_agent
ReportTree             (x)  .    .    .    .    .    .    .    .    .    .    .    host_agent
PushReplication        x    .    .    .    .    .    .    .    .    .    .    .    repo_agent
CheckReplication       x    x    .    .    .    .    .    .    .    .    .    .    repo_agent
OverruleVeto           .    .    .    .    .    .    x    .    .    .    .    .    -
WaiveControl/tests     .    .    .    .    .    .    x    .    .    .    .    .    -
WaiveControl/observer  .    .    .    .    .    x    .    .    .    .    .    .    -
RecordLeadDecision     .    .    .    .    .    x    .    .    .    .    .    .    -
AnnotateLog            x    x    .    .    .    .    .    x    x    .    .    .    -
RecordBoardSummary     .    .    .    .    .    x    .    .    .    .    x    .    -
Close                  x    x    .    .    .    .    .    x    .    .    .    .    -
FileDispute            x    x    x    x    x    .    .    x    x    x    x    x    -
ReportFiling           .    .    .    .    .    .    .    .    .    .    .    .    mailer
OpenCase               .    .    .    .    .    .    .    x    .    .    .    .    -
ProposeArbitrator      .    .    .    .    .    .    .    x    .    .    .    .    -
CloseDeclined          .    .    .    .    .    .    .    x    .    .    .    .    -
PublishRuling          .    .    .    .    .    .    .    x    .    .    .    .    -
RespondAppointment     .    .    .    .    .    .    .    .    x    .    .    .    -
RecordPreliminaries    .    .    .    .    .    .    .    .    x    .    .    .    -
DeliverRuling          .    .    .    .    .    .    .    .    x    .    .    .    -
ReportDirectionDone    (x)  (x)  (x)  (x)  (x)  .    .    (x)  (x)  (x)  (x)  (x)  -
ConfirmDirection       .    .    .    .    .    .    .    x    x    .    .    .    -
RequestReview          x    x    x    x    x    .    .    x    x    x    x    x    -
FormAppealPanel        .    .    .    .    .    .    .    .    .    x    .    .    -
Redact                 .    .    .    .    .    x    .    .    x    .    .    .    -
Disclose               .    .    .    .    .    x    .    .    x    .    .    .    reactor
ReportRedaction        .    .    .    .    .    .    .    .    .    .    .    .    reactor
SyncObligations        .    .    .    .    .    .    .    .    .    .    .    .    reactor
Tick                   .    .    .    .    .    .    .    .    .    .    .    .    timer
GrantRole              .    .    .    .    .    .    .    .    .    .    x    .    -
RevokeRole             .    .    .    .    .    .    .    .    .    .    x    .    -
PublishPolicy          .    .    .    .    .    .    .    .    .    .    x    .    -
AddKey                 (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  x    (x)  -
RevokeKey              (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  x    (x)  -
SetRota                .    .    .    .    .    x    x    .    .    .    .    .    -
SetContacts            (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  (x)  -
RecordReachability     .    .    .    .    .    .    .    .    .    .    .    .    mailer
Establish              .    .    .    .    .    .    .    .    .    .    .    .    service
ImportArchive          .    .    .    .    .    x    .    x    .    .    .    .    -
`

// MatrixLine is who may give a command.
type MatrixLine struct {
	// Command is its name; Variant what is waived of WaiveControl, and empty otherwise.
	Command, Variant string
	// Allowed tells of each column but the last whether its role may give it, if only in the named relation.
	Allowed map[string]bool
	// Systems are those of the last column.
	Systems []string
}

// Name is the first column.
func (l MatrixLine) Name() string {
	if l.Variant == "" {
		return l.Command
	}
	return l.Command + "/" + l.Variant
}

// MatrixColumns are the roles, by their codes in procedure.md 2.1.
func MatrixColumns() []string {
	header := strings.Fields(strings.Split(strings.TrimSpace(matrix), "\n")[0])
	return header[1 : len(header)-1]
}

// Matrix is the role x command matrix, a line a command. What CL and AL are allowed includes what CA and SA are.
func Matrix() []MatrixLine {
	columns := MatrixColumns()
	var lines []MatrixLine
	for _, text := range strings.Split(strings.TrimSpace(matrix), "\n")[1:] {
		cells := strings.Fields(text)
		l := MatrixLine{Allowed: map[string]bool{}}
		l.Command, l.Variant, _ = strings.Cut(cells[0], "/")
		for i, c := range columns {
			l.Allowed[c] = strings.Contains(cells[i+1], "x")
		}
		l.Allowed["CL"], l.Allowed["AL"] = l.Allowed["CL"] || l.Allowed["CA"], l.Allowed["AL"] || l.Allowed["SA"]
		if systems := cells[len(cells)-1]; systems != "-" {
			l.Systems = strings.Split(systems, ",")
		}
		lines = append(lines, l)
	}
	return lines
}
