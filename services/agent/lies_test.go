// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

type records = []*emergencyv1.SignedRecord

// lie is a world whose services lie to the agent on the host, in a way that goes unnoticed by whoever believes services.
// The worst of them hold the keys of all services; none holds a key of a person.
type lie struct {
	// tell changes the world and the job. true is the id of the incident whose apply was started.
	tell func(w *world, incident string, j *deploymentv1.Job)
	// first has the agent do a harmless job on the true history before the lie is told.
	first bool
	// later moves the agent's clock on.
	later time.Duration
	code  string
	// point is what the refusal must name.
	point string
	// unrecorded: the lie is about an incident, an apply or a binding of which the true history knows nothing to report.
	unrecorded bool
	// quiet: it may be no lie but a job that comes late.
	quiet bool
}

// show makes the query service show these records of one history.
func (w *world) show(incident string, list records) {
	w.query.Lie = func(asked string, truth records) records {
		if asked == incident {
			return list
		}
		return truth
	}
}

// forge has all services write the incident anew; change is given each record and its command.
func (w *world) forge(incident string, change func(command string, rec *emergencyv1.Record) *emergencyv1.Record) {
	w.Helper()
	w.show(incident, w.Forge(w.Records(incident), func(rec *emergencyv1.Record) *emergencyv1.Record { return change(rec.GetCommand(), rec) }))
}

// edit changes the one record of a command.
func (w *world) edit(incident, command string, change func(*emergencyv1.Record)) {
	w.Helper()
	n := 0
	w.forge(incident, func(c string, rec *emergencyv1.Record) *emergencyv1.Record {
		if c == command {
			change(rec)
			n++
		}
		return rec
	})
	if n != 1 {
		w.Fatalf("%d records of %s, the lie needs one", n, command)
	}
}

// cut shows a history only up to before a command.
func (w *world) cut(incident, command string) records {
	w.Helper()
	list := w.Records(incident)
	for i, s := range list {
		if w.Open(s).GetCommand() == command {
			return list[:i]
		}
	}
	w.Fatalf("no %s", command)
	return nil
}

func lies() map[string]lie {
	return map[string]lie{
		"an approval without signature": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "RecordSecondReview", func(r *emergencyv1.Record) { r.Approval = nil })
			},
			code: "HISTORY_INVALID", point: "RecordSecondReview by bert has no signature",
		},
		"an approval signed by another person's key": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				st := w.State(incident)
				cmd := &emergencyv1.RecordSecondReviewRequest{Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE}
				w.edit(incident, "RecordSecondReview", func(r *emergencyv1.Record) {
					cmd.Meta = &emergencyv1.CommandMeta{Incident: incident, RequestId: r.GetRequestId()}
					cmd.Binding = &emergencyv1.Binding{Revision: st.Current().ID, Digest: st.Current().Binding}
					r.Approval = w.Sign("bert", "anna", st, cmd)
				})
			},
			code: "HISTORY_INVALID", point: "none of bert's",
		},
		"an approval signed by nobody's key under the person's key id": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "RecordSecondReview", func(r *emergencyv1.Record) {
					r.Approval = proto.CloneOf(r.GetApproval())
					r.Approval.Signature[8] ^= 1
				})
			},
			code: "HISTORY_INVALID", point: "the signature does not verify",
		},
		"a review that was asked for changes, shown as an approval": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				st := w.State(incident)
				w.edit(incident, "RecordFirstReview", func(r *emergencyv1.Record) {
					cmd := &emergencyv1.RecordFirstReviewRequest{Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES, Reason: "no"}
					cmd.Meta = &emergencyv1.CommandMeta{Incident: incident, RequestId: r.GetRequestId()}
					cmd.Binding = &emergencyv1.Binding{Revision: st.Current().ID, Digest: st.Current().Binding}
					r.Approval = w.Sign("anna", "anna", st, cmd)
				})
			},
			code: "HISTORY_INVALID", point: `verdict was signed as "changes" and recorded as "approve"`,
		},
		"one reviewer's signature used for both reviews": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				var first *emergencyv1.Record
				w.forge(incident, func(c string, rec *emergencyv1.Record) *emergencyv1.Record {
					switch c {
					case "RecordFirstReview":
						first = proto.CloneOf(rec)
					case "RecordSecondReview":
						rec.Actor, rec.Approval, rec.RequestId = first.GetActor(), first.GetApproval(), first.GetRequestId()
						second := w.Payload(rec.GetEvents()[0]).(*emergencyv1.SecondReviewRecorded)
						second.Reviewer = "anna"
						rec.Events[0] = w.Event(procedure.OwnerReview, second)
					}
					return rec
				})
			},
			code: "HISTORY_INVALID", point: "RecordSecondReview by anna was signed for another command",
		},
		"the second review left out": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.forge(incident, func(c string, rec *emergencyv1.Record) *emergencyv1.Record {
					if c == "RecordSecondReview" {
						return nil
					}
					return rec
				})
			},
			code: "HISTORY_SHORT", point: "ends at position",
		},
		"tests by people who are none": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.forge(incident, func(c string, rec *emergencyv1.Record) *emergencyv1.Record {
					if c == "ReportTest" {
						rec.Actor = proto.CloneOf(rec.GetActor())
						rec.Actor.Person = "dora"
					}
					return rec
				})
			},
			code: "HISTORY_INVALID", point: "dora did not hold the role",
		},
		"a start that the executor did not sign": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "StartApply", func(r *emergencyv1.Record) { r.Approval = nil })
			},
			code: "HISTORY_INVALID", point: "StartApply by carla has no signature",
		},
		"a start for another host": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "StartApply", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.ApplyStarted)
					e.Host = "www1-drill"
					r.Events[0] = w.Event(procedure.OwnerDeployment, e)
				})
			},
			code: "DRILL_BOUNDARY", point: "www1-drill",
		},
		"another patch, bytes only": {
			tell: func(w *world, _ string, _ *deploymentv1.Job) {
				w.review.Lie = func(b []byte) []byte { return bytes.Replace(b, []byte("'secure'"), []byte("'unsafe'"), 1) }
			},
			code: "PATCH_DIFFERS", point: "reviewed was",
		},
		"another patch, bytes and the job's digest": {
			tell: func(w *world, _ string, j *deploymentv1.Job) {
				evil := bytes.Replace(w.Patch, []byte("'secure'"), []byte("'unsafe'"), 1)
				w.review.Lie = func([]byte) []byte { return evil }
				j.PatchSha256 = patch.Digest(evil)
			},
			code: "JOB_DIFFERS", point: "patch digest",
		},
		"another patch everywhere": {
			tell: func(w *world, incident string, j *deploymentv1.Job) {
				evil := bytes.Replace(w.Patch, []byte("'secure'"), []byte("'unsafe'"), 1)
				w.review.Lie = func([]byte) []byte { return evil }
				j.PatchSha256 = patch.Digest(evil)
				w.edit(incident, "RegisterPatch", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.PatchRegistered)
					e.Patch.Sha256 = patch.Digest(evil)
					r.Events[0] = w.Event(procedure.OwnerReview, e)
				})
			},
			code: "HISTORY_INVALID", point: "the binding of P1r1 is not that of its bytes",
		},
		"another result tree in the job": {
			tell: func(_ *world, _ string, j *deploymentv1.Job) { j.ResultTree = "sha1:" + strings.Repeat("1", 40) },
			code: "JOB_DIFFERS", point: "result tree",
		},
		"another base tree in the job": {
			tell: func(_ *world, _ string, j *deploymentv1.Job) { j.BaseTree = "sha1:" + strings.Repeat("2", 40) },
			code: "JOB_DIFFERS", point: "base tree",
		},
		"another binding in the job": {
			tell: func(_ *world, _ string, j *deploymentv1.Job) {
				j.Binding = &emergencyv1.Binding{Revision: "P1r1", Digest: strings.Repeat("3", 64)}
			},
			code: "JOB_DIFFERS", point: "binding",
		},
		"another result tree in the history": {
			tell: func(w *world, incident string, j *deploymentv1.Job) {
				j.ResultTree = "sha1:" + strings.Repeat("1", 40)
				w.edit(incident, "RegisterPatch", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.PatchRegistered)
					e.ResultTree = j.GetResultTree()
					b := e.GetBinding()
					b.Digest = procedure.BindingDigest(incident, b.GetRevision(), e.GetPatch().GetSha256(), e.GetBaseTree(), e.GetResultTree(), r.GetPolicyDigest())
					j.Binding = b
					r.Events[0] = w.Event(procedure.OwnerReview, e)
				})
			},
			code: "HISTORY_INVALID", point: "RegisterPatch by dora was signed for another", unrecorded: true,
		},
		"the history without the start": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) { w.show(incident, w.cut(incident, "StartApply")) },
			code: "HISTORY_SHORT", point: "the job is asked for by position",
		},
		"no history at all": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) { w.show(incident, nil) },
			code: "HISTORY_SHORT", point: "ends at position 0",
		},
		"a history that was longer before": {
			first: true,
			tell: func(w *world, incident string, j *deploymentv1.Job) {
				w.show(incident, w.cut(incident, "StartApply"))
				j.Id = incident + "/1"
			},
			code: "HISTORY_ROLLED_BACK", point: "was seen up to",
		},
		"another history than before": {
			first: true,
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Declare", func(r *emergencyv1.Record) { r.Authority = "another" })
			},
			code: "HISTORY_OTHER", point: "another record than the one seen before",
		},
		"another rule book than before": {
			first: true,
			tell: func(w *world, _ string, _ *deploymentv1.Job) {
				w.forge(procedure.RuleBook, func(_ string, rec *emergencyv1.Record) *emergencyv1.Record {
					rec.Authority = "another"
					return rec
				})
			},
			code: "HISTORY_OTHER", point: "of rulebook",
		},
		"a rule book that ends too early": {
			tell: func(w *world, _ string, _ *deploymentv1.Job) { w.show(procedure.RuleBook, nil) },
			code: "HISTORY_SHORT", point: "of the rule book, which is shown only up to 0",
		},
		"an old incident in the place of this one": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				old := w.Started(false)
				w.show(incident, w.Records(old))
			},
			code: "HISTORY_SHORT", point: "WRONG_SUBJECT",
		},
		"an old job of an apply that is over": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.Do("www1", incident, &emergencyv1.ReportApplyRequest{Outcome: emergencyv1.ApplyOutcome_APPLY_OUTCOME_APPLIED}, procedure.Facts{})
				w.Do("www1", incident, &emergencyv1.ReportTreeRequest{PreTree: w.BaseTree(), PostTree: w.ResultTree()}, procedure.Facts{})
			},
			code: "NO_APPLY_RUNNING", point: "VERIFIED", unrecorded: true, quiet: true,
		},
		"an old apply to an agent that never saw it": {
			later: 3 * time.Hour,
			tell:  func(*world, string, *deploymentv1.Job) {},
			code:  "DRY_RUN_MISSING", point: "ago",
		},
		"a job that names another event": {
			tell: func(_ *world, incident string, j *deploymentv1.Job) { j.Id = incident + "/2" },
			code: "JOB_DIFFERS", point: "the job names position 2",
		},
		"a job of another incident's event": {
			tell: func(_ *world, _ string, j *deploymentv1.Job) { j.Id = "e20200101.1/5" },
			code: "JOB", point: "is no event of incident",
			unrecorded: true,
		},
		"a start signed by another service": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				list := w.Records(incident)
				rec := w.Open(list[len(list)-1])
				forged, _ := w.Seal(rec, procedure.OwnerReview) // names deployment as its owner
				w.show(incident, append(w.cut(incident, "StartApply"), forged))
			},
			code: "HISTORY_SHORT", point: "WRONG_OWNER",
		},
		"a start that another service holds as its own": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				list := w.Records(incident)
				rec := w.Open(list[len(list)-1])
				rec.Owner = procedure.OwnerReview
				forged, _ := w.Seal(rec, procedure.OwnerReview)
				w.show(incident, append(w.cut(incident, "StartApply"), forged))
			},
			code: "HISTORY_SHORT", point: "FOREIGN_EVENT_TYPE",
		},
		"a start signed by a key that is no service's": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				list := w.Records(incident)
				key, _, err := w.CA.SigningKey("intruder")
				w.Must(err)
				signer, err := history.NewSigner(key)
				w.Must(err)
				w.Signers["intruder"] = signer
				forged, _ := w.Seal(w.Open(list[len(list)-1]), "intruder")
				w.show(incident, append(w.cut(incident, "StartApply"), forged))
			},
			code: "HISTORY_SHORT", point: "UNKNOWN_KEY",
		},
		"a damaged record": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				list := w.Records(incident)
				last := proto.CloneOf(list[len(list)-1])
				last.Record[len(last.Record)/2] ^= 1
				w.show(incident, append(list[:len(list)-1:len(list)-1], last))
			},
			code: "HISTORY_SHORT", point: "BAD_SIGNATURE",
		},
	}
}

// TestLies: whatever services say, the agent refuses and names the point, the host keeps its tree, and the true history
// says that the agent refused.
func TestLies(t *testing.T) {
	t.Parallel()
	for name, l := range lies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := scripted(t)
			incident := w.Started(false)
			j := w.ApplyJob(incident)
			truth := proto.CloneOf(j)
			c := config(w.Rig, w.addr)
			c.Patience = 200 * time.Millisecond
			start(w.Rig, c, func() time.Time { return time.Now().Add(l.later) })
			if l.first {
				dry := proto.CloneOf(truth)
				dry.Id, dry.Kind = "dry-run.first", deploymentv1.JobKind_JOB_KIND_DRY_RUN
				if r := w.run(dry); !r.GetOk() {
					t.Fatalf("the dry run before: %v", r)
				}
			}
			l.tell(w, incident, j)
			r := w.run(j)
			if r.GetOk() || r.GetErrorCode() != l.code || !strings.Contains(r.GetErrorDetail(), l.point) {
				t.Errorf("answer %s %q, want %s naming %q", r.GetErrorCode(), r.GetErrorDetail(), l.code, l.point)
			}
			w.wantTree(w.HostRoot, w.BaseTree())
			if !l.unrecorded {
				w.wantRefused(incident)
			}
			if !strings.Contains(w.LogText.String(), "ALARM") && !l.quiet {
				t.Error("no alarm in the log")
			}
		})
	}
}

// wantRefused: the history says that the agent did not apply, and that the host holds what it held.
func (w *world) wantRefused(incident string) {
	w.Helper()
	a := w.wantState(incident, procedure.BackedOut)
	if a.HostTree != w.BaseTree() || a.Applied.Position != 0 {
		w.Errorf("apply is recorded as %+v", a)
	}
}

// TestTruthIsDone: the same script without a lie is done, so that the refusals above are not those of a broken script.
func TestTruthIsDone(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{false, true} {
		w := scripted(t)
		incident := w.Started(false)
		j := w.ApplyJob(incident)
		start(w.Rig, config(w.Rig, w.addr), nil)
		if first {
			dry := proto.CloneOf(j)
			dry.Id, dry.Kind = "dry-run.first", deploymentv1.JobKind_JOB_KIND_DRY_RUN
			w.run(dry)
		}
		// Noise that anybody with a stolen broker credential can make must not keep the agent from its work.
		w.query.Lie = func(_ string, list records) records {
			noisy := records{{Record: []byte("noise"), KeyId: "none", Signature: []byte("none")}}
			return append(append(noisy, list...), list[0])
		}
		if r := w.run(j); !r.GetOk() || r.GetPostTree() != w.ResultTree() {
			t.Errorf("answer %v", r)
		}
		w.wantState(incident, procedure.Verified)
		w.wantTree(w.HostRoot, w.ResultTree())
		if r := w.run(j); !r.GetOk() || r.GetPostTree() != w.ResultTree() {
			t.Errorf("asked again: %v", r)
		}
	}
}
