// Events as the JavaScript SDK of CloudEvents sends them by HTTP. Prints the id of each.
import { CloudEvent, HTTP, emitterFor } from "cloudevents";

const url = `${process.env.HERALD_URL}/v1/workspaces/acme/events/custom.order_placed`;
const event = (id) =>
  new CloudEvent({ id, source: "/sdk", type: "com.example.order", data: { title: "From an SDK" } });

const send = async (id, message) => {
  const headers = { ...message.headers, authorization: `Bearer ${process.env.HERALD_TOKEN}` };
  const response = await fetch(url, { method: "POST", headers, body: message.body });
  if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
  console.log(id);
};

await send("js binary", HTTP.binary(event("js binary")));
await send("js structured é", HTTP.structured(event("js structured é")));
const withExtension = event("js extension").cloneWith({ team: "a b%é" });
await send("js extension", HTTP.binary(withExtension));
// Its own transport, as the SDK's guide has it.
const emit = emitterFor(async (message) => send("js emitter", message));
await emit(event("js emitter"));
