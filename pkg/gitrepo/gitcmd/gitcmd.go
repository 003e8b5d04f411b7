// SPDX-License-Identifier: Apache-2.0

// Package gitcmd runs the system's git, and nothing of the surroundings reaches it: the environment is
// built from scratch, no system or user configuration, hook, attribute, filter, replace ref, pager, editor
// or prompt is used, programs are called by argument list and never through a shell, and time and output
// are bounded (hardening 1.9).
package gitcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The oldest git whose behaviour the tests cover.
const (
	minMajor = 2
	minMinor = 39
)

// Options of New. The zero value is usable.
type Options struct {
	// Program is the path of git; default: "git", looked up in the PATH of this process once.
	Program string
	// Timeout bounds one call, default 2 minutes. MaxOutput bounds what one call may write to its
	// standard output, in bytes, default 256 MiB.
	Timeout   time.Duration
	MaxOutput int64
	// Protocols that git may speak, such as "https" and "ssh"; default none. "file" is for a repository
	// that the operator configured by path.
	Protocols []string
	// Env adds variables from the operator's configuration, such as GIT_SSH_COMMAND or SSH_AUTH_SOCK.
	Env []string
}

// Git is a git program whose version was checked. It is safe for concurrent use.
type Git struct {
	program string
	opts    Options
}

// New finds git and checks its version.
func New(ctx context.Context, o Options) (*Git, error) {
	if o.Program == "" {
		o.Program = "git"
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.MaxOutput <= 0 {
		o.MaxOutput = 256 << 20
	}
	program, err := exec.LookPath(o.Program)
	if err != nil {
		return nil, fmt.Errorf("find git: %w; install git %d.%d or newer", err, minMajor, minMinor)
	}
	g := &Git{program: program, opts: o}
	out, err := g.Run(ctx, Call{Args: []string{"version"}})
	if err != nil {
		return nil, err
	}
	if !newEnough(string(out)) {
		return nil, fmt.Errorf("git at %s is %q; %d.%d or newer is needed", program, strings.TrimSpace(string(out)), minMajor, minMinor)
	}
	return g, nil
}

func newEnough(version string) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "git version "), ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(strings.TrimSpace(parts[1]))
	return err1 == nil && err2 == nil && (major > minMajor || major == minMajor && minor >= minMinor)
}

// Call is one call of git.
type Call struct {
	Args []string
	// GitDir is the repository; "" for a call that needs none, which then cannot find one either.
	GitDir string
	// Index is the index file, if the call uses one.
	Index string
	// Dir is the working folder; default: GitDir, so that no relative path can meet a foreign file.
	Dir   string
	Stdin io.Reader
	// Stdout takes the output instead of the result of Run.
	Stdout io.Writer
	// Env adds variables for this call, such as GIT_AUTHOR_DATE.
	Env []string
}

// Failure is git's refusal: it ran and ended with a code other than zero.
type Failure struct {
	Command string // the git command, such as "fetch"
	Exit    int
	Stdout  string // the first part of what it wrote
	Stderr  string
}

// Error shows the last line that git wrote, quoted where it is not plain text.
func (f *Failure) Error() string {
	lines := strings.Split(strings.TrimSpace(f.Stderr), "\n")
	last := lines[len(lines)-1]
	if strings.ContainsFunc(last, func(r rune) bool { return r < ' ' || r == 0x7f || r > 0x7e }) {
		last = strconv.QuoteToASCII(last)
	}
	return fmt.Sprintf("git %s ended with code %d: %s", f.Command, f.Exit, last)
}

// ErrOutput: git wrote more than the call allowed. Returned by Run; the call was ended.
var ErrOutput = errors.New("git wrote more than allowed")

// Run calls git and returns its standard output. Errors: *Failure, ErrOutput, the context's error.
func (g *Git) Run(ctx context.Context, c Call) ([]byte, error) {
	return g.run(ctx, c, &head{left: 64 << 10})
}

func (g *Git) run(ctx context.Context, c Call, stderr *head) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.program, append(settings(), c.Args...)...)
	cmd.Env = g.environment(c)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = c.GitDir
	}
	if cmd.Dir == "" {
		cmd.Dir = os.TempDir()
	}
	cmd.Stdin = c.Stdin
	var out bytes.Buffer
	stdout := &bounded{to: &out, left: g.opts.MaxOutput}
	if c.Stdout != nil {
		stdout.to = c.Stdout
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// Helpers such as ssh or index-pack must not outlive the call.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case stdout.over:
		return nil, fmt.Errorf("git %s: %w", c.Args[0], ErrOutput)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("git %s: %w", c.Args[0], ctx.Err())
	case errors.As(err, &exit):
		text := out.String()
		return nil, &Failure{Command: c.Args[0], Exit: exit.ExitCode(), Stdout: text[:min(len(text), 64<<10)], Stderr: stderr.String()}
	case err != nil:
		return nil, fmt.Errorf("git %s: %w", c.Args[0], err)
	}
	return out.Bytes(), nil
}

// settings stand on every command line, where no repository's configuration can override them.
func settings() []string {
	var args []string
	for _, s := range []string{
		"core.hooksPath=/dev/null", "core.attributesFile=/dev/null", "core.excludesFile=/dev/null",
		"core.autocrlf=false", "core.eol=lf", "core.safecrlf=false", "core.fsmonitor=false", "core.symlinks=true", "core.fileMode=true",
		"core.protectHFS=true", "core.protectNTFS=true", "core.fsync=all", "core.fsyncMethod=fsync",
		"submodule.recurse=false", "fetch.recurseSubmodules=false", "push.recurseSubmodules=no",
		"gc.auto=0", "maintenance.auto=false", "fetch.writeCommitGraph=false",
		"commit.gpgSign=false", "push.gpgSign=false", "push.followTags=false", "credential.helper=",
		"apply.ignoreWhitespace=no", "i18n.commitEncoding=UTF-8", "protocol.version=2",
	} {
		args = append(args, "-c", s)
	}
	return append(args, "--no-replace-objects", "--no-pager")
}

func (g *Git) environment(c Call) []string {
	gitDir := c.GitDir
	if gitDir == "" {
		gitDir = os.DevNull // no repository, also none that lies in a folder above
	}
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + gitDir, "XDG_CONFIG_HOME=" + os.DevNull,
		"GIT_DIR=" + gitDir, "GIT_CEILING_DIRECTORIES=/", "GIT_OPTIONAL_LOCKS=0",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false", "GIT_EDITOR=/bin/false", "GIT_PAGER=cat",
		"GIT_ALLOW_PROTOCOL=" + strings.Join(g.protocols(), ":"), "GIT_PROTOCOL_FROM_USER=0",
	}
	if c.Index != "" {
		env = append(env, "GIT_INDEX_FILE="+c.Index)
	}
	return append(append(env, g.opts.Env...), c.Env...)
}

func (g *Git) protocols() []string {
	if len(g.opts.Protocols) == 0 {
		return []string{"none"} // an empty list would mean git's default, which allows much
	}
	return g.opts.Protocols
}

// bounded ends the call, by a failing write, once too much has come.
type bounded struct {
	to   io.Writer
	left int64
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		b.over = true
		return 0, ErrOutput
	}
	b.left -= int64(len(p))
	return b.to.Write(p)
}

// head keeps the first bytes and drops the rest: messages are for people.
type head struct {
	bytes.Buffer
	left int
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), h.left)
	h.left -= n
	h.Buffer.Write(p[:n])
	return len(p), nil
}
