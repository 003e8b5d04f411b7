// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
)

// accounts is the layout of hardening 5, without its consumers: what a service may do is all that a store needs.
const accounts = `
port: -1
jetstream: { store_dir: %q, sync_interval: always }
accounts: {
  LOG: {
    jetstream: enabled
    users: [ { user: provisioner, password: p } ]
    exports: [
      { service: "emergency.*", accounts: [REVIEW] }
      { service: "$JS.API.STREAM.INFO.EMERGENCY", accounts: [REVIEW] }
      { service: "$JS.API.STREAM.MSG.GET.EMERGENCY", accounts: [REVIEW] }
    ]
  }
  REVIEW: {
    users: [ { user: review, password: r, permissions: {
      publish: ["emergency.*", "JSLOG.STREAM.INFO.EMERGENCY", "JSLOG.STREAM.MSG.GET.EMERGENCY"]
      subscribe: ["_INBOX_review.>"]
    } } ]
    imports: [
      { service: { account: LOG, subject: "emergency.*" } }
      { service: { account: LOG, subject: "$JS.API.STREAM.INFO.EMERGENCY" }, to: "JSLOG.STREAM.INFO.EMERGENCY" }
      { service: { account: LOG, subject: "$JS.API.STREAM.MSG.GET.EMERGENCY" }, to: "JSLOG.STREAM.MSG.GET.EMERGENCY" }
    ]
  }
}
`

func TestLeastRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, accounts, filepath.Join(dir, "store")), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.NoSigs = "127.0.0.1", true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	login := func(user, password string) *nats.Conn {
		nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, password), nats.ReconnectBufSize(-1), nats.CustomInboxPrefix("_INBOX_"+user),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("%s: %v", user, err) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	admin, err := natsjs.New(login("provisioner", "p"))
	if err != nil {
		t.Fatal(err)
	}
	if err := natsd.Provision(t.Context(), admin, natsd.Profile{Replicas: 1, MaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	js, err := natsjs.NewWithAPIPrefix(login("review", "r"), "JSLOG")
	if err != nil {
		t.Fatal(err)
	}
	store, err := jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	keys := historytest.NewKeys(t, "services")
	keys.NewWriter(t, store, incident, "review").MustAppend(t, 10)
	reading, err := history.Read(t.Context(), store, keys.Ring, incident)
	if err != nil || len(reading.Entries) != 10 {
		t.Errorf("%d records (%v)", len(reading.Entries), err)
	}
	followed := 0
	err = store.Follow(t.Context(), history.Mark{}, func(history.Message) error {
		if followed++; followed == 10 {
			return errDone
		}
		return nil
	})
	if err != errDone {
		t.Errorf("follow: %v", err)
	}
	if ids, err := store.Incidents(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("incidents %v (%v)", ids, err)
	}
}
