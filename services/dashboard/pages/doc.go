// SPDX-License-Identifier: Apache-2.0

// Package pages is what people who take part see in a browser: rendered by the server, readable without JavaScript, and live
// where there is JavaScript, by server-sent events of the page's own address.
//
// It keeps nothing but sessions, and gives no command of its own: what a person does here is shown whole before it is signed, goes
// to the service that owns it with that signature over all of it (CommandMeta.forwarded), and is trusted for nothing else. What is
// asked in a form comes from the command's message, from procedure.WrongFields and from package prefill. What it shows comes from the query API, asked as the person who is signed
// in, and from the folds behind it; what a person could do and why not comes from procedure.Options. A restricted value is
// shown only after an explicit request, by the query API's own way, which writes down who looked. No page loads anything from
// another host, and the policy it is sent with allows no script and no style but the files beside it.
package pages
