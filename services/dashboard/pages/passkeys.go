// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
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
	// Added is the id of a key that was added a moment ago.
	Added string
}

type passkeyRow struct {
	ID, Host string
	// Revoke is what to type to revoke it.
	Revoke string
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
	d := passkeysView{Person: v.Person, Create: passkey.CreationFor(v.Person, signedInAs(r), p.cfg.RelyingParty, keys), Added: r.URL.Query().Get("added")}
	d.Known = strings.Join(d.Create.Known, " ")
	for _, k := range keys {
		d.Keys = append(d.Keys, passkeyRow{k.GetKeyId(), k.GetPasskey().GetRelyingParty(), "epatch key revoke " + k.GetKeyId()[:12] + " --reason TEXT"})
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
	if d.Sign, err = p.addKeyStatement(v, r, cmd); err != nil {
		return nil, err
	}
	return &content{Title: "passkeys.made.title", Template: "passkey.made", Data: d, Still: true, Scripts: []string{passkeyScript}}, nil
}

// addKeyStatement is what is signed to add a key in a page; nil where nothing here can sign.
func (p *Pages) addKeyStatement(v *viewer, r *http.Request, cmd *emergencyv1.AddKeyRequest) (*statementView, error) {
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
	d := &statementView{SignPath: "/passkeys/sign", Person: v.Person, Command: encode(encoded), Payload: encode(payload), Demo: p.demoSigns(r), Passkey: p.passkeyRequest(v, payload)}
	if !d.Demo && d.Passkey == nil {
		return nil, nil
	}
	return d, nil
}

// passkeySigned hands on the command that adds a key.
func (p *Pages) passkeySigned(v *viewer, r *http.Request) (*emergencyv1.AddKeyRequest, error) {
	encoded, err := base64.RawURLEncoding.DecodeString(r.PostFormValue("command"))
	cmd := &emergencyv1.AddKeyRequest{}
	if err != nil || proto.Unmarshal(encoded, cmd) != nil || cmd.GetMeta().GetIncident() != procedure.RuleBook || cmd.GetMeta().GetApproval() != nil {
		return nil, notOfThisPage("what came back is not the command of this page")
	}
	payload, err := base64.RawURLEncoding.DecodeString(r.PostFormValue("payload"))
	if err != nil {
		return nil, notOfThisPage("what was to be signed could not be read")
	}
	if _, refusal := together(cmd, payload, v.Person); refusal != nil {
		return nil, refusal
	}
	conn, err := p.peer(cmd)
	if err != nil {
		return nil, err
	}
	if cmd.GetMeta().Approval, err = p.approval(v, r, payload); err != nil {
		return nil, err
	}
	_, err = command.Give(v.ctx, conn, cmd, command.Retry{Patience: sendPatience, Now: time.Now})
	p.cfg.Log.InfoContext(v.ctx, "passkey handed on", "person", v.Person, "key", cmd.GetKey().GetKeyId(), "error", err)
	return cmd, err
}

// addPasskey has a key that was signed for added, and leads back to the list.
func (p *Pages) addPasskey(w http.ResponseWriter, r *http.Request) {
	v := p.viewer(r)
	if v.Person == "" {
		http.Redirect(w, r, "/sign-in?next=/passkeys", http.StatusSeeOther)
		return
	}
	cmd, err := p.passkeySigned(v, r)
	if err != nil {
		p.fail(w, r, v, err)
		return
	}
	http.Redirect(w, r, "/passkeys?added="+url.QueryEscape(cmd.GetKey().GetKeyId()), http.StatusSeeOther)
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
