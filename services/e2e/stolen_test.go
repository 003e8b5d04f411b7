// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// pace is how long a thief waits between his rounds, of which each writes up to seven records onto each of two histories.
const pace = 100 * time.Millisecond

// thief has the credential of a service at the event log, and perhaps the key by which the service signs.
type thief struct {
	service string
	js      jetstream.JetStream
	keys    *history.Keyring
	store   *historystore.Store
	signer  history.Signer
	round   int
	stored  map[string]bool // subjects on which something of his was stored
}

// rob writes what it can: onto one history, with the right and a wrong expected sequence and with none, with headers that make a server
// forget, with answers sent onto subjects that are stored; records of the own key in other services' names and with their events; and into
// the bucket of artefacts, the ledger of effects and JetStream's API.
func (x *thief) rob(ctx context.Context, incident string) error {
	x.round++
	subject, err := history.Subject(incident)
	if err != nil {
		return err
	}
	last, err := x.last(ctx, subject)
	if err != nil {
		return err
	}
	junk := []byte(fmt.Sprintf("junk %d of %s", x.round, x.service))
	expect := func(n uint64) nats.Header {
		return nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(n, 10)}}
	}
	headers := []nats.Header{
		expect(last), expect(last + 1000), {}, {jetstream.MsgIDHeader: {"squatted-" + incident}}, {jetstream.MsgRollup: {"sub"}}, {jetstream.MsgRollup: {"all"}},
		{jetstream.MsgTTLHeader: {"1s"}}, {jetstream.ExpectedStreamHeader: {"OTHER"}},
	}
	h := headers[x.round%len(headers)]
	if _, err := x.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: junk, Header: h}); err == nil {
		x.stored[subject] = true
	}
	forged, err := x.forged(ctx, incident)
	if err != nil {
		return err
	}
	for _, record := range forged {
		if last, err = x.last(ctx, subject); err != nil {
			return err
		}
		if _, err := x.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: record, Header: expect(last)}); err == nil {
			x.stored[subject] = true
		}
	}
	nc := x.js.Conn()
	var errs []error
	for _, other := range append(procedure.Owners(), "x") {
		if other == x.service {
			continue
		}
		for _, kind := range []string{"effect", "mark", "lease"} {
			key := natsd.EffectKey(kind, other)
			if kind == "effect" {
				key += ".x"
			}
			for _, to := range []string{natsd.APIPrefix + ".$KV.EFFECTS." + key, "$KV.EFFECTS." + key} {
				errs = append(errs, nc.PublishMsg(&nats.Msg{Subject: to, Data: []byte("done")}))
			}
		}
		errs = append(errs, nc.Publish("$KV."+natsd.RestrictedBucket(other)+".x", junk))
	}
	for _, call := range []string{"STREAM.PURGE.EMERGENCY", "STREAM.DELETE.EMERGENCY", "STREAM.MSG.DELETE.EMERGENCY", "STREAM.UPDATE.EMERGENCY", "CONSUMER.CREATE.EMERGENCY", "STREAM.LEADER.STEPDOWN.EMERGENCY"} {
		errs = append(errs, nc.Publish("$JS.API."+call, []byte(`{"seq":1}`)), nc.Publish(natsd.APIPrefix+"."+call, []byte(`{"seq":1}`)))
	}
	for _, reply := range []string{subject, "$KV.EFFECTS." + natsd.EffectKey("lease", "notification"), "$JS.API.STREAM.PURGE.EMERGENCY"} {
		errs = append(errs, nc.PublishRequest(natsd.APIPrefix+".STREAM.INFO.EMERGENCY", reply, nil), nc.PublishRequest(subject, reply, junk))
	}
	// To what is his own, with a header that takes away what is everybody's.
	for _, to := range []string{
		"$O.ARTEFACTS.M.x", "$O.ARTEFACTS.C.x", natsd.APIPrefix + ".$KV.EFFECTS." + natsd.EffectKey("effect", x.service) + ".x", "$KV." + natsd.RestrictedBucket(x.service) + ".x",
	} {
		errs = append(errs, nc.PublishMsg(&nats.Msg{Subject: to, Data: junk, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupAll}}}), nc.Publish(to, junk))
	}
	return errors.Join(append(errs, nc.FlushTimeout(testenv.Patience))...)
}

func (x *thief) last(ctx context.Context, subject string) (uint64, error) {
	stream, err := x.js.Stream(ctx, natsd.Stream)
	if err != nil {
		return 0, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, subject)
	if err != nil {
		return 0, err
	}
	return m.Sequence, nil
}

// forged are records at the true head of the chain, signed with the stolen key: with the events of another owner, in another owner's name,
// and of the rule book.
func (x *thief) forged(ctx context.Context, incident string) (list [][]byte, err error) {
	if x.signer.KeyID == "" {
		return nil, nil
	}
	reading, err := history.Read(ctx, x.store, x.keys, incident)
	if err != nil {
		return nil, err
	}
	head, at := reading.Chain.Head(), timestamppb.Now()
	for owner, payload := range map[string]proto.Message{
		procedure.OwnerIncident:    &emergencyv1.IncidentClosed{Outcome: emergencyv1.Outcome_OUTCOME_FIXED},
		procedure.OwnerDeployment:  &emergencyv1.ApplyStarted{Host: demobook.Host, Executor: "carla"},
		procedure.OwnerArbitration: &emergencyv1.RoleGranted{Grant: &emergencyv1.RoleGrant{Person: "mallory", Role: emergencyv1.Role_ROLE_CRITICAL_ADMIN, EffectiveAt: at, BoardDecision: "m1"}},
	} {
		e, err := procedure.EncodeEvent(owner, payload)
		if err != nil {
			return nil, err
		}
		for _, name := range []string{x.service, owner} {
			signed, _, err := history.Seal(&emergencyv1.Record{
				Incident: incident, FirstPosition: head.Position + 1, Owner: name, Command: "Close", RequestId: fmt.Sprintf("stolen-%d", x.round), OccurredAt: at, RecordedAt: at,
				Actor: &emergencyv1.Actor{Person: "carla", Role: emergencyv1.Role_ROLE_CRITICAL_ADMIN}, Authority: "seed 1", PrevHash: head.Hash, Events: []*emergencyv1.Event{e},
			}, x.signer)
			if err != nil {
				return nil, err
			}
			list = append(list, signed)
		}
	}
	return list, nil
}

// TestStolenCredentials: thieves have every service's user at the event log of a whole installation, and the signing key of one that owns
// other events. While they write all they can, an emergency goes on: nobody's command is refused or lost, people are called, every reader
// skips what they wrote, counts it and says so, and the rule book is as it was (issue 6, section 3).
func TestStolenCredentials(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: a cluster of processes takes most of a minute; run without -short")
	}
	dir := t.TempDir()
	c := startInstallation(t, cluster.Config{Dir: dir, Instances: 1})
	keys, err := history.LoadKeyring(c.Keyring())
	must(t, err)
	carla, err := c.Client("carla")
	must(t, err)
	defer func() { must(t, carla.Close()) }()
	give := func(cmd procedure.Command) *emergencyv1.Committed {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		done, err := carla.Send(ctx, cmd)
		must(t, err)
		return done
	}
	incident := give(&emergencyv1.DeclareRequest{
		Meta: &emergencyv1.CommandMeta{}, System: demobook.System, Component: testenv.Program, Symptom: "cert-info runs what its caller says", Severity: emergencyv1.Severity_SEVERITY_HIGH,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_VULNERABILITY, Reason: "anybody can read the configuration",
	}).GetIncident()

	robbing, stop := context.WithCancel(t.Context())
	group, robbing := errgroup.WithContext(robbing)
	var thieves []*thief
	for _, service := range natsd.Services() {
		x := &thief{service: service, keys: keys, stored: map[string]bool{}}
		x.js, err = c.LogAs(service)
		must(t, err)
		t.Cleanup(x.js.Conn().Close)
		x.store, err = historystore.New(t.Context(), historystore.Config{JS: x.js, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		if service == procedure.OwnerReview {
			x.signer, err = c.Signer(service)
			must(t, err)
		}
		thieves = append(thieves, x)
		group.Go(func() error {
			for robbing.Err() == nil {
				select { // how fast a thief writes; what a flood does is another test's matter
				case <-time.After(pace):
				case <-robbing.Done():
				}
				for _, where := range []string{incident, procedure.RuleBook} {
					if err := x.rob(robbing, where); err != nil && robbing.Err() == nil {
						return fmt.Errorf("thief at %s: %w", x.service, err)
					}
				}
			}
			return nil
		})
	}

	var acks []*emergencyv1.Committed
	for i := range 10 {
		acks = append(acks, give(&emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident}, Entry: 1, Text: fmt.Sprintf("note %d", i)}))
	}
	acks = append(acks, give(&emergencyv1.SetContactsRequest{
		Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, Person: "carla", Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: "carla@example.org"}},
	}))
	called(t, carla, incident)
	stop()
	must(t, group.Wait())

	js, err := c.Log()
	must(t, err)
	defer js.Conn().Close()
	store, err := historystore.New(t.Context(), historystore.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	must(t, err)
	foreign := map[history.Reason]int{}
	for _, id := range []string{incident, procedure.RuleBook} {
		reading, err := history.Read(t.Context(), store, keys, id)
		must(t, err)
		for _, f := range reading.Foreign {
			foreign[f.Reason]++
		}
		for _, e := range reading.Entries {
			if strings.HasPrefix(e.Record.GetRequestId(), "stolen-") {
				t.Errorf("a reader of %s takes %s of the thief for history", id, e.Record.GetCommand())
			}
			acks = slices.DeleteFunc(acks, func(a *emergencyv1.Committed) bool { return a.GetIncident() == id && a.GetRecordHash() == e.Hash })
		}
	}
	if len(acks) > 0 {
		t.Errorf("%d acknowledged commands are not in the histories: %v", len(acks), acks)
	}
	for _, reason := range []history.Reason{history.ReasonMalformed, history.ReasonForeignEventType, history.ReasonWrongOwner} {
		if foreign[reason] == 0 {
			t.Errorf("nothing was skipped as %s", reason)
		}
	}
	for _, x := range thieves {
		if x.service == natsd.Reader && len(x.stored) > 0 {
			t.Errorf("who may only read has written to %v", slices.Sorted(maps.Keys(x.stored)))
		}
	}
	st, err := carla.State(t.Context(), incident) // the person's own machine
	must(t, err)
	if st.Status != procedure.Open || len(st.Notes) != 10 {
		t.Errorf("the incident is %v with %d notes", st.Status, len(st.Notes))
	}
	book, err := carla.Book(t.Context())
	must(t, err)
	if book.Listed("mallory") {
		t.Error("the thief is in the directory")
	}
	for _, i := range c.Instances {
		if n := counted(t, "http://"+i.HTTP+"/metrics", "epatch_foreign_records_total"); n == 0 {
			t.Errorf("%s has counted no foreign record", i.Service)
		}
	}
	t.Logf("%d rounds of a thief; skipped: %v", thieves[0].round, foreign)
}

// called waits until the channels have taken every page.
func called(t *testing.T, c *client.Client, incident string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	for {
		st, err := c.State(ctx, incident)
		must(t, err)
		if n := len(st.Pages); n > 0 && !slices.ContainsFunc(st.Pages, func(p procedure.Page) bool { return p.State == emergencyv1.DeliveryState_DELIVERY_STATE_UNSPECIFIED }) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the teams are not called")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// counted is a counter of a metrics page.
func counted(t *testing.T, url, name string) (n float64) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(string(body), -1) {
		x, err := strconv.ParseFloat(m[1], 64)
		must(t, err)
		n += x
	}
	return n
}
