// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
)

// patchView is one revision of a patch with what it changes.
type patchView struct {
	Incident string
	Revision revision
	Others   []revision
	Files    []diffFile
	Added    int
	Removed  int
	Verified bool // the bytes have the registered digest
	Hidden   int  // characters that are shown by their number
	Refused  *refusalView
}

// diffFile is one file of a diff.
type diffFile struct {
	Name           string
	Head           []string // what git says about the file, without the names
	Added, Removed int
	Lines          []diffLine
}

// diffLine is one line of a diff: Kind is add, del, same or hunk.
type diffLine struct {
	Kind     string
	Old, New string // numbers; empty where the line is not on that side
	Text     []piece
}

// piece is a run of text; Odd marks a character that is shown by its number, because it would not be seen or would mislead.
type piece struct {
	Text string
	Odd  bool
}

// patchEvent is the type that the reading of a patch's bytes is judged by, as the review service judges it.
const patchEvent = procedure.OwnerReview + ".PatchRegistered"

func (p *Pages) patch(v *viewer, r *http.Request) (*content, error) {
	id, name := r.PathValue("incident"), r.PathValue("revision")
	st, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	rev, ok := st.Revision(name)
	if !ok {
		return nil, &procedure.Refusal{
			Code: procedure.NotFound, Reason: procedure.ReasonPatch, Rule: "G4", Message: fmt.Sprintf("%s has no revision %.40q", id, name),
			Allow: []procedure.Allowance{{Description: "take a revision from the page of the emergency"}},
		}
	}
	d := patchView{Incident: id, Revision: v.revision(st, rev)}
	for i := range st.Revisions {
		if st.Revisions[i].ID != rev.ID {
			d.Others = append(d.Others, v.revision(st, &st.Revisions[i]))
		}
	}
	if err := p.diff(v, st, rev, &d); err != nil {
		refused := v.refusal(err)
		d.Refused = &refused
	}
	return &content{Title: "patch.title", Args: []any{rev.ID, id}, Section: "incidents", Template: "patch", Data: d, Incident: id, Drill: st.Declared.Drill, Still: true}, nil
}

// diff reads the bytes from the service that keeps them, for a person who may read them, and writes down who did.
func (p *Pages) diff(v *viewer, st *procedure.State, rev *procedure.Revision, d *patchView) error {
	if refusal := procedure.MayRead(st, v.book, v.Person, v.now, patchEvent, procedure.RestrictedField{Field: "bytes"}); refusal != nil {
		return refusal
	}
	conn, ok := p.cfg.Peers[procedure.OwnerReview]
	if !ok {
		return service.Away("no connection to the review service, which keeps the patch")
	}
	p.cfg.Log.InfoContext(v.ctx, "patch shown", "incident", st.Incident, "revision", rev.ID, "person", v.Person, "key", v.Key)
	answer, err := reviewv1.NewReviewReaderServiceClient(conn).ReadPatch(v.ctx, &reviewv1.ReadPatchRequest{Incident: st.Incident, Revision: rev.ID})
	if refusal, ok := rpc.RefusalOf(err); ok {
		return refusal
	}
	if err != nil {
		return service.Away("the review service does not answer: %w", err)
	}
	if digest(answer.GetBytes()) != rev.Artefact.GetSha256() {
		return errors.New("the bytes are not those that were registered")
	}
	d.Verified = true
	d.Files = parseDiff(string(answer.GetDiff()))
	for _, f := range d.Files {
		d.Added, d.Removed = d.Added+f.Added, d.Removed+f.Removed
		for _, l := range f.Lines {
			for _, x := range l.Text {
				if x.Odd {
					d.Hidden++
				}
			}
		}
	}
	return nil
}

// differ reads a unified diff line by line. It judges nothing: what cannot be read is shown as it stands.
type differ struct {
	files            []diffFile
	oldLine, newLine int
	oldLeft, newLeft int // of the hunk
}

func parseDiff(text string) []diffFile {
	d := &differ{}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, l := range lines {
		next := ""
		if i+1 < len(lines) {
			next = lines[i+1]
		}
		d.line(l, next)
	}
	return d.files
}

func (d *differ) line(l, next string) {
	inHunk := d.oldLeft > 0 || d.newLeft > 0
	fresh := strings.HasPrefix(l, "diff --git ") || strings.HasPrefix(l, "--- ") && strings.HasPrefix(next, "+++ ") && (len(d.files) == 0 || len(d.files[len(d.files)-1].Lines) > 0)
	if !inHunk && (fresh || len(d.files) == 0) {
		d.files = append(d.files, diffFile{})
	}
	f := &d.files[len(d.files)-1]
	switch {
	case inHunk && l != "" && strings.ContainsRune("+- \\", rune(l[0])):
		d.body(f, l)
	case strings.HasPrefix(l, "@@ "):
		d.hunk(f, l)
	default:
		d.oldLeft, d.newLeft = 0, 0
		d.head(f, l)
	}
}

// head takes the name from the lines that git writes before the hunks.
func (d *differ) head(f *diffFile, l string) {
	for _, mark := range []string{"+++ ", "--- "} {
		if name, ok := strings.CutPrefix(l, mark); ok {
			name, _, _ = strings.Cut(name, "\t")
			if name != "/dev/null" && (f.Name == "" || mark == "+++ ") {
				f.Name = readable(strings.TrimPrefix(strings.TrimPrefix(name, "a/"), "b/"))
			}
			return
		}
	}
	if l != "" {
		f.Head = append(f.Head, readable(l))
	}
}

func (d *differ) hunk(f *diffFile, l string) {
	d.oldLine, d.oldLeft, d.newLine, d.newLeft = 0, 0, 0, 0
	parts := strings.Fields(l)
	if len(parts) >= 3 {
		d.oldLine, d.oldLeft = span(parts[1])
		d.newLine, d.newLeft = span(parts[2])
	}
	f.Lines = append(f.Lines, diffLine{Kind: "hunk", Text: pieces(l)})
}

// span reads -12,5 or +12: the first line and how many.
func span(s string) (first, count int) {
	a, b, has := strings.Cut(strings.TrimLeft(s, "-+"), ",")
	first, _ = strconv.Atoi(a) // no number is shown as 0
	if !has {
		return first, 1
	}
	count, _ = strconv.Atoi(b)
	return first, count
}

func (d *differ) body(f *diffFile, l string) {
	x := diffLine{Text: pieces(l[1:])}
	switch l[0] {
	case '+':
		x.Kind, x.New = "add", strconv.Itoa(d.newLine)
		d.newLine, d.newLeft, f.Added = d.newLine+1, d.newLeft-1, f.Added+1
	case '-':
		x.Kind, x.Old = "del", strconv.Itoa(d.oldLine)
		d.oldLine, d.oldLeft, f.Removed = d.oldLine+1, d.oldLeft-1, f.Removed+1
	case '\\':
		x.Kind = "note"
	default:
		x.Kind, x.Old, x.New = "same", strconv.Itoa(d.oldLine), strconv.Itoa(d.newLine)
		d.oldLine, d.newLine, d.oldLeft, d.newLeft = d.oldLine+1, d.newLine+1, d.oldLeft-1, d.newLeft-1
	}
	f.Lines = append(f.Lines, x)
}

// odd tells whether a character would not be seen, or would change the order or look of what stands around it.
func odd(r rune) bool {
	return r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.In(r, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar || r == '\u00a0' || r == '\u00ad')
}

func number(r rune) string {
	if r < 0x100 {
		return fmt.Sprintf(`\x%02x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// pieces splits a line so that odd characters are shown by their number.
func pieces(s string) []piece { return split(s, odd) }

// said splits what somebody wrote, which can have several lines.
func said(s string) []piece {
	return split(s, func(r rune) bool { return r != '\n' && odd(r) })
}

func split(s string, odd func(rune) bool) []piece {
	var list []piece
	start := 0
	for i, r := range s {
		if !odd(r) {
			continue
		}
		if i > start {
			list = append(list, piece{s[start:i], false})
		}
		list = append(list, piece{number(r), true})
		start = i + runeLen(s[i:])
	}
	if start < len(s) {
		list = append(list, piece{s[start:], false})
	}
	return list
}

// readable is pieces in one string.
func readable(s string) string {
	var b strings.Builder
	for _, x := range pieces(s) {
		b.WriteString(x.Text)
	}
	return b.String()
}
