// Fails where the package is larger than it may be, minified and by gzip.

import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

let bad = 0;
for (const [name, most] of [
  ['index.js', 5 * 1024],
  ['react.js', 1024],
]) {
  const file = new URL(`../dist/${name}`, import.meta.url);
  // Without the line that names the source map.
  const text = readFileSync(file, 'utf8').replace(/\n\/\/# sourceMappingURL.*\n?$/, '\n');
  const size = gzipSync(text, { level: 9 }).length;
  console.log(`${name}: ${size} bytes of ${most}`);
  if (size > most) bad = 1;
}
process.exit(bad);
