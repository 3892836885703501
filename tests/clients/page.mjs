// Serves a page to a browser that runs the given scripts, each in a frame of its own as if in a tab:
//
//     node page.mjs SCRIPT...
//
// Tells {"page": URL} first, and then what `observe.mjs` would tell of a script, with {"frame": N}
// beside it, and {"opened": true} of each socket. The scripts are left as they are.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tell } from './observe.mjs';

/** Runs in each frame before its script. */
function observe(frame, tokens) {
  // One request after the other, so that the order stays.
  let last = Promise.resolve();
  const tell = (line) => {
    const body = JSON.stringify({ frame, ...line });
    last = last.then(() => fetch('/tell', { method: 'POST', body }));
  };
  const plain = (value) => (value instanceof Event ? { event: value.type } : value);
  for (const level of ['log', 'error', 'warn']) {
    console[level] = (...args) => tell({ console: level, args: args.map(plain) });
  }
  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener('open', () => tell({ opened: true }));
      this.addEventListener('close', ({ code, reason, wasClean }) => {
        tell({ closed: { code, reason, wasClean } });
      });
    }
  };
  window.fetchAccessToken = async () => (tokens.length > 1 ? tokens.shift() : tokens[0]);
}

const scripts = process.argv.slice(2).map((file) => readFileSync(file, 'utf8'));
const tokens = process.env.HERALD_TEST_TOKENS ?? '[]';
const page = scripts.map((_, frame) => `<iframe src="/${frame}"></iframe>`).join('');
const frame = (number) => `<script>(${observe})(${number}, ${tokens})</script><script>${scripts[number]}</script>`;

const server = createServer((request, response) => {
  response.setHeader('content-type', 'text/html; charset=utf-8');
  if (request.url === '/tell') {
    let body = '';
    request.setEncoding('utf8').on('data', (part) => (body += part));
    request.on('end', () => {
      tell(JSON.parse(body));
      response.end();
    });
  } else if (request.url === '/') {
    response.end(page);
  } else {
    const number = Number(request.url.slice(1));
    response.statusCode = number in scripts ? 200 : 404;
    response.end(number in scripts ? frame(number) : '');
  }
});
server.listen(0, '127.0.0.1', () => tell({ page: `http://localhost:${server.address().port}/` }));
