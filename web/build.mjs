// Bundles the browser's side into internal/console/dist, which the Go package embeds.
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';

const dist = new URL('../internal/console/dist/', import.meta.url);
const novnc = new URL('node_modules/@novnc/novnc/', import.meta.url);

await mkdir(dist, { recursive: true });
for (const name of await readdir(dist)) {
  if (name !== 'README.md') await rm(new URL(name, dist), { recursive: true });
}
await build({
  entryPoints: ['src/desktop.ts', 'src/steps.ts', 'src/berth.css'],
  absWorkingDir: new URL('.', import.meta.url).pathname,
  outdir: dist.pathname,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  legalComments: 'linked',
  logLevel: 'warning',
});
await copyFile(new URL('LICENSE.txt', novnc), new URL('novnc-LICENSE.txt', dist));
await copyFile(new URL('docs/LICENSE.MPL-2.0', novnc), new URL('MPL-2.0.txt', dist));
await copyFile(new URL('vendor/pako/LICENSE', novnc), new URL('pako-LICENSE.txt', dist));
const des = (await readFile(new URL('core/crypto/des.js', novnc), 'utf8')).match(/^\/\*[^]*?\*\//);
if (!des) throw new Error('core/crypto/des.js does not begin with its licence any more');
await writeFile(new URL('THIRD-PARTY.txt', dist), `desktop.js contains noVNC 1.7.0, under the Mozilla Public License 2.0 (MPL-2.0.txt, novnc-LICENSE.txt). It is unchanged; its source is the
npm package @novnc/novnc 1.7.0, and https://github.com/novnc/noVNC at v1.7.0.
noVNC contains pako, under the MIT and zlib licences (pako-LICENSE.txt). Its core/crypto/des.js says:

${des[0]}
`);
