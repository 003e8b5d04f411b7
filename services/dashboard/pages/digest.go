// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"crypto/sha256"
	"encoding/hex"
	"unicode/utf8"
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// runeLen is how many bytes the first character of s takes; a byte that is none takes one.
func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}
