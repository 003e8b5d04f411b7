// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// follower reads histories and believes what can be verified.
type follower struct {
	query dashboardv1.QueryServiceClient
	keys  *history.Keyring
	heads *heads
	log   *slog.Logger
}

// verified is an incident as its verified history has it.
type verified struct {
	state *procedure.State
	book  *rulebook.Book
	// skipped are the records that were shown and are no part of the history; for the words of a refusal.
	skipped []string
	// more is how many others were.
	more int
}

// shown is a history as a service showed it, as far as chain and owners' signatures hold.
type shown struct {
	entries []history.Entry
	skipped []string // the first of them
	more    int
	end     seen
}

// errShort: the history ends before a place that is known to exist. A service that is behind shows it, too.
var errShort = errors.New("the history is too short")

// read reads an incident and the rule book and verifies both: chain, owners' signatures, what was seen before, and of every
// record that its actor may have given the command and has signed what it says.
func (f *follower) read(ctx context.Context, incident string) (*verified, error) {
	inc, err := f.show(ctx, incident)
	if err != nil {
		return nil, err
	}
	law, err := f.show(ctx, procedure.RuleBook) // after the incident, so that it is not older than what it rules
	if err != nil {
		return nil, err
	}
	book, err := foldBook(law.entries)
	if err != nil {
		return nil, err
	}
	if _, err := verify(procedure.RuleBook, law.entries, book); err != nil {
		return nil, err
	}
	state, err := verify(incident, inc.entries, book)
	if err != nil {
		return nil, err
	}
	if err := f.heads.keep(map[string]seen{incident: inc.end, procedure.RuleBook: law.end}); err != nil {
		return nil, err
	}
	return &verified{state: state, book: book, skipped: append(law.skipped, inc.skipped...), more: law.more + inc.more}, nil
}

// readTime bounds the reading of one history.
const readTime = time.Minute

// show reads one history. A record that is no part of it is skipped, counted and alarmed, as every reader does, so that it
// can neither forge nor block an incident.
func (f *follower) show(ctx context.Context, incident string) (*shown, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	stream, err := f.query.ReadHistory(ctx, &dashboardv1.ReadHistoryRequest{Incident: incident, From: 1})
	if err != nil {
		return nil, away("history of %s: %w", incident, err)
	}
	out, chain := &shown{}, history.NewChain(incident, f.keys)
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, away("history of %s: %w", incident, err)
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg.GetRecord())
		if err != nil {
			return nil, away("history of %s: %w", incident, err)
		}
		if err := f.accept(ctx, out, chain, raw); err != nil {
			return nil, err
		}
	}
	out.end = seen{chain.Head().Position, chain.Head().Hash}
	short, err := f.heads.check(incident, out.entries)
	if short {
		err = errors.Join(errShort, err)
	}
	return out, err
}

// skippedKept is of how many skipped records of a history a refusal tells: a service may show any number.
const skippedKept = 20

func (f *follower) accept(ctx context.Context, out *shown, chain *history.Chain, raw []byte) error {
	entry, err := chain.Accept(raw)
	var foreign *history.ForeignError
	switch {
	case errors.As(err, &foreign):
		f.log.ErrorContext(ctx, "foreign record skipped", "incident", chain.Incident(), "after", chain.Head().Position, "reason", string(foreign.Reason), "detail", foreign.Detail)
		if len(out.skipped) == skippedKept {
			out.more++
			return nil
		}
		out.skipped = append(out.skipped, fmt.Sprintf("after position %d of %s: %v", chain.Head().Position, chain.Incident(), foreign))
		return nil
	case err != nil: // a newer version wrote it: this agent must be updated before it may act
		return refuse(codeHistory, "%v", err)
	}
	out.entries = append(out.entries, *entry)
	return nil
}

func foldBook(entries []history.Entry) (*rulebook.Book, error) {
	book := &rulebook.Book{}
	for i := range entries {
		var err error
		if book, err = dispatch.FoldBook(book, &entries[i]); err != nil {
			return nil, refuse(codeHistory, "%v", err)
		}
	}
	return book, nil
}

// verify checks each record against the state before it and folds it in.
func verify(incident string, entries []history.Entry, book *rulebook.Book) (*procedure.State, error) {
	state := procedure.NewState(incident)
	for _, e := range entries {
		rec := e.Record
		if rec.GetRulebookPosition() > book.Position {
			return nil, errors.Join(errShort, refuse(codeHistoryShort, "position %d of %s was decided with position %d of the rule book, which is shown only up to %d",
				rec.GetFirstPosition(), incident, rec.GetRulebookPosition(), book.Position))
		}
		if err := procedure.VerifyRecord(state, rec, book); err != nil {
			return nil, refuse(codeHistory, "position %d of %s: %v", rec.GetFirstPosition(), incident, err)
		}
		if err := state.Apply(rec, e.Hash); err != nil {
			return nil, refuse(codeHistory, "%v", err)
		}
	}
	return state, nil
}

// hint names what was skipped: often it is the very thing that a refusal misses.
func (v *verified) hint() string {
	if len(v.skipped) == 0 {
		return ""
	}
	text := "; shown, but no part of the history: " + strings.Join(v.skipped, "; ")
	if v.more > 0 {
		text += fmt.Sprintf("; and %d more", v.more)
	}
	return text
}
