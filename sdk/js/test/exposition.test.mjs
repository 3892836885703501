// What the page draws, from the text of /metrics.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Exposition, quantile } from '../dist/test/exposition.mjs';

const TEXT = `# HELP herald_connections Open sockets.
# TYPE herald_connections gauge
herald_connections 12
herald_connections_closed_total{code="4003",reason="x,code=\\"no\\""} 2
herald_connections_closed_total{reason="y",code="4003"} 1
herald_connections_closed_total{code="1001"} 1e3
herald_event_latency_seconds_bucket{le="0.001"} 50
herald_event_latency_seconds_bucket{le="0.002"} 90
herald_event_latency_seconds_bucket{le="+Inf"} 100
herald_event_latency_seconds_count 100
no line of a metric
`;

test('values are summed, and by a label', () => {
  const exposition = new Exposition(TEXT);
  assert.equal(exposition.sum('herald_connections'), 12);
  assert.equal(exposition.sum('herald_connections_closed_total'), 1003);
  assert.equal(exposition.sum('herald_unknown'), 0);
  assert.deepEqual(exposition.by('herald_connections_closed_total', 'code'), [
    ['4003', 3],
    ['1001', 1000],
  ]);
});

test('a quantile lies within its bucket, of what came since', () => {
  const now = new Exposition(TEXT).buckets('herald_event_latency_seconds');
  const none = new Map();
  const near = (seen, wanted) => assert.ok(Math.abs(seen - wanted) < 1e-9, `${seen}, not ${wanted}`);
  near(quantile(now, none, 0.25), 0.0005);
  near(quantile(now, none, 0.5), 0.001);
  near(quantile(now, none, 0.7), 0.0015);
  // Beyond the last bound nothing is known but that bound.
  near(quantile(now, none, 0.99), 0.002);
  // Before: all that was fast.
  const before = new Map([[0.001, 50], [0.002, 50], [Infinity, 50]]);
  near(quantile(now, before, 0.4), 0.0015);
  assert.equal(quantile(now, now, 0.5), null);
  assert.equal(quantile(none, none, 0.5), null);
});
