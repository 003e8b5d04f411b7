// SPDX-License-Identifier: Apache-2.0
// What the pages do beside htmx: times go on, the page says when the server is not heard any more, and the slider goes by itself.
// Without this file every page still says everything.
(() => {
  'use strict';
  const staleAfter = 40000; // more than two beats of the server
  let skew = 0; // of this machine's clock against the server's
  let heard = Date.now();

  const foot = () => document.querySelector('[data-now]');
  const sync = () => {
    const at = foot();
    if (at) skew = Date.parse(at.dataset.now) - Date.now();
  };
  const now = () => Date.now() + skew;

  const words = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: 'always' });
  const ago = (at) => {
    const s = Math.trunc((at - now()) / 1000), n = Math.abs(s);
    if (n >= 172800) return words.format(Math.trunc(s / 86400), 'day');
    if (n >= 7200) return words.format(Math.trunc(s / 3600), 'hour');
    if (n >= 120) return words.format(Math.trunc(s / 60), 'minute');
    return words.format(s === 0 ? -0 : s, 'second');
  };
  const two = (n) => String(n).padStart(2, '0');
  const left = (until) => {
    const s = Math.trunc((until - now()) / 1000), n = Math.abs(s);
    return (s < 0 ? '+' : '') + Math.trunc(n / 3600) + ':' + two(Math.trunc(n / 60) % 60) + ':' + two(n % 60);
  };
  const put = (e, text) => { if (e.textContent !== text) e.textContent = text; };

  // Who was never heard does not come back by itself: where the server answers again, the page is asked for again.
  let asked = Date.now();
  const comeBack = () => {
    if (Date.now() - asked < 10000) return;
    asked = Date.now();
    fetch(location.href, { method: 'HEAD', redirect: 'manual' }).then((r) => { if (r.ok || r.type === 'opaqueredirect') location.reload(); }, () => {});
  };

  const tick = () => {
    if (document.hidden) return;
    for (const e of document.querySelectorAll('[data-ago]')) put(e, ago(Date.parse(e.dataset.ago)));
    for (const e of document.querySelectorAll('[data-until]')) put(e, left(Date.parse(e.dataset.until)));
    const stale = document.getElementById('stale');
    if (!stale) return;
    stale.hidden = Date.now() - heard < staleAfter;
    if (!stale.hidden) comeBack();
  };

  const local = (e) => { e.title = new Date(e.dateTime).toLocaleString(document.documentElement.lang, { dateStyle: 'medium', timeStyle: 'long' }); };
  const localTimes = () => document.querySelectorAll('time').forEach(local);

  const alive = () => { heard = Date.now(); };
  for (const name of ['beat', 'htmx:sse:after:connection', 'htmx:sse:after:message']) document.addEventListener(name, alive);
  document.addEventListener('htmx:sse:after:message', () => { sync(); localTimes(); tick(); });
  document.addEventListener('htmx:sse:error', (e) => {
    const status = e.detail && e.detail.status;
    if (status === 401 || status === 403) location.reload();
  });
  document.addEventListener('gone', () => location.reload());
  document.addEventListener('visibilitychange', () => { if (!document.hidden) { alive(); tick(); } });

  const slide = document.querySelector('form[data-slide]');
  if (slide) {
    const range = slide.querySelector('input[type=range]'), out = slide.querySelector('output');
    range.addEventListener('input', () => { out.textContent = range.value; });
    range.addEventListener('change', () => slide.requestSubmit());
  }

  sync(); localTimes(); tick();
  setInterval(tick, 1000);
})();
