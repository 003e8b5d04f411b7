// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-ical"

	"cacert.org/emergency/pkg/oncall"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

func rosterPage(t *testing.T, h *hour) {
	commitment := regexp.MustCompile(`(?s)id="p-carl".*?<b>mail</b>.*?name="commitment" value="([^"]+)"`)
	body := plain(t, h.Env).as("carla").page("/roster")
	has(t, "roster", text(body), "People of the directory", "critical admin", "ECDSA P-256", "Board decision demo-board-1", "not surely reachable", "show the address")
	hasNot(t, "roster", body, "@example.org")
	found := commitment.FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("no address of carl can be asked for in\n%s", body)
	}
	ask := func(who string) answer {
		return plain(t, h.Env).as(who).do("POST", "/roster", url.Values{"commitment": {found[1]}})
	}
	shown := ask("anna")
	has(t, "for an assessor", text(shown.body), "carl@example.org", "It is written down that you read this")
	hasNot(t, "for an assessor", shown.body, "carla@example.org")
	refused := ask("tina")
	has(t, "for a tester", text(refused.body), "is not for you to read")
	hasNot(t, "for a tester", refused.body, "@example.org")
	has(t, "for the person", text(ask("carl").body), "carl@example.org")
}

// rotaPage: what is planned shows as planned, who stands in is told from it, and a gap is not to be overlooked.
func rotaPage(t *testing.T, h *hour) {
	now := h.clock.Now().UTC()
	monday := now.Truncate(24*time.Hour).AddDate(0, 0, -(int(now.Weekday())+6)%7)
	has(t, "before", text(plain(t, h.Env).as("tina").page("/rota")), "No gap: somebody of each team is on duty")
	turns, err := oncall.Rotation{Team: emergencyv1.Team_TEAM_TESTING, Persons: []string{"tina", "theo"}, From: monday.AddDate(0, 0, -7).Add(9 * time.Hour), Until: monday.AddDate(0, 0, 21).Add(9 * time.Hour), Days: 7, Called: 1}.Shifts()
	check(t, err)
	turns = oncall.StandIn(turns, emergencyv1.Team_TEAM_TESTING, []string{"theo", "tina"}, monday.AddDate(0, 0, 9), monday.AddDate(0, 0, 10))
	_, err = h.As("clara").Send(t.Context(), &emergencyv1.SetRotaRequest{Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, Team: emergencyv1.Team_TEAM_TESTING, Shifts: turns})
	check(t, err)
	w := plain(t, h.Env).as("theo")
	var body string
	for body = w.page("/rota"); !strings.Contains(body, "nobody would be called"); body = w.page("/rota") { // until the page has read it
		if t.Context().Err() != nil {
			t.Fatal("the page never shows the new schedule")
		}
	}
	said := text(body)
	gap := monday.AddDate(0, 0, 21).Add(9 * time.Hour)
	has(t, "schedule", said, "Gaps: nobody would be called (1)", "Testing team : "+gap.Format("2006-01-02 15:04 UTC"), "stands in", "theo , tina stands in", "On duty now:", "Next:", "The team leads set the schedule.", "epatch rota plan")
	has(t, "schedule", body, `class="part standin"`, `class="part gap"`, `<td class="today"`, `href="/rota?from=`+monday.AddDate(0, 0, 28).Format(time.DateOnly)+`"`)
	if n := strings.Count(body, `class="part gap"`); n != 7 { // from nine o'clock of the first day on, and the six days after it
		t.Errorf("%d days have a gap, want 7", n)
	}
	hasNot(t, "one week", text(w.page("/rota?weeks=1&from="+monday.Format(time.DateOnly))), "Gaps: nobody")
	has(t, "for a lead", text(plain(t, h.Env).as("clara").page("/rota")), "You lead a team")
	has(t, "with nonsense", text(w.page("/rota?weeks=x&from=soon")), "Gaps: nobody")

	for path, want := range map[string]int{"/rota.ics?team=testing": 8, "/rota.ics?team=testing&person=theo": 3, "/rota.ics": 13} {
		a := w.get(path)
		if got := a.Header.Get("Content-Type"); a.StatusCode != http.StatusOK || got != "text/calendar; charset=utf-8" {
			t.Fatalf("%s: %s, %s", path, a.Status, got)
		}
		cal, err := ical.NewDecoder(strings.NewReader(a.body)).Decode()
		check(t, err)
		if n := len(cal.Events()); n != want {
			t.Errorf("%s has %d events, want %d\n%s", path, n, want, a.body)
		}
	}
	for _, path := range []string{"/rota.ics?team=none", "/rota.ics?person=nobody"} {
		if a := w.get(path); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, a.Status)
		}
	}
}

func drillsPage(t *testing.T, h *hour, drill *testenv.Story) {
	said := text(plain(t, h.Env).as("clara").page("/drills"))
	has(t, "drills", said, "Drills and reachability", drill.ID, "answered of called", "1/2", "Assessment team 1/2 0:00:00 1 missing 0 bert", "drill due", "Not surely reachable", "Last emergency: "+h.story.ID, "--drill", "Nothing is recorded yet.")
	hasNot(t, "drills", said, "No drill was held yet")
}

// boardPage: its figures are the command line's.
func boardPage(t *testing.T, h *hour) {
	w := plain(t, h.Env).as("bea")
	now := h.clock.Now().UTC()
	whole := fmt.Sprintf("from=%d-01-01&until=%d-01-01", now.Year(), now.Year()+1)
	body := w.page("/board")
	said := text(body)
	has(t, "board", said, "1 emergencies declared", "1 drills", "1 not reported to the Board", "Time from the declaration to each step", "deploy", "Obligations over time", "The period is not over",
		h.story.ID, "epatch board-summary --from "+fmt.Sprint(now.Year())+"-01-01")
	has(t, "board", body, `role="img" aria-label="Obligations over time: at most `, `<path class="area" d="M0 158V`)
	table := w.get("/board.csv?" + whole)
	rows, err := csv.NewReader(strings.NewReader(table.body)).ReadAll()
	check(t, err)
	if len(rows) != 3 || rows[1][1] != h.story.ID || rows[2][0] != "drill" {
		t.Fatalf("table %v", rows)
	}
	// Met, open and overdue of the one emergency, as the table for programs has them.
	cells := regexp.MustCompile(`(?s)<th scope="row"><a href="/incidents/` + h.story.ID + `">.*?</tr>`).FindString(body)
	var figures []string
	for _, m := range regexp.MustCompile(`<td[^>]*>(\d+)</td>`).FindAllStringSubmatch(cells, -1) {
		figures = append(figures, m[1])
	}
	if got, want := fmt.Sprint(figures[len(figures)-3:]), fmt.Sprint([]string{rows[1][13], rows[1][15], rows[1][16]}); got != want {
		t.Errorf("met, open, overdue: the page has %s, the table %s", got, want)
	}
	has(t, "another year", text(w.page("/board?from=2001-01-01&until=2002-01-01")), "0 emergencies declared", "No figures yet.")
	if a := w.get("/board?from=2002-01-01&until=2001-01-01"); a.StatusCode != http.StatusBadRequest {
		t.Errorf("a period that ends before it begins: %s", a.Status)
	}
}

func systemPage(t *testing.T, h *hour) {
	body := plain(t, h.Env).as("carl").page("/system")
	has(t, "system", text(body), "0 records behind", "0 foreign records refused", "Log of all histories EMERGENCY", "Copies 1", "Read models", "timeline", "None since this process began.", "Deployment answers")
	if n := strings.Count(body, `<span class="badge good">answers</span>`); n != 5 {
		t.Errorf("%d services answer, want 5", n)
	}
	hasNot(t, "system", text(body), "does not answer")
}
