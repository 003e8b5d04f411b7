// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cacert.org/emergency/services/notification/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789abcdef0123456789abcdef"

var at = time.Date(2026, 11, 24, 3, 4, 5, 0, time.UTC)

// fixed is a clock that stands.
type fixed struct{ channel.System }

func (fixed) Now() time.Time { return at }

func page() channel.Page {
	return channel.Page{
		ID: "e20261124.1/1.3", Incident: "e20261124.1", Headline: "Critical admin\nneeded", Text: "Please answer.\r\nGrüße\x00", Link: "https://emergency.example.org/",
		Recipient: channel.Recipient{Person: "p1", Address: "+491700000000"}, Urgent: true, At: at,
	}
}

func open(t *testing.T, url string) *Channel {
	t.Helper()
	c, err := New(Config{Name: "sms", URL: url, Secret: secret}, fixed{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestRequestIsSignedAndWhole(t *testing.T) {
	t.Parallel()
	type request struct {
		header http.Header
		method string
		body   []byte
	}
	got := make(chan request, 2)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- request{r.Header, r.Method, b}
		fmt.Fprint(w, `{"id":"gw-1","other":[1]}`)
	})
	c := open(t, url)
	if r := c.Send(t.Context(), page()); r.State != channel.Sent || r.RemoteID != "gw-1" {
		t.Fatalf("%+v", r)
	}
	req := <-got
	if err := Verify([]byte(secret), req.header.Get(SignatureHeader), req.body, at.Add(Window), Window); err != nil {
		t.Errorf("the receiver refuses it: %v", err)
	}
	if req.method != http.MethodPost || req.header.Get(IdempotencyHeader) != "e20261124.1/1.3" || req.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v", req.method, req.header)
	}
	var m Message
	if err := json.Unmarshal(req.body, &m); err != nil {
		t.Fatal(err)
	}
	want := Message{Page: "e20261124.1/1.3", Incident: "e20261124.1", Headline: "Critical admin needed", Text: "Please answer.\nGrüße", Link: "https://emergency.example.org/", Person: "p1", Address: "+491700000000", Urgent: true, At: at}
	if m != want {
		t.Errorf("%+v, want %+v", m, want)
	}
	c.Send(t.Context(), page())
	if again := <-got; string(again.body) != string(req.body) || again.header.Get(IdempotencyHeader) != req.header.Get(IdempotencyHeader) {
		t.Error("the same page is another request")
	}
}

func TestReceiptsAreTrue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code    int
		body    string
		after   string
		state   channel.State
		temp    bool
		pause   time.Duration
		details string
	}{
		{200, "", "", channel.Sent, false, 0, "taken"},
		{202, "not json", "", channel.Sent, false, 0, "taken"},
		{200, `{"id":"x","state":"delivered"}`, "", channel.Delivered, false, 0, "arrived"},
		{200, `{"state":"queued"}`, "", channel.Sent, false, 0, "taken"},
		{204, "", "10", channel.Sent, false, 0, "taken"},
		{500, `{"state":"delivered"}`, "", channel.Failed, true, 0, "500"},
		{503, "", "120", channel.Failed, true, 2 * time.Minute, "503"},
		{503, "", at.Add(30 * time.Second).Format(http.TimeFormat), channel.Failed, true, 30 * time.Second, "503"},
		{503, "", at.Add(-time.Hour).Format(http.TimeFormat), channel.Failed, true, 0, "503"},
		{503, "", "99999999", channel.Failed, true, maxPause, "503"},
		{503, "", "-5", channel.Failed, true, 0, "503"},
		{503, "", "99999999999999999999", channel.Failed, true, 0, "503"},
		{429, "", "7", channel.Failed, true, 7 * time.Second, "429"},
		{408, "", "", channel.Failed, true, 0, "408"},
		{425, "", "", channel.Failed, true, 0, "425"},
		{502, "", "", channel.Unknown, true, 0, "502"},
		{504, "", "", channel.Unknown, true, 0, "504"},
		{400, "", "7", channel.Failed, false, 0, "400"},
		{401, "", "", channel.Failed, false, 0, "check sms.secret"},
		{404, "", "", channel.Failed, false, 0, "404"},
		{410, "", "", channel.Failed, false, 0, "410"},
		{307, "", "", channel.Failed, false, 0, "correct sms.url"},
		{302, "", "", channel.Failed, false, 0, "correct sms.url"},
	} {
		t.Run(strconv.Itoa(c.code)+" "+c.after+c.body, func(t *testing.T) {
			t.Parallel()
			elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", elsewhere)
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.code)
				_, _ = io.WriteString(w, c.body)
			})
			r := open(t, url).Send(t.Context(), page())
			if r.State != c.state || r.Temporary != c.temp || r.RetryAfter != c.pause || !strings.Contains(r.Detail, c.details) {
				t.Errorf("%+v, want %s temporary=%v pause=%s", r, c.state, c.temp, c.pause)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	t.Run("connection lost", func(t *testing.T) {
		t.Parallel()
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		})
		if r := open(t, url).Send(t.Context(), page()); r.State != channel.Unknown || !r.Temporary || !strings.Contains(r.Detail, "lost") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		url := serve(t, func(http.ResponseWriter, *http.Request) { cancel(); <-release })
		defer close(release)
		if r := open(t, url).Send(ctx, page()); r.State != channel.Unknown || !r.Temporary || !strings.Contains(r.Detail, "in time") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if r := open(t, "http://"+l.Addr().String()+"/?key=hush").Send(t.Context(), page()); r.State != channel.Failed || !r.Temporary || strings.Contains(r.Detail, "hush") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("answer is cut", func(t *testing.T) {
		t.Parallel()
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"id":`)
		})
		if r := open(t, url).Send(t.Context(), page()); r.State != channel.Sent {
			t.Errorf("%+v, want sent: the status came", r)
		}
	})
	t.Run("endless answer", func(t *testing.T) {
		t.Parallel()
		var n int
		done := make(chan struct{})
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			defer close(done)
			for {
				m, err := w.Write(make([]byte, 1<<16))
				if n += m; err != nil {
					return
				}
			}
		})
		if r := open(t, url).Send(t.Context(), page()); r.State != channel.Sent {
			t.Errorf("%+v", r)
		}
		<-done
	})
	t.Run("no address", func(t *testing.T) {
		t.Parallel()
		p := page()
		p.Recipient.Address = ""
		if r := open(t, "http://127.0.0.1:1").Send(t.Context(), p); r.State != channel.Failed || r.Temporary {
			t.Errorf("%+v", r)
		}
	})
	t.Run("an id that cannot be a header", func(t *testing.T) {
		t.Parallel()
		p := page()
		p.ID = "x\r\nEvil: 1"
		if r := open(t, serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("sent: %v", r.Header) })).Send(t.Context(), p); r.State != channel.Failed {
			t.Errorf("%+v", r)
		}
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(t.Output(), "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: "sms", URL: s.URL, Secret: secret}
	cfg.CAFile = ca
	c, err := New(cfg, fixed{})
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Send(t.Context(), page()); r.State != channel.Sent {
		t.Errorf("%+v", r)
	}
	if r := open(t, s.URL).Send(t.Context(), page()); r.State != channel.Failed || r.Temporary || !strings.Contains(r.Detail, "sms.ca_file") {
		t.Errorf("a certificate nobody vouches for: %+v", r)
	}
	plain := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request in clear") })
	if r := open(t, strings.Replace(plain, "http:", "https:", 1)).Send(t.Context(), page()); r.State != channel.Failed || r.Temporary {
		t.Errorf("no TLS at the other end: %+v", r)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	body := []byte(`{"page":"1"}`)
	key := []byte(secret)
	good := sign(key, body, at)
	stamp, tag, _ := strings.Cut(good, ",")
	for _, c := range []struct {
		name   string
		key    []byte
		header string
		body   string
		now    time.Time
		want   error
	}{
		{"good", key, good, string(body), at, nil},
		{"edge of the window", key, good, string(body), at.Add(Window), nil},
		{"receiver's clock behind", key, good, string(body), at.Add(-Window), nil},
		{"secret changed: old and new", key, stamp + ",v1=00," + tag, string(body), at, nil},
		{"later version beside", key, stamp + ",v2=abc," + tag, string(body), at, nil},
		{"blanks", key, stamp + " , " + tag, string(body), at, nil},
		{"too old", key, good, string(body), at.Add(Window + time.Second), ErrReplay},
		{"from the future", key, good, string(body), at.Add(-Window - time.Second), ErrReplay},
		{"other body", key, good, "{}", at, ErrBadSignature},
		{"other secret", []byte("other"), good, string(body), at, ErrBadSignature},
		{"no secret", nil, "t=1,v1=", string(body), at, ErrBadSignature},
		{"other time", key, "t=1795489446," + tag, string(body), at, ErrBadSignature},
		{"two times", key, "t=1," + good, string(body), at, ErrBadSignature},
		{"time after", key, tag + "," + stamp, string(body), at, ErrBadSignature},
		{"empty", key, "", string(body), at, ErrBadSignature},
		{"no tag", key, stamp, string(body), at, ErrBadSignature},
		{"no hex", key, stamp + ",v1=xyz", string(body), at, ErrBadSignature},
		{"empty tag", key, stamp + ",v1=", string(body), at, ErrBadSignature},
		{"cut tag", key, good[:len(good)-2], string(body), at, ErrBadSignature},
		{"many tags", key, stamp + strings.Repeat(",v1=00", 100) + "," + tag, string(body), at, ErrBadSignature},
	} {
		if err := Verify(c.key, c.header, []byte(c.body), c.now, Window); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	signed := "t=x,v1=" + fmt.Sprintf("%x", mac(key, "x", body))
	if err := Verify(key, signed, body, at, Window); !errors.Is(err, ErrBadSignature) {
		t.Errorf("a time that is no number: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	body := []byte("body")
	good := sign([]byte(secret), body, at)
	stamp, tag, _ := strings.Cut(good, ",")
	f.Add(good, "body")
	f.Add("t=,v1=", "")
	f.Add("t=1,t=2,v1=00", "x")
	f.Fuzz(func(t *testing.T, header, b string) {
		// Nothing verifies but what was signed: this body at this time.
		signed := b == "body" && strings.Contains(header, stamp) && strings.Contains(strings.ToLower(header), tag)
		if Verify([]byte(secret), header, []byte(b), at, Window) == nil && !signed {
			t.Errorf("%q verifies for %q", header, b)
		}
	})
}

func TestConfigNamesTheSetting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want string
		cfg  Config
	}{
		{"webhook.name", Config{Name: "", URL: "https://a", Secret: secret}},
		{"webhook.name", Config{Name: "SMS gate", URL: "https://a", Secret: secret}},
		{"sms.url", Config{Name: "sms", URL: "", Secret: secret}},
		{"sms.url", Config{Name: "sms", URL: "ftp://a", Secret: secret}},
		{"sms.url", Config{Name: "sms", URL: "https://", Secret: secret}},
		{"sms.url: without user", Config{Name: "sms", URL: "https://u:hush@a/", Secret: secret}},
		{"sms.url: http is for", Config{Name: "sms", URL: "http://gateway.example.org/", Secret: secret}},
		{"sms.secret: 5 bytes", Config{Name: "sms", URL: "https://a", Secret: "short"}},
		{"sms.ca_file", Config{Name: "sms", URL: "https://a", Secret: secret, TLSFiles: channel.TLSFiles{CAFile: "/nonexistent"}}},
	} {
		if _, err := New(c.cfg, fixed{}); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if err := (Config{Name: "sms", URL: "http://localhost:8080/x", Secret: secret}).Check(); err != nil {
		t.Error(err)
	}
	if open(t, "https://gateway.example.org/x").Name() != "sms" {
		t.Error("name")
	}
}

func ExampleVerify() {
	receive := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil || Verify([]byte(secret), r.Header.Get(SignatureHeader), body, at, Window) != nil {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		fmt.Println("calling")
	}
	body := `{"page":"e20261124.1/1.3"}`
	r := httptest.NewRequest(http.MethodPost, "/page", strings.NewReader(body))
	r.Header.Set(SignatureHeader, sign([]byte(secret), []byte(body), at))
	receive(httptest.NewRecorder(), r)
	// Output: calling
}
