// What a page shows: a bounded list and what is known of the connection. Whoever draws it is told at most every
// few milliseconds, so that a flood of notifications is no flood of drawings.

import type { Gap, Notification, Snapshot, Status } from './types.js';

/** From one drawing to the next. */
const DRAW = 50;

export const NOTHING: Snapshot = {
  notifications: [],
  connected: false,
  status: { state: 'idle' },
  gap: null,
  unread: 0,
};

export class Store {
  _listeners = new Set<() => void>();
  _now = NOTHING;
  _next = NOTHING;
  _timer: unknown;
  _toldAt = 0;
  _limit: number;

  constructor(limit: number) {
    this._limit = limit;
  }

  _set(change: Partial<Snapshot>): void {
    this._next = { ...this._next, ...change };
    if (this._timer) return;
    const wait = this._toldAt + DRAW - Date.now();
    this._timer = setTimeout(() => {
      this._timer = undefined;
      this._toldAt = Date.now();
      this._tell();
    }, Math.min(Math.max(wait, 0), DRAW));
  }

  _tell(): void {
    const { notifications } = this._next;
    const unread = notifications.reduce((count, one) => count + (one.read ? 0 : 1), 0);
    this._now = { ...this._next, unread };
    for (const listener of [...this._listeners]) listener();
  }

  _add(notification: Notification): void {
    this._set({ notifications: [notification, ...this._next.notifications].slice(0, this._limit) });
  }

  /** At once: whether it is connected is not to be old. */
  _status(status: Status): void {
    this._next = { ...this._next, status, connected: status.state === 'open' };
    this._tell();
  }

  _gap(gap: Gap | null): void {
    this._set({ gap });
  }

  _read(id?: string): void {
    const read = (one: Notification) => (one.read || (id && one.id !== id) ? one : { ...one, read: true });
    this._set({ notifications: this._next.notifications.map(read) });
  }
}
