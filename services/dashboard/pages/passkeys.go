// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/identity/passkey"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc/command"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// passkeyScript makes passkeys and signs with them.
const passkeyScript = "passkey.js"

// passkeysView is a person's passkeys, and where a new one is made.
type passkeysView struct {
	Person string
	Keys   []passkeyRow
	Create passkey.Creation
	Known  string
	// Added and Revoked are the id of a key that was added or revoked a moment ago.
	Added, Revoked string
}

type passkeyRow struct {
	ID, Host string
	// Revoke is what to type to revoke it.
	Revoke string
}

// revokedPasskey is a passkey that its person wants to revoke.
type revokedPasskey struct {
	ID, Reason string
	Type       string
	Sign       *statementView
}

// madePasskey is a passkey that counts for nothing yet: its person, or the Board, has to list it (procedure.md 4.6).
type madePasskey struct {
	ID, Host string
	// Type is what to type on the person's own machine.
	Type string
	// Sign is the command itself, where another passkey, or the demo's key, can sign it here.
	Sign *statementView
}

// passkeys lists a person's passkeys.
func (p *Pages) passkeys(v *viewer, r *http.Request) (*content, error) {
	keys := v.book.PasskeysOf(v.Person, v.now)
	d := passkeysView{Person: v.Person, Create: passkey.CreationFor(v.Person, signedInAs(r), p.cfg.RelyingParty, keys), Added: r.URL.Query().Get("added"), Revoked: r.URL.Query().Get("revoked")}
	d.Known = strings.Join(d.Create.Known, " ")
	for _, k := range keys {
		d.Keys = append(d.Keys, passkeyRow{k.GetKeyId(), k.GetPasskey().GetRelyingParty(), revokeLine(k.GetKeyId())})
	}
	return &content{Title: "passkeys.title", Template: "passkeys", Data: d, Still: true, Scripts: []string{passkeyScript}}, nil
}

// signedInAs keeps a challenge to one sign-in.
func signedInAs(r *http.Request) string {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	return c.Value
}

// origin is where these pages are reached.
func (p *Pages) origin(r *http.Request) string {
	if p.cfg.PublicURL != "" {
		return strings.TrimSuffix(p.cfg.PublicURL, "/")
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// passkeyMade shows what a browser has made, and how it is added.
func (p *Pages) passkeyMade(v *viewer, r *http.Request) (*content, error) {
	key, err := passkey.Made(r.PostFormValue(passkey.FieldMade), v.Person, signedInAs(r), p.cfg.RelyingParty, p.origin(r))
	if err != nil {
		return nil, notOfThisPage(err.Error())
	}
	token, err := passkey.Token(key)
	if err != nil {
		return nil, err
	}
	d := madePasskey{ID: key.GetKeyId(), Host: key.GetPasskey().GetRelyingParty(), Type: "epatch key add --passkey " + token}
	cmd := &emergencyv1.AddKeyRequest{Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, Key: key}
	if d.Sign, err = p.keyStatement(v, r, cmd, ""); err != nil {
		return nil, err
	}
	return &content{Title: "passkeys.made.title", Template: "passkey.made", Data: d, Still: true, Scripts: []string{passkeyScript}}, nil
}

// revoking is the kind of a statement that revokes a key; the others add one.
const revoking = "revoke"

// revokePasskey says what is signed to revoke one of the viewer's passkeys, with a reason.
func (p *Pages) revokePasskey(v *viewer, r *http.Request) (*content, error) {
	id, reason := r.PostFormValue("key"), strings.TrimSpace(r.PostFormValue("reason"))
	if !slices.ContainsFunc(v.book.PasskeysOf(v.Person, v.now), func(k *emergencyv1.Key) bool { return k.GetKeyId() == id }) {
		return nil, notOfThisPage("this is no passkey of yours that counts")
	}
	cmd := &emergencyv1.RevokeKeyRequest{Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, KeyId: id, Reason: reason}
	if wrong := procedure.WrongFields(cmd); len(wrong) > 0 {
		return nil, &procedure.Refusal{Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "4.6 RevokeKey", Message: wrong[0].Field + ": " + wrong[0].Must,
			Allow: []procedure.Allowance{{Description: "go back and say why"}}}
	}
	d := revokedPasskey{ID: id, Reason: reason, Type: revokeLine(id)}
	var err error
	if d.Sign, err = p.keyStatement(v, r, cmd, revoking); err != nil {
		return nil, err
	}
	return &content{Title: "passkeys.revoke.title", Template: "passkey.revoke", Data: d, Still: true, Scripts: []string{passkeyScript}}, nil
}

func revokeLine(id string) string { return "epatch key revoke " + id[:12] + " --reason TEXT" }

// keyStatement is what is signed to add or revoke a key in a page; nil where nothing here can sign.
func (p *Pages) keyStatement(v *viewer, r *http.Request, cmd procedure.Command, kind string) (*statementView, error) {
	command.Meta(cmd, "web-"+rand.Text()).Forwarded = true
	st, err := procedure.StatementFor(procedure.NewState(procedure.RuleBook), cmd, v.Person, emergencyv1.Role_ROLE_MEMBER, v.now)
	if err != nil {
		return nil, err
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	d := &statementView{SignPath: "/passkeys/sign", Variant: kind, Person: v.Person, Command: encode(encoded), Payload: encode(payload), Demo: p.demoSigns(r), Passkey: p.passkeyRequest(v, payload)}
	if !d.Demo && d.Passkey == nil {
		return nil, nil
	}
	return d, nil
}

// passkeySigned hands on the command that adds or revokes a key, and returns the page's address that says so.
func (p *Pages) passkeySigned(v *viewer, r *http.Request) (string, error) {
	add, revoke := &emergencyv1.AddKeyRequest{}, &emergencyv1.RevokeKeyRequest{}
	var cmd procedure.Command = add
	if r.PostFormValue("kind") == revoking {
		cmd = revoke
	}
	encoded, err := base64.RawURLEncoding.DecodeString(r.PostFormValue("command"))
	if err != nil || proto.Unmarshal(encoded, cmd) != nil || cmd.GetMeta().GetIncident() != procedure.RuleBook || cmd.GetMeta().GetApproval() != nil {
		return "", notOfThisPage("what came back is not the command of this page")
	}
	payload, err := base64.RawURLEncoding.DecodeString(r.PostFormValue("payload"))
	if err != nil {
		return "", notOfThisPage("what was to be signed could not be read")
	}
	if _, refusal := together(cmd, payload, v.Person); refusal != nil {
		return "", refusal
	}
	conn, err := p.peer(cmd)
	if err != nil {
		return "", err
	}
	if cmd.GetMeta().Approval, err = p.approval(v, r, payload); err != nil {
		return "", err
	}
	_, err = command.Give(v.ctx, conn, cmd, command.Retry{Patience: sendPatience, Now: time.Now})
	p.cfg.Log.InfoContext(v.ctx, "passkey handed on", "person", v.Person, "command", procedure.CommandName(cmd), "error", err)
	if cmd == revoke {
		return "/passkeys?revoked=" + url.QueryEscape(revoke.GetKeyId()), err
	}
	return "/passkeys?added=" + url.QueryEscape(add.GetKey().GetKeyId()), err
}

// signPasskey has a key added or revoked, as was signed, and leads back to the list.
func (p *Pages) signPasskey(w http.ResponseWriter, r *http.Request) {
	v := p.viewer(r)
	if v.Person == "" {
		http.Redirect(w, r, "/sign-in?next=/passkeys", http.StatusSeeOther)
		return
	}
	path, err := p.passkeySigned(v, r)
	if err != nil {
		p.fail(w, r, v, err)
		return
	}
	http.Redirect(w, r, path, http.StatusSeeOther)
}

// passkeyRequest asks for a signature by one of the viewer's passkeys of these pages; nil if there is none.
func (p *Pages) passkeyRequest(v *viewer, payload []byte) *passkeyRequest {
	q, ok := passkey.RequestFor(procedure.StatementPayloadType, payload, v.book.PasskeysOf(v.Person, v.now), p.cfg.RelyingParty)
	if !ok {
		return nil
	}
	return &passkeyRequest{q.Challenge, q.RelyingParty, strings.Join(q.Credentials, " ")}
}

// passkeyRequest is what the script asks for.
type passkeyRequest struct{ Challenge, RelyingParty, Credentials string }
