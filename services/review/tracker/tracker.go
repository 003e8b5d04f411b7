// SPDX-License-Identifier: Apache-2.0

// Package tracker writes notes to the bugs of a MantisBT tracker by its REST API, version 2.x.
//
// A note is delivered once: it ends with a line of its own that names it, and before writing, the bug's notes are read for
// that line. So a delivery whose answer was lost may be repeated. The tracker is never believed in anything but whether it
// has the note; no step of the procedure waits for it.
package tracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Token is the secret that MantisBT calls an API token. Printed or logged it shows nothing.
type Token string

// String hides the token.
func (Token) String() string { return "(secret)" }

// GoString hides the token.
func (Token) GoString() string { return "(secret)" }

// MarshalText hides the token from encoders.
func (Token) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// Config is one tracker. The zero value is none.
type Config struct {
	// URL is the address of the MantisBT installation, such as https://bugs.example.org; http on this machine only.
	URL string
	// Token is the API token of the account that writes the notes.
	Token Token
	// Project is the name of the project that a bug must belong to; any if empty. It keeps a mistyped bug id from telling
	// strangers of an emergency.
	Project string
	// Private writes notes that only the tracker's own team can see.
	Private bool
	// Timeout of one request; 20 s if zero.
	Timeout time.Duration
}

// Set tells whether a tracker is configured.
func (c Config) Set() bool { return c != Config{} }

// Check names each setting that cannot be, and what to write instead.
func (c Config) Check() error {
	_, err := c.parse()
	return err
}

func (c Config) parse() (*url.URL, error) {
	var errs []error
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		errs, u = append(errs, errors.New("tracker.url: not an address such as https://bugs.example.org")), &url.URL{}
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		errs = append(errs, errors.New("tracker.url: without user, query and fragment; the token says who we are"))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		errs = append(errs, fmt.Errorf("tracker.url: http is for a tracker on this machine, %q is not; use https", u.Hostname()))
	}
	if !tokenForm.MatchString(string(c.Token)) {
		errs = append(errs, errors.New("tracker.token: not a MantisBT API token; make one under My Account, API Tokens"))
	}
	if c.Timeout < 0 {
		errs = append(errs, errors.New("tracker.timeout: must not be negative"))
	}
	return u, errors.Join(errs...)
}

var tokenForm = regexp.MustCompile(`^[\x21-\x7e]{1,256}$`)

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

var issueForm = regexp.MustCompile(`^(?:[A-Za-z]+[-:/])?0*([1-9][0-9]{0,8})$`)

// Issue is the tracker's number of a bug id such as 1500, 0001500 or bug-1500; ok is false for an id that has none.
func Issue(bugID string) (number int, ok bool) {
	m := issueForm.FindStringSubmatch(bugID)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil
}

// Tracker is one MantisBT installation. It is safe for concurrent use.
type Tracker struct {
	cfg    Config
	base   *url.URL
	client *http.Client
}

// New checks the configuration. It does not ask the tracker, which may be down.
func New(cfg Config) (*Tracker, error) {
	base, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	dialer := &net.Dialer{}
	if base.Scheme == "http" {
		dialer.Control = onlyLoopback
	}
	return &Tracker{cfg: cfg, base: base, client: &http.Client{
		Timeout: timeout,
		// Notes are rare: a new connection for each is cheaper than one that died unnoticed.
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}}, nil
}

// onlyLoopback holds back a connection without TLS whose name leads elsewhere than when it was checked.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !loopback(host) {
		return errors.New("refused: no TLS, and the tracker is not on this machine")
	}
	return nil
}

// ErrRefused is returned by Deliver when the note can never be written: the bug does not exist, or it belongs to another
// project. All other errors may pass; try again later.
var ErrRefused = errors.New("the tracker has no such bug")

// mark is the line that names a note.
func mark(note string) string { return "Note: " + note }

// Deliver writes a note to a bug unless it is there already. The text is followed by the line that names the note.
func (t *Tracker) Deliver(ctx context.Context, issue int, note, text string) error {
	there, err := t.find(ctx, issue, note)
	if err != nil || there {
		return err
	}
	view := "public"
	if t.cfg.Private {
		view = "private"
	}
	body := noteBody{Text: strings.TrimRight(text, "\n") + "\n\n" + mark(note), ViewState: named{view}}
	return t.call(ctx, http.MethodPost, fmt.Sprintf("issues/%d/notes", issue), body, http.StatusCreated, nil)
}

type named struct {
	Name string `json:"name"`
}

type noteBody struct {
	Text      string `json:"text"`
	ViewState named  `json:"view_state"`
}

// issuesBody is the part of the answer to GET issues/{id} that counts. A bug without notes has no member notes.
type issuesBody struct {
	Issues []struct {
		ID      int        `json:"id"`
		Project named      `json:"project"`
		Notes   []noteBody `json:"notes"`
	} `json:"issues"`
}

// find tells whether a bug has the note.
func (t *Tracker) find(ctx context.Context, issue int, note string) (bool, error) {
	var got issuesBody
	if err := t.call(ctx, http.MethodGet, fmt.Sprintf("issues/%d", issue), nil, http.StatusOK, &got); err != nil {
		return false, err
	}
	if len(got.Issues) != 1 || got.Issues[0].ID != issue {
		return false, fmt.Errorf("tracker: asked for bug %d, the answer is about something else", issue)
	}
	if p := got.Issues[0].Project.Name; t.cfg.Project != "" && p != t.cfg.Project {
		return false, fmt.Errorf("%w in project %q: bug %d belongs to project %q", ErrRefused, t.cfg.Project, issue, p)
	}
	for _, n := range got.Issues[0].Notes {
		for line := range strings.Lines(n.Text) {
			if strings.TrimSpace(line) == mark(note) {
				return true, nil
			}
		}
	}
	return false, nil
}

const (
	maxAnswer    = 16 << 20 // a bug with very many notes
	bugNotFound  = 1100     // MantisBT's ERROR_BUG_NOT_FOUND
	maxErrorText = 160
)

// call makes one request. Errors never hold the token.
func (t *Tracker) call(ctx context.Context, method, path string, in any, want int, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("tracker: %w", err)
	}
	var sent io.Reader
	if in != nil {
		sent = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.base.JoinPath("api/rest", path).String(), sent)
	if err != nil {
		return fmt.Errorf("tracker: %w", err)
	}
	req.Header.Set("Authorization", string(t.cfg.Token))
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return fmt.Errorf("tracker: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("tracker: %s %s: %w", method, path, err)
	case len(answer) > maxAnswer:
		return fmt.Errorf("tracker: %s %s: the answer is larger than %d bytes", method, path, maxAnswer)
	case resp.StatusCode != want:
		return refusal(method, path, resp, answer)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("tracker: %s %s: the answer is no JSON of MantisBT: %w", method, path, err)
	}
	return nil
}

// refusal is the error of an unwanted status. Only MantisBT's own "no such bug" is final: a proxy or a wrong address can
// answer 404 too, and that an operator can mend.
func refusal(method, path string, resp *http.Response, answer []byte) error {
	var fault struct {
		Message string `json:"message"`
		Code    int    `json:"code"`
	}
	_ = json.Unmarshal(answer, &fault) // other answers have neither
	said := fault.Message
	if said == "" {
		said = resp.Status // MantisBT says "403 API token not found" here
	}
	said = said[:min(len(said), maxErrorText)]
	if resp.StatusCode == http.StatusNotFound && fault.Code == bugNotFound {
		return fmt.Errorf("%w: %s %s: %q", ErrRefused, method, path, said)
	}
	return fmt.Errorf("tracker: %s %s: status %d, %q", method, path, resp.StatusCode, said)
}
