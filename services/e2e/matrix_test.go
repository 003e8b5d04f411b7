// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rpc/command"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// The role x command matrix of procedure.md 2.2 (pt.Matrix, a line a command) over the real API: each command of each service, by somebody
// of each role, and by those who have none.

// caller is somebody at the other end of a connection.
type caller struct {
	what   string
	person string // empty for a system, and for nobody
	signer crypto.Signer
	conn   *grpc.ClientConn
	// allowed tells whether the role or system may give a command; of the others, want is why not.
	allowed func(pt.MatrixLine) bool
	code    procedure.Code
	want    procedure.Reason
}

// ways are the commands of the API and where each is given, found in the descriptors of all services: a new one is in the test at once.
func ways(t *testing.T) map[string]protoreflect.MethodDescriptor {
	t.Helper()
	byInput := map[protoreflect.FullName]string{}
	for _, c := range procedure.Commands() {
		byInput[c.New().ProtoReflect().Descriptor().FullName()] = c.Name
	}
	found := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(f.Package()), "emergency.") {
			return true
		}
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(j)
				name, ok := byInput[m.Input().FullName()]
				if ok && found[name] != nil {
					t.Errorf("%s is given by %s and by %s", name, found[name].FullName(), m.FullName())
				}
				if ok {
					found[name] = m
				}
			}
		}
		return true
	})
	return found
}

// TestMatrixOverTheAPI: whoever has the role gets past it, whatever else stands against the command; whoever has it not is refused
// with PERMISSION_DENIED/ROLE. No certificate, a key that nobody knows, a revoked key, a service's certificate and a role that has ended
// give nothing.
func TestMatrixOverTheAPI(t *testing.T) {
	t.Parallel()
	m := &matrixRun{t: t, env: testenv.Start(t, testenv.Options{Console: true})}
	m.other = m.env.Play(testenv.Declared).ID
	m.story = m.env.Play(testenv.Verified)
	callers := m.callers()

	methods := ways(t)
	cells := 0
	for _, line := range pt.Matrix() {
		method := methods[line.Command]
		if method == nil {
			continue // nobody gives it from outside: see below
		}
		var err error
		m.state = m.story.State()
		m.book, err = m.env.As("bea").Book(t.Context())
		must(t, err)
		if m.content(line, &callers[0]) == nil {
			t.Errorf("no example of %s", line.Name())
			continue
		}
		var group errgroup.Group
		group.SetLimit(8)
		for i := range callers {
			group.Go(func() error { m.check(line, &callers[i]); return nil })
			cells++
		}
		_ = group.Wait()
	}
	inMatrix := map[string]bool{}
	for _, line := range pt.Matrix() {
		inMatrix[line.Command] = true
	}
	for name, method := range methods {
		if !inMatrix[name] {
			t.Errorf("the matrix has no line for %s", method.FullName())
		}
	}
	for _, c := range procedure.Commands() {
		if methods[c.Name] == nil && !slices.Contains(inside, c.Name) {
			t.Errorf("%s is in no service", c.Name)
		}
	}
	t.Logf("%d cells: %d commands by %d callers", cells, len(methods), len(callers))
	m.readings(callers)
	soundHere(t, m.env)
}

// inside are the commands that only the system's own parts give, by no method of the API: what follows an event, what the broker has
// recognised, and the founding.
var inside = []string{
	"AbsorbDuplicate", "Connect", "Establish", "PlayRecording", "ReportConnection", "ReportFiling", "ReportRedaction", "SyncObligations", "Tick",
}

type matrixRun struct {
	t     *testing.T
	env   *testenv.Env
	story *testenv.Story
	other string // another incident, declared before
	state *procedure.State
	book  *rulebook.Book
}

// callers are somebody for each column of the matrix, each kind of system, and those who must get nowhere.
func (m *matrixRun) callers() []caller {
	t, env := m.t, m.env
	t.Helper()
	who := map[string]string{
		"CA": "carl", "SA": "anna", "SD": "dora", "SE": "emil", "TE": "theo", "CL": "clara", "AL": "albert", "CM": "casper", "AR": "arno", "BD": "bea",
		"DO": env.Enlist("doris", emergencyv1.Role_ROLE_DISPUTE_OFFICER), "ME": "mia",
	}
	board := env.As("bea")
	give := func(c procedure.Command) {
		t.Helper()
		_, err := board.Send(t.Context(), withMeta(c, procedure.RuleBook))
		must(t, err)
	}
	ended := func(person string, roles ...emergencyv1.Role) {
		t.Helper()
		for i, r := range roles {
			if i == 0 {
				env.Enlist(person, r)
			} else {
				give(&emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{Person: person, Role: r, EffectiveAt: timestamppb.New(env.Clock.Now()), BoardDecision: "m1"}})
			}
			give(&emergencyv1.RevokeRoleRequest{Person: person, Role: r, EffectiveAt: timestamppb.New(env.Clock.Now()), BoardDecision: "m2"})
		}
	}
	ended("mia", emergencyv1.Role_ROLE_SUPPORT_ENGINEER) // a member without any role
	var all []emergencyv1.Role
	for r := range emergencyv1.Role_name {
		if role := emergencyv1.Role(r); role != emergencyv1.Role_ROLE_UNSPECIFIED && role != emergencyv1.Role_ROLE_MEMBER {
			all = append(all, role)
		}
	}
	slices.Sort(all)
	ended("xenia", all...)

	var list []caller
	add := func(c caller, dir string) {
		t.Helper()
		cfg := rpc.ClientConfig{Dialer: env.Dial}
		profile, err := identity.Load(cmp.Or(dir, env.Data("people", "carla")), identity.LoadOptions{Now: env.Clock.Now(), Dev: true})
		must(t, err)
		if dir == "" {
			cfg.Roots = profile.Roots
		} else {
			cfg.Identity = profile.Current
		}
		c.signer = profile.Signer
		c.conn, err = rpc.Dial("localhost:1", cfg)
		must(t, err)
		t.Cleanup(func() { must(t, c.conn.Close()) })
		if c.code == "" {
			c.code, c.want = procedure.PermissionDenied, procedure.ReasonRole
		}
		list = append(list, c)
	}
	never := func(pt.MatrixLine) bool { return false }
	as := func(column string) func(pt.MatrixLine) bool {
		return func(l pt.MatrixLine) bool { return l.Allowed[column] }
	}
	for _, column := range pt.MatrixColumns() {
		add(caller{what: column, person: who[column], allowed: as(column)}, env.Profile(who[column]))
	}
	add(caller{what: "whose roles have ended", person: "xenia", allowed: as("ME")}, env.Profile("xenia"))
	for person, role := range map[string]emergencyv1.Role{"sven": emergencyv1.Role_ROLE_SUPPORT_ENGINEER, "axel": emergencyv1.Role_ROLE_ACCESS_ENGINEER} {
		add(caller{what: role.String(), person: env.Enlist(person, role), allowed: as("ME")}, env.Profile(person)) // no command of their own
	}
	for kind, name := range map[emergencyv1.SystemKind]string{
		emergencyv1.SystemKind_SYSTEM_KIND_TIMER: "timer", emergencyv1.SystemKind_SYSTEM_KIND_MAILER: "mailer", emergencyv1.SystemKind_SYSTEM_KIND_REACTOR: "reactor",
		emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT: "host_agent", emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT: "test_agent",
		emergencyv1.SystemKind_SYSTEM_KIND_REPO_AGENT: "repo_agent", emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY: "gateway",
		emergencyv1.SystemKind_SYSTEM_KIND_SERVICE: "service",
	} {
		dir, key := env.Key("key-of-" + strings.ReplaceAll(name, "_", "-"))
		key.System, key.SystemName = kind, map[string]string{"host_agent": "critical-1", "test_agent": "test-1"}[name]
		key.SystemName = cmp.Or(key.SystemName, name)
		give(&emergencyv1.AddKeyRequest{Key: key})
		add(caller{what: name, allowed: func(l pt.MatrixLine) bool { return slices.Contains(l.Systems, name) }}, dir)
	}
	add(caller{what: "nobody", allowed: never, code: procedure.Unauthenticated, want: procedure.ReasonNoIdentity}, "")
	unknown, _ := env.Key("stranger")
	add(caller{what: "an unknown key", person: "carl", allowed: never, code: procedure.PermissionDenied, want: procedure.ReasonKeyUnknown}, unknown)
	for _, column := range []string{"CA", "AL", "BD"} { // between them they may do most
		second := env.SecondKey(who[column])
		give(&emergencyv1.RevokeKeyRequest{KeyId: env.As(second).KeyID(), Reason: "the laptop was lost"})
		add(caller{what: "a revoked key of " + column, person: who[column], allowed: never, code: procedure.PermissionDenied, want: procedure.ReasonKeyRevoked}, env.Profile(second))
	}
	return list
}

// readings asks each method that is no command: who may not even ask. What of an answer is for whom, the readings' own tests hold.
func (m *matrixRun) readings(callers []caller) {
	const public = "/emergency.dashboard.v1.QueryService/ReadLog"
	among := []string{ // the services among each other
		"/emergency.deployment.v1.AgentService/RunJob", "/emergency.deployment.v1.ConsoleService/ReadInstance", "/emergency.restricted.v1.RestrictedService/Reveal", "/emergency.restricted.v1.RestrictedService/Erase",
		"/emergency.review.v1.ReviewReaderService/ComputePatch",
	}
	strangers := []procedure.Reason{procedure.ReasonNoIdentity, procedure.ReasonKeyUnknown, procedure.ReasonKeyRevoked}
	for method, desc := range others() {
		for i := range callers {
			c := &callers[i]
			ctx, cancel := context.WithTimeout(m.t.Context(), testenv.Patience)
			err := callEmpty(ctx, c.conn, desc)
			cancel()
			r, refused := rpc.RefusalOf(err)
			got, want := procedure.Reason(""), procedure.Reason("")
			if refused {
				got = r.Reason
			}
			switch {
			case method == public:
			case c.want == procedure.ReasonNoIdentity, c.want == procedure.ReasonKeyRevoked:
				want = c.want
			case slices.Contains(among, method) && c.what != "service":
				want = rpc.ReasonCallerClass
			case c.want == procedure.ReasonKeyUnknown:
				want = c.want
			}
			switch {
			case want != "" && got != want:
				m.t.Errorf("%s by %s: %v, want %s", method, c.what, err, want)
			case want == "" && err != nil && !refused:
				m.t.Errorf("%s by %s: %v", method, c.what, err)
			case want == "" && (slices.Contains(strangers, got) || method == public && err != nil):
				m.t.Errorf("%s by %s, who may ask: %v", method, c.what, err)
			}
		}
	}
}

// others are the methods of the API that are no commands.
func others() map[string]protoreflect.MethodDescriptor {
	commands := map[protoreflect.FullName]bool{}
	for _, c := range procedure.Commands() {
		commands[c.New().ProtoReflect().Descriptor().FullName()] = true
	}
	found := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				if m := f.Services().Get(i).Methods().Get(j); strings.HasPrefix(string(f.Package()), "emergency.") && !commands[m.Input().FullName()] {
					found[fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())] = m
				}
			}
		}
		return true
	})
	return found
}

// callEmpty calls a method with an empty question.
func callEmpty(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) error {
	path := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return conn.Invoke(ctx, path, in, out)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}, path)
	if err != nil {
		return err
	}
	if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return s.RecvMsg(out)
}

// early are the reasons of checks that come before or with the role: whoever is refused for one of them has not got past it.
var early = []procedure.Reason{
	procedure.ReasonNoIdentity, procedure.ReasonKeyUnknown, procedure.ReasonKeyRevoked, procedure.ReasonField, procedure.ReasonSignature, procedure.ReasonRequestIDReused,
	procedure.ReasonIncident, procedure.ReasonRole, procedure.ReasonForwarding, rpc.ReasonCallerClass, rpc.ReasonDeadlineRequired, rpc.ReasonRate,
}

// check is one cell.
func (m *matrixRun) check(line pt.MatrixLine, c *caller) {
	m.t.Helper()
	cmd := m.example(line, c)
	ctx, cancel := context.WithTimeout(m.t.Context(), testenv.Patience)
	defer cancel()
	_, err := command.Give(ctx, c.conn, cmd, command.Retry{Patience: testenv.Patience, Now: time.Now})
	r, refused := rpc.RefusalOf(err)
	switch allowed := c.allowed(line); {
	case err != nil && !refused:
		m.t.Errorf("%s by %s: %v", line.Name(), c.what, err)
	case allowed && refused && slices.Contains(early, r.Reason):
		m.t.Errorf("%s by %s is allowed, and refused: %s/%s %s", line.Name(), c.what, r.Code, r.Reason, r.Message)
	case !allowed && err == nil:
		m.t.Errorf("%s by %s is accepted", line.Name(), c.what)
	case !allowed && (r.Code != c.code || r.Reason != c.want):
		m.t.Errorf("%s by %s is refused with %s/%s (%s), want %s/%s", line.Name(), c.what, r.Code, r.Reason, r.Message, c.code, c.want)
	case !allowed && (r.Rule == "" || r.Message == "" || len(r.Allow) == 0):
		m.t.Errorf("%s by %s: the refusal lacks its rule, its words or what would be allowed: %v", line.Name(), c.what, r)
	}
}

// example is a well-formed command of the line by the caller, in the named relation, signed by whoever gives it.
func (m *matrixRun) example(line pt.MatrixLine, c *caller) procedure.Command {
	m.t.Helper()
	var info procedure.CommandInfo
	for _, i := range procedure.Commands() {
		if i.Name == line.Command {
			info = i
		}
	}
	cmd := m.content(line, c)
	incident := m.story.ID
	switch {
	case line.Command == "Declare":
		incident = ""
	case info.RuleBook:
		incident = procedure.RuleBook
	case info.Archive:
		incident = procedure.Archive
	}
	withMeta(cmd, incident)
	fields := cmd.ProtoReflect().Descriptor().Fields()
	if fd := fields.ByName("binding"); fd != nil && !cmd.ProtoReflect().Has(fd) {
		r := m.state.Current()
		cmd.ProtoReflect().Set(fd, protoreflect.ValueOfMessage((&emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}).ProtoReflect()))
	}
	if !procedure.NeedsSignature(cmd) {
		return cmd
	}
	state := m.state
	if incident != m.story.ID {
		state = procedure.NewState(incident)
	}
	now := m.env.Clock.Now()
	st, err := procedure.StatementFor(state, cmd, c.person, command.Role(c.person, info.Roles, m.book, now), now)
	if err == nil {
		cmd.GetMeta().Approval, err = identity.SignStatement(c.signer, st)
	}
	if err != nil {
		m.t.Error(err)
	}
	return cmd
}

func withMeta(cmd procedure.Command, incident string) procedure.Command {
	command.Meta(cmd, "cell-"+rand.Text()).Incident = incident
	return cmd
}

// slots are a place of the team of whoever is in one.
var slots = map[string]string{
	"carl": "critical/1", "clara": "critical/1", "anna": "assessment/1", "albert": "assessment/1", "dora": "development/1", "emil": "development/1", "theo": "testing/1",
}

// content is what a command of the line says, about the incident of the story.
func (m *matrixRun) content(line pt.MatrixLine, c *caller) procedure.Command {
	own := cmp.Or(c.person, "carla")
	switch line.Command {
	case "Declare":
		cmd := pt.Declare()
		cmd.System = demobook.System
		return cmd
	case "MergeInto":
		return &emergencyv1.MergeIntoRequest{Target: m.other, Reason: "it is the same outage"}
	case "ConfirmTestServer":
		return &emergencyv1.ConfirmTestServerRequest{Environment: demobook.Test, Tree: m.state.Current().ResultTree}
	case "RecordBoardSummary":
		return m.story.Report()
	case "PublishPolicy":
		return &emergencyv1.PublishPolicyRequest{Policy: []byte("no policy"), Second: &emergencyv1.Approval{}}
	case "GrantRole":
		return &emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{Person: "zoe", Role: emergencyv1.Role_ROLE_TESTER, EffectiveAt: timestamppb.New(m.env.Clock.Now()), BoardDecision: "m3"}}
	case "RevokeRole":
		return &emergencyv1.RevokeRoleRequest{Person: "zoe", Role: emergencyv1.Role_ROLE_TESTER, EffectiveAt: timestamppb.New(m.env.Clock.Now()), BoardDecision: "m4"}
	case "AddKey":
		k := pt.KeyOf("further key of " + c.what)
		return &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{KeyId: k.ID, PublicKey: k.Public, Person: own}}
	case "RevokeKey": // what AddKey added
		return &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("further key of " + c.what).ID, Reason: "lost in the train"}
	}
	return pt.Example(line.Name(), pt.By{Person: own, Slot: cmp.Or(slots[c.person], "critical/1")}, m.state)
}
