// SPDX-License-Identifier: Apache-2.0

package procedure

import "sort"

// Reason is a stable reason code. Codes are never renamed or reused.
type Reason string

type reasonRow struct {
	code Code
	rule string
	// meaning says, in one sentence to whoever meets it, when the reason is given.
	meaning string
}

// The reason codes of procedure.md.
const (
	ReasonNoIdentity             Reason = "NO_IDENTITY"
	ReasonKeyUnknown             Reason = "KEY_UNKNOWN"
	ReasonKeyRevoked             Reason = "KEY_REVOKED"
	ReasonForwarding             Reason = "FORWARDING"
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
	ReasonCapturedAt             Reason = "CAPTURED_AT"
	ReasonPositionMismatch       Reason = "POSITION_MISMATCH"
	ReasonConcurrentModification Reason = "CONCURRENT_MODIFICATION"
	ReasonDrillBoundary          Reason = "DRILL_BOUNDARY"

	ReasonTargetState         Reason = "TARGET_STATE"
	ReasonMergeIntoLater      Reason = "MERGE_INTO_LATER"
	ReasonHasProductionEffect Reason = "HAS_PRODUCTION_EFFECT"
	ReasonStrategy            Reason = "STRATEGY"
	ReasonGroundNotProven     Reason = "GROUND_NOT_PROVEN"
	ReasonGroundMissing       Reason = "GROUND_MISSING"
	ReasonDebtReason          Reason = "DEBT_REASON_MISSING"
	ReasonJointRoles          Reason = "JOINT_ROLES"
	ReasonGrantOpen           Reason = "GRANT_OPEN"
	ReasonNotApplicable       Reason = "NOT_APPLICABLE"
	ReasonTestMinimum         Reason = "TEST_MINIMUM"
	ReasonNotLate             Reason = "NOT_LATE"
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
	ReasonDeployed           Reason = "DEPLOYED"
	ReasonCycleExists        Reason = "UPDATE_CYCLE"
	ReasonReplicationPending Reason = "REPLICATION_PENDING"
	ReasonReviewQuorum       Reason = "REVIEW_QUORUM"
	ReasonPreparerRole       Reason = "PREPARER_ROLE"
	ReasonSessionDiff        Reason = "SESSION_DIFF_MISMATCH"
	ReasonLocalTest          Reason = "LOCAL_TEST_MISSING"

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

	ReasonGrant                 Reason = "GRANT"
	ReasonGrantState            Reason = "GRANT_STATE"
	ReasonGrantExpired          Reason = "GRANT_EXPIRED"
	ReasonSubjectRole           Reason = "SUBJECT_ROLE"
	ReasonSubjectIsWatcher      Reason = "SUBJECT_IS_WATCHER"
	ReasonWatcherRole           Reason = "WATCHER_ROLE"
	ReasonWatcherAbsent         Reason = "WATCHER_ABSENT"
	ReasonLeadPermissionMissing Reason = "LEAD_PERMISSION_MISSING"
	ReasonLimit                 Reason = "LIMIT"
	ReasonManifestMissing       Reason = "MANIFEST_MISSING"
	ReasonRecorderNotReady      Reason = "RECORDER_NOT_READY"
	ReasonNotSubject            Reason = "NOT_SUBJECT"
	ReasonSourceAddress         Reason = "SOURCE_ADDRESS"
	ReasonCredentialConsumed    Reason = "CREDENTIAL_CONSUMED" //nolint:gosec // the name of a reason
	ReasonGraceOver             Reason = "GRACE_OVER"
	ReasonNotDisabled           Reason = "NOT_DISABLED"
	ReasonNotProvenUnusable     Reason = "NOT_PROVEN_UNUSABLE"
	ReasonDiffMissing           Reason = "DIFF_MISSING"
	ReasonLeftoversOpen         Reason = "LEFTOVERS_OPEN"
	ReasonItem                  Reason = "ITEM"

	ReasonNothingToDocument    Reason = "NOTHING_TO_DOCUMENT"
	ReasonNotActingAdmin       Reason = "NOT_ACTING_ADMIN"
	ReasonDeviationUnexplained Reason = "DEVIATION_UNEXPLAINED"

	ReasonOpenDispute          Reason = "OPEN_DISPUTE"
	ReasonDisputeOpen          Reason = "DISPUTE_OPEN"
	ReasonDRPField             Reason = "DRP_FIELD"
	ReasonEvidenceRoot         Reason = "EVIDENCE_ROOT"
	ReasonDisputeExists        Reason = "DISPUTE"
	ReasonDisputeUnknown       Reason = "DISPUTE_UNKNOWN"
	ReasonDisputeState         Reason = "DISPUTE_STATE"
	ReasonConflictOfInterest   Reason = "CONFLICT_OF_INTEREST"
	ReasonCaseExists           Reason = "CASE"
	ReasonActedPartyMissing    Reason = "ACTED_PARTY_MISSING"
	ReasonNotListed            Reason = "NOT_LISTED"
	ReasonProposalOpen         Reason = "PROPOSAL_OPEN"
	ReasonNotCandidate         Reason = "NOT_CANDIDATE"
	ReasonConflictUndeclared   Reason = "CONFLICT_UNDECLARED"
	ReasonCandidatesLeft       Reason = "CANDIDATES_LEFT"
	ReasonNotCaseArbitrator    Reason = "NOT_CASE_ARBITRATOR"
	ReasonPreliminariesMissing Reason = "PRELIMINARIES_MISSING"
	ReasonDeviationUnjudged    Reason = "DEVIATION_UNJUDGED"
	ReasonObligation           Reason = "OBLIGATION"
	ReasonSealed               Reason = "SEALED"
	ReasonNoRuling             Reason = "NO_RULING"
	ReasonDirection            Reason = "DIRECTION"
	ReasonNotNamed             Reason = "NOT_NAMED"
	ReasonSameArbitrator       Reason = "SAME_ARBITRATOR"
	ReasonNotReopened          Reason = "NOT_REOPENED"
	ReasonPanel                Reason = "PANEL"
	ReasonExistence            Reason = "EXISTENCE_NOT_REDACTABLE"
	ReasonEvidenceHold         Reason = "EVIDENCE_HOLD"
	ReasonRedacted             Reason = "REDACTED"
	ReasonValueGone            Reason = "VALUE_REDACTED"
	ReasonDisclosed            Reason = "DISCLOSED"
	ReasonNeverPublic          Reason = "NEVER_PUBLIC"
	ReasonNotDue               Reason = "NOT_DUE"

	ReasonRuleBookExists       Reason = "RULE_BOOK_EXISTS"
	ReasonBoardDecisionMissing Reason = "BOARD_DECISION_MISSING"
	ReasonKeyExists            Reason = "KEY"
	ReasonPolicyRollback       Reason = "POLICY_ROLLBACK"
	ReasonPolicyInvalid        Reason = "POLICY_INVALID"
	ReasonPolicyMissing        Reason = "POLICY_MISSING"

	ReasonArchiveMessage Reason = "ARCHIVE_MESSAGE"
	ReasonArchiveDate    Reason = "ARCHIVE_DATE"
)

// reasons is the one table of reason codes: kind, default rule and meaning. A refusal may name a more exact rule.
// docs/reasons.md is made from it: go test ./pkg/procedure -run TestReasonsDocument -update.
var reasons = map[Reason]reasonRow{
	ReasonNoIdentity:             {Unauthenticated, "G1", "The caller is not authenticated: no certificate or key was shown."},
	ReasonKeyUnknown:             {PermissionDenied, "G1, 2.3(c)", "The key is not linked to exactly one person or system in the rule book."},
	ReasonKeyRevoked:             {PermissionDenied, "G1, 2.3(d)", "The key is revoked; acts made before the revocation stay valid."},
	ReasonForwarding:             {PermissionDenied, "G1", "Only a service hands on what another gives; everybody else gives commands over the own connection."},
	ReasonField:                  {InvalidArgument, "G2", "A field is missing, is not well-formed or does not fit; the refusal names it."},
	ReasonSignature:              {InvalidArgument, "G2", "A signature is missing, is there where none is asked for, or does not verify over exactly what the command says."},
	ReasonRequestIDReused:        {AlreadyExists, "G3", "The request id was used before with other content; with the same content the first result would have been returned."},
	ReasonIncident:               {NotFound, "G4", "There is no incident with this id."},
	ReasonPatch:                  {NotFound, "G4", "The incident has no such patch or revision."},
	ReasonSlot:                   {NotFound, "G4", "The active strategy has no such slot."},
	ReasonEntry:                  {NotFound, "4.1 AnnotateLog", "The incident has no such event, or the restricted value asked for is not kept."},
	ReasonPage:                   {NotFound, "4.2 ReportDelivery", "No page with this id was sent."},
	ReasonPath:                   {NotFound, "4.4 ExplainDrift", "The path is not open drift."},
	ReasonVetoUnknown:            {NotFound, "G4", "The incident has no such veto."},
	ReasonRole:                   {PermissionDenied, "G5, matrix 2.2", "None of the caller's roles at this time allows this command or this reading."},
	ReasonRoleExclusivity:        {PermissionDenied, "G6, X1-X3 (SP 3.4.2)", "The person holds, or would hold, two roles that exclude each other."},
	ReasonIncidentState:          {FailedPrecondition, "G7", "The incident, as it stands now, does not accept this command."},
	ReasonStepUpRequired:         {PermissionDenied, "G8", "The command needs a fresh signature, not older than the policy allows."},
	ReasonClockSkew:              {FailedPrecondition, "G9, 0.6", "The service's clock is further behind the incident's last record than the tolerance allows."},
	ReasonCapturedAt:             {InvalidArgument, "G9", "What was captured offline is from the future, from before the declaration, or was not signed when it was captured."},
	ReasonPositionMismatch:       {Aborted, "G10", "The incident, or the rota that a rota is to replace, was changed after the position that the command expects."},
	ReasonConcurrentModification: {Aborted, "G10", "Others wrote to the incident each time the command was decided; nothing was recorded, so it may be given again."},
	ReasonDrillBoundary:          {FailedPrecondition, "G11", "The host is not the one of this incident, or a drill and a real emergency would mix."},

	ReasonTargetState:         {FailedPrecondition, "4.1 MergeInto", "The duplicate, or the incident it would merge into, is not open."},
	ReasonMergeIntoLater:      {FailedPrecondition, "4.1 MergeInto", "The target was not declared before the duplicate; merging goes into the earlier incident."},
	ReasonHasProductionEffect: {FailedPrecondition, "4.1", "The critical host was changed, or it is not proven that it was not."},
	ReasonStrategy:            {FailedPrecondition, "4.1", "The incident's strategy does not fit the command; a duplicate's may not be higher than its target's."},
	ReasonGroundMissing:       {FailedPrecondition, "4.1 Escalate", "No ground is given for the other strategy, or a part of it is missing."},
	ReasonGroundNotProven:     {FailedPrecondition, "4.1 WaiveControl", "The history does not prove the ground yet; the refusal names the part that is missing."},
	ReasonDebtReason:          {FailedPrecondition, "4.1 Escalate (7)", "The person owes something overdue and did not say why it is necessary nevertheless."},
	ReasonJointRoles:          {FailedPrecondition, "X12 (seed 3.2, SP 1.2)", "A joint declaration takes one critical admin and one software assessor."},
	ReasonGrantOpen:           {FailedPrecondition, "4.1, 4.4", "An access was granted and is not yet proven unusable."},
	ReasonNotApplicable:       {FailedPrecondition, "4.1 WaiveControl", "The active strategy does not ask for this control, or there is nothing left to waive."},
	ReasonTestMinimum:         {FailedPrecondition, "4.1 WaiveControl (10.3)", "The test quorum is waived only after at least one passing test."},
	ReasonNotLate:             {FailedPrecondition, "4.1 ConfirmLateRecord", "The event was not captured offline, or is confirmed already."},
	ReasonNoOutcome:           {FailedPrecondition, "4.1 Close", "The incident is not stood down, and its latest applied revision is not verified, backed out or rolled back."},
	ReasonApplyRunning:        {FailedPrecondition, "4.4 (6, rule 3)", "An apply, back-out or roll-back is still running on the host."},
	ReasonObligationsOpen:     {FailedPrecondition, "4.1 Close (7)", "The incident has open obligations; the refusal lists them."},

	ReasonChannels:           {FailedPrecondition, "4.2 CallOut (seed 1.2)", "Fewer channels were named, or reach the persons on duty, than the policy asks of a call-out."},
	ReasonNotTeamMember:      {FailedPrecondition, "4.2 Respond", "The person is not of the team that the slot or rota belongs to."},
	ReasonSlotTaken:          {FailedPrecondition, "4.2 Respond", "Somebody already holds the slot."},
	ReasonContactPathMissing: {FailedPrecondition, "4.2 Respond (seed 1.3)", "The answer does not say how the person is reached."},
	ReasonStepMissing:        {FailedPrecondition, "4.2 Respond (seed 1.3)", "The answer names no step that the slot's team does."},
	ReasonOneTeam:            {FailedPrecondition, "4.2 Respond (SP 9.1.2)", "The person already serves another team, and no reason for serving a second was given."},
	ReasonNotCalled:          {FailedPrecondition, "4.2 Respond", "The person was not called for this team, so there is nothing to decline."},
	ReasonNotHolder:          {FailedPrecondition, "4.2", "The person does not hold the slot and may not act for its holder, or did not say which of several is meant."},

	ReasonDigest:             {InvalidArgument, "4.3 RegisterPatch (0.14)", "The SHA-256 does not match the bytes of the patch, or the bytes are no acceptable patch."},
	ReasonBaseMismatch:       {InvalidArgument, "4.3 RegisterPatch (0.14)", "The base commit does not have the base tree that the command names."},
	ReasonResultMismatch:     {InvalidArgument, "4.3 RegisterPatch (0.14)", "The patch, applied to its base, does not give the result tree that the command names."},
	ReasonRevisionExists:     {AlreadyExists, "4.3 RegisterPatch", "The same bytes on the same base tree are already registered as a revision."},
	ReasonPatchRevisionStale: {FailedPrecondition, "4.3 (10.16)", "The revision is no longer current: a later one replaced it."},
	ReasonBindingUnknown:     {FailedPrecondition, "4.3 (10.16)", "The revision never had the binding that the command names."},
	ReasonReviewExists:       {AlreadyExists, "4.3 RecordFirstReview", "This review of the revision was already given."},
	ReasonAuthorIsReviewer:   {FailedPrecondition, "X5 (SP 7.4)", "The author of the patch does not review or veto it; whoever registered it does not review it."},
	ReasonAuthorIsTester:     {FailedPrecondition, "X6 (after SP 7.4)", "Whoever wrote or registered the patch does not test it."},
	ReasonSamePerson:         {FailedPrecondition, "X7 (seed 1.6/1.8)", "Two persons are needed, and the same one would act twice, whatever the number of keys."},
	ReasonReviewerAndTester:  {FailedPrecondition, "X8", "One person counts as reviewer or as tester of a revision, not as both."},
	ReasonSeparationOfDuty:   {FailedPrecondition, "X11 (SP 1.2)", "Author, reviewer and tester of a patch do not execute it; its author and the owner of a veto do not overrule that veto."},
	ReasonFirstReviewMissing: {FailedPrecondition, "4.3 (seed 1.6)", "The revision has no approving first review."},
	ReasonNotFirstReviewer:   {FailedPrecondition, "4.3 Transfer (seed 1.6)", "The revision is transferred by its first reviewer, who is another person."},
	ReasonRepoTreeMismatch:   {FailedPrecondition, "4.3 Transfer (B3)", "The repository does not hold the reviewed tree, or nothing arrived there."},
	ReasonVetoOpen:           {FailedPrecondition, "4.3, 4.4 (SP 7.4)", "A veto on the revision is open."},
	ReasonVetoExists:         {AlreadyExists, "4.3 RaiseVeto", "The person already has an open veto on the revision."},
	ReasonNotVetoOwner:       {FailedPrecondition, "4.3 WithdrawVeto", "The veto is withdrawn by the person who raised it, who is another."},
	ReasonVetoClosed:         {FailedPrecondition, "4.3 WithdrawVeto", "The veto was already withdrawn or overruled."},
	ReasonNotTransferred:     {FailedPrecondition, "4.3 ConfirmTestServer (seed 1.6)", "The revision was not transferred to the repository."},
	ReasonTestTreeMismatch:   {FailedPrecondition, "4.3 (B4, B5)", "The tree on the test server, or the tree tested, is not the reviewed tree."},
	ReasonTestServerNotReady: {FailedPrecondition, "4.3 ReportTest (seed 1.7)", "No test server has confirmed that it holds the revision."},
	ReasonBugNoteMissing:     {FailedPrecondition, "4.3 ReportTest (seed 1.7)", "The test report has no note in the bug tracker."},
	ReasonTestQuorum:         {FailedPrecondition, "4.3 (SoftPatch 2b)", "The revision has too few passing tests, even with what was waived."},
	ReasonTestFailed:         {FailedPrecondition, "4.3 RecordSecondReview", "A tester's latest test of the revision failed."},
	ReasonSecondReviewMiss:   {FailedPrecondition, "4.3 Forward (seed 1.8)", "The revision has no approving second review."},
	ReasonNotSecondReviewer:  {FailedPrecondition, "4.3 Forward (seed 1.8)", "The revision is forwarded by its second reviewer, who is another person."},
	ReasonRollbackPlan:       {FailedPrecondition, "4.3 Forward", "The command does not say how to go back."},
	ReasonRecipientRole:      {FailedPrecondition, "4.3 Forward", "The person to forward to is not a critical admin."},
	ReasonNotEntered:         {FailedPrecondition, "4.3 (phase after)", "The patch has not entered the update cycle, which the phase after needs."},

	ReasonDeployed:           {FailedPrecondition, "4.3 (phase after)", "The revision is deployed; what is reviewed or tested from then on belongs to the update cycle, phase after."},
	ReasonCycleExists:        {AlreadyExists, "4.3 EnterUpdateCycle", "The revision is in the update cycle already, or its update cycle is concluded."},
	ReasonReplicationPending: {FailedPrecondition, "4.3 EnterUpdateCycle (2.5, 3.8)", "Host and branch were not found equal since the change, and not every path that differs is explained."},
	ReasonReviewQuorum:       {FailedPrecondition, "4.3 ConcludeUpdateCycle (SP 7.4)", "The update cycle lacks the reviews that its outcome asks for."},
	ReasonPreparerRole:       {PermissionDenied, "4.3 RegisterPatch (seed 2.2)", "Under strategies 2 and 3 a prepared patch comes from a software assessor, a session's from an assessor or engineer."},
	ReasonSessionDiff:        {FailedPrecondition, "4.3 RegisterPatch (seed 3.8)", "The patch is not the difference that a session was found to have left on the host."},
	ReasonLocalTest:          {FailedPrecondition, "4.3 Forward (seed 2.2)", "The preparer's note on the local test, which strategies 2 and 3 ask for instead of reviews, is missing."},

	ReasonNotForwarded:     {FailedPrecondition, "4.4 (seed 1.9)", "The revision was not forwarded to the critical team."},
	ReasonHostBaseMismatch: {FailedPrecondition, "4.4 DryRun (B8)", "The host does not hold the base tree of the revision."},
	ReasonTreeMismatch:     {FailedPrecondition, "4.4 ConfirmObserver", "The host does not hold the result tree of the revision."},
	ReasonRevisionSpent:    {FailedPrecondition, "4.4 StartApply (6, rule 3)", "The revision was already applied once; a further attempt needs a new revision."},
	ReasonDryRunMissing:    {FailedPrecondition, "4.4 StartApply", "There is no recent clean dry run of this binding on this host."},
	ReasonObserverMissing:  {FailedPrecondition, "4.4 StartApply (SP 4.1)", "No second critical admin observes, and the observer was not waived."},
	ReasonNoApplyRunning:   {FailedPrecondition, "4.4", "No apply, back-out or roll-back of the revision is running."},
	ReasonNothingToBackOut: {FailedPrecondition, "4.4 BackOut", "The revision has no failed or mismatched apply to take back."},
	ReasonNotDeployed:      {FailedPrecondition, "4.4", "The revision is not on the host, nothing was changed there, or host and branch could not be compared."},
	ReasonExplUnbound:      {FailedPrecondition, "4.4 ExplainDrift", "Drift is explained by a registered revision, a revert or a case number, not by text alone."},

	ReasonGrant:                 {NotFound, "G4", "The incident has no such grant."},
	ReasonGrantState:            {FailedPrecondition, "4.4 (6, GRANT)", "The grant, as it stands now, does not take the command."},
	ReasonGrantExpired:          {FailedPrecondition, "4.4 Connect", "The credential was not used within its time."},
	ReasonSubjectRole:           {FailedPrecondition, "4.4 GrantAccess (seed 3.4)", "The person who would have access is neither software assessor nor software engineer."},
	ReasonSubjectIsWatcher:      {FailedPrecondition, "X13 (seed 3.4)", "The subject of an access never watches, grants or permits it, whatever the number of keys."},
	ReasonWatcherRole:           {FailedPrecondition, "4.4 (seed 3.4)", "The person is no critical admin, or is not the session's watcher."},
	ReasonWatcherAbsent:         {FailedPrecondition, "4.4 (seed 3.4)", "The watch is not armed, or its watcher is not watching now."},
	ReasonLeadPermissionMissing: {FailedPrecondition, "4.4 GrantAccess (SP 4.1.1.1)", "The critical team lead has not permitted the access, and is not proven unreachable."},
	ReasonLimit:                 {FailedPrecondition, "4.4 (3.2)", "More is asked for than policy and configuration allow."},
	ReasonManifestMissing:       {FailedPrecondition, "4.4", "The host's files are not listed as they are, so what a session changes could not be told."},
	ReasonRecorderNotReady:      {FailedPrecondition, "4.4", "The recording cannot be written, anchored in the history or looked at."},
	ReasonNotSubject:            {FailedPrecondition, "4.4 Connect", "The credential is for another person, or its key was not proven."},
	ReasonSourceAddress:         {FailedPrecondition, "4.4 Connect", "The credential may not be used from this address."},
	ReasonCredentialConsumed:    {FailedPrecondition, "4.4 Connect", "The credential was used once already."},
	ReasonGraceOver:             {FailedPrecondition, "4.4 Resume", "The session was frozen for longer than the grace."},
	ReasonNotDisabled:           {FailedPrecondition, "4.4 ProveUnusable", "The access is not disabled."},
	ReasonNotProvenUnusable:     {FailedPrecondition, "4.4 SealSession", "The access is not proven unusable."},
	ReasonDiffMissing:           {FailedPrecondition, "4.4 SealSession", "What the session changed on the host is not captured."},
	ReasonLeftoversOpen:         {FailedPrecondition, "4.4 SealSession", "What the session left on the host was not looked for, or is not explained."},
	ReasonItem:                  {NotFound, "4.4 ExplainLeftovers", "The session left no such thing, or it is explained already."},

	ReasonNothingToDocument:    {FailedPrecondition, "4.5 Document", "The host was not touched under the strategy named."},
	ReasonNotActingAdmin:       {FailedPrecondition, "4.5 Document", "The person neither executed nor observed under the strategy named, and does not lead the critical team."},
	ReasonDeviationUnexplained: {FailedPrecondition, "4.5 Document", "A deviation has no reason in the report."},

	ReasonOpenDispute:          {FailedPrecondition, "4.1 MergeInto", "A ruling is owed in the duplicate, and would be lost by merging it."},
	ReasonDisputeOpen:          {FailedPrecondition, "4.1 Close", "A dispute of the incident is neither ruled on nor closed."},
	ReasonDRPField:             {InvalidArgument, "4.5 (DRP 1.4, 3.1)", "A filing lacks claimants, respondents, complaint or relief, or a ruling lacks one of its parts; the refusal names what is missing."},
	ReasonEvidenceRoot:         {FailedPrecondition, "4.5 (DRP 1.4)", "The hash that the evidence is said to end with is not that of a record of this incident."},
	ReasonDisputeExists:        {AlreadyExists, "4.5 FileDispute", "The person already has an open dispute about the same, or a review of the ruling was already requested."},
	ReasonDisputeUnknown:       {NotFound, "G4", "The incident has no such dispute."},
	ReasonDisputeState:         {FailedPrecondition, "6", "The dispute or direction, as it stands now, does not take this command."},
	ReasonConflictOfInterest:   {FailedPrecondition, "X14 (DRP 1.5)", "The person acted in the incident, is a party or leads an involved team, and cannot take part in deciding the dispute."},
	ReasonCaseExists:           {AlreadyExists, "4.5 OpenCase (DRP 1.3)", "The dispute already has a case, or the case number is that of a decided one."},
	ReasonActedPartyMissing:    {FailedPrecondition, "4.5 OpenCase (DRP 1.3)", "Somebody who acted under strategy 2 or 3 is not named."},
	ReasonNotListed:            {FailedPrecondition, "4.5 ProposeArbitrator (DRP 1.5)", "The person is not on the list of arbitrators."},
	ReasonProposalOpen:         {FailedPrecondition, "4.5 ProposeArbitrator (DRP 1.5)", "Another arbitrator was asked and may still answer."},
	ReasonNotCandidate:         {FailedPrecondition, "4.5 RespondAppointment (DRP 1.5)", "The person is not the one who is asked to be the arbitrator."},
	ReasonConflictUndeclared:   {FailedPrecondition, "4.5 RespondAppointment (DRP 1.5)", "An appointment is accepted only with the declaration to have no conflict of interest."},
	ReasonCandidatesLeft:       {FailedPrecondition, "4.5 CloseDeclined (DRP 1.5)", "An arbitrator without a conflict was not asked, or may still answer."},
	ReasonNotCaseArbitrator:    {FailedPrecondition, "4.5 (DRP 2)", "The person is not the arbitrator of the case, nor the senior member of its panel."},
	ReasonPreliminariesMissing: {FailedPrecondition, "4.5 DeliverRuling (DRP 2)", "The proceedings have not begun: jurisdiction, law and parties are not recorded."},
	ReasonDeviationUnjudged:    {FailedPrecondition, "4.5 DeliverRuling (2.3)", "A deviation that is attached to the dispute has no finding, or more than one."},
	ReasonObligation:           {NotFound, "G4", "The incident has no such open obligation."},
	ReasonSealed:               {FailedPrecondition, "4.5 (DRP 3.2)", "An arbitrator keeps it secret."},
	ReasonNoRuling:             {FailedPrecondition, "4.5", "The incident has no such ruling, or it is final and cannot be reviewed."},
	ReasonDirection:            {NotFound, "G4", "The incident has no such direction."},
	ReasonNotNamed:             {FailedPrecondition, "4.5 ReportDirectionDone", "The direction is for another person or role."},
	ReasonSameArbitrator:       {FailedPrecondition, "4.5 DeliverRuling (DRP 3.4)", "A ruling is reviewed by another arbitrator than the one who gave it."},
	ReasonNotReopened:          {FailedPrecondition, "4.5 FormAppealPanel (DRP 3.4)", "The case was not re-opened."},
	ReasonPanel:                {FailedPrecondition, "4.5 FormAppealPanel (DRP 3.4)", "A panel is three different arbitrators, one of them senior, none of whom ruled in case or review."},
	ReasonExistence:            {FailedPrecondition, "4.5 Redact (8.3, 8.5)", "Only a restricted field that was not disclosed can be redacted; that something happened cannot."},
	ReasonEvidenceHold:         {FailedPrecondition, "4.5 Redact (8.5)", "The field is evidence of a dispute that is open or owed."},
	ReasonRedacted:             {AlreadyExists, "4.5 Redact", "The field was already redacted."},
	ReasonValueGone:            {FailedPrecondition, "4.5 Disclose (8.5)", "The value was redacted, or its owner does not keep it."},
	ReasonDisclosed:            {AlreadyExists, "4.5 Disclose", "The value is public already."},
	ReasonNeverPublic:          {FailedPrecondition, "4.5 Disclose (8.4)", "Values of this kind are never published, unless an arbitrator orders it."},
	ReasonNotDue:               {FailedPrecondition, "4.5 Disclose (3.2)", "The value does not become public by itself at this time."},

	ReasonRuleBookExists:       {AlreadyExists, "4.6", "The rule book is already founded; it changes by its own commands only."},
	ReasonBoardDecisionMissing: {FailedPrecondition, "X4 (SP 3.4.2, 9.1.5)", "The change names no decision of the Board."},
	ReasonKeyExists:            {AlreadyExists, "4.6 AddKey", "The key already belongs to a person or system, or is listed twice."},
	ReasonPolicyRollback:       {FailedPrecondition, "3, 4.6 PublishPolicy", "The policy is not the next number, or does not name the digest of the version before."},
	ReasonPolicyInvalid:        {InvalidArgument, "3, 4.6 PublishPolicy", "The policy document is not well-formed or not complete."},
	ReasonPolicyMissing:        {FailedPrecondition, "3", "No policy is in force."},

	ReasonArchiveMessage: {AlreadyExists, "8 ImportArchive", "The message is in the archive already, or its Message-ID is, with other content."},
	ReasonArchiveDate:    {InvalidArgument, "8 ImportArchive", "The message is dated later than now, or before there was any such mail."},
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

// Meaning says in one sentence when a reason code is given; empty for a code that is not of the rules.
func Meaning(r Reason) string { return reasons[r].meaning }
