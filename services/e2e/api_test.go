// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// What other people's clients meet: any gRPC client with any certificate, or none (issue 3, sections 2, 7 and 8.10).

// connect is a bare gRPC connection with the certificate of a profile folder, or without one; nothing of our clients is in it.
func connect(t *testing.T, env *testenv.Env, profile string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(env.API(), grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(t, env, profile))), grpc.WithDisableRetry())
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return conn
}

// clientTLS trusts the services and shows the certificate of a profile, or none.
func clientTLS(t *testing.T, env *testenv.Env, profile string) *tls.Config {
	t.Helper()
	roots, err := identity.LoadRoots(env.Data("people", "carla", "ca.pem"))
	must(t, err)
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, NextProtos: []string{"h2"}}
	if profile != "" {
		cert, err := tls.LoadX509KeyPair(filepath.Join(profile, identity.CertFile), filepath.Join(profile, identity.KeyFile))
		must(t, err)
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf
}

// soon is a context with the deadline that every call needs.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// methods are all methods of the API.
func methods() []protoreflect.MethodDescriptor {
	var list []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if s := f.Services().Get(i); strings.HasPrefix(string(s.FullName()), "emergency.") {
				for j := range s.Methods().Len() {
					list = append(list, s.Methods().Get(j))
				}
			}
		}
		return true
	})
	return list
}

// call calls any method with an empty request and returns how it ended.
func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) error {
	t.Helper()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingServer() && !m.IsStreamingClient() {
		return conn.Invoke(soon(t), path, in, out)
	}
	stream, err := conn.NewStream(soon(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, path)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(in); err != nil && !errors.Is(err, io.EOF) { // EOF: ended already, and the answer tells why
		return err
	}
	_ = stream.CloseSend() // the answer tells
	return stream.RecvMsg(out)
}

// TestReflection: grpcurl and its like find the whole API with a person's certificate, and call it.
func TestReflection(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	conn := connect(t, env, env.Data("people", "carla"))
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(soon(t))
	must(t, err)
	ask := func(req *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		must(t, stream.Send(req))
		res, err := stream.Recv()
		must(t, err)
		return res
	}
	var listed []string
	for _, s := range ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		listed = append(listed, s.GetName())
	}
	for _, m := range methods() {
		name := string(m.Parent().FullName())
		if !slices.Contains(listed, name) {
			t.Errorf("%s is not listed: %v", name, listed)
		}
		res := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: string(m.FullName())}})
		if len(res.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s is not described: %v", m.FullName(), res.GetErrorResponse())
		}
	}
	who, err := dashboardv1.NewQueryServiceClient(conn).WhoAmI(soon(t), &dashboardv1.WhoAmIRequest{})
	must(t, err)
	if who.GetPerson() != "carla" || !slices.Contains(who.GetRoles(), emergencyv1.Role_ROLE_CRITICAL_ADMIN) || !who.GetDevelopment() {
		t.Errorf("who am I: %v", who)
	}
}

// TestWithoutCertificate: nothing is said to strangers but the public log, health and what the API looks like.
func TestWithoutCertificate(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	conn := connect(t, env, "")
	for _, m := range methods() {
		err := call(t, conn, m)
		if m.Name() == "ReadLog" {
			must(t, err)
			continue
		}
		if r, ok := rpc.RefusalOf(err); !ok || r.Reason != procedure.ReasonNoIdentity || status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s without a certificate: %v", m.FullName(), err)
		}
	}
	health, err := healthv1.NewHealthClient(conn).Check(soon(t), &healthv1.HealthCheckRequest{})
	must(t, err)
	if health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %s", health.GetStatus())
	}
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(soon(t))
	must(t, err)
	must(t, stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}))
	_, err = stream.Recv()
	must(t, err)
}

// TestForeignCertificates: of another authority, it does not come through TLS; of ours with a key that nobody knows, it may
// do nothing.
func TestForeignCertificates(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	other, err := devca.Open(t.TempDir(), time.Now)
	must(t, err)
	forged, err := other.Person("carla")
	must(t, err)
	foreign, err := (&tls.Dialer{Config: clientTLS(t, env, forged)}).DialContext(soon(t), "tcp", env.API())
	must(t, err) // with TLS 1.3 the client is done first; who writes now may see no more than a broken pipe
	defer foreign.Close()
	if _, err := foreign.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("carla's certificate by another authority: %v", err)
	}
	dir, _ := env.Key("stranger")
	conn := connect(t, env, dir)
	for _, m := range methods() {
		err := call(t, conn, m)
		switch r, ok := rpc.RefusalOf(err); {
		case m.Name() == "ReadLog":
			must(t, err)
		case m.Name() == "Attach" && status.Code(err) == codes.OK:
			t.Error("a stranger attached")
		case !ok || r.Reason != procedure.ReasonKeyUnknown && r.Reason != rpc.ReasonCallerClass:
			t.Errorf("%s with an unknown key: %v", m.FullName(), err)
		}
	}
}

// TestRefusalDetails: a refusal carries what a program needs: reason, domain, clause, and what would make it allowed.
func TestRefusalDetails(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.OnTestServer)
	cmd := s.SecondReview(testenv.Approve)
	cmd.Meta = &emergencyv1.CommandMeta{Incident: s.ID}
	_, err := env.As("bert").Sign(t.Context(), cmd)
	must(t, err)
	conn := connect(t, env, env.Data("people", "bert"))
	err = conn.Invoke(soon(t), "/emergency.review.v1.ReviewService/RecordSecondReview", cmd, &emergencyv1.RecordSecondReviewResponse{})
	st := status.Convert(err)
	if st.Code() != codes.FailedPrecondition || len(st.Details()) < 2 {
		t.Fatalf("%v with %d details", err, len(st.Details()))
	}
	info, _ := st.Details()[0].(*errdetails.ErrorInfo)
	if info.GetReason() != "TEST_QUORUM" || info.GetDomain() != procedure.Domain || info.GetMetadata()["rule"] == "" {
		t.Errorf("ErrorInfo: %v", info)
	}
	failure, _ := st.Details()[1].(*errdetails.PreconditionFailure)
	var ways []string
	for _, v := range failure.GetViolations() {
		ways = append(ways, v.GetType()+" "+v.GetSubject()+": "+v.GetDescription())
	}
	if !slices.ContainsFunc(ways, func(w string) bool { return strings.HasPrefix(w, "ReportTest P1r1: ") && strings.Contains(w, "tina") }) ||
		!slices.ContainsFunc(ways, func(w string) bool {
			return strings.HasPrefix(w, "WaiveControl P1r1: ") && strings.Contains(w, "albert")
		}) {
		t.Errorf("what would make it allowed: %q", ways)
	}
	names(t, env.AwaitEvent(s.ID, "review.CommandRefused", 0).GetPayloadJson(), "TEST_QUORUM", "RecordSecondReview")
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil } //nolint:forcetypeassert // of this test's own calls
func (raw) Unmarshal([]byte, any) error   { return nil }
func (raw) Name() string                  { return "proto" }

var _ encoding.Codec = raw{}

// TestBadRequests: huge, malformed, without a deadline, about nothing that exists, from the past, repeated and reordered.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Registered)
	conn := connect(t, env, env.Data("people", "carla"))
	const annotate = "/emergency.incident.v1.IncidentService/AnnotateLog"
	note := func(change func(*emergencyv1.AnnotateLogRequest)) *emergencyv1.AnnotateLogRequest {
		c := &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: s.ID, RequestId: "request-1"}, Entry: 1, Text: "a note"}
		change(c)
		return c
	}
	send := func(ctx context.Context, c *emergencyv1.AnnotateLogRequest) (*emergencyv1.Committed, error) {
		out := &emergencyv1.AnnotateLogResponse{}
		err := conn.Invoke(ctx, annotate, c, out)
		return out.GetCommitted(), err
	}
	_, err := send(soon(t), note(func(c *emergencyv1.AnnotateLogRequest) { c.Text = strings.Repeat("x", 2<<20) }))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("two megabytes: %v", err)
	}
	err = conn.Invoke(soon(t), annotate, []byte("\xff\xff\xff"), new(any), grpc.ForceCodec(raw{}))
	testenv.WantRefusal(t, err, procedure.ReasonField)
	_, err = send(context.Background(), note(func(*emergencyv1.AnnotateLogRequest) {}))
	testenv.WantRefusal(t, err, rpc.ReasonDeadlineRequired)
	for _, id := range []string{"e20991231.1", "e20261124.99", "../../etc/passwd", "emergency.>", "*", "e20261124.1 ", strings.Repeat("e", 10_000), "\x00"} {
		_, err := send(soon(t), note(func(c *emergencyv1.AnnotateLogRequest) { c.Meta.Incident = id }))
		if r, ok := rpc.RefusalOf(err); !ok || r.Reason != procedure.ReasonIncident && r.Reason != procedure.ReasonField {
			t.Errorf("incident %.20q: %v", id, err)
		}
		_, err = dashboardv1.NewQueryServiceClient(conn).ReadIncident(soon(t), &dashboardv1.ReadIncidentRequest{Incident: id})
		if r, ok := rpc.RefusalOf(err); !ok || r.Reason != procedure.ReasonIncident {
			t.Errorf("reading incident %.20q: %v", id, err)
		}
	}
	position := s.State().Position
	_, err = send(soon(t), note(func(c *emergencyv1.AnnotateLogRequest) { c.Meta.ExpectedPosition = proto.Uint64(position - 1) }))
	testenv.WantRefusal(t, err, procedure.ReasonPositionMismatch)

	first, err := send(soon(t), note(func(*emergencyv1.AnnotateLogRequest) {}))
	must(t, err)
	_, err = send(soon(t), note(func(c *emergencyv1.AnnotateLogRequest) { c.Meta.RequestId = "request-2" }))
	must(t, err)
	again, err := send(soon(t), note(func(*emergencyv1.AnnotateLogRequest) {})) // late, and after its successor
	must(t, err)
	if !again.GetRepeated() || again.GetFirstPosition() != first.GetFirstPosition() || again.GetRecordHash() != first.GetRecordHash() {
		t.Errorf("first %v, again %v", first, again)
	}
	_, err = send(soon(t), note(func(c *emergencyv1.AnnotateLogRequest) { c.Text = "another note" }))
	testenv.WantRefusal(t, err, procedure.ReasonRequestIDReused)
	signed := note(func(c *emergencyv1.AnnotateLogRequest) {
		c.Meta.RequestId, c.Meta.Approval = "request-3", &emergencyv1.Approval{PayloadType: procedure.StatementPayloadType, Payload: []byte("x"), KeyId: "x", Signature: []byte("x")}
	})
	_, err = send(soon(t), signed)
	testenv.WantRefusal(t, err, procedure.ReasonSignature) // nobody asks for it, so nobody would verify it
	signed.Meta.Approval = nil
	_, err = send(soon(t), signed)
	must(t, err)
	soundHere(t, env)
}

// TestHostilePatches: paths and kinds of change that must never reach a host are refused at the registration, by name.
func TestHostilePatches(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	s := env.Play(testenv.Called)
	file := func(path string) string {
		return "diff --git a/" + path + " b/" + path + "\nnew file mode 100644\n--- /dev/null\n+++ b/" + path + "\n@@ -0,0 +1 @@\n+owned\n"
	}
	for name, c := range map[string]struct{ code, text string }{
		"traversal":                     {"PATH_FORBIDDEN ../../etc/cron.d/owned", file("../../etc/cron.d/owned")},
		"absolute path":                 {"PATH_FORBIDDEN /etc/passwd", file("/etc/passwd")},
		"git folder":                    {"PATH_FORBIDDEN .git/hooks/post-checkout", file(".git/hooks/post-checkout")},
		"git folder, written otherwise": {"PATH_FORBIDDEN www/.GIT/config", file("www/.GIT/config")},
		"symlink":                       {"SYMLINK_REFUSED www/link", "diff --git a/www/link b/www/link\nnew file mode 120000\n--- /dev/null\n+++ b/www/link\n@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n"},
		"submodule":                     {"SUBMODULE_REFUSED www/sub", "diff --git a/www/sub b/www/sub\nnew file mode 160000\n--- /dev/null\n+++ b/www/sub\n@@ -0,0 +1 @@\n+Subproject commit 0123456789012345678901234567890123456789\n"},
		"setuid":                        {"MODE_REFUSED " + testenv.Program, "diff --git a/" + testenv.Program + " b/" + testenv.Program + "\nold mode 100755\nnew mode 104755\n"},
		"no patch":                      {"PATCH_EMPTY", "just words\n"},
		"not the base":                  {"BASE_MISMATCH README", "diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-Another text.\n+owned\n"},
	} {
		p := s.Patch
		p.Bytes = []byte(c.text)
		_, err := s.Try("dora", p.Register())
		if r, ok := rpc.RefusalOf(err); !ok || r.Code != procedure.InvalidArgument || !strings.Contains(r.Message, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.State().Revisions) != 0 {
		t.Error("one of them was registered")
	}
	s.Skip(testenv.Called).Until(testenv.Registered)
}

// TestServicesAlone: what services ask of each other is not for people, nor for agents; and an agent speaks for its own host.
func TestServicesAlone(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.DryRun)
	for _, profile := range []string{env.Data("people", "carla"), env.Data("agents", demobook.Host)} {
		conn := connect(t, env, profile)
		_, err := deploymentv1.NewAgentServiceClient(conn).RunJob(soon(t), &deploymentv1.RunJobRequest{Agent: demobook.Host, Job: &deploymentv1.Job{Id: "tree.1", Kind: deploymentv1.JobKind_JOB_KIND_REPORT_TREE}})
		testenv.WantRefusal(t, err, rpc.ReasonCallerClass)
		_, err = restrictedv1.NewRestrictedServiceClient(conn).Reveal(soon(t), &restrictedv1.RevealRequest{Owner: "incident", Commitment: s.State().Declared.Symptom})
		testenv.WantRefusal(t, err, rpc.ReasonCallerClass)
		_, err = restrictedv1.NewRestrictedServiceClient(conn).Erase(soon(t), &restrictedv1.EraseRequest{Owner: "incident", Incident: s.ID, Redaction: 1, Commitment: s.State().Declared.Symptom})
		testenv.WantRefusal(t, err, rpc.ReasonCallerClass)
	}
	// A person attaches no agent, and an agent attaches under its own name only.
	for profile, name := range map[string]string{env.Data("people", "carla"): demobook.Host, env.Data("agents", demobook.DrillHost): demobook.Host} {
		stream, err := deploymentv1.NewAgentServiceClient(connect(t, env, profile)).Attach(soon(t))
		must(t, err)
		must(t, stream.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Hello{Hello: name}}))
		if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s attached as %s: %v", profile, name, err)
		}
	}
	env.Agent(demobook.Host).Stop()
	s.Until(testenv.Started)
	lie := &emergencyv1.ReportTreeRequest{Meta: &emergencyv1.CommandMeta{Incident: s.ID}, Binding: s.Binding(), PreTree: s.Patch.BaseTree, PostTree: s.Patch.ResultTree}
	_, err := env.WithProfile(env.Data("agents", demobook.DrillHost)).Send(soon(t), lie)
	testenv.WantRefusal(t, err, procedure.ReasonRole)
	s.Refused("carl", &emergencyv1.ReportTreeRequest{Binding: s.Binding(), PreTree: s.Patch.BaseTree, PostTree: s.Patch.ResultTree}, procedure.ReasonRole)
	if got := testenv.Deployment(s.Read()); got != "APPLYING" {
		t.Errorf("the deployment is %s", got)
	}
}
