// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const gateway = emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY

// aftermath is what follows the end of a session, whoever ended it: the host's agent is asked what it left and what it
// changed. The two do not wait for each other.
func (s *Server) aftermath(rec *projection.Record, e projection.Event, grant string) []effect.Effect {
	after := func(what string, run func(context.Context, *projection.Record, projection.Event, string) error) effect.Effect {
		return effect.Effect{Key: rec.ID(e) + "/" + what, Run: func(ctx context.Context) error { return run(ctx, rec, e, grant) }, Repeatable: true}
	}
	return []effect.Effect{after("leftovers", s.lookForLeftovers), after("difference", s.capture)}
}

// opened returns a grant whose session was opened; nothing follows the end of one that was not.
func (s *Server) opened(ctx context.Context, incident, grant string) (*procedure.State, *procedure.Grant, error) {
	st, err := s.Dispatch.State(ctx, incident)
	if err != nil {
		return nil, nil, err
	}
	g, ok := st.Grant(grant)
	if !ok || g.Opened.Position == 0 {
		return st, nil, nil
	}
	return st, g, nil
}

func (s *Server) lookForLeftovers(ctx context.Context, rec *projection.Record, e projection.Event, grant string) error {
	st, g, err := s.opened(ctx, rec.Incident, grant)
	if err != nil || g == nil {
		return err
	}
	facts, err := s.leftovers(ctx, st, g)
	if err != nil {
		return err
	}
	_, err = s.Follow(ctx, &emergencyv1.ReportLeftoversRequest{Meta: service.FollowMeta(rec, e, "leftovers"), Grant: grant}, rec, e, s.System(gateway), facts)
	return s.settled(ctx, rec, grant, err)
}

func (s *Server) capture(ctx context.Context, rec *projection.Record, e projection.Event, grant string) error {
	st, g, err := s.opened(ctx, rec.Incident, grant)
	if err != nil || g == nil {
		return err
	}
	facts, err := s.afterSession(ctx, st, grant)
	if err == nil {
		_, err = s.Follow(ctx, &emergencyv1.CaptureSessionDiffRequest{Meta: service.FollowMeta(rec, e, "difference"), Grant: grant}, rec, e, s.System(gateway), facts)
	}
	return s.settled(ctx, rec, grant, err)
}

// settled ends an effect that the rules or the agent refuse: it is for a critical admin then, who gives the command by hand.
func (s *Server) settled(ctx context.Context, rec *projection.Record, grant string, err error) error {
	var refusal *procedure.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	if refusal.Reason == procedure.ReasonGrantState { // somebody was faster
		return nil
	}
	s.Log.ErrorContext(ctx, "what a session left is not recorded; a critical admin has to see to it", "incident", rec.Incident, "grant", grant, "reason", string(refusal.Reason), "error", refusal.Message)
	return nil
}

// leftoversFor are the facts of a command that reports leftovers.
func (s *Server) leftoversFor(ctx context.Context, req *emergencyv1.ReportLeftoversRequest) (procedure.Facts, error) {
	st, err := s.Dispatch.State(ctx, req.GetMeta().GetIncident())
	if err != nil {
		return procedure.Facts{}, service.Retryable(err)
	}
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return procedure.Facts{}, service.Retryable(err)
	}
	if actor, refusal := procedure.ActorOf(req, procedure.Env{Now: s.Clock.Now(), Actor: service.Caller(ctx), Book: book}); refusal == nil && actor.GetPerson() == "" {
		return procedure.Facts{}, nil // an agent says what it found itself
	}
	env := procedure.Env{Owner: s.Owner, Now: s.Clock.Now(), Actor: service.Caller(ctx), Book: book, Salt: make([]byte, 32)} // nothing of this is kept
	decision, refusal, err := procedure.Decide(st, req, env)
	if err != nil || refusal != nil || decision.Repeated != nil {
		return procedure.Facts{}, err
	}
	g, _ := st.Grant(req.GetGrant())
	facts, err := s.leftovers(ctx, st, g)
	if err != nil {
		s.Log.WarnContext(ctx, "nobody could look for what a session left", "incident", st.Incident, "grant", g.ID, "error", err)
		return procedure.Facts{}, nil
	}
	return facts, nil
}

// leftovers asks the host's agent what a session left. That it refuses to look is found too; that it is away is an error.
func (s *Server) leftovers(ctx context.Context, st *procedure.State, g *procedure.Grant) (procedure.Facts, error) {
	j := &deploymentv1.Job{Id: jobID("leftovers"), Kind: deploymentv1.JobKind_JOB_KIND_LIST_LEFTOVERS, Incident: st.Incident, Grant: g.ID}
	ans, err := s.ask(ctx, st, j)
	if err != nil {
		return procedure.Facts{}, err
	}
	if !ans.GetOk() {
		s.Log.ErrorContext(ctx, "the agent does not look for what a session left", "incident", st.Incident, "grant", g.ID, "host", g.Host, "code", ans.GetErrorCode(), "detail", ans.GetErrorDetail())
		return procedure.Facts{Console: &procedure.ConsoleFacts{}}, nil
	}
	return procedure.Facts{Console: &procedure.ConsoleFacts{Looked: true, Leftovers: ans.GetLeftovers()}}, nil
}

// afterSession computes what the session changed: the tree after it, the paths, and the difference as a patch on the commit
// whose tree the host had before. What no patch can be made of is said, and everything that is known is kept.
func (s *Server) afterSession(ctx context.Context, st *procedure.State, grant string) (procedure.Facts, error) {
	g, ok := st.Grant(grant)
	if !ok {
		return procedure.Facts{}, nil
	}
	ans, err := s.tree(ctx, st, g.BeforeTree, true)
	if err != nil {
		return procedure.Facts{}, err
	}
	x := &procedure.DiffFacts{}
	if x.HostTree, err = s.listed(ctx, g.Host, ans); err != nil {
		return procedure.Facts{}, err
	}
	if x.Tree != g.BeforeTree {
		if err := s.differ(ctx, st, g, ans.Files, x); err != nil {
			return procedure.Facts{}, err
		}
	}
	return procedure.Facts{Console: &procedure.ConsoleFacts{After: x}}, nil
}

// differ fills in paths and patch.
func (s *Server) differ(ctx context.Context, st *procedure.State, g *procedure.Grant, after []gittree.Entry, x *procedure.DiffFacts) error {
	before, err := s.files(ctx, g.BeforeManifest, g.BeforeTree)
	if errors.Is(err, artefacts.ErrNotFound) || errors.Is(err, artefacts.ErrCorrupt) {
		x.Problem = "the list of files before the session is lost"
		return nil
	}
	if err != nil {
		return service.Away("artefacts: %w", err)
	}
	changes := gittree.Diff(before, after)
	for _, c := range changes {
		x.Paths = append(x.Paths, c.Path)
	}
	contents, problem, err := s.contents(ctx, st, g, changes, x.Tree)
	if err != nil || problem != "" {
		x.Problem = problem
		return err
	}
	if err := s.repo.Fetch(ctx); err != nil {
		return repoError(err)
	}
	base, err := s.repo.CommitWithTree(ctx, g.BeforeTree)
	if err == nil {
		x.BaseCommit = base.ID
		err = s.asPatch(ctx, base.ID, after, contents, x)
	}
	var e *gitrepo.Error
	if errors.As(err, &e) && e.Code != gitrepo.CodeUnavailable {
		x.Problem, err = problemOf(err), nil
	}
	if errors.As(err, &e) {
		return service.Away("repository: %w", err)
	}
	return err
}

// asPatch makes the patch and stores it, also if it may not be registered: it is evidence.
func (s *Server) asPatch(ctx context.Context, base string, after []gittree.Entry, contents []gitrepo.Content, x *procedure.DiffFacts) error {
	d, err := s.repo.Difference(ctx, base, after, contents)
	if err != nil {
		return err
	}
	if d.Problem != nil {
		x.Problem = problemOf(d.Problem)
	}
	x.Patch, err = s.keep(ctx, bytes.NewReader(d.Patch), "text/x-diff")
	if errors.Is(err, artefacts.ErrTooLarge) {
		x.Problem, err = "the difference is larger than what is kept", nil
	}
	return err
}

// problemOf is why there is no patch that could be registered, in words that name no path: paths are restricted.
func problemOf(err error) string {
	var unfit *patch.Error
	if errors.As(err, &unfit) {
		return fmt.Sprintf("%s: %s", unfit.Code, unfit.Detail)
	}
	var e *gitrepo.Error
	if errors.As(err, &e) {
		return fmt.Sprintf("%s: %s", e.Code, e.Detail)
	}
	return "the difference could not be made a patch"
}

// contents fetches the changed files from the host. They must be those of the tree that was listed, else the host is still
// being changed and everything is asked for again.
func (s *Server) contents(ctx context.Context, st *procedure.State, g *procedure.Grant, changes []gittree.Change, tree string) (list []gitrepo.Content, problem string, err error) {
	j := &deploymentv1.Job{Id: jobID("files"), Kind: deploymentv1.JobKind_JOB_KIND_READ_FILES, Incident: st.Incident, Grant: g.ID}
	for _, c := range changes {
		j.Paths = append(j.Paths, []byte(c.Path))
	}
	ans, err := s.ask(ctx, st, j)
	if err != nil {
		return nil, "", err
	}
	if !ans.GetOk() {
		s.Log.ErrorContext(ctx, "the agent does not send what a session changed", "incident", st.Incident, "grant", g.ID, "host", g.Host, "code", ans.GetErrorCode(), "detail", ans.GetErrorDetail())
		return nil, fmt.Sprintf("the agent on the host does not send the changed files (%s)", ans.GetErrorCode()), nil
	}
	if ans.GetPostTree() != tree {
		return nil, "", service.Away("the files on %s are being changed", g.Host)
	}
	for _, c := range ans.Contents {
		list = append(list, gitrepo.Content{Path: c.Path, Mode: c.Mode, Data: c.Data})
	}
	return list, "", nil
}
