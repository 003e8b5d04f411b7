// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"reflect"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
)

// Fingerprint is a digest over every value that can be reached from v, unexported fields included, so that two values
// have the same one exactly when they are deeply equal, nil and empty slices being the same. Unlike a comparison it needs no copy, which could share what it
// should not.
func Fingerprint(v any) string {
	h := sha256.New()
	fingerprint(h, reflect.ValueOf(v))
	return hex.EncodeToString(h.Sum(nil))
}

var (
	timeType    = reflect.TypeFor[time.Time]()
	messageType = reflect.TypeFor[proto.Message]()
	policyType  = reflect.TypeFor[*rulebook.Policy]()
)

func fingerprint(h hash.Hash, v reflect.Value) {
	if !v.IsValid() {
		io.WriteString(h, "none;")
		return
	}
	if v.Type() == timeType && v.CanInterface() {
		fmt.Fprintf(h, "%d;", v.Interface().(time.Time).UnixNano())
		return
	}
	if v.Type().Implements(messageType) && v.CanInterface() && v.Kind() == reflect.Pointer && !v.IsNil() {
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(v.Interface().(proto.Message))
		fmt.Fprintf(h, "%d:%s;", len(b), b)
		return
	}
	if v.Type() == policyType && !v.IsNil() { // immutable, and its digest is over all of it
		fmt.Fprintf(h, "%s;", v.Elem().FieldByName("Digest").String())
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		fmt.Fprintf(h, "&%t", v.IsNil())
		if !v.IsNil() {
			fingerprint(h, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fingerprint(h, v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		fmt.Fprintf(h, "[%d]", v.Len())
		for i := range v.Len() {
			fingerprint(h, v.Index(i))
		}
	case reflect.Map:
		fingerprintMap(h, v)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		panic(fmt.Sprintf("a state holds no %s", v.Kind()))
	default:
		fmt.Fprintf(h, "%v;", v)
	}
}

// fingerprintMap takes the entries in the order of their own fingerprints: a map has no other.
func fingerprintMap(h hash.Hash, v reflect.Value) {
	var list []string
	for it := v.MapRange(); it.Next(); {
		entry := sha256.New()
		fingerprint(entry, it.Key())
		fingerprint(entry, it.Value())
		list = append(list, string(entry.Sum(nil)))
	}
	sort.Strings(list)
	fmt.Fprintf(h, "{%d}", len(list))
	for _, e := range list {
		io.WriteString(h, e)
	}
}
