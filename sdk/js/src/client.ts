// The client: the machine on a real socket, real timers and a page's events, and what all tabs make of it.

import { machine, type Action, type Event, type Machine } from './machine.js';
import { Store } from './store.js';
import { canShare, share, type Tabs } from './tabs.js';
import { claims, parse } from './token.js';
import type { Events, Gap, Notification, Options, Snapshot, Status } from './types.js';

/** Ids of notifications that are remembered, to tell those that come by two ways. */
const IDS = 1024;
/** What `for await` keeps of notifications that nobody has taken yet. */
const KEPT = 1000;
/** An event may take so long from its store time until it is queued for a socket. */
const ON_ITS_WAY = 5000;
/** How long a holder that stops waits until the others know. */
const TOLD = 1000;

/** What the holder tells the other tabs. `e` counts holders, `n` the notifications of this one. */
interface Told {
  e: number;
  n: number;
  /** A notification. */
  d?: string;
  /** How it stands: status, session, and until when everything has come. */
  s?: Status;
  i?: string;
  o?: number;
  p?: number;
}

type Listener = (value: never) => void;

export class HeraldClient {
  /** @internal */ _options: Options;
  /** @internal */ _store: Store;
  /** @internal */ _step: Machine;
  /** @internal */ _timer: ReturnType<typeof setTimeout> | undefined;
  /** @internal */ _socket: WebSocket | undefined;
  /** @internal */ _asked: AbortController | undefined;
  /** @internal */ _listeners: Record<string, Set<Listener>> = {};
  /** @internal */ _ends = new Set<(reason?: string) => void>();
  /** @internal */ _off: (() => void) | undefined;
  /** @internal */ _away = false;
  /** Whose notifications these are. */
  /** @internal */ _user: string | undefined;
  /** @internal */ _tabs: Tabs | undefined;
  /** Those of a connection that is stopped. */
  /** @internal */ _stopped: Tabs | undefined;
  /** @internal */ _told: Told = { e: 0, n: 0 };
  /** @internal */ _counts = false;
  /** When this tab began to hear the holder. */
  /** @internal */ _since = 0;
  /** @internal */ _ids = new Set<string>();
  /** @internal */ _session = '';
  /** @internal */ _proven = 0;
  /** @internal */ _status: Status = { state: 'idle' };

  constructor(options: Options) {
    const { url, workspace, getToken, limit, tokenTimeout } = options;
    if (!url || !workspace || typeof getToken !== 'function') {
      throw new TypeError('HeraldClient needs url, workspace and getToken');
    }
    this._options = options;
    this._store = new Store(limit ?? 100);
    this._step = machine(tokenTimeout ?? 10_000, Math.random);
    this.subscribe = this.subscribe.bind(this);
    this.getSnapshot = this.getSnapshot.bind(this);
  }

  /** Connects, and stays connected. Does nothing where it is so already. */
  connect(): void {
    this._off ||= this._listen();
    this._away = false;
    this._stopped?._leave();
    this._do({ is: 'start' });
  }

  /** Closes. `connect()` begins anew. */
  close(): void {
    this._off?.();
    this._off = undefined;
    this._leave();
    this._forget();
    this._setStatus({ state: 'idle' });
    for (const end of [...this._ends]) end();
  }

  /** Asks for a token and goes on with it on the open connection: a newer one is there. */
  renew(): void {
    this._do({ is: 'renew' });
  }

  /** Calls `listener` from now on; the result ends that. */
  on<K extends keyof Events>(type: K, listener: (value: Events[K]) => void): () => void {
    const all = (this._listeners[type] ||= new Set());
    all.add(listener);
    return () => void all.delete(listener);
  }

  /** Notifications from now on, until `close()`. Throws where the client stops. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Notification, void, undefined> {
    let kept: { one: Notification; at: number }[] = [];
    let wake = () => {};
    let ended = false;
    let failed = '';
    const end = (reason = '') => {
      ended = true;
      failed = reason;
      wake();
    };
    const off = this.on('notification', (one) => {
      kept.push({ one, at: Date.now() });
      if (kept.length > KEPT) {
        const { at } = kept.shift()!;
        this._emit('gap', { from: new Date(at - ON_ITS_WAY), to: new Date() });
      }
      wake();
    });
    this._ends.add(end);
    try {
      for (;;) {
        const next = kept.shift();
        if (next) yield next.one;
        else if (failed) throw new Error(`herald: ${failed}`);
        else if (ended) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      off();
      this._ends.delete(end);
      kept = [];
    }
  }

  /** For any framework: tells of changes of what `getSnapshot` returns. */
  subscribe(listener: () => void): () => void {
    this._store._listeners.add(listener);
    return () => void this._store._listeners.delete(listener);
  }

  getSnapshot(): Snapshot {
    return this._store._now;
  }

  /** Marks one as read, or all. */
  markRead(id?: string): void {
    this._store._read(id);
  }

  /** Empties the list, and forgets the gap. */
  clear(): void {
    this._store._set({ notifications: [], gap: null });
  }

  // The machine.

  /** @internal */
  _do(event: Event): void {
    const now = { at: performance.now(), wall: Date.now() };
    for (const action of this._step(event, now)) this._act(action);
    clearTimeout(this._timer);
    const due = this._step.due();
    if (due < Infinity) {
      const wait = Math.min(Math.max(due - performance.now(), 0), 2 ** 31 - 1);
      this._timer = setTimeout(() => this._do({ is: 'time' }), Math.ceil(wait));
    }
  }

  /** @internal */
  _act(action: Action): void {
    switch (action.do) {
      case 'ask for a token':
        return this._ask();
      case 'abandon':
        this._asked?.abort();
        this._asked = undefined;
        return;
      case 'join':
        return this._join(action.token);
      case 'connect':
        return this._open(action.token);
      case 'send':
        this._socket?.send(action.text);
        return;
      case 'drop':
        return this._drop();
      case 'status':
        return this._state({ s: action.status });
      case 'session':
        return this._state({ i: action.id, o: action.opened, p: action.since });
      case 'proven':
        return this._state({ p: action.wall });
      case 'notification':
        this._told.n += 1;
        if (this._tabs) this._tabs._post({ e: this._told.e, n: this._told.n, d: action.text });
        this._deliver(action.text);
    }
  }

  /** @internal */
  _ask(): void {
    const asked = (this._asked = new AbortController());
    const answer = (event: Event) => {
      if (this._asked === asked) this._do(event);
    };
    this._debug('asking for a token');
    new Promise<string>((resolve) => resolve(this._options.getToken({ signal: asked.signal }))).then(
      (token) => {
        if (this._asked !== asked) return;
        if (typeof token !== 'string' || !token) {
          answer({ is: 'no token', why: 'getToken gave no token' });
        } else if (this._user !== undefined && this._who(token) !== this._user) {
          this._debug('another user');
          this._leave();
          this._user = undefined;
          this._forget();
          this._store._set({ notifications: [], gap: null });
          this._do({ is: 'start' });
        } else answer({ is: 'token', token });
      },
      // Its text may hold anything.
      (error) => answer({ is: 'no token', why: `getToken failed (${error?.name || 'Error'})` }),
    );
  }

  /** @internal */
  _open(token: string): void {
    const { url, workspace, tokenIn } = this._options;
    const protocols = ['herald.v2', 'herald.v1'];
    let socket: WebSocket;
    try {
      const to = new URL(String(url).replace(/^http/, 'ws'));
      to.searchParams.set('workspaceSlug', workspace);
      if (tokenIn === 'query') to.searchParams.set('token', token);
      else protocols.push('bearer.' + token);
      socket = new (this._options.WebSocket || WebSocket)(to.href, protocols);
    } catch {
      // What is thrown quotes the address or the token.
      const reason = 'no WebSocket for this url and token';
      setTimeout(() => this._do({ is: 'closed', code: 1006, reason }));
      return;
    }
    this._socket = socket;
    this._debug('connecting');
    const mine = (event: Event) => {
      if (this._socket === socket) this._do(event);
    };
    socket.onopen = () => mine({ is: 'open', control: socket.protocol === 'herald.v2' });
    socket.onmessage = ({ data }) => mine({ is: 'text', text: String(data) });
    socket.onclose = ({ code, reason }) => {
      this._debug('closed', code);
      const closed = () => mine({ is: 'closed', code, reason });
      // Perhaps it is another tab that has taken over: that is known in a moment.
      if (code === 4009 && this._tabs) setTimeout(closed, TOLD);
      else closed();
    };
    socket.onerror = () => {};
  }

  /** @internal */
  _drop(): void {
    const socket = this._socket;
    this._socket = undefined;
    if (socket && socket.readyState < 2) socket.close(1000);
  }

  // The tabs.

  /** Whose token it is; nothing where it does not say. */
  /** @internal */
  _who(token: string): string {
    const { user } = this._options;
    const { iss, sub } = claims(token);
    return user || sub ? JSON.stringify([user || [iss, sub]]) : '';
  }

  /** @internal */
  _join(token: string): void {
    const user = (this._user = this._who(token));
    const { url, workspace, share: wanted } = this._options;
    if (!user || wanted === false || !canShare()) {
      this._do({ is: 'lead' });
    } else if (!this._tabs) {
      this._counts = false;
      const tabs: Tabs = (this._tabs = share(`herald ${JSON.stringify([String(url), workspace, user])}`, {
        _question: 0,
        _lead: () => {
          this._debug('holds the socket');
          this._told = { e: Math.max(Date.now(), this._told.e + 1), n: 0, i: '', s: { state: 'connecting' } };
          this._do({ is: 'lead' });
          this._state({});
        },
        _lose: () => {
          this._debug('another tab holds the socket');
          this._counts = false;
          this._do({ is: 'follow' });
        },
        _message: (message) => this._hear(tabs, message as Told | number),
      }));
    } else if (this._tabs._leads()) this._do({ is: 'lead' });
  }

  /** @internal */
  _leave(): void {
    this._tabs?._leave();
    this._tabs = undefined;
    this._do({ is: 'stop' });
  }

  /** What comes next follows on nothing. */
  /** @internal */
  _forget(): void {
    this._session = '';
    this._told = { e: this._told.e, n: 0 };
  }

  /** The state of the one that holds the socket, which is this tab. */
  /** @internal */
  _state(change: Partial<Told>): void {
    const tabs = this._tabs;
    if (tabs && !tabs._leads()) {
      // Others say how it stands; but not why this tab has no part in it.
      if (change.s && change.s.state !== 'idle' && this._status.state !== 'open') this._setStatus(change.s);
      return;
    }
    Object.assign(this._told, change);
    this._apply(this._told);
    tabs?._post(this._told);
    if (change.s?.state === 'stopped') this._stop(change.s.reason);
  }

  /** @internal */
  _hear(tabs: Tabs, message: Told | number): void {
    const told = this._told;
    if (typeof message === 'number') {
      // A question, or one who knows a later holder: as after the clock was set back.
      if (!tabs._leads()) return;
      tabs._post(told);
      // Not at once: perhaps this tab stood still, and the lock is another's by now.
      if (message > told.e) {
        setTimeout(() => {
          if (!tabs._leads()) return;
          told.e = Math.max(told.e, message + 1);
          tabs._post(told);
        }, TOLD);
      }
      return;
    }
    if (message.e < told.e) return tabs._post(told.e);
    if (tabs._leads()) return;
    tabs._heard();
    const same = message.e === told.e || (message.i && message.i === told.i);
    // One who was away counts on from where it left.
    if ((this._counts || this._session) && same && message.n !== told.n + (message.d ? 1 : 0)) {
      this._gap(this._proven, Date.now());
    }
    if (!this._counts) this._since = Date.now();
    this._counts = true;
    this._told = { ...(message.e === told.e ? told : {}), ...message, d: undefined };
    if (message.d) this._deliver(message.d);
    else this._apply(message);
    if (message.s?.state === 'stopped') {
      tabs._leave();
      this._tabs = undefined;
      this._do({ is: 'stop' });
      this._setStatus(message.s);
      this._stop(message.s.reason);
    }
  }

  /** No tab goes on. */
  /** @internal */
  _stop(reason = 'stopped'): void {
    const tabs = (this._stopped = this._tabs);
    this._tabs = undefined;
    setTimeout(() => tabs?._leave(), TOLD);
    for (const end of [...this._ends]) end(reason);
  }

  // What the application sees.

  /** @internal */
  _apply({ s, i, o = 0, p = 0 }: Told): void {
    if (i !== undefined && i !== '' && i !== this._session) {
      if (this._session) this._gap(this._proven, Math.max(o, this._since));
      this._session = i;
      this._proven = p;
    }
    if (i === this._session) this._proven = Math.max(this._proven, p);
    if (s) this._setStatus(s);
  }

  /** @internal */
  _setStatus(status: Status): void {
    if (JSON.stringify(status) === JSON.stringify(this._status)) return;
    this._status = status;
    this._debug(status.state, status);
    this._store._status(status);
    this._emit('status', status);
  }

  /** @internal */
  _gap(from: number, to: number): void {
    const gap: Gap = { from: new Date(Math.min(from, to) - ON_ITS_WAY), to: new Date(to) };
    this._debug('gap', gap);
    this._store._gap(gap);
    this._emit('gap', gap);
  }

  /** @internal */
  _deliver(text: string): void {
    const one: Notification | undefined = parse(text);
    const ids = this._ids;
    if (!one || ids.has(one.id)) return;
    ids.add(one.id);
    if (ids.size > IDS) {
      for (const oldest of ids) {
        ids.delete(oldest);
        break;
      }
    }
    this._store._add(one);
    this._emit('notification', one);
  }

  /** @internal */
  _emit<K extends keyof Events>(type: K, value: Events[K]): void {
    for (const listener of [...(this._listeners[type] || [])]) {
      try {
        (listener as (value: Events[K]) => void)(value);
      } catch (error) {
        // The application's own fault, which is to be seen and to stop nothing here.
        (globalThis.reportError || console.error)(error);
      }
    }
  }

  /** @internal */
  _debug(what: string, detail?: unknown): void {
    this._options.debug?.(what, detail);
  }

  // The page.

  /** @internal */
  _listen(): () => void {
    const wake = () => {
      if (!this._away) return this._do({ is: 'wake' });
      this._away = false;
      this._do({ is: 'start' });
    };
    // A page that stands still neither reads a socket nor passes it on.
    const away = () => {
      if (this._status.state === 'stopped') return;
      this._away = true;
      this._leave();
    };
    const seen = () => document.visibilityState === 'visible' && wake();
    const page = globalThis.document;
    const all: [EventTarget | undefined, string, () => void][] = [
      [globalThis as unknown as EventTarget, 'online', wake],
      [globalThis as unknown as EventTarget, 'offline', wake],
      [globalThis as unknown as EventTarget, 'pageshow', wake],
      [globalThis as unknown as EventTarget, 'pagehide', away],
      [page, 'visibilitychange', seen],
      [page, 'resume', wake],
      [page, 'freeze', away],
    ];
    for (const [target, type, listener] of all) target?.addEventListener?.(type, listener);
    return () => {
      for (const [target, type, listener] of all) target?.removeEventListener?.(type, listener);
    };
  }
}
