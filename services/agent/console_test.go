// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/deployment/deploymenttest"
	"cacert.org/emergency/services/internal/sshdtest"
)

const (
	openAccess   = deploymentv1.JobKind_JOB_KIND_OPEN_ACCESS
	freeze       = deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION
	thaw         = deploymentv1.JobKind_JOB_KIND_THAW_SESSION
	endAccess    = deploymentv1.JobKind_JOB_KIND_END_ACCESS
	leftoverList = deploymentv1.JobKind_JOB_KIND_LIST_LEFTOVERS
	readFiles    = deploymentv1.JobKind_JOB_KIND_READ_FILES
)

// consoleWorld is a scripted world whose host takes watched sessions by the machine's own sshd.
type consoleWorld struct {
	*world
	sshd    *sshdtest.Server
	account string
	key     string // public
	dir     string
	conf    agent.Config
}

// register serves what a host's agent calls.
func (w *consoleWorld) register(s grpc.ServiceRegistrar) {
	dashboardv1.RegisterQueryServiceServer(s, w.query)
	deploymentv1.RegisterAgentServiceServer(s, w.hub)
	deploymentv1.RegisterDeploymentServiceServer(s, &terminator{w: w})
}

// terminator records the end of a session that its host reports.
type terminator struct {
	deploymentv1.UnimplementedDeploymentServiceServer
	w *consoleWorld
}

func (s *terminator) Terminate(ctx context.Context, req *emergencyv1.TerminateRequest) (*emergencyv1.TerminateResponse, error) {
	caller, _ := identity.FromContext(ctx)
	if caller.KeyID != s.w.Profile(deploymenttest.Host).KeyID {
		return nil, errors.New("another caller")
	}
	c, err := s.w.Try(deploymenttest.Host, req.GetMeta().GetIncident(), req, procedure.Facts{Console: &procedure.ConsoleFacts{}})
	return &emergencyv1.TerminateResponse{Committed: c}, err
}

func console(t *testing.T) *consoleWorld {
	t.Helper()
	w := &consoleWorld{world: newWorld(t), sshd: sshdtest.New(t)}
	w.hub = deploymenttest.NewHub()
	w.addr = w.Serve(w.register)
	var err error
	w.dir, err = os.MkdirTemp("", "epatch") // the path of a socket must be short
	w.Must(err)
	t.Cleanup(func() { w.Must(os.RemoveAll(w.dir)) })
	me, err := user.Current()
	w.Must(err)
	w.account = me.Username
	public, private, err := ed25519.GenerateKey(rand.Reader)
	w.Must(err)
	w.Must(sshdtest.WriteKey(w.dir+"/id", private))
	line, err := ssh.NewPublicKey(public)
	w.Must(err)
	w.key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line)))
	w.conf = config(w.Rig, w.addr)
	w.conf.Console = agent.Console{Account: w.account, Shared: true, Keys: w.sshd.AuthorizedKeys, Socket: w.dir + "/sock", Folders: []string{w.dir + "/watched"}}
	w.Must(os.Mkdir(w.dir+"/watched", 0o755))
	return w
}

// shell logs in with the one-time key by the stock client.
func (w *consoleWorld) shell() (in io.Writer, out *deploymenttest.Text, ended chan error) {
	w.Helper()
	host, port, err := net.SplitHostPort(w.sshd.Address)
	w.Must(err)
	cmd := exec.Command("ssh", "-F", "none", "-tt", "-i", w.dir+"/id", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", port, w.account+"@"+host)
	out, ended = &deploymenttest.Text{}, make(chan error, 1)
	cmd.Stdout, cmd.Stderr = out, out
	in, err = cmd.StdinPipe()
	w.Must(err)
	w.Must(cmd.Start())
	go func() { ended <- cmd.Wait() }()
	w.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		if w.Failed() {
			w.Logf("the terminal showed:\n%s", out.String())
		}
	})
	return in, out, ended
}

func (w *consoleWorld) eventually(what string, fact func() bool) {
	w.Helper()
	for late := time.Now().Add(60 * time.Second); !fact(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			w.Fatalf("never: %s", what)
		}
	}
}

func (w *consoleWorld) keys() string {
	b, _ := os.ReadFile(w.sshd.AuthorizedKeys)
	return string(b)
}

// counting starts a loop in the session and returns how to read where it is.
func (w *consoleWorld) counting(in io.Writer) func() int {
	w.Helper()
	file := w.dir + "/count"
	_, err := io.WriteString(in, "i=0; while :; do i=$((i+1)); echo $i > "+file+"; done\n")
	w.Must(err)
	read := func() int {
		b, _ := os.ReadFile(file)
		n, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
		return n
	}
	w.eventually("a loop that counts", func() bool { return read() > 10 })
	return read
}

// stands tells whether a number stays the same; nothing can be waited for, since nothing is to happen.
func stands(read func() int) bool {
	was := read()
	for range 20 {
		time.Sleep(10 * time.Millisecond)
		if now := read(); now != was && now != 0 {
			return false
		}
	}
	return true
}

func (w *consoleWorld) want(r *deploymentv1.JobResult, code string) {
	w.Helper()
	if r.GetErrorCode() != code || r.GetOk() != (code == "") {
		w.Errorf("answer %v, want code %q", r, code)
	}
}

// TestSession is a watched session as its host sees it, from the key to the last question about it.
func TestSession(t *testing.T) {
	t.Parallel()
	w := console(t)
	start(w.Rig, w.conf, nil)
	incident, open := w.Consumed(w.key, w.account)
	w.want(w.run(open), "")
	w.want(w.run(open), "") // asked again, because the answer was lost
	if !strings.Contains(w.keys(), "--grant "+incident+"/G1") {
		t.Fatalf("key file: %s", w.keys())
	}
	in, out, ended := w.shell()
	_, err := io.WriteString(in, "echo read''y\n")
	w.Must(err)
	w.eventually("a shell", func() bool { return strings.Contains(out.String(), "ready") })
	w.Gateway(deploymenttest.Subject, incident, proceduretest.Opened(true))
	read := w.counting(in)

	r := w.run(w.SessionJob(incident, freeze))
	w.want(r, "")
	if m := r.GetFreezeMode(); m != emergencyv1.FreezeMode_FREEZE_MODE_CGROUP && m != emergencyv1.FreezeMode_FREEZE_MODE_PROCESS {
		t.Errorf("frozen by %v", m)
	}
	w.Gateway("", incident, &emergencyv1.FreezeRequest{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST})
	if !stands(read) {
		t.Error("the loop goes on")
	}
	w.want(w.run(w.SessionJob(incident, thaw)), "GRANT_STATE") // nobody has resumed it
	if !stands(read) {
		t.Error("the loop goes on without a word of the history")
	}
	w.DoConsole(deploymenttest.Watcher, incident, proceduretest.Arm())
	w.DoConsole(deploymenttest.Watcher, incident, &emergencyv1.ResumeRequest{Grant: "G1"})
	w.want(w.run(w.SessionJob(incident, thaw)), "")
	was := read()
	w.eventually("the loop goes on", func() bool { return read() > was+10 })
	w.want(w.run(w.SessionJob(incident, readFiles)), "GRANT_STATE") // the session has not ended

	w.Must(os.WriteFile(filepath.Join(w.HostRoot, "www/index.php"), bytes.Repeat([]byte("x"), 600<<10), 0o644))
	w.Must(os.WriteFile(w.dir+"/watched/new", nil, 0o644))
	r = w.run(w.SessionJob(incident, endAccess))
	w.want(r, "")
	for _, e := range []string{"host_credential", "processes"} {
		if x := endResult(r, e); x.GetOutcome() != emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE {
			t.Errorf("%s: %v", e, x)
		}
	}
	<-ended
	if strings.Contains(w.keys(), incident) {
		t.Errorf("key file: %s", w.keys())
	}
	w.want(w.run(w.SessionJob(incident, endAccess)), "")
	w.want(w.run(open), "GRANT_STATE")
	w.Gateway("", incident, &emergencyv1.TerminateRequest{Grant: "G1"})
	w.want(w.run(open), "GRANT_STATE")
	r = w.run(w.SessionJob(incident, leftoverList))
	w.want(r, "")
	if text := r.String(); !strings.Contains(text, "/watched/new") || strings.Contains(text, "index.php") {
		t.Errorf("left over: %s", text)
	}
	w.wantContents(incident)
}

func endResult(r *deploymentv1.JobResult, effect string) *emergencyv1.EndResult {
	for _, x := range r.GetEndResults() {
		if x.GetEffect() == effect {
			return x
		}
	}
	return nil
}

// wantContents reads what the session changed.
func (w *consoleWorld) wantContents(incident string) {
	w.Helper()
	j := w.SessionJob(incident, readFiles)
	j.Paths = [][]byte{[]byte("www/index.php"), []byte("gone"), []byte("../" + filepath.Base(w.dir) + "/id")}
	r, parts, err := w.hub.RunFiles(w.Context(), j)
	w.Must(err)
	w.want(r, "")
	got := map[string]int{}
	var last bool
	for _, p := range parts {
		got[string(p.GetPath())+" "+p.GetMode()] += len(p.GetData())
		last = p.GetLast()
	}
	if len(got) != 3 || got["www/index.php 100644"] != 600<<10 || got["gone "] != 0 || len(parts) != 5 || !last {
		w.Errorf("read %v in %d parts", got, len(parts))
	}
	if tree := w.TreeOf(w.HostRoot); r.GetPostTree() != tree {
		w.Errorf("tree %s, want %s", r.GetPostTree(), tree)
	}
}

// TestOpenAccessRefuses whatever the history does not say, and no key comes into the file.
func TestOpenAccessRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(w *consoleWorld, incident string, j *deploymentv1.Job)
		code   string
	}{
		"not consumed": {func(w *consoleWorld, incident string, j *deploymentv1.Job) {
			w.show(incident, w.cut(incident, "Connect"))
			j.Id = incident + "/1"
		}, "GRANT_STATE"},
		"not armed": {func(w *consoleWorld, incident string, j *deploymentv1.Job) {
			w.show(incident, w.cut(incident, "ArmWatch"))
			j.Id = incident + "/1"
		}, "GRANT_STATE"},
		"a consumption that no broker recorded": {func(w *consoleWorld, incident string, j *deploymentv1.Job) {
			w.edit(incident, "Connect", func(r *emergencyv1.Record) { r.Actor = &emergencyv1.Actor{Person: "bert"} })
		}, "HISTORY_INVALID"},
		"a grant without its signature": {func(w *consoleWorld, incident string, j *deploymentv1.Job) {
			w.edit(incident, "GrantAccess", func(r *emergencyv1.Record) { r.Approval = nil })
		}, "HISTORY_INVALID"},
		"another host": {func(w *consoleWorld, incident string, j *deploymentv1.Job) {
			w.edit(incident, "GrantAccess", func(r *emergencyv1.Record) {
				for i, e := range r.GetEvents() {
					if g, ok := w.Payload(e).(*emergencyv1.AccessGrantIssued); ok {
						g.Host = "www2"
						r.Events[i] = w.Event(procedure.OwnerDeployment, g)
					}
				}
			})
		}, "DRILL_BOUNDARY"},
		"terminated": {func(w *consoleWorld, incident string, _ *deploymentv1.Job) {
			w.Gateway("", incident, &emergencyv1.TerminateRequest{Grant: "G1"})
		}, "GRANT_STATE"},
		"already open": {func(w *consoleWorld, incident string, _ *deploymentv1.Job) {
			w.Gateway(deploymenttest.Subject, incident, proceduretest.Opened(true))
		}, "GRANT_STATE"},
		"another grant":      {func(_ *consoleWorld, _ string, j *deploymentv1.Job) { j.Grant = "G2" }, "GRANT"},
		"another event":      {func(_ *consoleWorld, incident string, j *deploymentv1.Job) { j.Id = incident + "/1" }, "JOB_DIFFERS"},
		"an event to come":   {func(_ *consoleWorld, incident string, j *deploymentv1.Job) { j.Id = incident + "/999" }, "HISTORY_SHORT"},
		"no event":           {func(_ *consoleWorld, _ string, j *deploymentv1.Job) { j.Id = "open" }, "JOB"},
		"another account":    {func(_ *consoleWorld, _ string, j *deploymentv1.Job) { j.Account = "daemon" }, "SESSION"},
		"a strange key":      {func(_ *consoleWorld, _ string, j *deploymentv1.Job) { j.PublicKey = "ssh-rsa AAAA" }, "SESSION"},
		"a key with options": {func(w *consoleWorld, _ string, j *deploymentv1.Job) { j.PublicKey = `command="sh" ` + w.key }, "SESSION"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := console(t)
			incident, open := w.Consumed(w.key, w.account)
			c.change(w, incident, open)
			w.conf.Patience = 200 * time.Millisecond
			start(w.Rig, w.conf, nil)
			w.want(w.run(open), c.code)
			if text := w.keys(); text != "" {
				t.Errorf("key file: %s", text)
			}
		})
	}
}

// TestKeyIsShort: whatever the service asks for, a key is good for the policy's first use after the consumption at most.
func TestKeyIsShort(t *testing.T) {
	t.Parallel()
	w := console(t)
	start(w.Rig, w.conf, nil)
	incident, open := w.Consumed(w.key, w.account)
	open.ValidUntil = timestamppb.New(time.Now().AddDate(1, 0, 0))
	w.want(w.run(open), "")
	st := w.State(incident)
	want := st.Grants[0].Consumed.At.Add(st.Policy.Duration("grant.first_use")).UTC().Format("20060102150405Z")
	if !strings.Contains(w.keys(), `expiry-time="`+want+`"`) {
		t.Errorf("want %s in %s", want, w.keys())
	}
}

// TestOldHistory: who shows an old consumption to an agent gets nothing by it.
func TestOldHistory(t *testing.T) {
	t.Parallel()
	w := console(t)
	start(w.Rig, w.conf, func() time.Time { return time.Now().Add(24 * time.Hour) })
	_, open := w.Consumed(w.key, w.account)
	r := w.run(open)
	if r.GetOk() || w.keys() != "" {
		t.Errorf("answer %v, key file %q", r, w.keys())
	}
}

// TestServiceHangs: a service that gives no sign of life is taken for gone; the session is frozen, and goes on by itself when
// the service is back and the history says that it is live. If it stays away for longer than the grace the session is ended,
// and that is reported when it is back.
func TestServiceHangs(t *testing.T) {
	t.Parallel()
	w := console(t)
	start(w.Rig, w.conf, nil)
	incident, open := w.Consumed(w.key, w.account)
	open.GraceMs = 6000
	w.want(w.run(open), "")
	in, _, ended := w.shell()
	read := w.counting(in)
	w.Gateway(deploymenttest.Subject, incident, proceduretest.Opened(true))
	w.hub.Mute.Store(true)
	hung := time.Now()
	w.eventually("frozen", func() bool { return strings.Contains(w.LogText.String(), "the link to the service is lost: frozen") })
	t.Logf("frozen %s after the last sign of life", time.Since(hung).Round(time.Millisecond))
	if !stands(read) {
		t.Error("the loop goes on")
	}
	w.hub.Mute.Store(false)
	was := read()
	w.eventually("the loop goes on", func() bool { return read() > was+10 })
	w.hub.Mute.Store(true)
	<-ended
	w.hub.Mute.Store(false)
	st := w.WaitFor(incident, "the end", func(s *procedure.State) bool { return s.Grants[0].Terminated.Position > 0 })
	if g := st.Grants[0]; g.Cause != emergencyv1.SessionCause_SESSION_CAUSE_TARGET_LOST || g.Terminated.By != deploymenttest.Host {
		t.Errorf("terminated by %q because of %v", g.Terminated.By, g.Cause)
	}
	if strings.Contains(w.keys(), incident) {
		t.Errorf("key file: %s", w.keys())
	}
}

// TestInstanceHangs: of two instances of the service the one that opened a session gives no sign of life. The other has neither the session's
// subject nor its watcher: that it can be heard keeps nothing alive. The session is frozen, and ended after the grace, and that is reported
// although the first instance is not back.
func TestInstanceHangs(t *testing.T) {
	t.Parallel()
	w := console(t)
	other := deploymenttest.NewHub()
	second := w.Serve(func(s grpc.ServiceRegistrar) {
		deploymentv1.RegisterAgentServiceServer(s, other)
		deploymentv1.RegisterDeploymentServiceServer(s, &terminator{w: w})
	})
	w.conf.Deployment = w.addr + "," + second
	start(w.Rig, w.conf, nil)
	incident, open := w.Consumed(w.key, w.account)
	open.GraceMs = 2000
	w.want(w.run(open), "")
	in, _, ended := w.shell()
	read := w.counting(in)
	w.Gateway(deploymenttest.Subject, incident, proceduretest.Opened(true))
	within, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := other.Run(within, w.SessionJob(incident, leftoverList)) // so it is attached there too
	w.Must(err)
	w.hub.Mute.Store(true)
	w.eventually("frozen", func() bool { return strings.Contains(w.LogText.String(), "the link to the service is lost: frozen") })
	if !stands(read) {
		t.Error("the loop goes on")
	}
	<-ended
	st := w.WaitFor(incident, "the end", func(s *procedure.State) bool { return s.Grants[0].Terminated.Position > 0 })
	if g := st.Grants[0]; g.Cause != emergencyv1.SessionCause_SESSION_CAUSE_TARGET_LOST || g.Terminated.By != deploymenttest.Host {
		t.Errorf("terminated by %q because of %v", g.Terminated.By, g.Cause)
	}
	if strings.Contains(w.keys(), incident) {
		t.Errorf("key file: %s", w.keys())
	}
}

// TestNoConsole: a host without an account for sessions says so, and so does a test server.
func TestNoConsole(t *testing.T) {
	t.Parallel()
	w := console(t)
	w.conf.Console = agent.Console{}
	start(w.Rig, w.conf, nil)
	incident, open := w.Consumed(w.key, w.account)
	for _, j := range []*deploymentv1.Job{open, w.SessionJob(incident, freeze), w.SessionJob(incident, endAccess), w.SessionJob(incident, leftoverList)} {
		w.want(w.run(proto.CloneOf(j)), "NO_CONSOLE")
	}
	bad := testConfig(w.Rig, w.addr)
	bad.Console.Account = w.account
	if a, err := agent.New(bad, agent.Deps{Log: w.Logger}); err == nil || !strings.Contains(err.Error(), "agent-console-account") {
		t.Errorf("a test server takes sessions: %v", err)
		_ = a.Close()
	}
}
