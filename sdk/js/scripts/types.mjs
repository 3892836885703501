// Makes src/wire.ts of the gateway's schemas. No generator of others is smaller than this, and what they make of
// `metadata` and of `type` is not what the contract says.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const read = (file) => JSON.parse(readFileSync(new URL(`../../../api/schemas/${file}`, import.meta.url), 'utf8'));

/** The schemas of these files, and before each those that it names. */
function all(files, found = new Map()) {
  for (const file of files) {
    const schema = read(file);
    all((schema.oneOf ?? []).map(({ $ref }) => $ref), found);
    found.set(file, schema);
  }
  return found;
}

const literal = (value) => `'${value}'`;

function type({ const: only, enum: few, anyOf, items, type: name }) {
  if (only !== undefined) return literal(only);
  if (few) return few.map(literal).join(' | ');
  // Known texts stay known beside any other text.
  if (anyOf) return anyOf.map((one) => (one.enum ? type(one) : `(${type(one)} & {})`)).join(' | ');
  if (items) return `${type(items)}[]`;
  return { integer: 'number', string: 'string', number: 'number', boolean: 'boolean' }[name] ?? 'any';
}

const comment = (text, indent) => (text ? `${indent}/** ${text} */\n` : '');

function declared({ title, description, oneOf, properties = {}, required = [] }) {
  if (oneOf) {
    const names = oneOf.map(({ $ref }) => read($ref).title);
    return `${comment(description, '')}export type ${title} = ${names.join(' | ')};\n`;
  }
  const fields = Object.entries(properties).map(([name, property]) => {
    const optional = required.includes(name) ? '' : '?';
    return `${comment(property.description, '  ')}  ${name}${optional}: ${type(property)};\n`;
  });
  return `${comment(description, '')}export interface ${title} {\n${fields.join('')}}\n`;
}

/** The text of src/wire.ts. */
export function types() {
  const schemas = all(['notification.json', 'control.json', 'client.json']);
  const parts = [...schemas.values()].map(declared);
  return `// Made from api/schemas by \`npm run types\`: change those.\n\n${parts.join('\n')}`;
}

const [, main] = process.argv;
if (main === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../src/wire.ts', import.meta.url), types());
}
