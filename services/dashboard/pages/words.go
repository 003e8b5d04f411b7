// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The few small things that all pages are made of: a time, a person, a badge, a reference to an event.

// when is a time: with its zone, and how long ago. The page's script counts on.
type when struct {
	ISO, Text, Ago string
	at             time.Time
}

// stamp is a time for machines.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// when is nil for a time that is not known.
func (v *viewer) when(t time.Time) *when {
	if t.IsZero() {
		return nil
	}
	layout := "2006-01-02 15:04 UTC"
	if y, d := t.UTC().Year(), t.UTC().YearDay(); y == v.now.UTC().Year() && d == v.now.UTC().YearDay() {
		layout = "15:04:05 UTC"
	}
	w := &when{ISO: stamp(t), Text: t.UTC().Format(layout), at: t}
	if !v.past {
		w.Ago = v.ago(t)
	}
	return w
}

func (v *viewer) moment(t *timestamppb.Timestamp) *when {
	if t == nil {
		return nil
	}
	return v.when(t.AsTime())
}

// ago is how long ago a time was, or how long it is until then, as the page's script says it too.
func (v *viewer) ago(t time.Time) string {
	d, key := v.now.Sub(t), "ago."
	if d < 0 {
		d, key = -d, "in."
	}
	n, unit := int64(d/time.Second), "second"
	switch {
	case d >= 48*time.Hour:
		n, unit = int64(d/(24*time.Hour)), "day"
	case d >= 2*time.Hour:
		n, unit = int64(d/time.Hour), "hour"
	case d >= 2*time.Minute:
		n, unit = int64(d/time.Minute), "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return v.say(key+unit, n)
}

// took is a span of time as 1:02:03, or in days.
func (v *viewer) took(d time.Duration) string {
	d = d.Truncate(time.Second)
	if d >= 48*time.Hour {
		return v.say("span.days", int(d/(24*time.Hour)))
	}
	return fmt.Sprintf("%d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// left is the rest of a time, or how long it is over.
func (w *when) left(now time.Time) string {
	d := w.at.Sub(now).Truncate(time.Second)
	sign := ""
	if d < 0 {
		d, sign = -d, "+"
	}
	return fmt.Sprintf("%s%d:%02d:%02d", sign, int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// badge is a word with a colour; the word alone says all.
type badge struct{ Text, Class string }

// The classes of badges.
const (
	good  = "good"
	bad   = "bad"
	warn  = "warn"
	live  = "live"
	quiet = "quiet"
)

// badge is the word that the catalogue has for a value of a kind, such as slot.OPEN.
func (v *viewer) badge(class, kind, value string) badge {
	return badge{v.say(kind + "." + value), class}
}

// person is somebody, or a machine.
type person struct {
	Name    string
	Machine bool
	Me      bool
}

func (v *viewer) person(name string) *person {
	if name == "" {
		return nil
	}
	return &person{Name: name, Me: v.me(name), Machine: !v.book.Listed(name)}
}

func (v *viewer) persons(names []string) []person {
	var list []person
	for _, n := range names {
		if p := v.person(n); p != nil {
			list = append(list, *p)
		}
	}
	return list
}

func (v *viewer) actor(a *emergencyv1.Actor) *person {
	if p := a.GetPerson(); p != "" {
		return v.person(p)
	}
	if a.GetSystemName() != "" {
		return &person{Name: a.GetSystemName(), Machine: true}
	}
	return &person{Name: v.enum(a.GetSystem()), Machine: true}
}

// event refers to an event of an incident.
type event struct {
	Incident string
	Position uint64
}

// enum is the word for a value of an enumeration; empty for none.
func (v *viewer) enum(e protoreflect.Enum) string {
	if e.Number() == 0 {
		return ""
	}
	return v.say(enumKey(e.Descriptor(), e.Number()))
}

// enumKey is where the catalogue has the word, such as Role.CRITICAL_ADMIN.
func enumKey(d protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	value := d.Values().ByNumber(n)
	if value == nil {
		return fmt.Sprintf("%s.%d", d.Name(), n)
	}
	prefix := strings.TrimSuffix(string(d.Values().ByNumber(0).Name()), "UNSPECIFIED")
	return string(d.Name()) + "." + strings.TrimPrefix(string(value.Name()), prefix)
}

// roles lists roles; that somebody is a member says nothing, everybody is.
func (v *viewer) roles(list []emergencyv1.Role) string {
	var words []string
	for _, r := range list {
		if r != emergencyv1.Role_ROLE_MEMBER {
			words = append(words, v.enum(r))
		}
	}
	return strings.Join(words, ", ")
}

// command is what a command does, in words, about its subject. Of a restricted value that is the event: nobody reads a commitment.
func (v *viewer) command(name, subject string) string {
	text := v.say("command." + name)
	if name == "Redact" || name == "Disclose" {
		position, _, _ := strings.Cut(subject, " ")
		subject = "#" + position
	}
	if subject != "" {
		text += " · " + subject
	}
	return text
}

// debt is the kind of an obligation in words.
func (v *viewer) debt(kind string) string { return v.say("debt." + kind) }

// short is the beginning of a digest or tree, enough to compare by eye.
func short(id string) string {
	algorithm, rest, ok := strings.Cut(id, ":")
	if !ok {
		algorithm, rest = "", id
	} else {
		algorithm += ":"
	}
	return algorithm + rest[:min(12, len(rest))]
}
