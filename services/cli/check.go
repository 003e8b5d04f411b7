// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
)

// finding is one thing that is wrong with a history.
type finding struct {
	Incident string `json:"incident"`
	// Position is that of the record's first event; 0 where the record does not say.
	Position uint64 `json:"position"`
	// Record counts the records of the history as they came, from 1.
	Record int    `json:"record"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// checked is what became of one history.
type checked struct {
	Incident string    `json:"incident"`
	Records  int       `json:"records"`
	Events   uint64    `json:"events"`
	Signed   int       `json:"signed_by_people"`
	Head     string    `json:"head"`
	Findings []finding `json:"findings"`

	gap   uint64 // first missing position of the last gap
	after int    // records beyond it
}

func errNoKeyring() error { return client.ErrNoKeyring }

func (a *app) historyCheckCmd() *cobra.Command {
	var file string
	cmd := leaf("check [INCIDENT]...", "Verify histories on this machine: chain, signatures, owners, people's approvals", `
Reads the rule book and the named incidents, or all, and believes no server: every record must continue the one before it, be
signed by a service that may write its events (--keyring), and where a person's approval is needed, carry the signature of
that person over exactly what was recorded, in a role that the person held then. With --file an export is checked, without a
server. Any finding ends with exit code 6.

A history that was cut at its end cannot be told from a shorter one; compare the heads that are shown with those that you
have written down.`, `
  epatch history check
  epatch history check e20261124.1 --keyring services.keys.json
  epatch history check --file e20261124.1.jsonl --keyring services.keys.json`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			if file != "" {
				return a.checkFile(file, args)
			}
			return a.checkServer(cmd.Context(), args)
		})
	cmd.Flags().StringVar(&file, "file", "", "check an export instead of a server")
	cmd.ValidArgsFunction = a.completeIncidents
	return cmd
}

func (a *app) checkServer(ctx context.Context, named []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if c.Keyring() == nil {
		return errNoKeyring()
	}
	ids, err := a.histories(ctx, named)
	if err != nil {
		return err
	}
	heads, err := claimedHeads(ctx, c)
	if err != nil {
		return err
	}
	records := map[string][]*emergencyv1.SignedRecord{}
	for _, id := range ids {
		a.progress("reading %s", id)
		if err := c.Records(ctx, id, func(r *emergencyv1.SignedRecord) error {
			records[id] = append(records[id], r)
			return nil
		}); err != nil {
			return err
		}
	}
	results := check(ids, records, c.Keyring())
	for i := range results {
		results[i].compareHead(heads[results[i].Incident])
	}
	return a.verdict(results)
}

// claimedHeads are the heads that the server answers from. They were read before the histories, which only grow.
func claimedHeads(ctx context.Context, c *client.Client) (map[string]*dashboardv1.Incident, error) {
	answer, err := c.Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{})
	heads := map[string]*dashboardv1.Incident{}
	for _, i := range answer.GetIncidents() {
		heads[i.GetId()] = i
	}
	return heads, err
}

func (r *checked) compareHead(claimed *dashboardv1.Incident) {
	if claimed.GetPosition() > r.Events {
		r.Findings = append(r.Findings, finding{r.Incident, claimed.GetPosition(), r.Records, "HISTORY_ENDS",
			fmt.Sprintf("the server answers for position %d, but what it hands out ends at position %d", claimed.GetPosition(), r.Events)})
	}
}

// exportLimit bounds one line of an export: a record of the largest size in base64, with room.
const exportLimit = 4 << 20

func (a *app) checkFile(file string, named []string) error {
	if a.opt.keyring == "" {
		return errNoKeyring()
	}
	keys, err := history.LoadKeyring(a.opt.keyring)
	if err != nil {
		return usage("%v", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return usage("%v", err)
	}
	defer func() { _ = f.Close() }() // only read
	ids, records, err := readExport(bufio.NewScanner(f))
	if err != nil {
		return fail(exitUnverified, "%s: %v", file, err)
	}
	for _, id := range named {
		if !slices.Contains(ids, id) {
			return fail(exitUnverified, "%s holds no record of %s", file, id)
		}
	}
	if len(records[procedure.RuleBook]) == 0 {
		return fail(exitUnverified, "%s lacks the rule book, which says whose keys and roles counted", file)
	}
	return a.verdict(check(ids, records, keys))
}

// readExport reads an export; histories come in the order of their first record.
func readExport(lines *bufio.Scanner) (ids []string, records map[string][]*emergencyv1.SignedRecord, err error) {
	lines.Buffer(make([]byte, 64<<10), exportLimit)
	records = map[string][]*emergencyv1.SignedRecord{}
	for n := 1; lines.Scan(); n++ {
		signed, rec := &emergencyv1.SignedRecord{}, &emergencyv1.Record{}
		if err := protojson.Unmarshal(bytes.TrimSpace(lines.Bytes()), signed); err != nil {
			return nil, nil, fmt.Errorf("line %d is no signed record", n)
		}
		if err := proto.Unmarshal(signed.GetRecord(), rec); err != nil || rec.GetIncident() == "" {
			return nil, nil, fmt.Errorf("line %d: what was signed is no record", n)
		}
		if _, ok := records[rec.GetIncident()]; !ok {
			ids = append(ids, rec.GetIncident())
		}
		records[rec.GetIncident()] = append(records[rec.GetIncident()], signed)
	}
	if err := lines.Err(); err != nil {
		return nil, nil, fmt.Errorf("line %d: %w", len(records)+1, err)
	}
	return ids, records, nil
}

// check verifies histories. The rule book comes first: it says whose keys and roles counted when.
func check(ids []string, records map[string][]*emergencyv1.SignedRecord, keys *history.Keyring) []checked {
	ids = slices.Clone(ids)
	slices.SortStableFunc(ids, func(x, y string) int {
		return boolInt(y == procedure.RuleBook) - boolInt(x == procedure.RuleBook)
	})
	book := bookOf(records[procedure.RuleBook], keys)
	var results []checked
	for _, id := range ids {
		results = append(results, checkOne(id, records[id], keys, book))
	}
	return results
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// bookOf folds the rule book as far as it is valid.
func bookOf(records []*emergencyv1.SignedRecord, keys *history.Keyring) *rulebook.Book {
	book, chain := &rulebook.Book{}, history.NewChain(procedure.RuleBook, keys)
	for _, signed := range records {
		entry, err := accept(chain, signed)
		if err != nil {
			continue // found again, and reported, by checkOne
		}
		next, err := client.WithRecord(book, entry.Record)
		if err != nil {
			return book
		}
		book = next
	}
	return book
}

// checkOne verifies one history, record by record.
func checkOne(id string, records []*emergencyv1.SignedRecord, keys *history.Keyring, book *rulebook.Book) checked {
	out := checked{Incident: id, Findings: []finding{}}
	chain, state := history.NewChain(id, keys), procedure.NewState(id)
	for _, signed := range records {
		out.Records++
		entry, err := accept(chain, signed)
		if err != nil {
			out.foreign(signed, err)
			continue
		}
		if err := procedure.VerifyRecord(state, entry.Record, book); err != nil {
			out.add(entry.Record.GetFirstPosition(), "APPROVAL", err.Error())
		} else if procedure.SignatureCounts(entry.Record) {
			out.Signed++
		}
		if err := state.Apply(entry.Record, entry.Hash); err != nil {
			out.add(entry.Record.GetFirstPosition(), "FOLD", err.Error())
			break
		}
	}
	out.Events, out.Head = chain.Head().Position, chain.Head().Hash
	return out
}

func (r *checked) add(position uint64, reason, detail string) {
	r.Findings = append(r.Findings, finding{r.Incident, position, r.Records, reason, detail})
}

// foreign records why a record is none of the history. What follows a gap does not continue either: it is one finding.
func (r *checked) foreign(signed *emergencyv1.SignedRecord, err error) {
	var rec emergencyv1.Record
	_ = proto.Unmarshal(signed.GetRecord(), &rec) // only for its position; bytes that do not decode have none
	var foreign *history.ForeignError
	if errors.As(err, &foreign) {
		if foreign.Reason == history.ReasonGap && foreign.Got > foreign.Want {
			r.beyond(rec.GetFirstPosition(), foreign)
			return
		}
		r.add(rec.GetFirstPosition(), string(foreign.Reason), foreign.Detail)
		return
	}
	r.add(rec.GetFirstPosition(), "UNREADABLE", err.Error())
}

// beyond counts the records after a gap.
func (r *checked) beyond(position uint64, gap *history.ForeignError) {
	n := len(r.Findings)
	if n == 0 || r.Findings[n-1].Reason != string(history.ReasonGap) || r.gap != gap.Want {
		r.gap, r.after = gap.Want, 0
		r.add(position, string(history.ReasonGap), "")
		n++
	}
	r.after++
	r.Findings[n-1].Detail = fmt.Sprintf("position %d is missing or was changed; %s after it, up to position %d, cannot be judged", gap.Want, plural(r.after, "record", "records"), position)
}

// verdict says what was found, and fails if anything was.
func (a *app) verdict(results []checked) error {
	wrong := 0
	for _, r := range results {
		wrong += len(r.Findings)
		if a.opt.json {
			if err := a.out.jsonValue(r); err != nil {
				return err
			}
			continue
		}
		mark := good("ok")
		if len(r.Findings) > 0 {
			mark = bad("WRONG")
		}
		a.out.line("%s  %s  %s, %s, %d signed by people", mark, r.Incident, plural(r.Records, "record", "records"), plural(int(r.Events), "event", "events"), r.Signed)
		a.out.line("    head %s", r.Head)
		for _, f := range r.Findings {
			a.out.line("    %s position %d, record %d: %s", bad(f.Reason), f.Position, f.Record, f.Detail)
		}
	}
	if wrong > 0 {
		return fail(exitUnverified, "%s in %s", plural(wrong, "finding", "findings"), plural(len(results), "history", "histories")).
			hint("do not act on these histories; keep what you have, and tell the operator and the arbitrators")
	}
	if !a.opt.json {
		a.out.line("chain, services' signatures, owners and people's approvals are in order")
	}
	return nil
}
