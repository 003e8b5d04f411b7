// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The patch (procedure.md 4.3): what it is comes from the person's own repository and is computed again by the service.

func (a *app) patchCommands() []*cobra.Command {
	return []*cobra.Command{
		group("patch", "Register a patch, or read one", a.registerCmd(), a.showPatchCmd()),
		a.reviewCmd(), a.transferCmd(), a.testCmd(), a.forwardCmd(), a.vetoCmd(), a.cycleCmd(),
	}
}

// registration is what a person says of a patch.
type registration struct {
	file, repo, base string
	fresh, bundle    bool
	req              *emergencyv1.RegisterPatchRequest
}

func (a *app) registerCmd() *cobra.Command {
	r := &registration{req: &emergencyv1.RegisterPatchRequest{}}
	var session string
	cmd := leaf("register [FILE] --bug ID", "Register a patch, or a new revision of it (seed 1.5)", `
FILE is a unified diff (git diff, git format-patch) or a git bundle; - reads it from standard input. Digest, base tree and
result tree are computed from your own repository, and again by the service. The base is the branch that the critical host
runs, unless --base names another commit. Where there is a patch already, this is its next revision, and what was decided on
the former one is void; --new registers another patch beside it. With --session it is what a watched session left on the
host, as its agent captured it (seed 3.8); then there is nothing else to name.`, `
  git diff release..fix > fix.diff && epatch patch register fix.diff --bug 1423
  epatch patch register fix.bundle --bug 1423 --repo ~/cacert-webdb --base release
  git diff release | epatch patch register - --bug 1423 --author dora
  epatch patch register --session G1 --bug 1423`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			switch {
			case (len(args) == 1) == (session != ""):
				return usage("name the patch's FILE, or a session by --session")
			case session != "":
				return a.registerSession(cmd.Context(), r, session)
			}
			r.file = args[0]
			return a.register(cmd.Context(), r)
		})
	f := cmd.Flags()
	f.StringVar(&r.repo, "repo", ".", "your repository of the system, path or URL")
	f.StringVar(&r.base, "base", "", "commit or branch that the patch applies to (default: the branch that the host runs)")
	f.StringVar(&r.req.BugId, "bug", "", "bug id in the tracker")
	f.StringVar(&r.req.Author, "author", "", "person who wrote it (default: you)")
	f.StringVar(&r.req.Supersedes, "supersedes", "", "revision that this one replaces (default: the current one, if any)")
	f.BoolVar(&r.fresh, "new", false, "another patch, not a new revision of the current one")
	f.StringVar(&session, "session", "", "grant whose session's difference is registered")
	_ = cmd.RegisterFlagCompletionFunc("session", a.completeGrants)
	f.BoolVar(&r.bundle, "bundle", false, "refuse FILE if it is no git bundle")
	_ = cmd.RegisterFlagCompletionFunc("supersedes", a.completeRevisions) // fails only for a flag that does not exist
	_ = cmd.RegisterFlagCompletionFunc("author", a.completePersons)
	return cmd
}

func (a *app) register(ctx context.Context, r *registration) error {
	data, err := a.patchBytes(r.file)
	if err != nil {
		return err
	}
	if r.bundle && !patch.IsBundle(data) {
		return usage("%s is no git bundle", r.file)
	}
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	base, result, err := a.compute(ctx, r, data, s.state.ReleaseRef())
	if err != nil {
		return err
	}
	req := r.req
	req.Meta, req.Bytes, req.Sha256 = s.meta, data, patch.Digest(data)
	req.BaseCommit, req.BaseTree, req.ResultTree = base, result.BaseTree, result.ResultTree
	if req.Author == "" {
		req.Author = s.person
	}
	replaced := s.replaces(r)
	done := fmt.Sprintf("%s registered, %s changed", procedure.NextRevision(s.state, req.Supersedes), plural(len(result.Paths), "file", "files"))
	if replaced != "" {
		done += "; it replaces " + replaced + ", whose reviews and tests are void"
	}
	if _, err := a.act(ctx, req, "%s", done); err != nil {
		return err
	}
	a.then(ctx, s.state.Incident)
	return nil
}

// registerSession registers what a session left on the host. Everything about it is in the history.
func (a *app) registerSession(ctx context.Context, r *registration, grant string) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	g, ok := s.state.Grant(grant)
	switch {
	case !ok:
		return usage("there is no grant %s in %s", grant, s.state.Incident)
	case g.Diff.Position == 0:
		return fail(exitRefused, "the difference of %s is not captured", grant).hint("it is once the session has ended and the host's agent has answered: epatch status")
	case g.Diff.Problem != "":
		return fail(exitRefused, "the difference of %s is no patch that can be taken as it is: %s", grant, g.Diff.Problem).hint("make one that gives the tree %s, and register that: epatch patch register FILE", g.Diff.AfterTree)
	case g.Diff.Patch == nil:
		return fail(exitRefused, "the session of %s changed nothing in the tree", grant)
	}
	req := r.req
	req.Meta, req.Origin, req.Sha256 = s.meta, emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION, g.Diff.Patch.GetSha256()
	req.BaseCommit, req.BaseTree, req.ResultTree = g.Diff.BaseCommit, g.BeforeTree, g.Diff.AfterTree
	if req.Author == "" {
		req.Author = g.Subject
	}
	r.fresh = r.fresh || req.Supersedes == ""
	if _, err := a.act(ctx, req, "%s registered: what the session of %s left", procedure.NextRevision(s.state, req.Supersedes), grant); err != nil {
		return err
	}
	a.then(ctx, s.state.Incident)
	return nil
}

// replaces decides which revision the registration supersedes.
func (s *scene) replaces(r *registration) string {
	if r.req.Supersedes == "" && !r.fresh {
		if current := s.state.Current(); current != nil {
			r.req.Supersedes = current.ID
		}
	}
	return r.req.Supersedes
}

// maxPatch is what the API takes in one message, with room for the rest of the command.
const maxPatch = 1<<20 - 16<<10

func (a *app) patchBytes(file string) ([]byte, error) {
	in := a.proc.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usage("the patch cannot be read: %v", err)
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPatch+1))
	switch {
	case err != nil:
		return nil, usage("the patch cannot be read: %v", err)
	case len(data) == 0:
		return nil, usage("the patch is empty").hint("is the difference of the right two commits in it?")
	case len(data) > maxPatch:
		return nil, usage("the patch is larger than %d bytes; an emergency patch is smaller", maxPatch)
	}
	return data, nil
}

// compute says in the person's own repository what the patch makes of its base.
func (a *app) compute(ctx context.Context, r *registration, data []byte, release string) (string, gitrepo.Result, error) {
	repo, err := a.repository(ctx, r.repo)
	if err != nil {
		return "", gitrepo.Result{}, err
	}
	base := r.base
	if base == "" {
		base = release
	}
	commit, err := repo.ResolveCommit(ctx, base)
	if err != nil {
		return "", gitrepo.Result{}, err
	}
	var result gitrepo.Result
	if patch.IsBundle(data) {
		result, err = repo.ApplyBundle(ctx, commit.ID, data)
	} else {
		result, err = repo.ApplyPatch(ctx, commit.ID, data)
	}
	return commit.ID, result, err
}

// repository opens a private clone of the person's repository, below the user's cache folder, and brings it up to date.
func (a *app) repository(ctx context.Context, remote string) (*gitrepo.Repo, error) {
	if _, err := os.Stat(remote); err == nil {
		if remote, err = filepath.Abs(remote); err != nil {
			return nil, usage("--repo: %v", err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, usage("no folder for a private clone: %v", err).hint("set HOME or XDG_CACHE_HOME")
	}
	sum := sha256.Sum256([]byte(remote))
	a.progress("reading %s", remote)
	repo, err := gitrepo.Open(ctx, remote, gitrepo.Options{StateDir: filepath.Join(cache, "epatch", "clone-"+hex.EncodeToString(sum[:8]))})
	if err != nil {
		return nil, err
	}
	return repo, repo.Fetch(ctx)
}

func (a *app) showPatchCmd() *cobra.Command {
	var repo string
	var raw bool
	cmd := leaf("show [REVISION]", "Read a patch: what it changes, and that it is the registered one", `
The bytes are hashed here and compared with the registered digest. Characters that a terminal would obey, or that hide or
reorder text, are shown as \x1b or \u202e. With --repo the trees are computed again in your own repository. --raw writes
the bytes as they are, for a file.`, `
  epatch patch show
  epatch patch show P1r2 --repo ~/cacert-webdb
  epatch patch show P1r2 --raw > P1r2.diff`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			return a.showPatch(cmd.Context(), args, repo, raw)
		})
	cmd.Flags().StringVar(&repo, "repo", "", "your repository; the trees are computed again in it")
	cmd.Flags().BoolVar(&raw, "raw", false, "the bytes as registered, and nothing else")
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) showPatch(ctx context.Context, args []string, repo string, raw bool) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	r, err := s.revision(args)
	if err != nil {
		return err
	}
	p, err := s.patch(ctx, r)
	if err != nil {
		return err
	}
	switch {
	case raw:
		_, err = a.proc.Stdout.Write(p.GetBytes())
		return err
	case a.opt.json:
		err = a.out.json(p)
	default:
		a.describePatch(s, r)
	}
	if err == nil && repo != "" {
		err = a.recompute(ctx, repo, r, p.GetBytes())
	}
	if err != nil || a.opt.json {
		return err
	}
	return a.diff(p.GetDiff())
}

// patch fetches a revision's bytes and proves that they are the registered ones.
func (s *scene) patch(ctx context.Context, r *procedure.Revision) (*reviewv1.ReadPatchResponse, error) {
	p, err := s.client.Patches().ReadPatch(ctx, &reviewv1.ReadPatchRequest{Incident: s.state.Incident, Revision: r.ID})
	if err != nil {
		return nil, err
	}
	if got := patch.Digest(p.GetBytes()); got != r.Artefact.GetSha256() {
		return nil, fail(exitUnverified, "the bytes that came for %s are not the registered ones: they hash to %s, registered is %s", r.ID, short(got), short(r.Artefact.GetSha256())).
			hint("do not review or deploy this; tell the operator that the artefact store is damaged or lies")
	}
	if !patch.IsBundle(p.GetBytes()) && !bytes.Equal(p.GetBytes(), p.GetDiff()) {
		return nil, fail(exitUnverified, "the difference shown for %s is not the registered patch", r.ID).hint("read the bytes: epatch patch show %s --raw", r.ID)
	}
	return p, nil
}

func (a *app) describePatch(s *scene, r *procedure.Revision) {
	a.out.line("%s of %s, %s", bold(r.ID), s.state.Incident, procedure.RevisionState(s.state, r))
	a.out.field("author", "%s, registered by %s %s", r.Author, r.By, a.out.at(r.At))
	a.out.field("bug", "%s", r.BugID)
	a.out.field("base", "commit %s", r.BaseCommit)
	a.out.field("base tree", "%s", r.BaseTree)
	a.out.field("result", "%s", r.ResultTree)
	a.out.field("patch", "%s, %s, verified here", r.Artefact.GetSha256(), plural(int(r.Artefact.GetSize()), "byte", "bytes"))
	a.out.field("binding", "%s", r.Binding)
}

// recompute applies the patch in the person's own repository and compares the trees.
func (a *app) recompute(ctx context.Context, repo string, r *procedure.Revision, data []byte) error {
	_, result, err := a.compute(ctx, &registration{repo: repo, base: r.BaseCommit}, data, "")
	if err != nil {
		return err
	}
	if result.BaseTree != r.BaseTree || result.ResultTree != r.ResultTree {
		return fail(exitUnverified, "your repository gives base %s and result %s, registered are %s and %s", short(result.BaseTree), short(result.ResultTree), short(r.BaseTree), short(r.ResultTree)).
			hint("do not approve %s; ask %s what it was made from", r.ID, r.Author)
	}
	if !a.opt.json {
		a.out.field("trees", "%s", good("computed again in "+repo+": the same"))
	}
	return nil
}

// diff writes a unified diff, line by line, harmless.
func (a *app) diff(text []byte) error {
	a.out.line("")
	parsed, err := patch.Parse(text, patch.Options{AllowModeChange: true, AllowBinary: true})
	if err != nil {
		a.out.line("%s the difference could not be read in full: %s", alert("look:"), err)
	} else {
		for _, f := range parsed.Files {
			a.out.line("  %s %s  +%d -%d", string(f.Op), f.Path(), f.Added, f.Removed)
		}
		a.out.line("")
	}
	for _, l := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		a.out.line("%s", diffLine(l))
	}
	return nil
}

func diffLine(l string) styled {
	switch {
	case strings.HasPrefix(l, "+++"), strings.HasPrefix(l, "---"), strings.HasPrefix(l, "diff "), strings.HasPrefix(l, "index "):
		return bold(l)
	case strings.HasPrefix(l, "@@"):
		return dim(l)
	case strings.HasPrefix(l, "+"):
		return good(l)
	case strings.HasPrefix(l, "-"):
		return styled(removedStyle.Render(harmless(l)))
	}
	return styled(harmless(l))
}
