// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity/passkey"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The rule book: policy, directory, keys, rota and contacts (procedure.md 4.6).

func (a *app) bookCommands() []*cobra.Command {
	return []*cobra.Command{
		group("rulebook", "Policy, persons, roles, keys, who is on duty", a.bookShowCmd()),
		group("rota", "Who is called for a team", a.rotaShowCmd(), a.rotaPlanCmd(), a.rotaOverrideCmd(), a.rotaSetCmd()),
		group("contacts", "How a person is reached", a.contactsSetCmd()),
		group("key", "Keys of the directory", a.keyListCmd(), a.keyAddCmd(), a.keyRevokeCmd()),
		group("role", "Roles of the directory", a.roleGrantCmd(), a.roleRevokeCmd()),
		group("policy", "The policy document: two persons sign it", a.policyDraftCmd(), a.policySignCmd(), a.policyPublishCmd()),
	}
}

func bookMeta() *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: procedure.RuleBook}
}

func (a *app) bookShowCmd() *cobra.Command {
	var at string
	cmd := leaf("show", "Show the rule book, now or as it was", `
Policy, systems, persons with roles and keys, and who is on duty.`, `
  epatch rulebook show
  epatch rulebook show --at 2026-11-24T03:00:00Z --json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			req := &dashboardv1.ReadRuleBookRequest{}
			if at != "" {
				t, err := day("at", at, time.Time{})
				if err != nil {
					return err
				}
				req.At = timestamppb.New(t)
			}
			return a.showBook(cmd.Context(), req)
		})
	cmd.Flags().StringVar(&at, "at", "", "as it was then: a day, or a time in RFC 3339")
	return cmd
}

func (a *app) showBook(ctx context.Context, req *dashboardv1.ReadRuleBookRequest) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	book, err := c.Query().ReadRuleBook(ctx, req)
	if err != nil {
		return err
	}
	if a.opt.json {
		return a.out.json(book)
	}
	p := book.GetPolicy()
	a.out.line("%s, position %d", bold("rule book"), book.GetPosition())
	a.out.line("policy %d, Board decision %s, in force since %s", p.GetNumber(), p.GetBoardDecision(), a.out.clock(p.GetEffectiveAt()))
	a.out.line("  digest %s", book.GetPolicyDigest())
	for _, s := range p.GetSystems() {
		a.out.line("  system %s: host %s, test server %s, drill host %s, branch %s", s.GetSystem(), s.GetHost(), s.GetTestEnvironment(), orNobody(s.GetDrillHost()), s.GetReleaseRef())
	}
	a.out.line("")
	var rows [][]any
	for _, d := range book.GetPersons() {
		rows = append(rows, []any{d.GetPerson(), rolesWords(d.GetRoles()), keyWords(d.GetKeyIds())})
	}
	a.out.table([]string{"PERSON", "ROLES", "KEYS"}, rows)
	if req.GetAt() != nil {
		return nil
	}
	return a.onDuty(ctx)
}

func rolesWords(roles []emergencyv1.Role) string {
	var list []string
	for _, r := range roles {
		if r != emergencyv1.Role_ROLE_MEMBER {
			list = append(list, procedure.RoleWord(r))
		}
	}
	return strings.Join(list, ", ")
}

func keyWords(ids []string) string {
	var list []string
	for _, id := range ids {
		list = append(list, short(id))
	}
	return strings.Join(list, ", ")
}

func (a *app) onDuty(ctx context.Context) error {
	teams, err := a.conn.Query().ReadReadiness(ctx, &dashboardv1.ReadReadinessRequest{})
	if err != nil {
		return err
	}
	a.part("on duty, in the order of calling")
	for _, t := range teams.GetTeams() {
		if len(t.GetOnDuty()) == 0 {
			a.out.line("  %-12s %s", procedure.TeamWord(t.GetTeam()), bad("nobody"))
		}
		for n, p := range t.GetOnDuty() {
			name := ""
			if n == 0 {
				name = procedure.TeamWord(t.GetTeam())
			}
			reached := "reached " + a.out.clock(p.GetLastReachedAt())
			if p.GetLastReachedAt() == nil {
				reached = "never reached"
			}
			mark := styled("")
			if p.GetStale() {
				mark = alert(", call this person to try")
			}
			a.out.line("  %-12s %-10s by %s, %s%s", name, p.GetPerson(), strings.Join(p.GetChannels(), ", "), reached, mark)
		}
	}
	return nil
}

func (a *app) contactsSetCmd() *cobra.Command {
	var person string
	cmd := leaf("set CHANNEL=ADDRESS...", "Replace your addresses, in order of preference", `
The addresses are kept outside the history; calls use at least the first two channels. Team leads set another's with --person.`, `
  epatch contacts set sms=+436601234567 mail=carla@example.org irc=carla`,
		cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if person == "" {
				if person, _, err = c.Person(cmd.Context()); err != nil {
					return err
				}
			}
			req := &emergencyv1.SetContactsRequest{Meta: bookMeta(), Person: person}
			for _, arg := range args {
				channel, address, ok := strings.Cut(arg, "=")
				if !ok {
					return usage("%q: write CHANNEL=ADDRESS, such as sms=+436601234567", arg)
				}
				req.Contacts = append(req.Contacts, &emergencyv1.Contact{Channel: channel, Address: address})
			}
			_, err = a.act(cmd.Context(), req, "%s of %s", plural(len(args), "address", "addresses"), person)
			return err
		})
	cmd.Flags().StringVar(&person, "person", "", "whose (default: yours)")
	return cmd
}

func (a *app) keyListCmd() *cobra.Command {
	var person string
	cmd := leaf("list", "Keys and passkeys of a person", `
What is listed is read from the verified rule book. A passkey signs in the pages of its host, and opens no connection.`, `
  epatch key list
  epatch key list --person dora`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			book, err := c.Book(cmd.Context())
			if err != nil {
				return err
			}
			if person == "" {
				if person, _, err = c.Person(cmd.Context()); err != nil {
					return err
				}
			}
			for _, k := range book.Keys() {
				if k.Key.GetPerson() == person {
					if err := a.keyLine(k); err != nil {
						return err
					}
				}
			}
			return nil
		})
	cmd.Flags().StringVar(&person, "person", "", "whose (default: yours)")
	return cmd
}

func (a *app) keyLine(k rulebook.KeyEntry) error {
	if a.opt.json {
		return a.out.json(k.Key)
	}
	what, until := "key", ""
	if p := k.Key.GetPasskey(); p != nil {
		what = "passkey for " + p.GetRelyingParty()
	}
	at := func(t time.Time) string { return t.In(a.out.local).Format("2006-01-02 15:04:05 MST") }
	if !k.RevokedAt.IsZero() {
		until = ", revoked " + at(k.RevokedAt)
	}
	a.out.line("%s  %s, added %s%s", k.Key.GetKeyId(), what, at(k.AddedAt), until)
	return nil
}

func (a *app) keyAddCmd() *cobra.Command {
	var person, token, service, agent, testAgent string
	cmd := leaf("add [FILE]", "Add a key to the directory: your own, or as the Board", `
FILE is a certificate or public key in PEM. You add your next key with one that is listed already. A passkey is added with
--passkey, as the page /passkeys shows it after the browser has made it: compare the key id with the one in the page, since whoever
holds the key that you add signs as you.`, `
  epatch key add next/cert.pem
  epatch key add dora.pem --person dora
  epatch key add --passkey TOKEN
  epatch key add review-2.pem --service review
  epatch key add agent.pem --agent critical-1`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			if len(slices.DeleteFunc([]string{person, token, service, agent, testAgent}, func(s string) bool { return s == "" })) > 1 {
				return usage("whose key is it? name a person, a passkey, a service or an agent")
			}
			if (token == "") == (len(args) == 0) {
				return usage("which key? name a file, or a passkey with --passkey")
			}
			key, err := keyToAdd(args, token, person)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			switch {
			case service != "":
				key.System, key.SystemName = emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, service
			case agent != "":
				key.System, key.SystemName = emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT, agent
			case testAgent != "":
				key.System, key.SystemName = emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT, testAgent
			case key.Person == "":
				if key.Person, _, err = c.Person(cmd.Context()); err != nil {
					return err
				}
			}
			_, err = a.act(cmd.Context(), &emergencyv1.AddKeyRequest{Meta: bookMeta(), Key: key}, "key %s added for %s", key.GetKeyId(), cmp.Or(key.GetPerson(), key.GetSystemName()))
			return err
		})
	cmd.Flags().StringVar(&person, "person", "", "whose (default: yours)")
	cmd.Flags().StringVar(&token, "passkey", "", "a passkey, as the page shows it")
	cmd.Flags().StringVar(&service, "service", "", "the service whose it is, by its name (the Board)")
	cmd.Flags().StringVar(&agent, "agent", "", "the host whose agent's it is (the Board)")
	cmd.Flags().StringVar(&testAgent, "test-agent", "", "the test server whose agent's it is (the Board)")
	return cmd
}

// keyToAdd is the key of a file, or a passkey, of the person named if one is.
func keyToAdd(files []string, token, person string) (*emergencyv1.Key, error) {
	if token == "" {
		public, err := publicKey(files[0])
		return &emergencyv1.Key{KeyId: procedure.KeyID(public), PublicKey: public, Person: person}, err
	}
	key, err := passkey.ParseToken(token)
	if err != nil {
		return nil, usage("%v", err)
	}
	if person != "" && person != key.GetPerson() {
		return nil, usage("the passkey is %s's and not %s's", key.GetPerson(), person)
	}
	return key, nil
}

// publicKey reads a certificate's or key's SubjectPublicKeyInfo.
func publicKey(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("%v", err)
	}
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, usage("%s holds no PEM", file)
	case block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, usage("%s: %v", file, err)
		}
		return cert.RawSubjectPublicKeyInfo, nil
	case block.Type == "PUBLIC KEY":
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return nil, usage("%s: %v", file, err)
		}
		return block.Bytes, nil
	}
	return nil, usage("%s holds %q; a certificate or public key is needed, never a private one", file, block.Type)
}

func (a *app) keyRevokeCmd() *cobra.Command {
	var reason string
	cmd := leaf("revoke KEY-ID --reason TEXT", "Revoke a key from now on: your own, or as the Board", `
What was done with it before stays valid. The first digits of the id are enough where they name one key.`, `
  epatch key revoke 3fa1c2d4e5f6 --reason "laptop stolen"`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			book, err := c.Book(cmd.Context())
			if err != nil {
				return err
			}
			var found []string
			for _, k := range book.Keys() {
				if strings.HasPrefix(k.Key.GetKeyId(), args[0]) && len(args[0]) >= 6 {
					found = append(found, k.Key.GetKeyId())
				}
			}
			if len(found) != 1 {
				return usage("%q names %s of the rule book", args[0], plural(len(found), "key", "keys")).hint("whose keys there are: epatch rulebook show --json")
			}
			_, err = a.act(cmd.Context(), &emergencyv1.RevokeKeyRequest{Meta: bookMeta(), KeyId: found[0], Reason: reason}, "key %s revoked", found[0])
			return err
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why, at least 5 characters; public")
	return cmd
}

func (a *app) roleGrantCmd() *cobra.Command {
	var decision, from string
	cmd := leaf("grant PERSON ROLE --decision ID", "Grant a role, by a decision of the Board", `
A person who is not in the directory is listed with the first role.`, `
  epatch role grant dora software-developer --decision m20261101.2`,
		cobra.ExactArgs(2), func(cmd *cobra.Command, args []string) error {
			role, start, err := a.roleAndTime(args[1], from)
			if err != nil {
				return err
			}
			grant := &emergencyv1.RoleGrant{Person: args[0], Role: role, EffectiveAt: start, BoardDecision: decision}
			_, err = a.act(cmd.Context(), &emergencyv1.GrantRoleRequest{Meta: bookMeta(), Grant: grant}, "%s is %s from %s", args[0], procedure.RoleWord(role), a.out.clock(start))
			return err
		})
	a.roleFlags(cmd, &decision, &from)
	return cmd
}

func (a *app) roleRevokeCmd() *cobra.Command {
	var decision, from string
	cmd := leaf("revoke PERSON ROLE --decision ID", "Take a role away, by a decision of the Board", `
What was done in it before stays valid.`, `
  epatch role revoke dora software-developer --decision m20270301.1 --from 2027-04-01`,
		cobra.ExactArgs(2), func(cmd *cobra.Command, args []string) error {
			role, start, err := a.roleAndTime(args[1], from)
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.RevokeRoleRequest{Meta: bookMeta(), Person: args[0], Role: role, EffectiveAt: start, BoardDecision: decision}, "%s is not %s any more from %s", args[0], procedure.RoleWord(role), a.out.clock(start))
			return err
		})
	a.roleFlags(cmd, &decision, &from)
	return cmd
}

func (a *app) roleFlags(cmd *cobra.Command, decision, from *string) {
	cmd.Flags().StringVar(decision, "decision", "", "id of the Board's decision")
	cmd.Flags().StringVar(from, "from", "", "from when (default: now; never in the past)")
	cmd.ValidArgsFunction = func(c *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return a.completePersons(c, args, to)
		case 1:
			return words(emergencyv1.Role(0)), noFiles
		}
		return nil, noFiles
	}
}

func (a *app) roleAndTime(role, from string) (emergencyv1.Role, *timestamppb.Timestamp, error) {
	r, err := parse[emergencyv1.Role]("role", role)
	if err != nil {
		return r, nil, err
	}
	start, err := day("from", from, a.proc.Now())
	return r, timestamppb.New(start), err
}
