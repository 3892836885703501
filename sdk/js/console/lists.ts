// Dead letters and sessions: pages of rows, on request.

import { read } from './api.js';
import { away, h, labelled, table, time } from './dom.js';

interface Letters {
  letters: { workspace: string; sequence: number; subject: string; reason: string; time: string; detail: string }[];
  next: number | null;
}

interface Sessions {
  sessions: { session: string; workspace: string; user: string; issuer?: string; opened: string; expires: string }[];
  next?: string;
}

/** A list with a button for what comes next. */
function paged(load: (after: string) => Promise<{ element: HTMLElement; next: string }>) {
  const rows = h('div', { 'aria-live': 'polite' });
  const more = h('button', { type: 'button', hidden: true }, 'Show more');
  let next = '';
  const show = async (after: string) => {
    try {
      const page = await load(after);
      if (after) rows.append(page.element);
      else rows.replaceChildren(page.element);
      next = page.next;
    } catch (error) {
      rows.replaceChildren(h('p', { class: 'wrong' }, (error as Error).message));
      next = '';
    }
    more.hidden = !next;
  };
  more.addEventListener('click', () => show(next));
  return { element: h('div', {}, rows, more), show };
}

export function deadLetters(): { element: HTMLElement; shown: () => void } {
  const since = h('select', {}, h('option', { value: '3600' }, 'the last hour'), h('option', { value: '86400' }, 'the last day'), h('option', { value: '' }, 'all that is kept'));
  const list = paged(async (after) => {
    const query = after ? `after=${after}` : since.value && `since=${since.value}`;
    const { letters, next } = await read<Letters>(`dead-letters?${query}`);
    const rows = letters.map((one) => [time(one.time), one.workspace, one.subject, one.reason, one.detail]);
    const element = rows.length
      ? table('Dead letters', ['Time', 'Workspace', 'Subject', 'Reason', 'Detail'], rows)
      : h('p', { class: 'empty' }, 'No dead letters. Every event became a notification.');
    return { element, next: next ? String(next) : '' };
  });
  const show = () => void list.show('');
  since.addEventListener('change', show);
  const element = h(
    'section',
    { class: 'card', 'aria-label': 'Dead letters' },
    h('p', {}, 'Events that could not become notifications, the oldest first.'),
    h('div', { class: 'pair' }, labelled('Of', since), h('button', { type: 'button', class: 'quiet', click: show }, 'Refresh')),
    list.element,
  );
  return { element, shown: show };
}

export function sessions(): { element: HTMLElement; shown: () => void } {
  const list = paged(async (after) => {
    const page = await read<Sessions>(`sessions${after && `?after=${after}`}`);
    const rows = page.sessions.map((one) => [one.user, one.workspace, time(one.opened), away(Date.parse(one.expires)), one.session]);
    const element = rows.length
      ? table('Sessions', ['User', 'Workspace', 'Opened', 'Token ends', 'Session'], rows)
      : h('p', { class: 'empty' }, 'No socket is open.');
    return { element, next: page.next ?? '' };
  });
  const show = () => void list.show('');
  const element = h(
    'section',
    { class: 'card', 'aria-label': 'Sessions' },
    h('div', { class: 'top' }, h('p', {}, 'Sockets that are open on this gateway. ', h('code', {}, 'herald sessions'), ' lists those of all gateways.'), h('button', { type: 'button', class: 'quiet', click: show }, 'Refresh')),
    list.element,
  );
  return { element, shown: show };
}
