// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
)

// maxKeyring bounds the file before it is read; a thousand keys fit.
const maxKeyring = 1 << 20

// Key is a service key: whose it is, and when records sealed by it count.
type Key struct {
	Owner     string
	Public    ed25519.PublicKey
	NotBefore time.Time // zero: always
	NotAfter  time.Time // zero: for ever; exactly at that time still counts
}

// validAt judges by the record's own recorded_at. That time comes from the key's holder, so NotAfter retires a key and
// does not contain a stolen one: he can date records back to the incident's last one.
func (k Key) validAt(t time.Time) bool {
	return !t.Before(k.NotBefore) && (k.NotAfter.IsZero() || !t.After(k.NotAfter))
}

// Keyring says which service key belongs to which owner, and so which event types a record may hold (hardening 1.3). It
// does not change after it was made and is safe for concurrent use. Keys of people are in the rule book, not here.
type Keyring struct {
	keys map[string]Key // by KeyID
	good signatures
}

// NewKeyring checks the keys: known owner, well-formed, none listed twice. An owner may have several keys.
func NewKeyring(keys ...Key) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("keyring has no keys: every record would be foreign")
	}
	ring := &Keyring{keys: make(map[string]Key, len(keys))}
	for i, k := range keys {
		if err := ring.add(k); err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	return ring, nil
}

func (r *Keyring) add(k Key) error {
	if !slices.Contains(procedure.Owners(), k.Owner) {
		return fmt.Errorf("owner %q is none of %s", k.Owner, strings.Join(procedure.Owners(), ", "))
	}
	id, err := KeyID(k.Public)
	if err != nil {
		return err
	}
	if other, ok := r.keys[id]; ok {
		return fmt.Errorf("key %s is already listed, for %s: each key belongs to one owner", id, other.Owner)
	}
	if !k.NotAfter.IsZero() && k.NotAfter.Before(k.NotBefore) {
		return fmt.Errorf("not_after %s is before not_before %s", k.NotAfter.Format(time.RFC3339), k.NotBefore.Format(time.RFC3339))
	}
	k.Public = bytes.Clone(k.Public)
	r.keys[id] = k
	return nil
}

// Lookup returns the key of an id.
func (r *Keyring) Lookup(keyID string) (Key, bool) {
	k, ok := r.keys[keyID]
	return k, ok
}

// Keys lists the keys, ordered by owner, then id.
func (r *Keyring) Keys() []Key {
	ids := make([]string, 0, len(r.keys))
	for id := range r.keys {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return strings.Compare(r.keys[a].Owner+" "+a, r.keys[b].Owner+" "+b)
	})
	keys := make([]Key, len(ids))
	for i, id := range ids {
		keys[i] = r.keys[id]
	}
	return keys
}

type keyringFile struct {
	Keys []keyFile `json:"keys"`
}

type keyFile struct {
	Owner     string     `json:"owner"`
	PublicKey string     `json:"public_key"` // base64 of the SubjectPublicKeyInfo
	NotBefore *time.Time `json:"not_before,omitempty"`
	NotAfter  *time.Time `json:"not_after,omitempty"`
}

// LoadKeyring reads a keyring file.
func LoadKeyring(path string) (*Keyring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load keyring: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyring+1))
	if err != nil {
		return nil, fmt.Errorf("load keyring: %w", err)
	}
	ring, err := ParseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("load keyring %s: %w", path, err)
	}
	return ring, nil
}

// ParseKeyring decodes the JSON form: {"keys":[{"owner":"review","public_key":"<base64 SPKI>","not_after":"<RFC 3339>"}]}.
// Unknown and repeated fields are refused: a misspelt not_after must not mean "for ever".
func ParseKeyring(data []byte) (*Keyring, error) {
	if len(data) > maxKeyring {
		return nil, fmt.Errorf("keyring is larger than %d bytes", maxKeyring)
	}
	if err := refuseRepeated(data); err != nil {
		return nil, err
	}
	var file keyringFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, atLine(data, dec.InputOffset(), err)
	}
	keys := make([]Key, len(file.Keys))
	for i, k := range file.Keys {
		public, err := parsePublic(k.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("key %d (owner %q): public_key: %w", i+1, k.Owner, err)
		}
		keys[i] = Key{Owner: k.Owner, Public: public, NotBefore: orZero(k.NotBefore), NotAfter: orZero(k.NotAfter)}
	}
	return NewKeyring(keys...)
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func parsePublic(text string) (ed25519.PublicKey, error) {
	spki, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("no base64: %w", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("no SubjectPublicKeyInfo: %w", err)
	}
	public, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("is a %T, services sign with Ed25519", parsed)
	}
	return public, nil
}

// refuseRepeated walks the document once: encoding/json would silently take the last of two equal names.
func refuseRepeated(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	var open []map[string]bool // one per open object, nil for an array
	name := false              // the next string is a name
	for {
		token, err := dec.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return atLine(data, dec.InputOffset(), err)
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' {
				open = append(open, map[string]bool{})
			} else if t == '[' {
				open = append(open, nil)
			} else {
				open = open[:len(open)-1]
			}
			if len(open) == 0 && dec.More() {
				return atLine(data, dec.InputOffset(), errors.New("something follows the keyring"))
			}
			name = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			if name {
				fields, folded := open[len(open)-1], strings.ToLower(t)
				if fields[folded] {
					return atLine(data, dec.InputOffset(), fmt.Errorf("field %q is there twice", t))
				}
				fields[folded] = true
				name = false
				continue
			}
		}
		name = len(open) > 0 && open[len(open)-1] != nil
	}
}

func atLine(data []byte, offset int64, err error) error {
	offset = min(max(offset, 0), int64(len(data)))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the document ends in the middle")
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(data[:offset], []byte("\n")), err)
}

// JSON encodes the keyring as ParseKeyring reads it.
func (r *Keyring) JSON() ([]byte, error) {
	var file keyringFile
	for _, k := range r.Keys() {
		spki, err := x509.MarshalPKIXPublicKey(k.Public)
		if err != nil {
			return nil, fmt.Errorf("encode key of %s: %w", k.Owner, err)
		}
		file.Keys = append(file.Keys, keyFile{k.Owner, base64.StdEncoding.EncodeToString(spki), orNil(k.NotBefore), orNil(k.NotAfter)})
	}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode keyring: %w", err)
	}
	return append(data, '\n'), nil
}

// Save writes the keyring to a file, whole or not at all.
func (r *Keyring) Save(path string) error {
	data, err := r.JSON()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keyring-*")
	if err != nil {
		return fmt.Errorf("save keyring: %w", err)
	}
	defer os.Remove(f.Name()) // gone already when the rename worked
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close(), os.Chmod(f.Name(), 0o644))
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save keyring %s: %w", path, err)
	}
	return nil
}
