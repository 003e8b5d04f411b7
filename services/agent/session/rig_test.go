// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"cacert.org/emergency/services/agent/session"
)

// TestMain is the console shell if sshd or a test starts this binary as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "console-shell" {
		os.Exit(consoleShell(os.Args[2:]))
	}
	if raw := os.Getenv(agentVariable); raw != "" {
		os.Exit(runAgent(raw))
	}
	os.Exit(m.Run())
}

// agentVariable names the variable by which this binary becomes a keeper that can be killed, agentTask what it is told.
const agentVariable = "EPATCH_TEST_SESSION_AGENT"

type agentTask struct {
	Config session.Config
	Access session.Access
}

func runAgent(raw string) int {
	var task agentTask
	if err := json.Unmarshal([]byte(raw), &task); err != nil {
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	k, err := session.New(context.Background(), task.Config, log, time.Now)
	if err == nil {
		err = k.OpenAccess(context.Background(), task.Access)
	}
	if err != nil {
		log.Error("agent", "error", err)
		return 3
	}
	select {} // until it is killed
}

func consoleShell(args []string) int {
	fs := flag.NewFlagSet("console-shell", flag.ContinueOnError)
	socket, grant := fs.String("socket", "", ""), fs.String("grant", "", "")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	status, err := session.Shell(session.ShellConfig{Socket: *socket, Grant: *grant, Environ: os.Environ()})
	if err != nil {
		fmt.Fprint(os.Stderr, "error: ", err, "\r\n")
	}
	return status
}

const (
	grant    = "e20261124.1/G1"
	patience = 60 * time.Second // a failure takes so long, never a success
)

// kind is one way in which an agent may run.
type kind struct {
	name    string
	cgroup  string // session.NoCgroup or ""
	account string // "" is the test's own
}

// kinds are the ways that this machine has. What it has not is said loudly, and fails under CI.
func kinds(t *testing.T) []kind {
	t.Helper()
	list := []kind{{name: "process", cgroup: session.NoCgroup}}
	if os.Geteuid() != 0 {
		missing(t, "this is no root: sessions of another account than the agent's are NOT TESTED")
	} else {
		list = append(list, kind{"process, other account", session.NoCgroup, "nobody"})
	}
	if mode := probe(t); mode != session.ModeCgroup {
		missing(t, "no control group can be made here: freezing and killing by control group are NOT TESTED")
		return list
	}
	list = append(list, kind{name: "cgroup"})
	if os.Geteuid() == 0 {
		list = append(list, kind{"cgroup, other account", "", "nobody"})
	}
	return list
}

func probe(t *testing.T) session.Mode {
	h := newHost(t, kind{}, nil)
	return h.Mode()
}

func missing(t *testing.T, text string) {
	t.Helper()
	if os.Getenv("CI") != "" && os.Geteuid() == 0 {
		t.Errorf("under CI everything is tested: %s", text)
	}
	t.Log("LOUD: " + text)
	fmt.Fprintln(os.Stderr, "LOUD: "+t.Name()+": "+text)
}

// each runs a test in every way that the machine has.
func each(t *testing.T, test func(t *testing.T, k kind)) {
	t.Helper()
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

// host is a host with a keeper.
type host struct {
	*testing.T
	*session.Keeper
	cfg  session.Config
	dir  string
	kind kind
	log  *text
}

// text is what processes write, from several sides.
type text struct {
	mu   sync.Mutex
	b    bytes.Buffer
	grew chan struct{}
}

func newText() *text { return &text{grew: make(chan struct{})} }

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	close(x.grew)
	x.grew = make(chan struct{})
	return x.b.Write(b)
}

func (x *text) read() (string, <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String(), x.grew
}

// newHost starts a keeper with folders that every account can reach.
func newHost(t *testing.T, k kind, change func(*session.Config)) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "epatch")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	if k.account == "" {
		me, err := user.Current()
		must(t, err)
		k.account = me.Username
	}
	program, err := os.Executable()
	must(t, err)
	if k.account == "nobody" { // the folder that go test builds in may not be entered
		program = copyProgram(t, program, filepath.Join(dir, "epatch-agent"))
	}
	h := &host{T: t, dir: dir, kind: k, log: newText(), cfg: session.Config{
		Account: k.account, Shared: true, Cgroup: k.cgroup, Program: program, StateDir: filepath.Join(dir, "state"),
		KeyFile: filepath.Join(dir, "keys"), Socket: filepath.Join(dir, "sock"), Root: filepath.Join(dir, "root"), Folders: []string{"/etc"},
	}}
	must(t, os.MkdirAll(filepath.Join(h.cfg.Root, "etc"), 0o755))
	if change != nil {
		change(&h.cfg)
	}
	h.start()
	t.Cleanup(func() {
		h.stop()
		if said, _ := h.log.read(); t.Failed() {
			t.Logf("the keeper said:\n%s", said)
		}
	})
	return h
}

func copyProgram(t *testing.T, from, to string) string {
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o755))
	return to
}

func (h *host) start() {
	h.Helper()
	k, err := session.New(context.Background(), h.cfg, slog.New(slog.NewTextHandler(h.log, nil)), time.Now)
	must(h, err)
	h.Keeper = k
}

func (h *host) stop() {
	if h.Keeper != nil {
		must(h, h.Close())
		h.Keeper = nil
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key makes a fresh key pair.
func key(t testing.TB) (public string, private ed25519.PrivateKey) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	line, err := ssh.NewPublicKey(pub)
	must(t, err)
	return string(ssh.MarshalAuthorizedKey(line)), private
}

func (h *host) access() session.Access {
	public, _ := key(h)
	return session.Access{Grant: grant, PublicKey: public, Account: h.cfg.Account, Until: time.Now().Add(time.Hour)}
}

// opened opens access and starts a console shell on a terminal.
func (h *host) opened() *terminal {
	h.Helper()
	must(h, h.OpenAccess(h.Context(), h.access()))
	x := h.shell(grant)
	x.say("echo read''y")
	x.expect("ready")
	return x
}

// terminal is the other side of a session's terminal.
type terminal struct {
	h      *host
	master *os.File
	out    *text
	ended  chan struct{} // the process
	shown  chan struct{} // and all that it wrote was read
	pid    int
	err    error
}

// shell starts a console shell on a terminal of its own, as sshd does.
func (h *host) shell(grant string, env ...string) *terminal {
	h.Helper()
	argv := []string{h.cfg.Program, "console-shell", "--socket", h.cfg.Socket, "--grant", grant}
	base := []string{"SHELL=/bin/sh", "PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TERM=dumb", "PS1=$ "}
	return h.onTerminal(argv, append(base, env...))
}

func (h *host) onTerminal(argv, env []string) *terminal {
	h.Helper()
	master, slave := openTerminal(h)
	defer slave.Close()
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if h.kind.account == "nobody" && os.Geteuid() == 0 {
		attr.Credential = nobody(h)
		must(h, slave.Chown(int(attr.Credential.Uid), -1))
	}
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Dir: "/", Env: env, Files: []*os.File{slave, slave, slave}, Sys: attr})
	must(h, err)
	x := &terminal{h: h, master: master, out: newText(), ended: make(chan struct{}), shown: make(chan struct{}), pid: p.Pid}
	go func() {
		defer close(x.shown)
		_, _ = io.Copy(x.out, master) // ends with an error when the last process has closed its side
	}()
	go func() {
		defer close(x.ended)
		st, err := p.Wait()
		if err == nil && !st.Success() {
			err = errors.New(st.String())
		}
		x.err = err
	}()
	h.Cleanup(func() {
		_ = p.Kill()
		<-x.ended
		_ = master.Close()
		if said, _ := x.out.read(); h.Failed() {
			h.Logf("the terminal showed:\n%s", said)
		}
	})
	return x
}

func nobody(t testing.TB) *syscall.Credential {
	u, err := user.Lookup("nobody")
	must(t, err)
	uid, err := strconv.Atoi(u.Uid)
	must(t, err)
	gid, err := strconv.Atoi(u.Gid)
	must(t, err)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func openTerminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return os.NewFile(uintptr(fd), "terminal"), slave
}

func (x *terminal) say(line string) {
	x.h.Helper()
	_, err := x.master.WriteString(line + "\n")
	must(x.h, err)
}

// expect waits until the terminal has shown a line that ends with this; what is typed to get it must not.
func (x *terminal) expect(line string) {
	x.h.Helper()
	late := time.After(patience)
	for {
		said, grew := x.out.read()
		for _, l := range strings.Split(said, "\n") {
			if strings.HasSuffix(strings.TrimSuffix(l, "\r"), line) { // after the prompt, perhaps
				return
			}
		}
		select {
		case <-grew:
		case <-late:
			x.h.Fatalf("the terminal never showed %q", line)
		}
	}
}

func (x *terminal) wait() {
	x.h.Helper()
	late := time.After(patience)
	for _, done := range []chan struct{}{x.ended, x.shown} {
		select {
		case <-done:
		case <-late:
			x.h.Fatal("the console shell does not end, or somebody still has its terminal")
		}
	}
}

// eventually waits for a fact.
func eventually(t testing.TB, what string, fact func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !fact(); {
		if time.Now().After(late) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// within waits for a fact that has a bound of its own (console.md 5, 9) and prints how long it took. A machine that is busy with
// other things is given five times as long.
func within(t testing.TB, bound time.Duration, what string, since time.Time, fact func() bool) {
	t.Helper()
	eventually(t, what, fact)
	took := time.Since(since)
	t.Logf("%s after %s (bound %s)", what, took.Round(time.Millisecond), bound)
	if took > 5*bound {
		t.Errorf("%s took %s, bound is %s", what, took, bound)
	}
}

// alive tells whether a process runs.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return f[0] != "Z" && f[0] != "X"
}

// pidIn reads a process number that a command of the session wrote.
func (h *host) pidIn(name string) int {
	h.Helper()
	var pid int
	eventually(h, "a process number in "+name, func() bool {
		b, _ := os.ReadFile(filepath.Join(h.dir, "open", name))
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		pid = n
		return err == nil && strings.HasSuffix(string(b), "\n")
	})
	return pid
}

// open makes a folder that the account may write.
func (h *host) openFolder() string {
	h.Helper()
	dir := filepath.Join(h.dir, "open")
	must(h, os.MkdirAll(dir, 0o777))
	must(h, os.Chmod(dir, 0o777))
	return dir
}

func outcome(t testing.TB, e session.Ending, effect string) session.Step {
	t.Helper()
	for _, s := range e.Steps {
		if s.Effect == effect {
			return s
		}
	}
	t.Fatalf("no step %s in %+v", effect, e)
	return session.Step{}
}
