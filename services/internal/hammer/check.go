// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Check reads the whole log and says all that is wrong with it, or with what the clients were told.
func (h *Hammer) Check(ctx context.Context) error {
	var all []history.Message
	if err := h.r.Store.Scan(ctx, 0, func(m history.Message) error { all = append(all, m); return nil }); err != nil {
		return err
	}
	keys := map[string][]byte{}
	for _, p := range proceduretest.People() {
		for _, name := range []string{p.Name, p.Name + "2"} {
			k := proceduretest.KeyOf(name)
			keys[k.ID] = k.Public
		}
	}
	return errors.Join(historytest.CheckIndependently(all, h.r.Keys.Public()), h.answered(all), CheckRules(all, keys))
}

// place is where a record is, by what a client can know of it.
type place struct {
	incident    string
	first, last uint64
}

// answered compares the log with what was answered: what was accepted is there once, exactly as it was said; what was
// refused or aborted is not; a repetition names the first.
func (h *Hammer) answered(all []history.Message) error {
	hashes, commands, err := index(all)
	if err != nil {
		return err
	}
	var errs []error
	accepted := map[string]bool{}
	for _, a := range h.answers {
		var refusal *procedure.Refusal
		if a.err != nil && !errors.As(a.err, &refusal) {
			errs = append(errs, fmt.Errorf("%s: answered with an error: %w", procedure.CommandName(a.cmd), a.err))
		}
		if a.err != nil || a.committed.GetFirstPosition() == 0 {
			continue
		}
		at := place{a.committed.GetIncident(), a.committed.GetFirstPosition(), a.committed.GetLastPosition()}
		if hash := hashes[at]; hash != a.committed.GetRecordHash() || hash == "" {
			errs = append(errs, fmt.Errorf("%s was told to be at %v with hash %s, there is %q", procedure.CommandName(a.cmd), at, a.committed.GetRecordHash(), hash))
		}
		accepted[commandKey(at.incident, a.cmd.GetMeta().GetRequestId(), procedure.CommandName(a.cmd), a.owner)] = true
	}
	for key, n := range commands {
		if n != 1 {
			errs = append(errs, fmt.Errorf("command %s is in the log %d times", key, n))
		}
		if !accepted[key] && !strings.Contains(key, "|founding|") {
			errs = append(errs, fmt.Errorf("command %s is in the log, and nobody was told so", key))
		}
	}
	for key := range accepted {
		if commands[key] == 0 {
			errs = append(errs, fmt.Errorf("command %s was accepted, and is not in the log", key))
		}
	}
	return errors.Join(errs...)
}

func commandKey(incident, request, command, owner string) string {
	return strings.Join([]string{incident, request, command, owner}, "|")
}

// index lists the records by place and by command; refusals are no commands.
func index(all []history.Message) (hashes map[place]string, commands map[string]int, err error) {
	hashes, commands = map[place]string{}, map[string]int{}
	for _, m := range all {
		var signed emergencyv1.SignedRecord
		var rec emergencyv1.Record
		if err := errors.Join(proto.Unmarshal(m.Data, &signed), proto.Unmarshal(signed.GetRecord(), &rec)); err != nil {
			return nil, nil, fmt.Errorf("sequence %d: %w", m.Sequence, err)
		}
		sum := sha256.Sum256(signed.GetRecord())
		hashes[place{m.Incident, rec.GetFirstPosition(), rec.GetFirstPosition() + uint64(len(rec.GetEvents())) - 1}] = hex.EncodeToString(sum[:])
		if strings.HasSuffix(rec.GetEvents()[0].GetType(), ".CommandRefused") {
			continue
		}
		key := commandKey(m.Incident, rec.GetRequestId(), rec.GetCommand(), rec.GetOwner())
		if m.Incident == procedure.RuleBook && len(rec.GetRequestId()) != len("request-000000") { // the fixture's ids are shorter
			key = commandKey(m.Incident, "founding", rec.GetRequestId(), rec.GetOwner())
		}
		commands[key]++
	}
	return hashes, commands, nil
}
