// A page for the browser tests: a client, and all that an application is told of, in `window`.

import { HeraldClient } from 'herald-client';

const ask = new URLSearchParams(location.search);
Object.assign(window, {
  titles: [],
  gaps: [],
  states: [],
  told: [],
  errors: [],
  longTasks: [],
  openedAt: 0,
  holds: false,
  connects: [],
  sockets: [],
  asked: 0,
});
// As where a browser lacks what tabs share a socket by.
if (ask.has('bare')) {
  Object.defineProperty(navigator, 'locks', { value: undefined });
  window.BroadcastChannel = undefined;
}

addEventListener('error', (event) => window.errors.push(String(event.message)));
addEventListener('unhandledrejection', (event) => window.errors.push(String(event.reason)));
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) window.longTasks.push(duration);
}).observe({ type: 'longtask' });

const cached = ask.get('cached');
const client = (window.client = new HeraldClient({
  url: ask.get('url'),
  workspace: ask.get('workspace') ?? 'acme',
  tokenIn: ask.get('tokenIn') ?? undefined,
  WebSocket: class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      window.sockets.push([url, protocols]);
    }
  },
  getToken: async () => {
    window.asked += 1;
    if (cached) return cached;
    return (await fetch(`/token?user=${window.ask_as ?? ask.get('user') ?? 'ann'}&lives=${ask.get('lives') ?? 3600}`)).text();
  },
  debug: (what, detail) => {
    window.told.push([Math.round(performance.now()), what, detail]);
    if (what === 'connecting' && !detail) window.connects.push(Date.now());
    if (what === 'holds the socket') window.holds = true;
    if (what === 'another tab holds the socket') window.holds = false;
  },
}));
client.on('notification', ({ title }) => window.titles.push(title));
client.on('gap', ({ from, to }) => window.gaps.push([+from, +to]));
client.on('status', (status) => {
  window.states.push(status);
  if (status.state === 'open') window.openedAt = Date.now();
});

// What a page draws: the store's list.
const list = document.createElement('ul');
document.body.append(list);
client.subscribe(() => {
  const items = client.getSnapshot().notifications.slice(0, 50).map(({ title }) => {
    const item = document.createElement('li');
    item.textContent = title;
    return item;
  });
  list.replaceChildren(...items);
});
client.connect();
