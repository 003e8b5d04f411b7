// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// manifestType is the media type of the list of a tree's files: lines "mode blob id<TAB>path", each ended by NUL, sorted by
// path, as `git ls-tree -r -z` writes them.
const manifestType = "application/vnd.cacert.emergency.manifest"

// listed stores the list of files that an agent sent with a tree. A list that does not give the tree is a defect of the agent.
func (s *Server) listed(ctx context.Context, host string, ans *answer) (procedure.HostTree, error) {
	if err := giveTree(ans.Files, ans.GetPostTree()); err != nil {
		return procedure.HostTree{}, fmt.Errorf("the agent on %s: %w", host, err)
	}
	var text bytes.Buffer
	for _, e := range ans.Files {
		fmt.Fprintf(&text, "%s blob %s\t%s\x00", e.Mode, e.ID, e.Path)
	}
	a, err := s.keep(ctx, &text, manifestType)
	return procedure.HostTree{Tree: ans.GetPostTree(), Manifest: a}, err
}

func giveTree(files []gittree.Entry, tree string) error {
	algo, _, err := gittree.ParseID(tree)
	if err != nil {
		return err
	}
	if got, err := gittree.ID(algo, slices.Clone(files)); err != nil || got != tree {
		return fmt.Errorf("the list of files is not that of tree %s, it gives %s", tree, got)
	}
	return nil
}

// keep stores what can be read for ever.
func (s *Server) keep(ctx context.Context, r io.Reader, mediaType string) (*emergencyv1.Artefact, error) {
	ref, err := s.Artefacts.Put(ctx, r, mediaType)
	if errors.Is(err, artefacts.ErrTooLarge) {
		return nil, err
	}
	if err != nil {
		return nil, service.Away("artefacts: %w", err)
	}
	return &emergencyv1.Artefact{Sha256: ref.SHA256, Size: uint64(ref.Size), MediaType: mediaType}, nil
}

// files reads a stored list of files back. It must still give its tree.
func (s *Server) files(ctx context.Context, a *emergencyv1.Artefact, tree string) ([]gittree.Entry, error) {
	b, err := s.Artefacts.Get(ctx, a.GetSha256())
	if err != nil {
		return nil, err
	}
	list, err := gitcmd.ParseEntries(b)
	if err != nil {
		return nil, err
	}
	return list, giveTree(list, tree)
}
