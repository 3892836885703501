"""Publishes one event within a span of OpenTelemetry's SDK for Python, and prints that span's ids.

    traced.py <nats url> <subject> <JSON> [key=value of baggage …]

The SDK exports as its own OTEL_* variables say.
"""

import asyncio
import json
import sys

import nats
from opentelemetry import baggage, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor


async def main(url, subject, payload, *members):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("publisher")
    context = None
    for member in members:
        key, value = member.split("=", 1)
        context = baggage.set_baggage(key, value, context)
    client = await nats.connect(url)
    with tracer.start_as_current_span(
        f"publish {subject}", context=context, kind=trace.SpanKind.PRODUCER
    ) as span:
        headers = {}
        propagate.inject(headers, context=trace.set_span_in_context(span, context))
        ack = await client.jetstream().publish(subject, payload.encode(), headers=headers)
        ids = span.get_span_context()
    await client.close()
    provider.shutdown()
    print(
        json.dumps(
            {
                "trace": f"{ids.trace_id:032x}",
                "span": f"{ids.span_id:016x}",
                "sequence": ack.seq,
                "headers": headers,
            }
        )
    )


asyncio.run(main(*sys.argv[1:]))
