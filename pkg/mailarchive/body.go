// SPDX-License-Identifier: Apache-2.0

package mailarchive

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"regexp"
	"strings"
)

const (
	// partsLimit and depthLimit bound the parts of a message that are looked at, textLimit how much text of all of them.
	partsLimit = 50
	depthLimit = 8
	textLimit  = 512 << 10
)

// textOf is the text of a message, without its attachments: what can be read of it, to look for a name in.
func textOf(h header, body []byte) string {
	w := &walker{}
	w.part(h, body, 0)
	return w.text.String()
}

type walker struct {
	text  strings.Builder
	parts int
}

func (w *walker) part(h header, body []byte, depth int) {
	if w.parts++; w.parts > partsLimit || depth > depthLimit || w.text.Len() >= textLimit {
		return
	}
	disposition, _, _ := mime.ParseMediaType(h.first("Content-Disposition"))
	if strings.EqualFold(disposition, "attachment") {
		return
	}
	kind, params, err := mime.ParseMediaType(h.first("Content-Type"))
	if err != nil && kind == "" {
		kind = "text/plain"
	}
	switch {
	case strings.HasPrefix(kind, "multipart/") && params["boundary"] != "":
		w.multipart(params["boundary"], body, depth)
	case kind == "text/plain", kind == "text/html":
		w.say(kind, decode(h.first("Content-Transfer-Encoding"), params["charset"], body))
	}
}

func (w *walker) multipart(boundary string, body []byte, depth int) {
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for range partsLimit {
		p, err := r.NextRawPart()
		if err != nil {
			return // what came before counts
		}
		var h header
		for name, values := range p.Header {
			for _, v := range values {
				h = append(h, field{name, v})
			}
		}
		content, _ := io.ReadAll(io.LimitReader(p, kept)) // a part that is cut off counts as far as it goes
		w.part(h, content, depth+1)
	}
}

// decode undoes transfer encoding and charset, as far as that goes.
func decode(encoding, set string, body []byte) []byte {
	var in io.Reader = bytes.NewReader(body)
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "quoted-printable":
		in = quotedprintable.NewReader(in)
	case "base64":
		in = base64.NewDecoder(base64.StdEncoding, in)
	}
	raw, _ := io.ReadAll(io.LimitReader(in, textLimit)) // what comes before the damage counts
	if set == "" {
		return raw
	}
	decoded, err := charset(set, bytes.NewReader(raw))
	if err != nil {
		return raw
	}
	out, _ := io.ReadAll(io.LimitReader(decoded, textLimit))
	return out
}

var (
	tag   = regexp.MustCompile(`<[^<>]{0,1000}>`)
	quote = regexp.MustCompile(`(?m)^[> |]+`)
)

// say adds a part's text on one line, so that a name broken over two lines or quoted is one.
func (w *walker) say(kind string, text []byte) {
	if room := textLimit - w.text.Len(); len(text) > room {
		text = text[:max(room, 0)]
	}
	s := string(text)
	if kind == "text/html" {
		s = tag.ReplaceAllString(s, " ")
	}
	w.text.WriteString(clean(quote.ReplaceAllString(s, " ")) + "\n")
}
