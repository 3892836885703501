// Opens idle sockets from one process and keeps them until standard input ends.
//
//   node scripts/idle-memory.mjs <ws-url> <count> < <tokens, one a line>
//
// Plain TCP with a hand-made handshake: a WebSocket library's own memory would limit the count.
import net from "node:net";
import readline from "node:readline";

const [url, count] = [new URL(process.argv[2]), Number(process.argv[3])];
const tokens = [];
for await (const line of readline.createInterface({ input: process.stdin })) {
  tokens.push(line.trim());
  if (tokens.length === count) break;
}

function open(token) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(url.port), url.hostname);
    socket.on("error", reject);
    socket.once("data", (data) => {
      const status = data.toString("latin1").split("\r\n", 1)[0];
      if (!status.includes(" 101 ")) reject(new Error(status));
      // Nothing is answered from here on: the measurement is shorter than two ping intervals.
      socket.resume();
      resolve(socket);
    });
    socket.write(
      `GET /?token=${token}&workspaceSlug=acme HTTP/1.1\r\nHost: ${url.host}\r\n` +
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
  });
}

const sockets = [];
for (let start = 0; start < tokens.length; start += 50) {
  sockets.push(...(await Promise.all(tokens.slice(start, start + 50).map(open))));
}
console.log(sockets.length);
setInterval(() => {}, 1 << 30);
