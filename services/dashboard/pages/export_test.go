// SPDX-License-Identifier: Apache-2.0

package pages

// Patterns are those of everything that Mount serves.
func Patterns() []string {
	var list []string
	for pattern := range (&Pages{}).handlers() {
		list = append(list, pattern)
	}
	return list
}

// GivenInPages tells whether a command has a form.
func GivenInPages(name string) bool {
	_, ok := commandNamed(name)
	return ok
}
