// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// orderForm explains how an arbitrator's order is typed.
const orderForm = "[KIND] WHO DAY: TEXT, such as \"carla 2026-12-01: renew the keys of webdb\"; WHO is a person or a role, KIND is do, protect, seal or disclose"

// parseOrder reads one order. The day ends where the person is; a time of day may follow it.
func (a *app) parseOrder(line string) (*emergencyv1.Order, error) {
	bad := func(format string, args ...any) error { return usage(format, args...).hint("write %s", orderForm) }
	head, text, ok := strings.Cut(line, ": ")
	if text = strings.TrimSpace(text); !ok || text == "" {
		return nil, bad("%q is no order", line)
	}
	o := &emergencyv1.Order{Kind: emergencyv1.DirectionKind_DIRECTION_KIND_DO, Text: text}
	words := strings.Fields(head)
	if len(words) == 3 {
		kind, err := parse[emergencyv1.DirectionKind]("kind of order", words[0])
		if err != nil {
			return nil, err
		}
		o.Kind, words = kind, words[1:]
	}
	if len(words) != 2 {
		return nil, bad("%q does not say to whom and until when", head)
	}
	if slices.Contains(roleWordList(), words[0]) {
		o.Role, _ = parse[emergencyv1.Role]("role", words[0]) // it is one of them
	} else {
		o.Person = words[0]
	}
	due, err := a.day(words[1])
	if err != nil {
		return nil, bad("%q is no day", words[1])
	}
	o.DueAt = timestamppb.New(due)
	return o, nil
}

func roleWordList() []string { return words(emergencyv1.Role(0)) }

// day is the end of a day, or a time of it, where the person is.
func (a *app) day(text string) (time.Time, error) {
	if t, err := time.ParseInLocation("2006-01-02", text, a.proc.Zone); err == nil {
		return t.AddDate(0, 0, 1), nil
	}
	return time.ParseInLocation("2006-01-02T15:04", text, a.proc.Zone)
}

func (a *app) parseOrders(list []string) ([]*emergencyv1.Order, error) {
	var out []*emergencyv1.Order
	for _, l := range list {
		o, err := a.parseOrder(l)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}
