// An event of a form that knows the schemas, with what it becomes.

import type { Notification } from '../src/index.js';
import { preview, publish, read, type About } from './api.js';
import { h, labelled } from './dom.js';
import { card } from './notifications.js';
import { form, type Form, type Schema } from './schema.js';

/** After the last key, before the preview is asked for. */
const PAUSE = 300;

/** The events with texts of their own. Any other name of one of these categories does. */
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

export function publishing({ publish: isOn, development }: About): HTMLElement {
  const events = h('select', {}, ...EVENTS.map((name) => h('option', { value: name }, name)), h('option', { value: OTHER }, 'another name …'));
  const other = h('input', { value: 'custom.order_shipped', autocomplete: 'off', spellcheck: 'false' });
  const otherField = labelled('Name of the event', other, 'A category (record, function, system or custom), a dot, and a name.');
  const workspace = h('input', { value: development?.workspace ?? '', autocomplete: 'off', spellcheck: 'false', required: true });
  const token = h('input', { type: 'password', autocomplete: 'off' });
  const fields = h('div', { class: 'fields' });
  const becomes = h('div', { class: 'preview' });
  const result = h('p', { class: 'result', role: 'status' });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Publish');
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
      const { notification, warnings } = await preview(workspace.value, name(), JSON.stringify(made.value()));
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
    try {
      const schema = await read<Schema>(`schemas/${encodeURIComponent(wanted)}`);
      if (wanted !== name()) return;
      made = form(schema);
      fields.replaceChildren(made.element);
      await look();
    } catch (error) {
      made = undefined;
      fields.replaceChildren();
      say(becomes, 'wrong', (error as Error).message);
    }
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!made) return;
    // Not `disabled`, which would take the focus away.
    if (button.getAttribute('aria-disabled') === 'true') return;
    button.setAttribute('aria-disabled', 'true');
    try {
      const payload = JSON.stringify(made.value());
      const { stream, sequence } = await publish(development?.publishToken ?? token.value.trim(), workspace.value, name(), payload);
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
