// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"
)

// What a cluster's servers are configured with so that a service may append and read, and nothing else (hardening 5): the streams are
// those of one account, in which no running process has a user, and every service has an account of its own that sees the few subjects
// it needs as services of that account.

// APIPrefix is where a service finds the parts of JetStream's API that it may use.
const APIPrefix = "JSLOG"

// Reader is the account of a process that only reads the histories: the dashboard, an archive.
const Reader = "dashboard"

// InboxPrefix is where the answers to a service's questions go; its user may subscribe nothing else.
func InboxPrefix(service string) string { return "_INBOX_" + service }

// Services are those with an account of their own.
func Services() []string { return append(Owners(), Reader) }

// right is one subject of the account that owns the streams.
type right struct {
	subject string
	to      string // where the service sees it; as subject if empty
	stream  bool   // one question has many answers
}

// local is the subject on the service's side.
func (r right) local() string {
	if r.to != "" {
		return r.to
	}
	return r.subject
}

// api is a right to one question of JetStream's API.
func api(call string) right { return right{subject: "$JS.API." + call, to: APIPrefix + "." + call} }

// pull is a right to the messages of a consumer.
func pull(consumer string) right {
	r := api("CONSUMER.MSG.NEXT." + Stream + "." + consumer)
	r.stream = true
	return r
}

// rights lists what a service may do. Nothing in it creates, changes, purges or deletes a stream or a consumer; it may say from where
// the consumers that were made for it read, and messages may be deleted in the service's own restricted bucket alone, where destroying is
// the point.
func rights(service string) []right {
	read := func(streams ...string) (all []right) {
		for _, s := range streams {
			all = append(all, api("STREAM.INFO."+s), api("STREAM.MSG.GET."+s))
		}
		return all
	}
	var list []right
	for _, c := range Consumers(service) {
		list = append(list, api("CONSUMER.INFO."+Stream+"."+c), api("CONSUMER.RESET."+Stream+"."+c), pull(c))
	}
	if service == Reader {
		return append(list, read(Stream, "OBJ_"+ObjectBucket)...)
	}
	own := RestrictedBucket(service)
	list = append(append(list, right{subject: Subjects}), read(Stream, "KV_"+EffectBucket, "OBJ_"+ObjectBucket, "KV_"+own)...)
	for _, key := range []string{EffectKey("effect", service) + ".>", EffectKey("mark", service), EffectKey("lease", service)} {
		subject := "$KV." + EffectBucket + "." + key
		list = append(list, right{subject: subject, to: APIPrefix + "." + subject}) // as the key-value client writes with a prefix
	}
	return append(list,
		api("STREAM.MSG.DELETE.KV_"+own),
		right{subject: "$KV." + own + ".>"},
		right{subject: "$O." + ObjectBucket + ".>"},
	)
}

// Accounts is the part of a NATS server's configuration that names the accounts. provisioner is the public key of the user that
// creates the streams and is kept offline; users are the services' by name, all of Services.
func Accounts(provisioner string, users map[string]string) (string, error) {
	for name, key := range users {
		if !slices.Contains(Services(), name) {
			return "", fmt.Errorf("accounts: %q is no service; there are %s", name, strings.Join(Services(), ", "))
		}
		if !nkeys.IsValidPublicUserKey(key) {
			return "", fmt.Errorf("accounts: %q is no public key of a user for %s: it begins with U", key, name)
		}
	}
	if !nkeys.IsValidPublicUserKey(provisioner) {
		return "", fmt.Errorf("accounts: %q is no public key of a user for the provisioner: it begins with U", provisioner)
	}
	var b strings.Builder
	b.WriteString("accounts: {\n  LOG: {\n    jetstream: enabled\n    users: [ { nkey: " + provisioner + " } ]\n    exports: [\n")
	var exported []right
	for _, s := range Services() {
		if users[s] == "" {
			return "", fmt.Errorf("accounts: the key of %s is missing", s)
		}
		for _, r := range rights(s) {
			if !slices.ContainsFunc(exported, func(e right) bool { return e.subject == r.subject }) {
				exported = append(exported, r)
			}
		}
	}
	for _, e := range exported {
		var to []string
		for _, s := range Services() {
			if slices.ContainsFunc(rights(s), func(r right) bool { return r.subject == e.subject }) {
				to = append(to, account(s))
			}
		}
		answers := ""
		if e.stream {
			answers = ", response_type: stream"
		}
		fmt.Fprintf(&b, "      { service: %q, accounts: [%s]%s }\n", e.subject, strings.Join(to, ", "), answers)
	}
	b.WriteString("    ]\n  }\n")
	for _, s := range Services() {
		writeAccount(&b, s, users[s])
	}
	b.WriteString("}\n")
	return b.String(), nil
}

func writeAccount(b *strings.Builder, service, key string) {
	var publish, imports []string
	for _, r := range rights(service) {
		publish = append(publish, fmt.Sprintf("%q", r.local()))
		line := fmt.Sprintf("      { service: { account: LOG, subject: %q }", r.subject)
		if r.to != "" {
			line += fmt.Sprintf(", to: %q", r.to)
		}
		imports = append(imports, line+" }")
	}
	fmt.Fprintf(b, "  %s: {\n    users: [ { nkey: %s, permissions: {\n      publish: [%s]\n      subscribe: [%q]\n    } } ]\n    imports: [\n%s\n    ]\n  }\n",
		account(service), key, strings.Join(publish, ", "), InboxPrefix(service)+".>", strings.Join(imports, "\n"))
}

// account is the name of a service's account.
func account(service string) string { return strings.ToUpper(service) }
