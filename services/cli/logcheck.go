// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"cacert.org/emergency/pkg/publog"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

func (a *app) logCheckCmd() *cobra.Command {
	var heads []string
	var offline bool
	cmd := leaf("check FILE...", "Compare saved copies of the public log; needs no identity", `
A FILE is what /log.json gave, or epatch log --json; a DIR is what epatch log export wrote: then each of its files must be the one
that its logs make. Each copy's chain is computed again, and every longer log must go on from every shorter one: what was removed,
put in another order, changed or dated back between them is named, and ends with exit code 6. The server's present log is the last
of them, unless --offline. With --head a head that was written down must be in it.`, `
  curl -s https://emergency.example.org/log.json > november.json
  epatch log check october.json november.json
  epatch log check /srv/www/emergency-log
  epatch log check --head 5f0c... --head 99ab...`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && len(heads) == 0 {
				return usage("what shall be compared? name saved copies, or heads with --head").hint("save one: epatch log --json > log.json")
			}
			return a.logCheck(cmd.Context(), args, heads, offline)
		})
	cmd.Flags().StringArrayVar(&heads, "head", nil, "head that was written down, 64 hex digits; may be repeated")
	cmd.Flags().BoolVar(&offline, "offline", false, "do not ask the server for its present log")
	return cmd
}

// copyOf is one copy of a log, and where it comes from.
type copyOf struct {
	from    string
	origin  publog.Origin
	entries []publog.Entry
}

func (a *app) logCheck(ctx context.Context, files, heads []string, offline bool) error {
	var copies []copyOf
	for _, f := range files {
		read := readLogCopy
		if info, err := os.Stat(f); err == nil && info.IsDir() {
			read = a.readExported
		}
		list, err := read(f)
		if err != nil {
			return err
		}
		copies = append(copies, list...)
	}
	if !offline {
		for _, o := range publog.Origins() {
			// a head does not say which log it is of
			if len(files) > 0 && !slices.ContainsFunc(copies, func(c copyOf) bool { return c.origin == o }) {
				continue
			}
			c, err := a.presentLog(ctx, o)
			if err != nil {
				return err
			}
			copies = append(copies, c)
		}
	}
	if err := compareCopies(copies); err != nil {
		return err
	}
	for _, h := range heads {
		if !slices.ContainsFunc(copies, func(c copyOf) bool { return publog.Holds(c.origin, c.entries, h) }) {
			return fail(exitUnverified, "no log that was looked at holds the head %.80s", h).hint("%s", keepEvidence)
		}
	}
	return a.logsCompared(copies, len(heads))
}

const keepEvidence = "keep what you have, and tell the arbitrators: a log that was changed is evidence"

// compareCopies verifies each copy, and that every longer one of a log goes on from every shorter one.
func compareCopies(copies []copyOf) error {
	for _, c := range copies {
		if err := publog.Verify(c.origin, c.entries); err != nil {
			return fail(exitUnverified, "%s: %v", c.from, err).hint("%s", keepEvidence)
		}
	}
	for _, origin := range publog.Origins() {
		list := slices.DeleteFunc(slices.Clone(copies), func(c copyOf) bool { return c.origin != origin })
		slices.SortStableFunc(list, func(x, y copyOf) int { return len(x.entries) - len(y.entries) })
		for i := 1; i < len(list); i++ {
			if err := publog.Continues(list[i-1].entries, list[i].entries); err != nil {
				return fail(exitUnverified, "%s does not go on from %s: %v", list[i].from, list[i-1].from, err).hint("%s", keepEvidence)
			}
		}
	}
	// The present log has to be the longest: what a reader has saved cannot go away again.
	for i, c := range copies {
		if c.from != presentName {
			continue
		}
		for _, saved := range copies[:i] {
			if saved.origin == c.origin && len(saved.entries) > len(c.entries) {
				return fail(exitUnverified, "the server's log ends at entry %d, and %s has %d", len(c.entries), saved.from, len(saved.entries)).hint("%s", keepEvidence)
			}
		}
	}
	return nil
}

// logsCompared says what was found to be in order.
func (a *app) logsCompared(copies []copyOf, heads int) error {
	if a.opt.json {
		type line struct {
			From    string        `json:"from"`
			Log     publog.Origin `json:"log"`
			Entries int           `json:"entries"`
			Head    string        `json:"head"`
		}
		list := []line{}
		for _, c := range copies {
			list = append(list, line{c.from, c.origin, len(c.entries), headOf(c)})
		}
		return a.out.jsonValue(map[string]any{"copies": list, "heads_found": heads})
	}
	for _, c := range copies {
		a.out.line("%s: %s log, %s, head %s", c.from, string(c.origin), plural(len(c.entries), "entry", "entries"), headOf(c))
	}
	a.out.line("%s nothing was removed, put in another order, changed or dated back between them", good("in order:"))
	if heads > 0 {
		a.out.line("%s", plural(heads, "written head is in it", "written heads are in it"))
	}
	return nil
}

func headOf(c copyOf) string {
	if n := len(c.entries); n > 0 {
		return c.entries[n-1].Hash
	}
	return publog.Genesis(c.origin)
}

const presentName = "the server's log"

func (a *app) presentLog(ctx context.Context, o publog.Origin) (copyOf, error) {
	c, err := a.dial()
	if err != nil {
		return copyOf{}, err
	}
	answer, err := c.Query().ReadLog(ctx, logRequest(o))
	return copyOf{presentName, o, logEntries(answer.GetEntries())}, err
}

func logRequest(o publog.Origin) *dashboardv1.ReadLogRequest {
	return &dashboardv1.ReadLogRequest{Drills: o == publog.Drills, Archive: o == publog.Archive}
}

// readLogCopy reads a saved log in either of its two forms.
func readLogCopy(file string) ([]copyOf, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("%v", err)
	}
	var doc struct {
		Log     publog.Origin  `json:"log"`
		Entries []publog.Entry `json:"entries"`
	}
	if err := json.Unmarshal(raw, &doc); err == nil && slices.Contains(publog.Origins(), doc.Log) {
		return []copyOf{{file, doc.Log, doc.Entries}}, nil
	}
	var answer dashboardv1.ReadLogResponse
	if err := protojson.Unmarshal(raw, &answer); err != nil {
		return nil, usage("%s is no saved log", file).hint("save one: epatch log --json > log.json")
	}
	c := copyOf{file, publog.Real, logEntries(answer.GetEntries())}
	for _, o := range publog.Origins() {
		if len(c.entries) > 0 && c.entries[0].Prev == publog.Genesis(o) {
			c.origin = o
		}
	}
	if len(c.entries) > 0 && c.entries[0].Seq != 1 {
		return nil, usage("%s begins with entry %d", file, c.entries[0].Seq).hint("%s", "a part of a chain proves nothing; save the whole log: epatch log --json > log.json")
	}
	return []copyOf{c}, nil
}

// logEntries are the entries of an answer, as they are hashed.
func logEntries(list []*dashboardv1.LogEntry) []publog.Entry {
	entries := make([]publog.Entry, len(list))
	for i, e := range list {
		entries[i] = publog.Entry{
			Seq: e.GetSeq(), Incident: e.GetIncident(), Kind: e.GetKind(), At: e.GetAt().AsTime(), Late: e.GetLate(), Headline: e.GetHeadline(),
			Role: e.GetRole(), Commitments: append([]string{}, e.GetCommitments()...), EventHash: e.GetEventHash(), Prev: e.GetPrev(), Hash: e.GetHash(),
		}
		for _, f := range e.GetFields() {
			entries[i].Fields = append(entries[i].Fields, publog.Field{Name: f.GetName(), Value: f.GetValue()})
		}
	}
	return entries
}
