// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// A session, and the credential by which it is entered, belong to the instance of this service that granted it: the history names that
// instance, so that the name outlives a restart and cannot be wrong. What another instance is asked about it, it hands on (rpc.HandOn). The
// name says whom to ask and decides nothing; under which address an instance is to be found it says itself, to those who know its address
// from their configuration.

// Sibling is an instance of this service: another one, or this one, which finds that out by asking.
type Sibling struct {
	// Address is host:port of its API, Conn a connection to it by which no call is tried again.
	Address string
	Conn    grpc.ClientConnInterface
}

// askWithin is how long an instance may take to say its name. One that does not is silent: nobody knows what it does.
const askWithin = time.Second

// sibling is an instance, the name that it said last, and whether it has answered since.
type sibling struct {
	deploymentv1.DeploymentServiceClient
	deploymentv1.ConsoleServiceClient
	address string

	mu      sync.Mutex
	name    string
	answers bool
}

func newSiblings(list []Sibling) []*sibling {
	var all []*sibling
	for _, x := range list {
		all = append(all, &sibling{
			DeploymentServiceClient: deploymentv1.NewDeploymentServiceClient(x.Conn), ConsoleServiceClient: deploymentv1.NewConsoleServiceClient(x.Conn), address: x.Address,
		})
	}
	return all
}

// is whether it said this name when it was heard of last, and whether it has answered since.
func (x *sibling) is(name string) (it, answers bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.name == name, x.answers
}

// heard notes whether it answers, and by which name if it said one.
func (x *sibling) heard(name string, answers bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answers = answers
	if name != "" {
		x.name = name
	}
}

// moved notes that the instance of a name is at another address now.
func (x *sibling) moved(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.name == name && !x.answers {
		x.name = ""
	}
}

// presence is what is known of an instance.
type presence int

const (
	silent  presence = iota // not known: it, or another that may be it, does not answer
	gone                    // its address refuses connections: its process has ended, and its connections with it
	unknown                 // every address was answered from, by others
	present                 // it has answered
)

// ask has the instance at an address say its name.
func (x *sibling) ask(ctx context.Context) presence {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	r, err := x.ReadInstance(ctx, &deploymentv1.ReadInstanceRequest{})
	name := r.GetInstance()
	x.heard(name, err == nil)
	switch {
	case err == nil:
		return present
	case x.refuses(ctx):
		return gone
	}
	return silent
}

// refuses is whether nobody listens at the address. Only that is sure: what times out, or cannot be reached, may run.
func (x *sibling) refuses(ctx context.Context) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", x.address)
	if err == nil {
		_ = conn.Close() // nothing was said
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// find asks all instances for the one of a name.
func (s *Server) find(ctx context.Context, name string) (*sibling, presence) {
	type answer struct {
		from *sibling
		is   presence
	}
	answers := make(chan answer, len(s.siblings))
	for _, x := range s.siblings {
		go func() {
			answers <- answer{x, x.ask(ctx)}
		}()
	}
	var there *sibling
	var known, all [present + 1]bool // of those that said the name last, and of all
	for range s.siblings {
		a := <-answers
		it, _ := a.from.is(name)
		if it && a.is == present {
			there = a.from
			break
		}
		known[a.is] = known[a.is] || it
		all[a.is] = true
	}
	switch {
	case there != nil:
	case known[gone]:
		return nil, gone
	case all[silent]: // which it may be
		return nil, silent
	case all[gone]:
		return nil, gone
	default:
		return nil, unknown
	}
	for _, x := range s.siblings {
		if x != there {
			x.moved(name)
		}
	}
	return there, present
}

// gateway is the instance that has a grant's session; empty if it is this one, or none is known to have it.
func (s *Server) gateway(ctx context.Context, ref broker.Ref) (name string, g *procedure.Grant, err error) {
	if len(s.siblings) == 0 {
		return "", nil, nil
	}
	st, err := s.Dispatch.State(ctx, ref.Incident)
	if err != nil {
		return "", nil, service.Retryable(err)
	}
	g, ok := st.Grant(ref.Grant)
	if !ok || s.mine(g) {
		return "", g, nil
	}
	if rpc.HandedOn(ctx) {
		return "", nil, service.Away("grant %s is handed on to this instance, and is another's", ref)
	}
	return g.Gateway, g, nil
}

// mine is whether a session is for this instance to have. One of which no instance is named was granted where there was one alone.
func (s *Server) mine(g *procedure.Grant) bool { return g.Gateway == "" || g.Gateway == s.Instance }

// other is the other instance that a call about a grant has to be handed on to; nil if it is for this one. What can be answered by the
// history alone, because the grant is over, is answered here if the other is not there.
func (s *Server) other(ctx context.Context, ref broker.Ref) (*sibling, error) {
	name, g, err := s.gateway(ctx, ref)
	if err != nil || name == "" {
		return nil, err
	}
	for _, x := range s.siblings {
		if it, answers := x.is(name); it && answers {
			return x, nil
		}
	}
	x, is := s.find(ctx, name)
	switch {
	case is == present:
		return x, nil
	case is != silent && g.Over():
		return nil, nil
	}
	return nil, service.Away("the instance of the deployment service that has grant %s does not answer; start it, or end the access", ref)
}

// keeper is the other instance that has the recording of a session; nil if it is this one, if it lies in the store, or if that instance
// belongs to the service no more. While it is only away, nobody may say that there is none.
func (s *Server) keeper(ctx context.Context, ref broker.Ref) (*sibling, error) {
	name, g, err := s.gateway(ctx, ref)
	if err != nil || name == "" || g.Consumed.Position == 0 || g.Recording.GetSha256() != "" {
		return nil, err
	}
	switch x, is := s.find(ctx, name); is {
	case present:
		return x, nil
	case unknown:
		return nil, nil
	default:
		return nil, service.Away("the instance of the deployment service that recorded the session of grant %s is away", ref)
	}
}

// absence is why the instance that has a session cannot be asked to end or freeze it; nil if it can, or is this one.
type absence struct {
	// dead is whether the session's connections have ended with the process that had them. Otherwise they may be open, where nobody
	// but the host can be told.
	dead bool
}

// ender is who has to do what lessens an access, which must not wait for an instance that does not answer: the other instance that has
// the session, or this one, because it has it or in the other's absence.
func (s *Server) ender(ctx context.Context, ref broker.Ref) (*sibling, *absence, error) {
	name, _, err := s.gateway(ctx, ref)
	if err != nil || name == "" {
		return nil, nil, err
	}
	x, is := s.find(ctx, name) // also if it was there a moment ago
	if is == present {
		return x, nil, nil
	}
	s.Log.WarnContext(ctx, "the instance that has a session does not answer; what lessens the access is done without it", "grant", ref.String(), "instance", name, "gone", is != silent)
	return nil, &absence{is != silent}, nil
}

// How long an instance that answers may take to freeze or to end a session, until the other does it too. It may answer and be unable to: it may have
// lost the event log. An end waits for its effects on the host (broker), a freeze for nothing but that it is recorded.
const (
	freezeElsewhere = 3 * time.Second
	endElsewhere    = 8 * time.Second
)

// lessen hands what lessens an access on to the instance that has the session, for a while. Without a response and an error it has to be done
// here: because the session is here, or in the other's absence.
func lessen[Q, R any](ctx context.Context, s *Server, ref broker.Ref, within time.Duration, req *Q, call func(*sibling, context.Context, *Q, ...grpc.CallOption) (*R, error)) (*R, *absence, error) {
	to, absent, err := s.ender(ctx, ref)
	if to == nil || err != nil {
		return nil, absent, err
	}
	if end, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(end)/2) // the rest is for doing it here
	}
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	res, err := handOn(limited, to, nil, req, call)
	if err == nil || ctx.Err() != nil || !helpless(err) {
		return res, nil, err
	}
	s.Log.WarnContext(ctx, "the instance that has a session cannot do what lessens the access; it is done without it", "grant", ref.String(), "error", err)
	return nil, &absence{}, nil
}

// helpless is whether an instance could not do what it was asked, and nothing is wrong with what was asked.
func helpless(err error) bool {
	if r, ok := rpc.RefusalOf(err); ok && r.Reason == rpc.ReasonCallerClass {
		return true // it does not believe that this is an instance of its service
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// handOn makes a call on the instance that other, ender or keeper found.
func handOn[Q, R any](ctx context.Context, to *sibling, err error, req *Q, call func(*sibling, context.Context, *Q, ...grpc.CallOption) (*R, error)) (*R, error) {
	if err != nil {
		return nil, err
	}
	onward, err := rpc.HandOn(ctx)
	if err != nil {
		return nil, err
	}
	res, err := call(to, onward, req)
	return res, to.answered(ctx, err)
}

// answered is what the caller is told: the other instance's answer as it is. One that has no time left is told so when the caller's is
// over, too, which is a moment later.
func (x *sibling) answered(ctx context.Context, err error) error {
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		if _, has := ctx.Deadline(); has {
			<-ctx.Done()
		}
	case codes.Unavailable: // perhaps it is not the one that it was
		x.heard("", false)
	}
	return err
}

// ReadInstance tells which instance this is.
func (s *Server) ReadInstance(context.Context, *deploymentv1.ReadInstanceRequest) (*deploymentv1.ReadInstanceResponse, error) {
	return &deploymentv1.ReadInstanceResponse{Instance: s.Instance}, nil
}

// watch shows a session that another instance has. Its watcher counts as heard of when the sign of life is heard there.
func (x *sibling) watch(ctx context.Context, hello *deploymentv1.WatchRequest, stream watchStream, end context.CancelCauseFunc) error {
	onward, err := rpc.HandOn(ctx)
	if err != nil {
		return err
	}
	out, err := x.Watch(onward)
	if err != nil {
		return x.answered(ctx, err)
	}
	go func() {
		for m, err := hello, error(nil); ; m, err = stream.Recv() {
			switch {
			case errors.Is(err, io.EOF):
				_ = out.CloseSend() // as the client has done
				return
			case err != nil:
				end(err)
				return
			case out.Send(m) != nil:
				return // why, the other direction tells
			}
		}
	}()
	return x.passed(ctx, passOn(out, stream))
}

type watchStream = grpc.BidiStreamingServer[deploymentv1.WatchRequest, deploymentv1.WatchResponse]

func (x *sibling) readRecording(ctx context.Context, req *deploymentv1.ReadRecordingRequest, stream grpc.ServerStreamingServer[deploymentv1.ReadRecordingResponse]) error {
	onward, err := rpc.HandOn(ctx)
	if err != nil {
		return err
	}
	out, err := x.ReadRecording(onward, req)
	if err != nil {
		return x.answered(ctx, err)
	}
	return x.passed(ctx, passOn(out, stream))
}

// passOn passes what another instance streams on to the caller, until it ends.
func passOn[M any](from interface{ Recv() (*M, error) }, to interface{ Send(*M) error }) error {
	for {
		m, err := from.Recv()
		if err != nil {
			return err
		}
		if err := to.Send(m); err != nil {
			return err
		}
	}
}

// passed is how a stream ends that was passed on.
func (x *sibling) passed(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return x.answered(ctx, err)
}

// freezeWithin is how long the host's agent may take to freeze where the session's own instance does not answer.
const freezeWithin = time.Second

// freezeWithout freezes the processes of a session whose instance does not answer: by the host's agent, which is attached to this
// instance too. The other one learns of it from the history, and shuts the input as soon as it runs again.
func (s *Server) freezeWithout(ctx context.Context, req *emergencyv1.FreezeRequest) (*emergencyv1.FreezeResponse, error) {
	ref := refOf(req)
	_, g, err := consoleHost{s}.grant(ctx, ref)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, freezeWithin)
	defer cancel()
	if err := (consoleHost{s}).Freeze(within, ref, g.Host); err != nil {
		return nil, service.Away("neither the instance that has the session of %s nor the agent on %s can freeze it now; end it: %w", ref, g.Host, err)
	}
	c, err := s.Do(ctx, req, consoleFacts(&procedure.ConsoleFacts{FreezeMode: s.freezeMode(ref)}))
	return &emergencyv1.FreezeResponse{Committed: c}, err
}

// ending are the facts of an end that this instance has brought about. Of connections that another has, and of which nothing is heard,
// nobody knows whether they are closed: what they led to is gone, and that is all that may be said (N15).
func (a *absence) ending(e broker.Ending) *procedure.ConsoleFacts {
	x := ending(e)
	if a == nil || a.dead {
		return x
	}
	for _, r := range x.Results {
		if r.GetEffect() == "input" || r.GetEffect() == "channels" {
			r.Outcome, r.Detail = emergencyv1.EffectOutcome_EFFECT_OUTCOME_FAILED, "the instance of the gateway that has the connections does not answer"
		}
	}
	return x
}
