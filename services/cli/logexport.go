// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/publog"
	"cacert.org/emergency/pkg/publog/site"
)

func (a *app) logExportCmd() *cobra.Command {
	var base string
	cmd := leaf("export DIR", "Write the public log as a site that any web server can serve; needs no identity", `
The whole log as HTML without JavaScript, JSON and Atom, with the drills, what was taken from the archive, and
EmergencyLogs.txt, a page for CAcert's wiki. The chains are verified before anything is written. The same log gives the same bytes.
DIR is replaced as a whole: readers see the old site or the new one, never half of one. A folder that holds anything which no export
wrote, or that was changed since, is left as it is. SHA256SUMS in it lists the files; epatch log check DIR verifies them.

With --url the feeds and the wiki page name their pages by that address; without it the feeds' links are relative, and the wiki page
has none.`, `
  epatch log export /srv/www/emergency-log
  epatch log export /srv/www/emergency-log --url https://emergency.example.org/log`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			if base != "" {
				if err := site.ValidBase(base); err != nil {
					return usage("%v", err).hint("name where the site is served: --url https://emergency.example.org/log")
				}
			}
			return a.logExport(cmd.Context(), args[0], base)
		})
	cmd.Flags().StringVar(&base, "url", "", "address at which the site is served")
	return cmd
}

func (a *app) logExport(ctx context.Context, dir, base string) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	cfg := site.Config{Entries: map[publog.Origin][]publog.Entry{}, Base: base}
	for _, o := range publog.Origins() {
		answer, err := c.Query().ReadLog(ctx, logRequest(o))
		if err != nil {
			return err
		}
		cfg.Entries[o], cfg.Development = logEntries(answer.GetEntries()), answer.GetDevelopment()
	}
	s := site.New(cfg)
	written, err := s.Write(dir)
	var broken *publog.ChainError
	switch {
	case errors.As(err, &broken):
		return fail(exitUnverified, "%v", err).hint("%s", keepEvidence)
	case errors.Is(err, site.ErrNotOurs):
		return usage("%v", err).hint("nothing was changed; move away what is not the log's, or export into a folder of its own")
	case err != nil:
		return usage("%v", err).hint("the folder is replaced as a whole: name one inside a folder that you may write, and no mount point")
	}
	if a.opt.json {
		heads := map[publog.Origin]string{}
		for _, o := range publog.Origins() {
			heads[o] = s.Head(o)
		}
		return a.out.jsonValue(map[string]any{"dir": dir, "files": written.Files, "unchanged": written.Unchanged, "left": written.Left, "heads": heads})
	}
	if written.Unchanged {
		a.out.line("%s %s holds this log already, in %s", good("done:"), dir, plural(written.Files, "file", "files"))
	} else {
		a.out.line("%s %s written to %s", good("done:"), plural(written.Files, "file", "files"), dir)
	}
	for _, o := range publog.Origins() {
		a.out.line("      %s log, %s, head %s", string(o), plural(len(cfg.Entries[o]), "entry", "entries"), s.Head(o))
	}
	if base == "" {
		a.out.line("      the wiki page %s has no links: name the site's address with --url", site.WikiFile)
	}
	if written.Left != "" {
		a.out.line("%s the site that was replaced could not be removed whole, and lies in %s", alert("note:"), written.Left)
	}
	return nil
}

// readExported reads the logs of an exported site, which must be what it was written as.
func (a *app) readExported(dir string) ([]copyOf, error) {
	x, err := site.Check(dir)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil, usage("%v", err)
	}
	if err != nil {
		return nil, err
	}
	if len(x.Problems) > 0 {
		bad := fail(exitUnverified, "%s: %s", dir, x.Problems[0])
		if n := len(x.Problems) - 1; n > 0 {
			bad = fail(exitUnverified, "%s: %s; and %s more", dir, x.Problems[0], plural(n, "thing", "things"))
		}
		return nil, bad.hint("%s", keepEvidence).hint("if nobody was meant to change it, export the log anew into another folder and compare")
	}
	if x.OtherMaker && !a.opt.json {
		a.out.line("%s %s was written by another version of this program: its files are as that one wrote them, its pages were not made again", alert("note:"), dir)
	}
	var list []copyOf
	for _, o := range publog.Origins() {
		list = append(list, copyOf{dir + " (" + string(o) + ")", o, x.Entries[o]})
	}
	return list, nil
}
