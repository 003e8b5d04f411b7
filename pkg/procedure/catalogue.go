// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The five owners. Each event type belongs to exactly one of them (procedure.md 0.1).
const (
	OwnerIncident     = "incident"
	OwnerNotification = "notification"
	OwnerReview       = "review"
	OwnerDeployment   = "deployment"
	OwnerArbitration  = "arbitration"
)

// Owners lists the five owners.
func Owners() []string {
	return []string{OwnerIncident, OwnerNotification, OwnerReview, OwnerDeployment, OwnerArbitration}
}

// IsOwner tells whether a name is one of theirs.
func IsOwner(name string) bool {
	switch name {
	case OwnerIncident, OwnerNotification, OwnerReview, OwnerDeployment, OwnerArbitration:
		return true
	}
	return false
}

// RuleBook is the id of the rule book's own history (procedure.md 0.13).
const RuleBook = "rulebook"

// Archive is the id of the history of what was taken from the mailing list's archive.
const Archive = "archive"

// IsIncident tells whether the history of an id is an incident's, and not one of the two that stand beside them.
func IsIncident(id string) bool { return id != RuleBook && id != Archive }

// refusedName is the one event that each owner has under its own name.
const refusedName = "CommandRefused"

type eventRow struct {
	name   string
	schema uint32
	make   func() proto.Message
}

// eventType builds a row; T is the payload's message.
func eventType[T any, P interface {
	*T
	proto.Message
}](name string) eventRow {
	return eventRow{name: name, schema: 1, make: func() proto.Message { return P(new(T)) }}
}

// catalogue is the one table of event types: owner to names and payloads (procedure.md 5).
var catalogue = map[string][]eventRow{
	OwnerIncident: {
		eventType[emergencyv1.EmergencyDeclared]("EmergencyDeclared"),
		eventType[emergencyv1.DuplicateAbsorbed]("DuplicateAbsorbed"),
		eventType[emergencyv1.IncidentMerged]("IncidentMerged"),
		eventType[emergencyv1.IncidentStoodDown]("IncidentStoodDown"),
		eventType[emergencyv1.StrategyEscalated]("StrategyEscalated"),
		eventType[emergencyv1.JointDeclarationSigned]("JointDeclarationSigned"),
		eventType[emergencyv1.StrategyDeEscalated]("StrategyDeEscalated"),
		eventType[emergencyv1.ControlWaived]("ControlWaived"),
		eventType[emergencyv1.LeadDecisionRecorded]("LeadDecisionRecorded"),
		eventType[emergencyv1.LogAnnotated]("LogAnnotated"),
		eventType[emergencyv1.LateRecordConfirmed]("LateRecordConfirmed"),
		eventType[emergencyv1.DeadlineWarned]("DeadlineWarned"),
		eventType[emergencyv1.DeadlineBreached]("DeadlineBreached"),
		eventType[emergencyv1.IncidentClosed]("IncidentClosed"),
	},
	OwnerNotification: {
		eventType[emergencyv1.CallOutIssued]("CallOutIssued"),
		eventType[emergencyv1.DeliveryReported]("DeliveryReported"),
		eventType[emergencyv1.RePaged]("RePaged"),
		eventType[emergencyv1.CoverageGapFound]("CoverageGapFound"),
		eventType[emergencyv1.ResponderAccepted]("ResponderAccepted"),
		eventType[emergencyv1.ResponderDeclined]("ResponderDeclined"),
		eventType[emergencyv1.ResponderHandedOver]("ResponderHandedOver"),
		eventType[emergencyv1.AckExpired]("AckExpired"),
		eventType[emergencyv1.StandbyStarted]("StandbyStarted"),
		eventType[emergencyv1.StandbyCheckedIn]("StandbyCheckedIn"),
		eventType[emergencyv1.StandbyMissed]("StandbyMissed"),
		eventType[emergencyv1.SlotReopened]("SlotReopened"),
		eventType[emergencyv1.StandbyEnded]("StandbyEnded"),
		eventType[emergencyv1.RotaChanged]("RotaChanged"),
		eventType[emergencyv1.ContactsChanged]("ContactsChanged"),
		eventType[emergencyv1.ReachabilityRecorded]("ReachabilityRecorded"),
	},
	OwnerReview: {
		eventType[emergencyv1.PatchRegistered]("PatchRegistered"),
		eventType[emergencyv1.PatchSuperseded]("PatchSuperseded"),
		eventType[emergencyv1.FirstReviewRecorded]("FirstReviewRecorded"),
		eventType[emergencyv1.PatchTransferred]("PatchTransferred"),
		eventType[emergencyv1.TestServerConfirmed]("TestServerConfirmed"),
		eventType[emergencyv1.TestReported]("TestReported"),
		eventType[emergencyv1.SecondReviewRecorded]("SecondReviewRecorded"),
		eventType[emergencyv1.VetoRaised]("VetoRaised"),
		eventType[emergencyv1.VetoWithdrawn]("VetoWithdrawn"),
		eventType[emergencyv1.VetoOverruled]("VetoOverruled"),
		eventType[emergencyv1.PatchForwarded]("PatchForwarded"),
		eventType[emergencyv1.UpdateCycleEntered]("UpdateCycleEntered"),
		eventType[emergencyv1.UpdateCycleConcluded]("UpdateCycleConcluded"),
	},
	OwnerDeployment: {
		eventType[emergencyv1.DryRunRecorded]("DryRunRecorded"),
		eventType[emergencyv1.ObserverConfirmed]("ObserverConfirmed"),
		eventType[emergencyv1.ApplyStarted]("ApplyStarted"),
		eventType[emergencyv1.PatchApplied]("PatchApplied"),
		eventType[emergencyv1.PatchApplyFailed]("PatchApplyFailed"),
		eventType[emergencyv1.DeployVerified]("DeployVerified"),
		eventType[emergencyv1.DeployMismatch]("DeployMismatch"),
		eventType[emergencyv1.BackOutStarted]("BackOutStarted"),
		eventType[emergencyv1.PatchBackedOut]("PatchBackedOut"),
		eventType[emergencyv1.BackOutUnproven]("BackOutUnproven"),
		eventType[emergencyv1.RollBackStarted]("RollBackStarted"),
		eventType[emergencyv1.RolledBack]("RolledBack"),
		eventType[emergencyv1.HealthRecorded]("HealthRecorded"),
		eventType[emergencyv1.ReplicationPushed]("ReplicationPushed"),
		eventType[emergencyv1.ReplicationChecked]("ReplicationChecked"),
		eventType[emergencyv1.DriftExplained]("DriftExplained"),
		eventType[emergencyv1.AccessPermitted]("AccessPermitted"),
		eventType[emergencyv1.AccessGrantIssued]("AccessGrantIssued"),
		eventType[emergencyv1.RoleAssumed]("RoleAssumed"),
		eventType[emergencyv1.RoleAssumptionEnded]("RoleAssumptionEnded"),
		eventType[emergencyv1.GrantExpired]("GrantExpired"),
		eventType[emergencyv1.WatchArmed]("WatchArmed"),
		eventType[emergencyv1.CredentialConsumed]("CredentialConsumed"),
		eventType[emergencyv1.ConnectionOpened]("ConnectionOpened"),
		eventType[emergencyv1.SessionFrozen]("SessionFrozen"),
		eventType[emergencyv1.SessionResumed]("SessionResumed"),
		eventType[emergencyv1.SessionMarked]("SessionMarked"),
		eventType[emergencyv1.SessionExtended]("SessionExtended"),
		eventType[emergencyv1.SessionTerminated]("SessionTerminated"),
		eventType[emergencyv1.ConnectionDisabled]("ConnectionDisabled"),
		eventType[emergencyv1.CredentialProvenUnusable]("CredentialProvenUnusable"),
		eventType[emergencyv1.CredentialStillUsable]("CredentialStillUsable"),
		eventType[emergencyv1.SessionDiffCaptured]("SessionDiffCaptured"),
		eventType[emergencyv1.LeftoversReported]("LeftoversReported"),
		eventType[emergencyv1.LeftoversExplained]("LeftoversExplained"),
		eventType[emergencyv1.SessionSealed]("SessionSealed"),
		eventType[emergencyv1.RecordingPlayed]("RecordingPlayed"),
	},
	OwnerArbitration: {
		eventType[emergencyv1.ProcedureDocumented]("ProcedureDocumented"),
		eventType[emergencyv1.BoardSummaryRecorded]("BoardSummaryRecorded"),
		eventType[emergencyv1.DisputeFiled]("DisputeFiled"),
		eventType[emergencyv1.FilingReported]("FilingReported"),
		eventType[emergencyv1.CaseOpened]("CaseOpened"),
		eventType[emergencyv1.ArbitratorProposed]("ArbitratorProposed"),
		eventType[emergencyv1.ArbitratorAccepted]("ArbitratorAccepted"),
		eventType[emergencyv1.ArbitratorDeclined]("ArbitratorDeclined"),
		eventType[emergencyv1.DisputeClosedDeclined]("DisputeClosedDeclined"),
		eventType[emergencyv1.PreliminariesRecorded]("PreliminariesRecorded"),
		eventType[emergencyv1.DirectionIssued]("DirectionIssued"),
		eventType[emergencyv1.RulingDelivered]("RulingDelivered"),
		eventType[emergencyv1.ReviewRuled]("ReviewRuled"),
		eventType[emergencyv1.RulingPublished]("RulingPublished"),
		eventType[emergencyv1.DirectionReported]("DirectionReported"),
		eventType[emergencyv1.DirectionConfirmed]("DirectionConfirmed"),
		eventType[emergencyv1.ReviewRequested]("ReviewRequested"),
		eventType[emergencyv1.AppealPanelFormed]("AppealPanelFormed"),
		eventType[emergencyv1.FieldRedacted]("FieldRedacted"),
		eventType[emergencyv1.RedactionCompleted]("RedactionCompleted"),
		eventType[emergencyv1.FieldDisclosed]("FieldDisclosed"),
		eventType[emergencyv1.ObligationOpened]("ObligationOpened"),
		eventType[emergencyv1.ObligationDueChanged]("ObligationDueChanged"),
		eventType[emergencyv1.ObligationDischarged]("ObligationDischarged"),
		eventType[emergencyv1.ObligationOverdue]("ObligationOverdue"),
		eventType[emergencyv1.ObligationEscalated]("ObligationEscalated"),
		eventType[emergencyv1.PersonListed]("PersonListed"),
		eventType[emergencyv1.PolicyPublished]("PolicyPublished"),
		eventType[emergencyv1.RoleGranted]("RoleGranted"),
		eventType[emergencyv1.RoleRevoked]("RoleRevoked"),
		eventType[emergencyv1.KeyAdded]("KeyAdded"),
		eventType[emergencyv1.KeyRevoked]("KeyRevoked"),
		eventType[emergencyv1.MessageArchived]("MessageArchived"),
	},
}

var (
	eventByType    = map[string]eventRow{}
	typeByMessage  = map[protoreflect.FullName]string{}
	refusedByOwner = map[string]string{}
)

func init() {
	for owner, rows := range catalogue {
		for _, row := range rows {
			eventByType[owner+"."+row.name] = row
			d := row.make().ProtoReflect().Descriptor()
			typeByMessage[d.FullName()] = owner + "." + row.name
			learnFields(d)
		}
		refused := eventType[emergencyv1.CommandRefused](refusedName)
		eventByType[owner+"."+refusedName] = refused
		refusedByOwner[owner] = owner + "." + refusedName
	}
	learnFields((*emergencyv1.CommandRefused)(nil).ProtoReflect().Descriptor())
	learnFields((*emergencyv1.Record)(nil).ProtoReflect().Descriptor())
}

// EventOwner returns the owner of an event type; ok is false for a type the catalogue does not know.
func EventOwner(eventType string) (owner string, ok bool) {
	if _, ok := eventByType[eventType]; !ok {
		return "", false
	}
	owner, _, _ = strings.Cut(eventType, ".")
	return owner, true
}

// EventTypes lists every event type in order.
func EventTypes() []string {
	list := make([]string, 0, len(eventByType))
	for t := range eventByType {
		list = append(list, t)
	}
	sort.Strings(list)
	return list
}

// DecodeEvent decodes an event's payload. An unknown type or schema version, or a payload that does not decode, is an
// error: a reader that does not understand a fact must not go on as if it had not happened.
func DecodeEvent(e *emergencyv1.Event) (proto.Message, error) {
	row, ok := eventByType[e.GetType()]
	if !ok {
		return nil, fmt.Errorf("event type %q is not known to this version", e.GetType())
	}
	if e.GetSchemaVersion() != row.schema {
		return nil, fmt.Errorf("event %s has schema version %d, this version knows %d", e.GetType(), e.GetSchemaVersion(), row.schema)
	}
	m := row.make()
	if err := proto.Unmarshal(e.GetPayload(), m); err != nil {
		return nil, fmt.Errorf("payload of %s: %w", e.GetType(), err)
	}
	if HasUnknown(m.ProtoReflect()) {
		return nil, fmt.Errorf("payload of %s has fields that this version does not know", e.GetType())
	}
	return m, nil
}

// Event is one event of a record, decoded.
type Event struct {
	Position   uint64
	Type       string
	Deviations []emergencyv1.Deviation
	// Payload is shared between all who read the record: never write to it.
	Payload proto.Message
}

// DecodeRecord decodes all events of a record; its errors are those of DecodeEvent, with the event's id.
func DecodeRecord(rec *emergencyv1.Record) ([]Event, error) {
	events := make([]Event, 0, len(rec.GetEvents()))
	for i, e := range rec.GetEvents() {
		position := rec.GetFirstPosition() + uint64(i)
		payload, err := DecodeEvent(e)
		if err != nil {
			return nil, fmt.Errorf("%s/%d: %w", rec.GetIncident(), position, err)
		}
		events = append(events, Event{position, e.GetType(), e.GetDeviations(), payload})
	}
	return events, nil
}

// EncodeEvent wraps a payload of the catalogue as an event.
func EncodeEvent(owner string, m proto.Message, deviations ...emergencyv1.Deviation) (*emergencyv1.Event, error) {
	t, ok := typeByMessage[m.ProtoReflect().Descriptor().FullName()]
	if _, isRefusal := m.(*emergencyv1.CommandRefused); isRefusal {
		t, ok = refusedByOwner[owner]
	}
	if !ok {
		return nil, fmt.Errorf("message %s is no event of the catalogue", m.ProtoReflect().Descriptor().FullName())
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", t, err)
	}
	return &emergencyv1.Event{Type: t, SchemaVersion: eventByType[t].schema, Payload: payload, Deviations: deviations}, nil
}

// HasUnknown looks for unknown fields in a message and in all messages in it: what a newer version may have added.
func HasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	for _, field := range holding(m.Descriptor()) {
		switch {
		case !m.Has(field):
		case field.IsList():
			for list, i := m.Get(field).List(), 0; i < list.Len(); i++ {
				if HasUnknown(list.Get(i).Message()) {
					return true
				}
			}
		default: // events have no map fields (style 3)
			if HasUnknown(m.Get(field).Message()) {
				return true
			}
		}
	}
	return false
}

// messageFields are those fields of each kind of message in a history that hold messages; of most there are none. It never changes after
// init.
var messageFields = map[protoreflect.MessageDescriptor][]protoreflect.FieldDescriptor{}

func holding(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if known, ok := messageFields[d]; ok {
		return known
	}
	return fieldsHolding(d)
}

func fieldsHolding(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	var list []protoreflect.FieldDescriptor
	for fields, i := d.Fields(), 0; i < fields.Len(); i++ {
		if fields.Get(i).Message() != nil {
			list = append(list, fields.Get(i))
		}
	}
	return list
}

// learnFields fills messageFields for a kind of message and all that it may hold.
func learnFields(d protoreflect.MessageDescriptor) {
	if _, known := messageFields[d]; known {
		return
	}
	messageFields[d] = fieldsHolding(d)
	for _, field := range messageFields[d] {
		learnFields(field.Message())
	}
}
