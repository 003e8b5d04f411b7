// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
)

// CommitSpec says everything that a commit consists of.
type CommitSpec struct {
	BaseCommit        string // the only parent
	ResultTree        string // prefixed id, as ApplyPatch returned it
	Author, Committer Person
	Message           string
	When              time.Time // of both author and committer, to the second, written in UTC
}

// CommitTree creates the commit in the clone and returns its id. The same values give the same id, however
// often and wherever it is called, so a repeated transfer makes no second commit.
func (r *Repo) CommitTree(ctx context.Context, s CommitSpec) (string, error) {
	for _, p := range []Person{s.Author, s.Committer} {
		if p.Name == "" || p.Email == "" || strings.ContainsFunc(p.Name+p.Email, func(c rune) bool { return c < ' ' || c == '<' || c == '>' || c == 0x7f }) {
			return "", refuse(CodeArgument, "commit", "author and committer need a name and an address without control characters and angle brackets", nil)
		}
	}
	if strings.TrimSpace(s.Message) == "" || strings.IndexByte(s.Message, 0) >= 0 || s.When.Unix() < 0 {
		return "", refuse(CodeArgument, "commit", "a message and a time after 1970 are needed", nil)
	}
	base, err := r.ResolveCommit(ctx, s.BaseCommit)
	if err != nil {
		return "", err
	}
	tree, err := r.treeID(ctx, s.ResultTree)
	if err != nil {
		return "", err
	}
	at := fmt.Sprintf("%d +0000", s.When.Unix())
	out, err := r.git.Run(ctx, gitcmd.Call{
		GitDir: r.dir, Args: []string{"commit-tree", "-p", base.ID, "-F", "-", tree}, Stdin: strings.NewReader(s.Message),
		Env: []string{
			"GIT_AUTHOR_NAME=" + s.Author.Name, "GIT_AUTHOR_EMAIL=" + s.Author.Email, "GIT_AUTHOR_DATE=" + at,
			"GIT_COMMITTER_NAME=" + s.Committer.Name, "GIT_COMMITTER_EMAIL=" + s.Committer.Email, "GIT_COMMITTER_DATE=" + at,
		},
	})
	if err != nil {
		return "", asRefusal(err, func(err error) error {
			return refuse(CodeBaseUnknown, "commit", "the result tree is not in the clone; apply the patch first", err)
		})
	}
	return strings.TrimSpace(string(out)), nil
}

// Push moves a branch of the remote from expectOld to the commit, and only forward; expectOld "" creates
// the branch. It may be repeated: if the branch already has the commit, that is success. Afterwards the
// ref is read back from the remote, also when the answer was lost on the way.
func (r *Repo) Push(ctx context.Context, commit, ref, expectOld string) error {
	if err := checkRef(ref); err != nil {
		return err
	}
	if !strings.HasPrefix(ref, "refs/heads/") {
		return refuse(CodeRef, "push", "only branches are pushed", nil)
	}
	c, err := r.ResolveCommit(ctx, commit)
	if err != nil {
		return err
	}
	now, err := r.RemoteRef(ctx, ref)
	if err != nil || now == c.ID {
		return err
	}
	if now != expectOld {
		return refuse(CodeNotFastForward, "push", "the branch is not where it was expected; fetch, and decide on its new head", nil)
	}
	if err := r.growsFrom(ctx, expectOld, c.ID); err != nil {
		return err
	}
	_, pushErr := r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Args: []string{
		"push", "--porcelain", "--no-verify", "--no-follow-tags", "--force-with-lease=" + ref + ":" + expectOld, "--", r.remote, c.ID + ":" + ref,
	}})
	now, err = r.RemoteRef(ctx, ref)
	switch {
	case err != nil:
		return errors.Join(err, pushErr)
	case now == c.ID:
		return nil
	case pushErr == nil:
		return refuse(CodeNotFastForward, "push", "the push was accepted but the branch has another commit now", nil)
	}
	return pushRefusal(pushErr)
}

// growsFrom: a lease alone would let a branch lose commits.
func (r *Repo) growsFrom(ctx context.Context, old, commit string) error {
	if old == "" {
		return nil
	}
	c, err := r.ResolveCommit(ctx, old)
	if err != nil {
		return err
	}
	_, err = r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Args: []string{"merge-base", "--is-ancestor", c.ID, commit}})
	if err != nil {
		return asRefusal(err, func(err error) error {
			return refuse(CodeNotFastForward, "push", "the commit does not grow from the branch's head; apply the patch to that head", err)
		})
	}
	return nil
}

// pushRefusal reads the line "!<TAB>from:to<TAB>[why] (reason)" of a refused push.
func pushRefusal(err error) error {
	var failure *gitcmd.Failure
	if !errors.As(err, &failure) {
		return unavailable("push", err)
	}
	for line := range strings.SplitSeq(failure.Stdout, "\n") {
		fields := strings.SplitN(line, "\t", 3)
		if len(fields) != 3 || fields[0] != "!" {
			continue
		}
		why := fields[2]
		if strings.HasPrefix(why, "[rejected]") || strings.Contains(why, "failed to update ref") || strings.Contains(why, "cannot lock ref") || strings.Contains(why, "reference already exists") {
			return refuse(CodeNotFastForward, "push", "the branch has moved meanwhile; fetch, and decide on its new head", err)
		}
		return refuse(CodeRef, "push", "the repository refuses the change of this branch", err)
	}
	return unavailable("push", err)
}
