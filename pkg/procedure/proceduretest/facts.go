// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var commands = sync.OnceValue(procedure.Commands)

func protoMessage(m proto.Message) protoreflect.Value {
	return protoreflect.ValueOfMessage(m.ProtoReflect())
}

func stringValue(s string) protoreflect.Value { return protoreflect.ValueOfString(s) }

// Tree is a git tree id derived from a name.
func Tree(name string) string {
	sum := sha1.Sum([]byte("tree " + name))
	return "sha1:" + hex.EncodeToString(sum[:])
}

// BaseTree is what the fixture's host holds before a patch.
func BaseTree() string { return Tree("base") }

// Patch is the n-th patch of the fixture, on BaseTree.
func Patch(n int) []byte {
	return fmt.Appendf(nil, "--- a/file\n+++ b/file\n@@ -1 +1 @@\n-old\n+new %d\n", n)
}

// ResultTree is what the n-th patch gives.
func ResultTree(n int) string { return Tree(fmt.Sprintf("result %d", n)) }

// Register registers the n-th patch, as a new patch; set Supersedes to replace a revision.
func Register(n int) *emergencyv1.RegisterPatchRequest {
	b := Patch(n)
	sum := sha256.Sum256(b)
	return &emergencyv1.RegisterPatchRequest{
		Bytes: b, Sha256: hex.EncodeToString(sum[:]), BaseCommit: "c0ffee", BaseTree: BaseTree(), ResultTree: ResultTree(n), BugId: "bug-1500",
	}
}

// Replace registers the n-th patch in place of a revision.
func Replace(old string, n int) *emergencyv1.RegisterPatchRequest {
	c := Register(n)
	c.Supersedes = old
	return c
}

// GoodFacts are what a service would find out for a command when all is well.
func GoodFacts(s *procedure.State, c procedure.Command) procedure.Facts {
	r := revisionOf(s, c)
	switch m := c.(type) {
	case *emergencyv1.RegisterPatchRequest:
		sum := sha256.Sum256(m.GetBytes())
		return procedure.Facts{Patch: &procedure.PatchFacts{
			Artefact: &emergencyv1.Artefact{Sha256: hex.EncodeToString(sum[:]), Size: uint64(len(m.GetBytes())), MediaType: "text/x-diff"},
			BaseTree: m.GetBaseTree(), ResultTree: m.GetResultTree(), Files: 1,
		}}
	case *emergencyv1.TransferRequest:
		return procedure.Facts{Pushed: &procedure.PushFacts{Commit: "beef01", Tree: r.ResultTree, Ref: "refs/heads/emergency/" + s.Incident}}
	case *emergencyv1.PushReplicationRequest:
		return procedure.Facts{Pushed: &procedure.PushFacts{Commit: "beef02", Tree: hostTree(s), Ref: "refs/heads/release", Signed: true}}
	case *emergencyv1.ReportTestRequest:
		return procedure.Facts{BugNote: "bug-1500#7"}
	case *emergencyv1.DryRunRequest:
		return procedure.Facts{Agent: &procedure.AgentFacts{Host: s.Host(), HostTree: r.BaseTree, ResultTree: r.ResultTree, Clean: true, Files: 1}}
	case *emergencyv1.ConfirmObserverRequest:
		return procedure.Facts{Agent: &procedure.AgentFacts{Host: s.Host(), HostTree: r.ResultTree}}
	case interface{ GetGrant() string }, *emergencyv1.GrantAccessRequest:
		return procedure.Facts{Console: ConsoleFacts(s, c)}
	case *emergencyv1.CheckReplicationRequest:
		return procedure.Facts{Replication: &procedure.ReplicationFacts{Host: s.Host(), HostTree: hostTree(s), BranchTree: hostTree(s), BranchCommit: "beef02"}}
	}
	return procedure.Facts{}
}

// GoodFacts are those of the world's state, with the restricted values that its owners keep.
func (w *World) GoodFacts(c procedure.Command) procedure.Facts {
	f := GoodFacts(w.State, c)
	if x, ok := c.(*emergencyv1.DiscloseRequest); ok {
		f.Revealed = w.RevealedOf(x.GetCommitment())
	}
	return f
}

// revisionOf is the revision a command names, else the current one, else an empty one.
func revisionOf(s *procedure.State, c procedure.Command) *procedure.Revision {
	if b, ok := c.(interface{ GetBinding() *emergencyv1.Binding }); ok {
		if r, ok := s.Revision(b.GetBinding().GetRevision()); ok {
			return r
		}
	}
	if r := s.Current(); r != nil {
		return r
	}
	return &procedure.Revision{}
}

// hostTree is what the host holds if everything reported about it is true.
func hostTree(s *procedure.State) string {
	for i := len(s.Applies) - 1; i >= 0; i-- {
		if t := s.Applies[i].HostTree; t != "" {
			return t
		}
	}
	return BaseTree()
}
