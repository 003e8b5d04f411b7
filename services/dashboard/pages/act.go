// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Acting in a page takes two steps: a form that says what is to be done, and a page that says what is signed. Nothing is kept
// between them: the command and the bytes to sign go through the browser, and the service that owns the command believes the
// signature alone.

// A form with texts, one with a patch, and either of them as it comes back to be signed, have at most so many bytes.
const (
	maxAct      = 1 << 20
	maxPatchAct = 4 << 20
)

// acting is a command that is being given: in which incident, about what, of which kind.
type acting struct {
	info             procedure.CommandInfo
	st               *procedure.State
	subject, variant string
}

// actPath is where a command is given.
func actPath(incident, command, subject, variant string) string {
	if incident == "" {
		return "/declare"
	}
	q := url.Values{}
	if subject != "" {
		q.Set("subject", subject)
	}
	if variant != "" {
		q.Set("kind", variant)
	}
	path := "/incidents/" + url.PathEscape(incident) + "/act/" + url.PathEscape(command)
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (a *acting) path() string { return actPath(a.st.Incident, a.info.Name, a.subject, a.variant) }

func (a *acting) signPath() string {
	path, _, _ := strings.Cut(a.path(), "?")
	return path + "/sign"
}

// acting reads which command a request is about.
func (p *Pages) acting(v *viewer, r *http.Request) (*acting, error) {
	name := r.PathValue("command")
	if name == "" {
		name = "Declare"
	}
	a := &acting{subject: r.FormValue("subject"), variant: r.FormValue("kind")}
	var ok bool
	if a.info, ok = commandNamed(name); !ok || (r.PathValue("incident") == "") != (name == "Declare") {
		return nil, &procedure.Refusal{Code: procedure.NotFound, Reason: procedure.ReasonField, Rule: "4", Message: "there is no such command to be given in a page",
			Allow: []procedure.Allowance{{Description: "what you can do stands on the page of the emergency"}}}
	}
	if name == "Declare" {
		a.st = procedure.NewState("")
		return a, nil
	}
	var err error
	if a.st, err = p.state(v, r.PathValue("incident")); err != nil {
		return nil, err
	}
	if cmd := p.begin(v, a.st, a.info, a.subject, a.variant); a.subject == "" {
		a.subject = boundTo(cmd)
	}
	return a, nil
}

// boundTo names the revision that a command is bound to, so that a form stays about the one that it was opened for.
func boundTo(cmd procedure.Command) string {
	if c, ok := cmd.(interface{ GetBinding() *bindingOf }); ok {
		return c.GetBinding().GetRevision()
	}
	return ""
}

func (p *Pages) env(v *viewer) procedure.Env {
	return procedure.Env{Now: v.now, Actor: procedure.Actor{KeyID: v.Key}, Book: v.book}
}

// actView is the form of a command.
type actView struct {
	Incident, System string
	Command, What    string
	Subject, Variant string
	Path             string
	Lead             string
	Fields, More     []formField
	Parts            [][]formField // of a form whose parts the rules number
	File             bool
	Variants         []variantLink
	// Wrong is set when something that was filled in is not right; Unplaced is what of it has no field here. Refused is what the rules
	// say besides.
	Wrong    bool
	Unplaced []procedure.WrongField
	Refused  *refusalView
	Typed    string
	// Patch is what the command judges, to be read beside the form.
	Patch *patchView
}

// variantLink is another kind of the same command.
type variantLink struct {
	Text, Href string
	Here       bool
}

// actPage shows the form of a command as the history fills it in.
func (p *Pages) actPage(v *viewer, r *http.Request) (*content, error) {
	a, err := p.acting(v, r)
	if err != nil {
		return nil, err
	}
	cmd := p.begin(v, a.st, a.info, a.subject, a.variant)
	f := &former{v: v, st: a.st, command: a.info.Name, missing: missingFields(cmd)}
	return p.actContent(v, a, cmd, f, p.refusedAnyway(v, a, cmd))
}

// refusedAnyway is what the rules say of a command whatever is filled in, as the page of the emergency says it; nil if nothing.
func (p *Pages) refusedAnyway(v *viewer, a *acting, cmd procedure.Command) *procedure.Refusal {
	if a.st.Status == procedure.Absent || slices.Contains([]string{"Redact", "Disclose"}, a.info.Name) { // which Options does not list
		return procedure.Foresee(a.st, cmd, p.env(v))
	}
	o, _ := p.option(v, a.st, a.info.Name, a.subject)
	return o.Refusal
}

// actContent draws a form around a command, with what the rules say of it.
func (p *Pages) actContent(v *viewer, a *acting, cmd procedure.Command, f *former, refusal *procedure.Refusal) (*content, error) {
	d := actView{
		Incident: a.st.Incident, System: a.st.Declared.System, Command: a.info.Name, What: v.command(a.info.Name, a.subject), Subject: a.subject, Path: a.path(),
		Typed: p.cfg.Typed(a.info.Name, a.subject, a.st.Incident), Lead: v.words["lead."+a.info.Name], Wrong: len(f.wrong)+len(f.bad) > 0,
	}
	for _, x := range f.fields(cmd.ProtoReflect(), "") {
		if d.File = d.File || x.Kind == "file"; x.Rare {
			d.More = append(d.More, x)
		} else {
			d.Fields = append(d.Fields, x)
		}
	}
	d.Variant = a.variant
	for _, kind := range variants(cmd) {
		fd := cmd.ProtoReflect().Descriptor().Fields().ByName(nameOf(kind))
		here := cmd.ProtoReflect().Has(fd)
		if here {
			d.Variant = kind
		}
		d.Variants = append(d.Variants, variantLink{v.say("kind." + kind), actPath(a.st.Incident, a.info.Name, a.subject, kind), here})
	}
	for _, w := range f.wrong {
		if !slices.ContainsFunc(slices.Concat(d.Fields, d.More), func(x formField) bool { return x.shows(w) }) {
			d.Unplaced = append(d.Unplaced, w)
		}
	}
	d.Fields, d.Parts = inParts(a.info.Name, d.Fields)
	if refusal != nil {
		said := v.refusal(refusal)
		d.Refused = &said
	}
	p.judged(v, a, &d)
	return p.actFrame(a, "act.title", "act", d, v.command(a.info.Name, a.subject)), nil
}

// actFrame is a page of acting; no event changes it under the hands of the person.
func (p *Pages) actFrame(a *acting, title, template string, data any, args ...any) *content {
	return &content{Title: title, Args: args, Section: "incidents", Template: template, Data: data, Incident: a.st.Incident, Drill: a.st.Declared.Drill, Still: true}
}

// judged adds the patch that a review judges.
func (p *Pages) judged(v *viewer, a *acting, d *actView) {
	if !slices.Contains([]string{"RecordFirstReview", "RecordSecondReview", "RaiseVeto", "ReportTest", "Forward", "StartApply"}, a.info.Name) {
		return
	}
	rev, ok := a.st.Revision(a.subject)
	if !ok {
		return
	}
	d.Patch = &patchView{Incident: a.st.Incident, Revision: v.revision(a.st, rev)}
	if err := p.diff(v, a.st, rev, d.Patch); err != nil {
		refused := v.refusal(err)
		d.Patch.Refused = &refused
	}
}

// parse reads a form of either kind.
func parse(r *http.Request) error {
	err := r.ParseMultipartForm(maxPatchAct)
	if errors.Is(err, http.ErrNotMultipart) {
		err = r.ParseForm()
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &procedure.Refusal{Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2", Message: "the form is larger than a command may be",
			Allow: []procedure.Allowance{{Description: "an emergency patch has at most a megabyte, a text at most 16 kilobytes"}}}
	case err != nil:
		return &procedure.Refusal{Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2", Message: "the form could not be read",
			Allow: []procedure.Allowance{{Description: "open it again and fill it in once more"}}}
	}
	return nil
}

// actGiven takes a form: what is not right yet comes back with what was typed; else it says what is to be signed.
func (p *Pages) actGiven(v *viewer, r *http.Request) (*content, error) {
	if err := parse(r); err != nil {
		return nil, err
	}
	a, err := p.acting(v, r)
	if err != nil {
		return nil, err
	}
	if again := r.PostForm.Get("command"); again != "" {
		return p.actAgain(v, a, again)
	}
	cmd := p.begin(v, a.st, a.info, a.subject, a.variant)
	f := &former{v: v, st: a.st, command: a.info.Name, missing: missingFields(cmd), bad: map[string]string{}}
	if r.PostForm.Has("filled") { // else it was one press: all is as the history fills it in
		in := &reader{command: a.info.Name, form: r.PostForm, bad: f.bad}
		if r.MultipartForm != nil {
			in.files = r.MultipartForm.File
		}
		in.read(cmd.ProtoReflect(), "")
		f.posted = r.PostForm
	}
	unfit := new(procedure.Refusal)
	if err := p.complete(v, a, cmd); err != nil && !errors.As(err, &unfit) {
		return nil, err
	}
	f.wrong = wrongFields(cmd)
	refusal := procedure.Foresee(a.st, cmd, p.env(v))
	if unfit.Reason != "" {
		refusal = unfit
	}
	if len(f.wrong)+len(f.bad) > 0 || refusal != nil {
		c, err := p.actContent(v, a, cmd, f, refusal)
		if err == nil {
			c.Status = http.StatusUnprocessableEntity
		}
		return c, err
	}
	return p.statement(v, r, a, cmd, "")
}

// actAgain shows the form of a command that was to be signed, with what it says.
func (p *Pages) actAgain(v *viewer, a *acting, encoded string) (*content, error) {
	cmd, err := a.decode(encoded)
	if err != nil {
		return nil, err
	}
	cmd.GetMeta().RequestId = ""
	fresh := p.begin(v, a.st, a.info, a.subject, a.variant)
	f := &former{v: v, st: a.st, command: a.info.Name, missing: missingFields(fresh)}
	return p.actContent(v, a, cmd, f, p.refusedAnyway(v, a, fresh))
}

// encode writes a command so that it passes through a browser unchanged.
func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode reads a command that came back, of this kind and for this incident.
func (a *acting) decode(encoded string) (procedure.Command, error) {
	bad := &procedure.Refusal{Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2", Message: "what came back is not the command of this page",
		Allow: []procedure.Allowance{{Description: "open the form again"}}}
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	cmd := a.info.New()
	if err != nil || proto.Unmarshal(b, cmd) != nil || len(cmd.ProtoReflect().GetUnknown()) > 0 {
		return nil, bad
	}
	if cmd.GetMeta() == nil || cmd.GetMeta().GetIncident() != a.st.Incident || cmd.GetMeta().GetApproval() != nil {
		return nil, bad
	}
	return cmd, nil
}

// peer is the connection to the service that owns a command.
func (p *Pages) peer(cmd procedure.Command) (peer, error) {
	owner := procedure.CommandOwner(cmd)
	conn, ok := p.cfg.Peers[owner]
	if !ok {
		return nil, service.Away("no connection to the %s service, which takes this command", owner)
	}
	return conn, nil
}

// complete adds what a service has to find out before a command can be signed: what a patch makes of its base.
func (p *Pages) complete(v *viewer, a *acting, cmd procedure.Command) error {
	c, ok := cmd.(*emergencyv1.RegisterPatchRequest)
	if !ok || len(c.GetBytes()) == 0 {
		return nil
	}
	conn, err := p.peer(cmd)
	if err != nil {
		return err
	}
	answer, err := reviewv1.NewReviewReaderServiceClient(conn).ComputePatch(v.ctx, &reviewv1.ComputePatchRequest{Incident: a.st.Incident, Base: c.GetBaseCommit(), Bytes: c.GetBytes()})
	if refusal, ok := rpc.RefusalOf(err); ok {
		return refusal
	}
	if err != nil {
		return service.Away("the review service does not answer: %w", err)
	}
	if answer.GetProblem() != "" {
		return &procedure.Refusal{Code: procedure.InvalidArgument, Reason: procedure.ReasonDigest, Rule: "B1", Message: "the patch is not acceptable: " + answer.GetProblem(),
			Allow: []procedure.Allowance{{Command: "RegisterPatch", Description: "correct the patch and register it again"}}}
	}
	c.Sha256, c.BaseCommit, c.BaseTree, c.ResultTree = digest(c.GetBytes()), answer.GetBaseCommit(), answer.GetBaseTree(), answer.GetResultTree()
	return nil
}

// act is a place where a command can be given.
type act struct {
	Href, Label string
	// Direct is set where nothing has to be filled in: one press says what will be signed.
	Direct           bool
	Subject, Variant string
	// Instead is the other answer to the same question, such as declining.
	Instead *act
}

// act finds where a command is given; nil for one that no page gives.
func (p *Pages) act(v *viewer, st *procedure.State, name, subject string) *act {
	info, ok := commandNamed(name)
	if !ok {
		return nil
	}
	cmd := p.begin(v, st, info, subject, "")
	a := &act{Href: actPath(st.Incident, name, subject, ""), Label: v.say("act.go"), Subject: subject, Direct: true}
	for _, x := range (&former{v: v, st: st, command: name, missing: missingFields(cmd)}).fields(cmd.ProtoReflect(), "") {
		if !x.Rare && x.Kind != "known" && (x.Value == "" || x.Kind == "long") {
			a.Direct = false
		}
	}
	if name == "Respond" {
		a.Label = v.say("act.accept")
		a.Instead = &act{Href: actPath(st.Incident, name, subject, "decline"), Label: v.say("act.decline")}
	}
	return a
}
