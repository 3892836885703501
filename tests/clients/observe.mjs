// Loaded before a snippet of the contract (`node --import`), which itself is left as it is. Tells the
// test what a user would see: one JSON object a line for each console message and each end of a
// WebSocket, with the code, the reason and whether the end was clean.
//
// With HERALD_TEST_WEBSOCKET=ws, the WebSocket is that of `ws` and not Node's own, which up to Node 22
// sends no `close` event when a handshake fails, though every browser does.
//
// Also supplies what the contract leaves to its reader: `fetchAccessToken` takes the tokens of
// HERALD_TEST_TOKENS (a JSON list) one after the other, and stays at the last.

import { writeSync } from 'node:fs';

/** Tells the test. Written at once, so that nothing is lost with the process. */
export function tell(line) {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** An argument of a console method as JSON. Errors and events hide their properties from it. */
function plain(value) {
  if (value instanceof Error) return { name: value.name, message: value.message };
  if (value?.type && value?.target) return { event: value.type, error: `${value.error ?? value.message}` };
  return value;
}

for (const level of ['log', 'error', 'warn']) {
  console[level] = (...args) => tell({ console: level, args: args.map(plain) });
}

const Original = process.env.HERALD_TEST_WEBSOCKET === 'ws' ? (await import('ws')).WebSocket : globalThis.WebSocket;
if (Original) {
  globalThis.WebSocket = class extends Original {
    constructor(...args) {
      super(...args);
      this.addEventListener('close', ({ code, reason, wasClean }) => {
        tell({ closed: { code, reason, wasClean } });
      });
    }
  };
}

const tokens = JSON.parse(process.env.HERALD_TEST_TOKENS ?? '[]');
globalThis.fetchAccessToken = async () => (tokens.length > 1 ? tokens.shift() : tokens[0]);

// Standard input ends with the test, also where that was killed. It does not keep a snippet alive
// that has nothing left to do.
process.stdin.on('end', () => process.exit()).resume();
process.stdin.unref?.();
