// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// typed is what to type for each command of the procedure. %s stands for the subject. Nothing in it may do something else
// when it is typed as it stands: what is to be chosen is one word in capitals, explained by choices.
func typed() map[string]string {
	return map[string]string{
		"Declare": "epatch declare SYMPTOM --reason TEXT --class CLASS", "MergeInto": "epatch merge DUPLICATE --into INCIDENT --reason TEXT",
		"StandDown": "epatch stand-down REASON", "WaiveControl": "epatch waive CONTROL --reason TEXT",
		"RecordLeadDecision": "epatch lead-decision DECISION --reason TEXT", "AnnotateLog": "epatch note TEXT", "ConfirmLateRecord": "epatch confirm-late %s --proof TEXT",
		"Close":   "epatch close OUTCOME SUMMARY",
		"CallOut": "epatch call-out", "Respond": "epatch accept --slot %s", "CheckIn": "epatch check-in %s", "EndStandby": "epatch end-standby %s",
		"SetRota": "epatch rota set TEAM PERSON...", "SetContacts": "epatch contacts set CHANNEL=ADDRESS...",
		"RegisterPatch": "epatch patch register FILE --bug ID", "RecordFirstReview": "epatch review first VERDICT %s", "Transfer": "epatch transfer",
		"ReportTest": "epatch test RESULT %s --steps TEXT", "RecordSecondReview": "epatch review second VERDICT %s",
		"RaiseVeto": "epatch veto raise --reason TEXT", "WithdrawVeto": "epatch veto withdraw %s --reason TEXT",
		"OverruleVeto": "epatch veto overrule %s --reason TEXT", "Forward": "epatch forward",
		"DryRun": "epatch dry-run", "ConfirmObserver": "epatch observe", "StartApply": "epatch deploy", "ReportApply": "epatch report-apply APPLIED",
		"BackOut": "epatch back-out", "RollBack": "epatch roll-back --reason TEXT", "RecordHealth": "epatch health HEALTH --checks TEXT",
		"PushReplication": "epatch replication push", "CheckReplication": "epatch replication check", "ExplainDrift": "epatch explain-drift",
		"Document": "epatch document TEXT", "RecordBoardSummary": "epatch board-summary --reference ID",
		"PublishPolicy": "epatch policy draft", "GrantRole": "epatch role grant PERSON ROLE --decision ID", "RevokeRole": "epatch role revoke PERSON ROLE --decision ID",
		"ImportArchive": "epatch log import-mbox FILE", "AddKey": "epatch key add FILE", "RevokeKey": "epatch key revoke KEY-ID --reason TEXT",
		"Escalate": "epatch escalate --reason TEXT", "SignJointDeclaration": "epatch joint-declare --why-not-1 TEXT --why-not-2 TEXT --why-live TEXT",
		"DeEscalate": "epatch de-escalate %s --reason TEXT", "EnterUpdateCycle": "epatch cycle enter", "ConcludeUpdateCycle": "epatch cycle conclude CYCLE",
		"PermitAccess": "epatch permit %s --purpose TEXT", "GrantAccess": "epatch grant",
		"ArmWatch": "epatch watch-console %s", "Connect": "epatch connect %s", "Freeze": "epatch freeze %s", "Resume": "epatch resume %s",
		"MarkSession": "epatch mark TEXT", "ExtendSession": "epatch extend %s --reason TEXT", "Terminate": "epatch terminate %s", "Disable": "epatch disable %s",
		"ProveUnusable": "epatch prove-unusable %s", "CaptureSessionDiff": "epatch session-diff %s", "ReportLeftovers": "epatch leftovers %s",
		"ExplainLeftovers": "epatch explain-leftovers TEXT", "SealSession": "epatch seal %s", "PlayRecording": "epatch replay-console %s",
		"FileDispute": "epatch dispute file", "OpenCase": "epatch case open", "ProposeArbitrator": "epatch case propose PERSON",
		"RespondAppointment": "epatch case accept --no-conflict", "CloseDeclined": "epatch case close-declined",
		"RecordPreliminaries": "epatch case preliminaries --jurisdiction TEXT --law TEXT", "DeliverRuling": "epatch rule FILE", "PublishRuling": "epatch ruling publish TEXT",
		"ReportDirectionDone": "epatch direction done %s --proof TEXT", "ConfirmDirection": "epatch direction confirm %s",
		"RequestReview": "epatch appeal request GROUND TEXT", "FormAppealPanel": "epatch appeal panel PERSON PERSON PERSON",
		"Redact": "epatch redact POSITION --ground TEXT --clause CLAUSE", "Disclose": "epatch disclose POSITION",
	}
}

// choices are the words that a command line leaves open, and what may stand for each.
func choices() map[string][]string {
	return map[string][]string{
		"VERDICT": words(emergencyv1.ReviewVerdict(0)), "RESULT": words(emergencyv1.TestResult(0)), "HEALTH": words(emergencyv1.HealthResult(0)),
		"DECISION": words(emergencyv1.LeadDecision(0)), "OUTCOME": words(emergencyv1.Outcome(0)), "APPLIED": words(emergencyv1.ApplyOutcome(0)),
		"CONTROL": {"tests", "observer"}, "STRATEGY": {"1", "2"}, "CYCLE": words(emergencyv1.CycleOutcome(0)), "GROUND": words(emergencyv1.ReviewGround(0)),
	}
}

// commandLine is what to type for a command, about a subject where it has a place; empty for what no person types. After it
// stands what may be chosen.
func commandLine(command, subject string) string {
	line, ok := typed()[command]
	if !ok {
		return ""
	}
	before, after, has := strings.Cut(line, " %s")
	subject, _, _ = strings.Cut(subject, " ") // what stands behind it, such as the phase, finds itself
	switch {
	case !has:
	case subject == "" && mustName(command) != "":
		line = before + " " + mustName(command) + after
	case subject == "":
		line = strings.TrimSuffix(before, " --slot") + after
	default:
		line = before + " " + subject + after
	}
	return line + choice(line)
}

// Typed is what to type for a command about a subject in an incident, for those who read a page instead; empty for what no
// person types.
func Typed(command, subject, incident string) string {
	line := commandLine(command, subject)
	if line == "" || incident == "" {
		return line
	}
	return scoped(line, incident)
}

// mustName is what a command's subject is, where it has to be named: by a command that says the person has read or tried one
// revision, or that leaves a choice.
func mustName(command string) string {
	switch command {
	case "RecordFirstReview", "RecordSecondReview", "ReportTest":
		return "REVISION"
	case "DeEscalate":
		return "STRATEGY"
	case "PermitAccess":
		return "PERSON"
	}
	return ""
}

// choice explains the word of a line that is to be chosen, if there is one.
func choice(line string) string {
	all := choices()
	for _, w := range strings.Fields(line) {
		if list := all[w]; len(list) > 0 {
			return " (" + w + ": " + either(list) + ")"
		}
	}
	return ""
}

// typing names the incident in the command that ends a text, where another one could be meant without: one was named, or
// several are open.
func (a *app) typing(text string) string {
	id := a.chosen
	if id == "" {
		id = a.opt.incident
	}
	line, found := afterLast(text, "epatch ")
	if !found || id == "" || a.opt.incident == "" && !a.several || strings.Contains(line, id) {
		return text
	}
	name, _, _ := strings.Cut(line, " ")
	if !a.aboutIncident(name) {
		return text
	}
	return scoped(text, id)
}

func afterLast(text, sep string) (after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return "", false
	}
	return text[i+len(sep):], true
}

// aboutIncident tells whether a command takes its incident from -i.
func (a *app) aboutIncident(name string) bool {
	if a.top == nil {
		return false
	}
	for _, c := range a.top.Commands() {
		if c.Name() == name {
			return slices.Contains([]string{"see", "lead", "team", "patch", "host", "console", "law"}, c.GroupID) &&
				!slices.Contains([]string{"declare", "merge", "inbox", "incidents", "log", "whoami"}, name)
		}
	}
	return false
}

// scoped adds an incident to a command line, before what explains it.
func scoped(line, incident string) string {
	tail, _ := afterLast(line, "epatch ")
	if note := choice(tail); note != "" && strings.HasSuffix(line, note) {
		return strings.TrimSuffix(line, note) + " -i " + incident + note
	}
	return line + " -i " + incident
}

// either lists words as a person would say them: a, b or c.
func either(list []string) string {
	last := len(list) - 1
	if last < 1 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:last], ", ") + " or " + list[last]
}

// word is an enumeration's value as people type it: TEST_RESULT_PASS is pass.
func word(e protoreflect.Enum) string {
	return kebab(e.Descriptor(), e.Descriptor().Values().ByNumber(e.Number()))
}

func kebab(d protoreflect.EnumDescriptor, v protoreflect.EnumValueDescriptor) string {
	if v == nil || v.Number() == 0 {
		return ""
	}
	zero := string(d.Values().ByNumber(0).Name())
	prefix := strings.TrimSuffix(zero, "UNSPECIFIED")
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix)), "_", "-")
}

// words lists what can be typed for an enumeration, in its order.
func words(e protoreflect.Enum) []string {
	var list []string
	values := e.Descriptor().Values()
	for i := range values.Len() {
		if w := kebab(e.Descriptor(), values.Get(i)); w != "" {
			list = append(list, w)
		}
	}
	return list
}

// parse finds the value that a word stands for.
func parse[E protoreflect.Enum](what, text string) (E, error) {
	var zero E
	list := words(zero)
	if i := slices.Index(list, text); i >= 0 {
		values := zero.Descriptor().Values()
		for j := range values.Len() {
			if kebab(zero.Descriptor(), values.Get(j)) == text {
				return zero.Type().New(values.Get(j).Number()).(E), nil
			}
		}
	}
	return zero, usage("%q is no %s", text, what).hint("one of: %s", strings.Join(list, ", "))
}
