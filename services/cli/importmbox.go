// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/mailarchive"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/publog"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

type importOptions struct {
	list string
	yes  bool
}

func (a *app) importMboxCmd() *cobra.Command {
	var opt importOptions
	cmd := leaf("import-mbox FILE", "Take the years before this log from the mailing list's archive", `
FILE is the archive of the system-log mailing list, an mbox. The messages that name an emergency patch become entries marked "From
the archive", with subject, date, Message-ID and the SHA-256 of their bytes, so that anybody can find and compare them. Who wrote one,
its text and its attachments are never taken; addresses, and the names of those who wrote to the list, are covered in the subjects.

Without --yes nothing is recorded: it shows what would be. What is in the log already is left out, so that it can be given again with a
longer archive. Entries are never edited: look at the subjects first. For the critical team lead or a case manager, who signs them.`, `
  epatch log import-mbox cacert-systemlog.mbox
  epatch log import-mbox cacert-systemlog.mbox --yes`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error { return a.importMbox(cmd.Context(), args[0], opt) })
	cmd.Flags().StringVar(&opt.list, "list", "cacert-systemlog", "name of the mailing list")
	cmd.Flags().BoolVar(&opt.yes, "yes", false, "record it; without it is only shown")
	return cmd
}

// fate is what becomes of a message of the file.
type fate struct {
	Message   int    `json:"message"`
	Outcome   string `json:"outcome"` // import, there, ignored or unreadable
	Sent      string `json:"sent,omitempty"`
	Title     string `json:"title,omitempty"`
	MessageID string `json:"message_id,omitempty"`
	SHA256    string `json:"sha256,omitempty"`
	Why       string `json:"why,omitempty"`
	named     bool
	archived  *emergencyv1.ArchivedMessage
}

const (
	fateImport     = "import"
	fateThere      = "there"
	fateIgnored    = "ignored"
	fateUnreadable = "unreadable"
)

func (a *app) importMbox(ctx context.Context, file string, opt importOptions) error {
	f, err := os.Open(file)
	if err != nil {
		return usage("%v", err)
	}
	defer func() { _ = f.Close() }() // only read
	messages, err := mailarchive.Read(f, a.proc.Now())
	if errors.Is(err, mailarchive.ErrNoArchive) {
		return usage("%s: %v", file, err).hint("export the list's archive as mbox, and unpack it if it is packed")
	}
	if err != nil {
		return usage("%v", err)
	}
	fates, err := a.fates(ctx, messages)
	if err != nil {
		return err
	}
	var take []*emergencyv1.ArchivedMessage
	for _, x := range fates {
		if x.Outcome == fateImport {
			take = append(take, x.archived)
		}
	}
	slices.SortStableFunc(take, func(x, y *emergencyv1.ArchivedMessage) int { // the oldest first, the same whatever the order of the file
		return cmp.Or(x.GetSentAt().AsTime().Compare(y.GetSentAt().AsTime()), strings.Compare(x.GetSha256(), y.GetSha256()))
	})
	if !a.opt.json {
		a.showFates(fates)
	}
	recorded := 0
	if opt.yes {
		if recorded, err = a.importAll(ctx, opt.list, take); err != nil {
			return err
		}
	}
	return a.imported(fates, len(take), recorded, opt.yes)
}

// fates compares the messages with what the log holds.
func (a *app) fates(ctx context.Context, messages []mailarchive.Message) ([]fate, error) {
	there, err := a.presentLog(ctx, publog.Archive)
	if err != nil {
		return nil, err
	}
	if err := publog.Verify(publog.Archive, there.entries); err != nil {
		return nil, fail(exitUnverified, "%v", err).hint("%s", keepEvidence)
	}
	digests, ids := map[string]uint64{}, map[string]uint64{}
	for _, e := range there.entries {
		digests[e.Field("sha256")] = e.Seq
		if id := e.Field(publog.FieldMessageID); id != "" {
			ids[id] = e.Seq
		}
	}
	list := make([]fate, len(messages))
	for i, m := range messages {
		x := fate{Message: m.Number, Outcome: string(m.Outcome), Why: m.Why, named: m.Named, archived: m.Archived}
		if m.Archived != nil {
			x.Outcome, x.Title, x.MessageID, x.SHA256 = fateImport, m.Archived.GetTitle(), m.Archived.GetMessageId(), m.Archived.GetSha256()
			x.Sent = m.Archived.GetSentAt().AsTime().Format("2006-01-02 15:04 UTC")
			if seq, ok := digests[x.SHA256]; ok {
				x.Outcome, x.Why = fateThere, fmt.Sprintf("entry %d of the archive's log", seq)
			} else if seq, ok := ids[x.MessageID]; ok && x.MessageID != "" {
				x.Outcome, x.Why = fateIgnored, fmt.Sprintf("entry %d has its Message-ID, and other content", seq)
			}
		}
		list[i] = x
	}
	return list, nil
}

// importAll records messages, in as many commands as they need. The request id is that of what is recorded: a command whose answer was
// lost is not given twice.
func (a *app) importAll(ctx context.Context, list string, take []*emergencyv1.ArchivedMessage) (int, error) {
	recorded := 0
	for batch := range slices.Chunk(take, procedure.ArchiveBatch) {
		cmd := &emergencyv1.ImportArchiveRequest{List: list, Messages: batch}
		content, err := proto.MarshalOptions{Deterministic: true}.Marshal(cmd)
		if err != nil {
			return recorded, fmt.Errorf("encode command: %w", err)
		}
		sum := sha256.Sum256(content)
		cmd.Meta = &emergencyv1.CommandMeta{Incident: procedure.Archive, RequestId: "import-" + hex.EncodeToString(sum[:20])}
		if _, err := a.give(ctx, cmd); err != nil {
			if recorded > 0 {
				a.errs.line("%s recorded before it failed; give the command again for the rest", plural(recorded, "message was", "messages were"))
			}
			return recorded, err
		}
		recorded += len(batch)
	}
	return recorded, nil
}

// showFates shows what names an emergency patch or cannot be read, and why.
func (a *app) showFates(fates []fate) {
	words := map[string]string{fateImport: "import", fateThere: "already there", fateIgnored: "ignored", fateUnreadable: "unreadable"}
	var rows [][]any
	for _, x := range fates {
		if x.Outcome == fateIgnored && !x.named {
			continue
		}
		rows = append(rows, []any{x.Message, words[x.Outcome], x.Sent, x.Title, x.Why})
	}
	if len(rows) > 0 {
		a.out.table([]string{"message", "", "sent", "subject, as it will stand in the log", "note"}, rows)
	}
}

// imported counts what became of the messages.
func (a *app) imported(fates []fate, found, recorded int, yes bool) error {
	counts := map[string]int{}
	for _, x := range fates {
		counts[x.Outcome]++
	}
	if a.opt.json {
		return a.out.jsonValue(map[string]any{
			"imported": recorded, "found": found, "already_there": counts[fateThere], "ignored": counts[fateIgnored], "unreadable": counts[fateUnreadable], "messages": fates,
		})
	}
	rest := fmt.Sprintf("%d already there, %d ignored, %d unreadable", counts[fateThere], counts[fateIgnored], counts[fateUnreadable])
	switch {
	case yes:
		a.out.line("%s %s imported; %s", good("done:"), plural(recorded, "message", "messages"), rest)
	case found == 0:
		a.out.line("nothing to import; %s", rest)
	default:
		a.out.line("%s would be imported; %s", plural(found, "message", "messages"), rest)
		a.out.line("nothing was recorded. Look at the subjects: entries are never edited. Then give it again with --yes")
	}
	return nil
}
