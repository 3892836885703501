// See telemetry-cost.sh.
//
//   node scripts/telemetry-cost.mjs <herald> <nats-server> <runs>
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { createRequire } from "node:module";

const packages = createRequire(path.resolve("tests/clients/package.json"));
const { connect } = packages("@nats-io/transport-node");

const [herald, natsServer, runs] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const SECRET = "only-for-this-measurement-0123456789";
// Events a second are far below what a gateway takes, so that the work is the same in each run.
const LOADS = [
  { fanOut: 100, events: 3000, perSecond: 600 },
  { fanOut: 1, events: 20000, perSecond: 4000 },
];
const WARM_UP = 500;
const MODES = { off: null, "1%": "0.01", "100%": "1" };

const children = new Set();
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "herald-cost-"));
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  fs.rmSync(folder, { recursive: true, force: true });
});
process.on("SIGINT", () => process.exit(1));

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const freePort = () =>
  new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

function start(command, args, env = {}) {
  const log = fs.openSync(path.join(folder, `${path.basename(command)}.log`), "a");
  const clean = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(HERALD|OTEL)_|^RUST_LOG$/.test(name)),
  );
  const child = spawn(command, args, { env: { ...clean, ...env }, stdio: ["ignore", log, log] });
  children.add(child);
  child.on("exit", () => children.delete(child));
  return child;
}

async function until(what, condition) {
  for (let tries = 0; tries < 600; tries++) {
    if (await condition().catch(() => false)) return;
    await sleep(50);
  }
  throw new Error(`${what} does not come: see ${folder}`);
}

/** CPU time of all threads of a process, in nanoseconds. */
function cpu(pid) {
  const tasks = `/proc/${pid}/task`;
  return fs
    .readdirSync(tasks)
    .map((task) => Number(fs.readFileSync(`${tasks}/${task}/schedstat`, "utf8").split(" ")[0]))
    .reduce((sum, one) => sum + one, 0);
}

async function metric(port, name, label = "") {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return text
    .split("\n")
    .filter((line) => line.startsWith(name) && "{ ".includes(line[name.length]) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

function token(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, workspaces: "acme", exp })}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

/** A socket whose bytes are taken and not looked at. */
function open(port, user) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", reject);
    socket.once("data", (data) => {
      if (!data.includes(" 101 ")) return reject(new Error(data.toString("latin1")));
      socket.resume();
      resolve(socket);
    });
    socket.write(
      `GET /?token=${token(user)}&workspaceSlug=acme HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n` +
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
  });
}

async function publish(nats, events, perSecond) {
  const payload = JSON.stringify({ collection: "orders", recordId: "r1", data: { status: "paid" } });
  const start = performance.now();
  for (let sent = 0; sent < events; ) {
    const due = Math.min(events, Math.ceil(((performance.now() - start) / 1000) * perSecond));
    for (; sent < due; sent++) nats.publish("ws.acme.record.created", payload);
    await sleep(1);
  }
  await nats.flush();
}

/** One run: CPU time for each delivery in nanoseconds. */
async function run(natsUrl, collector, mode, { fanOut, events, perSecond }) {
  const [listen, admin] = [await freePort(), await freePort()];
  const ratio = MODES[mode];
  const gateway = start(herald, ["serve"], {
    HERALD_NATS__URL: natsUrl,
    HERALD_SERVER__LISTEN: `127.0.0.1:${listen}`,
    HERALD_SERVER__ADMIN_LISTEN: `127.0.0.1:${admin}`,
    HERALD_AUTH__HMAC_SECRET: SECRET,
    ...(ratio && {
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector}/v1/traces`,
      OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
      OTEL_TRACES_SAMPLER_ARG: ratio,
    }),
  });
  const answers = async () => (await fetch(`http://127.0.0.1:${listen}/readyz`)).ok;
  await until("a ready gateway", answers);
  const sockets = [];
  for (let user = 0; user < fanOut; user++) sockets.push(await open(listen, `user-${user}`));
  const nats = await connect({ servers: natsUrl });
  const delivered = async (count) => (await metric(admin, "herald_deliveries_total")) >= count;
  await publish(nats, WARM_UP, perSecond);
  await until("the warm-up", () => delivered(WARM_UP * fanOut));
  const before = cpu(gateway.pid);
  await publish(nats, events, perSecond);
  await until("every delivery", () => delivered((WARM_UP + events) * fanOut));
  // The last export begins within OTEL_BSP_SCHEDULE_DELAY. In each mode, so that what goes on beside it is the same.
  await sleep(6_000);
  const used = cpu(gateway.pid) - before;
  const dropped = await metric(admin, "otel_sdk_processor_span_processed_total", 'error_type="queue_full"');
  for (const socket of sockets) socket.destroy();
  await nats.close();
  gateway.kill("SIGKILL");
  return { perDelivery: used / (events * fanOut), dropped };
}

const median = (values) => values.toSorted((one, two) => one - two)[Math.floor(values.length / 2)];

const collector = http.createServer((request, response) => {
  request.resume();
  request.on("end", () => response.end());
});
await new Promise((resolve) => collector.listen(0, "127.0.0.1", resolve));
const collectorUrl = `http://127.0.0.1:${collector.address().port}`;
const port = await freePort();
start(natsServer, ["-a", "127.0.0.1", "-p", String(port), "-js", "-sd", path.join(folder, "js")]);
const natsUrl = `nats://127.0.0.1:${port}`;
await until("nats", async () => {
  await (await connect({ servers: natsUrl, reconnect: false })).close();
  return true;
});

for (const load of LOADS) {
  const seen = Object.fromEntries(Object.keys(MODES).map((mode) => [mode, []]));
  for (let number = 0; number < runs; number++) {
    for (const mode of Object.keys(MODES)) seen[mode].push(await run(natsUrl, collectorUrl, mode, load));
  }
  for (const [mode, all] of Object.entries(seen)) {
    const micros = median(all.map((one) => one.perDelivery)) / 1000;
    const ratios = all.map((one, index) => one.perDelivery / seen.off[index].perDelivery - 1);
    const more = (median(ratios) * 100).toFixed(1);
    const dropped = all.reduce((sum, one) => sum + one.dropped, 0);
    console.log(
      `fan-out ${load.fanOut}, ${mode.padEnd(4)}: ${micros.toFixed(2)} µs a delivery` +
        (mode === "off" ? "" : `, ${more >= 0 ? "+" : ""}${more} %`) +
        (dropped ? ` (${dropped} spans dropped)` : ""),
    );
  }
}
process.exit(0);
