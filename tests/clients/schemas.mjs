// Judges values by the gateway's JSON Schemas, each as it is given out and as the AsyncAPI document has it, and
// that document by AsyncAPI's own schema.
//
// node schemas.mjs input.json, which has `schemas` and `document` by what `herald schema` prints, and `values`.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import Ajv from 'ajv';
import Ajv2020 from 'ajv/dist/2020.js';
import formats from 'ajv-formats';

const require = createRequire(import.meta.url);
const { schemas, document, values } = JSON.parse(readFileSync(process.argv[2], 'utf8'));

const strict = new Ajv2020({ strict: true, allowUnionTypes: true, strictRequired: false });
// It brings the meta-schema that it refers to.
const loose = new Ajv({ strict: false, allErrors: true, meta: false, validateSchema: false });
for (const ajv of [strict, loose]) formats(ajv);

const alone = Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, strict.compile(schema)]));
// AsyncAPI's own dialect is draft 7.
const within = new Ajv({ strict: false });
formats(within);
within.addSchema(document, 'document');

const verdicts = values.map(({ schema, value }) => {
  const validate = alone[schema];
  const verdict = validate(value) ? null : strict.errorsText(validate.errors);
  const inside = within.getSchema(`document#/components/schemas/${schema}`);
  if (inside(value) !== (verdict === null)) throw new Error(`${schema} judges another way in the document`);
  return verdict;
});

const official = loose.compile(require('@asyncapi/specs/schemas/3.0.0.json'));
const faults = official(document) ? [] : official.errors.map(({ instancePath, message }) => `${instancePath} ${message}`);

// An example stands for its schema in every tool that shows one.
for (const [name, { examples = [] }] of Object.entries(schemas)) {
  for (const example of examples) {
    if (!alone[name](example)) faults.push(`${name}: an example is not valid: ${strict.errorsText(alone[name].errors)}`);
  }
}
console.log(JSON.stringify({ verdicts, faults }));
