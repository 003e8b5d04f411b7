// SPDX-License-Identifier: Apache-2.0

package notification_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/notification/channel"
)

// web is the answer page behind real TLS, and people with certificates of a development CA.
type web struct {
	*rig
	ca   *devca.CA
	url  string
	link string // carla's
}

// newWeb declares, and waits until carla has her link.
func newWeb(t *testing.T) *web {
	t.Helper()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := &web{rig: newRig(t, mail, irc)}
	var err error
	if x.ca, err = devca.Open(t.TempDir(), time.Now); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"carla", "carl"} {
		leaf := x.profile(x.ca.Person(name)).Certificate.Leaf
		key := &emergencyv1.Key{KeyId: procedure.KeyID(leaf.RawSubjectPublicKeyInfo), PublicKey: leaf.RawSubjectPublicKeyInfo, Person: name}
		x.must(x.Do(x.Dispatcher(procedure.OwnerArbitration), procedure.RuleBook, "bea", &emergencyv1.AddKeyRequest{Key: key}))
	}
	x.start()
	server := httptest.NewUnstartedServer(http.StripPrefix("/r", x.server.Answer()))
	server.TLS = identity.ServerTLS(x.profile(x.ca.Server("web")).Current, "http/1.1")
	server.StartTLS()
	t.Cleanup(server.Close)
	x.url = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	x.declare("anna")
	x.until("called", allReported("mail"))
	page := mail.pages(func(p channel.Page) bool { return p.Urgent && p.Recipient.Person == "carla" })[0]
	x.link = x.url + strings.TrimPrefix(page.Link, "https://emergency.example")
	return x
}

func (x *web) profile(dir string, err error) *identity.Profile {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
	p, err := identity.Load(dir, identity.LoadOptions{Now: time.Now(), Dev: true})
	if err != nil {
		x.t.Fatal(err)
	}
	return p
}

// as is a browser with a person's certificate; nobody's for an empty name.
func (x *web) as(name string) *http.Client {
	x.t.Helper()
	roots, err := identity.LoadRoots(x.ca.RootFile())
	if err != nil {
		x.t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	if name != "" {
		cfg.Certificates = []tls.Certificate{x.profile(x.ca.Person(name)).Certificate}
	}
	transport := &http.Transport{TLSClientConfig: cfg}
	x.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// get opens the page, post sends the form.
func (x *web) get(c *http.Client, link string) (int, string) {
	x.t.Helper()
	req, err := http.NewRequestWithContext(x.t.Context(), http.MethodGet, link, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	return x.answer(c.Do(req))
}

func (x *web) post(c *http.Client, link string, form url.Values, headers ...string) (int, string) {
	x.t.Helper()
	req, err := http.NewRequestWithContext(x.t.Context(), http.MethodPost, link, strings.NewReader(form.Encode()))
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return x.answer(c.Do(req))
}

func (x *web) answer(resp *http.Response, err error) (int, string) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	for _, h := range []string{"Content-Security-Policy", "Referrer-Policy", "Cache-Control"} {
		if resp.Header.Get(h) == "" && resp.StatusCode != http.StatusForbidden {
			x.t.Errorf("no header %s", h)
		}
	}
	return resp.StatusCode, string(body)
}

func accept() url.Values {
	return url.Values{"answer": {"accept"}, "contact": {"+49 30 1234567"}}
}

// want checks status, what is to be read, and that nothing was recorded but what is said.
func (x *web) want(what string, status int, body string, code int, text string, held int) {
	x.t.Helper()
	if status != code || !strings.Contains(body, text) {
		x.t.Errorf("%s: %d, want %d with %q:\n%s", what, status, code, text, body)
	}
	if n := len(x.State(incident).Held("carla")); n != held {
		x.t.Errorf("%s: carla holds %d slots, want %d", what, n, held)
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	x := newWeb(t)
	carla, carl, stranger, nobody := x.as("carla"), x.as("carl"), x.as("mallory"), x.as("")

	// Without her certificate, or with somebody else's, a link is good for nothing.
	for name, c := range map[string]*http.Client{"no certificate": nobody, "carl's certificate": carl, "a certificate nobody knows": stranger} {
		status, body := x.get(c, x.link)
		x.want(name, status, body, http.StatusOK, "open this page with your client certificate", 0)
		if strings.Contains(body, "<form") {
			t.Errorf("%s: shows the form", name)
		}
		status, body = x.post(c, x.link, accept())
		x.want(name, status, body, http.StatusForbidden, "open this page with your client certificate", 0)
	}

	// A forged one is none.
	parts := strings.Split(x.link, "/")
	for name, change := range map[string]func([]string){
		"another page":     func(p []string) { p[len(p)-3] = "1.3" },
		"another incident": func(p []string) { p[len(p)-4] = "e20261124.2" },
		"a later end":      func(p []string) { p[len(p)-2] = "zzzzzz" },
		"another mac":      func(p []string) { p[len(p)-1] = strings.Repeat("A", 22) },
		"no mac":           func(p []string) { p[len(p)-1] = "-" },
	} {
		forged := append([]string{}, parts...)
		change(forged)
		for _, c := range []*http.Client{carla, nobody} {
			status, body := x.get(c, strings.Join(forged, "/"))
			x.want(name, status, body, http.StatusNotFound, "not one of ours", 0)
		}
		status, body := x.post(carla, strings.Join(forged, "/"), accept())
		x.want(name, status, body, http.StatusNotFound, "not one of ours", 0)
	}

	// A form on another site must not answer for her.
	status, body := x.post(carla, x.link, accept(), "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
	x.want("cross-site", status, body, http.StatusForbidden, "", 0)

	// What the rules refuse is said as they say it.
	status, body = x.post(carla, x.link, url.Values{"answer": {"accept"}})
	x.want("no contact", status, body, http.StatusConflict, "how to reach carla", 0)

	// With her certificate it takes her a slot, once.
	status, body = x.get(carla, x.link)
	x.want("her page", status, body, http.StatusOK, "<form", 0)
	if strings.Contains(body, "carla@") {
		t.Error("the page shows an address")
	}
	status, body = x.post(carla, x.link, accept())
	x.want("accepted", status, body, http.StatusOK, "used up", 1)
	status, body = x.post(carla, x.link, accept())
	x.want("used", status, body, http.StatusForbidden, "used up", 1)
	status, body = x.post(carla, x.link, url.Values{"answer": {"decline"}})
	x.want("used for something else", status, body, http.StatusForbidden, "used up", 1)
	held := x.State(incident).Held("carla")[0]
	if held.State != procedure.SlotStandby || held.Team != emergencyv1.Team_TEAM_CRITICAL {
		t.Errorf("%+v", held)
	}
	for _, e := range x.Entries(incident) {
		if e.Record.GetCommand() == "Respond" && !strings.HasSuffix(e.Record.GetEvents()[0].GetType(), "CommandRefused") {
			if a := e.Record.GetActor(); a.GetPerson() != "carla" || a.GetSystem() != 0 || a.GetKeyId() == "" {
				t.Errorf("answered by %v", a)
			}
		}
	}
	// She gives the slot back: the link stays used up, a new page has a new one.
	x.must(x.Do(x.Dispatcher(procedure.OwnerNotification), incident, "carla", &emergencyv1.EndStandbyRequest{Slot: held.ID, Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED}))
	status, body = x.post(carla, x.link, accept())
	x.want("after she released the slot", status, body, http.StatusForbidden, "used up", 0)
}

func TestLinkDeclines(t *testing.T) {
	t.Parallel()
	x := newWeb(t)
	carla := x.as("carla")
	status, body := x.post(carla, x.link, url.Values{"answer": {"decline"}, "reason": {"on a train"}})
	x.want("declined", status, body, http.StatusOK, "used up", 0)
	if d := x.State(incident).Declined; len(d) != 1 || d[0].Person != "carla" {
		t.Errorf("%+v", d)
	}
	status, body = x.post(carla, x.link, accept())
	x.want("after all", status, body, http.StatusForbidden, "used up", 0)
}

func TestLinkExpires(t *testing.T) {
	t.Parallel()
	x := newWeb(t)
	carla := x.as("carla")
	x.Clock.Advance(24 * time.Hour)
	status, body := x.get(carla, x.link)
	x.want("exactly at its end", status, body, http.StatusOK, "<form", 0)
	x.Clock.Advance(time.Second)
	status, body = x.get(carla, x.link)
	x.want("expired", status, body, http.StatusNotFound, "expired", 0)
	status, body = x.post(carla, x.link, accept())
	x.want("expired", status, body, http.StatusNotFound, "expired", 0)
}

func TestLinkAfterTheEnd(t *testing.T) {
	t.Parallel()
	x := newWeb(t)
	x.must(x.Do(x.Dispatcher(procedure.OwnerIncident), incident, "anna", proceduretest.StandDown()))
	status, body := x.get(x.as("carla"), x.link)
	x.want("stood down", status, body, http.StatusOK, "used up", 0)
	status, body = x.post(x.as("carla"), x.link, accept())
	x.want("stood down", status, body, http.StatusForbidden, "used up", 0)
}
