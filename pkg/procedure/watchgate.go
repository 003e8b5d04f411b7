// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A session can be watched through a service, as the dashboard's page does it. The service is trusted with nothing: without the
// watcher's own fresh signature nobody counts as present through it.

// watchStatement is what a watcher signs who watches through a service. No command has that name, so nothing else can be made of it.
const watchStatement = "Watch"

// WatchStatement is what a session's watcher signs, so that a service which shows the session cannot watch it instead: a service
// alone can make nobody present. The id is fresh and used once, whole the grant is named.
func WatchStatement(s *State, grant, person, id string, signedAt time.Time) *emergencyv1.Statement {
	st := &emergencyv1.Statement{
		Incident: s.Incident, Command: watchStatement, Person: person, Role: ca, RequestId: id, SignedAt: timestamppb.New(signedAt),
		Claims: []*emergencyv1.Claim{claim("grant", grant)},
	}
	if s.Policy != nil {
		st.PolicyDigest = s.Policy.Digest
	}
	return st
}

// MayWatchThrough judges whether a service may show a session to a person as to its watcher: the person has signed exactly that, with
// an own key, and not longer ago than a step-up counts. It returns the id of the statement, which the caller takes once, and until
// when that has to be remembered.
func MayWatchThrough(s *State, grant, person string, a *emergencyv1.Approval, book *rulebook.Book, now time.Time) (id string, until time.Time, _ *Refusal) {
	refused := func(format string, args ...any) (string, time.Time, *Refusal) {
		return "", time.Time{}, refuse(ReasonSignature, format, args...).under("4.4 ArmWatch").allow("ArmWatch", grant, "the watcher signs it in the page; or watches by epatch watch-console; or looks on as observer")
	}
	if a == nil {
		return refused("who watches through a service signs that, and nobody has")
	}
	entry, ok := book.Key(a.GetKeyId())
	if !ok || entry.Key.GetPerson() != person || person == "" {
		return refused("the signing key %s is none of %s's", short(a.GetKeyId()), person)
	}
	if !entry.RevokedAt.IsZero() && !(Env{Now: now, Book: book}).present().Before(entry.RevokedAt) {
		return "", time.Time{}, refuse(ReasonKeyRevoked, "the signing key %s was revoked at %s", short(a.GetKeyId()), stamp(entry.RevokedAt))
	}
	st, err := OpenApproval(a, entry.Key)
	if err != nil {
		return refused("%v", err)
	}
	signed := st.GetSignedAt().AsTime()
	want := WatchStatement(s, grant, person, st.GetRequestId(), signed)
	if diff := statementDiff(want, st); diff != "" || st.GetRole() != ca || !requestIDForm.MatchString(st.GetRequestId()) {
		return refused("what was signed is not the watch of %s: %s differs", grant, cmp.Or(diff, "role or id"))
	}
	valid, ahead := s.Policy.Duration("step_up.valid"), s.Policy.Duration("clock.tolerance")
	if age := now.Sub(signed); age > valid || age < -ahead {
		return "", time.Time{}, refuse(ReasonStepUpRequired, "the watch was signed at %s; it needs a signature not older than %s", stamp(signed), valid).
			allow("ArmWatch", grant, "sign it again")
	}
	return st.GetRequestId(), signed.Add(valid), nil
}
