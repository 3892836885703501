// Notifications as they come, as some user.

import { HeraldClient, type Notification, type Status } from '../src/index.js';
import { claims } from '../src/token.js';
import { about, Problem, sendable, type About } from './api.js';
import { h, labelled, time } from './dom.js';

/** What the list keeps. */
const KEPT = 200;
/** Of a title or a message; all of it is in the details. */
const SHOWN = 600;

const short = (text: string) => (text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text);

/** A notification as a card. */
export function card(one: Notification): HTMLElement {
  const text = String(one.message ?? '');
  const kind = String(one.type ?? '');
  const known = ['info', 'success', 'warning', 'error', 'alert'].includes(kind) ? kind : 'info';
  return h(
    'article',
    { class: `card-note ${known}` },
    h('p', { class: 'meta' }, h('span', { class: 'badge' }, kind), one.timestamp && time(one.timestamp)),
    h('h3', { dir: 'auto' }, short(String(one.title ?? '')) || '(no title)'),
    h('p', { class: 'message', dir: 'auto' }, short(text)),
    h(
      'details',
      {},
      h('summary', {}, 'JSON'),
      h('pre', { tabindex: 0, role: 'group', dir: 'ltr', 'aria-label': 'The whole notification' }, JSON.stringify(one, null, 2)),
    ),
  );
}

interface Identity {
  user: string;
  workspace: string;
  getToken: () => Promise<string>;
}

const WHY: Record<number, string> = {
  4009: 'another connection of this user has replaced this one: `herald listen`, or another page. Connect again, or as another user.',
};

export function notifications(told: About, onArrival: (list: HTMLElement) => void): HTMLElement {
  const { sockets, development, originAllowed } = told;
  const who = h('p', { class: 'who', role: 'status' });
  const list = h('div', { class: 'log', role: 'log', 'aria-label': 'Notifications', 'aria-live': 'polite' });
  const empty = h('p', { class: 'empty' }, 'None yet. Publish an event, and it shows here at once.');
  const again = h('button', { type: 'button', hidden: true, click: () => client?.connect() }, 'Connect again');
  const clear = h('button', { type: 'button', class: 'quiet', hidden: true, click: () => empties() }, 'Clear');
  let client: HeraldClient | undefined;
  let waiting: Notification[] = [];
  let drawing = 0;

  const empties = () => {
    list.replaceChildren();
    empty.hidden = false;
    clear.hidden = true;
  };
  // Many may come in one frame.
  const draw = () => {
    drawing = 0;
    const fresh = waiting.map(card).reverse();
    waiting = [];
    list.prepend(...fresh);
    while (list.childElementCount > KEPT) list.lastElementChild!.remove();
    empty.hidden = true;
    clear.hidden = false;
    onArrival(list);
  };
  const arrived = (one: Notification) => {
    waiting.push(one);
    if (waiting.length > KEPT) waiting.shift();
    drawing ||= requestAnimationFrame(draw);
  };
  const state = (identity: Identity, { state, code, reason, retryAt }: Status) => {
    const name = `${identity.user || 'the token’s user'} in ${identity.workspace}`;
    const left = Math.max(1, Math.round(((retryAt ?? 0) - Date.now()) / 1000));
    const why = (code && WHY[code]) || reason || '';
    const origin = originAllowed ? '' : ` server.allowed_origins does not have ${location.origin}: add it.`;
    const text = {
      idle: 'Not connected',
      connecting: `Connecting as ${name} …`,
      open: `Connected as ${name}`,
      waiting: `Not connected as ${name}: ${why || 'no answer'}. Trying again in ${left} s.${origin}`,
      stopped: `Closed${code ? ` with ${code}` : ''}: ${why}`,
    }[state];
    who.textContent = text;
    who.className = `who ${state}`;
    again.hidden = state !== 'stopped';
  };
  const connect = (identity: Identity) => {
    client?.close();
    client = new HeraldClient({ url: sockets, limit: 1, ...identity, user: undefined });
    client.on('notification', arrived);
    client.on('status', (status) => state(identity, status));
    client.on('gap', () => {
      who.textContent += '. Some may be missing: the connection was lost for a while.';
    });
    client.connect();
  };

  const asUser = (user: string, workspace: string): Identity => ({
    user,
    workspace,
    getToken: async () => (await about({ user, workspace })).development?.token ?? '',
  });
  if (development) connect(asUser(development.user, development.workspace));
  else state({ user: '', workspace: '', getToken: async () => '' }, { state: 'idle' });

  return h(
    'section',
    { class: 'card', 'aria-labelledby': 'notifications-heading' },
    h('div', { class: 'top' }, h('h2', { id: 'notifications-heading' }, 'Notifications'), clear),
    who,
    again,
    others(told, connect, asUser),
    empty,
    list,
  );
}

/** The form to connect as another user. */
function others(
  { development }: About,
  connect: (identity: Identity) => void,
  asUser: (user: string, workspace: string) => Identity,
): HTMLElement {
  const user = h('input', { value: development?.user, autocomplete: 'off', spellcheck: 'false', pattern: '[A-Za-z0-9_\\-]{1,64}' });
  const token = h('textarea', { rows: 3, autocomplete: 'off', spellcheck: 'false' });
  const workspace = h('input', { value: development?.workspace ?? '', autocomplete: 'off', spellcheck: 'false', required: true });
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const submit = async (event: Event) => {
    event.preventDefault();
    wrong.textContent = '';
    const room = workspace.value.trim();
    try {
      const pasted = sendable(token.value);
      if (pasted) {
        const { exp } = claims(pasted);
        if (typeof exp === 'number' && exp * 1000 <= Date.now()) throw new Problem(0, 'This token has expired: get a new one.');
        return connect({ user: '', workspace: room, getToken: async () => pasted });
      }
      if (!development) throw new Problem(0, 'Paste a token.');
      const name = user.value.trim() || development.user;
      await about({ user: name, workspace: room });
      connect(asUser(name, room));
    } catch (error) {
      wrong.textContent = (error as Problem).message;
    }
  };
  return h(
    'details',
    { open: !development },
    h('summary', {}, development ? 'Connect as somebody else' : 'Connect as a user'),
    h(
      'form',
      { submit },
      development && labelled('User', user, 'Herald signs a token of this user. Events name it in recipients.'),
      labelled(development ? 'Or a token of your own' : 'Token of the user', token, 'It is kept until this page is left, and goes to the gateway alone.'),
      labelled('Workspace', workspace),
      h('button', { type: 'submit' }, 'Connect'),
      wrong,
    ),
  );
}
