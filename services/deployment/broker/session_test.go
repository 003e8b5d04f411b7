// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"strings"
	"testing"

	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// The whole way with the stock client: watched, recorded, ended by the subject.
func TestStockClientHasItsConsole(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("echo $((6*7))-$TERM\n")
	c.shows("42-vt100")
	e.sees("42-vt100")
	c.typed("exit 3\n")
	text := c.ends()
	if c.cmd.ProcessState.ExitCode() != 3 {
		t.Fatalf("%v:\n%s", c.err, text)
	}
	end := e.ending()
	if end.Cause != broker.CauseExit || !end.Opened || end.Recording == "" {
		t.Fatalf("%+v", end)
	}
	for _, x := range end.Effects {
		if !x.Done {
			t.Errorf("%+v", x)
		}
	}
	if p := r.Host.Processes(brokertest.Ref); len(p) > 0 || strings.Contains(text, "frozen") {
		t.Errorf("%v %s", p, text)
	}
}
