// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// printer writes for a person, or for a program with --json. Everything that it did not make itself is made harmless:
// other people wrote it, and a terminal obeys what it is shown.
type printer struct {
	w     io.Writer // takes colour away where the other side does not want it
	tty   bool
	width int // of the terminal; 0 where there is none, or it does not say
	now   func() time.Time
	local *time.Location
}

func newPrinter(w io.Writer, p Process) *printer {
	colours := colorprofile.NewWriter(w, p.Environ)
	if noColour(p.Environ) {
		colours.Profile = colorprofile.NoTTY
	}
	out := &printer{w: colours, now: p.Now, local: p.Zone}
	if f, ok := w.(*os.File); ok && term.IsTerminal(f.Fd()) {
		out.tty = true
		if width, _, err := term.GetSize(f.Fd()); err == nil {
			out.width = width
		}
	}
	return out
}

// noColour tells whether NO_COLOR is set to anything, as no-color.org has it; then there is none, whatever else is set.
func noColour(environ []string) bool {
	return slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "NO_COLOR=") && v != "NO_COLOR=" })
}

// styled is text that this program made itself and that may hold colour.
type styled string

var (
	boldStyle    = lipgloss.NewStyle().Bold(true)
	dimStyle     = lipgloss.NewStyle().Faint(true)
	goodStyle    = lipgloss.NewStyle().Foreground(lipgloss.Green)
	badStyle     = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
	alertStyle   = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	removedStyle = lipgloss.NewStyle().Foreground(lipgloss.Red)
)

func bold(s string) styled  { return styled(boldStyle.Render(harmless(s))) }
func dim(s string) styled   { return styled(dimStyle.Render(harmless(s))) }
func good(s string) styled  { return styled(goodStyle.Render(harmless(s))) }
func bad(s string) styled   { return styled(badStyle.Render(harmless(s))) }
func alert(s string) styled { return styled(alertStyle.Render(harmless(s))) }

// line writes one line. Texts among the arguments are made harmless, whatever their origin.
func (p *printer) line(format string, args ...any) {
	for i, a := range args {
		switch v := a.(type) {
		case styled, int, uint64, uint32, int64, bool:
		case string:
			args[i] = harmless(v)
		case error:
			args[i] = harmless(v.Error())
		default:
			args[i] = harmless(fmt.Sprint(v))
		}
	}
	fmt.Fprintln(p.w, trimmed(fmt.Sprintf(format, args...)))
}

// field writes a name and what it is, in two columns.
func (p *printer) field(name, format string, args ...any) {
	p.line("  %-13s "+format, append([]any{name}, args...)...)
}

// harmless shows control characters, and those that reorder or hide text, instead of sending them to the terminal
// (hardening 1.12). The result is one line.
func harmless(s string) string {
	if !strings.ContainsFunc(s, harmful) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(" ⏎ ")
		case r == '\t':
			b.WriteString("    ")
		case harmful(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case harmful(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}

// harmful are control characters and the invisible ones that change the order or look of what stands around them.
func harmful(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// table writes rows under headers; cells are texts, or styled.
func (p *printer) table(headers []string, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	t := table.New().Border(lipgloss.HiddenBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).
		BorderHeader(false).BorderColumn(false).Wrap(true).Headers(headers...).
		StyleFunc(func(row, _ int) lipgloss.Style {
			if row == table.HeaderRow {
				return lipgloss.NewStyle().Faint(true).PaddingRight(2)
			}
			return lipgloss.NewStyle().PaddingRight(2)
		})
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			if s, ok := c.(styled); ok {
				cells[i] = string(s)
			} else {
				cells[i] = harmless(fmt.Sprint(c))
			}
		}
		t.Row(cells...)
	}
	text := t.String()
	if p.width > 0 && lipgloss.Width(text) > p.width {
		text = t.Width(p.width).String()
	}
	for _, l := range strings.Split(text, "\n") {
		fmt.Fprintln(p.w, trimmed(l))
	}
}

// padding is what a table leaves at the end of a line: spaces, and the colours that they would have.
var padding = regexp.MustCompile(`(?: |\x1b\[[0-9;]*m)+$`)

func trimmed(line string) string {
	end := padding.FindString(line)
	line = strings.TrimSuffix(line, end)
	if strings.Contains(end, "\x1b") {
		line += "\x1b[m"
	}
	return line
}

// clock shows a time with zone, and how far away it is.
func (p *printer) clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return p.at(t.AsTime())
}

func (p *printer) at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%s (%s)", t.In(p.local).Format("2006-01-02 15:04:05 MST"), ago(p.now().Sub(t)))
}

// ago says how long ago, or ahead, in the two largest units.
func ago(d time.Duration) string {
	switch {
	case d > -time.Second && d < time.Second:
		return "now"
	case d < 0:
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

func span(d time.Duration) string {
	d = d.Truncate(time.Second)
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0 && hours > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case days > 0:
		return fmt.Sprintf("%d d", days)
	case hours > 0 && minutes > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case hours > 0:
		return fmt.Sprintf("%d h", hours)
	case minutes > 0:
		return fmt.Sprintf("%d min", minutes)
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// json writes a message as one line of JSON: field names as in the API, all fields there, no variation between runs.
func (p *printer) json(m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("answer as JSON: %w", err)
	}
	return p.jsonValue(json.RawMessage(b))
}

// jsonValue writes a value as one line of JSON.
func (p *printer) jsonValue(v any) error {
	b, err := json.Marshal(v) // compacts, so that protojson's random spaces are gone
	if err != nil {
		return fmt.Errorf("answer as JSON: %w", err)
	}
	_, err = fmt.Fprintf(p.w, "%s\n", b)
	return err
}

// short is the beginning of a digest or key id, enough to compare by eye.
func short(id string) string {
	prefix, rest, ok := strings.Cut(id, ":")
	if !ok {
		prefix, rest = "", id
	} else {
		prefix += ":"
	}
	return prefix + rest[:min(12, len(rest))]
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
