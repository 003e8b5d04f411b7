// SPDX-License-Identifier: Apache-2.0

package procedure

import emergencyv1 "cacert.org/emergency/proto/emergency/v1"

// consoleCommands are the rows of strategy 3's console (procedure.md 4.4). Freeze, Terminate and Disable never ask for a
// step-up and go through exclusivity with a deviation; what discharges an obligation is accepted after the end (G7).
// What opens something is done by the system itself and cannot have been done while it was away.
func consoleCommands() []commandRow {
	const hostAgent = emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT
	row := func(name, authority string, list ...emergencyv1.Role) commandRow {
		return commandRow{name: name, owner: OwnerDeployment, authority: authority, roles: list}
	}
	live := func(r commandRow) commandRow { r.live = true; return r }
	signed := func(r commandRow) commandRow { r.signed, r.stepUp = true, true; return r }
	by := func(r commandRow, list ...emergencyv1.SystemKind) commandRow { r.systems = list; return r }
	safety := func(r commandRow) commandRow { r.safety = true; return r }
	later := func(r commandRow) commandRow { r.afterEnd = true; return r }
	connect := row("Connect", "seed 3.4", sa, se)
	connect.through = consoleGateway
	return []commandRow{
		command(signed(row("PermitAccess", "SP 4.1.1.1", cl)), permitFields, decidePermit, permitClaims),
		command(live(signed(row("GrantAccess", "seed 3.3", ca))), grantAccessFields, decideGrant, grantAccessClaims),
		command(live(signed(row("ArmWatch", "seed 3.4", ca))), armFields, decideArm, armClaims),
		command(live(connect), connectFields, decideConnect),
		command(live(by(row("ReportConnection", "seed 3.4"), consoleGateway)), reportConnectionFields, decideReportConnection),
		command(safety(by(row("Freeze", "seed 3.5", ca), consoleGateway)), grantOnly[*emergencyv1.FreezeRequest], decideFreeze),
		command(live(row("Resume", "seed 3.5", ca)), grantOnly[*emergencyv1.ResumeRequest], decideResume),
		command(by(row("MarkSession", "seed 3.5", ca), consoleGateway), markFields, decideMark),
		command(live(row("ExtendSession", "seed 3.5", ca)), extendFields, decideExtend),
		command(later(safety(by(row("Terminate", "seed 3.6", ca, sa, se), consoleGateway, hostAgent))), grantOnly[*emergencyv1.TerminateRequest], decideTerminate),
		command(later(safety(row("Disable", "seed 3.6", ca))), grantOnly[*emergencyv1.DisableRequest], decideDisable),
		command(later(by(row("ProveUnusable", "seed 3.6", ca), consoleGateway, hostAgent)), grantOnly[*emergencyv1.ProveUnusableRequest], decideProve),
		command(later(by(row("CaptureSessionDiff", "seed 3.8", ca), consoleGateway, hostAgent)), grantOnly[*emergencyv1.CaptureSessionDiffRequest], decideDiff),
		command(later(by(row("ReportLeftovers", "seed 3.6", ca), consoleGateway, hostAgent)), leftoversFields, decideLeftovers),
		command(later(row("ExplainLeftovers", "seed 3.6", ca)), explainLeftoversFields, decideExplainLeftovers),
		command(later(row("SealSession", "seed 3.6", ca)), grantOnly[*emergencyv1.SealSessionRequest], decideSeal),
		command(later(by(row("PlayRecording", "8.4, 9", ca, sa, cm, ar), emergencyv1.SystemKind_SYSTEM_KIND_SERVICE)), grantOnly[*emergencyv1.PlayRecordingRequest], decidePlay),
	}
}
