// The page: signs in where that is needed, and shows one view at a time.

import { about, Problem, signIn, type About } from './api.js';
import { h, labelled, tell } from './dom.js';
import { deadLetters, sessions } from './lists.js';
import { live } from './live.js';
import { notifications } from './notifications.js';
import { publishing } from './publish.js';
import { explaining } from './token.js';

interface View {
  /** In the address. */
  id: string;
  name: string;
  element: HTMLElement;
  /** It has come into view. */
  shown?: () => void;
}

const main = document.getElementById('main')!;
const nav = document.getElementById('views')!;
const notice = document.getElementById('notice')!;

function say(text: string): void {
  tell(notice, text);
  notice.hidden = !text;
}

function views(told: About): View[] {
  // What the user has just published comes into view, and nothing else moves the page.
  let publishedAt = -Infinity;
  const arrived = (list: HTMLElement) => {
    if (performance.now() - publishedAt > 5000) return;
    publishedAt = -Infinity;
    // At once: a smooth scroll would end where the form has meanwhile grown.
    list.firstElementChild?.scrollIntoView({ block: 'nearest' });
  };
  const onPublish = () => {
    publishedAt = performance.now();
  };
  const letters = deadLetters();
  const open = sessions();
  return [
    {
      id: 'notifications',
      name: 'Notifications',
      element: h('div', { class: 'columns' }, publishing(told, onPublish), notifications(told, arrived)),
    },
    { id: 'live', name: 'Live', element: live() },
    { id: 'dead-letters', name: 'Dead letters', ...letters },
    { id: 'token', name: 'Token', element: explaining(told) },
    { id: 'sessions', name: 'Sessions', ...open },
  ];
}

/** `isSigned`: after the form for the admin token, which had the focus. */
function show(told: About, isSigned = false): void {
  const { gateway, version } = told;
  // Without a name of its own it has a random one, which is longer than it is of use.
  document.getElementById('gateway')!.textContent = `${gateway.length === 36 ? gateway.slice(0, 8) : gateway} · ${version}`;
  const all = views(told).map((view) => {
    const heading = h('h2', { tabindex: -1, class: view.id === 'notifications' ? 'unseen' : null }, view.name);
    const link = h('a', { href: `#${view.id}` }, view.name);
    return { ...view, heading, link, section: h('div', { class: 'view', id: `view-${view.id}` }, heading, view.element) };
  });
  nav.replaceChildren(h('ul', {}, ...all.map(({ link }) => h('li', {}, link))));
  nav.hidden = false;
  main.append(...all.map(({ section }) => section));
  const choose = (isFirst: boolean) => {
    const wanted = location.hash.slice(1);
    // The skip link leads within the view.
    if (wanted === 'main' && !isFirst) return;
    const chosen = all.find(({ id }) => id === wanted) ?? all[0]!;
    for (const { section, link } of all) {
      const isChosen = section === chosen.section;
      section.hidden = !isChosen;
      if (isChosen) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    document.title = `${chosen.name} – Herald console`;
    chosen.shown?.();
    if (!isFirst) chosen.heading.focus();
  };
  addEventListener('hashchange', () => choose(false));
  choose(true);
  if (isSigned) main.focus();
  void watch(told);
}

/** Says why the gateway is not ready, as long as it is not. */
async function watch(told: About): Promise<void> {
  for (; ;) {
    say(told.unready ? `The gateway is not ready: ${told.unready}` : '');
    await new Promise((resolve) => setTimeout(resolve, told.unready ? 1000 : 5000));
    try {
      told = await about();
    } catch (error) {
      const { status, message } = error as Problem;
      told = { ...told, unready: status === 401 ? 'the admin token has changed. Load this page again to sign in.' : message };
    }
  }
}

/** The form for the admin token. */
function askToken(wrong: string): void {
  const token = h('input', { type: 'password', autocomplete: 'off', required: true });
  const problem = h('p', { class: 'wrong', role: 'alert' }, wrong);
  let isAsking = false;
  const submit = async (event: Event) => {
    event.preventDefault();
    if (isAsking) return;
    isAsking = true;
    try {
      signIn(token.value);
      const told = await about();
      form.remove();
      show(told, true);
    } catch (error) {
      problem.textContent = (error as Problem).status === 401 ? 'This is not the admin token.' : (error as Error).message;
    }
    isAsking = false;
  };
  const form = h(
    'form',
    { class: 'card narrow', submit },
    h('h2', {}, 'Sign in'),
    labelled('Admin token', token, 'The content of server.admin_token_file. It is kept until this page is left.'),
    h('button', { type: 'submit', class: 'primary' }, 'Sign in'),
    problem,
  );
  main.append(form);
  token.focus();
}

about().then((told) => show(told), (error: Problem) => {
  if (error.status === 401) askToken('');
  else say(error.message);
});
