// The types of the wire are those of the gateway's schemas.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { types } from '../scripts/types.mjs';

test('src/wire.ts is up to date', () => {
  const found = readFileSync(new URL('../src/wire.ts', import.meta.url), 'utf8');
  assert.equal(found, types(), 'npm run types');
});
