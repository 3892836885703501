// Elements. All text becomes text: nothing here, and nothing else in the page, reads HTML.

type Child = Node | string | number | null | undefined | false;
type Properties = Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>;

const SVG = 'http://www.w3.org/2000/svg';

function fill<E extends Element>(element: E, properties: Properties, children: Child[]): E {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(typeof child === 'number' ? String(child) : child);
    }
  }
  return element;
}

/** An element with its attributes; a function is a listener of the event of that name. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag: string, properties: Properties = {}, ...children: Child[]): SVGElement {
  return fill(document.createElementNS(SVG, tag) as SVGElement, properties, children);
}

let ids = 0;

/** A label with its control, and a hint below it. */
export function labelled<E extends HTMLElement>(label: string, control: E, hint = ''): HTMLDivElement {
  control.id ||= `control-${++ids}`;
  const below = hint && h('p', { class: 'hint', id: `${control.id}-hint` }, hint);
  if (below) control.setAttribute('aria-describedby', below.id);
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control, below);
}

/** A table that becomes a list of cards where there is no room. */
export function table(caption: string, headings: string[], rows: Child[][]): HTMLElement {
  const cell = (content: Child, index: number) =>
    h('div', { role: 'cell', 'data-label': headings[index] }, h('span', { dir: 'auto' }, content));
  return h(
    'div',
    { class: 'table', role: 'table', 'aria-label': caption },
    h(
      'div',
      { role: 'row', class: 'head' },
      ...headings.map((heading) => h('div', { role: 'columnheader' }, heading)),
    ),
    ...rows.map((row) => h('div', { role: 'row' }, ...row.map(cell))),
  );
}

/** Says something in a live region. A screen reader would say it again if it were set again. */
export function tell(region: HTMLElement, text: string): void {
  if (region.textContent !== text) region.textContent = text;
}

/** Whether there is such a date: a token may say anything. */
export function isDate(ms: number): boolean {
  return !Number.isNaN(new Date(ms).getTime());
}

export function time(text: string | number): HTMLTimeElement {
  const date = new Date(text);
  const known = isDate(date.getTime());
  return h('time', { datetime: known ? date.toISOString() : null }, known ? date.toLocaleString() : String(text));
}

/** How far away a moment is, in words. */
export function away(moment: number): string {
  const words = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto' });
  let left = (moment - Date.now()) / 1000;
  for (const [unit, size] of [
    ['second', 60],
    ['minute', 60],
    ['hour', 24],
  ] as const) {
    if (Math.abs(left) < size) return words.format(Math.round(left), unit);
    left /= size;
  }
  return words.format(Math.round(left), 'day');
}
