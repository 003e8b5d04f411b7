// SPDX-License-Identifier: Apache-2.0
// Plays a recording: the server has checked it and made it harmless; this shows its frames at their times. The transcript beside it
// says the same without this file.
const module = (name) => document.querySelector(`link[data-module="${name}"]`).href;
const { terminal } = await import(module('terminal.js'));

const player = document.getElementById('player');
if (player) {
  const part = (name) => player.querySelector(`[data-do="${name}"]`);
  const show = (name) => player.querySelector(`[data-show="${name}"]`);
  const two = (n) => String(n).padStart(2, '0');
  const clock = (ms) => { const s = Math.floor(ms / 1000); return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`; };
  const longestPause = 2000, piece = 64 * 1024;

  const frames = [], lines = []; // [ms, write] in order; [ms, text]
  let head = { cols: 80, rows: 24, length: 0 };
  let screen, next = 0, at = 0, playing = false, last = 0, busy = Promise.resolve(), found = -1;

  const take = (entry) => {
    const [kind, ms, a, b] = entry;
    if (kind === 'o') frames.push([ms, a, null]);
    else if (kind === 'r') frames.push([ms, null, [a, b]]);
    else if (kind === 'l') lines.push([ms, a]);
  };

  // read takes the recording line by line as it comes.
  const read = async (response) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '', first = true, whole = false;
    const line = (text) => {
      const entry = JSON.parse(text);
      if (first) { head = entry; first = false; } else if (entry[0] === 'end') whole = true; else take(entry);
    };
    for (;;) {
      const { done, value } = await reader.read();
      rest += value || '';
      const parts = rest.split('\n');
      rest = parts.pop();
      parts.filter((p) => p).forEach(line);
      if (done) break;
    }
    if (!whole) throw new Error('the recording did not come whole');
  };

  const write = (text) => new Promise((done) => { screen.term.write(text, done); });

  // upTo shows all that comes until a time; output is handed over in pieces, so that the page stays alive.
  const upTo = async (ms) => {
    let text = '';
    while (next < frames.length && frames[next][0] <= ms) {
      const [, output, size] = frames[next++];
      if (output !== null) text += output;
      if (size || text.length > piece) {
        if (text) await write(text);
        text = '';
      }
      if (size) screen.resize(...size);
    }
    if (text) await write(text);
  };

  const mark = () => {
    part('seek').value = at;
    part('seek').setAttribute('aria-valuetext', clock(at));
    show('time').value = `${clock(at)} / ${clock(head.length)}`;
    player.dataset.at = at;
    for (const list of document.querySelectorAll('.transcript, .moments')) {
      let now = null;
      for (const li of list.children) {
        li.removeAttribute('aria-current');
        if (Number(li.dataset.ms) <= at) now = li;
      }
      if (now) now.setAttribute('aria-current', 'true');
    }
  };

  // seek shows what the screen was at a time: from the beginning, if that is before what is shown.
  const seek = (ms) => {
    ms = Math.max(0, Math.min(head.length, ms));
    busy = busy.then(async () => {
      if (ms < at) {
        screen.term.reset();
        screen.resize(head.cols, head.rows);
        next = 0;
      }
      await upTo(ms);
      at = ms;
      mark();
    });
    return busy;
  };

  const setPlaying = (on) => {
    playing = on;
    last = performance.now();
    part('play').setAttribute('aria-pressed', String(on));
  };

  // step goes on by the time that has passed; a long pause is shortened if that is wanted.
  const step = async () => {
    if (!playing) return;
    const now = performance.now();
    let to = at + (now - last) * Number(part('speed').value);
    last = now;
    const coming = next < frames.length ? frames[next][0] : head.length;
    if (part('skip').checked && coming - at > longestPause) to = Math.max(to, coming - longestPause);
    await seek(to);
    if (at >= head.length) setPlaying(false);
  };

  const buttons = () => { // times become buttons that lead there
    for (const li of document.querySelectorAll('.transcript > li, .moments > li')) {
      const span = li.querySelector('.at'), button = document.createElement('button');
      button.type = 'button';
      button.className = 'at plain';
      button.textContent = span.textContent;
      button.addEventListener('click', () => { setPlaying(false); seek(Number(li.dataset.ms)); });
      span.replaceWith(button);
    }
  };

  const find = () => {
    const text = part('find').querySelector('input').value.trim().toLowerCase();
    const hits = text ? lines.filter(([, l]) => l.toLowerCase().includes(text)) : [];
    found = hits.length ? (found + 1) % hits.length : -1;
    show('found').value = `${found + 1} / ${hits.length}`;
    if (found >= 0) { setPlaying(false); seek(hits[found][0]); }
  };

  const start = async () => {
    player.hidden = false;
    const response = await fetch(player.dataset.frames, { method: 'POST', body: new URLSearchParams({ request: player.dataset.request }) });
    if (!response.ok) throw new Error(await response.text());
    await read(response);
    screen = terminal(player.querySelector('.screen'), head.cols, head.rows);
    part('seek').max = head.length;
    buttons();
    part('play').addEventListener('click', async () => {
      if (!playing && at >= head.length) await seek(0);
      setPlaying(!playing);
    });
    part('seek').addEventListener('input', (e) => seek(Number(e.target.value)));
    part('seek').addEventListener('keydown', (e) => { // steps that a session is long in; Home and End are the browser's
      const by = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -60, PageUp: 60 }[e.key];
      if (!by) return;
      e.preventDefault();
      seek(at + by * 1000);
    });
    part('find').addEventListener('submit', (e) => { e.preventDefault(); find(); });
    part('find').querySelector('input').addEventListener('input', () => { found = -1; });
    await seek(Number(player.dataset.from));
    show('state').textContent = '';
    player.dataset.ready = 'true';
    setInterval(step, 50);
  };
  start().catch((e) => {
    show('state').textContent = player.dataset.failed;
    player.dataset.failure = e.message;
  });
}
