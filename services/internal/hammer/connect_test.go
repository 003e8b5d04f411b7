// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// attempts to use one credential, by two processes at once.
const attempts = defaultRaces

// TestCredentialIsUsedOnce: of many attempts to use one credential exactly one passes, whichever process decides it; every
// other one is refused and recorded, none is only counted (4.0, N23).
func TestCredentialIsUsedOnce(t *testing.T) {
	t.Parallel()
	r := dispatchtest.JetStream(t)
	r.Log = slog.New(slog.DiscardHandler)
	const id = proceduretest.DefaultIncident
	r.SeedStory(proceduretest.Armed)
	s := r.State(id)
	brokers := []*dispatch.Dispatcher{r.Dispatcher(procedure.OwnerDeployment), r.Dispatcher(procedure.OwnerDeployment)}
	var mu sync.Mutex
	var group sync.WaitGroup
	told := map[procedure.Reason]int{}
	begin := make(chan struct{})
	for n := range attempts {
		c := proceduretest.Connect()
		c.Meta = &emergencyv1.CommandMeta{Incident: id, RequestId: fmt.Sprintf("attempt-%04d", n)}
		group.Go(func() {
			<-begin
			_, err := brokers[n%2].Do(t.Context(), c, r.Input(s, "gateway:emil", c))
			mu.Lock()
			defer mu.Unlock()
			told[reasonOf(t, err)]++
		})
	}
	close(begin)
	group.Wait()
	if told[""] != 1 || told[procedure.ReasonCredentialConsumed] != attempts-1 {
		t.Errorf("told %v, want one that passes and %d that are refused", told, attempts-1)
	}
	consumed, refused := uses(t, r, id)
	if consumed != 1 || refused != attempts-1 {
		t.Errorf("recorded: %d used, %d refused", consumed, refused)
	}
	if got := r.State(id).Grants[0]; got.Consumed.Position == 0 || got.Consumed.By != "emil" {
		t.Errorf("%+v", got)
	}
	r.Check()
}

func reasonOf(t *testing.T, err error) procedure.Reason {
	t.Helper()
	var refusal *procedure.Refusal
	if err != nil && !errors.As(err, &refusal) {
		t.Errorf("an attempt ended with %v", err)
	}
	if refusal == nil {
		return ""
	}
	return refusal.Reason
}

// uses counts what is in the log.
func uses(t *testing.T, r *dispatchtest.Rig, id string) (consumed, refused int) {
	t.Helper()
	for _, e := range r.Entries(id) {
		for _, ev := range e.Record.GetEvents() {
			switch m, err := procedure.DecodeEvent(ev); m := m.(type) {
			case *emergencyv1.CredentialConsumed:
				consumed++
			case *emergencyv1.CommandRefused:
				refused++
				if m.GetCommand() != "Connect" || m.GetSuppressed() != 0 || e.Record.GetActor().GetPerson() != "emil" {
					t.Errorf("refused %v of %v", m, e.Record.GetActor())
				}
			default:
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return consumed, refused
}

// The rules find nothing in a session that went as it should, and what did not.
func TestRulesFindWhatIsWrongWithASession(t *testing.T) {
	t.Parallel()
	whole := proceduretest.NewWorld(t)
	proceduretest.Story(proceduretest.Sealed)(whole)
	if err := CheckRules(messages(t, whole.Records), peopleKeys()); err != nil {
		t.Fatalf("the story as it should be: %v", err)
	}
	for _, c := range []struct {
		name  string
		after proceduretest.Milestone
		owner string
		add   proto.Message
		want  string
	}{
		{"granted to the watcher", proceduretest.Permitted, procedure.OwnerDeployment, &emergencyv1.AccessGrantIssued{Grant: "G1", Subject: "carl", Watcher: "carl"}, "subject carl is one of"},
		{"granted beside another", proceduretest.Granted, procedure.OwnerDeployment, &emergencyv1.AccessGrantIssued{Grant: "G2", Subject: "emil", Watcher: "carl"}, "another access granted while grant G1"},
		{"granted on no permission", proceduretest.Permitted, procedure.OwnerDeployment, &emergencyv1.AccessGrantIssued{Grant: "G1", Subject: "emil", Watcher: "carl", Permission: 2}, "granted on the permission at 2"},
		{"granted in strategy 1", proceduretest.Called, procedure.OwnerDeployment, &emergencyv1.AccessGrantIssued{Grant: "G1", Subject: "emil", Watcher: "carl"}, "under strategy 0"},
		{"armed by the subject", proceduretest.Granted, procedure.OwnerDeployment, &emergencyv1.WatchArmed{Grant: "G1", Watcher: "emil"}, "watcher emil is one of"},
		{"used unwatched", proceduretest.Granted, procedure.OwnerDeployment, &emergencyv1.CredentialConsumed{Grant: "G1"}, "used unwatched"},
		{"used twice", proceduretest.Live, procedure.OwnerDeployment, &emergencyv1.CredentialConsumed{Grant: "G1"}, "used twice"},
		{"used after the end", proceduretest.Terminated, procedure.OwnerDeployment, &emergencyv1.CredentialConsumed{Grant: "G1"}, "used after its end"},
		{"opened unused", proceduretest.Armed, procedure.OwnerDeployment, &emergencyv1.ConnectionOpened{Grant: "G1"}, "opened: used false"},
		{"resumed unwatched", proceduretest.Frozen, procedure.OwnerDeployment, &emergencyv1.SessionResumed{Grant: "G1"}, "resumed without a fresh watch"},
		{"frozen twice", proceduretest.Frozen, procedure.OwnerDeployment, &emergencyv1.SessionFrozen{Grant: "G1"}, "frozen before true"},
		{"terminated twice", proceduretest.Terminated, procedure.OwnerDeployment, &emergencyv1.SessionTerminated{Grant: "G1"}, "terminated twice"},
		{"disabled while it runs", proceduretest.Live, procedure.OwnerDeployment, &emergencyv1.ConnectionDisabled{Grant: "G1"}, "disabled and not ended"},
		{"proven and not disabled", proceduretest.Terminated, procedure.OwnerDeployment, &emergencyv1.CredentialProvenUnusable{Grant: "G1"}, "proven unusable and not disabled"},
		{"sealed with open leftovers", proceduretest.Captured, procedure.OwnerDeployment, &emergencyv1.SessionSealed{Grant: "G1"}, "2 left"},
		{"sealed and not proven", proceduretest.Disabled, procedure.OwnerDeployment, &emergencyv1.SessionSealed{Grant: "G1"}, "proven false"},
		{"a grant that nobody issued", proceduretest.Live, procedure.OwnerDeployment, &emergencyv1.SessionFrozen{Grant: "G2"}, "which nobody issued"},
		{"closed with an open access", proceduretest.Terminated, procedure.OwnerIncident, &emergencyv1.IncidentClosed{}, "ended while grant G1"},
		{"back to strategy 1 with an open access", proceduretest.Live, procedure.OwnerIncident, &emergencyv1.StrategyDeEscalated{From: 3, To: 1}, "lower strategy while grant G1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := proceduretest.NewWorld(t)
			proceduretest.Story(c.after)(w)
			w.Append(c.owner, "Doctored", c.add)
			wantWrong(t, messages(t, w.Records), c.want)
		})
	}
}
