// Connects as often as it is told, and tells with which code it was closed: `ws`.
//
//     closing.mjs <times> <url>

import { writeSync } from 'node:fs';
import { once } from 'node:events';
import { WebSocket } from 'ws';

const [times, url] = process.argv.slice(2);
for (let time = 0; time < Number(times); time += 1) {
  const socket = new WebSocket(url);
  const [code] = await once(socket, 'close');
  writeSync(1, `${JSON.stringify({ code })}\n`);
}
