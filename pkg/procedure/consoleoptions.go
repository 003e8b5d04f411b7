// SPDX-License-Identifier: Apache-2.0

package procedure

import emergencyv1 "cacert.org/emergency/proto/emergency/v1"

// consoleCandidates are the commands of strategy 3's console that could make sense.
func consoleCandidates(s *State, meta *emergencyv1.CommandMeta) []candidate {
	var list []candidate
	if s.Strategy == 3 {
		list = append(list,
			candidate{&emergencyv1.PermitAccessRequest{Meta: meta}, "", "permit remote access for one person"},
			candidate{&emergencyv1.GrantAccessRequest{Meta: meta, Subject: permitted(s)}, "", "grant one watched session to one person"})
	}
	for i := range s.Grants {
		list = append(list, grantCandidates(s.Grants[i].ID, meta)...)
	}
	return list
}

// permitted is the person whose access was permitted last.
func permitted(s *State) string {
	if len(s.Permissions) == 0 {
		return ""
	}
	return s.Permissions[len(s.Permissions)-1].Subject
}

func grantCandidates(id string, meta *emergencyv1.CommandMeta) []candidate {
	return []candidate{
		{&emergencyv1.ArmWatchRequest{Meta: meta, Grant: id}, id, "watch the session of " + id},
		{&emergencyv1.FreezeRequest{Meta: meta, Grant: id}, id, "freeze the session of " + id},
		{&emergencyv1.ResumeRequest{Meta: meta, Grant: id}, id, "let the session of " + id + " go on"},
		{&emergencyv1.MarkSessionRequest{Meta: meta, Grant: id, Text: "given on marking"}, id, "mark a place in the session of " + id},
		{&emergencyv1.ExtendSessionRequest{Meta: meta, Grant: id}, id, "extend the session of " + id},
		{&emergencyv1.TerminateRequest{Meta: meta, Grant: id}, id, "end the session of " + id},
		{&emergencyv1.DisableRequest{Meta: meta, Grant: id}, id, "disable the access of " + id},
		{&emergencyv1.ProveUnusableRequest{Meta: meta, Grant: id}, id, "have the access of " + id + " proven unusable"},
		{&emergencyv1.CaptureSessionDiffRequest{Meta: meta, Grant: id}, id, "capture what the session of " + id + " changed"},
		{&emergencyv1.ReportLeftoversRequest{Meta: meta, Grant: id}, id, "look for what the session of " + id + " left"},
		{&emergencyv1.ExplainLeftoversRequest{Meta: meta, Grant: id}, id, "explain what the session of " + id + " left"},
		{&emergencyv1.SealSessionRequest{Meta: meta, Grant: id}, id, "seal the session of " + id},
		{&emergencyv1.PlayRecordingRequest{Meta: meta, Grant: id}, id, "play the recording of " + id},
	}
}

// consoleSteps are where strategy 3's access stands (chapter 1.3, 3.3 to 3.6).
func consoleSteps(s *State) []Step {
	g := s.OpenGrant()
	if g == nil {
		return s.sealSteps()
	}
	admin, watcher := []string{g.Granter}, []string{g.Watcher}
	step := func(number, title, command string, persons []string) []Step {
		return []Step{{Number: number, Title: title, Command: command, Subject: g.ID, Persons: persons, Due: g.endOrPlan()}}
	}
	switch g.State {
	case GrantIssued:
		return step("3.4", "the watch of "+g.ID, "ArmWatch", watcher)
	case GrantWatcherReady:
		if g.Consumed.Position > 0 {
			return step("3.4", "the session of "+g.ID+" is being opened", "", nil)
		}
		return step("3.4", g.Subject+" connects with the credential of "+g.ID, "Connect", []string{g.Subject})
	case GrantLive:
		return step("3.5", g.Subject+" works on "+g.Host+", watched by "+g.Watcher, "Terminate", watcher)
	case GrantFrozen:
		if g.full() && g.Extended.Position == 0 {
			return step("3.5", "the recording of "+g.ID+" is full: extend the session or end it", "ExtendSession", watcher)
		}
		if g.full() {
			return step("3.5", "the recording of "+g.ID+" is full: end the session", "Terminate", watcher)
		}
		return step("3.5", "the session of "+g.ID+" is frozen", "Resume", watcher)
	case GrantExpired, GrantTerminated:
		return step("3.6", "disable the access of "+g.ID, "Disable", admin)
	case GrantDisabled:
		return step("3.6", "prove the access of "+g.ID+" unusable", "ProveUnusable", admin)
	case GrantStillUsable:
		return step("3.6", "the access of "+g.ID+" could not be proven unusable: disable it again", "Disable", admin)
	case GrantProvenUnusable, GrantSealed:
	}
	return nil
}

// sealSteps are what is left to do without an open grant: seal the sessions there were, or grant the first access.
func (s *State) sealSteps() []Step {
	var list []Step
	for i := range s.Grants {
		g := &s.Grants[i]
		if g.Opened.Position == 0 || g.Sealed.Position > 0 {
			continue
		}
		step := Step{Number: "3.6", Title: "seal the session of " + g.ID, Command: "SealSession", Subject: g.ID, Persons: []string{g.Watcher}, Due: g.endOrPlan().Add(s.Policy.Duration("seal"))}
		switch {
		case g.Diff.Position == 0:
			step.Title, step.Command, step.Persons = "capture what the session of "+g.ID+" changed", "CaptureSessionDiff", nil
		case len(g.LeftoversReported) == 0:
			step.Title, step.Command, step.Persons = "look for what the session of "+g.ID+" left", "ReportLeftovers", nil
		case len(g.unexplained()) > 0:
			step.Title, step.Command = "explain what the session of "+g.ID+" left", "ExplainLeftovers"
		}
		list = append(list, step)
	}
	if s.Strategy != 3 || len(s.Grants) > 0 {
		return list
	}
	list = append(list, Step{Number: "3.3", Title: "grant one watched session to one person", Command: "GrantAccess"})
	if len(s.Permissions) == 0 {
		list = append([]Step{{Number: "3.3", Title: "the team lead's permission for remote access", Command: "PermitAccess"}}, list...)
	}
	return list
}
