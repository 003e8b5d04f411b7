// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rulebook"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	// helloWithin is how long a connection may take to say who it is.
	helloWithin = 10 * time.Second
	// maxManifest bounds the list of files that an agent may send.
	maxManifest = 1_000_000
)

const (
	hostAgent = emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT
	testAgent = emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT
)

// hub is where agents are attached. An agent is whom the rule book says that its TLS key is; what it calls itself must be
// the same. One agent does one job at a time, and beside it what freezes, thaws or ends a session: that waits for nothing.
type hub struct {
	deploymentv1.UnimplementedAgentServiceServer
	book func(context.Context) (*rulebook.Book, error)
	now  func() time.Time
	log  *slog.Logger

	mu      sync.Mutex
	agents  map[agentID]*attached
	changed chan struct{} // closed and replaced when an agent comes or goes
}

type agentID struct {
	kind emergencyv1.SystemKind
	name string
}

func (id agentID) String() string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(id.kind.String(), "SYSTEM_KIND_"), "_", " ")) + " " + id.name
}

// attached is one connection of an agent.
type attached struct {
	agentID
	key      string
	requests chan *request
	urgent   chan *request
	gone     <-chan struct{}
	end      context.CancelCauseFunc
	beat     time.Duration // how often it wants a sign of life; never if 0
}

// request is a job that somebody waits for.
type request struct {
	ctx   context.Context
	job   *deploymentv1.Job
	reply chan *answer // has room for the answer, so that nobody needs to wait for it any more
}

// answer is what an agent answered.
type answer struct {
	*deploymentv1.JobResult
	// Files of the tree, if the job asked for them.
	Files []gittree.Entry
	// Contents of the files that the job asked for.
	Contents []fileContent
}

// fileContent is a file of a host's tree.
type fileContent struct {
	Path, Mode string // no mode: the file is gone
	Data       []byte
	whole      bool
}

// maxContents bounds the contents that one job may send, in bytes; it is what an agent hands out at once.
const maxContents = 32 << 20

func newHub(book func(context.Context) (*rulebook.Book, error), now func() time.Time, log *slog.Logger) *hub {
	return &hub{book: book, now: now, log: log, agents: map[agentID]*attached{}, changed: make(chan struct{})}
}

// Attach keeps an agent until it goes, until a newer connection of the same agent comes, or until its key is revoked.
func (h *hub) Attach(stream grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse]) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	in := receive(ctx, stream)
	a, err := h.hello(ctx, in)
	if err != nil {
		return err
	}
	a.requests, a.urgent, a.gone, a.end = make(chan *request), make(chan *request), ctx.Done(), end
	h.join(ctx, a)
	defer h.leave(ctx, a)
	return a.serve(ctx, stream, in)
}

// received is a message of an agent, or why there will be no more.
type received struct {
	msg *deploymentv1.AttachRequest
	err error
}

// receive reads the stream beside its handler, which must also see the end of its context.
func receive(ctx context.Context, stream grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse]) <-chan received {
	in := make(chan received)
	go func() {
		for {
			msg, err := stream.Recv()
			select {
			case in <- received{msg, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return in
}

// minBeat is how often a sign of life may be wanted at most.
const minBeat = 100 * time.Millisecond

func (h *hub) hello(ctx context.Context, in <-chan received) (*attached, error) {
	late := time.NewTimer(helloWithin)
	defer late.Stop()
	nameless := refused(procedure.InvalidArgument, procedure.ReasonField, "G2", "an agent says its name first", "send hello with the name in your key's entry")
	select {
	case r := <-in:
		if errors.Is(r.err, io.EOF) {
			return nil, nameless
		}
		if r.err != nil {
			return nil, r.err
		}
		id, key, err := h.identify(ctx, r.msg.GetHello())
		beat := time.Duration(r.msg.GetSignOfLifeMs()) * time.Millisecond
		if beat > 0 {
			beat = max(beat, minBeat)
		}
		return &attached{agentID: id, key: key, beat: beat}, err
	case <-late.C:
		return nil, nameless
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func refused(code procedure.Code, reason procedure.Reason, rule, message, remedy string) *procedure.Refusal {
	return &procedure.Refusal{Code: code, Reason: reason, Rule: rule, Message: message, Allow: []procedure.Allowance{{Description: remedy}}}
}

// identify tells by the connection's key which agent it is.
func (h *hub) identify(ctx context.Context, name string) (agentID, string, error) {
	caller, _ := identity.FromContext(ctx)
	actor, err := h.actor(ctx, caller.KeyID)
	if err != nil {
		return agentID{}, "", err
	}
	id := agentID{actor.GetSystem(), actor.GetSystemName()}
	if id.kind != hostAgent && id.kind != testAgent {
		return agentID{}, "", refused(procedure.PermissionDenied, rpc.ReasonCallerClass, "hardening 1.6", "only agents attach", "connect with the agent's own certificate, whose key the rule book lists as host or test agent")
	}
	if id.name != name {
		return agentID{}, "", refused(procedure.PermissionDenied, procedure.ReasonRole, "G1", fmt.Sprintf("the key is that of agent %s and not of %q", id.name, name), "configure the agent under the name that the rule book lists for its key")
	}
	return id, caller.KeyID, nil
}

func (h *hub) actor(ctx context.Context, key string) (*emergencyv1.Actor, error) {
	book, err := h.book(ctx)
	if err != nil {
		return nil, service.Retryable(err)
	}
	actor, refusal := procedure.Recognise(book, key, h.now())
	if refusal != nil {
		return nil, refusal
	}
	return actor, nil
}

var errReplaced = errors.New("a newer connection of the same agent took over")

func (h *hub) join(ctx context.Context, a *attached) {
	h.mu.Lock()
	old := h.agents[a.agentID]
	h.agents[a.agentID] = a
	close(h.changed)
	h.changed = make(chan struct{})
	h.mu.Unlock()
	if old != nil {
		old.end(errReplaced)
	}
	h.log.InfoContext(ctx, "agent attached", "agent", a.String(), "replaced", old != nil)
}

func (h *hub) leave(ctx context.Context, a *attached) {
	a.end(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.agents[a.agentID] == a {
		delete(h.agents, a.agentID)
		close(h.changed)
		h.changed = make(chan struct{})
	}
	h.log.InfoContext(ctx, "agent gone", "agent", a.String())
}

// serve hands out one job after the other, and urgent ones at once.
func (a *attached) serve(ctx context.Context, stream grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse], in <-chan received) error {
	jobs := &inHand{agent: a, jobs: map[string]*request{}, answers: map[string]*answer{}}
	beats := time.NewTicker(max(a.beat, minBeat))
	defer beats.Stop()
	for {
		next := a.requests
		if jobs.slow != "" {
			next = nil
		}
		var msg *deploymentv1.AttachResponse
		select {
		case <-ctx.Done():
			return service.Away("agent %s: %w", a, context.Cause(ctx))
		case r := <-in:
			if r.err != nil {
				return ended(a, r.err)
			}
			if err := jobs.take(r.msg); err != nil {
				return err
			}
		case <-beats.C:
			if a.beat > 0 {
				msg = &deploymentv1.AttachResponse{}
			}
		case req := <-next:
			msg = jobs.start(req)
		case req := <-a.urgent:
			msg = jobs.start(req)
		}
		if msg == nil {
			continue
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

// urgent tells which jobs do not wait for another: they lessen an access, or end a freeze.
func urgent(kind deploymentv1.JobKind) bool {
	return kind == deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION || kind == deploymentv1.JobKind_JOB_KIND_THAW_SESSION || kind == deploymentv1.JobKind_JOB_KIND_END_ACCESS
}

// inHand are the jobs that an agent was sent and has not answered. They are finished whoever still waits for them.
type inHand struct {
	agent   *attached
	jobs    map[string]*request
	answers map[string]*answer
	slow    string // the one that is not urgent
}

// start notes a job and returns the message that sends it; nil if it is not sent.
func (r *inHand) start(req *request) *deploymentv1.AttachResponse {
	id := req.job.GetId()
	if req.ctx.Err() != nil {
		return nil // nobody waits for it any more
	}
	if r.jobs[id] != nil {
		req.reply <- &answer{JobResult: &deploymentv1.JobResult{JobId: id, ErrorCode: "UNAVAILABLE", ErrorDetail: "the same job is being done; ask again"}}
		return nil
	}
	r.jobs[id], r.answers[id] = req, &answer{}
	if !urgent(req.job.GetKind()) {
		r.slow = id
	}
	asked := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(req.ctx, asked)
	return &deploymentv1.AttachResponse{Job: req.job, Traceparent: asked.Get("traceparent")}
}

// take takes a message of the agent about a job that it was sent.
func (r *inHand) take(msg *deploymentv1.AttachRequest) error {
	switch m := msg.GetMessage().(type) {
	case *deploymentv1.AttachRequest_Manifest:
		ans := r.answers[m.Manifest.GetJobId()]
		if ans == nil || len(ans.Files)+len(m.Manifest.GetEntries()) > maxManifest {
			return fmt.Errorf("agent %s: a list of files of another job, or too long", r.agent)
		}
		ans.Files = appendFiles(ans.Files, m.Manifest)
	case *deploymentv1.AttachRequest_File:
		ans := r.answers[m.File.GetJobId()]
		if ans == nil || !ans.add(m.File) {
			return fmt.Errorf("agent %s: contents of another job, out of order, or too long", r.agent)
		}
	case *deploymentv1.AttachRequest_Result:
		return r.finish(m.Result)
	default:
		return fmt.Errorf("agent %s: neither result nor files", r.agent)
	}
	return nil
}

func (r *inHand) finish(result *deploymentv1.JobResult) error {
	id := result.GetJobId()
	req, ans := r.jobs[id], r.answers[id]
	if req == nil {
		return fmt.Errorf("agent %s: result of job %q, which nobody asked for", r.agent, id)
	}
	if err := r.agent.checkTrees(result); err != nil {
		return err
	}
	if n := len(ans.Contents); n > 0 && !ans.Contents[n-1].whole {
		return fmt.Errorf("agent %s: the last file of job %q has no end", r.agent, id)
	}
	delete(r.jobs, id)
	delete(r.answers, id)
	if r.slow == id {
		r.slow = ""
	}
	ans.JobResult = result
	req.reply <- ans
	return nil
}

// add adds a part of a file; false if it does not follow what came before.
func (a *answer) add(part *deploymentv1.FilePart) bool {
	total := len(part.GetData())
	for _, c := range a.Contents {
		total += len(c.Data)
	}
	if total > maxContents {
		return false
	}
	path := string(part.GetPath())
	n := len(a.Contents)
	if n == 0 || a.Contents[n-1].whole {
		a.Contents = append(a.Contents, fileContent{Path: path, Mode: part.GetMode()})
		n++
	}
	c := &a.Contents[n-1]
	if c.Path != path || c.Mode != part.GetMode() {
		return false
	}
	c.Data, c.whole = append(c.Data, part.GetData()...), part.GetLast()
	return true
}

func ended(a *attached, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("agent %s: %w", a, err)
}

func appendFiles(list []gittree.Entry, part *deploymentv1.ManifestPart) []gittree.Entry {
	for _, e := range part.GetEntries() {
		list = append(list, gittree.Entry{Path: string(e.GetPath()), Mode: e.GetMode(), ID: e.GetBlob()})
	}
	return list
}

// checkTrees lets no malformed tree into an event.
func (a *attached) checkTrees(r *deploymentv1.JobResult) error {
	for _, tree := range []string{r.GetPreTree(), r.GetPostTree()} {
		if _, _, err := gittree.ParseID(tree); tree != "" && err != nil {
			return fmt.Errorf("agent %s: %w", a, err)
		}
	}
	return nil
}

// servedBy is which kind of agent does a job.
func servedBy(kind deploymentv1.JobKind) []emergencyv1.SystemKind {
	switch kind {
	case deploymentv1.JobKind_JOB_KIND_INSTALL:
		return []emergencyv1.SystemKind{testAgent}
	case deploymentv1.JobKind_JOB_KIND_REPORT_TREE:
		return []emergencyv1.SystemKind{hostAgent, testAgent}
	case deploymentv1.JobKind_JOB_KIND_DRY_RUN, deploymentv1.JobKind_JOB_KIND_APPLY, deploymentv1.JobKind_JOB_KIND_BACK_OUT, deploymentv1.JobKind_JOB_KIND_VERIFY,
		deploymentv1.JobKind_JOB_KIND_OPEN_ACCESS, deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION, deploymentv1.JobKind_JOB_KIND_THAW_SESSION,
		deploymentv1.JobKind_JOB_KIND_END_ACCESS, deploymentv1.JobKind_JOB_KIND_LIST_LEFTOVERS, deploymentv1.JobKind_JOB_KIND_READ_FILES:
		return []emergencyv1.SystemKind{hostAgent}
	case deploymentv1.JobKind_JOB_KIND_UNSPECIFIED:
	}
	return nil
}

// run has an agent do a job and waits for the answer. An agent that is not attached is waited for until attach is over, and
// then the error is service.Away.
func (h *hub) run(ctx context.Context, attach time.Duration, name string, job *deploymentv1.Job) (*answer, error) {
	a, err := h.find(ctx, attach, name, servedBy(job.GetKind()))
	if err != nil {
		return nil, err
	}
	if _, err := h.actor(ctx, a.key); err != nil { // revoked since it attached
		a.end(err)
		return nil, fmt.Errorf("agent %s: %w", a, err)
	}
	req := &request{ctx: ctx, job: job, reply: make(chan *answer, 1)}
	lost := func() error {
		return service.Away("the connection to agent %s on %s was lost; whether it did the job it tells when it is back", a, name)
	}
	queue := a.requests
	if urgent(job.GetKind()) {
		queue = a.urgent
	}
	select {
	case queue <- req:
	case <-a.gone:
		return nil, lost()
	case <-ctx.Done():
		return nil, service.Away("agent %s is busy with another job: %w", a, ctx.Err())
	}
	select {
	case ans := <-req.reply:
		return ans, nil
	case <-ctx.Done():
		return nil, service.Away("agent %s has not finished the job yet: %w", a, ctx.Err())
	case <-a.gone:
		select {
		case ans := <-req.reply: // it answered and went
			return ans, nil
		default:
			return nil, lost()
		}
	}
}

// find returns the connection of an agent.
func (h *hub) find(ctx context.Context, attach time.Duration, name string, kinds []emergencyv1.SystemKind) (*attached, error) {
	late := time.NewTimer(attach)
	defer late.Stop()
	for {
		h.mu.Lock()
		changed := h.changed
		for _, kind := range kinds {
			if a := h.agents[agentID{kind, name}]; a != nil {
				h.mu.Unlock()
				return a, nil
			}
		}
		h.mu.Unlock()
		select {
		case <-changed:
		case <-late.C:
			return nil, service.Away("the agent on %s is away; see that epatch-agent runs there and reaches this service", name)
		case <-ctx.Done():
			return nil, service.Away("the agent on %s is away: %w", name, ctx.Err())
		}
	}
}

// attachWithin is how long a call waits for an agent that is away: at most half of its time, so that it can still say so.
func attachWithin(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return maxAttach
	}
	return min(time.Until(end)/2, maxAttach)
}

// maxAttach is long enough for an agent that is just connecting again.
const maxAttach = 10 * time.Second

// RunJob has an agent do a job for another service.
func (h *hub) RunJob(ctx context.Context, req *deploymentv1.RunJobRequest) (*deploymentv1.RunJobResponse, error) {
	caller, _ := identity.FromContext(ctx)
	actor, err := h.actor(ctx, caller.KeyID)
	if err != nil {
		return nil, err
	}
	if actor.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_SERVICE {
		return nil, refused(procedure.PermissionDenied, rpc.ReasonCallerClass, "hardening 1.6", "jobs are for the services among each other", "give the command of the procedure that the job belongs to")
	}
	known := servedBy(req.GetJob().GetKind())
	if len(known) == 0 || req.GetAgent() == "" || req.GetJob().GetId() == "" || req.GetJob().GetWithManifest() {
		return nil, refused(procedure.InvalidArgument, procedure.ReasonField, "G2", "a job has agent, id and kind; lists of files are not handed out", "name all three")
	}
	if !slices.Contains(known, testAgent) && req.GetJob().GetKind() != deploymentv1.JobKind_JOB_KIND_DRY_RUN {
		return nil, refused(procedure.PermissionDenied, rpc.ReasonCallerClass, "4.4", "what changes the critical host is asked for by this service alone", "give the command StartApply, BackOut or RollBack")
	}
	ans, err := h.run(ctx, attachWithin(ctx), req.GetAgent(), req.GetJob())
	if err != nil {
		return nil, err
	}
	return &deploymentv1.RunJobResponse{Result: ans.JobResult}, nil
}
