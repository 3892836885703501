// What an application sees. What goes over the wire is made from the gateway's schemas.

import type { Notification } from './wire.js';

export type * from './wire.js';

/** How the connection stands. */
export interface Status {
  /**
   * `open`: notifications come. `waiting`: the next try is at `retryAt`. `stopped`: trying again would be of
   * no use before the application has done something, and called `connect()`.
   */
  state: 'idle' | 'connecting' | 'open' | 'waiting' | 'stopped';
  /** In plain words, for people. Holds no part of a token. */
  reason?: string;
  /** The close code, if it was one. */
  code?: number;
  /** In milliseconds since 1970. */
  retryAt?: number;
}

/** Delivery is live: what was sent between these may be missing here. Fetch it afresh. */
export interface Gap {
  from: Date;
  to: Date;
}

export interface Events {
  notification: Notification;
  status: Status;
  gap: Gap;
}

/** What a page shows. Another object each time something has changed, and the same one until then. */
export interface Snapshot {
  /** The newest first. */
  notifications: readonly Notification[];
  connected: boolean;
  status: Status;
  /** The last one. */
  gap: Gap | null;
  /** How many of `notifications` are not read. */
  unread: number;
}

export interface Options {
  /** Where the gateway's sockets are, such as `wss://ws.example.com/`. */
  url: string | URL;
  /** The workspace's slug. */
  workspace: string;
  /** Gives a token that is good now. It is called for each connection, and before a token ends. */
  getToken: (options: { signal: AbortSignal }) => string | Promise<string>;
  /** How long `getToken` may take, in milliseconds: 10,000. */
  tokenTimeout?: number;
  /** How many notifications the list keeps: 100. */
  limit?: number;
  /** Where the token goes: in a subprotocol, which no log has, or in the URL's query. */
  tokenIn?: 'subprotocol' | 'query';
  /** Whether all tabs of a user and workspace share one socket: yes, where the browser can. */
  share?: boolean;
  /** Who the user is, where a token's `iss` and `sub` do not say it (`auth.user_claim`). */
  user?: string;
  /** Told of each step. Never of a token. */
  debug?: (what: string, detail?: unknown) => void;
  /** The WebSocket to use, where there is none of the platform's. */
  WebSocket?: new (url: string, protocols?: string[]) => WebSocket;
}
