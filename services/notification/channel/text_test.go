// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzOneLine(f *testing.F) {
	f.Add("a\r\nBcc: x", 10)
	f.Add("\x1b[2J\u202eevil\xff", 3)
	f.Add("ééééé", 4)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 3 || n > 1<<16 {
			return
		}
		got := OneLine(s, n)
		if len(got) > n || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) || strings.ContainsAny(got, "\u2028\u2029\u202e") {
			t.Errorf("OneLine(%q, %d) = %q", s, n, got)
		}
		if again := OneLine(got, n); again != got {
			t.Errorf("%q becomes %q", got, again)
		}
	})
}

func TestClean(t *testing.T) {
	t.Parallel()
	if got, want := Clean("a\r\nb\rc\u2028d\te\x00\x1b[1m\u202ef\xff"), "a\nb\nc\nd e[1mf\uFFFD"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Prefix("aé", 2); got != "a" {
		t.Errorf("prefix %q", got)
	}
}

func TestSecretAndPageStayOutOfLogs(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	type config struct {
		Password Secret
		Page     Page
	}
	p := Page{ID: "e20261124.1/1.1", Recipient: Recipient{"person-1", "alice@example.org"}, Text: "hunter2"}
	s := Secret("hunter2")
	js, err := json.Marshal(config{Password: s})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "%s %v %+v %#v %q %x %s", s, s, config{Password: s}, s, s, s, js)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", s, "page", p)
	for _, bad := range []string{"hunter2", "68756e746572", "alice", "person-1"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("%q shows in %s", bad, b.String())
		}
	}
	if !strings.Contains(b.String(), p.ID) {
		t.Errorf("the page's id is missing in %s", b.String())
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "example.org": false, "10.0.0.1": false, "0.0.0.0": false, "": false, "localhost.example.org": false} {
		if Loopback(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
	if OnlyLoopback("tcp", "10.0.0.1:25", nil) == nil || OnlyLoopback("tcp", "[::1]:25", nil) != nil || OnlyLoopback("tcp", "rubbish", nil) == nil {
		t.Error("the dialler's check is wrong")
	}
}
