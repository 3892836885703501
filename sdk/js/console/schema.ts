// A form of the fields that a JSON Schema names.

import { h, labelled } from './dom.js';

export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  allOf?: Schema[];
  type?: string | string[];
  enum?: (string | null)[];
  items?: Schema;
  description?: string;
  properties?: Record<string, Schema>;
  examples?: unknown[];
}

export interface Form {
  element: HTMLElement;
  /** The payload, or why there is none. */
  value: () => Record<string, unknown>;
}

/** The schema with those that it names: which fields are its own, and which all events have. */
function collect(schema: Schema, defs: Record<string, Schema>): { own: Map<string, Schema>; common: Map<string, Schema>; example: Record<string, unknown> } {
  const own = new Map<string, Schema>();
  const common = new Map<string, Schema>();
  let example: Record<string, unknown> = {};
  const visit = (part: Schema, isCommon: boolean) => {
    for (const one of part.allOf ?? []) {
      const name = one.$ref?.split('/').pop() ?? '';
      const found = one.$ref ? defs[name] : one;
      if (found) visit(found, isCommon || name === 'event');
    }
    const into = isCommon ? common : own;
    for (const [name, property] of Object.entries(part.properties ?? {})) into.set(name, property);
    const best = (part.examples ?? []).filter((one) => one && typeof one === 'object' && Object.keys(one).length).pop();
    if (best && !isCommon) example = best as Record<string, unknown>;
  };
  visit(schema, false);
  return { own, common, example };
}

type Control = { element: HTMLElement; read: () => unknown };

/** One field. What is left empty is left out. */
function control(name: string, schema: Schema, start: unknown): Control {
  const type = [schema.type ?? []].flat()[0];
  const common = { name, autocomplete: 'off', spellcheck: 'false' };
  const hint = schema.description ?? '';
  const choices = schema.enum ?? (type === 'boolean' ? ['true', 'false'] : null);
  if (choices) {
    const select = h('select', { name }, h('option', { value: '' }, '—'));
    for (const choice of choices) if (choice !== null) select.append(h('option', { value: choice }, choice));
    select.value = String(start ?? '');
    const read = () => (select.value === '' ? undefined : schema.enum ? select.value : select.value === 'true');
    return { element: labelled(name, select, hint), read };
  }
  const isList = type === 'array' && schema.items?.type === 'string';
  if (type === 'string' || type === 'number' || type === 'integer' || isList) {
    const input = h('input', { ...common, inputmode: type === 'string' || isList ? null : 'decimal' });
    input.value = isList ? [start ?? []].flat().join(', ') : String(start ?? '');
    const read = () => {
      const text = input.value;
      if (text === '') return undefined;
      if (isList) return text.split(',').map((one) => one.trim()).filter(Boolean);
      if (type === 'string') return text;
      // What is no number of JSON's, or a larger one than JavaScript's, is the gateway's to judge, as it is.
      const isNumber = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text);
      return isNumber && Math.abs(Number(text)) <= Number.MAX_SAFE_INTEGER ? Number(text) : text;
    };
    return { element: labelled(isList ? `${name} (with commas)` : name, input, hint), read };
  }
  const area = h('textarea', { ...common, rows: 3 });
  area.value = start === undefined ? '' : JSON.stringify(start);
  const read = () => {
    if (area.value.trim() === '') return undefined;
    try {
      return JSON.parse(area.value);
    } catch {
      throw new Error(`${name} is no JSON: a text needs quotes.`);
    }
  };
  return { element: labelled(`${name} (JSON)`, area, hint), read };
}

/** The form of an event. */
export function form(schema: Schema): Form {
  const { own, common, example } = collect(schema, schema.$defs ?? {});
  const controls = new Map<string, Control>();
  const make = (fields: [string, Schema][]) =>
    fields.map(([name, property]) => {
      const made = control(name, property, example[name]);
      controls.set(name, made);
      return made.element;
    });
  // A document without a value is seldom wanted.
  const isRare = ([name, { type }]: [string, Schema]) => [type].flat()[0] === 'object' && example[name] === undefined;
  const [first, rare] = [[...own].filter((field) => !isRare(field)), [...own].filter(isRare)];
  const shown = first.length ? first : [...common];
  const hidden = first.length ? [...rare, ...common] : rare;
  const element = h(
    'div',
    {},
    h('div', { class: 'pair' }, ...make(shown)),
    hidden.length > 0 && h('details', {}, h('summary', {}, 'More fields'), ...make(hidden)),
  );
  const value = () => {
    const payload: Record<string, unknown> = {};
    for (const [name, { read }] of controls) {
      const one = read();
      if (one !== undefined) payload[name] = one;
    }
    return payload;
  };
  return { element, value };
}
