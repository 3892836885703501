// A bridge from NATS to WebSockets, as a good Node developer writes it.
//
//   node server.mjs <nats url> <port>
//
// No compression; an event's frame is made once and shared by all sockets of the workspace. `ws` has no public call
// for that: `Sender.frame` and `_sender.sendFrame` are what engine.io uses for it.
import { createServer } from "node:http";
import { connect } from "@nats-io/transport-node";
import { Sender, WebSocketServer } from "ws";

const [url, port] = process.argv.slice(2);
const rooms = new Map();

const server = createServer();
const sockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
sockets.on("connection", (socket, request) => {
  const workspace = new URL(request.url, "http://x").searchParams.get("workspace");
  const room = rooms.get(workspace) ?? new Set();
  rooms.set(workspace, room.add(socket));
  socket.on("error", () => socket.terminate());
  socket.on("close", () => {
    room.delete(socket);
    if (room.size === 0 && rooms.get(workspace) === room) rooms.delete(workspace);
  });
});

const nats = await connect({ servers: url, reconnect: false });
nats.subscribe("live.ws.>", {
  callback: (error, message) => {
    if (error) throw error;
    const room = rooms.get(message.subject.split(".", 3)[2]);
    if (!room) return;
    const [head, body] = Sender.frame(message.data, { fin: true, opcode: 1, rsv1: false, mask: false, readOnly: true });
    const frame = [Buffer.concat([head, body])];
    for (const socket of room) if (socket.readyState === socket.OPEN) socket._sender.sendFrame(frame);
  },
});
await nats.flush();
// Without its NATS the bridge serves nobody.
nats.closed().then(() => process.exit(1));
server.listen(Number(port), "127.0.0.1", 16384, () => console.log("ready"));
