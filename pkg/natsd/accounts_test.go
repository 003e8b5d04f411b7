// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"cacert.org/emergency/pkg/artefacts"
	artefactstore "cacert.org/emergency/pkg/artefacts/jetstream"
	ledgerstore "cacert.org/emergency/pkg/effect/jetstream"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/natsd"
	vaultstore "cacert.org/emergency/pkg/vault/jetstream"
	"cacert.org/emergency/pkg/vault/vaulttest"
)

// secured is one server with the accounts of production.
type secured struct {
	url     string
	seeds   map[string]string // files, by service; "" the provisioner's
	profile *identity.Profile
	admin   jetstream.JetStream
	server  *server.Server
	dir     string // of the server's own certificate, key and authorities
}

func startSecured(t *testing.T) *secured {
	t.Helper()
	dir := t.TempDir()
	s := &secured{seeds: map[string]string{}}
	ca, err := devca.Open(filepath.Join(dir, "ca"), time.Now)
	must(t, err)
	server0, err := ca.Service("nats")
	must(t, err)
	s.profile, err = identity.Load(server0, identity.LoadOptions{Now: time.Now(), Dev: true})
	must(t, err)
	public := map[string]string{}
	for _, name := range append(natsd.Services(), "") {
		user, err := nkeys.CreateUser()
		must(t, err)
		seed, err := user.Seed()
		must(t, err)
		public[name], err = user.PublicKey()
		must(t, err)
		s.seeds[name] = filepath.Join(dir, name+".nk")
		must(t, os.WriteFile(s.seeds[name], seed, 0o600))
	}
	provisioner := public[""]
	delete(public, "")
	accounts, err := natsd.Accounts(provisioner, public)
	must(t, err)
	conf, err := natsd.ServerConf{
		Name: "n1", Listen: "127.0.0.1:-1", Store: filepath.Join(dir, "store"), Accounts: accounts,
		Cert: filepath.Join(server0, identity.CertFile), Key: filepath.Join(server0, identity.KeyFile), CA: filepath.Join(server0, identity.CAFile),
	}.Conf()
	must(t, err)
	file := filepath.Join(dir, "nats.conf")
	must(t, os.WriteFile(file, []byte(conf), 0o600))
	opts, err := server.ProcessConfigFile(file)
	must(t, err)
	opts.NoSigs, opts.NoLog = true, true
	ns, err := server.NewServer(opts)
	must(t, err)
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	s.url, s.server, s.dir = "tls://"+ns.Addr().String(), ns, server0
	s.admin = s.connect(t, "")
	must(t, natsd.Provision(t.Context(), s.admin, natsd.Profile{Replicas: 1, MaxBytes: 8 << 20, Consumers: true}))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *secured) connect(t *testing.T, service string) jetstream.JetStream {
	t.Helper()
	js, err := natsd.Dial(natsd.Remote{
		Servers: []string{s.url}, Service: service, Seed: s.seeds[service], Identity: func() *identity.Profile { return s.profile },
		Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	t.Cleanup(js.Conn().Close)
	return js
}

// state is what the streams hold, by name.
func (s *secured) state(t *testing.T) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for info := range s.admin.ListStreams(t.Context()).Info() {
		all[info.Config.Name] = info.State.LastSeq<<20 | info.State.Msgs
	}
	return all
}

// delivered is how many messages the consumers of a service have sent.
func (s *secured) delivered(t *testing.T, service string) (n uint64) {
	t.Helper()
	for _, name := range natsd.Consumers(service) {
		c, err := s.admin.Consumer(t.Context(), natsd.Stream, name)
		must(t, err)
		n += c.CachedInfo().Delivered.Consumer
	}
	return n
}

// TestAccountsAreEnough: each service's stores do all that they have to with the service's own user.
func TestAccountsAreEnough(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	keys := historytest.NewKeys(t, "services")
	const incident = "e20261124.1"
	var stored string
	const records = 100 // more than are worth a consumer
	for i, owner := range natsd.Owners() {
		js := s.connect(t, owner)
		must(t, natsd.Check(t.Context(), js, natsd.Expect{Replicas: 1, Sync: natsd.SyncStated}))
		store, err := historystore.New(t.Context(), historystore.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Readers: natsd.Consumers(owner)})
		must(t, err)
		if i == 0 {
			keys.NewWriter(t, store, incident, owner).MustAppend(t, records)
		}
		reading, err := history.Read(t.Context(), store, keys.Ring, incident)
		if err != nil || len(reading.Entries) != records {
			t.Errorf("%s reads %d records (%v)", owner, len(reading.Entries), err)
		}
		scanned := 0
		if err := store.Scan(t.Context(), 0, func(history.Message) error { scanned++; return nil }); err != nil || scanned != records {
			t.Errorf("%s scans %d records (%v)", owner, scanned, err)
		}
		// Where the accounts are of a version that had no consumers, everything is there, too.
		without, err := historystore.New(t.Context(), historystore.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Readers: natsd.Consumers("none")})
		must(t, err)
		scanned = 0
		if err := without.Scan(t.Context(), 0, func(history.Message) error { scanned++; return nil }); err != nil || scanned != records {
			t.Errorf("%s scans %d records without a consumer (%v)", owner, scanned, err)
		}
		if n := s.delivered(t, owner); n != records {
			t.Errorf("the consumers of %s delivered %d messages of %d", owner, n, records)
		}
		ledger, err := ledgerstore.New(t.Context(), js, owner)
		must(t, err)
		if fresh, _, err := ledger.Intend(t.Context(), "effect of "+owner); err != nil || !fresh {
			t.Errorf("%s intends: fresh %t, %v", owner, fresh, err)
		}
		must(t, ledger.Finish(t.Context(), "effect of "+owner, "done"))
		must(t, ledger.SetMark(t.Context(), owner, history.Mark{Sequence: 10}))
		if m, err := ledger.Mark(t.Context(), owner); err != nil || m.Sequence != 10 {
			t.Errorf("%s has the mark %v (%v)", owner, m, err)
		}
		v, err := vaultstore.New(t.Context(), js, owner)
		must(t, err)
		secret := vaulttest.New("secret of " + owner)
		must(t, v.Put(t.Context(), secret.Commitment, secret.Salt, secret.Value))
		if value, _, err := v.Get(t.Context(), secret.Commitment); err != nil || !bytes.Equal(value, secret.Value) {
			t.Errorf("%s gets %q (%v)", owner, value, err)
		}
		must(t, v.Destroy(t.Context(), secret.Commitment))
		objects, err := artefactstore.New(t.Context(), js, artefacts.DefaultLimit)
		must(t, err)
		data := bytes.Repeat([]byte(owner+" "), 50_000) // more than one message
		ref, err := objects.Put(t.Context(), bytes.NewReader(data), "text/plain")
		must(t, err)
		if got, err := objects.Get(t.Context(), ref.SHA256); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s gets %d bytes (%v)", owner, len(got), err)
		}
		stored = ref.SHA256
	}
	js := s.connect(t, natsd.Reader)
	store, err := historystore.New(t.Context(), historystore.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Readers: natsd.Consumers(natsd.Reader)})
	must(t, err)
	n := 0
	stop := errors.New("enough")
	err = store.Follow(t.Context(), history.Mark{}, func(history.Message) error {
		if n++; n == records {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != records {
		t.Errorf("the reader follows %d records (%v)", n, err)
	}
	if n := s.delivered(t, natsd.Reader); n != records {
		t.Errorf("the consumers of the reader delivered %d messages of %d", n, records)
	}
	objects, err := artefactstore.New(t.Context(), js, artefacts.DefaultLimit)
	must(t, err)
	if got, err := objects.Get(t.Context(), stored); err != nil || len(got) == 0 {
		t.Errorf("the reader gets %d bytes of an artefact (%v)", len(got), err)
	}
}

// TestProvisionerRestores: the user that creates the streams also fills them again from an archive, and needs no right more for it: it
// appends histories, reads them back by a consumer, and says where each service's effects go on.
func TestProvisionerRestores(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	js := s.connect(t, "")
	must(t, natsd.Check(t.Context(), js, natsd.Expect{Replicas: 1, Sync: natsd.SyncStated}))
	store, err := historystore.New(t.Context(), historystore.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	must(t, err)
	keys := historytest.NewKeys(t, "services")
	keys.NewWriter(t, store, "e20261124.1", "incident").MustAppend(t, 10)
	report, err := history.Verify(t.Context(), store, keys.Ring)
	if err != nil || report.Records != 10 || !report.Clean() {
		t.Errorf("the provisioner reads %+v (%v)", report, err)
	}
	for _, owner := range natsd.Owners() {
		ledger, err := ledgerstore.New(t.Context(), js, owner)
		must(t, err)
		must(t, ledger.SetMark(t.Context(), owner, history.Mark{Sequence: 10}))
		theirs, err := ledgerstore.New(t.Context(), s.connect(t, owner), owner)
		must(t, err)
		if m, err := theirs.Mark(t.Context(), owner); err != nil || m.Sequence != 10 {
			t.Errorf("%s has the mark %v (%v)", owner, m, err)
		}
	}
}

// TestAccountsAllowNothingElse: with a service's user no stream is changed, and nothing is written or read that is another's, whether asked
// openly or by the tricks of a foreign reply subject (hardening 1.3, 5).
func TestAccountsAllowNothingElse(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	keys := historytest.NewKeys(t, "services")
	review := s.connect(t, "review")
	store, err := historystore.New(t.Context(), historystore.Config{JS: review, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	keys.NewWriter(t, store, "e20261124.1", "review").MustAppend(t, 3)
	notes, err := vaultstore.New(t.Context(), s.connect(t, "deployment"), "deployment")
	must(t, err)
	secret := vaulttest.New("of the deployment service")
	must(t, notes.Put(t.Context(), secret.Commitment, secret.Salt, secret.Value))
	before := s.state(t)

	type try struct {
		subject, reply, data string
		header               nats.Header
	}
	var tries []try
	for _, call := range []string{
		"STREAM.CREATE.X", "STREAM.UPDATE.EMERGENCY", "STREAM.DELETE.EMERGENCY", "STREAM.PURGE.EMERGENCY", "STREAM.SNAPSHOT.EMERGENCY", "STREAM.RESTORE.EMERGENCY",
		"STREAM.MSG.DELETE.EMERGENCY", "STREAM.MSG.DELETE.KV_RESTRICTED_deployment", "STREAM.MSG.GET.KV_RESTRICTED_deployment", "STREAM.INFO.KV_RESTRICTED_deployment",
		"STREAM.MSG.DELETE.KV_EFFECTS", "STREAM.PURGE.KV_EFFECTS", "STREAM.PURGE.OBJ_ARTEFACTS", "STREAM.LEADER.STEPDOWN.EMERGENCY", "STREAM.PEER.REMOVE.EMERGENCY",
		"CONSUMER.CREATE.EMERGENCY", "CONSUMER.DURABLE.CREATE.EMERGENCY.x", "CONSUMER.LIST.EMERGENCY", "CONSUMER.DELETE.EMERGENCY.review-1", "CONSUMER.PAUSE.EMERGENCY.review-1",
		"CONSUMER.INFO.EMERGENCY.deployment-1", "CONSUMER.RESET.EMERGENCY.deployment-1", "CONSUMER.MSG.NEXT.EMERGENCY.deployment-1", "CONSUMER.UNPIN.EMERGENCY.review-1", "STREAM.LIST", "STREAM.NAMES", "INFO", "META.LEADER.STEPDOWN",
	} {
		body := ""
		if strings.Contains(call, ".MSG.") {
			body = `{"seq":1}`
		}
		tries = append(tries, try{subject: "$JS.API." + call, data: body}, try{subject: natsd.APIPrefix + "." + call, data: body})
	}
	for _, key := range []string{natsd.EffectKey("effect", "deployment") + ".x", natsd.EffectKey("mark", "deployment"), natsd.EffectKey("lease", "deployment"), "x"} {
		tries = append(tries, try{subject: natsd.APIPrefix + ".$KV.EFFECTS." + key, data: "done"})
	}
	for _, subject := range []string{"$KV.RESTRICTED_deployment.x", "$KV.EFFECTS.x", "$SYS.REQ.SERVER.PING", "$JS.ACK.EMERGENCY.x", "other"} {
		tries = append(tries, try{subject: subject, data: "x"})
	}
	// What may be asked is asked with a reply subject that is stored: neither the server's answer nor an acknowledgement lands there.
	for _, reply := range []string{"emergency.e20261124-9", "$KV.RESTRICTED_deployment.x", "$KV.RESTRICTED_review.x", "$O.ARTEFACTS.M.x", "JSLOG.$KV.EFFECTS.x", "$JS.API.STREAM.DELETE.EMERGENCY"} {
		tries = append(tries,
			try{subject: natsd.APIPrefix + ".STREAM.INFO.EMERGENCY", reply: reply},
			try{subject: natsd.APIPrefix + ".STREAM.MSG.GET.EMERGENCY", reply: reply, data: `{"seq":1}`},
			try{subject: natsd.APIPrefix + ".CONSUMER.INFO.EMERGENCY.review-1", reply: reply},
			try{subject: natsd.APIPrefix + ".CONSUMER.RESET.EMERGENCY.review-1", reply: reply, data: `{"seq":1}`},
			try{subject: natsd.APIPrefix + ".CONSUMER.MSG.NEXT.EMERGENCY.review-1", reply: reply, data: `{"batch":9,"expires":2000000000,"idle_heartbeat":500000000}`},
			try{subject: natsd.APIPrefix + ".STREAM.MSG.DELETE.KV_RESTRICTED_review", reply: reply, data: `{"seq":77}`},
			try{subject: "emergency.e20261124-1", reply: reply, data: "x", header: nats.Header{jetstream.ExpectedStreamHeader: {"OTHER"}}},
		)
	}
	nc := review.Conn()
	answers, err := nc.SubscribeSync(natsd.InboxPrefix("review") + ".try.>")
	must(t, err)
	for i, x := range tries {
		if x.reply == "" {
			x.reply = fmt.Sprintf("%s.try.%d", natsd.InboxPrefix("review"), i)
		}
		must(t, nc.PublishMsg(&nats.Msg{Subject: x.subject, Reply: x.reply, Data: []byte(x.data), Header: x.header}))
	}
	last := fmt.Sprintf("%s.try.last", natsd.InboxPrefix("review")) // what is allowed is answered, after all that
	must(t, nc.PublishRequest(natsd.APIPrefix+".STREAM.INFO.EMERGENCY", last, nil))
	for {
		m, err := answers.NextMsg(time.Minute)
		must(t, err)
		if m.Subject == last {
			break
		}
		if m.Header.Get("Status") != "503" { // nobody is there
			t.Errorf("an answer to %s: %s", m.Subject, m.Data)
		}
	}
	// The consumer has answered what was asked of it, with messages and, at last, that the time is over.
	for asked := true; asked; {
		c, err := s.admin.Consumer(t.Context(), natsd.Stream, "review-1")
		must(t, err)
		asked = c.CachedInfo().NumWaiting > 0 || c.CachedInfo().Delivered.Consumer < 3
	}
	// One append goes through the same server afterwards, so that what came before it was dealt with.
	keys.NewWriter(t, store, "e20261124.2", "review").MustAppend(t, 1)
	after := s.state(t)
	before[natsd.Stream] += 1<<20 | 1
	for name, was := range before {
		if after[name] != was {
			t.Errorf("%s: sequence %d with %d messages, before %d with %d", name, after[name]>>20, after[name]&(1<<20-1), was>>20, was&(1<<20-1))
		}
	}
	if len(after) != len(before) {
		t.Errorf("streams: %v, before %v", after, before)
	}
	if value, _, err := notes.Get(t.Context(), secret.Commitment); err != nil || !bytes.Equal(value, secret.Value) {
		t.Errorf("the other service's value: %q (%v)", value, err)
	}

	// The dashboard's user appends nothing.
	reader := s.connect(t, natsd.Reader)
	if _, err := reader.Conn().Request("emergency.e20261124-1", []byte("x"), 300*time.Millisecond); err == nil {
		t.Error("the dashboard may append")
	}
	if got := s.state(t)[natsd.Stream]; got != after[natsd.Stream] {
		t.Errorf("the history went from %d to %d", after[natsd.Stream], got)
	}
}

// TestDialRefusesOpenSeed: with a seed that others may read nothing connects.
func TestDialRefusesOpenSeed(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true} {
		must(t, os.Chmod(s.seeds["review"], mode))
		js, err := natsd.Dial(natsd.Remote{
			Servers: []string{s.url}, Service: "review", Seed: s.seeds["review"], Identity: func() *identity.Profile { return s.profile }, Logger: slog.New(slog.DiscardHandler),
		})
		if err == nil {
			js.Conn().Close()
		}
		if refused != (err != nil) || err != nil && !strings.Contains(err.Error(), s.seeds["review"]+": mode") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// TestAccountsTakeNothingAway: what services have written stays, whatever each of them, the reader too, publishes or asks for: rollup by a
// header on every subject it may write, purge and delete of every stream. Only what it destroys of its own restricted values is gone.
func TestAccountsTakeNothingAway(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	keys := historytest.NewKeys(t, "services")
	secret := vaulttest.New("a value")
	var stored []string
	for i, owner := range natsd.Owners() {
		js := s.connect(t, owner)
		store, err := historystore.New(t.Context(), historystore.Config{JS: js, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		keys.NewWriter(t, store, fmt.Sprintf("e20261124.%d", i+1), owner).MustAppend(t, 2)
		ledger, err := ledgerstore.New(t.Context(), js, owner)
		must(t, err)
		_, _, err = ledger.Intend(t.Context(), "call")
		must(t, err)
		must(t, ledger.SetMark(t.Context(), owner, history.Mark{Sequence: 2}))
		_, err = ledger.SetLease(t.Context(), owner, "instance of "+owner, 0)
		must(t, err)
		v, err := vaultstore.New(t.Context(), js, owner)
		must(t, err)
		must(t, v.Put(t.Context(), secret.Commitment, secret.Salt, secret.Value))
		objects, err := artefactstore.New(t.Context(), js, artefacts.DefaultLimit)
		must(t, err)
		ref, err := objects.Put(t.Context(), strings.NewReader("patch of "+owner), "text/plain")
		must(t, err)
		stored = append(stored, ref.SHA256)
	}

	for _, service := range natsd.Services() {
		js := s.connect(t, service)
		nc := js.Conn()
		var subjects []string
		if service != natsd.Reader {
			key := natsd.APIPrefix + ".$KV.EFFECTS."
			subjects = []string{
				key + natsd.EffectKey("effect", service) + ".thief", "$KV." + natsd.RestrictedBucket(service) + ".thief", "$O.ARTEFACTS.M.thief", "$O.ARTEFACTS.C.thief", "emergency.e20261124-9",
			}
		}
		for _, subject := range subjects {
			for _, rollup := range []string{jetstream.MsgRollupAll, jetstream.MsgRollupSubject} {
				m := nats.NewMsg(subject)
				m.Header.Set(jetstream.MsgRollup, rollup)
				m.Data = []byte("x")
				answer, err := nc.RequestMsg(m, time.Minute)
				if err != nil {
					t.Errorf("%s publishes on %s: %v", service, subject, err)
					continue
				}
				if !strings.Contains(string(answer.Data), "rollup not permitted") {
					t.Errorf("%s rolls %s up by %s: %s", service, subject, rollup, answer.Data)
				}
			}
		}
		for name := range s.state(t) {
			for _, call := range []string{"STREAM.PURGE.", "STREAM.DELETE.", "STREAM.UPDATE.", "STREAM.MSG.DELETE."} {
				if call+name == "STREAM.MSG.DELETE.KV_"+natsd.RestrictedBucket(service) {
					continue // which is its right
				}
				must(t, nc.Publish("$JS.API."+call+name, []byte(`{"seq":1}`)))
				must(t, nc.Publish(natsd.APIPrefix+"."+call+name, []byte(`{"seq":1}`)))
			}
		}
		_, err := js.Stream(t.Context(), natsd.Stream) // answered after all that
		must(t, err)
	}

	for i, owner := range natsd.Owners() {
		js := s.connect(t, owner)
		store, err := historystore.New(t.Context(), historystore.Config{JS: js, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		if r, err := history.Read(t.Context(), store, keys.Ring, fmt.Sprintf("e20261124.%d", i+1)); err != nil || len(r.Entries) != 2 {
			t.Errorf("the history of %s: %v (%v)", owner, r, err)
		}
		ledger, err := ledgerstore.New(t.Context(), js, owner)
		must(t, err)
		if fresh, _, err := ledger.Intend(t.Context(), "call"); err != nil || fresh {
			t.Errorf("what %s intends: fresh %t, %v", owner, fresh, err)
		}
		if m, err := ledger.Mark(t.Context(), owner); err != nil || m.Sequence != 2 {
			t.Errorf("the mark of %s: %v (%v)", owner, m, err)
		}
		if holder, _, err := ledger.Lease(t.Context(), owner); err != nil || holder != "instance of "+owner {
			t.Errorf("the lease of %s: %q (%v)", owner, holder, err)
		}
		v, err := vaultstore.New(t.Context(), js, owner)
		must(t, err)
		if value, _, err := v.Get(t.Context(), secret.Commitment); err != nil || !bytes.Equal(value, secret.Value) {
			t.Errorf("the value of %s: %q (%v)", owner, value, err)
		}
		objects, err := artefactstore.New(t.Context(), js, artefacts.DefaultLimit)
		must(t, err)
		if got, err := objects.Get(t.Context(), stored[i]); err != nil || string(got) != "patch of "+owner {
			t.Errorf("the artefact of %s: %q (%v)", owner, got, err)
		}
	}
}

// TestAccountsRefuse names what is wrong with the keys.
func TestAccountsRefuse(t *testing.T) {
	t.Parallel()
	user := func() string {
		k, err := nkeys.CreateUser()
		must(t, err)
		p, err := k.PublicKey()
		must(t, err)
		return p
	}
	all := map[string]string{}
	for _, s := range natsd.Services() {
		all[s] = user()
	}
	for want, x := range map[string]struct {
		provisioner string
		change      func(map[string]string)
	}{
		"key of review is missing": {user(), func(m map[string]string) { delete(m, "review") }},
		"is no service":            {user(), func(m map[string]string) { m["mallory"] = user() }},
		"for review":               {user(), func(m map[string]string) { m["review"] = "SUAKEY" }},
		"for the provisioner":      {"x", func(map[string]string) {}},
	} {
		users := map[string]string{}
		for k, v := range all {
			users[k] = v
		}
		x.change(users)
		if _, err := natsd.Accounts(x.provisioner, users); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if !slices.Contains(natsd.Services(), natsd.Reader) {
		t.Error("the reader has no account")
	}
}

// TestServerConfSyncsAndVerifies: a server that runs with the configuration syncs each write before it answers, and speaks to nobody who has no
// certificate of its authorities, whatever seed he has (hardening 4). Nothing else of the installation would notice if it did not.
func TestServerConfSyncsAndVerifies(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	if !s.server.JetStreamConfig().SyncAlways {
		t.Error("the server acknowledges what is not synced")
	}
	other, err := devca.Open(filepath.Join(t.TempDir(), "another"), time.Now)
	must(t, err)
	dir, err := other.Service("review")
	must(t, err)
	stranger, err := identity.Load(dir, identity.LoadOptions{Now: time.Now(), Dev: true})
	must(t, err)
	key, err := nats.NkeyOptionFromSeed(s.seeds["review"])
	must(t, err)
	for who, x := range map[string]struct {
		certificates []tls.Certificate
		version      uint16
		taken        bool
	}{
		"with a certificate":              {[]tls.Certificate{s.profile.Certificate}, tls.VersionTLS13, true},
		"without one":                     {nil, tls.VersionTLS13, false},
		"with one of another authority":   {[]tls.Certificate{stranger.Certificate}, tls.VersionTLS13, false},
		"with one, by an older TLS alone": {[]tls.Certificate{s.profile.Certificate}, tls.VersionTLS12, false},
	} {
		nc, err := nats.Connect(s.url, key, nats.CustomInboxPrefix(natsd.InboxPrefix("review")), nats.Secure(&tls.Config{
			RootCAs: s.profile.Roots, Certificates: x.certificates, MinVersion: tls.VersionTLS12, MaxVersion: x.version,
		}))
		if err == nil {
			nc.Close()
		}
		if x.taken != (err == nil) {
			t.Errorf("a client %s: %v", who, err)
		}
	}
}

// TestServerConfOfRoutes: the ports by which servers reach each other verify, too.
func TestServerConfOfRoutes(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	conf, err := natsd.ServerConf{
		Name: "n", Listen: "localhost:4222", Store: "/s", Accounts: "accounts: {}\n", Cluster: "c", Route: "localhost:6222", Routes: []string{"localhost:6223"},
		Cert: filepath.Join(s.dir, identity.CertFile), Key: filepath.Join(s.dir, identity.KeyFile), CA: filepath.Join(s.dir, identity.CAFile),
	}.Conf()
	must(t, err)
	opts := &server.Options{}
	must(t, opts.ProcessConfigString(conf))
	if !opts.SyncAlways {
		t.Error("not each write is synced")
	}
	for of, c := range map[string]*tls.Config{"clients": opts.TLSConfig, "routes": opts.Cluster.TLSConfig} {
		if c == nil || c.ClientAuth != tls.RequireAndVerifyClientCert || c.ClientCAs == nil || c.MinVersion != tls.VersionTLS13 {
			t.Errorf("the port of %s does not verify by TLS 1.3", of)
		}
	}
}

// TestServerConfIsRead: a real server understands every line, and leaves a peer that does not answer within seconds.
func TestServerConfIsRead(t *testing.T) {
	t.Parallel()
	conf, err := natsd.ServerConf{
		Name: "n", Listen: "localhost:4222", Store: "/s", Cert: "c", Key: "k", CA: "a", Accounts: "accounts: {}\n", Cluster: "c", Route: "localhost:6222", Routes: []string{"localhost:6223"}, Advertise: "localhost:6224",
	}.Conf()
	must(t, err)
	conf = regexp.MustCompile(`tls: {.*}`).ReplaceAllString(conf, "") // there are no such files
	opts := &server.Options{}
	must(t, opts.ProcessConfigString(conf))
	if opts.Cluster.Advertise != "localhost:6224" || !opts.Cluster.NoAdvertise {
		t.Errorf("servers are told %q, clients anything: %t", opts.Cluster.Advertise, !opts.Cluster.NoAdvertise)
	}
	for of, every := range map[string]time.Duration{"clients": opts.PingInterval, "routes": opts.Cluster.PingInterval} {
		if every != 5*time.Second || opts.MaxPingsOut != 2 || opts.Cluster.MaxPingsOut != 2 {
			t.Errorf("%s are asked every %s, %d and %d times", of, every, opts.MaxPingsOut, opts.Cluster.MaxPingsOut)
		}
	}
}

// TestServerConfRefuses: what is missing or open to strangers is no configuration.
func TestServerConfRefuses(t *testing.T) {
	t.Parallel()
	good := natsd.ServerConf{Name: "n", Listen: "localhost:4222", Store: "/s", Cert: "c", Key: "k", CA: "a", Accounts: "accounts: {}\n", Monitor: "127.0.0.1:8222"}
	if _, err := good.Conf(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*natsd.ServerConf){
		"Key is missing":   func(c *natsd.ServerConf) { c.Key = "" },
		"belong together":  func(c *natsd.ServerConf) { c.Route = "localhost:6222" },
		"and Advertise":    func(c *natsd.ServerConf) { c.Advertise = "localhost:6222" },
		"not this machine": func(c *natsd.ServerConf) { c.Monitor = "0.0.0.0:8222" },
	} {
		c := good
		change(&c)
		if _, err := c.Conf(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
