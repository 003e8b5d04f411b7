// SPDX-License-Identifier: Apache-2.0

package procedure

import "sort"

// Reason is a stable reason code. Codes are never renamed or reused.
type Reason string

type reasonRow struct {
	code Code
	rule string
}

// The reason codes of procedure.md that strategy 1 needs.
const (
	ReasonNoIdentity             Reason = "NO_IDENTITY"
	ReasonKeyUnknown             Reason = "KEY_UNKNOWN"
	ReasonKeyRevoked             Reason = "KEY_REVOKED"
	ReasonField                  Reason = "FIELD"
	ReasonSignature              Reason = "SIGNATURE"
	ReasonRequestIDReused        Reason = "REQUEST_ID_REUSED"
	ReasonIncident               Reason = "INCIDENT"
	ReasonPatch                  Reason = "PATCH"
	ReasonSlot                   Reason = "SLOT"
	ReasonEntry                  Reason = "ENTRY"
	ReasonPage                   Reason = "PAGE"
	ReasonPath                   Reason = "PATH"
	ReasonVetoUnknown            Reason = "VETO_UNKNOWN"
	ReasonRole                   Reason = "ROLE"
	ReasonRoleExclusivity        Reason = "ROLE_EXCLUSIVITY"
	ReasonIncidentState          Reason = "INCIDENT_STATE"
	ReasonStepUpRequired         Reason = "STEP_UP_REQUIRED"
	ReasonClockSkew              Reason = "CLOCK_SKEW"
	ReasonPositionMismatch       Reason = "POSITION_MISMATCH"
	ReasonConcurrentModification Reason = "CONCURRENT_MODIFICATION"
	ReasonDrillBoundary          Reason = "DRILL_BOUNDARY"

	ReasonTargetState         Reason = "TARGET_STATE"
	ReasonMergeIntoLater      Reason = "MERGE_INTO_LATER"
	ReasonHasProductionEffect Reason = "HAS_PRODUCTION_EFFECT"
	ReasonStrategy            Reason = "STRATEGY"
	ReasonGroundNotProven     Reason = "GROUND_NOT_PROVEN"
	ReasonNotApplicable       Reason = "NOT_APPLICABLE"
	ReasonTestMinimum         Reason = "TEST_MINIMUM"
	ReasonNoOutcome           Reason = "NO_OUTCOME"
	ReasonApplyRunning        Reason = "APPLY_RUNNING"
	ReasonObligationsOpen     Reason = "OBLIGATIONS_OPEN"

	ReasonChannels           Reason = "CHANNELS"
	ReasonNotTeamMember      Reason = "NOT_TEAM_MEMBER"
	ReasonSlotTaken          Reason = "SLOT_TAKEN"
	ReasonContactPathMissing Reason = "CONTACT_PATH_MISSING"
	ReasonStepMissing        Reason = "STEP_MISSING"
	ReasonOneTeam            Reason = "ONE_TEAM"
	ReasonNotCalled          Reason = "NOT_CALLED"
	ReasonNotHolder          Reason = "NOT_HOLDER"

	ReasonDigest             Reason = "DIGEST"
	ReasonBaseMismatch       Reason = "BASE_MISMATCH"
	ReasonResultMismatch     Reason = "RESULT_MISMATCH"
	ReasonRevisionExists     Reason = "REVISION"
	ReasonPatchRevisionStale Reason = "PATCH_REVISION_STALE"
	ReasonBindingUnknown     Reason = "BINDING_UNKNOWN"
	ReasonReviewExists       Reason = "REVIEW"
	ReasonAuthorIsReviewer   Reason = "AUTHOR_IS_REVIEWER"
	ReasonAuthorIsTester     Reason = "AUTHOR_IS_TESTER"
	ReasonSamePerson         Reason = "SAME_PERSON"
	ReasonReviewerAndTester  Reason = "REVIEWER_AND_TESTER"
	ReasonSeparationOfDuty   Reason = "SEPARATION_OF_DUTY"
	ReasonFirstReviewMissing Reason = "FIRST_REVIEW_MISSING"
	ReasonNotFirstReviewer   Reason = "NOT_FIRST_REVIEWER"
	ReasonRepoTreeMismatch   Reason = "REPO_TREE_MISMATCH"
	ReasonVetoOpen           Reason = "VETO_OPEN"
	ReasonVetoExists         Reason = "VETO"
	ReasonNotVetoOwner       Reason = "NOT_VETO_OWNER"
	ReasonVetoClosed         Reason = "VETO_CLOSED"
	ReasonNotTransferred     Reason = "NOT_TRANSFERRED"
	ReasonTestTreeMismatch   Reason = "TEST_TREE_MISMATCH"
	ReasonTestServerNotReady Reason = "TEST_SERVER_NOT_READY"
	ReasonBugNoteMissing     Reason = "BUG_NOTE_MISSING"
	ReasonTestQuorum         Reason = "TEST_QUORUM"
	ReasonTestFailed         Reason = "TEST_FAILED"
	ReasonSecondReviewMiss   Reason = "SECOND_REVIEW_MISSING"
	ReasonNotSecondReviewer  Reason = "NOT_SECOND_REVIEWER"
	ReasonRollbackPlan       Reason = "ROLLBACK_PLAN_MISSING"
	ReasonRecipientRole      Reason = "RECIPIENT_ROLE"
	ReasonNotEntered         Reason = "NOT_ENTERED"

	ReasonNotForwarded     Reason = "NOT_FORWARDED"
	ReasonHostBaseMismatch Reason = "HOST_BASE_MISMATCH"
	ReasonTreeMismatch     Reason = "TREE_MISMATCH"
	ReasonRevisionSpent    Reason = "REVISION_SPENT"
	ReasonDryRunMissing    Reason = "DRY_RUN_MISSING"
	ReasonObserverMissing  Reason = "OBSERVER_MISSING"
	ReasonNoApplyRunning   Reason = "NO_APPLY_RUNNING"
	ReasonNothingToBackOut Reason = "NOTHING_TO_BACK_OUT"
	ReasonNotDeployed      Reason = "NOT_DEPLOYED"
	ReasonExplUnbound      Reason = "EXPLANATION_UNBOUND"

	ReasonNothingToDocument    Reason = "NOTHING_TO_DOCUMENT"
	ReasonNotActingAdmin       Reason = "NOT_ACTING_ADMIN"
	ReasonDeviationUnexplained Reason = "DEVIATION_UNEXPLAINED"

	ReasonRuleBookExists       Reason = "RULE_BOOK_EXISTS"
	ReasonBoardDecisionMissing Reason = "BOARD_DECISION_MISSING"
	ReasonKeyExists            Reason = "KEY"
	ReasonPolicyRollback       Reason = "POLICY_ROLLBACK"
	ReasonPolicyInvalid        Reason = "POLICY_INVALID"
	ReasonPolicyMissing        Reason = "POLICY_MISSING"
)

// reasons is the one table of reason codes: kind and default rule. A refusal may name a more exact rule.
var reasons = map[Reason]reasonRow{
	ReasonNoIdentity:             {Unauthenticated, "G1"},
	ReasonKeyUnknown:             {PermissionDenied, "G1, 2.3(c)"},
	ReasonKeyRevoked:             {PermissionDenied, "G1, 2.3(d)"},
	ReasonField:                  {InvalidArgument, "G2"},
	ReasonSignature:              {InvalidArgument, "G2"},
	ReasonRequestIDReused:        {AlreadyExists, "G3"},
	ReasonIncident:               {NotFound, "G4"},
	ReasonPatch:                  {NotFound, "G4"},
	ReasonSlot:                   {NotFound, "G4"},
	ReasonEntry:                  {NotFound, "4.1 AnnotateLog"},
	ReasonPage:                   {NotFound, "4.2 ReportDelivery"},
	ReasonPath:                   {NotFound, "4.4 ExplainDrift"},
	ReasonVetoUnknown:            {NotFound, "G4"},
	ReasonRole:                   {PermissionDenied, "G5, matrix 2.2"},
	ReasonRoleExclusivity:        {PermissionDenied, "G6, X1-X3 (SP 3.4.2)"},
	ReasonIncidentState:          {FailedPrecondition, "G7"},
	ReasonStepUpRequired:         {PermissionDenied, "G8"},
	ReasonClockSkew:              {FailedPrecondition, "G9, 0.6"},
	ReasonPositionMismatch:       {Aborted, "G10"},
	ReasonConcurrentModification: {Aborted, "G10"},
	ReasonDrillBoundary:          {FailedPrecondition, "G11"},

	ReasonTargetState:         {FailedPrecondition, "4.1 MergeInto"},
	ReasonMergeIntoLater:      {FailedPrecondition, "4.1 MergeInto"},
	ReasonHasProductionEffect: {FailedPrecondition, "4.1"},
	ReasonStrategy:            {FailedPrecondition, "4.1"},
	ReasonGroundNotProven:     {FailedPrecondition, "4.1 WaiveControl"},
	ReasonNotApplicable:       {FailedPrecondition, "4.1 WaiveControl"},
	ReasonTestMinimum:         {FailedPrecondition, "4.1 WaiveControl (10.3)"},
	ReasonNoOutcome:           {FailedPrecondition, "4.1 Close"},
	ReasonApplyRunning:        {FailedPrecondition, "4.4 (6, rule 3)"},
	ReasonObligationsOpen:     {FailedPrecondition, "4.1 Close (7)"},

	ReasonChannels:           {FailedPrecondition, "4.2 CallOut (seed 1.2)"},
	ReasonNotTeamMember:      {FailedPrecondition, "4.2 Respond"},
	ReasonSlotTaken:          {FailedPrecondition, "4.2 Respond"},
	ReasonContactPathMissing: {FailedPrecondition, "4.2 Respond (seed 1.3)"},
	ReasonStepMissing:        {FailedPrecondition, "4.2 Respond (seed 1.3)"},
	ReasonOneTeam:            {FailedPrecondition, "4.2 Respond (SP 9.1.2)"},
	ReasonNotCalled:          {FailedPrecondition, "4.2 Respond"},
	ReasonNotHolder:          {FailedPrecondition, "4.2"},

	ReasonDigest:             {InvalidArgument, "4.3 RegisterPatch (0.14)"},
	ReasonBaseMismatch:       {InvalidArgument, "4.3 RegisterPatch (0.14)"},
	ReasonResultMismatch:     {InvalidArgument, "4.3 RegisterPatch (0.14)"},
	ReasonRevisionExists:     {AlreadyExists, "4.3 RegisterPatch"},
	ReasonPatchRevisionStale: {FailedPrecondition, "4.3 (10.16)"},
	ReasonBindingUnknown:     {FailedPrecondition, "4.3 (10.16)"},
	ReasonReviewExists:       {AlreadyExists, "4.3 RecordFirstReview"},
	ReasonAuthorIsReviewer:   {FailedPrecondition, "X5 (SP 7.4)"},
	ReasonAuthorIsTester:     {FailedPrecondition, "X6 (after SP 7.4)"},
	ReasonSamePerson:         {FailedPrecondition, "X7 (seed 1.6/1.8)"},
	ReasonReviewerAndTester:  {FailedPrecondition, "X8"},
	ReasonSeparationOfDuty:   {FailedPrecondition, "X11 (SP 1.2)"},
	ReasonFirstReviewMissing: {FailedPrecondition, "4.3 (seed 1.6)"},
	ReasonNotFirstReviewer:   {FailedPrecondition, "4.3 Transfer (seed 1.6)"},
	ReasonRepoTreeMismatch:   {FailedPrecondition, "4.3 Transfer (B3)"},
	ReasonVetoOpen:           {FailedPrecondition, "4.3, 4.4 (SP 7.4)"},
	ReasonVetoExists:         {AlreadyExists, "4.3 RaiseVeto"},
	ReasonNotVetoOwner:       {FailedPrecondition, "4.3 WithdrawVeto"},
	ReasonVetoClosed:         {FailedPrecondition, "4.3 WithdrawVeto"},
	ReasonNotTransferred:     {FailedPrecondition, "4.3 ConfirmTestServer (seed 1.6)"},
	ReasonTestTreeMismatch:   {FailedPrecondition, "4.3 (B4, B5)"},
	ReasonTestServerNotReady: {FailedPrecondition, "4.3 ReportTest (seed 1.7)"},
	ReasonBugNoteMissing:     {FailedPrecondition, "4.3 ReportTest (seed 1.7)"},
	ReasonTestQuorum:         {FailedPrecondition, "4.3 (SoftPatch 2b)"},
	ReasonTestFailed:         {FailedPrecondition, "4.3 RecordSecondReview"},
	ReasonSecondReviewMiss:   {FailedPrecondition, "4.3 Forward (seed 1.8)"},
	ReasonNotSecondReviewer:  {FailedPrecondition, "4.3 Forward (seed 1.8)"},
	ReasonRollbackPlan:       {FailedPrecondition, "4.3 Forward"},
	ReasonRecipientRole:      {FailedPrecondition, "4.3 Forward"},
	ReasonNotEntered:         {FailedPrecondition, "4.3 (phase after)"},

	ReasonNotForwarded:     {FailedPrecondition, "4.4 (seed 1.9)"},
	ReasonHostBaseMismatch: {FailedPrecondition, "4.4 DryRun (B8)"},
	ReasonTreeMismatch:     {FailedPrecondition, "4.4 ConfirmObserver"},
	ReasonRevisionSpent:    {FailedPrecondition, "4.4 StartApply (6, rule 3)"},
	ReasonDryRunMissing:    {FailedPrecondition, "4.4 StartApply"},
	ReasonObserverMissing:  {FailedPrecondition, "4.4 StartApply (SP 4.1)"},
	ReasonNoApplyRunning:   {FailedPrecondition, "4.4"},
	ReasonNothingToBackOut: {FailedPrecondition, "4.4 BackOut"},
	ReasonNotDeployed:      {FailedPrecondition, "4.4"},
	ReasonExplUnbound:      {FailedPrecondition, "4.4 ExplainDrift"},

	ReasonNothingToDocument:    {FailedPrecondition, "4.5 Document"},
	ReasonNotActingAdmin:       {FailedPrecondition, "4.5 Document"},
	ReasonDeviationUnexplained: {FailedPrecondition, "4.5 Document"},

	ReasonRuleBookExists:       {AlreadyExists, "4.6"},
	ReasonBoardDecisionMissing: {FailedPrecondition, "X4 (SP 3.4.2, 9.1.5)"},
	ReasonKeyExists:            {AlreadyExists, "4.6 AddKey"},
	ReasonPolicyRollback:       {FailedPrecondition, "3, 4.6 PublishPolicy"},
	ReasonPolicyInvalid:        {InvalidArgument, "3, 4.6 PublishPolicy"},
	ReasonPolicyMissing:        {FailedPrecondition, "3"},
}

// Reasons lists every reason code in order; documentation and tests walk it.
func Reasons() []Reason {
	list := make([]Reason, 0, len(reasons))
	for r := range reasons {
		list = append(list, r)
	}
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	return list
}

// CodeOf returns the kind of a reason code.
func CodeOf(r Reason) (Code, bool) {
	row, ok := reasons[r]
	return row.code, ok
}
