// SPDX-License-Identifier: Apache-2.0

package deploymenttest

import (
	"context"
	"errors"
	"fmt"

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

// Hub is a place where agents dial in that hands out whatever jobs a test wants.
type Hub struct {
	deploymentv1.UnimplementedAgentServiceServer
	jobs    chan *deploymentv1.Job
	results chan *deploymentv1.JobResult
}

// NewHub has no jobs yet.
func NewHub() *Hub {
	return &Hub{jobs: make(chan *deploymentv1.Job), results: make(chan *deploymentv1.JobResult)}
}

// Attach hands out jobs one by one.
func (h *Hub) Attach(stream grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case j := <-h.jobs:
			if err := stream.Send(&deploymentv1.AttachResponse{Job: j}); err != nil {
				return err
			}
			msg, err := stream.Recv()
			if err != nil {
				return err
			}
			select {
			case h.results <- msg.GetResult():
			case <-stream.Context().Done():
				return nil
			}
		}
	}
}

// Run has the attached agent do a job.
func (h *Hub) Run(ctx context.Context, j *deploymentv1.Job) (*deploymentv1.JobResult, error) {
	select {
	case h.jobs <- j:
	case <-ctx.Done():
		return nil, fmt.Errorf("no agent came: %w", ctx.Err())
	}
	select {
	case r := <-h.results:
		return r, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer came: %w", ctx.Err())
	}
}
