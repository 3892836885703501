// The contract's panel by the hook, in StrictMode, twice: two components are still one socket.

import { StrictMode, useState } from 'react';
import { createRoot, hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { configure, useNotifications } from 'herald-client/react';

const ask = new URLSearchParams(location.search);
Object.assign(window, { errors: [], told: [] });
for (const level of ['error', 'warn']) console[level] = (...args) => window.errors.push(args.join(' '));
addEventListener('error', (event) => window.errors.push(String(event.message)));

configure({ url: ask.get('url'), debug: (what) => window.told.push(what) });

function Panel({ name, token }) {
  const { notifications, connected, unread, gap, status, markRead, clear } = useNotifications(token, 'acme');
  return (
    <section id={name}>
      <p role="status">{connected ? 'Connected' : 'Disconnected'}</p>
      <p className="unread">{unread}</p>
      <p className="gap">{gap ? 'gap' : ''}</p>
      <p className="state">{status.state}</p>
      <button className="read" onClick={() => markRead(notifications[0]?.id)}>Read</button>
      <button className="clear" onClick={clear}>Clear</button>
      <ul>{notifications.map(({ id, title }) => <li key={id}>{title}</li>)}</ul>
    </section>
  );
}

function App({ first }) {
  const [token, setToken] = useState(first);
  const [shown, setShown] = useState(true);
  window.setToken = setToken;
  window.setShown = setShown;
  return (
    <>
      {shown && <Panel name="one" token={token} />}
      {shown && <Panel name="two" token={token} />}
    </>
  );
}

const token = await (await fetch('/token?user=ann&lives=3600')).text();
const app = <StrictMode><App first={token} /></StrictMode>;
const root = document.createElement('div');
// As a server would have rendered it.
root.innerHTML = renderToString(app);
window.rendered = root.innerText;
document.body.append(root);
window.root = ask.has('hydrate') ? hydrateRoot(root, app) : (root.replaceChildren(), createRoot(root));
if (!ask.has('hydrate')) window.root.render(app);
