// SPDX-License-Identifier: Apache-2.0

// Package defect keeps a defect where it happened. What a service does for one incident, record or act must not end what it does for
// the others: the panic of one is an error of that one (hardening 2, poison event), and is logged with the place where it happened.
package defect

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Error is a panic that was contained.
type Error struct {
	value any
	stack []byte
}

func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// Contained runs do and returns its error, or its panic as an *Error; also the panic of an error that cannot say what it is, such as a nil
// *procedure.Refusal that became an error on its way. do leaves no lock taken when it panics: it gives them back by defer.
func Contained(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Error{v, debug.Stack()}
		}
	}()
	if err = do(); err != nil {
		_ = err.Error()
	}
	return err
}

// Stack is the attribute of a log line that tells where an error's panic happened; an empty one, which no handler writes, for any other error.
func Stack(err error) slog.Attr {
	var e *Error
	if !errors.As(err, &e) {
		return slog.Attr{}
	}
	return slog.String("stack", string(e.stack))
}
