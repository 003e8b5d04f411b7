// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// flatten writes a payload's JSON as one line for each value, in its order; what cannot be read becomes one line.
func flatten(payload string) []line {
	dec := json.NewDecoder(strings.NewReader(payload))
	dec.UseNumber()
	var list []line
	if err := walk(dec, "", &list); err != nil {
		return []line{{Value: payload}}
	}
	return list
}

func walk(dec *json.Decoder, name string, out *[]line) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	delim, isDelim := token.(json.Delim)
	if !isDelim {
		if text, ok := token.(string); ok {
			*out = append(*out, newLine(name, text))
			return nil
		}
		var b bytes.Buffer
		err := json.NewEncoder(&b).Encode(token)
		*out = append(*out, newLine(name, strings.TrimSpace(b.String())))
		return err
	}
	for i := 1; dec.More(); i++ {
		inner := join(name, strconv.Itoa(i))
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			inner = join(name, strings.ReplaceAll(key.(string), "_", " ")) // keys of an object are strings
		}
		if err := walk(dec, inner, out); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the end of the object or list
	return err
}

// longLine is from how many bytes on a value is folded.
const longLine = 400

func newLine(name, value string) line {
	l := line{Name: name, Value: value}
	if len(value) > longLine {
		l.Long = len(value)
	}
	return l
}

func join(name, part string) string {
	if name == "" {
		return part
	}
	return name + " › " + part
}
