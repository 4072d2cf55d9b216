// What is published: small, typed, and nothing that does not belong there.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { repository } from './site.mjs';

const client = join(repository, 'clients/browser');

test('it is 8 kB at most, compressed, and needs nothing else', () => {
  const module = readFileSync(join(client, 'session-sidecar.js'));
  const size = gzipSync(module, { level: 9 }).length;
  assert.ok(size <= 8000, `${size} bytes`);
  assert.doesNotMatch(module.toString(), /^import |\beval\b|innerHTML|new Function/m);
});

test('its types say what it has', () => {
  const options = ['--noEmit', '--strict', '--target', 'esnext', '--module', 'nodenext', '--moduleResolution', 'nodenext'];
  execFileSync(join(import.meta.dirname, 'node_modules/.bin/tsc'), [...options, join(import.meta.dirname, 'types.ts')], { stdio: 'inherit' });
});

test('every public name of the module is in its types, and no other', async () => {
  const module = readFileSync(join(client, 'session-sidecar.js'), 'utf8');
  const types = readFileSync(join(client, 'session-sidecar.d.ts'), 'utf8');
  const session = (text, begin, end) => text.slice(text.indexOf(begin), text.indexOf(end, text.indexOf(begin)));
  const names = (text) => new Set([...text.matchAll(/^  (?:get |async |readonly )*([a-z]\w*)(?:\??[(:]| = |\?:)/gm)].map(([, name]) => name));
  const made = names(session(module, 'export class Session ', '\n}\n'));
  const told = names(session(types, 'export class Session ', '\n}\n'));
  for (const inherited of ['constructor', 'addEventListener']) { made.delete(inherited); told.delete(inherited); }
  assert.deepEqual([...told].sort(), [...made].sort());
});

test('the package has the module, its types and its page, and nothing else', () => {
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json'], { cwd: client, encoding: 'utf8' }));
  assert.deepEqual(files.map((file) => file.path).sort(), ['README.md', 'package.json', 'session-sidecar.d.ts', 'session-sidecar.js']);
});
