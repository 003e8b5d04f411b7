// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"cmp"
	"slices"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// hostChange is one change of the critical host: a patch that was applied, or what a session left.
type hostChange struct {
	position   uint64
	host, tree string // what the host holds since
	by         string
	at         time.Time
	revision   *procedure.Revision // nil for a session whose difference is not registered
	grant      string              // of a session
	settled    bool                // the tree is known
	stands     bool                // it was not taken back
}

// hostChanges are the changes of the host, in their order.
func hostChanges(st *procedure.State) []hostChange {
	var list []hostChange
	for i := range st.Applies {
		a := &st.Applies[i]
		r, _ := st.Revision(a.Revision)
		at := a.Verified.At
		if at.IsZero() {
			at = a.StartedAt
		}
		list = append(list, hostChange{
			position: a.Position, host: a.Host, tree: a.HostTree, by: a.Executor, at: at, revision: r, settled: r != nil && a.HostTree != "" && !a.Running(),
			stands: a.State == procedure.Verified || a.State == procedure.Applied,
		})
	}
	for i := range st.Grants {
		g := &st.Grants[i]
		if g.Diff.Position == 0 || g.Diff.AfterTree == g.BeforeTree {
			continue
		}
		list = append(list, hostChange{
			position: g.Opened.Position, host: g.Host, tree: g.Diff.AfterTree, by: g.Subject, at: g.Terminated.At, revision: ofSession(st, g), grant: g.ID, settled: true, stands: true,
		})
	}
	slices.SortFunc(list, func(a, b hostChange) int { return cmp.Compare(a.position, b.position) })
	return list
}

// ofSession is the revision that is exactly what a session left.
func ofSession(st *procedure.State, g *procedure.Grant) *procedure.Revision {
	for i := range st.Revisions {
		r := &st.Revisions[i]
		trees := r.BaseTree == g.BeforeTree && r.ResultTree == g.Diff.AfterTree
		if r.Origin == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION && trees && (g.Diff.Problem != "" || r.Artefact.GetSha256() == g.Diff.Patch.GetSha256()) {
			return r
		}
	}
	return nil
}

// lastChange is what made the host what it is; its tree must be known.
func lastChange(st *procedure.State) (hostChange, error) {
	list := hostChanges(st)
	if len(list) == 0 || !list[len(list)-1].settled {
		return hostChange{}, notPushed("what the host holds is not verified yet", "wait for the agent's report of the tree")
	}
	return list[len(list)-1], nil
}
