// SPDX-License-Identifier: Apache-2.0

package deploymenttest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func protoMessage(m proto.Message) protoreflect.Value {
	return protoreflect.ValueOfMessage(m.ProtoReflect())
}

func loadRecords(ctx context.Context, store history.Store, incident string) ([]*emergencyv1.SignedRecord, error) {
	messages, err := store.Load(ctx, incident, 0)
	if err != nil {
		return nil, err
	}
	var list []*emergencyv1.SignedRecord
	for _, m := range messages {
		rec := &emergencyv1.SignedRecord{}
		if err := proto.Unmarshal(m.Data, rec); err != nil {
			return nil, err
		}
		list = append(list, rec)
	}
	return list, nil
}

// Query serves histories. Lie changes what it shows; nil is the truth.
type Query struct {
	dashboardv1.UnimplementedQueryServiceServer
	Rig *Rig
	Lie func(incident string, records []*emergencyv1.SignedRecord) []*emergencyv1.SignedRecord
}

// ReadHistory shows a history.
func (q *Query) ReadHistory(req *dashboardv1.ReadHistoryRequest, stream grpc.ServerStreamingServer[dashboardv1.ReadHistoryResponse]) error {
	list, err := loadRecords(stream.Context(), q.Rig.Store, req.GetIncident())
	if err != nil {
		return err
	}
	if q.Lie != nil {
		list = q.Lie(req.GetIncident(), list)
	}
	for _, rec := range list {
		if err := stream.Send(&dashboardv1.ReadHistoryResponse{Record: rec}); err != nil {
			return err
		}
	}
	return nil
}

// Review serves patches and takes the test server's confirmations. Lie changes the bytes that it hands out.
type Review struct {
	reviewv1.UnimplementedReviewServiceServer
	reviewv1.UnimplementedReviewReaderServiceServer
	Rig     *Rig
	Patches map[string][]byte // by SHA-256; the rig's own patch is known
	Lie     func([]byte) []byte
}

// ReadPatch hands out the bytes of a revision.
func (s *Review) ReadPatch(ctx context.Context, req *reviewv1.ReadPatchRequest) (*reviewv1.ReadPatchResponse, error) {
	st, err := s.Rig.dispatchers[procedure.OwnerReview].State(ctx, req.GetIncident())
	if err != nil {
		return nil, err
	}
	r, ok := st.Revision(req.GetRevision())
	if !ok {
		return nil, errors.New("no such revision")
	}
	b := s.Rig.Patch
	if other, ok := s.Patches[r.Artefact.GetSha256()]; ok {
		b = other
	}
	if s.Lie != nil {
		b = s.Lie(b)
	}
	return &reviewv1.ReadPatchResponse{Bytes: b, Sha256: patch.Digest(b), Diff: b}, nil
}

// ConfirmTestServer records a confirmation as the review service does.
func (s *Review) ConfirmTestServer(ctx context.Context, req *emergencyv1.ConfirmTestServerRequest) (*emergencyv1.ConfirmTestServerResponse, error) {
	caller, _ := identity.FromContext(ctx)
	c, err := s.Rig.dispatchers[procedure.OwnerReview].Do(ctx, req, dispatch.Input{Actor: procedure.Actor{KeyID: caller.KeyID}})
	return &emergencyv1.ConfirmTestServerResponse{Committed: c}, err
}

// Hub is a place where agents dial in that hands out whatever jobs a test wants, one by one.
type Hub struct {
	deploymentv1.UnimplementedAgentServiceServer
	// Mute: no signs of life are given, as by a service that hangs.
	Mute atomic.Bool

	jobs    chan *deploymentv1.Job
	results chan *hubAnswer
}

type hubAnswer struct {
	result *deploymentv1.JobResult
	files  []*deploymentv1.FilePart
}

// NewHub has no jobs yet.
func NewHub() *Hub {
	return &Hub{jobs: make(chan *deploymentv1.Job), results: make(chan *hubAnswer)}
}

// Attach hands out jobs and gives signs of life.
func (h *Hub) Attach(stream grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse]) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- h.take(stream) }()
	beat := time.NewTicker(max(time.Duration(hello.GetSignOfLifeMs())*time.Millisecond, 10*time.Millisecond))
	defer beat.Stop()
	for {
		msg := &deploymentv1.AttachResponse{}
		select {
		case <-stream.Context().Done():
			return nil
		case err := <-gone:
			return err
		case <-beat.C:
			if h.Mute.Load() || hello.GetSignOfLifeMs() == 0 {
				continue
			}
		case msg.Job = <-h.jobs:
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

// take passes the agent's answers on.
func (h *Hub) take(stream grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse]) error {
	ans := &hubAnswer{}
	for {
		msg, err := stream.Recv()
		if err != nil {
			return err
		}
		if f := msg.GetFile(); f != nil {
			ans.files = append(ans.files, f)
		}
		if ans.result = msg.GetResult(); ans.result == nil {
			continue
		}
		select {
		case h.results <- ans:
			ans = &hubAnswer{}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// Run has the attached agent do a job.
func (h *Hub) Run(ctx context.Context, j *deploymentv1.Job) (*deploymentv1.JobResult, error) {
	r, _, err := h.RunFiles(ctx, j)
	return r, err
}

// RunFiles has the attached agent do a job that sends files.
func (h *Hub) RunFiles(ctx context.Context, j *deploymentv1.Job) (*deploymentv1.JobResult, []*deploymentv1.FilePart, error) {
	select {
	case h.jobs <- j:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("no agent came: %w", ctx.Err())
	}
	select {
	case r := <-h.results:
		return r.result, r.files, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("no answer came: %w", ctx.Err())
	}
}
