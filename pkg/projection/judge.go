// SPDX-License-Identifier: Apache-2.0

package projection

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"cacert.org/emergency/pkg/history"
)

// Judged is a message of the stream and what every reader makes of it.
type Judged struct {
	history.Message
	// Record is what it says; nil if it is no part of a history that this version can read.
	Record *Record
	// Foreign is why it is skipped as a stranger's; nil if it is not.
	Foreign *history.ForeignError
	// Unread is why this version cannot read it, or what comes before it in its incident; nil if it can.
	Unread error
}

// judge tells history from noise, message by message in the order of the stream.
type judge struct {
	keys   *history.Keyring
	known  *history.Verified // may be nil
	chains map[string]*history.Chain
	stuck  map[string]error // incidents that cannot be read further
}

func newJudge(keys *history.Keyring, known *history.Verified) *judge {
	return &judge{keys: keys, known: known, chains: map[string]*history.Chain{}, stuck: map[string]error{}}
}

// opened is a message with what of its judgement does not depend on those before it.
type opened struct {
	history.Message
	*history.Opened
	record *Record
	err    error // of decoding its events
}

func (j *judge) open(m history.Message, verified bool) opened {
	o := opened{Message: m}
	if m.Incident == "" {
		return o
	}
	if verified {
		o.Opened = j.keys.OpenVerified(m.Data)
	} else {
		o.Opened = j.keys.Open(m.Data)
	}
	if entry := o.Entry(); entry != nil {
		if o.record, o.err = Decode(entry); o.record != nil {
			o.record.Header = m.Header
		}
	}
	return o
}

// judge judges the next message.
func (j *judge) judge(m history.Message) *Judged { return j.place(j.open(m, false)) }

// judgeAll judges the next messages. Signatures are what a long reading costs: all processors work at them, and those of a block that was
// verified before are not verified again.
func (j *judge) judgeAll(messages []history.Message) []*Judged {
	ready := make([]opened, len(messages))
	verified := j.known.Knows(messages)
	workers := min(runtime.GOMAXPROCS(0), len(messages))
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(messages); i = int(next.Add(1)) - 1 {
				ready[i] = j.open(messages[i], verified)
			}
		})
	}
	group.Wait()
	if !verified && !slices.ContainsFunc(ready, func(o opened) bool { return o.Opened == nil || o.Entry() == nil }) {
		j.known.Remember(messages)
	}
	list := make([]*Judged, len(messages))
	for i, o := range ready {
		list[i] = j.place(o)
	}
	return list
}

// place judges a message by those before it.
func (j *judge) place(o opened) *Judged {
	out := &Judged{Message: o.Message}
	if o.Incident == "" {
		out.Foreign = &history.ForeignError{Reason: history.ReasonWrongSubject, Detail: "the subject names no incident"}
		return out
	}
	if out.Unread = j.stuck[o.Incident]; out.Unread != nil {
		return out // what follows a record that could not be read cannot be understood either
	}
	chain, ok := j.chains[o.Incident]
	if !ok {
		chain = history.NewChain(o.Incident, j.keys)
		j.chains[o.Incident] = chain
	}
	entry, err := chain.AcceptOpened(o.Opened)
	if err == nil {
		entry.Sequence = o.Sequence
		if out.Record, err = o.record, o.err; err == nil {
			out.Record.Sequence = o.Sequence
		}
	}
	if err != nil && !errors.As(err, &out.Foreign) {
		out.Unread = err
		j.stuck[o.Incident] = err
	}
	return out
}
