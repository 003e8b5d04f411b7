// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Evidence: histories as they are stored, verified on this machine.

func (a *app) proofCommands() []*cobra.Command {
	return []*cobra.Command{
		a.dossierCmd(), a.replayCmd(), group("history", "The signed records: show, check, export", a.historyShowCmd(), a.historyCheckCmd(), a.historyExportCmd()),
		group("recording", "Recordings of watched sessions", a.recordingCheckCmd()),
		group("projection", "What is derived from the histories", a.dumpCmd()),
	}
}

func (a *app) historyShowCmd() *cobra.Command {
	var from uint64
	cmd := a.incidentLeaf("show [HISTORY]", "List the records of a history, as verified here", `
HISTORY is an incident or rulebook. One line a record: positions, time, owner, command, who, and the record's hash. With --json one record a line, payloads as
they are stored.`, `
  epatch history show e20261124.1
  epatch history show rulebook --json`,
		func(ctx context.Context, id string) error {
			return a.showHistory(ctx, id, from)
		})
	cmd.Flags().Uint64Var(&from, "from", 1, "first position")
	return cmd
}

func (a *app) showHistory(ctx context.Context, id string, from uint64) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if c.Keyring() == nil {
		return errNoKeyring()
	}
	chain := history.NewChain(id, c.Keyring())
	err = c.Records(ctx, id, func(signed *emergencyv1.SignedRecord) error {
		entry, err := accept(chain, signed)
		if err != nil {
			return fail(exitUnverified, "%s after position %d: %v", id, chain.Head().Position, err).hint("all that is wrong: epatch history check %s", id)
		}
		last := chain.Head().Position
		if last < from {
			return nil
		}
		if a.opt.json {
			return a.out.json(entry.Record)
		}
		a.recordLine(entry)
		return nil
	})
	if err == nil && !a.opt.json {
		a.out.line("%s", dim(fmt.Sprintf("verified up to position %d, head %s", chain.Head().Position, chain.Head().Hash)))
	}
	return err
}

// accept judges a record in its envelope.
func accept(chain *history.Chain, signed *emergencyv1.SignedRecord) (*history.Entry, error) {
	raw, err := proto.Marshal(signed) // the envelope; the record in it stays the stored bytes
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	return chain.Accept(raw)
}

func (a *app) recordLine(e *history.Entry) {
	rec := e.Record
	last := rec.GetFirstPosition() + uint64(len(rec.GetEvents())) - 1
	var events []string
	for _, ev := range rec.GetEvents() {
		_, name, _ := strings.Cut(ev.GetType(), ".")
		events = append(events, name)
	}
	signed := ""
	if rec.GetApproval() != nil && procedure.SignatureCounts(rec) {
		signed = ", signed by the person"
	}
	a.out.line("%4d-%-4d %s  %s %s by %s%s", rec.GetFirstPosition(), last, rec.GetRecordedAt().AsTime().In(a.out.local).Format("2006-01-02 15:04:05 MST"), rec.GetOwner(), rec.GetCommand(), actorWords(rec.GetActor()), signed)
	a.out.line("          %s  %s", strings.Join(events, ", "), dim(short(e.Hash)))
}

func actorWords(actor *emergencyv1.Actor) string {
	switch {
	case actor.GetPerson() != "" && actor.GetSystem() != 0:
		return fmt.Sprintf("%s, through %s", actor.GetPerson(), actor.GetSystemName())
	case actor.GetPerson() != "":
		return actor.GetPerson()
	}
	return fmt.Sprintf("%s %s", word(actor.GetSystem()), actor.GetSystemName())
}

func (a *app) historyExportCmd() *cobra.Command {
	var out string
	cmd := leaf("export [INCIDENT]... --out FILE", "Save the signed records, to be checked without a server", `
One record a line, as JSON, in its order; the rule book is always included, since it says whose keys and roles counted.
Without an incident all are saved. Check it anywhere: epatch history check --file FILE --keyring KEYS.`, `
  epatch history export e20261124.1 --out e20261124.1.jsonl
  epatch history export --out everything.jsonl`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usage("where to? name the file with --out; - is standard output")
			}
			return a.export(cmd.Context(), args, out)
		})
	cmd.Flags().StringVar(&out, "out", "", "file; - for standard output; never overwritten")
	return cmd
}

func (a *app) export(ctx context.Context, ids []string, out string) (err error) {
	c, err := a.client()
	if err != nil {
		return err
	}
	if ids, err = a.histories(ctx, ids); err != nil {
		return err
	}
	w := a.proc.Stdout
	if out != "-" {
		f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return usage("%v", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	n := 0
	buffered := bufio.NewWriter(w)
	for _, id := range ids {
		if err := c.Records(ctx, id, func(signed *emergencyv1.SignedRecord) error {
			n++
			return writeRecord(buffered, signed)
		}); err != nil {
			return err
		}
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if out != "-" {
		a.errs.line("%s of %s saved in %s", plural(n, "record", "records"), plural(len(ids), "history", "histories"), out)
	}
	return nil
}

func writeRecord(w io.Writer, signed *emergencyv1.SignedRecord) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(signed)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	line.WriteByte('\n')
	_, err = w.Write(line.Bytes())
	return err
}

// histories are the named incidents, or all, with the rule book before them.
func (a *app) histories(ctx context.Context, named []string) ([]string, error) {
	ids := []string{procedure.RuleBook}
	if len(named) > 0 {
		for _, id := range named {
			if id != procedure.RuleBook {
				ids = append(ids, id)
			}
		}
		return ids, nil
	}
	if s, err := a.conn.State(ctx, procedure.Archive); err != nil {
		return nil, err
	} else if s.Position > 0 { // there is none before the first import
		ids = append(ids, procedure.Archive)
	}
	answer, err := a.conn.Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{})
	if err != nil {
		return nil, err
	}
	for i := len(answer.GetIncidents()) - 1; i >= 0; i-- { // oldest first
		ids = append(ids, answer.GetIncidents()[i].GetId())
	}
	return ids, nil
}

func (a *app) dumpCmd() *cobra.Command {
	req := &dashboardv1.DumpProjectionRequest{}
	cmd := leaf("dump [NAME]", "Write a projection as text, the same for the same histories", `
With --rebuild it is folded from nothing first, beside the running one. Two dumps must be equal byte for byte.`, `
  epatch projection dump > running.txt
  epatch projection dump --rebuild > rebuilt.txt && cmp running.txt rebuilt.txt`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			req.Name = strings.Join(args, "")
			c, err := a.client()
			if err != nil {
				return err
			}
			stream, err := c.Query().DumpProjection(cmd.Context(), req)
			for err == nil {
				var m *dashboardv1.DumpProjectionResponse
				if m, err = stream.Recv(); err == nil {
					_, err = a.proc.Stdout.Write(m.GetChunk())
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})
	cmd.Flags().BoolVar(&req.Rebuild, "rebuild", false, "fold it from nothing first")
	return cmd
}
