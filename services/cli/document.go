// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/prefill"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// documentOptions are the settings of the verb.
type documentOptions struct {
	strategy            uint32
	reasons             []string
	appendix, from, out string
	draft, edit         bool
}

func (a *app) documentCmd() *cobra.Command {
	var opt documentOptions
	cmd := leaf("document TEXT [--reason POSITION=TEXT]...", "Document what was done (seed 1, 2.4, 3.7)", `
The text is public and stands on the timeline, which you confirm with it: read it first with epatch timeline. Each deviation
needs a reason; epatch status lists them. The strategy is the one under which the host was changed.

Instead of TEXT, a draft made from the events can be filled in: --draft prints it (-o writes a file), --from reads it back,
--edit opens it in your editor ($VISUAL or $EDITOR) and sends it when you are done.`, `
  epatch document "dora's patch adds the missing index; deployed 04:02, verified 04:03, no restart"
  epatch document "..." --reason "41=the second tester was in the air until 06:00"
  epatch document --draft -o report.txt
  epatch document --from report.txt`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			ways := len(args)
			for _, on := range []bool{opt.draft, opt.edit, opt.from != ""} {
				if on {
					ways++
				}
			}
			if ways != 1 {
				return usage("one of these is needed: the text, --draft, --from or --edit").hint("a draft to be filled in: epatch document --draft -o report.txt")
			}
			return a.documentation(cmd.Context(), args, opt)
		})
	f := cmd.Flags()
	f.StringArrayVar(&opt.reasons, "reason", nil, "reason for the deviation at a position, POSITION=TEXT; once for each")
	f.StringVar(&opt.appendix, "appendix", "", "further detail; restricted")
	f.Uint32Var(&opt.strategy, "strategy", 0, "strategy that is documented (default: the one of the last change to the host)")
	f.BoolVar(&opt.draft, "draft", false, "print a draft made from the events, to be filled in")
	f.BoolVar(&opt.edit, "edit", false, "open the draft in your editor, and send it when it is closed")
	f.StringVar(&opt.from, "from", "", "file with a draft that was filled in; - for standard input")
	f.StringVarP(&opt.out, "out", "o", "", "file for the draft; never overwritten")
	return cmd
}

func (a *app) documentation(ctx context.Context, args []string, opt documentOptions) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	if opt.strategy == 0 {
		opt.strategy = prefill.ToDocument(s.state)
	}
	var text string
	switch {
	case opt.draft:
		return a.document(opt.out, func() (string, error) { return a.draft(ctx, s.state.Incident, opt.strategy) })
	case opt.edit:
		return a.edited(ctx, s, opt)
	case opt.from != "":
		if text, err = a.readText(opt.from); err != nil {
			return err
		}
		return a.filled(ctx, s, text)
	}
	req := &emergencyv1.DocumentRequest{Strategy: opt.strategy, Text: args[0], Appendix: opt.appendix}
	if req.Reasons, err = deviationReasons(s.state, opt.reasons); err != nil {
		return err
	}
	return a.signOff(ctx, s, req)
}

func (a *app) draft(ctx context.Context, id string, strategy uint32) (string, error) {
	in, err := a.input(ctx, id)
	if err != nil {
		return "", err
	}
	in.Asked = a.proc.Now()
	text, err := dossier.Draft(in, strategy)
	if err != nil {
		return "", usage("%v", err)
	}
	return text, nil
}

// draftLimit is far more than a documentation may hold.
const draftLimit = 1 << 20

func (a *app) readText(file string) (string, error) {
	in := a.proc.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", usage("%v", err)
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, draftLimit+1))
	if err == nil && len(b) > draftLimit {
		err = errors.New("it is too long for a documentation")
	}
	if err != nil {
		return "", usage("read %s: %v", file, err)
	}
	return string(b), nil
}

// filled sends a draft that was filled in.
func (a *app) filled(ctx context.Context, s *scene, text string) error {
	r, err := dossier.ParseDraft(text)
	if err != nil {
		return usage("the draft: %v", err)
	}
	if r.Incident != s.state.Incident {
		return usage("the draft is of %s, not of %s", r.Incident, s.state.Incident).hint("name the incident: -i %s", r.Incident)
	}
	if s.state.Position > r.Position {
		a.note("%s came after the draft was made; they are confirmed with it: epatch timeline --from %d", plural(int(s.state.Position-r.Position), "event", "events"), r.Position+1)
	}
	return a.signOff(ctx, s, &emergencyv1.DocumentRequest{Strategy: r.Strategy, Reasons: r.Reasons, Text: r.Text, Appendix: r.Appendix})
}

// signOff gives the command: the person who acted says that it was so.
func (a *app) signOff(ctx context.Context, s *scene, req *emergencyv1.DocumentRequest) error {
	req.Meta, req.TimelineConfirmed = s.meta, true
	_, err := a.act(ctx, req, "strategy %d documented, on the timeline of %d positions that you confirm", req.GetStrategy(), s.state.Position)
	if err == nil {
		a.then(ctx, s.state.Incident)
	}
	return err
}

// edited opens a draft in the person's editor and sends what comes out of it. What was written is never lost: the file stays
// unless it was accepted.
func (a *app) edited(ctx context.Context, s *scene, opt documentOptions) error {
	editor, err := a.editor()
	if err != nil {
		return err
	}
	draft, err := a.draft(ctx, s.state.Incident, opt.strategy)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "epatch-") // 0700: the appendix is restricted
	if err != nil {
		return fmt.Errorf("make a folder for the draft: %w", err)
	}
	file := filepath.Join(dir, "documentation.txt")
	if err := os.WriteFile(file, []byte(draft), 0o600); err != nil {
		return fmt.Errorf("write the draft: %w", err)
	}
	if err := a.openEditor(ctx, editor, file); err != nil {
		return err
	}
	text, err := a.readText(file)
	if err == nil && text == draft {
		return errors.Join(usage("the draft was not changed; nothing is sent"), os.RemoveAll(dir))
	}
	if err == nil {
		err = a.filled(ctx, s, text)
	}
	if err != nil {
		a.errs.line("what you wrote is in %s; when it is right: epatch document --from %s", file, file)
		return err
	}
	return os.RemoveAll(dir)
}

// editor is what VISUAL or EDITOR name.
func (a *app) editor() ([]string, error) {
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if words := strings.Fields(variable(a.proc.Environ, name)); len(words) > 0 {
			return words, nil
		}
	}
	return nil, usage("no editor is named").hint("name one: export EDITOR=nano").hint("or fill in a file: epatch document --draft -o report.txt")
}

// openEditor runs an editor with the terminal of this program.
func (a *app) openEditor(ctx context.Context, words []string, file string) error {
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], file)...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = a.proc.Environ, a.proc.Stdin, a.proc.Stdout, a.proc.Stderr
	if err := cmd.Run(); err != nil {
		return usage("the editor %s: %v", words[0], err).hint("the draft is in %s", file)
	}
	return nil
}

// variable is a value of the environment; of several the last one counts.
func variable(environ []string, name string) string {
	value := ""
	for _, v := range environ {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			value = rest
		}
	}
	return value
}

// deviationReasons gives every deviation its reason, or says what to type.
func deviationReasons(s *procedure.State, given []string) ([]*emergencyv1.DeviationReason, error) {
	texts := map[string]string{}
	for _, g := range given {
		at, text, ok := strings.Cut(g, "=")
		if !ok {
			return nil, usage("--reason %q: write POSITION=TEXT", g)
		}
		texts[strings.TrimSpace(at)] = text
	}
	var list []*emergencyv1.DeviationReason
	var missing []string
	for _, d := range s.Deviations {
		text, ok := texts[fmt.Sprint(d.Position)]
		if !ok {
			missing = append(missing, fmt.Sprintf(`--reason "%d=..."  for %s at position %d`, d.Position, word(d.Deviation), d.Position))
			continue
		}
		list = append(list, &emergencyv1.DeviationReason{Position: d.Position, Deviation: d.Deviation, Reason: text})
	}
	if len(missing) > 0 {
		return nil, &failure{code: exitUsage, what: plural(len(missing), "deviation has", "deviations have") + " no reason yet", hints: missing}
	}
	return list, nil
}
