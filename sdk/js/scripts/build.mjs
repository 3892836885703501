// Builds dist/: ESM and CommonJS, minified, and the types. `react.js` takes the client from `index.js`, so that
// there is one of it.

import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('..', import.meta.url));
process.chdir(here);
rmSync('dist', { recursive: true, force: true });

for (const [format, end] of [
  ['esm', '.js'],
  ['cjs', '.cjs'],
]) {
  for (const name of ['index', 'react']) {
    await build({
      entryPoints: [`src/${name}.ts`],
      outfile: `dist/${name}${end}`,
      format,
      bundle: true,
      minify: true,
      // Fields with an underscore are nobody else's.
      mangleProps: /^_/,
      sourcemap: true,
      sourcesContent: false,
      target: 'es2022',
      plugins: [
        {
          name: 'one client',
          setup(build) {
            if (name === 'index') return;
            build.onResolve({ filter: /^react$|\/index\.js$/ }, ({ path }) => ({
              path: path === 'react' ? path : `./index${end}`,
              external: true,
            }));
          },
        },
      ],
    });
  }
}

execFileSync(process.execPath, ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' });
// What no application names.
for (const name of ['machine', 'store', 'tabs', 'token']) rmSync(`dist/${name}.d.ts`);
for (const name of ['index', 'react', 'client', 'types', 'wire']) {
  // The same types, for those who `require`.
  const text = readFileSync(`dist/${name}.d.ts`, 'utf8');
  writeFileSync(`dist/${name}.d.cts`, text.replace(/(from '\.\/\w+)\.js'/g, "$1.cjs'"));
}
