// Publishes events with nats.js, which knows nothing of Herald:
//
//     node publish.mjs '[["acme.record.created", {"recordId": "r1"}], …]'
//
// and prints the sequence of each. The server comes from the variables of docs/publishing.md.

import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';

const connection = await connect({
  servers: process.env.NATS_URL,
  user: process.env.NATS_USER,
  pass: process.env.NATS_PASSWORD,
  inboxPrefix: process.env.NATS_INBOX_PREFIX,
});
const stream = jetstream(connection);
for (const [event, payload] of JSON.parse(process.argv[2])) {
  const ack = await stream.publish(`ws.${event}`, JSON.stringify(payload));
  console.log(ack.seq);
}
await connection.close();
