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
  const rows = h('div', { 'aria-live': 'polite', tabindex: -1 });
  const more = h('button', { type: 'button', hidden: true }, 'Show more');
  const problem = h('p', { class: 'wrong', role: 'status' });
  let next = '';
  let asked = 0;
  const show = async (after: string) => {
    // Of several requests the last one counts.
    const mine = ++asked;
    rows.setAttribute('aria-busy', 'true');
    try {
      const page = await load(after);
      if (mine !== asked) return;
      problem.textContent = '';
      if (after) rows.append(page.element);
      else rows.replaceChildren(page.element);
      next = page.next;
    } catch (error) {
      if (mine !== asked) return;
      if (!after) rows.replaceChildren();
      problem.textContent = (error as Error).message;
    }
    rows.removeAttribute('aria-busy');
    const hadFocus = document.activeElement === more;
    more.hidden = !next;
    if (more.hidden && hadFocus) rows.focus();
  };
  more.addEventListener('click', () => show(next));
  return { element: h('div', {}, rows, problem, more), show };
}

export function deadLetters(): { element: HTMLElement; shown: () => void } {
  const since = h('select', {}, h('option', { value: '3600' }, 'the last hour'), h('option', { value: '86400' }, 'the last day'), h('option', { value: '' }, 'all that is kept'));
  const list = paged(async (after) => {
    const query = after ? `after=${after}` : since.value && `since=${since.value}`;
    const { letters, next } = await read<Letters>(`dead-letters?${query}`);
    const rows = letters.map((one) => [time(one.time), one.workspace, one.subject, one.reason, one.detail]);
    const element = rows.length
      ? table('Dead letters', ['Time', 'Workspace', 'Subject', 'Reason', 'Detail'], rows)
      : h('p', { class: 'empty' }, since.value ? 'No dead letters in this time.' : 'No dead letters. Every event became a notification.');
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
