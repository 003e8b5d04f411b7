// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"crypto/tls"
	"crypto/x509"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cacert.org/emergency/services/internal/testenv"
)

// site is a browser without JavaScript: it keeps cookies, sends the origin of forms, and follows nothing by itself.
type site struct {
	t       *testing.T
	base    string
	client  *http.Client
	cookies map[string]string
	header  http.Header
}

// plain opens the pages of a system at its loopback address, without TLS.
func plain(t *testing.T, env *testenv.Env) *site {
	return &site{t: t, base: "http://" + env.HTTP(), client: client(&http.Transport{}), cookies: map[string]string{}, header: http.Header{}}
}

// shown opens them by TLS, with the certificate in a profile folder; an empty one shows none.
func shown(t *testing.T, env *testenv.Env, dir string) *site {
	t.Helper()
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(env.Data("people", "carla"), "ca.pem"))
	check(t, err)
	roots.AppendCertsFromPEM(pem)
	cfg := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	if dir != "" {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		check(t, err)
		cfg.Certificates = []tls.Certificate{cert}
	}
	return &site{t: t, base: "https://" + env.HTTPS(), client: client(&http.Transport{TLSClientConfig: cfg}), cookies: map[string]string{}, header: http.Header{}}
}

func client(tr *http.Transport) *http.Client {
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

func (s *site) do(method, path string, form url.Values, header ...string) answer {
	s.t.Helper()
	if form == nil {
		return s.send(method, path, nil, header...)
	}
	return s.send(method, path, strings.NewReader(form.Encode()), append([]string{"Content-Type", "application/x-www-form-urlencoded", "Origin", s.base}, header...)...)
}

// post sends a form of another kind than do.
func (s *site) post(path, body, contentType string) answer {
	s.t.Helper()
	return s.send("POST", path, strings.NewReader(body), "Content-Type", contentType, "Origin", s.base)
}

func (s *site) send(method, path string, body io.Reader, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, body)
	check(s.t, err)
	for k, v := range s.header {
		req.Header[k] = v
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	for k, v := range s.cookies {
		req.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	resp, err := s.client.Do(req)
	check(s.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	check(s.t, err)
	for _, c := range resp.Cookies() {
		if s.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(s.cookies, c.Name)
		}
	}
	return answer{resp, string(b)}
}

func (s *site) get(path string) answer { s.t.Helper(); return s.do("GET", path, nil) }

// page is a page that must be there.
func (s *site) page(path string) string {
	s.t.Helper()
	a := s.get(path)
	if a.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s to %q\n%s", path, a.Status, a.Header.Get("Location"), a.body)
	}
	return a.body
}

// as signs in by choosing a person.
func (s *site) as(person string) *site {
	s.t.Helper()
	if a := s.do("POST", "/sign-in", url.Values{"person": {person}, "next": {"/home"}}); a.StatusCode != http.StatusSeeOther {
		s.t.Fatalf("sign in as %s: %s\n%s", person, a.Status, a.body)
	}
	return s
}

func has(t *testing.T, what, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(body, want) {
			t.Errorf("%s: %q is not in\n%s", what, want, body)
		}
	}
}

func hasNot(t *testing.T, what, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if strings.Contains(body, want) {
			t.Errorf("%s: %q is in\n%s", what, want, body)
		}
	}
}

var tags = regexp.MustCompile(`<[^>]*>`)

// text is a page without its tags.
func text(body string) string {
	return html.UnescapeString(strings.Join(strings.Fields(tags.ReplaceAllString(body, " ")), " "))
}
