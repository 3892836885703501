// Bundles what the browser tests load: pages/, with the package as it is built.

import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
buildSync({
  entryPoints: ['plain.mjs', 'react.jsx', 'service.mjs', 'worker.mjs'].map((name) => `pages/${name}`),
  outdir: 'dist/pages',
  outExtension: { '.js': '.mjs' },
  format: 'esm',
  bundle: true,
  jsx: 'automatic',
  // React's own checks are wanted: they are console errors.
  define: { 'process.env.NODE_ENV': '"development"' },
  alias: { 'herald-client': './dist/index.js', 'herald-client/react': './dist/react.js' },
});
