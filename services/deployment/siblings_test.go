// SPDX-License-Identifier: Apache-2.0

package deployment_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

// instances are two instances of a deployment service with a console, on one history. Sessions are granted at the first.
type instances struct {
	*sessionWorld
	two  *world
	stop func() // ends the first one's server
}

func serveInstances(t *testing.T) *instances {
	t.Helper()
	r := deploymenttest.New(t)
	r.Siblings = true
	var listeners []net.Listener
	var siblings []deployment.Sibling
	for range 2 {
		lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		r.Must(err)
		conn, err := rpc.Dial(lis.Addr().String(), rpc.ClientConfig{Identity: r.Service.Current, Once: true})
		r.Must(err)
		t.Cleanup(func() { _ = conn.Close() })
		listeners, siblings = append(listeners, lis), append(siblings, deployment.Sibling{Address: lis.Addr().String(), Conn: conn})
	}
	key, err := broker.LoadKey(filepath.Join(t.TempDir(), "host_key"))
	r.Must(err)
	known := filepath.Join(t.TempDir(), "known_hosts")
	r.Must(os.WriteFile(known, []byte(knownhosts.Line([]string{"127.0.0.1:1"}, key.PublicKey())+"\n"), 0o600))
	x := &instances{}
	for n, lis := range listeners {
		s, err := r.TryInstance(fmt.Sprintf("instance-%d", n+1), deployment.Config{
			Repository: r.Bare, StateDir: t.TempDir(), Siblings: siblings, Access: deployment.AccessConfig{Account: "console", Recordings: filepath.Join(t.TempDir(), "recordings")},
			Console: deployment.ConsoleConfig{Listen: "127.0.0.1:0", Targets: map[string]string{deploymenttest.Host: "127.0.0.1:1"}, KnownHosts: known},
		})
		r.Must(err)
		stop := r.ServeOn(lis, s.Register)
		if w := (&world{r, lis.Addr().String()}); n == 0 {
			x.sessionWorld, x.stop, r.Deployment = &sessionWorld{world: w}, stop, s
		} else {
			x.two = w
		}
	}
	return x
}

func (w *world) console(who string) deploymentv1.ConsoleServiceClient {
	return deploymentv1.NewConsoleServiceClient(w.Conn(w.addr, who))
}

// publicKey is a fresh one of a subject.
func (w *world) publicKey() string {
	w.Helper()
	key, err := broker.LoadKey(filepath.Join(w.TempDir(), "id"))
	w.Must(err)
	return string(ssh.MarshalAuthorizedKey(key.PublicKey()))
}

// watch opens a watch and returns the welcome, and how to go on.
func (w *world) watch(ctx context.Context, who string, hello *deploymentv1.WatchHello) (deploymentv1.ConsoleService_WatchClient, *deploymentv1.WatchWelcome, error) {
	stream, err := w.console(who).Watch(ctx)
	w.Must(err)
	if err := stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Hello{Hello: hello}}); !errors.Is(err, io.EOF) { // which is told below
		w.Must(err)
	}
	m, err := stream.Recv()
	return stream, m.GetWelcome(), err
}

// give gives a command at an instance.
func give[C procedure.Command, R any](w *world, who, incident string, cmd C, call func(deploymentv1.DeploymentServiceClient, context.Context, C, ...grpc.CallOption) (R, error)) error {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	w.Prepare(who, incident, cmd)
	_, err := call(w.client(who), ctx, cmd)
	return err
}

// TestSameAtBoth: whoever asks, what is answered about a session is the same at the instance that has it and at the other.
func TestSameAtBoth(t *testing.T) {
	t.Parallel()
	x := serveInstances(t)
	x.sessionAgent()
	incident := x.granted()
	if g := x.State(incident).Grants[0]; g.Gateway != "instance-1" {
		t.Fatalf("the session is %q's", g.Gateway)
	}
	const grant = deploymenttest.Grant
	watch := func(hello *deploymentv1.WatchHello) func(*world, string) error {
		return func(w *world, who string) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hello.Incident, hello.Grant = incident, grant
			_, welcome, err := w.watch(ctx, who, hello)
			if err == nil {
				return fmt.Errorf("watches as %s", welcome.GetMode())
			}
			return err
		}
	}
	calls := map[string]func(w *world, who string) error{
		"Freeze": func(w *world, who string) error {
			return give(w, who, incident, &emergencyv1.FreezeRequest{Grant: grant}, deploymentv1.DeploymentServiceClient.Freeze)
		},
		"Resume": func(w *world, who string) error {
			return give(w, who, incident, &emergencyv1.ResumeRequest{Grant: grant}, deploymentv1.DeploymentServiceClient.Resume)
		},
		"MarkSession": func(w *world, who string) error {
			return give(w, who, incident, &emergencyv1.MarkSessionRequest{Grant: grant, Text: "here"}, deploymentv1.DeploymentServiceClient.MarkSession)
		},
		"ExtendSession": func(w *world, who string) error {
			return give(w, who, incident, &emergencyv1.ExtendSessionRequest{Grant: grant, Reason: "it takes longer than was thought"}, deploymentv1.DeploymentServiceClient.ExtendSession)
		},
		"ProveUnusable": func(w *world, who string) error {
			return give(w, who, incident, &emergencyv1.ProveUnusableRequest{Grant: grant}, deploymentv1.DeploymentServiceClient.ProveUnusable)
		},
		"SealSession": func(w *world, who string) error {
			return give(w, who, incident, &emergencyv1.SealSessionRequest{Grant: grant}, deploymentv1.DeploymentServiceClient.SealSession)
		},
		"FetchCredential": func(w *world, who string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, err := w.console(who).FetchCredential(ctx, &deploymentv1.FetchCredentialRequest{Incident: incident, Grant: grant, PublicKey: w.publicKey()})
			if err == nil {
				return fmt.Errorf("credential for %s, %s", c.GetAddress(), c.GetKnownHosts())
			}
			return err
		},
		"ReadRecording": func(w *world, who string) error {
			stream, err := w.console(who).ReadRecording(t.Context(), &deploymentv1.ReadRecordingRequest{Incident: incident, Grant: grant, RequestId: "play-" + who + "-" + w.addr[len(w.addr)-5:]})
			w.Must(err)
			_, err = stream.Recv()
			return err
		},
		"watch as an observer":          watch(&deploymentv1.WatchHello{Observe: true}),
		"watch":                         watch(&deploymentv1.WatchHello{}),
		"show to carl, unsigned":        watch(&deploymentv1.WatchHello{Person: deploymenttest.Watcher}),
		"show to carl as an observer":   watch(&deploymentv1.WatchHello{Person: deploymenttest.Watcher, Observe: true}),
		"show to the subject":           watch(&deploymentv1.WatchHello{Person: deploymenttest.Subject, Observe: true}),
		"a grant that there is not":     func(w *world, who string) error { return watchOf(t, w, who, incident, "G9") },
		"an incident that there is not": func(w *world, who string) error { return watchOf(t, w, who, "e20261124.99", grant) },
		"a grant that there is not, Freeze": func(w *world, who string) error {
			return give(w, who, incident, &emergencyv1.FreezeRequest{Grant: "G9"}, deploymentv1.DeploymentServiceClient.Freeze)
		},
	}
	done := 0
	for _, armed := range []bool{false, true} {
		if armed {
			x.Must(give(x.two, deploymenttest.Watcher, incident, proceduretest.Arm(), deploymentv1.DeploymentServiceClient.ArmWatch))
		}
		for name, call := range calls {
			for _, who := range []string{deploymenttest.Watcher, deploymenttest.Granter, deploymenttest.Subject, "clara", "dora", "epatchd", deploymenttest.Host, "stranger"} {
				here, there := call(x.world, who), call(x.two, who)
				one, refused := rpc.RefusalOf(here)
				two, _ := rpc.RefusalOf(there)
				if here == nil || there == nil || refused != (two != nil) || refused && !reflect.DeepEqual(one, two) || !refused && here.Error() != there.Error() {
					t.Errorf("%s by %s, armed %t: %v; at the other instance: %v", name, who, armed, here, there)
				}
				if !refused {
					done++
				}
			}
		}
	}
	if done == 0 {
		t.Error("everything was refused to everybody")
	}
}

func watchOf(t *testing.T, w *world, who, incident, grant string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, _, err := w.watch(ctx, who, &deploymentv1.WatchHello{Incident: incident, Grant: grant})
	return err
}

// TestWatchThroughTheOther: signs of life and what is told go through; who looks on at the other instance is on the same session. The client's
// end ends the watch where the session is.
func TestWatchThroughTheOther(t *testing.T) {
	t.Parallel()
	x := serveInstances(t)
	x.sessionAgent()
	incident := x.granted()
	x.Must(give(x.two, deploymenttest.Watcher, incident, proceduretest.Arm(), deploymentv1.DeploymentServiceClient.ArmWatch))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hello := &deploymentv1.WatchHello{Incident: incident, Grant: deploymenttest.Grant}
	stream, welcome, err := x.two.watch(ctx, deploymenttest.Watcher, hello)
	x.Must(err)
	if welcome.GetMode() != deploymentv1.WatchMode_WATCH_MODE_WATCHER {
		t.Errorf("%v", welcome)
	}
	x.Must(stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Renewal{Renewal: &deploymentv1.WatchRenewal{}}}))
	look, _, err := x.watch(t.Context(), deploymenttest.Granter, &deploymentv1.WatchHello{Incident: incident, Grant: deploymenttest.Grant, Observe: true})
	x.Must(err)
	watched := func(want bool) {
		t.Helper()
		for {
			m, err := look.Recv()
			x.Must(err)
			for _, p := range m.GetState().GetPersons() {
				if p.GetPart() == "watcher" && p.GetPerson() == deploymenttest.Watcher == want {
					return
				}
			}
			if m.GetState() != nil && !want && !strings.Contains(m.String(), "watcher") {
				return
			}
		}
	}
	watched(true)
	// What the watcher's client gets wrong is refused there as here.
	bad, _, err := x.two.watch(t.Context(), deploymenttest.Watcher, hello)
	x.Must(err)
	x.Must(bad.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Hello{Hello: hello}}))
	for err == nil {
		_, err = bad.Recv()
	}
	wantRefusal(t, err, procedure.ReasonField)
	x.Must(stream.CloseSend())
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("a watch that its client has ended ends with %v", err)
	}
	watched(false)
	silent, err := x.console(deploymenttest.Watcher).Watch(t.Context())
	x.Must(err)
	x.Must(silent.CloseSend())
	_, err = silent.Recv()
	wantRefusal(t, err, procedure.ReasonField)
}

// TestInstanceAway: an instance that has a grant and is gone, with its process, or only silent. Nobody else lets anybody in, and nobody says what
// only that instance knows; but the access is ended at the other.
func TestInstanceAway(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"gone", "silent", "helpless", "disbelieving"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			x := serveInstances(t)
			x.sessionAgent()
			incident := x.granted()
			attached := &sessionWorld{world: x.two}
			attached.sessionAgent()
			x.stop()
			gone := how == "gone"
			if !gone {
				lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", x.addr)
				x.Must(err)
				t.Cleanup(func() { _ = lis.Close() }) // takes connections and says nothing
				switch how {
				case "helpless":
					x.ServeOn(lis, powerless{err: service.Away("the log does not answer")}.register)
				case "disbelieving":
					no := &procedure.Refusal{Code: procedure.PermissionDenied, Reason: rpc.ReasonCallerClass, Rule: "hardening 1.6", Message: "no instance of this service"}
					x.ServeOn(lis, powerless{err: no}.register)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := x.two.console(deploymenttest.Subject).FetchCredential(ctx, &deploymentv1.FetchCredentialRequest{Incident: incident, Grant: deploymenttest.Grant, PublicKey: x.publicKey()})
			if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded && code != codes.Unimplemented {
				t.Errorf("a credential of another's gateway: %v", err)
			}
			_, _, err = x.two.watch(t.Context(), deploymenttest.Granter, &deploymentv1.WatchHello{Incident: incident, Grant: deploymenttest.Grant, Observe: true})
			if code := status.Code(err); code != codes.Unavailable && code != codes.Unimplemented {
				t.Errorf("watched without the session: %v", err)
			}
			x.Must(give(x.two, deploymenttest.Watcher, incident, &emergencyv1.TerminateRequest{Grant: deploymenttest.Grant}, deploymentv1.DeploymentServiceClient.Terminate))
			for _, r := range x.State(incident).Grants[0].Results {
				failed := r.GetOutcome() == emergencyv1.EffectOutcome_EFFECT_OUTCOME_FAILED
				if unseen := r.GetEffect() == "input" || r.GetEffect() == "channels"; failed != (unseen && !gone) {
					t.Errorf("%s: %v, %s", r.GetEffect(), r.GetOutcome(), r.GetDetail())
				}
			}
		})
	}
}

// powerless is an instance that answers to its name and can do nothing.
type powerless struct {
	deploymentv1.UnimplementedDeploymentServiceServer
	deploymentv1.UnimplementedConsoleServiceServer
	err error
}

func (p powerless) register(s grpc.ServiceRegistrar) {
	deploymentv1.RegisterDeploymentServiceServer(s, p)
	deploymentv1.RegisterConsoleServiceServer(s, p)
}

func (powerless) ReadInstance(context.Context, *deploymentv1.ReadInstanceRequest) (*deploymentv1.ReadInstanceResponse, error) {
	return &deploymentv1.ReadInstanceResponse{Instance: "instance-1"}, nil
}

func (p powerless) Terminate(context.Context, *emergencyv1.TerminateRequest) (*emergencyv1.TerminateResponse, error) {
	return nil, p.err
}

// TestRecordingOfALostInstance: the recording of a session that is not sealed lies with the instance that made it. While that is only away nobody
// says that there is none; once another instance has its place in the service, what is sealed is that it is missing.
func TestRecordingOfALostInstance(t *testing.T) {
	t.Parallel()
	x := serveInstances(t)
	x.sessionAgent()
	incident := x.granted()
	x.open(incident)
	seal := func() error {
		return give(x.two, deploymenttest.Granter, incident, &emergencyv1.SealSessionRequest{Grant: deploymenttest.Grant}, deploymentv1.DeploymentServiceClient.SealSession)
	}
	read := func(id string) error {
		stream, err := x.two.console(deploymenttest.Granter).ReadRecording(t.Context(), &deploymentv1.ReadRecordingRequest{Incident: incident, Grant: deploymenttest.Grant, RequestId: id})
		x.Must(err)
		_, err = stream.Recv()
		return err
	}
	x.stop()
	if err := seal(); status.Code(err) != codes.Unavailable {
		t.Errorf("sealed while the recording is away: %v", err)
	}
	if err := read("play-away"); status.Code(err) != codes.Unavailable {
		t.Errorf("read while the recording is away: %v", err)
	}
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", x.addr)
	x.Must(err)
	another, err := x.TryInstance("instance-3", deployment.Config{Repository: x.Bare, StateDir: t.TempDir()})
	x.Must(err)
	x.ServeOn(lis, another.Register)
	wantRefusal(t, seal(), procedure.ReasonNotProvenUnusable) // by the rules: the session goes on, for all that they know
	wantRefusal(t, read("play-lost"), procedure.ReasonEntry)
}

// TestNotHandedOnTwice: an instance that is handed a call about another's session refuses it, and does not pass it on.
func TestNotHandedOnTwice(t *testing.T) {
	t.Parallel()
	x := serveInstances(t)
	x.sessionAgent()
	incident := x.granted()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("epatch-handed-on-caller", x.Profile(deploymenttest.Watcher).KeyID, "epatch-handed-on-address", "127.0.0.1"))
	req := &emergencyv1.FreezeRequest{Grant: deploymenttest.Grant}
	x.Prepare(deploymenttest.Watcher, incident, req)
	conn, err := rpc.Dial(x.two.addr, rpc.ClientConfig{Identity: x.Service.Current, Once: true})
	x.Must(err)
	defer func() { _ = conn.Close() }()
	if _, err := deploymentv1.NewDeploymentServiceClient(conn).Freeze(ctx, req); status.Code(err) != codes.Unavailable {
		t.Errorf("answered %v", err)
	}
}
