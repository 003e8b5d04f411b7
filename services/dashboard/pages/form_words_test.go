// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// formPaths are the paths of everything that a person can be asked for, or shown, in a command's form.
func formPaths(name string, d protoreflect.MessageDescriptor, prefix string) []string {
	var list []string
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		path := prefix + string(fd.Name())
		switch {
		case mannerOf(name, path) == never:
		case fd.Message() != nil && !single(fd.Message()):
			if fd.IsList() {
				list = append(list, path)
			}
			list = append(list, formPaths(name, fd.Message(), path+".")...)
		default:
			list = append(list, path)
		}
	}
	return list
}

// formWords are the keys of the catalogue that forms use: a label and a line of help for each field of each command.
func formWords(s *set) []string {
	var list []string
	add := func(key string) {
		if !slices.Contains(list, key) {
			list = append(list, key)
		}
	}
	for _, c := range procedure.Commands() {
		if !givenInPages(c) {
			continue
		}
		for _, path := range formPaths(c.Name, c.New().ProtoReflect().Descriptor(), "") {
			add(s.fieldKey("label", c.Name, path))
			add(s.fieldKey("help", c.Name, path))
		}
		if _, ok := s.words["lead."+c.Name]; ok {
			add("lead." + c.Name)
		}
		for _, kind := range variants(c.New()) {
			add("kind." + kind)
		}
	}
	return list
}

// No field of a command that a person gives lacks a word, in any language, and no value that can be chosen.
func TestNoFieldLacksAWord(t *testing.T) {
	t.Parallel()
	for code, s := range sets(t) {
		for _, key := range formWords(s) {
			if s.words[key] == "" {
				t.Errorf("%s: %s", code, key)
			}
		}
		for _, c := range procedure.Commands() {
			if !givenInPages(c) {
				continue
			}
			var walk func(d protoreflect.MessageDescriptor, prefix string)
			walk = func(d protoreflect.MessageDescriptor, prefix string) {
				for i := range d.Fields().Len() {
					fd := d.Fields().Get(i)
					path := prefix + string(fd.Name())
					if mannerOf(c.Name, path) == never {
						continue
					}
					if fd.Message() != nil && !single(fd.Message()) {
						walk(fd.Message(), path+".")
					}
					if fd.Enum() == nil {
						continue
					}
					for j := 1; j < fd.Enum().Values().Len(); j++ {
						if key := enumKey(fd.Enum(), fd.Enum().Values().Get(j).Number()); s.words[key] == "" {
							t.Errorf("%s: %s", code, key)
						}
					}
				}
			}
			walk(c.New().ProtoReflect().Descriptor(), "")
		}
	}
}

// What the rules find wrong with an empty command is a field of its form, or one that the history or a service fills in: nothing
// that has to be said has no place.
func TestEveryWrongFieldHasItsPlace(t *testing.T) {
	t.Parallel()
	for _, c := range procedure.Commands() {
		if !givenInPages(c) {
			continue
		}
		paths := formPaths(c.Name, c.New().ProtoReflect().Descriptor(), "")
		for _, w := range procedure.WrongFields(c.New()) {
			if w.Must == "" {
				t.Errorf("%s: nothing is said of %s", c.Name, w.Field)
			}
			placed := slices.ContainsFunc(paths, func(p string) bool { return concerns(w.Field, p) })
			if !placed && mannerOf(c.Name, w.Field) != never && w.Field != "answer" {
				t.Errorf("%s: %s (%s) has no field", c.Name, w.Field, w.Must)
			}
		}
	}
}

// What one choice needs and another does not is asked of nobody before the choice.
func TestMissingWhateverIsChosen(t *testing.T) {
	t.Parallel()
	names := func(c procedure.Command) (list []string) {
		for _, w := range missingFields(c) {
			list = append(list, w.Field)
		}
		return list
	}
	review := names(&emergencyv1.RecordFirstReviewRequest{})
	if !slices.Contains(review, "verdict") || slices.Contains(review, "reason") {
		t.Errorf("a review always lacks %v", review)
	}
	if closing := names(&emergencyv1.CloseRequest{}); !slices.Equal(closing, []string{"outcome", "summary"}) {
		t.Errorf("a closing always lacks %v", closing)
	}
}
