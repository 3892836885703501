// The connection, as a pure machine: events in, actions out. It has no clock, no chance and no socket of its own.
//
// One timer is enough for it: `due` says when it wants the event `time`. Times are of two kinds: `at` only
// goes forward, and waits are measured by it; `wall` is the time of day, which sleeps and people move.

import codes from './close-codes.json';
import type { ClientMessage, ControlMessage, Status } from './types.js';
import { claims, parse, redact } from './token.js';

export interface Now {
  at: number;
  wall: number;
}

export type Event =
  /** The application wants a connection, anew after it was stopped. */
  | { is: 'start' }
  /** Nobody wants one any more. */
  | { is: 'stop' }
  /** This tab is the one that connects; or another is. */
  | { is: 'lead' }
  | { is: 'follow' }
  | { is: 'token'; token: string }
  | { is: 'no token'; why: string }
  /** The handshake is done. `control`: the gateway speaks `herald.v2`. */
  | { is: 'open'; control: boolean }
  | { is: 'text'; text: string }
  /** The socket has ended, or never began. */
  | { is: 'closed'; code: number; reason: string }
  | { is: 'time' }
  /** The line may be dead, and the next try need not wait: a page is seen again, or online. */
  | { is: 'wake' }
  /** There may be a newer token. */
  | { is: 'renew' };

export type Action =
  | { do: 'ask for a token' }
  /** It takes too long; what it gives is not wanted any more. */
  | { do: 'abandon' }
  /** There is a token. The answer is `lead`, now or later. */
  | { do: 'join'; token: string }
  | { do: 'connect'; token: string }
  | { do: 'send'; text: string }
  /** End the socket, if there is one. Nothing more of it counts. */
  | { do: 'drop' }
  | { do: 'status'; status: Status }
  /** Everything from here on comes. `since`: what was proven before. */
  | { do: 'session'; id: string; since: number; opened: number }
  /** Everything that was sent before `wall` has come. */
  | { do: 'proven'; wall: number }
  | { do: 'notification'; text: string };

type Phase = 'idle' | 'token' | 'joining' | 'connecting' | 'open' | 'waiting' | 'stopped';

/** From one connect to the next, at least. */
const SPACING = 1000;
/** The longest back-off. */
const LONGEST = 30_000;
/** From the connect to the hello. */
const HANDSHAKE = 10_000;
/** How long an answer to a heartbeat may take; and if there is reason to doubt. */
const ANSWER = 10_000;
const DOUBT = 3000;
/** A timer that is later than that is throttled, or the machine slept. */
const LATE = 2000;
/** A connection that lived so long starts the back-off anew. */
const STEADY = 10_000;
/** From one token frame to the next, unless the token ends within that. The gateway takes one in 10 s. */
const TOKENS = 10_500;
/** Without a hello that says it. */
const HEARTBEAT = 25_000;

export interface Machine {
  (event: Event, now: Now): Action[];
  /** When it wants `time`, by `at`. */
  due: () => number;
}

export function machine(tokenTimeout: number, random: () => number): Machine {
  let phase: Phase = 'idle';
  let actions: Action[] = [];
  let now: Now = { at: 0, wall: 0 };
  let last = now;

  let token = '';
  let tokenAt = -Infinity;
  /** Sent on the open line, not answered. */
  let fresh = '';
  let freshAt = -Infinity;
  /** The gateway says that it has expired. */
  let expired = '';
  let asking = false;
  let askUntil = Infinity;
  let renewAt = Infinity;

  /** Of the phase: the next try, or the end of a handshake. */
  let until = Infinity;
  let connected: Now = { at: -Infinity, wall: 0 };
  let openedAt = 0;
  /** Failures in a row, of the line and of tokens. */
  let fails = 0;
  let bad = 0;

  let control = false;
  let every = HEARTBEAT;
  let beatAt = Infinity;
  let beatenAt = -Infinity;
  /** When the oldest heartbeat that has no answer was sent, by the time of day. */
  let asked = 0;
  let answerUntil = Infinity;
  let doubted = false;

  const act = (action: Action) => actions.push(action);
  const say = (state: Status['state'], rest?: Partial<Status>) => {
    if (rest?.reason) rest.reason = redact(rest.reason, [token, fresh, expired]);
    act({ do: 'status', status: { state, ...rest } });
  };

  const enter = (next: Phase, limit = Infinity) => {
    phase = next;
    until = limit;
  };

  /** Longer each time: the cap doubles, and any time below it is as good (full jitter). */
  const backOff = () => random() * Math.min(LONGEST, 1000 * 2 ** fails++);

  /** Longer each time, to the letter. */
  const worse = () => {
    const longest = Math.min(LONGEST, 1000 * 2 ** bad++);
    return longest < LONGEST ? (longest / 2) * (1 + random()) : longest;
  };

  const ask = () => {
    if (asking) return;
    asking = true;
    askUntil = now.at + tokenTimeout;
    act({ do: 'ask for a token' });
  };

  const abandon = () => {
    if (asking) act({ do: 'abandon' });
    asking = false;
    askUntil = Infinity;
  };

  const begin = () => {
    enter('token');
    say('connecting');
    ask();
  };

  const connect = () => {
    enter('connecting', now.at + HANDSHAKE);
    connected = now;
    control = false;
    act({ do: 'connect', token });
  };

  const quiet = () => {
    act({ do: 'drop' });
    renewAt = beatAt = answerUntil = Infinity;
    asked = 0;
    doubted = false;
    fresh = '';
  };

  const retry = (wait: number, rest: Partial<Status>) => {
    enter('waiting', Math.max(now.at + wait, connected.at + SPACING));
    say('waiting', { ...rest, retryAt: Math.round(now.wall + until - now.at) });
  };

  const lost = (code: number, reason: string) => {
    const wasOpen = phase === 'open';
    if (wasOpen && now.at - openedAt >= STEADY) fails = bad = 0;
    const status = { code, reason };
    const ended = fresh || token;
    abandon();
    if (codes.stop.includes(code)) {
      enter('stopped');
      say('stopped', status);
    } else if (codes.token.includes(code)) {
      // Of a token that was good until now this is the end, and no fault.
      const wait = wasOpen && !fresh ? 0 : worse();
      expired = ended;
      retry(wait, status);
    } else {
      retry(wasOpen && codes.now.includes(code) ? 0 : backOff(), status);
    }
    quiet();
  };

  const beat = () => {
    beatAt = now.at + every;
    // However often there is reason to.
    if (now.at - beatenAt < 500) return;
    beatenAt = now.at;
    act({ do: 'send', text: '{"type":"heartbeat"}' });
    if (control && !asked) {
      asked = now.wall;
      answerUntil = now.at + ANSWER;
    }
  };

  /** The line may be dead: find out soon. */
  const doubt = () => {
    if (phase === 'open') {
      beat();
      if (control && asked) answerUntil = now.at + DOUBT;
    } else if (phase === 'connecting' && now.at - connected.at > DOUBT) {
      until = Math.min(until, now.at + DOUBT);
    } else if (phase === 'waiting') {
      fails = 0;
      until = Math.min(until, Math.max(now.at, connected.at + SPACING));
    }
  };

  /** When the token that counts is to be followed by the next. */
  const plan = (expiresAt: number) => {
    const { exp, iat } = claims(token);
    const end = exp ? exp * 1000 : expiresAt;
    let left = end - now.wall;
    // This clock or the issuer's is wrong: then it is taken for new.
    const life = exp && iat ? (exp - iat) * 1000 : left;
    if (!(left > 0) || left > life) left = life;
    if (!(left > 0)) left = 60_000;
    renewAt = now.at + left - Math.min(60_000, left / 3);
  };

  const notRenewed = (reason: string) => {
    renewAt = now.at + Math.max(worse(), SPACING);
    say('open', { reason });
  };

  /** A token for the line that is open. */
  const renew = (next: string) => {
    const [old, found] = [claims(token).exp, claims(next).exp];
    if (next === token) return notRenewed('getToken gave the same token');
    if (old && found && found <= old) return notRenewed('getToken gave a token that ends no later');
    const ends = old ? old * 1000 - now.wall : 0;
    if (now.at - freshAt < TOKENS && ends > TOKENS) {
      renewAt = freshAt + TOKENS;
      return;
    }
    fresh = next;
    freshAt = now.at;
    renewAt = Infinity;
    act({ do: 'send', text: JSON.stringify({ type: 'token', token: next } satisfies ClientMessage) });
    if (!control) renewed(0);
  };

  const renewed = (expiresAt: number) => {
    if (fresh) {
      token = fresh;
      tokenAt = now.at;
      fresh = '';
      if (bad) say('open');
      bad = 0;
    }
    plan(expiresAt);
  };

  const opened = (session: string, expiresAt: number) => {
    enter('open');
    openedAt = now.at;
    bad = 0;
    act({ do: 'session', id: session, since: connected.wall, opened: now.wall });
    say('open');
    beatAt = now.at + every;
    plan(expiresAt);
  };

  const text = (text: string) => {
    doubted = false;
    if (asked) answerUntil = now.at + ANSWER;
    if (!text.startsWith('{"herald":')) return act({ do: 'notification', text });
    const message: ControlMessage | { herald?: undefined } = parse(text) || {};
    if (message.herald === 'hello' && phase === 'connecting') {
      control = true;
      every = Math.min(Math.max(message.heartbeat || HEARTBEAT, 100), 120_000);
      opened(message.session, message.expiresAt);
    } else if (message.herald === 'token') {
      renewed(message.expiresAt);
    }
    // Both are answers, and at most one waits at the gateway.
    if (asked && message.herald !== 'hello') {
      act({ do: 'proven', wall: asked });
      asked = 0;
      answerUntil = Infinity;
    }
  };

  const noToken = (why: string) => {
    abandon();
    if (phase === 'open') notRenewed(why);
    else if (phase === 'token') retry(worse(), { reason: why });
  };

  const time = (late: boolean) => {
    if (asking && now.at >= askUntil) noToken(`getToken took over ${tokenTimeout / 1000} s`);
    if (now.at >= answerUntil) {
      // Perhaps nobody was here to hear the answer. It is asked for once more.
      if (late && !doubted) {
        doubted = true;
        doubt();
      } else {
        return lost(1006, 'the gateway does not answer');
      }
    }
    if (now.at >= until) {
      if (phase === 'connecting') return lost(1006, 'no connection in time');
      if (phase === 'waiting') begin();
    }
    if (now.at >= renewAt) {
      renewAt = Infinity;
      ask();
    }
    if (now.at >= beatAt) beat();
  };

  const take = (event: Event, late: boolean) => {
    switch (event.is) {
      case 'start':
        if (phase === 'idle' || phase === 'stopped') {
          fails = bad = 0;
          expired = '';
          begin();
        }
        break;
      case 'stop':
      case 'follow':
        if (phase === 'idle') break;
        abandon();
        quiet();
        enter(event.is === 'stop' ? 'idle' : 'joining');
        break;
      case 'lead':
        if (phase !== 'joining') break;
        // The one who asks for it may have changed meanwhile.
        if (now.at - connected.at < SPACING) retry(0, {});
        else if (now.at - tokenAt < 5000) connect();
        else begin();
        break;
      case 'token':
        abandon();
        if (phase === 'open') {
          renew(event.token);
        } else if (phase === 'token') {
          if (event.token === expired) {
            retry(worse(), { reason: 'getToken gave a token that has expired' });
            break;
          }
          token = event.token;
          tokenAt = now.at;
          enter('joining');
          act({ do: 'join', token });
        }
        break;
      case 'no token':
        noToken(event.why);
        break;
      case 'open':
        if (phase === 'connecting' && !event.control) opened(String(now.wall), 0);
        break;
      case 'text':
        if (phase === 'connecting' || phase === 'open') text(event.text);
        break;
      case 'closed':
        if (phase === 'connecting' || phase === 'open') lost(event.code, event.reason);
        break;
      case 'wake':
        doubt();
        break;
      case 'renew':
        if (phase === 'open') ask();
        break;
      case 'time':
        time(late);
    }
  };

  const step = (event: Event, at: Now): Action[] => {
    actions = [];
    now = at;
    const slept = now.wall - last.wall - (now.at - last.at) > LATE;
    const late = slept || now.at - step.due() > LATE;
    last = now;
    // What was answered before proves nothing any more.
    if (slept) beatenAt = -Infinity;
    take(event, late);
    if (slept && event.is !== 'closed') doubt();
    return actions;
  };
  step.due = () => Math.min(until, askUntil, renewAt, beatAt, answerUntil);
  return step;
}
