// Runs the tests in test/ by Node's own runner. What they test of src/ and console/ is bundled for them first.

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
buildSync({
  entryPoints: ['src/machine.ts', 'src/client.ts', 'src/token.ts', 'console/exposition.ts'],
  outbase: '.',
  entryNames: '[name]',
  outdir: 'dist/test',
  outExtension: { '.js': '.mjs' },
  format: 'esm',
  bundle: true,
});
const files = readdirSync('test').filter((name) => name.endsWith('.test.mjs'));
const { status } = spawnSync(
  process.execPath,
  ['--test', ...process.argv.slice(2), ...files.map((name) => `test/${name}`)],
  { stdio: 'inherit' },
);
process.exit(status ?? 1);
