// Renders the contract's NotificationPanel with the real React in a jsdom document:
//
//     node --import ./observe.mjs react.mjs SNIPPET [strict]
//
// SNIPPET is the contract's text as it is; only its JSX is translated. Each line of standard input is
// a command: {"token": "…"} is what useAuthToken returns from now on, {"unmount": true} ends the
// panel. Tells {"panel": {"status": …, "items": [[title, message], …]}} whenever it changes.

import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { transformSync } from 'esbuild';
import { JSDOM } from 'jsdom';
import { tell } from './observe.mjs';

const [snippet, mode] = process.argv.slice(2);

// React looks for a browser when it is loaded. The WebSocket stays Node's own.
const { window } = new JSDOM('<div id="root"></div>');
globalThis.window = window;
globalThis.document = window.document;
globalThis.navigator ??= window.navigator;
const { createElement, StrictMode, useSyncExternalStore } = await import('react');
const { createRoot } = await import('react-dom/client');

// "Your auth token provider": an external store, as such providers are.
let token = null;
const listeners = new Set();
globalThis.useAuthToken = () =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => token
  );

const source = `${readFileSync(snippet, 'utf8')}\nexport { NotificationPanel };\n`;
const { code } = transformSync(source, { loader: 'jsx', jsx: 'automatic' });
const module = `${snippet}.mjs`;
writeFileSync(module, code);
const { NotificationPanel } = await import(pathToFileURL(module));

const place = window.document.getElementById('root');
const text = (element, selector) => element.querySelector(selector)?.textContent;
new window.MutationObserver(() => {
  const [status, ...items] = place.firstElementChild?.children ?? [];
  tell({
    panel: status && {
      status: status.textContent,
      items: items.map((item) => [text(item, 'h3'), text(item, 'p')]),
    },
  });
}).observe(place, { childList: true, subtree: true, characterData: true });

const root = createRoot(place);
const panel = createElement(NotificationPanel);
root.render(mode === 'strict' ? createElement(StrictMode, null, panel) : panel);

process.stdin.ref();
createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line);
  if (command.unmount) {
    root.unmount();
    // Nothing is left that keeps Node alive, unless the snippet left it.
    process.stdin.unref();
  } else {
    token = command.token;
    for (const listener of listeners) listener();
  }
});
