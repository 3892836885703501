// React: what the contract's `useNotifications` gives, kept alive.

import { useCallback, useEffect, useSyncExternalStore } from 'react';
import { HeraldClient, type Options, type Snapshot } from './index.js';

export interface Notifications extends Snapshot {
  /** Marks one as read, or all. */
  markRead: (id?: string) => void;
  /** Empties the list, and forgets the gap. */
  clear: () => void;
}

/** What need not be said where the token and the workspace are given alone. */
export type Rest = Partial<Omit<Options, 'workspace' | 'getToken'>>;

type Text = string | null | undefined;

interface Entry {
  client: HeraldClient;
  options: Options;
  uses: number;
}

/** A client for each workspace, however many components use it. */
const entries = new Map<string, Entry>();
/** React's StrictMode and fast refresh leave and come back at once. */
const LINGER = 200;

const NOTHING: Snapshot = {
  notifications: [],
  connected: false,
  status: { state: 'idle' },
  gap: null,
  unread: 0,
};

let defaults: Rest = {};

/** Says once what all `useNotifications(token, workspaceSlug)` have in common: the `url` above all. */
export function configure(rest: Rest): void {
  defaults = rest;
}

/** The notifications of a workspace; of none while there are no options. */
export function useNotifications(options: Options | null | undefined): Notifications;
/** The contract's signature. The `url` is that of `configure`, or else this page's own host. */
export function useNotifications(token: Text, workspaceSlug: Text, rest?: Rest): Notifications;
export function useNotifications(first: Options | Text, slug?: Text, rest?: Rest): Notifications {
  const token = typeof first === 'string' ? first : undefined;
  let options: Options | null = null;
  if (first && typeof first === 'object') options = first;
  else if (token && slug) {
    const url = typeof location === 'object' ? location.origin : 'http://localhost';
    options = { url, ...defaults, ...rest, workspace: slug, getToken: () => token };
  }
  const key = options ? JSON.stringify([options.url, options.workspace, options.user]) : '';

  const entry = (): Entry | undefined => {
    let found = entries.get(key);
    if (!found && options) {
      const made: Entry = (found = {
        options,
        uses: 0,
        client: new HeraldClient({ ...options, getToken: (ask) => made.options.getToken(ask) }),
      });
      entries.set(key, made);
    }
    return found;
  };

  // Before the subscription, which connects: an effect of this component runs in order.
  useEffect(() => {
    const used = entry();
    if (used && options) used.options = options;
  });
  useEffect(() => {
    if (token) entry()?.client.renew();
  }, [key, token]);

  const subscribe = useCallback(
    (listener: () => void) => {
      const used = entry();
      if (!used) return () => {};
      used.uses += 1;
      const off = used.client.subscribe(listener);
      used.client.connect();
      return () => {
        off();
        used.uses -= 1;
        setTimeout(() => {
          if (used.uses || entries.get(key) !== used) return;
          entries.delete(key);
          used.client.close();
        }, LINGER);
      };
    },
    [key],
  );
  const snapshot = useSyncExternalStore(
    subscribe,
    () => entry()?.client.getSnapshot() ?? NOTHING,
    () => NOTHING,
  );
  const markRead = useCallback((id?: string) => entries.get(key)?.client.markRead(id), [key]);
  const clear = useCallback(() => entries.get(key)?.client.clear(), [key]);
  return { ...snapshot, markRead, clear };
}
