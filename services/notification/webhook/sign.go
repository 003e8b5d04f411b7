// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers of a request.
const (
	// SignatureHeader carries t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>.
	SignatureHeader = "Epatch-Signature"
	// IdempotencyHeader carries the page id, as the body does. Only the body is signed.
	IdempotencyHeader = "Idempotency-Key"
)

// Window is how far the time of a request may be from the receiver's clock.
const Window = 5 * time.Minute

var (
	// ErrBadSignature is returned by Verify for a request that the holder of the secret did not sign. Answer 401.
	ErrBadSignature = errors.New("BadSignature")
	// ErrReplay is returned by Verify for a request that was signed at another time. Answer 401.
	ErrReplay = errors.New("Replay")
)

// Verify is for receivers: it tells whether the body was signed by somebody who holds the secret, less than window ago.
// A copy sent within the window verifies as well: keep the page ids of the last two windows and answer a known one as
// before, without acting.
func Verify(secret []byte, header string, body []byte, now time.Time, window time.Duration) error {
	if len(secret) == 0 {
		return fmt.Errorf("%w: no secret is configured", ErrBadSignature)
	}
	var stamp string
	valid := false
	fields := strings.Split(header, ",")
	if len(fields) > 8 {
		return fmt.Errorf("%w: %d fields in %s", ErrBadSignature, len(fields), SignatureHeader)
	}
	for _, f := range fields {
		switch key, value, _ := strings.Cut(strings.TrimSpace(f), "="); key {
		case "t":
			if stamp != "" {
				return fmt.Errorf("%w: two times", ErrBadSignature)
			}
			stamp = value
		case "v1": // several while a secret is changed; other versions are for other receivers
			got, err := hex.DecodeString(value)
			valid = valid || err == nil && stamp != "" && hmac.Equal(got, mac(secret, stamp, body))
		}
	}
	if !valid {
		return ErrBadSignature
	}
	at, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: the time is no number", ErrBadSignature)
	}
	if off := now.Sub(time.Unix(at, 0)); off > window || off < -window {
		return fmt.Errorf("%w: signed at %s, now it is %s", ErrReplay, time.Unix(at, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func sign(secret []byte, body []byte, now time.Time) string {
	stamp := strconv.FormatInt(now.Unix(), 10)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac(secret, stamp, body))
}

func mac(secret []byte, stamp string, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(stamp + "."))
	h.Write(body)
	return h.Sum(nil)
}
