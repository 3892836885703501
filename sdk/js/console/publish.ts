// An event of a form that knows the schemas, with what it becomes.

import type { Notification } from '../src/index.js';
import { about, preview, Problem, publish, read, sendable, type About } from './api.js';
import { h, labelled } from './dom.js';
import { card } from './notifications.js';
import { form, type Form, type Schema } from './schema.js';

/** After the last key, before the preview is asked for. */
const PAUSE = 300;

/** The events with texts of their own, and some of the categories that take any name. */
const EVENTS = [
  'record.created',
  'record.updated',
  'record.deleted',
  'record.bulk_completed',
  'function.started',
  'function.completed',
  'function.failed',
  'function.timeout',
  'system.maintenance',
  'system.alert',
  'custom.alert',
  'custom.hello',
];
const OTHER = '';
/** What other name does: the names of the other categories are all above. */
const NAME = /^(system|custom)\.[A-Za-z0-9_-]{1,64}$/;
const NAMED = 'system or custom, a dot, and a name of letters, digits, - and _.';

/** `onPublish` is called before an event is sent: its notification may come before the answer. */
export function publishing({ publish: isOn, development }: About, onPublish: () => void): HTMLElement {
  const events = h('select', {}, ...EVENTS.map((name) => h('option', { value: name }, name)), h('option', { value: OTHER }, 'another name …'));
  const other = h('input', { value: 'custom.order_shipped', autocomplete: 'off', spellcheck: 'false' });
  const otherField = labelled('Name of the event', other, NAMED);
  const workspace = h('input', { value: development?.workspace ?? '', autocomplete: 'off', spellcheck: 'false', required: true });
  const token = h('input', { type: 'password', autocomplete: 'off' });
  const fields = h('div', { class: 'fields' });
  const becomes = h('div', { class: 'preview' });
  const result = h('p', { class: 'result', role: 'status' });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Publish');
  let publishToken = development?.publishToken ?? '';
  let made: Form | undefined;
  let timer = 0;
  let asked = 0;
  otherField.hidden = true;

  const name = () => (events.value === OTHER ? other.value.trim() : events.value);
  const say = (where: HTMLElement, kind: string, text: string) => {
    where.className = `${where === result ? 'result' : 'preview'} ${kind}`;
    where.textContent = text;
  };
  const look = async () => {
    const mine = ++asked;
    if (!made) return;
    if (!workspace.value) return say(becomes, 'empty', 'Name a workspace, and what becomes of the event shows here.');
    try {
      const { notification, warnings } = await preview(workspace.value.trim(), name(), JSON.stringify(made.value()));
      if (mine !== asked) return;
      becomes.className = 'preview';
      becomes.replaceChildren(
        ...warnings.map((warning) => h('p', { class: 'warning' }, warning)),
        notification ? card(notification as Notification) : h('p', {}, 'Nobody gets a notification of this event.'),
      );
    } catch (error) {
      if (mine === asked) say(becomes, 'wrong', (error as Error).message);
    }
  };
  const changed = () => {
    clearTimeout(timer);
    timer = window.setTimeout(look, PAUSE);
  };
  const choose = async () => {
    otherField.hidden = events.value !== OTHER;
    const wanted = name();
    // Until the form of this event is there, none is sent.
    made = undefined;
    fields.replaceChildren();
    try {
      if (events.value === OTHER && !NAME.test(wanted)) throw new Problem(0, `Name the event: ${NAMED}`);
      const schema = await read<Schema>(`schemas/${encodeURIComponent(wanted)}`);
      if (wanted !== name()) return;
      made = form(schema);
      fields.replaceChildren(made.element);
      await look();
    } catch (error) {
      if (wanted === name()) say(becomes, 'wrong', (error as Error).message);
    }
  };
  const send = async (payload: string) => {
    const to = (token: string) => publish(token, workspace.value.trim(), name(), payload);
    if (!development) return to(sendable(token.value));
    try {
      return await to(publishToken);
    } catch (error) {
      if ((error as Problem).status !== 401) throw error;
      // `herald dev` has been started again, with another secret.
      publishToken = (await about()).development?.publishToken ?? '';
      return to(publishToken);
    }
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!made) {
      say(result, 'wrong', 'The form of this event is not there yet.');
      return choose();
    }
    // Not `disabled`, which would take the focus away.
    if (button.getAttribute('aria-disabled') === 'true') return;
    button.setAttribute('aria-disabled', 'true');
    try {
      const payload = JSON.stringify(made.value());
      onPublish();
      const { stream, sequence } = await send(payload);
      say(result, 'good', `Stored in ${stream} with the sequence ${sequence}.`);
    } catch (error) {
      say(result, 'wrong', (error as Error).message);
    }
    button.removeAttribute('aria-disabled');
  };
  events.addEventListener('change', choose);
  other.addEventListener('change', choose);
  void choose();

  const heading = h('h2', { id: 'publish-heading' }, 'Publish an event');
  return h(
    'section',
    { class: 'card', 'aria-labelledby': heading.id },
    heading,
    h(
      'form',
      { submit, input: changed },
      h('div', { class: 'pair' }, labelled('Event', events), labelled('Workspace', workspace)),
      otherField,
      fields,
      h('h3', {}, 'What it becomes'),
      becomes,
      isOn
        ? !development && labelled('Publish token', token, 'A token with the claim publish, or one of publish.tokens_file.')
        : h('p', { class: 'hint' }, 'Publishing by HTTP is off here: server.publish_listen turns it on.'),
      isOn && h('div', { class: 'actions' }, button, result),
    ),
  );
}
