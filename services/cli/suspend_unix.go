// SPDX-License-Identifier: Apache-2.0

//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"
)

// onSuspend tells when the program is suspended (SIGTSTP), before it stops, and when it goes on: a view that is stopped shows
// nothing. before and after give the terminal back and take it again.
func onSuspend(before, after func(), told func(hidden bool)) (stop func()) {
	stops, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(stops, syscall.SIGTSTP)
	go func() {
		for {
			select {
			case <-stops:
				told(true)
				before()
				_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // a process may always stop itself
				after()
				told(false)
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(stops)
		close(done)
	}
}

// onResize tells when the terminal has another size.
func onResize(told func()) (stop func()) {
	sizes, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(sizes, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-sizes:
				told()
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(sizes)
		close(done)
	}
}
