// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// dossierOptions are the settings of the verb.
type dossierOptions struct {
	position   uint64
	at, out    string
	restricted bool
}

func (a *app) dossierCmd() *cobra.Command {
	var opt dossierOptions
	cmd := a.incidentLeaf("dossier [INCIDENT]", "The arbitrator's questions, answered from the verified history", `
Each sentence names the positions of its events; what the history does not hold reads "no evidence". It is computed here from
records that this machine has verified, so nobody has to be believed, and it states facts: the arbitrator judges.

With --position it says what was known then, and what was due or late then; --at names another time for that. Restricted
values are shown with --restricted alone, those that you may read, and every reading is recorded.`, `
  epatch dossier e20261124.1
  epatch dossier e20261124.1 --position 42
  epatch dossier e20261124.1 --restricted -o dossier.md`,
		func(ctx context.Context, id string) error {
			if !procedure.IsIncident(id) {
				return usage("%s is no incident", id)
			}
			return a.dossier(ctx, id, opt)
		})
	f := cmd.Flags()
	f.Uint64Var(&opt.position, "position", 0, "as it was at this position; the end if 0")
	f.StringVar(&opt.at, "at", "", "judge what is due or late for this time (default: now, or the time of --position)")
	f.BoolVar(&opt.restricted, "restricted", false, "show the restricted values that you may read; every reading is recorded")
	f.StringVarP(&opt.out, "out", "o", "", "file; never overwritten")
	return cmd
}

func (a *app) dossier(ctx context.Context, id string, opt dossierOptions) error {
	in, err := a.input(ctx, id)
	if err != nil {
		return err
	}
	in.Position = opt.position
	if in.Asked, err = day("at", opt.at, time.Time{}); err != nil {
		return err
	}
	if in.Asked.IsZero() && opt.position == 0 {
		in.Asked = a.proc.Now()
	}
	d, err := dossier.New(in)
	if err != nil {
		return usage("%v", err)
	}
	var values map[string]dossier.Value
	if opt.restricted {
		if values, err = a.values(ctx, d); err != nil {
			return err
		}
	}
	return a.document(opt.out, func() (string, error) {
		if !a.opt.json {
			return d.Markdown(values), nil
		}
		b, err := json.Marshal(struct {
			*dossier.Dossier
			Values map[string]dossier.Value `json:"values,omitempty"`
		}{d, values})
		return string(b) + "\n", err
	})
}

// input is the verified history of an incident, with the verified rule book.
func (a *app) input(ctx context.Context, id string) (dossier.Input, error) {
	c, err := a.client()
	if err != nil {
		return dossier.Input{}, err
	}
	if c.Keyring() == nil {
		return dossier.Input{}, errNoKeyring()
	}
	var in dossier.Input
	if in.Book, err = c.Book(ctx); err != nil {
		return in, err
	}
	chain := history.NewChain(id, c.Keyring())
	err = c.Records(ctx, id, func(signed *emergencyv1.SignedRecord) error {
		entry, err := accept(chain, signed)
		if err != nil {
			return fail(exitUnverified, "%s after position %d: %v", id, chain.Head().Position, err).hint("all that is wrong: epatch history check %s", id)
		}
		in.Entries = append(in.Entries, *entry)
		return nil
	})
	return in, err
}

// values reads the restricted values that a dossier names. A rule's no is an answer; that a keeper is away is said as one.
func (a *app) values(ctx context.Context, d *dossier.Dossier) (map[string]dossier.Value, error) {
	list := map[string]dossier.Value{}
	for _, s := range d.Sentences() {
		for _, r := range s.Restricted {
			if _, ok := list[r.Commitment]; ok || r.Commitment == "" {
				continue
			}
			v, err := a.reveal(ctx, d.Incident, r.Commitment)
			switch {
			case ctx.Err() != nil:
				return nil, err
			case err != nil:
				list[r.Commitment] = dossier.Value{Why: "its keeper does not have it, or is away"}
			case v.Why != "":
				list[r.Commitment] = dossier.Value{Why: v.Why}
			default:
				list[r.Commitment] = dossier.Value{Text: v.Value}
			}
		}
	}
	return list, nil
}

// document writes a text to the terminal, or to a file that is not there yet.
func (a *app) document(out string, text func() (string, error)) (err error) {
	s, err := text()
	if err != nil {
		return err
	}
	if out == "" {
		for _, l := range strings.Split(strings.TrimSuffix(s, "\n"), "\n") {
			a.out.line("%s", l)
		}
		return nil
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it may hold restricted values
	if err != nil {
		return usage("%v", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.WriteString(f, s); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	a.errs.line("written to %s", out)
	return nil
}
