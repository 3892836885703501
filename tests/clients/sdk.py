"""Publishes CloudEvents with the official SDK for Python over nats-py, in each way that it has:

    sdk.py <nats url> <subject>

and prints the id of each, a line each. `cloudevents.v1` is the interface of the SDK's versions 1.x.
"""

import asyncio
import json
import sys

import nats
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_binary, to_json, to_structured
from cloudevents.v1.http import CloudEvent as CloudEventV1

DATA = {"title": "From an SDK", "metadata": {"n": 1}}
KINDS = {"object": DATA, "bytes": json.dumps(DATA).encode(), "nothing": None}


def attributes(id):
    return {
        "specversion": "1.0",
        "id": id,
        "source": "/orders/a%20b?off=50%",
        "type": "com.example.order",
        "subject": 'caf%E9 "100%" é',
        "datacontenttype": "application/json; charset=utf-8",
        "flag": True,
    }


def messages():
    """Id, headers and body of each."""
    for kind, data in KINDS.items():
        for name, write in [("binary", http.to_binary_event), ("structured", http.to_structured_event)]:
            id = f"2 100% é {name} {kind}"
            message = write(CloudEvent(attributes=attributes(id), data=data))
            yield id, message.headers, message.body
        for name, write in [("binary", to_binary), ("structured", to_structured)]:
            id = f"1 100% é {name} {kind}"
            yield id, *write(CloudEventV1(attributes(id), data))
        id = f"1 100% é bare {kind}"
        yield id, {}, to_json(CloudEventV1(attributes(id), data))


async def main(url, subject):
    client = await nats.connect(url)
    stream = client.jetstream()
    for id, headers, body in messages():
        headers = {name: str(value) for name, value in headers.items()}
        await stream.publish(subject, body or b"", headers=headers)
        print(id)
    await client.close()


asyncio.run(main(*sys.argv[1:]))
