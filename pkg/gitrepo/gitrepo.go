// SPDX-License-Identifier: Apache-2.0

// Package gitrepo is what the services do with the repository of the patched software: find commits,
// compute what a patch makes of a base, commit exactly that result, push it, and compare trees.
//
// It works in a private bare clone inside a state folder and never has a work tree. It computes every
// tree itself and believes neither a patch's nor a remote's claim about one (procedure.md 0.14): after
// applying, the difference of the two trees is held against what the patch declared; after pushing, the
// remote's ref is read back. Repositories are run without hooks, filters, attributes and submodules
// (hardening 1.9). One exception lies outside our reach: a remote given as a local path runs its own
// server-side hooks when it is pushed to, as any server would.
//
// All methods are safe for concurrent use, by one process for one state folder.
package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// Options of Open.
type Options struct {
	// StateDir holds the private clone; required. It is created, with mode 0700.
	StateDir string
	// Git is the path of the git program; default: git from the PATH of this process.
	Git string
	// Timeout bounds each call of git; default 2 minutes.
	Timeout time.Duration
	// Env is added to git's environment, for the operator's GIT_SSH_COMMAND, SSH_AUTH_SOCK and the like.
	Env []string
	// Patch are the limits and permissions for patches.
	Patch patch.Options
	// MaxBundle is the largest bundle in bytes; default 64 MiB.
	MaxBundle int
}

// Repo is one repository and our private clone of it.
type Repo struct {
	git    *gitcmd.Git
	remote string // path or URL as the operator gave it
	dir    string // the private clone
	tmp    string // folder for temporary indexes and quarantines
	opts   Options

	fetching sync.Mutex // one fetch at a time; also guards the clone's creation
}

// Open prepares to use the repository at a local path or URL (https, ssh, or scp-like host:path) given by
// the operator. It needs no network: the clone is filled by Fetch, so that a service starts while the
// repository is down.
func Open(ctx context.Context, remote string, o Options) (*Repo, error) {
	protocol, remote, err := remoteProtocol(remote)
	if err != nil {
		return nil, err
	}
	if o.StateDir == "" {
		return nil, refuse(CodeArgument, "open repository", "no state folder is set", nil)
	}
	if o.MaxBundle <= 0 {
		o.MaxBundle = 64 << 20
	}
	git, err := gitcmd.New(ctx, gitcmd.Options{Program: o.Git, Timeout: o.Timeout, Protocols: []string{protocol}, Env: o.Env})
	if err != nil {
		return nil, err
	}
	state, err := filepath.Abs(o.StateDir)
	if err != nil {
		return nil, err
	}
	r := &Repo{git: git, remote: remote, dir: filepath.Join(state, "clone.git"), tmp: filepath.Join(state, "tmp"), opts: o}
	if err := os.RemoveAll(r.tmp); err != nil { // left by a killed process
		return nil, err
	}
	return r, os.MkdirAll(r.tmp, 0o700)
}

func refuse(code Code, op, detail string, err error) *Error {
	return &Error{Code: code, Op: op, Detail: detail, Err: err}
}

var scpLike = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^:]`)

// remoteProtocol tells the one protocol that git may speak, and makes a local path absolute.
func remoteProtocol(remote string) (protocol, address string, err error) {
	bad := func(detail string) (string, string, error) {
		return "", "", refuse(CodeArgument, "open repository", detail, nil)
	}
	switch {
	case remote == "" || strings.HasPrefix(remote, "-") || strings.ContainsAny(remote, "\x00\n\r"):
		return bad("the repository's address is malformed")
	case strings.Contains(remote, "::"):
		return bad("remote helpers are not used; give a path, https:// or ssh:// address")
	case strings.Contains(remote, "://"):
		u, err := url.Parse(remote)
		if err != nil || u.Host == "" && u.Scheme != "file" {
			return bad("the repository's address is malformed")
		}
		switch u.Scheme {
		case "https", "ssh":
			return u.Scheme, remote, nil
		case "file":
			return "file", u.Path, nil
		}
		return bad("only a path, https:// and ssh:// are supported")
	case scpLike.MatchString(remote) && !strings.HasPrefix(remote, "/") && !strings.HasPrefix(remote, "."):
		return "ssh", remote, nil
	}
	address, err = filepath.Abs(remote)
	return "file", address, err
}

// Fetch brings the private clone to the remote's state: all branches and tags, deleted ones removed.
func (r *Repo) Fetch(ctx context.Context) error {
	r.fetching.Lock()
	defer r.fetching.Unlock()
	if err := r.ensureClone(ctx); err != nil {
		return err
	}
	_, err := r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Args: []string{
		"fetch", "--quiet", "--force", "--prune", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance",
		"--", r.remote, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*",
	}})
	if err != nil {
		return unavailable("fetch", err)
	}
	return nil
}

func unavailable(op string, err error) error {
	return refuse(CodeUnavailable, op, "the repository did not answer as expected; check its address, access and network, then try again", err)
}

// ensureClone creates the clone once it is known which object format the remote has. The clone appears
// under its name only when it is complete.
func (r *Repo) ensureClone(ctx context.Context) error {
	if _, err := os.Stat(r.dir); err == nil {
		return nil
	}
	algo, err := r.remoteFormat(ctx)
	if err != nil {
		return err
	}
	made, err := os.MkdirTemp(r.tmp, "clone-")
	if err != nil {
		return err
	}
	if err := initBare(ctx, r.git, made, algo); err != nil {
		return err
	}
	return os.Rename(made, r.dir)
}

func initBare(ctx context.Context, git *gitcmd.Git, dir string, algo gittree.Algo) error {
	_, err := git.Run(ctx, gitcmd.Call{Args: []string{"init", "--quiet", "--bare", "--template=", "--object-format=" + string(algo), "--", dir}, Dir: dir})
	return err
}

// remoteFormat tells the object format from the length of the ids of the refs. An empty repository has
// none; there a local path is asked itself, and for others git's default holds.
func (r *Repo) remoteFormat(ctx context.Context) (gittree.Algo, error) {
	refs, err := r.remoteRefs(ctx)
	if err != nil {
		return "", err
	}
	for _, id := range refs {
		if algo, ok := gittree.AlgoOf(id); ok {
			return algo, nil
		}
	}
	if filepath.IsAbs(r.remote) {
		out, err := r.git.Run(ctx, gitcmd.Call{Args: []string{"-C", r.remote, "rev-parse", "--show-object-format"}, Env: []string{"GIT_DIR=" + localGitDir(r.remote)}})
		if err != nil {
			return "", unavailable("open repository", err)
		}
		return gittree.Algo(strings.TrimSpace(string(out))), nil
	}
	return gittree.SHA1, nil
}

// localGitDir is the repository folder of a path that is bare or has a work tree.
func localGitDir(path string) string {
	if info, err := os.Stat(filepath.Join(path, ".git")); err == nil && info.IsDir() {
		return filepath.Join(path, ".git")
	}
	return path
}

// remoteRefs asks the remote for its refs, or for those that match the patterns.
func (r *Repo) remoteRefs(ctx context.Context, patterns ...string) (map[string]string, error) {
	out, err := r.git.Run(ctx, gitcmd.Call{Args: append([]string{"ls-remote", "--refs", "--quiet", "--", r.remote}, patterns...), Dir: r.tmp})
	if err != nil {
		return nil, unavailable("list refs", err)
	}
	refs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, ref, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if ok {
			refs[ref] = id
		}
	}
	return refs, nil
}

// RemoteRef asks the remote, not the clone, which commit a full ref such as refs/heads/main has now; ""
// if the ref does not exist.
func (r *Repo) RemoteRef(ctx context.Context, ref string) (string, error) {
	if err := checkRef(ref); err != nil {
		return "", err
	}
	refs, err := r.remoteRefs(ctx, ref)
	return refs[ref], err
}

var refName = regexp.MustCompile(`^refs/(heads|tags)(/[A-Za-z0-9_][A-Za-z0-9_.+@-]*)+$`)

// checkRef allows plain names below refs/heads and refs/tags; stricter than git, and without its traps.
func checkRef(ref string) error {
	if len(ref) > 250 || !refName.MatchString(ref) || strings.Contains(ref, "..") || strings.HasSuffix(ref, ".") ||
		slices.ContainsFunc(strings.Split(ref, "/"), func(part string) bool { return strings.HasSuffix(part, ".lock") }) {
		return refuse(CodeRef, "check ref", "a ref must be a plain name such as refs/heads/main", nil)
	}
	return nil
}

// Person is an author or committer.
type Person struct{ Name, Email string }

// Commit is what a commit object says.
type Commit struct {
	ID      string // hex
	Tree    string // with prefix: "sha1:..." or "sha256:..."
	Parents []string
	Author  Person
	// Committer and CommittedAt are the commit's second signature line; a branch commit's time is this one.
	Committer               Person
	AuthoredAt, CommittedAt time.Time
	Message                 string
}

var revision = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+-]*$`)

// ResolveCommit finds a commit by id (full or shortened), branch, tag or full ref, in the clone as last
// fetched. CodeBaseUnknown if there is none, or if a shortened id is ambiguous.
func (r *Repo) ResolveCommit(ctx context.Context, rev string) (Commit, error) {
	unknown := func(err error) error {
		return refuse(CodeBaseUnknown, "resolve commit", "no such commit in the repository as last fetched; fetch, or check the name", err)
	}
	if len(rev) > 250 || !revision.MatchString(rev) || strings.Contains(rev, "..") {
		return Commit{}, refuse(CodeArgument, "resolve commit", "a commit is named by id, branch, tag or full ref", nil)
	}
	if _, err := os.Stat(r.dir); err != nil {
		return Commit{}, unknown(errors.New("the repository was never fetched"))
	}
	out, err := r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Args: []string{"rev-parse", "--verify", "--quiet", "--end-of-options", rev + "^{commit}"}})
	if err != nil {
		return Commit{}, asRefusal(err, unknown)
	}
	id := strings.TrimSpace(string(out))
	out, err = r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Args: []string{"cat-file", "commit", id}})
	if err != nil {
		return Commit{}, asRefusal(err, unknown)
	}
	return parseCommit(id, string(out))
}

// asRefusal turns git's "no" into a refusal and leaves a timeout, a missing program, and what already is
// a refusal as they are.
func asRefusal(err error, refusal func(error) error) error {
	var failure *gitcmd.Failure
	var already *Error
	if errors.As(err, &already) {
		return err
	}
	if errors.As(err, &failure) {
		return refusal(err)
	}
	return err
}

func parseCommit(id, text string) (Commit, error) {
	algo, _ := gittree.AlgoOf(id)
	c := Commit{ID: id}
	headers, message, _ := strings.Cut(text, "\n\n")
	c.Message = message
	var err error
	for line := range strings.SplitSeq(headers, "\n") {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "tree":
			c.Tree = string(algo) + ":" + value
		case "parent":
			c.Parents = append(c.Parents, value)
		case "author":
			c.Author, c.AuthoredAt, err = parsePerson(value)
		case "committer":
			c.Committer, c.CommittedAt, err = parsePerson(value)
		}
		if err != nil {
			return Commit{}, fmt.Errorf("commit %s: %w", id, err)
		}
	}
	if _, _, err := gittree.ParseID(c.Tree); err != nil {
		return Commit{}, fmt.Errorf("commit %s: %w", id, err)
	}
	return c, nil
}

// parsePerson reads "Name <mail> 1700000000 +0100". An old commit may have an odd time; it is then zero.
func parsePerson(value string) (Person, time.Time, error) {
	open, end := strings.IndexByte(value, '<'), strings.LastIndexByte(value, '>')
	if open < 0 || end < open {
		return Person{}, time.Time{}, errors.New("malformed author or committer")
	}
	p := Person{Name: strings.TrimSpace(value[:open]), Email: value[open+1 : end]}
	var seconds int64
	if _, err := fmt.Sscan(value[end+1:], &seconds); err != nil {
		return p, time.Time{}, nil
	}
	return p, time.Unix(seconds, 0).UTC(), nil
}

// TreeOf is the tree id of a commit, "sha1:..." or "sha256:..." as the repository has it.
func (r *Repo) TreeOf(ctx context.Context, commit string) (string, error) {
	c, err := r.ResolveCommit(ctx, commit)
	return c.Tree, err
}
