// Publishes CloudEvents with the official SDK for JavaScript over nats.js, in each way that it has:
//
//     node sdk.mjs <subject>
//
// and prints the id of each, a line each. The server comes from the variables of docs/publishing.md.

import { jetstream } from '@nats-io/jetstream';
import { connect, headers } from '@nats-io/transport-node';
import { CloudEvent, HTTP } from 'cloudevents';

const connection = await connect({ servers: process.env.NATS_URL });
const stream = jetstream(connection);
const data = { title: 'From an SDK', metadata: { n: 1 } };
const kinds = { object: data, bytes: Buffer.from(JSON.stringify(data)), null: null, nothing: undefined };
// The SDK has no transport for NATS: its messages are headers and a body, or an event is JSON of itself.
const modes = {
  binary: HTTP.binary,
  structured: HTTP.structured,
  bare: (event) => ({ headers: {}, body: JSON.stringify(event) }),
};
for (const [mode, message] of Object.entries(modes)) {
  for (const [kind, data] of Object.entries(kinds)) {
    const id = `100% é ${mode} ${kind}`;
    const event = new CloudEvent({
      id,
      source: '/orders/a%20b',
      type: 'com.example.order',
      subject: 'caf%E9 "100%"',
      number: 7,
      flag: true,
      data,
    });
    const sent = message(event);
    const h = headers();
    for (const [name, value] of Object.entries(sent.headers)) h.set(name, String(value));
    await stream.publish(process.argv[2], sent.body, { headers: h });
    console.log(id);
  }
}
await connection.close();
