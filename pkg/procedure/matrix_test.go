// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// holders are a person for each column.
var holders = map[string]string{
	"CA": "carla", "SA": "anna", "SD": "dora", "SE": "emil", "TE": "theo", "CL": "clara", "AL": "albert",
	"CM": "casper", "AR": "arno", "DO": "doris", "BD": "bea", "ME": "mia",
}

// systems are an identity for each system that procedure.md 2.1 has in strategy 1.
var systemActors = map[string]string{
	"timer": "timer", "mailer": "mailer", "reactor": "reactor", "service": "service",
	"gateway": "gateway", "host_agent": "host:" + pt.Host, "test_agent": "test:" + pt.TestServer, "repo_agent": "repo:git",
}

// inTheRelation is a command that a person may give in the named relation: on the own slot, the own key ...
func inTheRelation(line, person string, s *procedure.State) procedure.Command {
	own := map[string]string{"carla": "critical/1", "anna": "assessment/1", "dora": "development/1", "emil": "development/1", "theo": "testing/1", "clara": "critical/1", "albert": "assessment/1"}[person]
	switch line {
	case "PlayRecording":
		if person == systemActors["service"] {
			return shownTo("carl")
		}
	case "AddKey":
		k := pt.KeyOf("new key of " + person)
		return &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{KeyId: k.ID, PublicKey: k.Public, Person: person}}
	case "RevokeKey":
		return &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf(person).ID, Reason: "lost in the train"}
	}
	return pt.Example(line, pt.By{Person: person, Slot: cmp.Or(own, "critical/1")}, s)
}

// TestMatrix asks Decide about every cell: x means past G5, so any later refusal is right; a blank is refused with
// PERMISSION_DENIED/ROLE. It does not look at the table that the code decides by.
func TestMatrix(t *testing.T) {
	t.Parallel()
	seenCommands := map[string]bool{}
	for _, line := range pt.Matrix() {
		seenCommands[line.Command] = true
		t.Run(line.Name(), func(t *testing.T) {
			t.Parallel()
			for _, c := range pt.MatrixColumns() {
				checkCell(t, line.Name(), holders[c], line.Allowed[c])
			}
			for kind, actor := range systemActors {
				checkCell(t, line.Name(), actor, slices.Contains(line.Systems, kind))
			}
			for _, who := range []string{"sven", "axel"} { // SU and AE have no command of their own; they are members
				checkCell(t, line.Name(), who, line.Allowed["ME"])
			}
		})
	}
	for _, c := range procedure.Commands() {
		if !seenCommands[c.Name] {
			t.Errorf("the matrix has no line for %s", c.Name)
		}
	}
}

func checkCell(t *testing.T, command, who string, allowed bool) {
	t.Helper()
	w := matrixWorld(t, command, who)
	var cmd procedure.Command
	if name, _, _ := strings.Cut(command, "/"); name == "PublishPolicy" {
		second := "bruno"
		cmd = pt.NextPolicy(w, second, nil)
	} else {
		cmd = inTheRelation(command, who, w.State)
	}
	if command == "Connect" && pt.IsPerson(who) {
		who = "gateway:" + who // the broker gives it, for whom it has recognised
	}
	if cmd == nil {
		t.Fatalf("no example of %s", command)
	}
	cmd = w.Prepare(who, cmd)
	if procedure.NeedsSignature(cmd) && cmd.GetMeta().GetApproval() == nil { // a system can only sign as itself
		cmd.GetMeta().Approval = systemApproval(t, w, cmd)
	}
	out := w.Decide(who, cmd)
	if out.Err != nil {
		t.Fatalf("%s by %s: %v", command, who, out.Err)
	}
	refusedForRole := out.Refusal != nil && out.Refusal.Reason == procedure.ReasonRole
	if refusedForRole == allowed {
		t.Errorf("%s by %s: allowed %v, got %v", command, who, allowed, out.Refusal)
	}
	if !allowed && out.Refusal != nil && out.Refusal.Code != procedure.PermissionDenied {
		t.Errorf("%s by %s: %v", command, who, out.Refusal)
	}
}

func systemApproval(t *testing.T, w *pt.World, c procedure.Command) *emergencyv1.Approval {
	t.Helper()
	var role emergencyv1.Role
	for _, info := range procedure.Commands() {
		if info.Name == procedure.CommandName(c) {
			role = info.Roles[0]
		}
	}
	st, err := procedure.StatementFor(w.State, c, "", role, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	return pt.KeyOf("host:" + pt.Host).Sign(st)
}

// matrixWorld is a history in which the command's relation to its actor is as the matrix names it: carla is executor.
func matrixWorld(t *testing.T, command, who string) *pt.World {
	t.Helper()
	name, _, _ := strings.Cut(command, "/")
	for _, c := range procedure.Commands() {
		if c.Name == name && c.RuleBook {
			return pt.Founding().For(t)
		}
		if c.Name == name && c.Archive {
			return pt.NewArchive(t)
		}
	}
	milestone := pt.Observed
	switch name {
	case "PermitAccess", "GrantAccess":
		milestone = pt.Joined
	case "ArmWatch":
		milestone = pt.Granted
	case "Connect":
		milestone = pt.Armed
	case "ReportConnection":
		milestone = pt.Consumed
	case "Freeze", "MarkSession", "ExtendSession", "Disable":
		milestone = pt.Live
	case "PlayRecording":
		return pt.Given(t, pt.Story(pt.Live), judge("arno")).World() // an arbitrator of the incident
	case "Terminate":
		w := pt.Given(t, pt.Story(pt.Live)).World()
		if who == "anna" || who == "albert" || who == "emil" { // each may be the subject
			w.Change(func(s *procedure.State) { s.Grants[0].Subject = who })
		}
		return w
	case "Resume":
		milestone = pt.Frozen
	case "ProveUnusable":
		milestone = pt.Disabled
	case "CaptureSessionDiff", "ReportLeftovers":
		milestone = pt.Proven
	case "ExplainLeftovers":
		milestone = pt.Captured
	case "SealSession":
		milestone = pt.Explained
	case "Declare":
		return pt.NewWorld(t)
	case "ReportApply", "ReportTree":
		if who == "clara" { // may be executor as well as any other critical admin
			w := pt.Given(t, pt.Story(pt.Observed), pt.Does("clara", &emergencyv1.StartApplyRequest{})).World()
			return w
		}
		milestone = pt.Applying
	}
	return pt.Given(t, pt.Story(milestone)).World()
}

// TestMatrixIsTheTable holds the matrix against the table that the code decides by, so that neither has a row the other
// lacks; roles are compared by TestMatrix.
func TestMatrixIsTheTable(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, line := range pt.Matrix() {
		known[line.Command] = true
	}
	for _, c := range procedure.Commands() {
		delete(known, c.Name)
	}
	if len(known) > 0 {
		t.Errorf("the matrix has commands that are not implemented: %s", fmt.Sprint(known))
	}
}
