// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	incidentv1 "cacert.org/emergency/proto/emergency/incident/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
)

const incident = proceduretest.DefaultIncident

// server answers as a service would that may lie, lag, or be away.
type server struct {
	dashboardv1.UnimplementedQueryServiceServer
	incidentv1.UnimplementedIncidentServiceServer
	reviewv1.UnimplementedReviewServiceServer

	mu      sync.Mutex
	records map[string][]*emergencyv1.SignedRecord
	changed chan struct{}
	cut     bool  // end streams once, when something changes
	fail    int   // answer so many commands with UNAVAILABLE
	refuse  error // or with this
	got     []procedure.Command
}

func (s *server) add(id string, records ...*emergencyv1.SignedRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[id] = append(s.records[id], records...)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) from(id string, n int) (list []*emergencyv1.SignedRecord, changed chan struct{}, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cut, s.cut = s.cut && n > 0, s.cut && n == 0
	return s.records[id][min(n, len(s.records[id])):], s.changed, cut
}

func (s *server) ReadHistory(req *dashboardv1.ReadHistoryRequest, stream grpc.ServerStreamingServer[dashboardv1.ReadHistoryResponse]) error {
	for n := 0; ; {
		list, changed, cut := s.from(req.GetIncident(), n)
		if cut {
			return status.Error(codes.Unavailable, "cut")
		}
		for _, signed := range list {
			n++
			rec := &emergencyv1.Record{}
			if err := proto.Unmarshal(signed.GetRecord(), rec); err != nil {
				return err
			}
			if rec.GetFirstPosition()+uint64(len(rec.GetEvents())) <= req.GetFrom() {
				continue
			}
			if err := stream.Send(&dashboardv1.ReadHistoryResponse{Record: signed}); err != nil {
				return err
			}
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *server) take(cmd procedure.Command) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, proto.CloneOf(cmd.(proto.Message)).(procedure.Command))
	if s.refuse != nil {
		return s.refuse
	}
	if len(s.got) <= s.fail {
		return status.Error(codes.Unavailable, "away")
	}
	return nil
}

func (s *server) AnnotateLog(_ context.Context, req *emergencyv1.AnnotateLogRequest) (*emergencyv1.AnnotateLogResponse, error) {
	if err := s.take(req); err != nil {
		return nil, err
	}
	return &emergencyv1.AnnotateLogResponse{Committed: &emergencyv1.Committed{Incident: req.GetMeta().GetIncident(), FirstPosition: 9}}, nil
}

func (s *server) RecordFirstReview(_ context.Context, req *emergencyv1.RecordFirstReviewRequest) (*emergencyv1.RecordFirstReviewResponse, error) {
	if err := s.take(req); err != nil {
		return nil, err
	}
	return &emergencyv1.RecordFirstReviewResponse{Committed: &emergencyv1.Committed{Incident: req.GetMeta().GetIncident(), FirstPosition: 9}}, nil
}

// rig is a server and anna's client.
type rig struct {
	*server
	*client.Client
	cfg    client.Config
	sealed map[string][]*emergencyv1.SignedRecord // the true histories
	book   *proceduretest.World
	key    *identity.Profile
}

func newRig(t *testing.T, milestone proceduretest.Milestone) *rig {
	t.Helper()
	dir := t.TempDir()
	ca, err := devca.Open(filepath.Join(dir, "ca"), time.Now)
	must(t, err)
	serverDir, err := ca.Service("test")
	must(t, err)
	profileDir, err := ca.Person("anna")
	must(t, err)
	own, err := identity.Load(serverDir, identity.LoadOptions{Now: time.Now()})
	must(t, err)
	r := &rig{server: &server{records: map[string][]*emergencyv1.SignedRecord{}, changed: make(chan struct{})}, sealed: map[string][]*emergencyv1.SignedRecord{}}
	r.key, err = identity.Load(profileDir, identity.LoadOptions{Now: time.Now()})
	must(t, err)

	signers, keyring := keys(t)
	file := filepath.Join(dir, "services.keys.json")
	must(t, keyring.Save(file))
	r.tell(t, signers, milestone)

	srv, err := rpc.NewServer(rpc.ServerConfig{
		Identity: own.Current, Authorize: func(context.Context, string, identity.Caller) error { return nil },
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now,
	})
	must(t, err)
	dashboardv1.RegisterQueryServiceServer(srv, r.server)
	incidentv1.RegisterIncidentServiceServer(srv, r.server)
	reviewv1.RegisterReviewServiceServer(srv, r.server)
	lis, dial := rpc.Local()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, lis) }()
	r.cfg = client.Config{Server: rpc.LocalAddr, Profile: profileDir, Keyring: file, Dialer: dial}
	r.Client, err = client.Dial(r.cfg)
	must(t, err)
	t.Cleanup(func() {
		must(t, r.Client.Close())
		stop()
		must(t, <-done)
	})
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T) (map[string]history.Signer, *history.Keyring) {
	t.Helper()
	signers, listed := map[string]history.Signer{}, []history.Key(nil)
	for _, owner := range procedure.Owners() {
		seed := sha256.Sum256([]byte(owner))
		key := ed25519.NewKeyFromSeed(seed[:])
		signer, err := history.NewSigner(key)
		must(t, err)
		signers[owner] = signer
		listed = append(listed, history.Key{Owner: owner, Public: key.Public().(ed25519.PublicKey)})
	}
	ring, err := history.NewKeyring(listed...)
	must(t, err)
	return signers, ring
}

// tell makes the histories: a rule book in which anna has the key of the profile, and an incident up to a milestone.
func (r *rig) tell(t *testing.T, signers map[string]history.Signer, milestone proceduretest.Milestone) {
	t.Helper()
	book := proceduretest.NewRuleBook(t)
	establish := proceduretest.Establish()
	book.Do("service", establish)
	book.Do("bea", &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{
		KeyId: r.key.KeyID, PublicKey: r.key.Certificate.Leaf.RawSubjectPublicKeyInfo, Person: "anna",
	}})
	r.book = book
	r.sealed[procedure.RuleBook] = seal(t, signers, book)
	r.sealed[incident] = seal(t, signers, proceduretest.Given(t, proceduretest.Story(milestone)).World())
	for id, records := range r.sealed {
		r.add(id, records...)
	}
}

func seal(t *testing.T, signers map[string]history.Signer, w *proceduretest.World) []*emergencyv1.SignedRecord {
	t.Helper()
	var list []*emergencyv1.SignedRecord
	prev := history.Genesis(w.State.Incident)
	for _, rec := range w.Records {
		rec = proto.CloneOf(rec)
		rec.PrevHash = prev
		raw, hash, err := history.Seal(rec, signers[rec.GetOwner()])
		must(t, err)
		signed := &emergencyv1.SignedRecord{}
		must(t, proto.Unmarshal(raw, signed))
		list, prev = append(list, signed), hash
	}
	return list
}

func TestStateIsVerified(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Registered)
	s, err := r.State(t.Context(), incident)
	must(t, err)
	if s.Current() == nil || s.Current().ID != "P1r1" {
		t.Fatalf("state %+v", s)
	}
	s.Revisions = nil // the caller's own copy
	again, err := r.State(t.Context(), incident)
	must(t, err)
	if again.Current() == nil {
		t.Error("what a caller did to its state is seen by the next one")
	}
	if _, err := r.State(t.Context(), "e20200101.1"); !refusedFor(err, procedure.ReasonIncident) {
		t.Errorf("an incident without records: %v", err)
	}
}

func refusedFor(err error, reason procedure.Reason) bool {
	r, ok := rpc.RefusalOf(err)
	return ok && r.Reason == reason
}

// TestForgedRecordsAreNotBelieved: a server that adds what no service has signed changes nothing of what the person signs.
func TestForgedRecordsAreNotBelieved(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Registered)
	before, err := r.State(t.Context(), incident)
	must(t, err)

	_, thief, err := ed25519.GenerateKey(nil)
	must(t, err)
	signer, err := history.NewSigner(thief)
	must(t, err)
	event, err := procedure.EncodeEvent(procedure.OwnerIncident, &emergencyv1.IncidentStoodDown{Reason: "not really"})
	must(t, err)
	raw, _, err := history.Seal(&emergencyv1.Record{
		Incident: incident, FirstPosition: before.Position + 1, Owner: procedure.OwnerIncident, Command: "StandDown", RequestId: "forged-1",
		PrevHash: before.HeadHash, RecordedAt: timestamppb.New(before.RecordedAt), Events: []*emergencyv1.Event{event},
	}, signer)
	must(t, err)
	forged := &emergencyv1.SignedRecord{}
	must(t, proto.Unmarshal(raw, forged))
	r.add(incident, forged)

	after, err := r.State(t.Context(), incident)
	must(t, err)
	if after.Position != before.Position || after.Status != procedure.Open {
		t.Errorf("the forged record was believed: %d, %s", after.Position, after.Status)
	}
}

func TestWithoutKeyringNothingIsSigned(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Registered)
	cfg := r.cfg
	cfg.Keyring = ""
	c, err := client.Dial(cfg)
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if _, err := c.State(t.Context(), incident); !errors.Is(err, client.ErrNoKeyring) {
		t.Errorf("state: %v", err)
	}
	cmd := &emergencyv1.RecordFirstReviewRequest{Meta: &emergencyv1.CommandMeta{Incident: incident}, Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE}
	if _, err := c.Send(t.Context(), cmd); !errors.Is(err, client.ErrNoKeyring) || len(r.got) > 0 {
		t.Errorf("send: %v, the server got %d commands", err, len(r.got))
	}
	// what needs no signature works without it: checking in must not depend on a file
	if _, err := c.Send(t.Context(), &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident}, Entry: 1, Text: "x"}); err != nil {
		t.Errorf("unsigned: %v", err)
	}
}

// TestSignedOverTheVerifiedHistory: what a person signs is what the rules will ask for.
func TestSignedOverTheVerifiedHistory(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Registered)
	s, err := r.State(t.Context(), incident)
	must(t, err)
	rev := s.Current()
	cmd := &emergencyv1.RecordFirstReviewRequest{
		Meta: &emergencyv1.CommandMeta{Incident: incident}, Binding: &emergencyv1.Binding{Revision: rev.ID, Digest: rev.Binding},
		Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE,
	}
	if _, err := r.Send(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	got := r.got[0]
	st, err := procedure.OpenApproval(got.GetMeta().GetApproval(), &emergencyv1.Key{PublicKey: r.key.Certificate.Leaf.RawSubjectPublicKeyInfo})
	must(t, err)
	if st.GetPerson() != "anna" || st.GetRole() != emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR || st.GetRequestId() != got.GetMeta().GetRequestId() ||
		st.GetPatchSha256() != rev.Artefact.GetSha256() || st.GetBaseTree() != rev.BaseTree || st.GetResultTree() != rev.ResultTree {
		t.Errorf("signed %v", st)
	}
}

// TestSendRepeatsWithTheSameID: a command is never done twice, however often it has to be sent.
func TestSendRepeatsWithTheSameID(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Declared)
	r.fail = 7 // more than one call's own retries
	waits := 0
	cfg := r.cfg
	cfg.OnRetry = func(err error, _ time.Duration) {
		waits++
		if status.Code(err) != codes.Unavailable {
			t.Errorf("tried again after %v", err)
		}
	}
	c, err := client.Dial(cfg)
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if _, err := c.Send(t.Context(), &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident}, Entry: 1, Text: "x"}); err != nil {
		t.Fatal(err)
	}
	if len(r.got) != 8 || waits == 0 {
		t.Errorf("the server got it %d times, the person heard of %d", len(r.got), waits)
	}
	for _, cmd := range r.got {
		if id := cmd.GetMeta().GetRequestId(); id == "" || id != r.got[0].GetMeta().GetRequestId() {
			t.Errorf("request ids %q and %q", r.got[0].GetMeta().GetRequestId(), id)
		}
	}
	before := r.got[0].GetMeta().GetRequestId()
	if _, err := c.Send(t.Context(), &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident}, Entry: 1, Text: "x"}); err != nil {
		t.Fatal(err)
	}
	if r.got[8].GetMeta().GetRequestId() == before {
		t.Error("another act has the same request id")
	}
}

// TestRefusalsAreAnswers: a rule's no is not tried again, and arrives whole.
func TestRefusalsAreAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Declared)
	want := &procedure.Refusal{Code: procedure.FailedPrecondition, Reason: procedure.ReasonEntry, Rule: "4.1", Message: "no", Allow: []procedure.Allowance{{Command: "X", Subject: "y", Description: "z"}}}
	r.refuse = want
	_, err := r.Send(t.Context(), &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident}, Entry: 1, Text: "x"})
	got, ok := rpc.RefusalOf(err)
	if !ok || got.Reason != want.Reason || len(got.Allow) != 1 || got.Allow[0] != want.Allow[0] || len(r.got) != 1 {
		t.Errorf("got %+v after %d tries: %v", got, len(r.got), err)
	}
}

func TestOnlyCommandsAreSent(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Declared)
	for _, cmd := range []procedure.Command{&emergencyv1.TickRequest{}, &emergencyv1.EstablishRequest{}, &emergencyv1.SyncObligationsRequest{}, &emergencyv1.AbsorbDuplicateRequest{}} {
		if _, err := r.Send(t.Context(), cmd); err == nil {
			t.Errorf("%T was sent", cmd)
		}
	}
}

func TestStrangerHasNoPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Declared)
	r.mu.Lock()
	r.records[procedure.RuleBook] = r.records[procedure.RuleBook][:1] // before anna's key was added
	r.mu.Unlock()
	if _, _, err := r.Person(t.Context()); !refusedFor(err, procedure.ReasonKeyUnknown) {
		t.Errorf("person: %v", err)
	}
	cfg := r.cfg
	cfg.Profile, cfg.Roots = "", filepath.Join(r.cfg.Profile, identity.CAFile)
	c, err := client.Dial(cfg)
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if _, _, err := c.Person(t.Context()); !refusedFor(err, procedure.ReasonNoIdentity) {
		t.Errorf("nobody: %v", err)
	}
	cfg.Roots = filepath.Join(t.TempDir(), "none")
	if _, err := client.Dial(cfg); err == nil {
		t.Error("a connection that trusts nobody was made")
	}
}

// TestFollowGoesOnAfterACut: each record is seen once, in order, whatever happens to the connection.
func TestFollowGoesOnAfterACut(t *testing.T) {
	t.Parallel()
	r := newRig(t, proceduretest.Registered)
	all := r.sealed[incident]
	r.mu.Lock()
	r.records[incident], r.cut = all[:3:3], true
	r.mu.Unlock()
	var seen []uint64
	end := errors.New("end")
	err := r.Follow(t.Context(), incident, func(s *procedure.State, e *history.Entry) error {
		seen = append(seen, e.Record.GetFirstPosition())
		if s.HeadHash != e.Hash {
			t.Error("the state is not the one after the record")
		}
		if len(seen) == 3 {
			go r.add(incident, all[3:]...)
		}
		if len(seen) == len(all) {
			return end
		}
		return nil
	})
	if !errors.Is(err, end) {
		t.Fatal(err)
	}
	for i := 1; i < len(seen); i++ {
		if seen[i] <= seen[i-1] {
			t.Errorf("positions %v", seen)
		}
	}
}
