// SPDX-License-Identifier: Apache-2.0

package projection

import (
	"errors"

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
	chains map[string]*history.Chain
	stuck  map[string]error // incidents that cannot be read further
}

func newJudge(keys *history.Keyring) *judge {
	return &judge{keys: keys, chains: map[string]*history.Chain{}, stuck: map[string]error{}}
}

func (j *judge) judge(m history.Message) *Judged {
	out := &Judged{Message: m}
	if m.Incident == "" {
		out.Foreign = &history.ForeignError{Reason: history.ReasonWrongSubject, Detail: "the subject names no incident"}
		return out
	}
	if out.Unread = j.stuck[m.Incident]; out.Unread != nil {
		return out // what follows a record that could not be read cannot be understood either
	}
	chain, ok := j.chains[m.Incident]
	if !ok {
		chain = history.NewChain(m.Incident, j.keys)
		j.chains[m.Incident] = chain
	}
	entry, err := chain.Accept(m.Data)
	if err == nil {
		entry.Sequence = m.Sequence
		out.Record, err = Decode(entry)
	}
	if err != nil && !errors.As(err, &out.Foreign) {
		out.Unread = err
		j.stuck[m.Incident] = err
	}
	return out
}
