// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
)

// Fingerprint is a digest over every value that can be reached from v, unexported fields included, so that two values
// have the same one exactly when they are deeply equal, nil and empty slices being the same. Unlike a comparison it needs
// no copy, which could share what it should not. For states of package procedure; it is made for being asked very often.
func Fingerprint(v any) string {
	sum := sha256.Sum256(appendValue(make([]byte, 0, 1<<14), reflect.ValueOf(v)))
	return hex.EncodeToString(sum[:])
}

var (
	timeType    = reflect.TypeFor[time.Time]()
	messageType = reflect.TypeFor[proto.Message]()
	policyType  = reflect.TypeFor[*rulebook.Policy]()
)

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Invalid:
		return append(b, "none;"...)
	case reflect.Bool:
		return append(strconv.AppendBool(b, v.Bool()), ';')
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return append(strconv.AppendInt(b, v.Int(), 10), ';')
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return append(strconv.AppendUint(b, v.Uint(), 10), ';')
	case reflect.String:
		b = append(strconv.AppendInt(b, int64(v.Len()), 10), ':')
		return append(append(b, v.String()...), ';')
	case reflect.Pointer, reflect.Interface:
		return appendPointer(b, v)
	case reflect.Struct:
		fields := v.NumField()
		if v.Type() == timeType {
			fields = 2 // the third is the place, which is UTC in every state
		}
		for i := range fields {
			b = appendValue(b, v.Field(i))
		}
		return b
	case reflect.Slice, reflect.Array:
		b = append(strconv.AppendInt(append(b, '['), int64(v.Len()), 10), ']')
		for i := range v.Len() {
			b = appendValue(b, v.Index(i))
		}
		return b
	case reflect.Map:
		return appendMap(b, v)
	default:
		panic(fmt.Sprintf("a state holds no %s", v.Kind()))
	}
}

func appendPointer(b []byte, v reflect.Value) []byte {
	switch {
	case v.IsNil():
		return append(b, "nil;"...)
	case v.Type() == policyType: // immutable, and its digest is over all of it
		return append(b, v.Elem().FieldByName("Digest").String()...)
	case v.Type().Implements(messageType) && v.CanInterface():
		encoded, _ := proto.MarshalOptions{Deterministic: true}.Marshal(v.Interface().(proto.Message))
		return appendValue(b, reflect.ValueOf(string(encoded)))
	}
	return appendValue(append(b, '&'), v.Elem())
}

// appendMap takes the entries in the order of their bytes: a map has no other.
func appendMap(b []byte, v reflect.Value) []byte {
	list := make([][]byte, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		list = append(list, appendValue(appendValue(nil, it.Key()), it.Value()))
	}
	slices.SortFunc(list, bytes.Compare)
	b = append(strconv.AppendInt(append(b, '{'), int64(len(list)), 10), '}')
	for _, e := range list {
		b = append(b, e...)
	}
	return b
}
