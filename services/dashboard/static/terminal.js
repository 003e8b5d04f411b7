// SPDX-License-Identifier: Apache-2.0
// A terminal that only shows: xterm.js with everything shut that could act, and under the pages' strict policy for styles.

// module is the address of a script that the page names.
export const module = (name) => document.querySelector(`link[data-module="${name}"]`).href;

// xterm.js writes style elements and style attributes, which the policy forbids. The same text through the browser's style objects
// is allowed to a script that the page itself may run, so nothing has to be allowed to anybody else.
const create = document.createElement;
const setAttribute = Element.prototype.setAttribute;
const throughStyle = function (name, value) {
  if (name === 'style') this.style.cssText = value;
  else setAttribute.call(this, name, value);
};
const standIn = () => {
  const element = create.call(document, 'template'), sheet = new CSSStyleSheet();
  let text = '';
  Object.defineProperty(element, 'textContent', {
    get: () => text,
    set: (t) => { text = t; sheet.replaceSync(t); },
  });
  const remove = element.remove;
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet);
    remove.call(element);
  };
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  return element;
};
document.createElement = function (name, options) {
  if (name === 'style') return standIn();
  const element = create.call(document, name, options);
  if (name === 'span') element.setAttribute = throughStyle;
  return element;
};

const { Terminal } = await import(module('vendor/xterm.mjs'));

const smallest = 9, largest = 15, perEm = 0.602; // width of a character of a monospaced font

// terminal opens one in a box that scrolls. Nobody types into it: no key is taken, nothing that the output asks for is answered, no
// link can be followed.
export const terminal = (box, cols, rows) => {
  const inner = box.appendChild(document.createElement('div'));
  const font = getComputedStyle(document.documentElement).getPropertyValue('--mono').trim() || 'monospace';
  const fitting = (n) => Math.max(smallest, Math.min(largest, Math.floor((box.clientWidth - 18) / n / perEm)));
  const term = new Terminal({
    cols, rows, disableStdin: true, cursorBlink: false, cursorInactiveStyle: 'outline', scrollback: 10000, convertEol: false, fontFamily: font, fontSize: fitting(cols),
    minimumContrastRatio: 4.5, linkHandler: { activate: () => {}, allowNonHttpProtocols: false }, logLevel: 'off', windowOptions: {},
    theme: { background: '#0d1117', foreground: '#e6edf3', cursor: '#e6edf3', selectionBackground: '#3b5070' },
  });
  term.attachCustomKeyEventHandler(() => false);
  term.open(inner);
  term.textarea.tabIndex = -1;
  term.textarea.disabled = true;
  box.addEventListener('keydown', (e) => {
    const by = { PageUp: -1, PageDown: 1 }[e.key];
    if (by) term.scrollPages(by);
    else if (e.key === 'Home') term.scrollToTop();
    else if (e.key === 'End') term.scrollToBottom();
    else return;
    e.preventDefault();
  });
  const fit = () => {
    const size = fitting(term.cols);
    if (term.options.fontSize !== size) term.options.fontSize = size;
  };
  new ResizeObserver(fit).observe(box);
  return {
    term,
    resize: (c, r) => {
      term.resize(Math.max(2, Math.min(1000, c)), Math.max(1, Math.min(500, r)));
      fit();
    },
  };
};
