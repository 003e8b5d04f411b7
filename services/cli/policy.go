// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A policy version is written as JSON, encoded once by the first signer, and carried as those bytes from then on: what both
// persons sign is their digest.

func (a *app) policyDraftCmd() *cobra.Command {
	return leaf("draft", "Write the next version of the policy as JSON, to be edited", `
Numbered and chained to the version that is in force. Times are in seconds. Edit it, then have it signed by one person and
published by another.`, `
  epatch policy draft > next.json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			book, err := c.Book(cmd.Context())
			if err != nil {
				return err
			}
			last := book.LatestPolicy()
			if last == nil {
				return fail(exitRefused, "the rule book has no policy yet")
			}
			doc := last.Document()
			doc.Number, doc.PreviousDigest, doc.BoardDecision, doc.EffectiveAt = last.Number+1, last.Digest, "", timestamppb.New(a.proc.Now().UTC().Truncate(1e9))
			return a.pretty(doc)
		})
}

// pretty writes a message for editing.
func (a *app) pretty(m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	enc := json.NewEncoder(a.proc.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(json.RawMessage(b))
}

// signedPolicy is the file that goes from the first signer to the second. The command in it is complete but for the second
// person's own signature.
func (a *app) policySignCmd() *cobra.Command {
	var out string
	cmd := leaf("sign FILE --out SIGNED", "Sign a policy version as the second person", `
FILE is the edited draft. Writes a file that holds its bytes and your approval; another person of the Board publishes it.
Board members and the critical team lead can sign.`, `
  epatch policy sign next.json --out next.signed`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usage("where to? name the file with --out")
			}
			doc, p, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			if err := a.changes(cmd.Context(), p); err != nil {
				return err
			}
			return a.signPolicy(cmd.Context(), doc, out)
		})
	cmd.Flags().StringVar(&out, "out", "", "file to write; never overwritten")
	return cmd
}

func readPolicy(file string) ([]byte, *rulebook.Policy, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, usage("%v", err)
	}
	doc := &emergencyv1.Policy{}
	if err := protojson.Unmarshal(data, doc); err != nil {
		return nil, nil, usage("%s: %v", file, err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc)
	if err != nil {
		return nil, nil, fmt.Errorf("encode policy: %w", err)
	}
	p, err := rulebook.ParsePolicy(b)
	if err != nil {
		return nil, nil, usage("%s: %v", file, err)
	}
	return b, p, nil
}

// changes shows what a version says otherwise than the latest one, so that nobody signs numbers unseen.
func (a *app) changes(ctx context.Context, p *rulebook.Policy) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	book, err := c.Book(ctx)
	if err != nil || a.opt.json {
		return err
	}
	a.out.line("policy %d, Board decision %s, in force from %s", p.Number, p.BoardDecision, a.out.at(p.EffectiveAt))
	last := book.LatestPolicy()
	if last == nil {
		return nil
	}
	before := map[string]int64{}
	for _, v := range last.Values() {
		before[v.GetKey()] = v.GetValue()
	}
	n := 0
	for _, v := range p.Values() {
		if was, ok := before[v.GetKey()]; !ok || was != v.GetValue() {
			n++
			a.out.line("  %s: %d, was %d", v.GetKey(), v.GetValue(), was)
		}
	}
	if !slices.EqualFunc(last.Systems(), p.Systems(), func(x, y *emergencyv1.CriticalSystem) bool { return proto.Equal(x, y) }) {
		n++
		for _, s := range p.Systems() {
			a.out.line("  system %s: host %s, test server %s, drill host %s, branch %s", s.GetSystem(), s.GetHost(), s.GetTestEnvironment(), s.GetDrillHost(), s.GetReleaseRef())
		}
	}
	if n == 0 {
		a.out.line("  numbers and systems as in policy %d", last.Number)
	}
	return nil
}

// publication is the command for a policy. Its request id comes from the bytes, since two persons sign it on two machines.
func publication(doc []byte) *emergencyv1.PublishPolicyRequest {
	sum := sha256.Sum256(doc)
	meta := bookMeta()
	meta.RequestId = "policy-" + hex.EncodeToString(sum[:16])
	return &emergencyv1.PublishPolicyRequest{Meta: meta, Policy: doc}
}

func (a *app) signPolicy(ctx context.Context, doc []byte, out string) (err error) {
	c, err := a.client()
	if err != nil {
		return err
	}
	req := publication(doc)
	st, err := c.SignAs(ctx, req, emergencyv1.Role_ROLE_BOARD, emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD)
	if err != nil {
		return err
	}
	if !a.opt.json {
		a.signed(st, c.KeyID())
	}
	req.Second, req.Meta.Approval = req.GetMeta().GetApproval(), nil
	b, err := protojson.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return usage("%v", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if !a.opt.json {
		a.out.line("signed; another person of the Board publishes it: epatch policy publish %s", out)
	}
	return nil
}

func (a *app) policyPublishCmd() *cobra.Command {
	return leaf("publish SIGNED", "Publish a policy version that another person has signed", `
SIGNED comes from epatch policy sign. Shows number, Board decision and digest, signs the same bytes as the first person, and
publishes them.`, `
  epatch policy publish next.signed`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return usage("%v", err)
			}
			carried := &emergencyv1.PublishPolicyRequest{}
			if err := protojson.Unmarshal(data, carried); err != nil {
				return usage("%s is not from epatch policy sign: %v", args[0], err)
			}
			p, err := rulebook.ParsePolicy(carried.GetPolicy())
			if err != nil {
				return usage("%s: %v", args[0], err)
			}
			req := publication(carried.GetPolicy())
			req.Second = carried.GetSecond()
			if err := a.changes(cmd.Context(), p); err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), req, "policy %d published, digest %s", p.Number, p.Digest)
			return err
		})
}
