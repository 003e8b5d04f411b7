// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent/session"
)

// Watched console sessions (procedure.md 3.4-3.7, 4.4). What opens something is verified like an apply: in the history that
// the agent has read itself the credential is consumed, the watch is armed, and nothing has ended the access. What lessens
// access needs no word but the service's.

// openConsole prepares for sessions, and ends those of an earlier run.
func (a *Agent) openConsole() error {
	c := a.cfg.Console
	if c.Account == "" {
		return nil
	}
	if a.cfg.Kind != KindHost {
		return errors.New("setting agent-console-account: watched sessions are for critical hosts, this is a test server")
	}
	var err error
	a.sessions, err = session.New(context.Background(), session.Config{
		Account: c.Account, Shared: c.Shared, StateDir: a.cfg.state("sessions"), Program: c.Program, From: c.From, Cgroup: c.Cgroup, Folders: c.Folders,
		KeyFile: cmp.Or(c.Keys, a.cfg.state("console_keys")), Socket: cmp.Or(c.Socket, a.cfg.state("console.sock")),
		Except: []string{a.cfg.Root, a.cfg.StateDir},
	}, a.log, a.deps.Now)
	if err != nil {
		return fmt.Errorf("setting agent-console-account: %w", err)
	}
	return nil
}

// noConsole refuses jobs about sessions where there are none.
func (a *Agent) noConsole() error {
	if a.sessions == nil {
		return refuse(codeNoConsole, "agent %s serves no watched sessions; set agent-console-account on the host", a.cfg.Name)
	}
	return nil
}

// named is the session that a job is about, as everybody on the host calls it.
func named(j *deploymentv1.Job) string { return j.GetIncident() + "/" + j.GetGrant() }

// failed is what the host could not do.
func failed(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, session.ErrUnknown) {
		return refuse(codeNoSession, "%v", err)
	}
	return refuse(codeSession, "%v", err)
}

// openAccess lets the broker's key in, for the session whose credential the job's event has consumed.
func (a *Agent) openAccess(ctx context.Context, j *deploymentv1.Job, d *done) error {
	if err := a.noConsole(); err != nil {
		return err
	}
	position, err := positionOf(j)
	if err != nil {
		return err
	}
	v, err := a.verified(ctx, j, position)
	if err != nil {
		return err
	}
	now := a.deps.Now()
	if refused := procedure.AccessGate(v.state, j.GetGrant(), a.cfg.Name, v.book, now); refused != nil {
		return ungated(refused)
	}
	g, _ := v.state.Grant(j.GetGrant())
	if g.Consumed.Position != position {
		return refuse(codeJobDiffers, "the credential of %s was consumed by position %d, the job names position %d", g.ID, g.Consumed.Position, position)
	}
	// The key is used at once or never, whatever the job says.
	until := g.Consumed.At.Add(v.state.Policy.Duration("grant.first_use"))
	if t := j.GetValidUntil(); t != nil && t.AsTime().Before(until) {
		until = t.AsTime()
	}
	grace := v.state.Policy.Duration("watch.grace")
	if told := time.Duration(j.GetGraceMs()) * time.Millisecond; told > 0 {
		grace = min(grace, told)
	}
	return failed(a.sessions.OpenAccess(ctx, session.Access{
		Grant: named(j), PublicKey: j.GetPublicKey(), Account: j.GetAccount(), Until: until, Grace: grace, Instance: d.instance,
	}))
}

// freezeModes are the modes in the words of events.
func freezeMode(m session.Mode) emergencyv1.FreezeMode {
	switch m {
	case session.ModeCgroup:
		return emergencyv1.FreezeMode_FREEZE_MODE_CGROUP
	case session.ModeProcess:
		return emergencyv1.FreezeMode_FREEZE_MODE_PROCESS
	case session.ModeNone:
	}
	return emergencyv1.FreezeMode_FREEZE_MODE_INPUT
}

func (a *Agent) freezeSession(ctx context.Context, j *deploymentv1.Job, d *done) error {
	if err := a.noConsole(); err != nil {
		return err
	}
	mode, err := a.sessions.Freeze(ctx, named(j))
	d.result.FreezeMode = freezeMode(mode)
	return failed(err)
}

// thawSession lets the processes go on after the event that ended the freeze.
func (a *Agent) thawSession(ctx context.Context, j *deploymentv1.Job, d *done) error {
	if err := a.noConsole(); err != nil {
		return err
	}
	position, err := positionOf(j)
	if err != nil {
		return err
	}
	v, err := a.verified(ctx, j, position)
	if err != nil {
		return err
	}
	if refused := procedure.SessionGate(v.state, j.GetGrant(), a.cfg.Name, v.book, a.deps.Now()); refused != nil {
		return ungated(refused)
	}
	mode, err := a.sessions.Thaw(ctx, named(j))
	d.result.FreezeMode = freezeMode(mode)
	return failed(err)
}

// endAccess takes the key out and kills the processes. Each step is told, also if one failed.
func (a *Agent) endAccess(ctx context.Context, j *deploymentv1.Job, d *done) error {
	if err := a.noConsole(); err != nil {
		return err
	}
	ending, err := a.sessions.End(ctx, named(j), "the service ends the access")
	if err != nil {
		return failed(err)
	}
	for _, s := range ending.Steps {
		d.result.EndResults = append(d.result.EndResults, &emergencyv1.EndResult{
			Effect: s.Effect, Outcome: outcome(s.Outcome), Detail: clean(s.Detail), TookMs: s.Took.Milliseconds(),
		})
	}
	return failed(ending.Err())
}

func outcome(o session.Outcome) emergencyv1.EffectOutcome {
	switch o {
	case session.Done:
		return emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE
	case session.NotNeeded:
		return emergencyv1.EffectOutcome_EFFECT_OUTCOME_NOT_NEEDED
	case session.Failed:
	}
	return emergencyv1.EffectOutcome_EFFECT_OUTCOME_FAILED
}

// granted is a job's grant in the verified history, whose credential was used on this host. What a host's files and processes
// are called, and what is in them, nobody is told without one.
func (a *Agent) granted(ctx context.Context, j *deploymentv1.Job) (*procedure.Grant, error) {
	if err := a.noConsole(); err != nil {
		return nil, err
	}
	v, err := a.verified(ctx, j, 0)
	if err != nil {
		return nil, err
	}
	g, ok := v.state.Grant(j.GetGrant())
	switch {
	case !ok:
		return nil, refuse(codeJobDiffers, "there is no grant %.20q in %s%s", j.GetGrant(), v.state.Incident, v.hint())
	case g.Host != a.cfg.Name:
		return nil, refuse(string(procedure.ReasonDrillBoundary), "grant %s is for host %s, this is %s", g.ID, g.Host, a.cfg.Name)
	case g.Consumed.Position == 0:
		return nil, refuse(string(procedure.ReasonGrantState), "the credential of %s was not used", g.ID)
	}
	return g, nil
}

// maxLeftover keeps the longest list below what one message holds.
const maxLeftover = 1500

// listLeftovers compares the host with what it was like before the session.
func (a *Agent) listLeftovers(ctx context.Context, j *deploymentv1.Job, d *done) error {
	if _, err := a.granted(ctx, j); err != nil {
		return err
	}
	items, err := a.sessions.Leftovers(ctx, named(j))
	if err != nil {
		return failed(err)
	}
	for _, i := range items {
		what := i.Name
		if i.Detail != "" {
			what += " (" + i.Detail + ")"
		}
		if len(what) > maxLeftover {
			what = what[:maxLeftover] + " ..."
		}
		d.result.Leftovers = append(d.result.Leftovers, &emergencyv1.LeftoverFound{Kind: leftoverKind(i.Kind), What: clean(what)})
	}
	return nil
}

func leftoverKind(k session.Kind) emergencyv1.LeftoverKind {
	switch k {
	case session.KindProcess:
		return emergencyv1.LeftoverKind_LEFTOVER_KIND_PROCESS
	case session.KindTimer:
		return emergencyv1.LeftoverKind_LEFTOVER_KIND_TIMER
	case session.KindSocket:
		return emergencyv1.LeftoverKind_LEFTOVER_KIND_SOCKET
	case session.KindKey:
		return emergencyv1.LeftoverKind_LEFTOVER_KIND_AUTHORIZED_KEY
	case session.KindSudo:
		return emergencyv1.LeftoverKind_LEFTOVER_KIND_SUDO_RULE
	case session.KindFile:
		return emergencyv1.LeftoverKind_LEFTOVER_KIND_FILE
	case session.KindUnseen:
	}
	return emergencyv1.LeftoverKind_LEFTOVER_KIND_NOT_LOOKED_AT
}

// readFiles sends files of the versioned tree after a session, so that what it changed becomes a patch.
func (a *Agent) readFiles(ctx context.Context, j *deploymentv1.Job, d *done) error {
	g, err := a.granted(ctx, j)
	if err != nil {
		return err
	}
	if g.Terminated.Position == 0 {
		return refuse(string(procedure.ReasonGrantState), "the session of %s has not ended", g.ID)
	}
	algo, _, err := gittree.ParseID(g.BeforeTree)
	if err != nil {
		return refuse(codeHistory, "the tree before %s: %v", g.ID, err)
	}
	list, err := a.entries(ctx, algo)
	if err != nil {
		return err
	}
	paths := make([]string, len(j.GetPaths()))
	for i, p := range j.GetPaths() {
		paths[i] = string(p)
	}
	if d.contents, err = session.ReadFiles(ctx, a.cfg.Root, list, paths); err != nil {
		return failed(err)
	}
	// Read between two looks at the tree: the contents are those of the tree that is told, or the job is done again.
	again, err := a.entries(ctx, algo)
	if err != nil {
		return err
	}
	if changed := session.Changed(list, again); len(changed) > 0 {
		d.contents = nil
		return away("%d files changed while they were read", len(changed))
	}
	d.result.PostTree, err = gittree.ID(algo, list)
	d.result.PreTree = d.result.PostTree
	return err
}

// entries are the files of the tree on the disk.
func (a *Agent) entries(ctx context.Context, algo gittree.Algo) ([]gittree.Entry, error) {
	files, err := a.tree.Manifest(ctx, algo)
	list := make([]gittree.Entry, len(files))
	for i, f := range files {
		list[i] = gittree.Entry{Path: f.Path, Mode: f.Mode, ID: f.BlobID}
	}
	return list, err
}

// linked tells the sessions whether an instance of the service can be heard.
func (a *Agent) linked(instance string, up bool) {
	if a.sessions != nil {
		a.sessions.Link(instance, up)
	}
}

// catchUp is for the time after an instance of the service was away: sessions that were frozen for that alone go on, if the history says
// that they are live.
func (a *Agent) catchUp(ctx context.Context, instance string) {
	if a.sessions == nil {
		return
	}
	for _, name := range a.sessions.Held(instance) {
		if err := a.goOn(ctx, name); err != nil {
			a.log.WarnContext(ctx, "a session stays frozen", "grant", name, "error", err)
		}
	}
}

// tellEvery is how often the agent looks whether a session has ended of which the service has not heard.
const tellEvery = time.Second

// tellEnds reports what ended here by itself, to whichever instance of the service answers: the one that had the session may be gone.
func (a *Agent) tellEnds(ctx context.Context) {
	if a.sessions == nil {
		return
	}
	look := time.NewTicker(tellEvery)
	defer look.Stop()
	for {
		for _, name := range a.sessions.Untold() {
			incident, grant, _ := strings.Cut(name, "/")
			j := &deploymentv1.Job{Id: "ended." + incident + "." + grant, Incident: incident}
			req := &emergencyv1.TerminateRequest{Meta: meta(j, "end"), Grant: grant, Cause: emergencyv1.SessionCause_SESSION_CAUSE_TARGET_LOST}
			err := a.send(ctx, "Terminate", j, func(ctx context.Context) error {
				_, err := a.deployment.Terminate(ctx, req)
				return err
			})
			if err == nil {
				err = a.sessions.Told(name)
			}
			if err != nil && ctx.Err() == nil {
				a.log.ErrorContext(ctx, "the end of a session is not reported", "grant", name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// goOn lets a session go on that was frozen for the lost link alone.
func (a *Agent) goOn(ctx context.Context, name string) error {
	incident, grant, _ := strings.Cut(name, "/")
	v, err := a.verified(ctx, &deploymentv1.Job{Incident: incident}, 0)
	if err != nil {
		return err
	}
	if refused := procedure.SessionGate(v.state, grant, a.cfg.Name, v.book, a.deps.Now()); refused != nil {
		return ungated(refused)
	}
	_, err = a.sessions.Release(ctx, name)
	return err
}
