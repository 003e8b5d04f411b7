// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/passkey"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rpc/command"
	"cacert.org/emergency/pkg/service"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

type (
	bindingOf = emergencyv1.Binding
	peer      = grpc.ClientConnInterface
)

func nameOf(s string) protoreflect.Name { return protoreflect.Name(s) }

// statementView says what a person signs.
type statementView struct {
	Incident, What string
	Path, SignPath string
	Subject        string
	Variant        string
	Person, Role   string
	SignedAt       *when
	Said           []fact // what the command says
	Bound          []fact // the digests that hold it to the bytes it is about
	Command        string
	Payload        string
	// Passkey is set where one of the person's passkeys can sign.
	Passkey *passkeyRequest
	// Demo is set where the person's demo key can sign on this machine.
	Demo bool
	// Notice is the key of a text that says why the statement is shown again.
	Notice string
	// Away is set when the service did not answer and the same command can be sent again.
	Away *refusalView
}

// fact is one thing that is signed.
type fact struct {
	Name, Value string
	// Full is the whole digest of which Value is the beginning.
	Full string
	Odd  bool // Value was written by somebody
}

// statement says what a command is, as it will be signed: with a request id of its own, and dated now.
func (p *Pages) statement(v *viewer, r *http.Request, a *acting, cmd procedure.Command, notice string) (*content, error) {
	command.Meta(cmd, "web-"+rand.Text()).Forwarded = true
	st, err := procedure.StatementFor(a.st, cmd, v.Person, command.Role(v.Person, a.info.Roles, v.book, v.now), v.now)
	if err != nil {
		return nil, err
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	return p.statementContent(v, r, a, cmd, st, payload, notice)
}

func (p *Pages) statementContent(v *viewer, r *http.Request, a *acting, cmd procedure.Command, st *emergencyv1.Statement, payload []byte, notice string) (*content, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	d := statementView{
		Incident: a.st.Incident, What: v.command(a.info.Name, a.subject), Path: a.path(), SignPath: a.signPath(), Subject: a.subject, Variant: a.variant, Person: v.Person, Role: v.enum(st.GetRole()),
		SignedAt: v.moment(st.GetSignedAt()), Command: encode(encoded), Payload: encode(payload), Demo: p.demoSigns(r), Passkey: p.passkeyRequest(v, payload), Notice: notice,
	}
	d.Said = v.said(a.info.Name, cmd.ProtoReflect(), "", "")
	for _, x := range []struct{ name, value string }{
		{"revision", st.GetBinding().GetRevision()}, {"binding", st.GetBinding().GetDigest()}, {"patch", st.GetPatchSha256()}, {"base", st.GetBaseTree()}, {"result", st.GetResultTree()},
		{"policy", st.GetPolicyDigest()}, {"request", st.GetRequestId()},
	} {
		if x.value != "" {
			d.Bound = append(d.Bound, newFact(v.say("signed."+x.name), x.value))
		}
	}
	for _, c := range st.GetClaims() {
		if c.GetName() == "request_digest" {
			d.Bound = append(d.Bound, newFact(v.say("signed.whole"), c.GetValue()))
		}
	}
	c := p.actFrame(a, "statement.title", "statement", d, v.command(a.info.Name, a.subject))
	c.Scripts = []string{passkeyScript}
	return c, nil
}

// newFact folds what is a digest.
func newFact(name, value string) fact {
	if s := short(value); len(value) > 40 && s != value {
		return fact{Name: name, Value: s, Full: value}
	}
	return fact{Name: name, Value: value}
}

// said is what a command says, field by field, in words.
func (v *viewer) said(name string, m protoreflect.Message, prefix, row string) []fact {
	var list []fact
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		fd := all.Get(i)
		path := prefix + string(fd.Name())
		if !m.Has(fd) || path == "meta" || mannerOf(name, path) == never {
			continue
		}
		label := row + v.fieldWord("label", name, path)
		switch {
		case fd.IsList() && fd.Message() != nil:
			for j := range m.Get(fd).List().Len() {
				list = append(list, v.said(name, m.Get(fd).List().Get(j).Message(), path+".", fmt.Sprintf("%s %d: ", label, j+1))...)
			}
		case fd.IsList():
			var texts []string
			for j := range m.Get(fd).List().Len() {
				texts = append(texts, v.valueWord(fd, m.Get(fd).List().Get(j)))
			}
			list = append(list, fact{Name: label, Value: strings.Join(texts, "\n"), Odd: fd.Enum() == nil})
		case fd.Message() != nil && !single(fd.Message()):
			list = append(list, v.said(name, m.Get(fd).Message(), path+".", row)...)
		default:
			list = append(list, fact{Name: label, Value: v.valueWord(fd, m.Get(fd)), Odd: fd.Kind() == protoreflect.StringKind})
		}
	}
	return list
}

func (v *viewer) valueWord(fd protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch {
	case fd.Enum() != nil:
		return v.say(enumKey(fd.Enum(), value.Enum()))
	case fd.Message() != nil:
		switch x := value.Message().Interface().(type) {
		case *emergencyv1.Binding:
			return x.GetRevision()
		case *timestamppb.Timestamp:
			return v.moment(x).Text
		}
		return ""
	case fd.Kind() == protoreflect.BoolKind:
		return v.say("signed.yes")
	case fd.Kind() == protoreflect.BytesKind:
		return v.say("signed.bytes", len(value.Bytes()), digest(value.Bytes()))
	}
	return value.String()
}

// demoSigns tells whether the key of a demo person may sign here: in development, and on this machine alone.
func (p *Pages) demoSigns(r *http.Request) bool { return p.cfg.DemoSigner != nil && p.choosing(r) }

// sendPatience is how long a page waits for a service that is away, until it says so and offers to send the same again.
const sendPatience = 8 * time.Second

// actSigned hands on a signed command once, and leads to what it became.
func (p *Pages) actSigned(w http.ResponseWriter, r *http.Request) {
	v := p.viewer(r)
	if v.Person == "" {
		path, _, _ := strings.Cut(r.URL.EscapedPath(), "/sign")
		http.Redirect(w, r, "/sign-in?next="+escapeQuery(path), http.StatusSeeOther)
		return
	}
	c, done, err := p.handOn(v, r)
	switch {
	case err != nil:
		p.fail(w, r, v, err)
	case c != nil:
		p.render(w, r, v, c)
	default:
		http.Redirect(w, r, recordedPath(done), http.StatusSeeOther)
	}
}

// recordedPath is the emergency's page, which says what was recorded.
func recordedPath(done *emergencyv1.Committed) string {
	return "/incidents/" + url.PathEscape(done.GetIncident()) + "?recorded=" + strconv.FormatUint(done.GetFirstPosition(), 10)
}

// handOn verifies what came back, has it signed, and sends it. It returns either what was recorded or a page that says why not.
func (p *Pages) handOn(v *viewer, r *http.Request) (*content, *emergencyv1.Committed, error) {
	if err := parse(r); err != nil {
		return nil, nil, err
	}
	a, err := p.acting(v, r)
	if err != nil {
		return nil, nil, err
	}
	cmd, err := a.decode(r.PostForm.Get("command"))
	if err != nil {
		return nil, nil, err
	}
	payload, err := base64.RawURLEncoding.DecodeString(r.PostForm.Get("payload"))
	if err != nil {
		return nil, nil, notOfThisPage("what was to be signed could not be read")
	}
	st, refusal := together(cmd, payload, v.Person)
	if refusal != nil {
		return nil, nil, refusal
	}
	if cmd.GetMeta().Approval, err = p.approval(v, r, payload); err != nil {
		return nil, nil, err
	}
	done, err := p.give(v, cmd)
	p.cfg.Log.InfoContext(v.ctx, "command handed on", "incident", a.st.Incident, "command", a.info.Name, "person", v.Person, "request", st.GetRequestId(), "error", err)
	if err == nil {
		return nil, done, nil
	}
	cmd.GetMeta().Approval = nil
	c, err := p.notDone(v, r, a, cmd, st, payload, err)
	return c, nil, err
}

func (p *Pages) give(v *viewer, cmd procedure.Command) (*emergencyv1.Committed, error) {
	conn, err := p.peer(cmd)
	if err != nil {
		return nil, err
	}
	answer, err := command.Give(v.ctx, conn, cmd, command.Retry{Patience: sendPatience, Now: time.Now})
	if err != nil {
		return nil, err
	}
	return answer.GetCommitted(), nil
}

// notDone is the page of a command that was not recorded: it says why, and what can be done.
func (p *Pages) notDone(v *viewer, r *http.Request, a *acting, cmd procedure.Command, st *emergencyv1.Statement, payload []byte, failure error) (*content, error) {
	no, refused := rpc.RefusalOf(failure)
	switch {
	case refused && no.Reason == procedure.ReasonStepUpRequired:
		c, err := p.statement(v, r, a, cmd, "statement.old")
		if err == nil {
			c.Status = http.StatusUnprocessableEntity
		}
		return c, err
	case !refused && !command.Passing(failure) && statusOf(failure) != http.StatusServiceUnavailable:
		return nil, failure
	}
	c, err := p.statementContent(v, r, a, cmd, st, payload, "")
	if err != nil {
		return nil, err
	}
	d := c.Data.(statementView)
	if !refused {
		said := v.refusal(service.Away("the %s service does not answer", procedure.CommandOwner(cmd)))
		d.Away = &said
		c.Data, c.Status = d, http.StatusServiceUnavailable
		return c, nil
	}
	c = p.actFrame(a, "refused.title", "refused", refusedView{d, v.refusal(no)}, v.command(a.info.Name, a.subject))
	c.Status = http.StatusConflict
	return c, nil
}

// refusedView is a command that the rules did not take.
type refusedView struct {
	statementView
	Refused refusalView
}

func notOfThisPage(message string) *procedure.Refusal {
	return &procedure.Refusal{Code: procedure.InvalidArgument, Reason: procedure.ReasonSignature, Rule: "G2", Message: message,
		Allow: []procedure.Allowance{{Description: "open the form again, and sign what it says then"}}}
}

// together proves that what is to be signed is this command, whole, by this person. What of it depends on the history is judged by
// the service.
func together(cmd procedure.Command, payload []byte, person string) (*emergencyv1.Statement, *procedure.Refusal) {
	st := &emergencyv1.Statement{}
	if err := proto.Unmarshal(payload, st); err != nil || len(st.ProtoReflect().GetUnknown()) > 0 {
		return nil, notOfThisPage("what was to be signed could not be read")
	}
	whole, err := procedure.RequestDigest(cmd)
	m := cmd.GetMeta()
	switch {
	case st.GetPerson() != person:
		return nil, notOfThisPage("this was prepared for somebody else than who is signed in")
	case err != nil || !m.GetForwarded() || st.GetCommand() != procedure.CommandName(cmd) || st.GetIncident() != m.GetIncident() || st.GetRequestId() != m.GetRequestId(),
		!slices.ContainsFunc(st.GetClaims(), func(c *emergencyv1.Claim) bool { return c.GetName() == "request_digest" && c.GetValue() == whole }):
		return nil, notOfThisPage("what was to be signed is not this command")
	}
	return st, nil
}

// approval is the person's signature over the very bytes that the page has shown.
func (p *Pages) approval(v *viewer, r *http.Request, payload []byte) (*emergencyv1.Approval, error) {
	a, err := passkey.Approval(r.PostForm.Get, procedure.StatementPayloadType, payload, v.book.PasskeysOf(v.Person, v.now))
	switch {
	case err == nil:
		return a, nil
	case !errors.Is(err, passkey.ErrNotSigned):
		return nil, notOfThisPage(err.Error())
	case r.PostForm.Get("demo") == "" || !p.demoSigns(r):
		return nil, notOfThisPage("this was not signed")
	}
	signer, err := p.cfg.DemoSigner(v.Person)
	if err != nil {
		return nil, fmt.Errorf("demo key: %w", err)
	}
	return identity.SignPayload(signer, procedure.StatementPayloadType, payload)
}

// recorded waits, not for long, until the page knows what its viewer has just done. nil where the address names nothing.
func (p *Pages) recorded(v *viewer, id, position string) *recorded {
	at, err := strconv.ParseUint(position, 10, 64)
	if err != nil || at == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(v.ctx, recordedPatience)
	defer cancel()
	_, err = p.cfg.Query.ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: id, AtLeast: at})
	return &recorded{event{id, at}, err != nil}
}

// recordedPatience is how long a page waits for what was recorded a moment ago.
const recordedPatience = 3 * time.Second
