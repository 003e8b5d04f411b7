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
		"Declare": "epatch declare", "MergeInto": "epatch merge", "StandDown": "epatch stand-down", "WaiveControl": "epatch waive",
		"RecordLeadDecision": "epatch lead-decision", "AnnotateLog": "epatch note", "Close": "epatch close",
		"CallOut": "epatch call-out", "Respond": "epatch accept --slot %s", "CheckIn": "epatch check-in %s", "EndStandby": "epatch end-standby %s",
		"SetRota": "epatch rota set", "SetContacts": "epatch contacts set",
		"RegisterPatch": "epatch patch register", "RecordFirstReview": "epatch review first", "Transfer": "epatch transfer",
		"ReportTest": "epatch test pass|fail", "RecordSecondReview": "epatch review second", "RaiseVeto": "epatch veto raise",
		"WithdrawVeto": "epatch veto withdraw %s", "OverruleVeto": "epatch veto overrule %s", "Forward": "epatch forward",
		"DryRun": "epatch dry-run", "ConfirmObserver": "epatch observe", "StartApply": "epatch deploy", "ReportApply": "epatch report-apply",
		"BackOut": "epatch back-out", "RollBack": "epatch roll-back", "RecordHealth": "epatch health good|degraded|bad",
		"PushReplication": "epatch replication push", "CheckReplication": "epatch replication check", "ExplainDrift": "epatch explain-drift",
		"Document": "epatch document", "RecordBoardSummary": "epatch board-summary",
		"PublishPolicy": "epatch policy publish", "GrantRole": "epatch role grant", "RevokeRole": "epatch role revoke",
		"AddKey": "epatch key add", "RevokeKey": "epatch key revoke",
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
