// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rulebook"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// past is a history as far as it was read and verified here.
type past struct {
	chain *history.Chain
	state *procedure.State
	book  *rulebook.Book // of the rule book's history only
	// records are what was read, for the copy.
	records []*emergencyv1.SignedRecord
}

// State returns the incident as its verified history says it is, no older than this client's own last command. A
// NOT_FOUND refusal if there is no such incident. The caller may keep and change it.
func (c *Client) State(ctx context.Context, incident string) (*procedure.State, error) {
	p, err := c.read(ctx, incident)
	if r, ok := rpc.RefusalOf(err); ok && r.Reason == procedure.ReasonIncident && incident == procedure.Archive {
		return procedure.NewState(incident), nil // nothing was imported yet
	}
	if err != nil {
		return nil, err
	}
	if p.state.Status == procedure.Absent && procedure.IsIncident(incident) {
		return nil, &procedure.Refusal{Code: procedure.NotFound, Reason: procedure.ReasonIncident, Rule: "G4", Message: fmt.Sprintf("there is no incident %q", incident)}
	}
	return p.state.Clone(), nil
}

// Book returns the rule book as its verified history says it is.
func (c *Client) Book(ctx context.Context) (*rulebook.Book, error) {
	p, err := c.read(ctx, procedure.RuleBook)
	if err != nil {
		return nil, err
	}
	return p.book, nil
}

// read brings what is known of a history up to date.
func (c *Client) read(ctx context.Context, incident string) (past, error) {
	if c.keys == nil {
		return past{}, ErrNoKeyring
	}
	ctx, cancel := context.WithTimeout(ctx, rpc.DefaultTimeout) // a stream has no deadline of its own
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.histories[incident]
	if p == nil {
		p = c.nothing(incident)
	}
	next := p.fork()
	before := next.chain.Head().Position
	if c.cfg.Offline {
		if before > 0 {
			return next, nil
		}
		if err := c.recall(&next); err != nil {
			return past{}, err
		}
	} else if err := c.follow(ctx, &next, c.written[incident]); err != nil {
		return past{}, fmt.Errorf("read history of %s: %w", incident, err)
	}
	c.keep(&next, before)
	c.histories[incident] = &next
	return next, nil
}

// nothing is the past before the first record.
func (c *Client) nothing(incident string) *past {
	return &past{chain: history.NewChain(incident, c.keys), state: procedure.NewState(incident), book: &rulebook.Book{}}
}

// fork is the same past, to be continued on its own.
func (p *past) fork() past {
	chain := *p.chain
	return past{chain: &chain, state: p.state.Clone(), book: p.book, records: slices.Clip(p.records)}
}

// follow reads to the end, and on until a position that is known to have been written if the server is not there yet.
func (c *Client) follow(ctx context.Context, p *past, until uint64) error {
	if err := c.take(ctx, p, false, until); err != nil || p.chain.Head().Position >= until {
		return err
	}
	return c.take(ctx, p, true, until)
}

// take folds in what the server sends: all that is there, or, if it waits, up to a position.
func (c *Client) take(ctx context.Context, p *past, wait bool, until uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Query().ReadHistory(ctx, &dashboardv1.ReadHistoryRequest{Incident: p.chain.Incident(), From: p.chain.Head().Position + 1, Follow: wait})
	if err != nil {
		return err
	}
	for !wait || p.chain.Head().Position < until {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := p.accept(m.GetRecord()); err != nil {
			return err
		}
	}
	return nil
}

// accept verifies a record and folds it in. A foreign one is skipped, as by every reader: then there is no entry.
func (p *past) accept(signed *emergencyv1.SignedRecord) (*history.Entry, error) {
	raw, err := proto.Marshal(signed) // the envelope; the record in it stays the stored bytes
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	entry, err := p.chain.Accept(raw)
	var foreign *history.ForeignError
	if errors.As(err, &foreign) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := p.state.Apply(entry.Record, entry.Hash); err != nil {
		return nil, err
	}
	p.records = append(p.records, signed)
	if entry.Record.GetIncident() == procedure.RuleBook {
		p.book, err = WithRecord(p.book, entry.Record)
	}
	return entry, err
}

// WithRecord is the rule book after one of its records.
func WithRecord(book *rulebook.Book, rec *emergencyv1.Record) (*rulebook.Book, error) {
	for i, e := range rec.GetEvents() {
		payload, err := procedure.DecodeEvent(e)
		if err != nil {
			return nil, err
		}
		if book, err = book.With(rec.GetFirstPosition()+uint64(i), rec.GetRecordedAt().AsTime(), payload); err != nil {
			return nil, err
		}
	}
	return book, nil
}

// Records reads a history as it is stored, unverified, and calls fn for each record.
func (c *Client) Records(ctx context.Context, incident string, fn func(*emergencyv1.SignedRecord) error) error {
	stream, err := c.Query().ReadHistory(ctx, &dashboardv1.ReadHistoryRequest{Incident: incident, From: 1})
	for err == nil {
		var m *dashboardv1.ReadHistoryResponse
		if m, err = stream.Recv(); err == nil {
			err = fn(m.GetRecord())
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read history of %s: %w", incident, err)
}
