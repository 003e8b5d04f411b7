// SPDX-License-Identifier: Apache-2.0
// Makes passkeys and signs with them. What is signed is the challenge that the page carries, the digest of the statement; the server
// only hands on what comes back, and every reader of the history verifies it again.
const bytes = (s) => Uint8Array.from(atob(s.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
const text = (b) => btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
const named = (list) => (list || '').split(' ').filter(Boolean).map((id) => ({ type: 'public-key', id: bytes(id) }));

// able tells whether this browser can sign here at all.
export const able = () => 'credentials' in navigator && 'PublicKeyCredential' in window;

// signature asks the person for one, by what a page or a service asks for, and returns the fields that it is sent in. A browser asks
// for one at a time: what is asked for last is what counts, so that ending a session never waits behind another question.
let asking = null;
export const signature = async ({ challenge, relyingParty, credentials }) => {
  if (asking) asking.abort();
  asking = new AbortController();
  const c = await navigator.credentials.get({ signal: asking.signal, publicKey: {
    challenge: bytes(challenge), rpId: relyingParty, allowCredentials: named(credentials), userVerification: 'required', timeout: 120000,
  } });
  return {
    passkey_key: text(c.rawId), passkey_authenticator_data: text(c.response.authenticatorData),
    passkey_client_data: text(c.response.clientDataJSON), passkey_signature: text(c.response.signature),
  };
};

const get = async (form) => {
  for (const [name, value] of Object.entries(await signature(form.dataset))) form.elements[name].value = value;
};

const make = (form) => navigator.credentials.create({ publicKey: {
  challenge: bytes(form.dataset.challenge), rp: { id: form.dataset.relyingParty, name: form.dataset.relyingParty },
  user: { id: bytes(form.dataset.user), name: form.dataset.person, displayName: form.dataset.person },
  pubKeyCredParams: [-7, -8, -257].map((alg) => ({ type: 'public-key', alg })), excludeCredentials: named(form.dataset.credentials),
  authenticatorSelection: { residentKey: 'preferred', userVerification: 'required' }, attestation: 'none', timeout: 120000,
} }).then((c) => {
  const id = text(c.rawId);
  form.elements.passkey_made.value = JSON.stringify({ id, rawId: id, type: 'public-key', response: {
    clientDataJSON: text(c.response.clientDataJSON), attestationObject: text(c.response.attestationObject),
  } });
});

for (const form of document.querySelectorAll('form[data-passkey]')) {
  const button = form.querySelector('button[data-passkey-button]'), error = form.querySelector('[data-passkey-error]');
  form.querySelector('[data-passkey-unable]').hidden = able();
  button.hidden = !able();
  button.addEventListener('click', () => {
    button.disabled = true;
    error.hidden = true;
    (form.dataset.passkey === 'make' ? make : get)(form).then(() => form.submit(), (e) => {
      button.disabled = false;
      error.querySelector('bdi').textContent = e.message || e.name;
      error.hidden = false;
    });
  });
}
