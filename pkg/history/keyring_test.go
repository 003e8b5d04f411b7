// SPDX-License-Identifier: Apache-2.0

package history_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
)

func TestKeyringFile(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services").Ring.Keys()
	keys[0].NotBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys[0].NotAfter = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	ring, err := history.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keyring.json")
	for range 2 { // the second time over the first
		if err := ring.Save(file); err != nil {
			t.Fatal(err)
		}
	}
	got, err := history.LoadKeyring(file)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Keys(), keys) {
		t.Errorf("keys are %+v, want %+v", got.Keys(), keys)
	}
	id, err := history.KeyID(keys[0].Public)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := got.Lookup(id); !ok || key.Owner != keys[0].Owner {
		t.Errorf("lookup of %s: %+v, %t", id, key, ok)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("the folder has %v (%v)", left, err)
	}
	if err := ring.Save(filepath.Join(file, "below a file")); err == nil {
		t.Error("saved below a file")
	}
	if _, err := history.LoadKeyring(file + ".missing"); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("missing file: %v", err)
	}
}

func spki(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestKeyringRefuses(t *testing.T) {
	t.Parallel()
	a, b := spki(t, ed25519.PublicKey(bytes.Repeat([]byte{1}, 32))), spki(t, ed25519.PublicKey(bytes.Repeat([]byte{2}, 32)))
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"empty":            {``, "ends in the middle"},
		"cut":              {`{"keys":[{"owner":"review",`, "ends in the middle"},
		"no object":        {`[]`, "line 1"},
		"no keys":          {`{}`, "no keys"},
		"unknown field":    {"{\"keys\":[\n{\"owner\":\"review\",\"public_key\":\"" + a + "\",\n\"not_afterr\":\"2027-01-01T00:00:00Z\"}]}", `line 3: json: unknown field "not_afterr"`},
		"field twice":      {"{\"keys\":[{\n\"owner\":\"review\",\n\"Owner\":\"incident\"}]}", `line 3: field "Owner" is there twice`},
		"keys twice":       {`{"keys":[],"keys":[]}`, `"keys" is there twice`},
		"something after":  {`{"keys":[]} x`, "line 1"},
		"second document":  {`{"keys":[]} {}`, "something follows"},
		"unknown owner":    {fmt.Sprintf(`{"keys":[{"owner":"dashboard","public_key":%q}]}`, a), `key 1: owner "dashboard" is none of incident, notification`},
		"no base64":        {`{"keys":[{"owner":"review","public_key":"?"}]}`, `key 1 (owner "review"): public_key: no base64`},
		"line in base64":   {fmt.Sprintf(`{"keys":[{"owner":"review","public_key":%q}]}`, a[:10]+"=="+a[10:]), "no base64"},
		"no key":           {`{"keys":[{"owner":"review","public_key":"AAAA"}]}`, "no SubjectPublicKeyInfo"},
		"missing key":      {`{"keys":[{"owner":"review"}]}`, "no SubjectPublicKeyInfo"},
		"other algorithm":  {fmt.Sprintf(`{"keys":[{"owner":"review","public_key":%q}]}`, spki(t, ec.Public())), "services sign with Ed25519"},
		"one key, two":     {fmt.Sprintf(`{"keys":[{"owner":"review","public_key":%q},{"owner":"incident","public_key":%q}]}`, a, a), "already listed, for review"},
		"never valid":      {fmt.Sprintf(`{"keys":[{"owner":"review","public_key":%q,"not_before":"2027-01-01T00:00:00Z","not_after":"2026-01-01T00:00:00Z"}]}`, b), "before not_before"},
		"time is no time":  {fmt.Sprintf(`{"keys":[{"owner":"review","public_key":%q,"not_after":"tomorrow"}]}`, b), "line 1"},
		"number for owner": {`{"keys":[{"owner":1}]}`, "line 1"},
		"too large":        {strings.Repeat(" ", 1<<20+1), "larger than"},
	} {
		ring, err := history.ParseKeyring([]byte(tc.text))
		if ring != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error is %v, want one that says %q", name, err, tc.want)
		}
	}
	if _, err := history.NewKeyring(history.Key{Owner: "review", Public: []byte("short")}); err == nil {
		t.Error("took a short key")
	}
}

func FuzzParseKeyring(f *testing.F) {
	good, err := historytest.NewKeys(f, "services").Ring.JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"keys":[{"owner":"review","public_key":"AAAA","not_after":"2027-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"keys":[],"KEYS":[]} {`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ring, err := history.ParseKeyring(data)
		if err != nil {
			if ring != nil || err.Error() == "" {
				t.Error("an error and a keyring")
			}
			return
		}
		// What was taken is written and read again as the same.
		text, err := ring.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := history.ParseKeyring(text)
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for i, k := range ring.Keys() {
			l := again.Keys()[i]
			if k.Owner != l.Owner || !k.Public.Equal(l.Public) || !k.NotAfter.Equal(l.NotAfter) || !k.NotBefore.Equal(l.NotBefore) {
				t.Errorf("key %+v came back as %+v", k, l)
			}
		}
	})
}
