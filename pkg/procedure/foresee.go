// SPDX-License-Identifier: Apache-2.0

package procedure

// What a person is told of a command before it is signed: which fields it lacks, and whether the rules would refuse it.

// WrongField is a field of a command that is not as the command's form wants it (G2).
type WrongField struct {
	// Field is its name, with the names of the messages that it is in, such as binding.digest.
	Field string
	// Must is what it has to be, such as "at least 10 characters".
	Must string
}

// WrongFields lists everything that a command's form does not take as it is (G2); of one that nobody has filled in, what has to be
// filled in. The common part and the signature are not looked at. nil for a message that is no command.
func WrongFields(c Command) []WrongField {
	row, ok := commandOf(c)
	if !ok {
		return nil
	}
	f := &fields{all: true}
	f.values(c.ProtoReflect())
	row.fields(f, c)
	return f.wrong
}

// Foresee tells whether a command would be refused now, by the checks that decide it; nil if not. It is for a command that is
// about to be signed: no signature is asked for, what only a service can find out is taken as it should be, and with it some of what a
// person has still to say, as in Options. So the service may refuse what was foreseen to be accepted. The actor is recognised by
// env.Actor.KeyID.
func Foresee(s *State, c Command, env Env) *Refusal {
	row, ok := commandOf(c)
	if !ok {
		return refuse(ReasonField, "%s is no command", c.ProtoReflect().Descriptor().FullName())
	}
	return ask(s, c, row, env)
}
