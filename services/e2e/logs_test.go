// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// TestLogsTellNoSecrets plays a whole emergency with everything logged that can be, services and agents, and searches the lines for what must
// never be in them: addresses of people, what they typed, tokens of links and sign-ins, keys. Persons are named by their ids alone.
func TestLogsTellNoSecrets(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{Settings: func(set *app.Settings) { set.LogLevel, set.LogFormat = "debug", "json" }})
	story := env.Play(testenv.Closed)

	// Somebody follows the link of a call, and somebody signs in to the pages.
	var secrets []string
	for _, p := range append(env.Mail.Sent(), env.SMS.Sent()...) {
		secrets = append(secrets, p.Recipient.Address, p.Text, p.Headline)
		if u, err := url.Parse(p.Link); err == nil && strings.HasPrefix(u.Path, "/r/") {
			token := strings.TrimPrefix(u.Path, "/r/")
			secrets = append(secrets, token)
			request(t, "GET", "http://"+env.HTTP()+"/r/"+token, nil)
		}
	}
	for _, c := range request(t, "POST", "http://"+env.HTTP()+"/sign-in", url.Values{"person": {"carla"}, "next": {"/home"}}) {
		secrets = append(secrets, c.Value)
	}
	for _, p := range demobook.People() {
		secrets = append(secrets, p.ID+"@example.org", "+43 1 "+p.ID)
	}
	secrets = append(secrets, "cert-info runs what its caller says", "anybody can read the configuration", "looked at every line") // as Story types them
	secrets = append(secrets, keyMaterial(t, env.Data())...)
	for _, s := range story.State().Restricted {
		if len(s.Commitment) < 32 {
			t.Fatalf("restricted value without commitment: %+v", s)
		}
	}

	lines := env.Log.Lines()
	if text := strings.Join(lines, "\n"); len(lines) < 100 || !strings.Contains(text, story.ID) || !strings.Contains(text, "trace_id") {
		t.Fatalf("%d lines were logged, too few to judge, or they name neither incident nor trace", len(lines))
	}
	seen := 0
	for _, secret := range secrets {
		if len(secret) < 8 {
			continue // a word like it may be anything
		}
		seen++
		if line := firstWith(lines, secret); line != "" {
			t.Errorf("%q is in the log: %s", secret, line)
		}
	}
	if seen < 50 {
		t.Errorf("only %d secrets were looked for", seen)
	}
}

// firstWith is the first line that has the text, as it is or as JSON writes it.
func firstWith(lines []string, text string) string {
	for _, form := range []string{text, strings.ReplaceAll(text, "\n", `\n`), strings.ReplaceAll(text, "+", `\u002b`)} {
		for _, l := range lines {
			if strings.Contains(l, form) {
				return l
			}
		}
	}
	return ""
}

// TestFirstWith: the search finds what is there.
func TestFirstWith(t *testing.T) {
	t.Parallel()
	lines := []string{`{"msg":"mail","to":"anna@example.org"}`, `{"text":"two\nlines"}`}
	if firstWith(lines, "anna@example.org") != lines[0] || firstWith(lines, "two\nlines") != lines[1] || firstWith(lines, "bert@example.org") != "" {
		t.Error("the search does not find what is there, or finds what is not")
	}
}

// keyMaterial are the private keys in a data folder, in the forms in which they might be written.
func keyMaterial(t *testing.T, data string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		switch filepath.Base(path) {
		case "key.pem", "signing.pem":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, line := range strings.Split(string(text), "\n") {
				if line != "" && !strings.HasPrefix(line, "-----") {
					list = append(list, line)
				}
			}
		case "link.key":
			key, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			list = append(list, hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key))
		}
		return nil
	})
	if err != nil || len(list) < 20 {
		t.Fatalf("%d lines of keys below %s: %v", len(list), data, err)
	}
	return append(list, "PRIVATE KEY")
}

// request asks for a page and returns the cookies it sets.
func request(t *testing.T, method, address string, form url.Values) []*http.Cookie {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		u := req.URL
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", u.Scheme+"://"+u.Host)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.Cookies()
}
