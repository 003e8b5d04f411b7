// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/natsd/natsdtest"
	"github.com/nats-io/nats.go/jetstream"
)

var expect = natsd.Expect{Replicas: 1, Sync: natsd.SyncVerified}

// good returns the settings that Provision gives the stream.
func good(t *testing.T, js jetstream.JetStream) jetstream.StreamConfig {
	t.Helper()
	stream, err := js.Stream(t.Context(), natsd.Stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.Metadata = nil
	return cfg
}

// findings returns what err says is wrong; the test ends if err is anything else.
func findings(t *testing.T, err error) map[string]natsd.Finding {
	t.Helper()
	var ce *natsd.CheckError
	if err != nil && !errors.As(err, &ce) {
		t.Fatal(err)
	}
	found := map[string]natsd.Finding{}
	if ce != nil {
		for _, f := range ce.Findings {
			found[f.Setting] = f
		}
	}
	return found
}

func TestProvisionedStreamIsAccepted(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	if err := natsd.Check(t.Context(), js, expect); err != nil {
		t.Errorf("empty: %v", err)
	}
	publish(t, js, "emergency.e20261124-1", 3)
	if err := natsd.Check(t.Context(), js, expect); err != nil {
		t.Errorf("with messages: %v", err)
	}
	for _, stream := range []string{"OBJ_ARTEFACTS", "KV_EFFECTS", "KV_RESTRICTED_incident", "KV_RESTRICTED_notification",
		"KV_RESTRICTED_review", "KV_RESTRICTED_deployment", "KV_RESTRICTED_arbitration"} {
		if err := natsd.CheckBucket(t.Context(), js, stream, expect); err != nil {
			t.Error(err)
		}
	}
	if err := natsd.CheckBucket(t.Context(), js, "KV_OTHER", expect); err == nil {
		t.Error("a bucket that is none of ours was accepted")
	}
}

func TestProvisionRefusesProfile(t *testing.T) {
	t.Parallel()
	js := connect(t, start(t, t.TempDir()))
	for _, p := range []natsd.Profile{{}, {Replicas: 1}, {MaxBytes: 1}, {Replicas: 1, MaxBytes: -1}, {Replicas: 1, MaxBytes: 1, BucketBytes: -1}} {
		if err := natsd.Provision(t.Context(), js, p); err == nil {
			t.Errorf("profile %+v was accepted", p)
		}
	}
}

func TestProvisionTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	publish(t, js, "emergency.e20261124-1", 3)
	bigger := small
	bigger.MaxBytes *= 2
	if err := natsd.Provision(t.Context(), js, bigger); err != nil {
		t.Fatal(err)
	}
	if got := good(t, js).MaxBytes; got != small.MaxBytes {
		t.Errorf("max_bytes was changed to %d", got)
	}
}

func TestProvisionRefusesExistingWrongStream(t *testing.T) {
	t.Parallel()
	js := connect(t, start(t, t.TempDir()))
	cfg := jetstream.StreamConfig{Name: natsd.Stream, Subjects: []string{natsd.Subjects}, MaxAge: time.Hour}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	found := findings(t, natsd.Provision(t.Context(), js, small))
	if f, ok := found["max_age"]; !ok || f.Is != "1h0m0s" || f.Must != "0s" {
		t.Errorf("findings %v do not name max_age", found)
	}
	if got := good(t, js).MaxAge; got != time.Hour {
		t.Errorf("max_age was changed to %s", got)
	}
}

// TestProvisionTightens: buckets of a version that allowed rollup are made as they must be now, with what is in them; one that differs in more
// is a person's matter.
func TestProvisionTightens(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	again := func(stream string, change func(*jetstream.StreamConfig)) {
		t.Helper()
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		if err := js.DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		cfg.AllowRollup, cfg.DenyPurge = true, false
		change(&cfg)
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	for _, stream := range []string{"KV_EFFECTS", "OBJ_ARTEFACTS"} {
		again(stream, func(*jetstream.StreamConfig) {})
	}
	if _, err := js.Publish(t.Context(), "$KV.EFFECTS.x", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := natsd.Provision(t.Context(), js, small); err != nil {
			t.Fatal(err)
		}
	}
	for _, stream := range []string{"KV_EFFECTS", "OBJ_ARTEFACTS"} {
		if err := natsd.CheckBucket(t.Context(), js, stream, expect); err != nil {
			t.Error(err)
		}
	}
	kv, err := js.KeyValue(t.Context(), natsd.EffectBucket)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(t.Context(), "x"); err != nil || string(e.Value()) != "kept" {
		t.Errorf("after provisioning again: %v, %v", e, err)
	}

	again("KV_EFFECTS", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour })
	again("KV_RESTRICTED_review", func(*jetstream.StreamConfig) {})
	found := findings(t, natsd.Provision(t.Context(), js, small))
	for _, setting := range []string{"max_age", "allow_rollup_hdrs", "deny_purge"} {
		if _, ok := found[setting]; !ok {
			t.Errorf("%s is not named in %v", setting, found)
		}
	}
	for _, stream := range []string{"KV_EFFECTS", "KV_RESTRICTED_review"} {
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		if !s.CachedInfo().Config.AllowRollup {
			t.Errorf("%s was changed", stream)
		}
	}
}

// TestEachWrongSetting gives the stream one wrong setting after the other, each of which the server accepts.
func TestEachWrongSetting(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	base := good(t, js)
	if err := js.DeleteStream(t.Context(), natsd.Stream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	type config = jetstream.StreamConfig
	// The settings in `also` are those the server ties to the wrong one.
	for _, tc := range []struct {
		setting, is string
		also        string
		change      func(*config)
	}{
		{"subjects", "[other.*]", "", func(c *config) { c.Subjects = []string{"other.*"} }},
		{"subjects", "[emergency.* other.*]", "", func(c *config) { c.Subjects = []string{"emergency.*", "other.*"} }},
		{"subjects", "[emergency.>]", "", func(c *config) { c.Subjects = []string{"emergency.>"} }},
		{"storage", "Memory", "", func(c *config) { c.Storage = jetstream.MemoryStorage }},
		{"retention", "Interest", "", func(c *config) { c.Retention = jetstream.InterestPolicy }},
		{"retention", "WorkQueue", "", func(c *config) { c.Retention = jetstream.WorkQueuePolicy }},
		{"discard", "DiscardOld", "", func(c *config) { c.Discard = jetstream.DiscardOld }},
		{"max_age", "1h0m0s", "", func(c *config) { c.MaxAge = time.Hour }},
		{"max_msgs", "5", "", func(c *config) { c.MaxMsgs = 5 }},
		{"max_msgs_per_subject", "5", "", func(c *config) { c.MaxMsgsPerSubject = 5 }},
		{"discard_new_per_subject", "true", "max_msgs_per_subject", func(c *config) { c.DiscardNewPerSubject, c.MaxMsgsPerSubject = true, 5 }},
		{"max_msg_size", "-1", "", func(c *config) { c.MaxMsgSize = -1 }},
		{"max_msg_size", "1024", "", func(c *config) { c.MaxMsgSize = 1024 }},
		{"max_bytes", "-1", "", func(c *config) { c.MaxBytes = -1 }},
		{"deny_delete", "false", "", func(c *config) { c.DenyDelete = false }},
		{"deny_purge", "false", "", func(c *config) { c.DenyPurge = false }},
		{"allow_rollup_hdrs", "true", "deny_purge", func(c *config) { c.AllowRollup, c.DenyPurge = true, false }},
		{"allow_msg_ttl", "true", "", func(c *config) { c.AllowMsgTTL = true }},
		{"subject_delete_marker_ttl", "1h0m0s", "allow_msg_ttl allow_rollup_hdrs deny_purge", func(c *config) { c.SubjectDeleteMarkerTTL = time.Hour }},
		{"allow_msg_counter", "true", "discard", func(c *config) { c.AllowMsgCounter, c.Discard = true, jetstream.DiscardOld }},
		{"allow_msg_schedules", "true", "discard allow_rollup_hdrs deny_purge", func(c *config) { c.AllowMsgSchedules, c.Discard = true, jetstream.DiscardOld }},
		{"allow_atomic", "true", "", func(c *config) { c.AllowAtomicPublish = true }},
		{"allow_batched", "true", "", func(c *config) { c.AllowBatchPublish = true }},
		{"persist_mode", "Async", "", func(c *config) { c.PersistMode = jetstream.AsyncPersistMode }},
		{"no_ack", "true", "", func(c *config) { c.NoAck = true }},
		{"duplicate_window", "2m0s", "", func(c *config) { c.Duplicates = 2 * time.Minute }},
		{"first_seq", "100", "state.first_seq state.messages", func(c *config) { c.FirstSeq = 100 }},
		{"allow_direct", "true", "", func(c *config) { c.AllowDirect = true }},
		{"mirror_direct", "true", "subjects mirror duplicate_window", func(c *config) {
			c.MirrorDirect, c.Subjects, c.Duplicates = true, nil, 0
			c.Mirror = &jetstream.StreamSource{Name: "OTHER"}
		}},
		{"mirror", "stream OTHER", "subjects duplicate_window mirror_direct", func(c *config) {
			c.Mirror, c.Subjects, c.Duplicates = &jetstream.StreamSource{Name: "OTHER"}, nil, 0
		}},
		{"sources", "stream OTHER", "", func(c *config) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} }},
		{"subject_transform", "emergency.* to emergency.x{{wildcard(1)}}", "", func(c *config) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "emergency.*", Destination: "emergency.x{{wildcard(1)}}"}
		}},
		{"republish", "emergency.* to copy.{{wildcard(1)}}", "", func(c *config) {
			c.RePublish = &jetstream.RePublish{Source: "emergency.*", Destination: "copy.{{wildcard(1)}}"}
		}},
	} {
		cfg := base
		tc.change(&cfg)
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Errorf("%s %s: the server does not accept it: %v", tc.setting, tc.is, err)
			continue
		}
		found := findings(t, natsd.Check(t.Context(), js, expect))
		if f, ok := found[tc.setting]; !ok || f.Is != tc.is || f.Must == "" || f.Why == "" {
			t.Errorf("%s %s: not named in %v", tc.setting, tc.is, found)
		}
		delete(found, tc.setting)
		for _, also := range strings.Fields(tc.also) {
			delete(found, also)
		}
		if len(found) != 0 {
			t.Errorf("%s %s: wrong findings %v", tc.setting, tc.is, found)
		}
		if err := js.DeleteStream(t.Context(), natsd.Stream); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSealedStream(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	cfg := good(t, js)
	cfg.Sealed = true
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if found := findings(t, natsd.Check(t.Context(), js, expect)); found["sealed"].Is != "true" {
		t.Errorf("not named in %v", found)
	}
}

func TestCheckRefusesWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	found := findings(t, natsd.Check(t.Context(), js, natsd.Expect{Replicas: 1}))
	if f := found["sync_interval"]; f.Is != "unknown" || f.Must != "always" {
		t.Errorf("unknown sync: %v", found)
	}
	if err := natsd.Check(t.Context(), js, natsd.Expect{Replicas: 1, Sync: natsd.SyncStated}); err != nil {
		t.Errorf("stated sync: %v", err)
	}
	found = findings(t, natsd.Check(t.Context(), js, natsd.Expect{Replicas: 3, Sync: natsd.SyncStated}))
	if f := found["num_replicas"]; f.Is != "1" || f.Must != "3 or more" {
		t.Errorf("one replica: %v", found)
	}
}

func TestCheckListsAllFindings(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	cfg := good(t, js)
	cfg.MaxAge, cfg.Discard = time.Hour, jetstream.DiscardOld
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	err := natsd.Check(t.Context(), js, expect)
	if found := findings(t, err); len(found) != 2 {
		t.Errorf("findings %v, want two", found)
	}
	for _, want := range []string{"max_age is 1h0m0s, must be 0s", "discard is DiscardOld, must be DiscardNew"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
}

func TestCheckWithoutStream(t *testing.T) {
	t.Parallel()
	js := connect(t, start(t, t.TempDir()))
	if err := natsd.Check(t.Context(), js, expect); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("error %v, want stream not found", err)
	}
}

// TestForgottenMessages deletes from a stream that allows it: what is gone is found, also when the settings are good
// again afterwards.
func TestForgottenMessages(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		forget func(*testing.T, jetstream.Stream)
		want   []string
	}{
		{"middle", func(t *testing.T, s jetstream.Stream) { deleteMsg(t, s, 2) }, []string{"state.num_deleted", "state.messages"}},
		{"first", func(t *testing.T, s jetstream.Stream) { deleteMsg(t, s, 1) }, []string{"state.first_seq", "state.messages"}},
		{"last", func(t *testing.T, s jetstream.Stream) { deleteMsg(t, s, 3) }, []string{"state.messages"}},
		{"all", func(t *testing.T, s jetstream.Stream) {
			if err := s.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, []string{"state.first_seq", "state.messages"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			js := connect(t, start(t, t.TempDir()))
			cfg := jetstream.StreamConfig{Name: natsd.Stream, Subjects: []string{natsd.Subjects}}
			stream, err := js.CreateStream(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			publish(t, js, "emergency.e20261124-1", 3)
			tc.forget(t, stream)
			found := findings(t, natsd.Check(t.Context(), js, expect))
			for _, want := range tc.want {
				if _, ok := found[want]; !ok {
					t.Errorf("%s is not named in %v", want, found)
				}
			}
		})
	}
}

func deleteMsg(t *testing.T, s jetstream.Stream, seq uint64) {
	t.Helper()
	if err := s.DeleteMsg(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
}

func TestGuardNoticesLogThatWentBack(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	cfg := good(t, js)
	publish(t, js, "emergency.e20261124-1", 3)
	guard := natsd.NewGuard(js, expect, 2)
	if err := guard.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if guard.Last() != 3 {
		t.Errorf("last is %d", guard.Last())
	}
	if err := js.DeleteStream(t.Context(), natsd.Stream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	publish(t, js, "emergency.e20261124-1", 1)
	found := findings(t, guard.Look(t.Context()))
	if f := found["state.last_seq"]; f.Is != "1" || f.Must != "3 or more" {
		t.Errorf("state.last_seq is not named in %v", found)
	}
	if _, ok := found["created"]; !ok {
		t.Errorf("created is not named in %v", found)
	}
	publish(t, js, "emergency.e20261124-1", 9)
	if found := findings(t, guard.Look(t.Context())); len(found) != 2 {
		t.Errorf("a log that went back was accepted after it caught up: %v", found)
	}
	if err := natsd.NewGuard(js, expect, 11).Look(t.Context()); err == nil {
		t.Error("a log behind a known sequence was accepted")
	}
}

// TestCluster runs the checks where the log is replicated: from each server, and with one of them gone.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := natsdtest.StartCluster(t)
	three := natsd.Expect{Replicas: 3, Sync: natsd.SyncStated}
	js := cluster.Connect(t, 0)
	publish(t, js, "emergency.e20261124-1", 100)
	for i := range 3 {
		js := cluster.Connect(t, i)
		if err := natsd.Check(t.Context(), js, three); err != nil {
			t.Errorf("server %d: %v", i, err)
		}
	}
	guard := natsd.NewGuard(js, three, 100)
	cluster.Stop(2)
	retry(t, func(ctx context.Context) error { // until the two have agreed on a leader
		_, err := js.Publish(ctx, "emergency.e20261124-1", []byte("with two of three"))
		return err
	})
	retry(t, guard.Look)
	if guard.Last() < 101 {
		t.Errorf("last is %d", guard.Last())
	}
}

// retry repeats until it succeeds; what is refused by a finding never does.
func retry(t *testing.T, what func(context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := what(ctx)
		cancel()
		var ce *natsd.CheckError
		if err == nil {
			return
		}
		if errors.As(err, &ce) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
