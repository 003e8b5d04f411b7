// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/services/cli/client"
)

// The exit codes, by kind of failure. They are part of the interface.
const (
	exitOK          = 0
	exitRefused     = 1 // a rule said no
	exitUsage       = 2 // the command line, or a value in it
	exitIdentity    = 3 // not recognised, or not permitted
	exitConflict    = 4 // something changed meanwhile, or what was named is out of date
	exitAway        = 5 // a server, agent or repository does not answer
	exitUnverified  = 6 // a signature, hash or digest is not what it must be
	exitDiffers     = 7 // a deployment ended otherwise than verified
	exitDefect      = 8 // a defect, here or on the server
	exitInterrupted = 130
)

const exitCodes = `Exit codes:
  0  done
  1  refused by a rule: error, rule and hints say which, and what would allow it
  2  the command line, or a value in it, is wrong
  3  not recognised (certificate, key) or not permitted (role)
  4  something changed meanwhile, or what was named is out of date: look, and try again
  5  the server, an agent or the repository does not answer
  6  a signature, hash or digest is not what it must be
  7  a deployment ended otherwise than verified
  8  a defect of this program or of a server
130  interrupted`

// failure is an error that says what to do.
type failure struct {
	code  int
	what  string
	hints []string
}

func (f *failure) Error() string { return f.what }

func fail(code int, format string, args ...any) *failure {
	return &failure{code: code, what: fmt.Sprintf(format, args...)}
}

func usage(format string, args ...any) *failure { return fail(exitUsage, format, args...) }

func (f *failure) hint(format string, args ...any) *failure {
	f.hints = append(f.hints, fmt.Sprintf(format, args...))
	return f
}

// report is an error as it is shown.
type report struct {
	Code  int            `json:"exit_code"`
	What  string         `json:"error"`
	Kind  procedure.Code `json:"code,omitempty"`
	Cause string         `json:"reason,omitempty"`
	Rule  string         `json:"rule,omitempty"`
	Hints []string       `json:"hints,omitempty"`
}

// explain turns any error into what a tired person needs: what was refused, by which rule, and what to type instead.
func (a *app) explain(err error) report {
	var f *failure
	var p *patch.Error
	var g *gitrepo.Error
	refusal, refused := rpc.RefusalOf(err)
	switch {
	case errors.As(err, &f):
		return report{Code: f.code, What: err.Error(), Hints: f.hints}
	case refused:
		return a.refused(refusal)
	case errors.Is(err, context.Canceled):
		return report{Code: exitInterrupted, What: "interrupted: what was sent before may have been recorded", Hints: []string{"look with epatch status"}}
	case errors.Is(err, client.ErrNoKeyring):
		return report{Code: exitUnverified, What: err.Error(), Hints: []string{"name the file of the services' public keys: --keyring services.keys.json, or EPATCH_KEYRING"}}
	case errors.Is(err, client.ErrNoCopy):
		return report{Code: exitAway, What: err.Error(), Hints: []string{"a copy is kept of what epatch status shows while a server answers"}}
	case errors.Is(err, os.ErrExist) && a.opt.offline != "":
		return report{Code: exitUsage, What: err.Error(), Hints: []string{"what was captured is never overwritten: name another --offline-file"}}
	case errors.As(err, &p):
		return report{Code: exitRefused, What: "the patch cannot be used: " + p.Error()}
	case errors.As(err, &g):
		return repository(g)
	}
	if st, ok := status.FromError(err); ok {
		return a.transport(st)
	}
	return report{Code: exitDefect, What: err.Error()}
}

func repository(g *gitrepo.Error) report {
	if g.Code == gitrepo.CodeUnavailable {
		return report{Code: exitAway, What: g.Error()}
	}
	return report{Code: exitUsage, What: "your repository: " + g.Error(), Hints: []string{"name repository and base with --repo and --base"}}
}

// refused shows a rule's no whole.
func (a *app) refused(r *procedure.Refusal) report {
	out := report{Code: exitRefused, What: r.Message, Kind: r.Code, Cause: string(r.Reason), Rule: r.Rule}
	switch r.Code {
	case procedure.Unauthenticated, procedure.PermissionDenied:
		out.Code = exitIdentity
	case procedure.InvalidArgument:
		out.Code = exitUsage
	case procedure.Aborted:
		out.Code = exitConflict
	case procedure.NotFound, procedure.AlreadyExists, procedure.FailedPrecondition, procedure.ResourceExhausted:
	}
	if r.Reason == procedure.ReasonPatchRevisionStale {
		out.Code = exitConflict
	}
	for _, allowance := range r.Allow {
		hint := allowance.Description
		if line := a.allowed(r.Reason, allowance); line != "" {
			hint += ": " + line
		}
		out.Hints = append(out.Hints, hint)
	}
	if r.Reason == procedure.ReasonIncident {
		if len(r.Allow) == 1 && r.Allow[0].Command == "" {
			out.Hints[0] += ": epatch incidents --all"
		} else {
			out.Hints = append(out.Hints, "which there are: epatch incidents --all")
		}
	}
	return out
}

// allowed is what to type for what would allow an act; a waiver names the control that is missing, a merge both incidents, and
// what was left out stands where it belongs.
func (a *app) allowed(why procedure.Reason, to procedure.Allowance) string {
	if line := missingPart()[to.Command][why]; line != "" {
		return line
	}
	switch to.Command {
	case "WaiveControl":
		switch why {
		case procedure.ReasonTestQuorum:
			return "epatch waive tests --reason TEXT"
		case procedure.ReasonObserverMissing:
			return "epatch waive observer --reason TEXT"
		default:
		}
	case "MergeInto":
		duplicate, target := a.merging[0], a.merging[1]
		if why == procedure.ReasonMergeIntoLater {
			duplicate, target = target, duplicate
		}
		if target != "" {
			return "epatch merge " + duplicate + " --into " + target + " --reason TEXT"
		}
	}
	if why == procedure.ReasonObligationsOpen { // its subject is the obligation
		return howTyped(to.Command)
	}
	return commandLine(to.Command, to.Subject)
}

// missingPart is what to type where a command lacks a part, by command and reason.
func missingPart() map[string]map[procedure.Reason]string {
	return map[string]map[procedure.Reason]string{
		"StartApply":  {procedure.ReasonObserverMissing: "epatch deploy --no-observer-reason TEXT"},
		"Forward":     {procedure.ReasonLocalTest: "epatch forward --local-test TEXT"},
		"GrantAccess": {procedure.ReasonLimit: "epatch grant --minutes NUMBER", procedure.ReasonWatcherRole: "epatch grant --watcher PERSON"},
		"ArmWatch":    {procedure.ReasonWatcherRole: "epatch watch-console --take-over REASON"},
		"Escalate":    {procedure.ReasonDebtReason: "epatch escalate --reason TEXT --debt-reason TEXT", procedure.ReasonGroundMissing: "epatch escalate --unfit CODE --reason TEXT"},
	}
}

// transport explains what is no rule's answer.
func (a *app) transport(st *status.Status) report {
	server := "the server at " + a.opt.server
	for _, addr := range a.opt.servers {
		if *addr != "" {
			server = "one of the servers"
		}
	}
	switch st.Code() {
	case codes.ResourceExhausted:
		if rpc.StorageFull(st.Err()) {
			return report{Code: exitAway, What: st.Message(), Hints: []string{"call the operators; until then go on by telephone, and write down who did what when"}}
		}
	case codes.Unavailable:
		if strings.Contains(st.Message(), "tls: ") || strings.Contains(st.Message(), "x509: ") {
			return report{Code: exitIdentity, What: "no connection with " + server + ": " + cause(st.Message()),
				Hints: []string{"cert.pem, key.pem and ca.pem of your profile must be of the authority that the server is of", "is it the right server? --server HOST:PORT"}}
		}
		return report{Code: exitAway, What: server + " does not answer: " + cause(st.Message()),
			Hints: []string{"nothing was recorded as far as is known; the same command may be given again", "is it running? another address: --server HOST:PORT, or EPATCH_SERVER", "until then go on by telephone, and write down who did what when"}}
	case codes.DeadlineExceeded:
		return report{Code: exitAway, What: server + " did not answer in time: it is not known whether it was recorded",
			Hints: []string{"look with epatch status; giving the same command again does no harm if the rules still allow it"}}
	case codes.Canceled:
		return report{Code: exitInterrupted, What: "interrupted: what was sent before may have been recorded", Hints: []string{"look with epatch status"}}
	case codes.Unimplemented:
		return report{Code: exitDefect, What: server + " does not know this request: " + st.Message(), Hints: []string{"is it an older version, or another service?"}}
	}
	return report{Code: exitDefect, What: st.Message(), Hints: []string{"tell the operator, with the reference if there is one"}}
}

// cause is the innermost part of a transport's message: the rest says how often it was tried.
func cause(message string) string {
	if i := strings.LastIndex(message, "desc = "); i >= 0 {
		message = strings.Trim(message[i+len("desc = "):], `"`)
	}
	return strings.TrimPrefix(message, "transport: ")
}

// show prints the report where errors belong and returns the exit code.
func (a *app) show(err error) int {
	r := a.explain(err)
	for i, h := range r.Hints {
		r.Hints[i] = a.typing(h)
	}
	if a.opt.json {
		if err := a.errs.jsonValue(r); err != nil {
			return exitDefect
		}
		return r.Code
	}
	a.errs.line("%s %s", bad("error:"), r.What)
	if r.Rule != "" {
		a.errs.line("rule:  %s (%s)", r.Rule, r.Cause)
	}
	for _, h := range r.Hints {
		a.errs.line("%s  %s", alert("hint:"), h)
	}
	return r.Code
}
