// SPDX-License-Identifier: Apache-2.0
// Watches a session that goes on. What the terminal has painted is acknowledged, and only then; the session flows only while somebody
// can see this page. It says so as often as the server asks, and stops saying so the moment the page is hidden, held or gone.
const module = (name) => document.querySelector(`link[data-module="${name}"]`).href;
const { terminal } = await import(module('terminal.js'));
const { able, signature } = await import(module('passkey.js'));

const page = document.getElementById('watch');
if (page) {
  const show = (name) => page.querySelector(`[data-show="${name}"]`);
  const words = page.querySelector('[data-words]').dataset;
  const again = 1000;
  let screen = null, socket = null, beat = 0, over = false;
  let painted = 0, written = 0, awaiting = false, held = false, standing = '';

  const put = (name, text) => { if (show(name).textContent !== text) show(name).textContent = text; };
  const trouble = (text) => { show('trouble').hidden = !text; put('trouble', text || ''); };
  const away = () => document.hidden || held;

  const renew = () => {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ rendered: painted, hidden: away() }));
  };

  // wrote waits for the terminal's next picture: a page that nobody can see paints none.
  const wrote = (offset) => {
    written = Math.max(written, offset);
    if (awaiting) return;
    awaiting = true;
    requestAnimationFrame(() => {
      awaiting = false;
      if (document.hidden) return;
      painted = written;
      renew();
    });
  };

  const note = (text, ms) => {
    const li = document.createElement('li'), at = document.createElement('b'), line = document.createElement('i');
    const s = Math.floor(ms / 1000);
    at.className = 'at';
    at.textContent = `${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, '0')}:${String(s % 60).padStart(2, '0')}`;
    line.className = 'line';
    line.lang = 'en';
    line.textContent = text;
    li.append(at, line);
    show('notices').append(li);
    while (show('notices').children.length > 500) show('notices').firstChild.remove();
  };

  // headed keeps the badge of the page's heading true: it was drawn when the page was opened.
  const headed = (text, kind) => {
    const badge = document.getElementById('standing');
    badge.textContent = text;
    badge.className = `badge ${kind}`;
  };

  const stands = (m) => {
    standing = m.state;
    if (m.grant) headed(m.grant.text, m.grant.class);
    put('state', m.state);
    show('state').className = `badge ${m.class || 'quiet'}`;
    put('cause', m.text || '');
    put('open', m.open ? words.open : words.shut);
    put('discarded', m.discarded || '');
    put('people', (m.people || []).join(' · '));
    page.dataset.state = m.class === 'warn' ? 'frozen' : '';
    page.dataset.open = String(Boolean(m.open));
    page.dataset.grace = m.grace || '';
    if (m.open) trouble('');
    else if (m.class === 'warn' && part('resume')) part('resume').hidden = false;
    if (m.open && part('resume')) part('resume').hidden = true;
  };

  const ended = (m) => {
    over = true;
    trouble([m.text, ...(m.ways || [])].join(' — '));
    page.dataset.over = m.kind;
    if (m.kind !== 'end') return;
    put('open', words.shut);
    headed(words.ended, 'warn');
  };

  const hear = (m) => {
    switch (m.kind) {
      case 'welcome': // everything comes again, from the first byte
        if (screen) screen.term.reset();
        else screen = terminal(page.querySelector('.screen'), m.cols, m.rows);
        screen.resize(m.cols, m.rows);
        show('notices').replaceChildren();
        painted = 0;
        written = 0;
        put('mode', m.text);
        page.dataset.mode = m.mode;
        clearInterval(beat);
        beat = setInterval(renew, m.every);
        trouble(held ? page.dataset.held : '');
        renew();
        break;
      case 'output':
        screen.term.write(m.text || '', () => wrote(m.offset));
        break;
      case 'resize':
        screen.term.write('', () => screen.resize(m.cols, m.rows));
        break;
      case 'notice':
        note(m.text, m.ms || 0);
        break;
      case 'state':
        stands(m);
        break;
      case 'sign':
        signs(m);
        break;
      case 'lost':
        trouble(page.dataset.lost);
        break;
      case 'end':
      case 'refused':
        ended(m);
        break;
      default:
    }
  };

  // bySigning has the person sign by a passkey, or else by the demo key where there is one. Who says no in the browser's question has
  // said no, also to the demo key.
  const bySigning = async (ask, demo) => {
    if (ask.challenge && able()) {
      try {
        return await signature(ask);
      } catch (e) {
        if (!demo || ['NotAllowedError', 'AbortError'].includes(e.name)) throw e;
      }
    }
    if (!demo) throw new Error(page.dataset.nokey);
    return { demo: '1' };
  };

  // signs answers the service's question who is watching. Without an answer nobody is, and the watch can be begun again.
  const signs = async (m) => {
    const on = socket;
    try {
      const signed = await bySigning({ challenge: m.challenge, relyingParty: m.relying_party, credentials: m.credentials }, m.demo);
      on.send(JSON.stringify({ signed }));
    } catch (e) {
      over = true;
      on.close();
      trouble(`${page.dataset.unsigned} ${e.message}`);
      part('begin').hidden = false;
    }
  };

  const connect = () => {
    over = false;
    socket = new WebSocket(new URL(page.dataset.stream, location.href.replace(/^http/, 'ws')));
    socket.addEventListener('open', () => socket.send(JSON.stringify({ watch: page.dataset.watcher === 'true' ? 'watcher' : 'observer' })));
    socket.addEventListener('message', (e) => hear(JSON.parse(e.data)));
    socket.addEventListener('close', () => {
      clearInterval(beat);
      if (over) return;
      trouble(page.dataset.lost);
      setTimeout(connect, again);
    });
  };

  // give gives a signed command by the forms of the other pages, without leaving this one: the form as the history fills it in, what it
  // says to be signed, and the signature. It returns whether that was recorded.
  const pageOf = async (url, options) => {
    const r = await fetch(url, options);
    return { at: new URL(r.url), html: new DOMParser().parseFromString(await r.text(), 'text/html') };
  };
  const posted = (form, more) => {
    const data = new URLSearchParams(new FormData(form));
    for (const [k, v] of Object.entries(more)) data.set(k, v);
    return pageOf(form.getAttribute('action'), { method: 'POST', body: data });
  };
  const give = async (command, fields = {}) => {
    put('did', `${command}: ${page.dataset.signs}`);
    let why = '';
    try {
      const path = `${page.dataset.act}${command}?subject=${encodeURIComponent(page.dataset.grant)}`;
      const form = (await pageOf(path)).html.querySelector('form[method=post] input[name=filled]');
      const asked = form ? await posted(form.form, fields) : await pageOf(path, { method: 'POST', body: new URLSearchParams({ subject: page.dataset.grant }) });
      const sign = asked.html.querySelector('form.sign');
      if (sign) {
        const done = await posted(sign, await bySigning(sign.dataset, Boolean(sign.querySelector('button[name=demo]'))));
        if (done.at.searchParams.has('recorded')) {
          put('did', `${command}: ${page.dataset.done}`);
          return true;
        }
        why = (done.html.querySelector('.refusal') || {}).textContent || '';
      } else why = (asked.html.querySelector('.refusal') || {}).textContent || '';
    } catch (e) {
      why = e.message;
    }
    put('did', `${command}: ${page.dataset.failed} ${why.trim()}`);
    return false;
  };

  const part = (name) => page.querySelector(`[data-do="${name}"]`);
  const hold = (on) => { // takes effect with the next sign of life, which is sent at once and needs no signature
    held = on;
    renew();
    trouble(on ? page.dataset.held : '');
    if (part('resume')) part('resume').hidden = !on;
    if (part('hold')) part('hold').hidden = on || !socket;
  };
  const freeze = async () => {
    hold(true); // which freezes by itself, often before the signature is there
    if (!await give('Freeze') && page.dataset.state === 'frozen') put('did', `Freeze: ${page.dataset.already}`);
  };
  const kill = async () => { // neither waits for the other to succeed
    hold(true);
    show('sure').hidden = true;
    await give('Terminate');
    await give('Disable');
  };
  const begin = async () => {
    part('begin').disabled = true;
    if (await give('ArmWatch')) {
      part('begin').hidden = true;
      page.scrollIntoView(); // the terminal above, the controls below, both to be seen
      connect();
      hold(false);
    }
    part('begin').disabled = false;
  };
  const resume = async () => {
    if (!await give('ArmWatch')) return;
    hold(false);
    await give('Resume');
  };
  const sure = (on) => {
    if (on) hold(true);
    show('sure').hidden = !on;
    part('stop').hidden = on;
    if (on) part('kill').focus();
    else part('stop').focus();
  };
  if (page.dataset.watcher === 'true') {
    part('begin').addEventListener('click', begin);
    part('hold').addEventListener('click', freeze);
    part('resume').addEventListener('click', resume);
    part('stop').addEventListener('click', () => sure(true));
    part('keep').addEventListener('click', () => sure(false));
    part('kill').addEventListener('click', kill);
    if (part('extend')) part('extend').addEventListener('submit', async (e) => {
      e.preventDefault();
      const reason = part('extend').querySelector('input');
      if (!await give('ExtendSession', { reason: reason.value })) return;
      show('longer').remove();
    });
    part('note').addEventListener('submit', async (e) => {
      e.preventDefault();
      const text = part('note').querySelector('input');
      if (await give('MarkSession', { text: text.value })) text.value = '';
    });
    let chord = 0;
    document.addEventListener('keydown', (e) => {
      const now = Date.now();
      if (e.ctrlKey && e.key === '\\') {
        chord = now;
        put('did', page.dataset.chorded);
      } else if (chord && now - chord < 5000 && !['Control', 'Shift', 'Alt'].includes(e.key)) {
        chord = 0;
        put('did', '');
        if (e.key === 'f') freeze();
        if (e.key === 'k') kill();
      } else return;
      e.preventDefault();
    });
  }

  if (part('over')) { // somebody else than the watcher
    part('over').addEventListener('submit', async (e) => {
      e.preventDefault();
      if (await give('ArmWatch', { take_over_reason: part('over').querySelector('input').value })) location.reload();
    });
  }

  document.addEventListener('visibilitychange', () => {
    renew(); // at once: hidden counts as absent
    if (!document.hidden) {
      wrote(written);
      if (page.dataset.open === 'false' && standing) trouble(page.dataset.hidden);
    }
  });
  addEventListener('pagehide', () => { over = true; if (socket) socket.close(); });
  if (page.dataset.watcher !== 'true') connect(); // who watches begins with a signature
}
