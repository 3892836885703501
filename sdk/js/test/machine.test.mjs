// The machine by itself: a clock that the test moves, chance that the test decides.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { machine } from '../dist/test/machine.mjs';

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token of one who is `sub`, that ends at `exp`, in seconds. */
const token = (exp, more) => `${part({ alg: 'HS256' })}.${part({ sub: 'ann', exp, ...more })}.c2lnbmF0dXJlLi4u`;

/** A machine that is told what happens, and what it did. */
class Bench {
  constructor({ random = 0.5, wall = 1_000_000_000 } = {}) {
    this.now = { at: 0, wall };
    this.step = machine(10_000, () => random);
    this.done = [];
    this.connects = [];
  }

  event(event) {
    const actions = this.step(event, { ...this.now });
    this.done.push(...actions.map((action) => ({ at: this.now.at, ...action })));
    for (const action of actions) {
      if (action.do === 'connect') this.connects.push(this.now.at);
      // As a tab alone.
      if (action.do === 'join') this.event({ is: 'lead' });
    }
    return this;
  }

  /** Lets time pass, with each timer in time. */
  pass(ms) {
    const end = this.now.at + ms;
    while (this.step.due() <= end) {
      const wait = Math.max(this.step.due() - this.now.at, 0);
      this.now = { at: this.now.at + wait, wall: this.now.wall + wait };
      this.event({ is: 'time' });
    }
    this.now = { at: end, wall: this.now.wall + end - this.now.at };
    return this;
  }

  /** The same, and each heartbeat is answered at once. */
  live(ms) {
    for (const end = this.now.at + ms; this.now.at < end; ) {
      const sent = this.all('send').length;
      this.pass(Math.min(Math.max(this.step.due() - this.now.at, 0) || 1, end - this.now.at));
      if (this.all('send').length > sent) this.text({ herald: 'heartbeat' });
    }
    return this;
  }

  /** Lets time pass until a token is asked for. */
  asks() {
    for (const asked = this.all('ask for a token').length; this.all('ask for a token').length === asked; ) {
      assert.ok(this.step.due() < Infinity, 'it would never ask');
      this.live(Math.max(this.step.due() - this.now.at, 0) || 1);
    }
    return this;
  }

  /** Lets time pass without any timer. */
  stand(ms, { sleeps = false } = {}) {
    this.now = { at: this.now.at + (sleeps ? 0 : ms), wall: this.now.wall + ms };
    return this;
  }

  open(lives = 3600, heartbeat = 25_000) {
    const until = this.now.wall + lives * 1000;
    this.event({ is: 'start' }).event({ is: 'token', token: token(until / 1000) });
    return this.hello(until, heartbeat);
  }

  hello(expiresAt = this.now.wall + 3_600_000, heartbeat = 25_000) {
    this.event({ is: 'open', control: true });
    return this.text({ herald: 'hello', session: `s${this.now.at}`, expiresAt, heartbeat });
  }

  text(value) {
    return this.event({ is: 'text', text: JSON.stringify(value) });
  }

  closed(code, reason = '') {
    return this.event({ is: 'closed', code, reason });
  }

  all(what) {
    return this.done.filter((action) => action.do === what);
  }

  get status() {
    return this.all('status').at(-1)?.status;
  }
}

test('after each close code it does what the table says', () => {
  const table = JSON.parse(readFileSync(new URL('../../../api/close-codes.json', import.meta.url)));
  const codes = Object.entries(table).map(([code, { client }]) => [Number(code), client]);
  assert.ok(codes.length > 10);
  // A code that is in no table is backed off from.
  for (const [code, client] of [...codes, [1013, 'backoff'], [4999, 'backoff']]) {
    const state = client === 'stop' ? 'stopped' : 'waiting';
    const bench = new Bench().open().pass(20_000).closed(code, 'why');
    assert.equal(bench.status.state, state, code);
    assert.deepEqual([bench.status.code, bench.status.reason], [code, 'why']);
    const asked = bench.all('ask for a token').length;
    bench.pass(60_000);
    assert.equal(bench.all('ask for a token').length > asked, state === 'waiting', code);
  }
});

test('at once means at once, and back off means by chance', () => {
  for (const [code, wait] of [
    [4003, 0],
    [4008, 0],
    [1006, 500],
    [1012, 500],
  ]) {
    const bench = new Bench().open().pass(20_000).closed(code);
    assert.equal(bench.status.retryAt - bench.now.wall, wait, code);
  }
});

test('the back-off doubles to 30 s, never gives up, and starts anew after a steady connection', () => {
  const bench = new Bench({ random: 1 }).event({ is: 'start' });
  const waits = [];
  for (let tries = 0; tries < 12; tries += 1) {
    bench.event({ is: 'token', token: token(9e9) }).closed(1006);
    waits.push((bench.status.retryAt - bench.now.wall) / 1000);
    bench.asks();
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30, 30]);
  bench.event({ is: 'token', token: token(9e9) }).hello().live(11_000).closed(1006);
  assert.equal(bench.status.retryAt - bench.now.wall, 1000);
});

test('it connects at most once a second, whatever happens', () => {
  const bench = new Bench({ random: 0 }).event({ is: 'start' });
  for (let step = 0; step < 400; step += 1) {
    bench.event({ is: 'token', token: token(9e9, { step }) });
    if (step % 3 === 0) bench.hello();
    bench.closed([1006, 4003, 4008, 4029][step % 4]).event({ is: 'wake' }).pass(100);
    if (step % 5 === 0) bench.event({ is: 'follow' }).event({ is: 'lead' });
  }
  assert.ok(bench.connects.length > 20);
  for (const [index, at] of bench.connects.entries()) {
    const before = bench.connects[index - 1] ?? -Infinity;
    assert.ok(at - before >= 1000, `${at - before} ms`);
  }
});

test('a token that comes back unchanged after a 4003 is not used, waits longer each time, and says so', () => {
  const bench = new Bench().event({ is: 'start' });
  const cached = token(1);
  bench.event({ is: 'token', token: cached }).event({ is: 'open', control: true }).closed(4003, 'token expired');
  assert.equal(bench.status.reason, 'token expired');
  let waited = 0;
  for (let tries = 0; tries < 8; tries += 1) {
    bench.asks().event({ is: 'token', token: cached });
    const wait = bench.status.retryAt - bench.now.wall;
    assert.ok(wait > waited || wait === 30_000, `${wait} after ${waited}`);
    waited = wait;
    assert.equal(bench.status.reason, 'getToken gave a token that has expired');
  }
  assert.equal(bench.connects.length, 1);
  // Another one is used.
  bench.asks().event({ is: 'token', token: token(9e9) });
  assert.equal(bench.connects.length, 2);
  bench.hello();
  assert.equal(bench.status.state, 'open');
});

test('tokens that are expired and new each time wait longer each time, too', () => {
  const bench = new Bench().event({ is: 'start' });
  let waited = 0;
  for (let tries = 0; tries < 8; tries += 1) {
    bench.event({ is: 'token', token: token(1, { tries }) }).event({ is: 'open', control: true }).closed(4003);
    const wait = bench.status.retryAt - bench.now.wall;
    assert.ok(wait > waited || wait === 30_000, `${wait} after ${waited}`);
    waited = wait;
    bench.asks();
  }
});

test('getToken has a time limit and one call at a time', () => {
  const bench = new Bench().event({ is: 'start' }).event({ is: 'wake' }).pass(9999);
  assert.equal(bench.all('ask for a token').length, 1);
  bench.pass(1);
  assert.equal(bench.all('abandon').length, 1);
  assert.deepEqual([bench.status.state, bench.status.reason], ['waiting', 'getToken took over 10 s']);
  bench.pass(60_000);
  assert.ok(bench.all('ask for a token').length > 1);
  const failing = new Bench().event({ is: 'start' }).event({ is: 'no token', why: 'getToken failed' });
  assert.deepEqual([failing.status.state, failing.status.reason], ['waiting', 'getToken failed']);
});

test('a token is followed in band before its end', () => {
  for (const [lives, before] of [
    [5, 5 / 3],
    [60, 20],
    [3600, 60],
  ]) {
    const bench = new Bench().open(lives).asks();
    assert.ok(Math.abs(bench.now.at / 1000 - (lives - before)) <= 0.2, `${bench.now.at} of ${lives} s`);
    const next = token(bench.now.wall / 1000 + lives);
    bench.event({ is: 'token', token: next });
    const sent = bench.all('send').at(-1).text;
    assert.deepEqual(JSON.parse(sent), { type: 'token', token: next });
    bench.text({ herald: 'token', expiresAt: bench.now.wall + lives * 1000 });
    const renewed = bench.now.at;
    bench.asks();
    assert.ok(Math.abs((bench.now.at - renewed) / 1000 - (lives - before)) <= 0.2);
    assert.equal(bench.connects.length, 1, 'the connection stays');
  }
});

test('a token that is no better is not sent, is asked for again later each time, and says so', () => {
  for (const [next, why] of [
    [(old) => token(old), 'the same token'],
    [(old) => token(old - 1), 'ends no later'],
  ]) {
    const bench = new Bench();
    const old = bench.now.wall / 1000 + 60;
    bench.open(60);
    for (let tries = 0; tries < 3; tries += 1) {
      bench.asks().event({ is: 'token', token: next(old) });
    }
    assert.equal(bench.all('send').filter(({ text }) => text.includes('token')).length, 0);
    assert.equal(bench.status.state, 'open');
    assert.ok(bench.status.reason.includes(why), bench.status.reason);
  }
});

test('a clock that is wrong by hours still gives a token time', () => {
  for (const wrong of [-7200, 7200]) {
    const bench = new Bench();
    const issued = bench.now.wall / 1000 + wrong;
    bench.event({ is: 'start' });
    bench.event({ is: 'token', token: token(issued + 300, { iat: issued }) }).hello(0);
    bench.asks();
    assert.equal(Math.round(bench.now.at / 1000), 240);
  }
});

test('heartbeats keep the line, and one without an answer ends it', () => {
  const bench = new Bench().open();
  for (let beats = 1; beats <= 5; beats += 1) {
    bench.pass(25_000);
    assert.equal(bench.all('send').length, beats);
    bench.text({ herald: 'heartbeat' });
    assert.equal(bench.all('proven').at(-1).wall, bench.now.wall);
  }
  bench.pass(25_000).pass(9_999);
  assert.equal(bench.status.state, 'open');
  bench.pass(1);
  assert.equal(bench.status.reason, 'the gateway does not answer');
  assert.equal(bench.all('drop').length, 1);
});

test('what was proven is when the oldest heartbeat went out', () => {
  const bench = new Bench().open().pass(25_000);
  const sent = bench.now.wall;
  bench.pass(3000).event({ is: 'wake' }).pass(500).text({ id: '1' }).text({ herald: 'heartbeat' });
  assert.equal(bench.all('proven').at(-1).wall, sent);
  // A notification tells that the line lives, and nothing of what came before it.
  bench.pass(25_000).text({ id: '2' });
  assert.equal(bench.all('proven').length, 1);
});

test('the throttled timers of a hidden tab end no healthy line', () => {
  const bench = new Bench().open();
  for (let minutes = 0; minutes < 30; minutes += 1) {
    bench.stand(60_000).event({ is: 'time' });
    // The answer comes by an event, which is not throttled.
    bench.stand(50).text({ herald: 'heartbeat' });
    assert.equal(bench.status.state, 'open', `${minutes} minutes`);
  }
  assert.equal(bench.connects.length, 1);
  // A dead one they do end.
  bench.stand(60_000).event({ is: 'time' });
  bench.stand(60_000).event({ is: 'time' });
  bench.stand(60_000).event({ is: 'time' });
  assert.notEqual(bench.status.state, 'open');
});

test('after a sleep the line is probed at once, and is not dead by the clock alone', () => {
  for (const sleeps of [true, false]) {
    const bench = new Bench().open().live(25_000);
    const beats = bench.all('send').length;
    bench.stand(3_600_000, { sleeps }).event({ is: 'time' });
    assert.equal(bench.status.state, 'open');
    assert.equal(bench.all('send').length, beats + 1);
    // It lives.
    const alive = bench.stand(1000).text({ herald: 'heartbeat' });
    assert.equal(alive.status.state, 'open');
    // Or it does not.
    bench.pass(25_000).stand(3_600_000, { sleeps }).event({ is: 'time' });
    bench.pass(2999);
    assert.equal(bench.status.state, 'open');
    bench.pass(1);
    assert.notEqual(bench.status.state, 'open');
    bench.pass(1000);
    assert.ok(bench.all('ask for a token').length > 1, 'it tries again within 5 s');
  }
});

test('a page that is seen again probes, and does not wait for the next try', () => {
  const bench = new Bench().open().pass(10_000).event({ is: 'wake' });
  assert.equal(bench.all('send').length, 1);
  bench.pass(3000);
  assert.equal(bench.status.reason, 'the gateway does not answer');
  const away = new Bench({ random: 1 }).event({ is: 'start' });
  for (let tries = 0; tries < 6; tries += 1) {
    away.event({ is: 'token', token: token(9e9) }).closed(1006);
    if (tries < 5) away.pass(31_000);
  }
  away.pass(2000).event({ is: 'wake' });
  const asked = away.all('ask for a token').length;
  away.pass(0);
  assert.equal(away.all('ask for a token').length, asked + 1);
});

test('a handshake that hangs is given up', () => {
  const bench = new Bench().event({ is: 'start' }).event({ is: 'token', token: token(9e9) }).pass(10_000);
  assert.equal(bench.status.reason, 'no connection in time');
  // Upgraded, and nothing after that.
  const silent = new Bench().event({ is: 'start' }).event({ is: 'token', token: token(9e9) });
  silent.event({ is: 'open', control: true }).pass(10_000);
  assert.equal(silent.status.state, 'waiting');
});

test('a gateway that knows no herald.v2 serves, too', () => {
  const bench = new Bench().event({ is: 'start' }).event({ is: 'token', token: token(2_000_000) });
  bench.event({ is: 'open', control: false }).text({ id: '1' });
  assert.equal(bench.status.state, 'open');
  assert.equal(bench.all('notification').length, 1);
  bench.pass(300_000);
  assert.equal(bench.status.state, 'open');
  assert.ok(bench.all('send').length > 10, 'it stays active');
});

test('no part of a token is in what it says', () => {
  const secret = token(9e9);
  for (const quoted of [secret, secret.split('.')[1], `bad ${secret.split('.')[2]}`]) {
    const bench = new Bench().event({ is: 'start' }).event({ is: 'token', token: secret }).closed(4001, quoted);
    const said = JSON.stringify(bench.all('status'));
    for (const part of secret.split('.')) assert.ok(!said.includes(part), said);
  }
});

test('a hostile message breaks nothing', () => {
  const bench = new Bench().open();
  for (const text of ['', '{', '{"herald":', '{"herald":null}', '{"herald":"hello"}', '[]', 'null']) {
    bench.event({ is: 'text', text });
  }
  assert.equal(bench.status.state, 'open');
});

test('a tab that follows has no socket and no timer; one that leads again asks again', () => {
  const bench = new Bench().open().live(60_000).event({ is: 'follow' });
  assert.equal(bench.all('drop').length, 1);
  assert.equal(bench.step.due(), Infinity);
  bench.event({ is: 'lead' });
  assert.equal(bench.all('ask for a token').length, 2);
  bench.event({ is: 'token', token: token(9e9) });
  assert.equal(bench.connects.length, 2);
});
