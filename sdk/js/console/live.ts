// How the gateway is now, drawn from its own metrics each second.

import { metrics } from './api.js';
import { h, svg, tell } from './dom.js';
import { Exposition, quantile } from './exposition.js';

const INTERVAL = 1000;
/** Samples that are drawn. */
const SAMPLES = 120;
/** Seconds that a rate or a quantile is of. */
const WINDOW = 10;
const LATENCY = 'herald_event_latency_seconds';
const CLOSED = 'herald_connections_closed_total';

interface Figure {
  name: string;
  unit: string;
  of: (now: Exposition, before: Exposition, seconds: number) => number | null;
}

const rate = (metric: string) => (now: Exposition, before: Exposition, seconds: number) =>
  Math.max(0, now.sum(metric) - before.sum(metric)) / seconds;
const latency = (share: number) => (now: Exposition, before: Exposition) => {
  const seconds = quantile(now.buckets(LATENCY), before.buckets(LATENCY), share);
  return seconds === null ? null : seconds * 1000;
};

const FIGURES: Figure[] = [
  { name: 'Sockets', unit: '', of: (now) => now.sum('herald_connections') },
  { name: 'Rooms', unit: '', of: (now) => now.sum('herald_rooms') },
  { name: 'Deliveries', unit: 'a second', of: rate('herald_deliveries_total') },
  { name: 'Events', unit: 'a second', of: rate('herald_events_received_total') },
  { name: 'Latency, median', unit: 'ms', of: latency(0.5) },
  { name: 'Latency, 99th percentile', unit: 'ms', of: latency(0.99) },
];

const shown = (value: number | null) =>
  value === null ? '–' : value.toLocaleString(undefined, { maximumFractionDigits: value < 10 ? 1 : 0 });

/** A line of the last samples. */
function spark(values: (number | null)[], label: string): SVGElement {
  const [width, height] = [240, 48];
  const most = Math.max(1, ...values.map((value) => value ?? 0));
  const points = values
    .map((value, index) => [((index + SAMPLES - values.length) / (SAMPLES - 1)) * width, value] as const)
    .filter(([, value]) => value !== null)
    .map(([x, value]) => `${x.toFixed(1)},${(height - 3 - ((value ?? 0) / most) * (height - 6)).toFixed(1)}`);
  return svg(
    'svg',
    { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    svg('line', { x1: 0, y1: height - 1, x2: width, y2: height - 1, class: 'axis' }),
    svg('polyline', { points: points.join(' ') }),
  );
}

export function live(): HTMLElement {
  const tiles = FIGURES.map(({ name, unit }) => {
    const value = h('strong', {}, '–');
    const chart = h('div', { class: 'spark' });
    const element = h('div', { class: 'tile' }, h('h3', {}, name), h('p', {}, value, unit && ` ${unit}`), chart);
    return { element, value, chart, samples: [] as (number | null)[] };
  });
  const closes = h('div', { class: 'closes' });
  const problem = h('p', { class: 'wrong', role: 'status' });
  let seen: { at: number; exposition: Exposition }[] = [];

  const look = async () => {
    if (document.visibilityState === 'visible') {
      try {
        const exposition = new Exposition(await metrics());
        problem.textContent = '';
        draw(performance.now(), exposition);
      } catch (error) {
        tell(problem, (error as Error).message);
      }
    }
    setTimeout(look, INTERVAL);
  };
  const draw = (at: number, exposition: Exposition) => {
    seen.push({ at, exposition });
    seen = seen.filter((one, index) => index === seen.length - 1 || at - one.at < (WINDOW + 0.5) * 1000);
    const before = seen[0]!;
    const seconds = Math.max((at - before.at) / 1000, 1);
    FIGURES.forEach((figure, index) => {
      const tile = tiles[index]!;
      const value = figure.of(exposition, before.exposition, seconds);
      tile.samples = [...tile.samples, value].slice(-SAMPLES);
      tile.value.textContent = shown(value);
      const most = Math.max(0, ...tile.samples.map((one) => one ?? 0));
      tile.chart.replaceChildren(
        spark(tile.samples, `${figure.name} in the last two minutes: now ${shown(value)}, at most ${shown(most)}`),
      );
    });
    drawCloses(closes, exposition);
  };
  void look();
  return h(
    'div',
    {},
    problem,
    h('div', { class: 'tiles' }, ...tiles.map(({ element }) => element)),
    h('section', { class: 'card', 'aria-labelledby': 'closes' }, h('h3', { id: 'closes' }, 'Closes by code, since the start'), closes),
  );
}

function drawCloses(into: HTMLElement, exposition: Exposition): void {
  const codes = exposition.by(CLOSED, 'code').filter(([, count]) => count > 0);
  if (!codes.length) return into.replaceChildren(h('p', { class: 'empty' }, 'No socket has been closed.'));
  const most = Math.max(...codes.map(([, count]) => count));
  const rows = codes.map(([code, count]) => {
    const bar = h('span', { class: 'fill' });
    bar.style.width = `${(count / most) * 100}%`;
    return h('li', {}, h('span', { class: 'code' }, code), h('span', { class: 'track' }, bar), h('span', { class: 'count' }, count.toLocaleString()));
  });
  into.replaceChildren(h('ul', {}, ...rows));
}
