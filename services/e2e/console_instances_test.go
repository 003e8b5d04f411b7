// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// TestConsoleInstances: a deployment service with a console in two instances, in an installation of processes with a real sshd, its agent and
// the stock ssh client (issue 6). A session that one instance has is watched and commanded through the other; a restart of the other
// leaves it alone; when the one that has it is killed, or stands still, the access ends, and the history says how. Beside no other test of this
// package: the processes' time is the machine's, and what is typed while a busy machine keeps a sign of life back is thrown away.
func TestConsoleInstances(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: a cluster of processes takes most of a minute; run without -short")
	}
	d := startDesks(t)
	t.Run("who may hand on", d.whoMayHandOn)
	t.Run("through the other", d.throughTheOther)
	t.Run("the other restarts", d.otherRestarts)
	t.Run("killed", d.killed)
	t.Run("silent", d.silent)
}

// desks are the places at which people work with two instances of the deployment service. The session is always at number 1.
type desks struct {
	t       *testing.T
	c       *cluster.Cluster
	data    string
	target  *testenv.Target
	one     *cluster.Instance
	two     *cluster.Instance
	clients map[string]*client.Client
}

func startDesks(t *testing.T) *desks {
	t.Helper()
	d := &desks{t: t, data: t.TempDir(), target: testenv.NewTarget(t), clients: map[string]*client.Client{}}
	d.c = startInstallation(t, cluster.Config{Dir: d.data, More: map[string][]string{procedure.OwnerDeployment: d.target.Flags()}})
	for _, i := range d.c.Instances {
		switch {
		case i.Service == procedure.OwnerDeployment && i.Number == 1:
			d.one = i
		case i.Service == procedure.OwnerDeployment:
			d.two = i
		}
	}
	root := filepath.Join(d.data, "host")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.WriteFile(filepath.Join(root, "index.html"), []byte("a critical system\n"), 0o600))
	addresses := func(service string) string { return strings.Join(d.c.Of(service), ",") }
	log := testenv.NewLog(t)
	a, err := agent.New(agent.Config{
		Name: demobook.Host, Kind: agent.KindHost, Root: root, StateDir: filepath.Join(d.data, "agent"), Profile: filepath.Join(d.data, "agents", demobook.Host), Dev: true,
		Keyring: d.c.Keyring(), Deployment: addresses(procedure.OwnerDeployment), Review: addresses(procedure.OwnerReview), Query: addresses("dashboard"),
		Console: d.target.Console(),
	}, agent.Deps{Log: slog.New(slog.NewTextHandler(log, nil))})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, a.Close()); err != nil {
			t.Errorf("the agent: %v", err)
		}
	})
	t.Cleanup(func() {
		for _, c := range d.clients {
			_ = c.Close() // nothing is outstanding
		}
		if t.Failed() {
			for _, i := range []*cluster.Instance{d.one, d.two} {
				b, _ := os.ReadFile(i.Process().Log())
				t.Logf("%s said at last:\n%s", i.Name(), b[max(0, len(b)-6<<10):])
			}
		}
	})
	return d
}

// at is a person's client whose deployment service is one instance.
func (d *desks) at(i *cluster.Instance, person string) *client.Client {
	d.t.Helper()
	key := i.Name() + " " + person
	if d.clients[key] == nil {
		servers := map[string]string{}
		for _, s := range cluster.Services() {
			servers[s] = d.c.Of(s)[0] // one history reader for everybody: what one has done the next one sees
		}
		servers[procedure.OwnerDeployment] = i.API
		c, err := client.Dial(client.Config{
			Server: servers["dashboard"], Servers: servers, Profile: filepath.Join(d.data, "people", person), Keyring: d.c.Keyring(), Patience: testenv.Patience,
		})
		must(d.t, err)
		d.clients[key] = c
	}
	return d.clients[key]
}

// epatch is the command line program of a person, whose deployment service is one instance.
func (d *desks) epatch(t *testing.T, i *cluster.Instance, person string, args ...string) *exec.Cmd {
	t.Helper()
	var settings []string
	for _, s := range cluster.Services() {
		addr := d.c.Of(s)[0]
		if s == procedure.OwnerDeployment {
			addr = i.API
		}
		settings = append(settings, "EPATCH_SERVER_"+strings.ToUpper(s)+"="+addr)
	}
	return testenv.Epatch(t, d.data, t.TempDir(), append(settings, "EPATCH_SERVER="+d.c.Of("dashboard")[0]), person, args...)
}

// shared is one session that instance 1 has.
type shared struct {
	*desks
	t                *testing.T
	id               string
	watcher, subject *testenv.Terminal
	marks            int
}

// do gives a command at an instance.
func (s *shared) do(i *cluster.Instance, person string, cmd procedure.Command) *emergencyv1.Committed {
	s.t.Helper()
	done, err := s.try(i, person, cmd)
	if err != nil {
		s.t.Fatalf("%s by %s at %s: %v", procedure.CommandName(cmd), person, i.Name(), err)
	}
	return done
}

func (s *shared) try(i *cluster.Instance, person string, cmd procedure.Command) (*emergencyv1.Committed, error) {
	s.t.Helper()
	m := cmd.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage((&emergencyv1.CommandMeta{Incident: s.id}).ProtoReflect()))
	ctx, cancel := context.WithTimeout(s.t.Context(), testenv.Patience)
	defer cancel()
	done, err := s.at(i, person).Send(ctx, cmd)
	if err == nil { // whatever is asked next is asked of an answer that knows this
		_, err = s.at(i, person).Query().ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: done.GetIncident(), AtLeast: done.GetLastPosition()})
	}
	return done, err
}

// await waits until the verified history says something of the grant.
func (s *shared) await(what string, so func(*procedure.Grant) bool) *procedure.Grant {
	s.t.Helper()
	var g *procedure.Grant
	eventually(s.t, what, func() bool {
		st, err := s.at(s.two, "clara").State(s.t.Context(), s.id)
		must(s.t, err)
		var ok bool
		g, ok = st.Grant("G1")
		return ok && so(g)
	})
	return g
}

// now is the grant as the verified history has it.
func (s *shared) now() *procedure.Grant {
	s.t.Helper()
	return s.await("the grant", func(*procedure.Grant) bool { return true })
}

// open declares an emergency, grants the access at instance 1, and lets carla watch and bert come in through another.
func (d *desks) open(t *testing.T, through *cluster.Instance) *shared {
	t.Helper()
	s := &shared{desks: d, t: t}
	s.id = s.do(d.two, "carla", &emergencyv1.DeclareRequest{
		System: demobook.System, Component: "index.html", Symptom: "it leaks, says " + t.Name(), Severity: emergencyv1.Severity_SEVERITY_HIGH,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_VULNERABILITY, Reason: "anybody can read the configuration",
	}).GetIncident()
	s.do(d.two, "carla", half())
	s.do(d.two, "anna", half())
	s.do(d.two, "clara", permit("bert"))
	s.do(d.one, "carla", grantTo("bert"))
	s.watch(through)
	out, err := d.epatch(t, through, "bert", "--incident", s.id, "connect", "--print", "--json").Output()
	must(t, err)
	var way struct {
		Command []string `json:"command"`
		Folder  string   `json:"folder"`
	}
	must(t, json.Unmarshal(out, &way))
	t.Cleanup(func() { must(t, os.RemoveAll(way.Folder)) })
	g := s.now()
	for late := time.Now().Add(testenv.Patience); g.Opened.Position == 0 && time.Now().Before(late); {
		if g.Consumed.Position == 0 && (s.subject == nil || s.subject.Over()) { // again, where carla's first sign of life came too late for him
			s.subject = testenv.OpenTerminal(t, exec.Command(way.Command[0], way.Command[1:]...))
		}
		g = s.await("bert is let in, or sent away", func(g *procedure.Grant) bool { return g.Opened.Position > 0 || s.subject.Over() })
	}
	eventually(t, "the shell's prompt", func() bool { return s.subject.Size() > 0 })
	return s
}

// watch lets carla watch through an instance.
func (s *shared) watch(through *cluster.Instance) {
	s.t.Helper()
	s.watcher = testenv.OpenTerminal(s.t, s.epatch(s.t, through, "carla", "--incident", s.id, "watch-console"))
	eventually(s.t, "carla's view is open", func() bool { return strings.Contains(s.watcher.Shown(), "watcher carla") })
}

// resume lets a frozen session go on, once carla's view counts.
func (s *shared) resume(i *cluster.Instance) {
	s.t.Helper()
	eventually(s.t, "carla watches", func() bool {
		s.do(i, "carla", &emergencyv1.ArmWatchRequest{Grant: "G1"})
		_, err := s.try(i, "carla", &emergencyv1.ResumeRequest{Grant: "G1"})
		if no, ok := rpc.RefusalOf(err); ok && no.Reason == procedure.ReasonWatcherAbsent {
			return false
		}
		must(s.t, err)
		return true
	})
}

// path is a file on the host, of this session's own.
func (s *shared) path(name string) string { return filepath.Join(s.target.Dir, s.id+"-"+name) }

// types has bert type a line, and waits until the host has run it.
func (s *shared) types(line string) {
	s.t.Helper()
	s.marks++
	mark := s.path(fmt.Sprintf("mark-%d", s.marks))
	var again time.Time
	eventually(s.t, line, func() bool {
		if exists(mark) {
			return true
		}
		if now := time.Now(); now.After(again) { // once more where it was thrown away, on a busy machine
			if s.now().State == procedure.GrantFrozen {
				s.resume(s.two)
			}
			s.subject.Type(line + "\recho > " + mark + "\r")
			again = now.Add(10 * time.Second)
		}
		return false
	})
}

// ignored has bert type a line that must not run.
func (s *shared) ignored() string {
	never := s.path("never")
	s.subject.Type("echo > " + never + "\r")
	return never
}

// closed checks that bert has been sent away and the host knows his key no more.
func (s *shared) closed() {
	s.t.Helper()
	if code := s.subject.Code(); code == 0 {
		s.t.Error("the ssh client ended as if bert had left by himself")
	}
	eventually(s.t, "the key is out of the host's file", func() bool {
		keys, err := os.ReadFile(s.target.AuthorizedKeys)
		return errors.Is(err, os.ErrNotExist) || err == nil && !strings.Contains(string(keys), s.id)
	})
}

// recording reads the recording through an instance.
func (s *shared) recording(i *cluster.Instance) ([]byte, error) {
	s.t.Helper()
	stream, err := s.at(i, "carla").Console().ReadRecording(soon(s.t), &deploymentv1.ReadRecordingRequest{Incident: s.id, Grant: "G1", RequestId: "play-" + i.Name() + time.Now().Format("150405.000000000")})
	must(s.t, err)
	var all []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m.GetData()...)
	}
}

// sealed answers what was left and seals at an instance.
func (s *shared) sealed(i *cluster.Instance) *procedure.Grant {
	s.t.Helper()
	s.await("what the session left and changed", func(g *procedure.Grant) bool { return g.Diff.Position > 0 && len(g.LeftoversReported) > 0 })
	if g := s.now(); len(g.Leftovers) > 0 {
		s.do(i, "carla", &emergencyv1.ExplainLeftoversRequest{Grant: "G1", Explanation: "looked at one by one: nothing of the session's own stays"})
	}
	s.do(i, "carla", &emergencyv1.SealSessionRequest{Grant: "G1"})
	return s.await("the seal", func(g *procedure.Grant) bool { return g.Sealed.Position > 0 })
}

// whoMayHandOn: only the deployment service itself may say that somebody else makes a call.
func (d *desks) whoMayHandOn(t *testing.T) {
	claims := metadata.Pairs("epatch-handed-on-caller", d.at(d.one, "carla").KeyID(), "epatch-handed-on-address", "192.0.2.1")
	call := func(folder string) *procedure.Refusal {
		t.Helper()
		id, err := identity.Load(filepath.Join(d.data, folder), identity.LoadOptions{Now: time.Now(), Dev: true})
		must(t, err)
		conn, err := rpc.Dial(d.one.API, rpc.ClientConfig{Identity: id.Current})
		must(t, err)
		defer func() { _ = conn.Close() }()
		_, err = deploymentv1.NewDeploymentServiceClient(conn).Freeze(metadata.NewOutgoingContext(soon(t), claims), &emergencyv1.FreezeRequest{
			Meta: &emergencyv1.CommandMeta{Incident: "e20261124.9", RequestId: "handed-on-1"}, Grant: "G1",
		})
		no, ok := rpc.RefusalOf(err)
		if !ok {
			t.Fatalf("%s: %v", folder, err)
		}
		return no
	}
	folders := []string{"people/carla", "people/bert", "agents/" + demobook.Host, "agents/" + demobook.Test}
	for _, s := range cluster.Services() {
		if s != procedure.OwnerDeployment {
			folders = append(folders, "services/"+s)
		}
	}
	for _, folder := range folders {
		if no := call(folder); no.Code != procedure.PermissionDenied || no.Reason != rpc.ReasonCallerClass || !strings.Contains(no.Message, "another instance of this service") {
			t.Errorf("%s may say whose call it hands on: %v", folder, no)
		}
	}
	if no := call("services/" + procedure.OwnerDeployment); no.Reason != procedure.ReasonIncident {
		t.Errorf("carla's call that the service hands on: %v", no)
	}
}

// throughTheOther: every call and the watch itself are made at the instance that does not have the session.
func (d *desks) throughTheOther(t *testing.T) {
	s := d.open(t, d.two)
	s.types("echo > " + s.path("here"))

	began := time.Now()
	s.do(d.two, "carl", &emergencyv1.FreezeRequest{Grant: "G1"})
	t.Logf("frozen, recorded and answered within %s", time.Since(began).Round(time.Millisecond))
	never := s.ignored()
	g := s.await("frozen", func(g *procedure.Grant) bool { return g.State == procedure.GrantFrozen })
	if g.FreezeCause != emergencyv1.SessionCause_SESSION_CAUSE_WATCHER || g.FreezeMode == emergencyv1.FreezeMode_FREEZE_MODE_INPUT {
		t.Errorf("frozen because of %v, %v", g.FreezeCause, g.FreezeMode)
	}
	s.resume(d.two)
	s.types("echo > " + s.path("on"))
	if exists(never) {
		t.Error("what was typed while the session was frozen has run")
	}
	s.do(d.two, "carla", &emergencyv1.MarkSessionRequest{Grant: "G1", Kind: emergencyv1.MarkKind_MARK_KIND_NOTE, Text: "noted through the other"})
	s.do(d.two, "carla", &emergencyv1.ExtendSessionRequest{Grant: "G1", Minutes: 10, Reason: "it takes longer than was thought"})

	before := s.now().Frozen.Position
	s.watcher.Signal(syscall.SIGKILL)
	g = s.await("frozen without a watcher", func(g *procedure.Grant) bool { return g.Frozen.Position > before })
	if g.FreezeCause != emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST {
		t.Errorf("frozen because of %v", g.FreezeCause)
	}
	s.watch(d.two)
	s.resume(d.two)
	s.types("echo > " + s.path("again"))

	s.do(d.two, "carla", &emergencyv1.TerminateRequest{Grant: "G1"})
	g = s.await("the end", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 })
	for _, r := range g.Results {
		if r.GetOutcome() != emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE {
			t.Errorf("%s: %v, %s", r.GetEffect(), r.GetOutcome(), r.GetDetail())
		}
	}
	s.closed()
	if code := s.watcher.Code(); code != 0 {
		t.Errorf("carla's view did not see the end as one: status %d", code)
	}
	s.do(d.two, "carla", &emergencyv1.DisableRequest{Grant: "G1"})
	s.do(d.two, "carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"})
	if g := s.now(); g.State != procedure.GrantProvenUnusable {
		t.Errorf("the access is %s", g.State)
	}
	unsealed, err := s.recording(d.two)
	must(t, err)
	if g = s.sealed(d.two); g.Record != emergencyv1.RecordingState_RECORDING_STATE_COMPLETE {
		t.Errorf("the recording is %v", g.Record)
	}
	for _, i := range []*cluster.Instance{d.one, d.two} {
		b, err := s.recording(i)
		must(t, err)
		if len(b) == 0 || !bytes.Equal(b, unsealed) || !strings.Contains(string(b), "noted through the other") {
			t.Errorf("the recording at %s has %d bytes, before the seal it had %d", i.Name(), len(b), len(unsealed))
		}
	}
}

// goesOn checks that the session goes on for longer than an instance that starts takes to end what it finds (its effects have 5 s): until the
// history has anchored the recording twice more, which happens every 5 s.
func (s *shared) goesOn() {
	s.t.Helper()
	for range 2 {
		anchored := len(s.now().Checkpoints)
		s.types("echo still here")
		s.await("a checkpoint of a session that goes on", func(g *procedure.Grant) bool { return len(g.Checkpoints) > anchored })
	}
	s.types("echo and here")
}

// otherRestarts: an instance that stops and starts, in order or killed, ends no session but its own.
func (d *desks) otherRestarts(t *testing.T) {
	s := d.open(t, d.one)
	must(t, d.two.Process().Stop())
	must(t, d.c.StartInstance(t.Context(), d.two))
	s.goesOn()
	must(t, d.two.Process().Kill())
	must(t, d.c.StartInstance(t.Context(), d.two))
	s.goesOn()
	if g := s.now(); g.State != procedure.GrantLive {
		t.Errorf("the session is %s", g.State)
	}
	s.do(d.two, "carla", &emergencyv1.TerminateRequest{Grant: "G1"})
	s.closed()
}

// killed: the instance that had the session is killed, and does not come back: the other ends the access and says so.
func (d *desks) killed(t *testing.T) {
	s := d.open(t, d.two)
	s.types(fmt.Sprintf("setsid sh -c 'echo $$ > %s; while :; do sleep 1; done' < /dev/null > /dev/null 2>&1 &", s.path("pid")))
	var left process
	eventually(t, "what bert has detached runs", func() bool {
		b, _ := os.ReadFile(s.path("pid"))
		left = process{pid: strings.TrimSpace(string(b))}
		left.began, _ = procStat(left.pid)
		return left.began != ""
	})
	must(t, d.one.Process().Kill())
	g := s.await("the end", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 })
	if g.Cause != emergencyv1.SessionCause_SESSION_CAUSE_GATEWAY_LOST {
		t.Errorf("ended because of %v", g.Cause)
	}
	s.closed()
	eventually(t, "what bert has detached runs no more", left.gone)
	s.await("what the session left and changed", func(g *procedure.Grant) bool { return g.Diff.Position > 0 && len(g.LeftoversReported) > 0 })
	s.do(d.two, "carla", &emergencyv1.DisableRequest{Grant: "G1"})
	s.do(d.two, "carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"}) // at the host by the public half of a key that nobody has any more
	if g := s.now(); g.State != procedure.GrantProvenUnusable || g.TargetKey == "" {
		t.Errorf("the access is %s", g.State)
	}
	// Nobody says that there is no recording while the instance that has it is only away.
	if err := s.sealSoon(); status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("sealed without the recording: %v", err)
	}
	must(t, d.c.StartInstance(t.Context(), d.one))
	if g = s.sealed(d.two); g.Record != emergencyv1.RecordingState_RECORDING_STATE_INCOMPLETE {
		t.Errorf("the recording is %v", g.Record)
	}
}

// sealSoon seals at the second instance, or gives up soon.
func (s *shared) sealSoon() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	_, err := s.at(s.two, "carla").Send(ctx, &emergencyv1.SealSessionRequest{Meta: &emergencyv1.CommandMeta{Incident: s.id}, Grant: "G1"})
	return err
}

// standsStill is whether all threads of a process are stopped, which a signal alone does not say on a busy machine.
func standsStill(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	must(t, err)
	for _, thread := range threads {
		if _, state := procStat(fmt.Sprintf("%d/task/%s", pid, filepath.Base(thread))); state != "T" {
			return false
		}
	}
	return len(threads) > 0
}

// silent: the instance that has the session stands still. The host's agent freezes it, a person ends it at the other instance, and what is
// not known of its connections is not said to be done. When it runs again nothing of the session is left in it.
func (d *desks) silent(t *testing.T) {
	s := d.open(t, d.two)
	s.types("echo > " + s.path("here"))
	must(t, d.one.Process().Signal(syscall.SIGSTOP))
	eventually(t, "every thread of the instance stands still", func() bool { return standsStill(t, d.one.Process().PID()) })
	never := s.ignored()
	s.do(d.two, "carl", &emergencyv1.FreezeRequest{Grant: "G1"})
	g := s.await("frozen", func(g *procedure.Grant) bool { return g.State == procedure.GrantFrozen })
	if g.FreezeMode == emergencyv1.FreezeMode_FREEZE_MODE_INPUT {
		t.Errorf("frozen: %v", g.FreezeMode)
	}
	s.do(d.two, "carl", &emergencyv1.TerminateRequest{Grant: "G1"})
	g = s.await("the end", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 })
	for _, r := range g.Results {
		want := emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE
		if r.GetEffect() == "input" || r.GetEffect() == "channels" {
			want = emergencyv1.EffectOutcome_EFFECT_OUTCOME_FAILED
		}
		if r.GetOutcome() != want {
			t.Errorf("%s: %v, %s", r.GetEffect(), r.GetOutcome(), r.GetDetail())
		}
	}
	must(t, d.one.Process().Signal(syscall.SIGCONT))
	s.closed()
	s.await("the end of the recording is anchored by the instance that has it", func(g *procedure.Grant) bool {
		return len(g.Checkpoints) > 0 && g.Last().Position > g.Terminated.Position
	})
	if exists(never) {
		t.Error("what was typed while the instance stood still has run")
	}
}
