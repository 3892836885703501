// Made from api/schemas by `npm run types`: change those.

/** What a socket gets for an event, and all that one without the subprotocol herald.v2 gets: at most 65,536 bytes of JSON. */
export interface Notification {
  /** Unique, and the same on every gateway. A UUID of version 7 follows the prefix. */
  id: string;
  title: string;
  message: string;
  /** The severity. Gateways with projection.type = "event" write the event's name, such as record_created; an alert is alert either way. */
  type: 'info' | 'success' | 'warning' | 'error' | 'alert' | (string & {});
  /** Always false as it comes: whether somebody has read it is the application's to remember. */
  read: boolean;
  /** When the event was stored, in UTC with milliseconds. */
  timestamp?: string;
  /** Any JSON that the publisher gave, or an object of the fields that the rule of the event allows. */
  metadata?: any;
}

/** The first message. */
export interface ControlHello {
  herald: 'hello';
  /** Another one for each socket. */
  session: string;
  /** When the token ends, in milliseconds since 1970. */
  expiresAt: number;
  /** How often to send a heartbeat, in milliseconds. */
  heartbeat: number;
}

/** The answer to a heartbeat: all that was sent before it has come. At most one answer waits. */
export interface ControlHeartbeat {
  herald: 'heartbeat';
}

/** The answer to a fresh token. */
export interface ControlToken {
  herald: 'token';
  /** When the token that counts ends, in milliseconds since 1970. */
  expiresAt: number;
}

/** What a client that offers herald.v2 gets beside notifications. Each begins with {"herald":, and no notification does. Pass over one that you do not know: a newer gateway may send it. */
export type ControlMessage = ControlHello | ControlHeartbeat | ControlToken;

/** Keeps the socket active. With herald.v2 it is answered. */
export interface ClientHeartbeat {
  type: 'heartbeat';
}

/** A fresh token of the same user for the same workspace, so that the socket stays past the end of the last one. At most one in 10 s, or one a second while that ends within 10 s. */
export interface ClientToken {
  type: 'token';
  /** The JWT. */
  token: string;
}

/** What a client may send. Any other text is activity, and nothing more. */
export type ClientMessage = ClientHeartbeat | ClientToken;
