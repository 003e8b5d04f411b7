// SPDX-License-Identifier: Apache-2.0
// Makes passkeys and signs with them. What is signed is the challenge that the page carries, the digest of the statement; the server
// only hands on what comes back, and every reader of the history verifies it again.
(() => {
  'use strict';
  const bytes = (s) => Uint8Array.from(atob(s.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
  const text = (b) => btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  const named = (list) => (list || '').split(' ').filter(Boolean).map((id) => ({ type: 'public-key', id: bytes(id) }));

  const get = (form) => navigator.credentials.get({ publicKey: {
    challenge: bytes(form.dataset.challenge), rpId: form.dataset.relyingParty, allowCredentials: named(form.dataset.credentials),
    userVerification: 'required', timeout: 120000,
  } }).then((c) => {
    form.elements.passkey_key.value = text(c.rawId);
    form.elements.passkey_authenticator_data.value = text(c.response.authenticatorData);
    form.elements.passkey_client_data.value = text(c.response.clientDataJSON);
    form.elements.passkey_signature.value = text(c.response.signature);
  });

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
    const able = 'credentials' in navigator && 'PublicKeyCredential' in window;
    form.querySelector('[data-passkey-unable]').hidden = able;
    button.hidden = !able;
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
})();
