// A page whose service worker has the client, and tells it what comes.

const ask = new URLSearchParams(location.search);
Object.assign(window, { titles: [], errors: [] });
navigator.serviceWorker.addEventListener('message', ({ data }) => window[data.list].push(data.text));
navigator.serviceWorker.startMessages();
await navigator.serviceWorker.register(`/worker.mjs?url=${encodeURIComponent(ask.get('url'))}`, { type: 'module' });
await navigator.serviceWorker.ready;
