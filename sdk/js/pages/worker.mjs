// A service worker with a client.

import { HeraldClient } from 'herald-client';

const ask = new URLSearchParams(location.search);

async function tell(list, text) {
  for (const page of await clients.matchAll({ includeUncontrolled: true })) page.postMessage({ list, text });
}

addEventListener('install', () => skipWaiting());
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('error', (event) => tell('errors', String(event.message)));
addEventListener('unhandledrejection', (event) => tell('errors', String(event.reason)));

const client = new HeraldClient({
  url: ask.get('url'),
  workspace: 'acme',
  getToken: async ({ signal }) => (await fetch('/token', { signal })).text(),
});
client.on('notification', ({ title }) => tell('titles', title));
client.connect();
