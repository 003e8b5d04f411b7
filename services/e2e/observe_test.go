// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/telemetry"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// collector receives the spans that a system exports, by trace.
type collector struct {
	collectortrace.UnimplementedTraceServiceServer

	mu      sync.Mutex
	spans   map[string][]*tracev1.Span
	changed chan struct{} // closed and replaced with each delivery
}

// collect starts a collector, and has systems that start from now on export to it.
func collect(t *testing.T) *collector {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, server := &collector{spans: map[string][]*tracev1.Span{}, changed: make(chan struct{})}, grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, c)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+lis.Addr().String())
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	return c
}

func (c *collector) Export(_ context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				id := hex.EncodeToString(s.GetTraceId())
				c.spans[id] = append(c.spans[id], s)
			}
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

// named is a span's name; a call has the same one on both sides, so the caller's begins otherwise.
func named(s *tracev1.Span) string {
	if s.GetKind() == tracev1.Span_SPAN_KIND_CLIENT {
		return "call " + s.GetName()
	}
	return s.GetName()
}

// await waits until a trace has a span of each of these names, and returns them by name.
func (c *collector) await(t *testing.T, trace string, names ...string) map[string]*tracev1.Span {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	for {
		c.mu.Lock()
		found, changed := map[string]*tracev1.Span{}, c.changed
		for _, s := range c.spans[trace] {
			if found[named(s)] == nil {
				found[named(s)] = s
			}
		}
		c.mu.Unlock()
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return found[name] != nil })
		if len(missing) == 0 {
			return found
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("trace %s has no %q, but %v", trace, missing, keysOf(found))
		}
	}
}

func keysOf(m map[string]*tracev1.Span) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// traceOf is the trace in which an event of an incident was decided, as its record's header says.
func traceOf(t *testing.T, node *app.Node, incident, event string) string {
	t.Helper()
	messages, err := node.Store().Load(t.Context(), incident, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		signed := &emergencyv1.SignedRecord{}
		must(t, proto.Unmarshal(m.Data, signed))
		for _, e := range eventsOf(t, signed) {
			if string(e.ProtoReflect().Descriptor().Name()) != event {
				continue
			}
			parts := strings.Split(m.Header["traceparent"], "-")
			if len(parts) != 4 {
				t.Fatalf("traceparent %q beside %s", m.Header["traceparent"], event)
			}
			return parts[1]
		}
	}
	t.Fatalf("%s has no %s", incident, event)
	return ""
}

// path are the names of a span and of those that led to it, up to the one with which the trace began; "?" for one that was never told.
func (c *collector) path(s *tracev1.Span) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s != nil {
		names = append(names, named(s))
		parent := s.GetParentSpanId()
		if len(parent) == 0 {
			return names
		}
		i := slices.IndexFunc(c.spans[hex.EncodeToString(s.GetTraceId())], func(o *tracev1.Span) bool { return bytes.Equal(o.GetSpanId(), parent) })
		if i < 0 {
			return append(names, "?")
		}
		s = c.spans[hex.EncodeToString(s.GetTraceId())][i]
	}
	return names
}

// leads fails unless a span was led to by these, the last of which began the trace.
func (c *collector) leads(t *testing.T, s *tracev1.Span, to ...string) {
	t.Helper()
	if got := c.path(s)[1:]; !slices.Equal(got, to) {
		t.Errorf("%s was led to by %q, want %q", named(s), got, to)
	}
}

// tellsNothing fails if a span tells one of these.
func (c *collector) tellsNothing(t *testing.T, secrets ...string) {
	t.Helper()
	all := c.all()
	for _, s := range all {
		text := prototext.Format(s)
		for _, secret := range secrets {
			if len(secret) >= 8 && strings.Contains(text, secret) { // a word shorter than that may be anything
				t.Errorf("span %s tells %q: %s", named(s), secret, text)
			}
		}
	}
	if len(all) < 10 {
		t.Errorf("%d spans are too few to judge", len(all))
	}
}

// TestTrace follows one command from the program that gives it, and one from a form in a page, through the service and the stream to projection and effects.
// It is not parallel: the standard variables belong to the process.
func TestTrace(t *testing.T) {
	c := collect(t)
	x := startInstalled(t, func(set *app.Settings) { set.LogTo = io.Discard })

	const serve, project = "emergency.incident.v1.IncidentService/Declare", "project Declare"
	told := x.epatch("carla", "declare", "login answers 500", "--reason", "no member can log in", "--class", "outage")
	id := incidentIn(t, told)
	trace := traceOf(t, x.node, id, "EmergencyDeclared")
	spans := c.await(t, trace, "epatch declare", serve, project, "effect of notification", "project ReportDelivery")
	c.leads(t, spans[serve], "call "+serve, "epatch declare")
	if !bytes.Equal(spans[project].GetTraceId(), spans["effect of notification"].GetTraceId()) {
		t.Error("projection and effect are in two traces")
	}

	page := signIn(t, x, "carla")
	where := page.act("/declare", declaration())
	second := strings.TrimPrefix(strings.TrimSuffix(where, "?recorded=1"), "/incidents/")
	trace2 := traceOf(t, x.node, second, "EmergencyDeclared")
	if trace2 == trace {
		t.Error("two commands share one trace")
	}
	spans = c.await(t, trace2, "page POST /declare/sign", serve, project, "effect of notification")
	if parent := spans["page POST /declare/sign"].GetParentSpanId(); len(parent) != 0 {
		t.Error("the page's trace begins with somebody else's word")
	}
	for _, s := range c.all() {
		for _, a := range s.GetAttributes() {
			if v := a.GetValue().GetStringValue(); strings.Contains(v, "127.0.0.1") && strings.HasPrefix(s.GetName(), "page ") {
				t.Errorf("span %s says %s=%s", s.GetName(), a.GetKey(), v)
			}
		}
	}
	c.tellsNothing(t, "@example.org", "mail stands still", "no member gets mail", "login answers 500", "no member can log in")
}

// TestTraceOnHost follows a deployment from the line that a critical admin types to what the agent does on the host, and what it says of it.
func TestTraceOnHost(t *testing.T) {
	c := collect(t)
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "epatch-agent", Log: io.Discard})
	must(t, err)
	t.Cleanup(func() { must(t, tel.Shutdown(context.Background())) })
	for _, host := range hosts() {
		env.StartAgentWith(env.AgentConfig(host), agent.Deps{Dialer: env.Dial, Tracer: tel.Tracer})
	}
	s := env.Play(testenv.Observed)
	if out, err := env.Epatch(env.API(), "carla", "--incident", s.ID, "deploy").CombinedOutput(); err != nil {
		t.Fatalf("epatch deploy: %v\n%s", err, out)
	}
	if out, err := env.Epatch(env.API(), "carla", "--incident", "e20990101.7", "status").CombinedOutput(); err == nil || !strings.Contains(string(out), "e20990101.7") {
		t.Errorf("what is refused quotes what was typed: %v\n%s", err, out)
	}
	const start, report = "emergency.deployment.v1.DeploymentService/StartApply", "emergency.deployment.v1.DeploymentService/ReportApply"
	const dryRun = "emergency.deployment.v1.DeploymentService/DryRun"
	spans := c.await(t, traceOf(t, env.Node(), s.ID, "ApplyStarted"), "epatch deploy", "job DRY_RUN", "effect of deployment", "job APPLY", report)
	c.leads(t, spans["job DRY_RUN"], dryRun, "call "+dryRun, "epatch deploy")
	c.leads(t, spans[report], "call "+report, "job APPLY", "effect of deployment", start, "call "+start, "epatch deploy")
	c.tellsNothing(t, append(keyMaterial(t, env.Data()), "@example.org", "e20990101.7", "cert-info runs what its caller says", "anybody can read the configuration", env.Root(demobook.Host))...)
}

func (c *collector) all() (list []*tracev1.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, spans := range c.spans {
		list = append(list, spans...)
	}
	return list
}

var incidentID = regexp.MustCompile(`[ex][0-9]{8}\.[0-9]+`)

func incidentIn(t *testing.T, text string) string {
	t.Helper()
	id := incidentID.FindString(text)
	if id == "" {
		t.Fatalf("no incident is named in %q", text)
	}
	return id
}

// browser reads and fills the pages, without script.
type browser struct {
	t      *testing.T
	base   string
	client *http.Client
}

func signIn(t *testing.T, x *installed, person string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, base: "http://" + x.addrs.HTTP, client: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if code, _, text := b.send("POST", "/sign-in", url.Values{"person": {person}, "next": {"/home"}}); code != http.StatusSeeOther {
		t.Fatalf("sign in as %s: %d\n%s", person, code, text)
	}
	return b
}

func (b *browser) send(method, path string, form url.Values) (code int, location, body string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", b.base)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Location"), string(text)
}

var carried = regexp.MustCompile(`<input type="hidden" name="(command|payload|subject|kind)" value="([^"]*)">`)

// act fills a form, signs what it then shows, and returns where that leads.
func (b *browser) act(path string, form url.Values) string {
	b.t.Helper()
	code, _, text := b.send("POST", path, form)
	sign := url.Values{"demo": {"1"}}
	for _, m := range carried.FindAllStringSubmatch(text, -1) {
		sign.Set(m[1], html.UnescapeString(m[2]))
	}
	if code != http.StatusOK || len(sign) < 3 {
		b.t.Fatalf("no statement to sign, but %d\n%s", code, text)
	}
	code, where, text := b.send("POST", path+"/sign", sign)
	if code != http.StatusSeeOther {
		b.t.Fatalf("not recorded, but %d\n%s", code, text)
	}
	return where
}

// declaration is the form of an emergency.
func declaration() url.Values {
	return url.Values{
		"filled": {"1"}, "system": {"webdb"}, "symptom": {"mail stands still"}, "severity": {"SEVERITY_HIGH"}, "reason_class": {"REASON_CLASS_OUTAGE"}, "reason": {"no member gets mail"},
	}
}

var typeLine = regexp.MustCompile(`(?m)^# TYPE ([a-z_0-9]+) (counter|gauge|histogram|summary)$`)

// exposed are the metrics of this project that a running system tells, by name, after an emergency was declared and a page was opened.
func exposed(t *testing.T) map[string]string {
	t.Helper()
	x := startInstalled(t, func(set *app.Settings) { set.LogTo = io.Discard })
	page := signIn(t, x, "carla")
	page.act("/declare", declaration())
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	for { // until an effect was done, something is owed, and the reader has told how far it is
		_, _, text := page.send("GET", "/metrics", nil)
		if strings.Contains(text, "epatch_effects_total") && strings.Contains(text, "epatch_projection_behind") && strings.Contains(text, "epatch_obligations_open") {
			found := map[string]string{}
			for _, m := range typeLine.FindAllStringSubmatch(text, -1) {
				if !strings.HasPrefix(m[1], "go_") && !strings.HasPrefix(m[1], "process_") && !strings.HasPrefix(m[1], "promhttp_") && m[1] != "target_info" {
					found[m[1]] = m[2]
				}
			}
			return found
		}
		select {
		case <-time.After(50 * time.Millisecond): // nobody tells when a metric changes
		case <-ctx.Done():
			t.Fatalf("no effect was counted:\n%s", text)
		}
	}
}

var metricRow = regexp.MustCompile("(?m)^\\| `([a-z_0-9]+)` \\| (counter|gauge|histogram) \\|")

// documentedMetrics are those that docs/metrics.md lists.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for _, m := range metricRow.FindAllStringSubmatch(string(text), -1) {
		list[m[1]] = m[2]
	}
	return list
}

// TestMetricsAreDocumented holds docs/metrics.md, on which dashboards and alert rules stand, and the running system together, both ways.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	told, written := exposed(t), documentedMetrics(t)
	for name, kind := range told {
		if written[name] != kind {
			t.Errorf("the system tells %s, a %s; docs/metrics.md says %q", name, kind, written[name])
		}
	}
	for name := range written {
		if told[name] == "" {
			t.Errorf("docs/metrics.md lists %s, which the system does not tell", name)
		}
	}
}
