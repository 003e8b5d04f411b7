// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package cli

// onSuspend does nothing where programs are not suspended.
func onSuspend(_, _ func(), _ func(hidden bool)) (stop func()) { return func() {} }

// onResize does nothing where terminals do not tell.
func onResize(func()) (stop func()) { return func() {} }
