// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// typed is what to type for each command of the procedure. %s stands for the subject.
func typed() map[string]string {
	return map[string]string{
		"Declare": "epatch declare SYMPTOM --reason TEXT --class CLASS", "MergeInto": "epatch merge DUPLICATE --into INCIDENT --reason TEXT",
		"StandDown": "epatch stand-down REASON", "WaiveControl": "epatch waive tests|observer --reason TEXT",
		"RecordLeadDecision": "epatch lead-decision approve|remedial-action|no-effect --reason TEXT", "AnnotateLog": "epatch note TEXT",
		"Close":   "epatch close fixed|not-fixed|not-needed SUMMARY",
		"CallOut": "epatch call-out", "Respond": "epatch accept --slot %s", "CheckIn": "epatch check-in %s", "EndStandby": "epatch end-standby %s",
		"SetRota": "epatch rota set TEAM PERSON...", "SetContacts": "epatch contacts set CHANNEL=ADDRESS...",
		"RegisterPatch": "epatch patch register FILE --bug ID", "RecordFirstReview": "epatch review first approve|changes|veto %s", "Transfer": "epatch transfer",
		"ReportTest": "epatch test pass|fail --steps TEXT", "RecordSecondReview": "epatch review second approve|changes|veto %s",
		"RaiseVeto": "epatch veto raise --reason TEXT", "WithdrawVeto": "epatch veto withdraw %s --reason TEXT",
		"OverruleVeto": "epatch veto overrule %s --reason TEXT", "Forward": "epatch forward",
		"DryRun": "epatch dry-run", "ConfirmObserver": "epatch observe", "StartApply": "epatch deploy", "ReportApply": "epatch report-apply applied|failed",
		"BackOut": "epatch back-out", "RollBack": "epatch roll-back --reason TEXT", "RecordHealth": "epatch health good|degraded|bad --checks TEXT",
		"PushReplication": "epatch replication push", "CheckReplication": "epatch replication check", "ExplainDrift": "epatch explain-drift",
		"Document": "epatch document TEXT", "RecordBoardSummary": "epatch board-summary --reference ID",
		"PublishPolicy": "epatch policy draft", "GrantRole": "epatch role grant PERSON ROLE --decision ID", "RevokeRole": "epatch role revoke PERSON ROLE --decision ID",
		"AddKey": "epatch key add FILE", "RevokeKey": "epatch key revoke KEY-ID --reason TEXT",
	}
}

// commandLine is what to type for a command, about a subject where it has a place; empty for what no person types.
func commandLine(command, subject string) string {
	line, ok := typed()[command]
	if !ok {
		return ""
	}
	before, after, has := strings.Cut(line, " %s")
	switch {
	case !has:
		return line
	case subject == "":
		return strings.TrimSuffix(before, " --slot") + after
	}
	return before + " " + subject + after
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
