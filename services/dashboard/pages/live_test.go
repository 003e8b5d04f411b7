// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
)

// What only the passing of time changes is not sent again: the page's script counts it on.
func TestTimeAloneIsNoChange(t *testing.T) {
	t.Parallel()
	raw, err := proto.Marshal(rulebook.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	policy, err := rulebook.ParsePolicy(raw)
	if err != nil {
		t.Fatal(err)
	}
	draw := func(now time.Time, name string) []byte {
		v := at("en", t)
		v.now = now
		st := procedure.NewState("e20261124.1")
		st.Status, st.Strategy, st.RecordedAt = procedure.Open, 1, now
		st.Policy = policy
		st.Declared = procedure.Declaration{At: time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC), By: "carla", System: name}
		c := v.card(st)
		due := c.Due
		f := frame{viewer: v, Clock: &clockView{ID: c.ID, System: name, Due: due, Left: due.left(now), Strategy: 1}, Fresh: fresh{c.ID, 1, c.Declared}, Now: stamp(now)}
		v.Person = "carla"
		var b bytes.Buffer
		if err := errors.Join(v.templates.ExecuteTemplate(&b, "live", f), v.templates.ExecuteTemplate(&b, "card", c)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	one, two := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC), time.Date(2026, 11, 24, 3, 0, 15, 0, time.UTC)
	if bytes.Equal(draw(one, "webdb"), draw(two, "webdb")) {
		t.Error("the clock stands still")
	}
	if !bytes.Equal(timeless(draw(one, "webdb")), timeless(draw(two, "webdb"))) {
		t.Errorf("fifteen seconds are a change:\n%s\n%s", timeless(draw(one, "webdb")), timeless(draw(two, "webdb")))
	}
	if bytes.Equal(timeless(draw(one, "webdb")), timeless(draw(one, "other"))) {
		t.Error("another system is no change")
	}
}

// passing says by patterns what timeless does by looking for attributes.
var passing = regexp.MustCompile(`( data-)now="[^"]*|<(?:span|b)[^>]* data-(?:ago|until)="[^"]*"[^>]*>[^<]*`)

func TestTimelessIsWhatTheAttributesSay(t *testing.T) {
	t.Parallel()
	for _, page := range []string{
		"", "<p>nothing</p>", `<footer data-now="2026-11-24T03:00:00Z" class="x">a</footer>`, `<p data-other="1">b</p>`,
		`<b class="left"><span data-until="2026-11-25T01:00:00Z">22 h</span></b> and <span class="ago" data-ago="2026">1 min ago</span>!`,
		`<p> data-ago=&#34;x&#34; in a text</p><b data-until="x">1</b><b data-until="y">2</b>`, `<span data-ago="cut`, `data-now="`, ` data-now="`,
	} {
		if strings.HasSuffix(page, "cut") || strings.HasSuffix(page, `"`) && !strings.Contains(page, ">") {
			timeless([]byte(page)) // no page, and yet it ends
			continue
		}
		if got, want := string(timeless([]byte(page))), passing.ReplaceAllString(page, "$1"); got != want {
			t.Errorf("of %s\n is left %s\nand not %s", page, got, want)
		}
	}
}
