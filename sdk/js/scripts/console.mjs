// Builds the page that a gateway serves at /console, from console/. What it makes is in the repository, so that cargo
// alone builds the gateway; CI makes it again, and compares.

import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { buildSync } from 'esbuild';

/** Of all files together, by gzip. */
const MOST = 40 * 1024;

const here = fileURLToPath(new URL('..', import.meta.url));
/** Another folder, to compare with. */
const out = process.argv[2] ?? `${here}/../../src/ops/console/page`;
process.chdir(here);

execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'console'], { stdio: 'inherit' });
buildSync({
  entryPoints: ['console/main.ts'],
  outfile: `${out}/app.js`,
  format: 'esm',
  bundle: true,
  minify: true,
  // Fields with an underscore are the client's own.
  mangleProps: /^_/,
  target: 'es2022',
});
buildSync({ entryPoints: ['console/style.css'], outfile: `${out}/style.css`, minify: true });
for (const name of ['index.html', 'icon.svg']) copyFileSync(`console/${name}`, `${out}/${name}`);

const all = ['index.html', 'app.js', 'style.css', 'icon.svg'].map((name) => readFileSync(`${out}/${name}`));
const size = gzipSync(Buffer.concat(all), { level: 9 }).length;
console.log(`console: ${size} bytes of ${MOST}`);
process.exit(size > MOST ? 1 : 0);
