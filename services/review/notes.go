// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/review/tracker"
)

// auto asks the service to write the note of a test.
const auto = "auto"

// noteID names a note before it is written, so that a test never waits for the tracker. It depends on what asked for the
// note and not on its place in the history, so a command that is decided again keeps it.
func noteID(incident, cause string) string {
	sum := sha256.Sum256([]byte(cause))
	return "epatch-" + incident + "-" + hex.EncodeToString(sum[:8])
}

// testNote is the note of a test: request ids are unique for a person, not for all (G3).
func testNote(incident, person, requestID string) string {
	return noteID(incident, "test "+person+" "+requestID)
}

// noteFacts chooses the note of a test, if the tester asks for it and the tracker can take it. Where it cannot, the rules
// refuse a test without a note.
func (s *Server) noteFacts(ctx context.Context, req *emergencyv1.ReportTestRequest) (procedure.Facts, error) {
	if req.GetBugNote() != auto || s.tracker == nil {
		return procedure.Facts{}, nil
	}
	st, err := s.Dispatch.State(ctx, req.GetMeta().GetIncident())
	if err != nil {
		return procedure.Facts{}, service.Retryable(err)
	}
	r, ok := st.Revision(req.GetBinding().GetRevision())
	if !ok {
		return procedure.Facts{}, nil // refused for that
	}
	if _, ok := tracker.Issue(r.BugID); !ok {
		return procedure.Facts{}, nil
	}
	tester, err := s.Giver(ctx, req)
	var refusal *procedure.Refusal
	if errors.As(err, &refusal) {
		return procedure.Facts{}, nil // refused for that
	}
	if err != nil {
		return procedure.Facts{}, err
	}
	return procedure.Facts{BugNote: testNote(st.Incident, tester.GetPerson(), req.GetMeta().GetRequestId())}, nil
}

// note delivers a note once the tracker takes it. The text must hold public fields only: many can read a tracker, and what
// was written there cannot be redacted.
func (s *Server) note(rec *projection.Record, e projection.Event, id string, b *emergencyv1.Binding, headline, more string) []effect.Effect {
	if s.tracker == nil {
		return nil
	}
	return []effect.Effect{{Key: rec.ID(e) + "/note", Repeatable: true, Run: func(ctx context.Context) error {
		st, err := s.Dispatch.State(ctx, rec.Incident)
		if err != nil {
			return err
		}
		r, ok := st.Revision(b.GetRevision())
		if !ok {
			return fmt.Errorf("%w: there is no revision %s", effect.ErrGiveUp, b.GetRevision())
		}
		issue, ok := tracker.Issue(r.BugID)
		if !ok {
			return fmt.Errorf("%w: bug id %s has no number in the tracker", effect.ErrGiveUp, r.BugID)
		}
		kind := "Emergency"
		if st.Declared.Drill {
			kind = "Drill (no real emergency)"
		}
		text := fmt.Sprintf("%s %s: %s\n\nRevision: %s\nBinding: %s\n%sRecorded: %s, event %s\n",
			kind, rec.Incident, headline, r.ID, r.Binding, more, rec.Record.GetRecordedAt().AsTime().UTC().Format(time.RFC3339), rec.ID(e))
		err = s.tracker.Deliver(ctx, issue, id, text)
		if errors.Is(err, tracker.ErrRefused) {
			return fmt.Errorf("%w: %w", effect.ErrGiveUp, err)
		}
		return err
	}}}
}

func (s *Server) transferNote(rec *projection.Record, e projection.Event, p *emergencyv1.PatchTransferred) []effect.Effect {
	more := fmt.Sprintf("Tree: %s\nCommit: %s\nBranch: %s\n", p.GetCommitTree(), p.GetCommit(), p.GetRef())
	return s.note(rec, e, noteID(rec.Incident, rec.ID(e)), p.GetBinding(), "reviewed patch is in the repository", more)
}

// testNoteOf delivers the note of a test that asked for it; a note that the tester named is the tester's own.
func (s *Server) testNoteOf(rec *projection.Record, e projection.Event, p *emergencyv1.TestReported) []effect.Effect {
	id := testNote(rec.Incident, rec.Record.GetActor().GetPerson(), rec.Record.GetRequestId())
	if p.GetBugNote() != id {
		return nil
	}
	result := "failed"
	if p.GetResult() == emergencyv1.TestResult_TEST_RESULT_PASS {
		result = "passed"
	}
	return s.note(rec, e, id, p.GetBinding(), "a test "+result, "Tested tree: "+p.GetEnvironmentTree()+"\n")
}

func (s *Server) forwardNote(rec *projection.Record, e projection.Event, p *emergencyv1.PatchForwarded) []effect.Effect {
	return s.note(rec, e, noteID(rec.Incident, rec.ID(e)), p.GetBinding(), "patch is forwarded to the critical team", "")
}
