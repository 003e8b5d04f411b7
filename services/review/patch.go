// SPDX-License-Identifier: Apache-2.0

package review

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The media types of what is registered.
const (
	mediaDiff   = "text/x-diff"
	mediaBundle = "application/x-git-bundle"
)

// patchFacts computes what the bytes of a registration are (B1). Bytes are kept only if they are the
// patch that the command says, before the event that names them.
func (s *Server) patchFacts(ctx context.Context, req *emergencyv1.RegisterPatchRequest) (procedure.Facts, error) {
	_, wanted, err := s.lacks(ctx, req, service.Caller(ctx), procedure.ReasonDigest)
	if err != nil || !wanted {
		return procedure.Facts{}, err
	}
	data := req.GetBytes()
	if len(data) == 0 { // the rules take only the captured difference of a session for it
		if data, err = s.Artefacts.Get(ctx, req.GetSha256()); err != nil {
			return procedure.Facts{}, service.Away("artefact store: the difference of the session: %w", err)
		}
	}
	p := &procedure.PatchFacts{Artefact: &emergencyv1.Artefact{Sha256: patch.Digest(data), Size: uint64(len(data)), MediaType: mediaType(data)}}
	facts := procedure.Facts{Patch: p}
	if p.Artefact.GetSha256() != req.GetSha256() {
		return facts, nil
	}
	result, err := s.compute(ctx, req.GetBaseCommit(), data)
	if err != nil {
		p.Problem, err = problem(err)
		return facts, err
	}
	p.BaseTree, p.ResultTree, p.Files = result.BaseTree, result.ResultTree, len(result.Paths)
	if p.BaseTree != req.GetBaseTree() || p.ResultTree != req.GetResultTree() {
		return facts, nil // refused for that, so nothing is kept
	}
	if _, err := s.Artefacts.Put(ctx, bytes.NewReader(data), p.Artefact.GetMediaType()); err != nil {
		return facts, service.Away("artefact store: keep the patch: %w", err)
	}
	return facts, nil
}

func mediaType(data []byte) string {
	if patch.IsBundle(data) {
		return mediaBundle
	}
	return mediaDiff
}

// compute says what a patch makes of a base commit, which is fetched if the clone lacks it. Whatever the text alone shows to
// be wrong is refused before git or the network has any work with it.
func (s *Server) compute(ctx context.Context, base string, data []byte) (gitrepo.Result, error) {
	if len(data) > maxPatch {
		return gitrepo.Result{}, &patch.Error{Code: patch.CodeTooLarge, Detail: fmt.Sprintf("the patch has %d bytes, allowed are %d", len(data), maxPatch)}
	}
	if !patch.IsBundle(data) {
		if _, err := patch.Parse(data, patch.Options{MaxBytes: maxPatch}); err != nil {
			return gitrepo.Result{}, err
		}
	}
	c, err := s.commitOf(ctx, base)
	if err != nil {
		return gitrepo.Result{}, err
	}
	// The history names the base for ever, so it must not be a name that moves or may become ambiguous.
	if c.ID != base {
		return gitrepo.Result{}, &gitrepo.Error{Code: gitrepo.CodeArgument, Op: "find the base commit", Detail: "name it by its full id, today " + c.ID, Paths: []string{base}}
	}
	return s.repo.Apply(ctx, base, data)
}

// commitOf finds a commit in the clone, or fetches and looks again.
func (s *Server) commitOf(ctx context.Context, rev string) (gitrepo.Commit, error) {
	c, err := s.repo.ResolveCommit(ctx, rev)
	if code(err) != gitrepo.CodeBaseUnknown {
		return c, err
	}
	if err := s.repo.Fetch(ctx); err != nil {
		return gitrepo.Commit{}, err
	}
	return s.repo.ResolveCommit(ctx, rev)
}

// code is the code of a repository's refusal, empty for other errors and nil.
func code(err error) gitrepo.Code {
	var e *gitrepo.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// problem says why bytes are no acceptable patch, as "CODE path: detail". An error that is not about the bytes is returned:
// then nothing is known of them.
func problem(err error) (string, error) {
	var bad *patch.Error
	var no *gitrepo.Error
	switch {
	case errors.As(err, &bad):
		where := shown(bad.Path)
		if bad.Line > 0 {
			where += " (line " + strconv.Itoa(bad.Line) + ")"
		}
		return place(string(bad.Code), where, bad.Detail), nil
	case errors.As(err, &no) && no.Code == gitrepo.CodeUnavailable:
		return "", repositoryAway(err)
	case errors.As(err, &no):
		where := ""
		if len(no.Paths) > 0 {
			where = shown(no.Paths[0])
		}
		return place(string(no.Code), where, no.Detail), nil
	}
	return "", fmt.Errorf("compute the patch: %w", err)
}

func place(code, where, detail string) string {
	if where = strings.TrimSpace(where); where != "" {
		code += " " + where
	}
	return code + ": " + detail
}

// maxShown bounds what is shown of a path, in bytes.
const maxShown = 200

// shown is a path as people read it: quoted unless it is plain, and not without end.
func shown(path string) string {
	if len(path) > maxShown {
		path = path[:maxShown] + "..."
	}
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == '"' || r >= 0x7f }) {
		return strconv.QuoteToASCII(path)
	}
	return path
}

func repositoryAway(err error) error { return service.Away("repository: %w", err) }

// stored reads the bytes of a revision. They are what was registered, or the refusal names the artefact store.
func (s *Server) stored(ctx context.Context, r *procedure.Revision) ([]byte, error) {
	sha := r.Artefact.GetSha256()
	data, err := s.Artefacts.Get(ctx, sha)
	if err == nil {
		err = artefacts.Verify(sha, data)
	}
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, artefacts.ErrNotFound), errors.Is(err, artefacts.ErrCorrupt), errors.Is(err, artefacts.ErrTooLarge), errors.Is(err, artefacts.ErrDigest):
		s.Log.ErrorContext(ctx, "patch is not in the artefact store as it was registered", "revision", r.ID, "sha256", sha, "error", err)
		return nil, &procedure.Refusal{
			Code: procedure.FailedPrecondition, Reason: procedure.ReasonDigest, Rule: "0.14",
			Message: fmt.Sprintf("artefact store: the bytes of %s with SHA-256 %s are lost or changed", r.ID, sha),
			Allow: []procedure.Allowance{{
				Command: "RegisterPatch", Subject: r.ID,
				Description: "whoever has the patch sends the same bytes again: that they are registered already is then the answer, and the store is mended",
			}},
		}
	}
	return nil, service.Away("artefact store: %w", err)
}

// recompute computes a registered revision again. What comes out is what was registered, or the error names the repository:
// the bytes themselves were hashed before.
func (s *Server) recompute(ctx context.Context, r *procedure.Revision) (gitrepo.Result, error) {
	data, err := s.stored(ctx, r)
	if err != nil {
		return gitrepo.Result{}, err
	}
	result, err := s.compute(ctx, r.BaseCommit, data)
	var about *patch.Error
	switch {
	case err == nil && result.BaseTree == r.BaseTree && result.ResultTree == r.ResultTree:
		return result, nil
	case code(err) == gitrepo.CodeUnavailable:
		return result, repositoryAway(err)
	case err != nil && code(err) == "" && !errors.As(err, &about):
		return result, fmt.Errorf("compute %s again: %w", r.ID, err)
	}
	s.Log.ErrorContext(ctx, "repository does not give the registered trees", "revision", r.ID, "base_tree", result.BaseTree, "result_tree", result.ResultTree, "error", err)
	return result, &procedure.Refusal{
		Code: procedure.FailedPrecondition, Reason: procedure.ReasonResultMismatch, Rule: "0.14",
		Message: fmt.Sprintf("repository: base commit and patch of %s do not give its trees any more", r.ID),
		Allow:   []procedure.Allowance{{Description: "the repository's operator finds out what became of commit " + r.BaseCommit}},
	}
}
