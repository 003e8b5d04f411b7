// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"cacert.org/emergency/services/cli"
	"cacert.org/emergency/services/internal/app"
)

// installed is `epatchd all` on a data folder, as its command line configures it, with nobody but the real client to ask it.
type installed struct {
	t       *testing.T
	set     app.Settings
	node    *app.Node
	addrs   app.Addresses
	stopped func()
}

// startInstalled starts it. It is stopped when the test ends, if stop did not do it before.
func startInstalled(t *testing.T, change func(*app.Settings)) *installed {
	t.Helper()
	x := &installed{t: t}
	x.set.Flags(pflag.NewFlagSet("all", pflag.ContinueOnError))
	x.set.Data, x.set.Listen, x.set.HTTP, x.set.HTTPS = t.TempDir(), "localhost:0", "localhost:0", "localhost:0"
	change(&x.set)
	node, err := app.Open(context.Background(), x.set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan app.Addresses, 1), make(chan error, 1)
	go func() { ended <- node.Run(ctx, func(a app.Addresses) { ready <- a }) }()
	x.node, x.stopped = node, func() {
		x.stopped = func() {}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the node: %v", err)
		}
		if err := node.Close(); err != nil {
			t.Errorf("the node: %v", err)
		}
	}
	t.Cleanup(func() { x.stopped() })
	select {
	case x.addrs = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the node ended at once: %v", err)
	}
	return x
}

// epatch runs the client as a person, and returns what it printed.
func (x *installed) epatch(person string, args ...string) string {
	x.t.Helper()
	var out, trouble bytes.Buffer
	port := x.addrs.API[strings.LastIndex(x.addrs.API, ":"):]
	code := cli.Run(x.t.Context(), cli.Process{
		Args: append([]string{"--as", person, "--data", x.set.Data, "--server", "localhost" + port}, args...), Environ: []string{"HOME=" + x.t.TempDir(), "NO_COLOR=1"},
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &trouble, Now: time.Now, Zone: time.UTC,
	})
	if code != 0 {
		x.t.Fatalf("epatch --as %s %s: status %d\n%s%s", person, strings.Join(args, " "), code, out.String(), trouble.String())
	}
	return out.String() + trouble.String()
}
