// A token explained: what it says, and what this gateway makes of it.

import { claims } from '../src/token.js';
import { about, read, sendable, withoutScheme, type About } from './api.js';
import { away, h, isDate, labelled } from './dom.js';

interface Explained {
  issuer: string | null;
  verdict: {
    good: boolean;
    code?: number;
    close?: string;
    reason?: string;
    user?: string;
    workspaces?: string[];
    expiresAt?: number;
  };
}

export function explaining({ development }: About): HTMLElement {
  const token = h('textarea', { rows: 5, autocomplete: 'off', spellcheck: 'false', required: true });
  const answer = h('div', { 'aria-live': 'polite' });
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      // A token that was copied with its line breaks.
      const text = sendable(withoutScheme(token.value).replace(/\s/g, ''));
      const told = await read<Explained>('token', { 'Herald-Token': text });
      answer.replaceChildren(...explained(told, claims(text) as Record<string, unknown>));
    } catch (error) {
      answer.replaceChildren(h('p', { class: 'wrong' }, (error as Error).message));
    }
  };
  const own = async () => {
    // A new one: `herald dev` may have been started again.
    token.value = (await about().catch(() => null))?.development?.token ?? '';
  };
  return h(
    'section',
    { class: 'card', 'aria-label': 'Token' },
    h(
      'form',
      { submit },
      labelled('Token', token, 'It goes to this gateway in a header, and is kept nowhere.'),
      h(
        'div',
        { class: 'actions' },
        h('button', { type: 'submit', class: 'primary' }, 'Explain'),
        development && h('button', { type: 'button', class: 'quiet', click: own }, `Take the one of ${development.user}`),
      ),
    ),
    answer,
  );
}

function explained({ issuer, verdict }: Explained, said: Record<string, unknown>): HTMLElement[] {
  const { good, code, close, reason, workspaces = [] } = verdict;
  const dates = ['iat', 'nbf', 'exp'].filter((name) => typeof said[name] === 'number');
  const ends = verdict.expiresAt ?? (typeof said['exp'] === 'number' ? said['exp'] * 1000 : undefined);
  const date = (ms: number) => (isDate(ms) ? new Date(ms).toLocaleString() : 'no date');
  const list: [string, string][] = [];
  if (good) {
    list.push(['User', verdict.user ?? '']);
    list.push(['Workspaces', workspaces.includes('*') ? 'all of them' : workspaces.join(', ') || 'none: it opens no socket']);
  } else if (code) list.push(['A socket', `is closed with ${code} “${close}”`]);
  if (ends !== undefined) list.push(['Ends', isDate(ends) ? `${date(ends)}, ${away(ends)}` : date(ends)]);
  list.push(['Judged by', issuer ?? 'no issuer of the settings']);
  for (const name of dates) list.push([name, date((said[name] as number) * 1000)]);
  return [
    h('p', { class: good ? 'verdict good' : 'verdict wrong' }, good ? 'This gateway takes it.' : `Refused: ${reason}`),
    h('dl', {}, ...list.flatMap(([name, value]) => [h('dt', {}, name), h('dd', { dir: 'auto' }, value)])),
    h('h3', {}, 'Claims'),
    h('pre', { tabindex: 0, role: 'group', dir: 'ltr', 'aria-label': 'Claims' }, JSON.stringify(said, null, 2)),
  ];
}
