// The package as it is published: generated code that is up to date, types that hold, all of it and no more.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, after, test } from 'node:test';
import { client } from './support.mjs';

const list = (folder) => readdirSync(folder, { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => join(each.parentPath ?? each.path, each.name).slice(folder.length + 1)).sort();
const read = (folder) => Object.fromEntries(list(folder).map((file) => [file, readFileSync(join(folder, file), 'utf8')]));
const own = JSON.parse(readFileSync(join(client, 'package.json'), 'utf8'));

let work;
let installed;
before(() => {
  work = mkdtempSync(join(tmpdir(), 'sidecar-'));
  installed = join(work, 'node_modules/session-sidecar');
  const [{ filename }] = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', work], { cwd: client, encoding: 'utf8' }));
  mkdirSync(installed, { recursive: true });
  execFileSync('tar', ['-xzf', join(work, filename), '-C', installed, '--strip-components', '1']);
  // What a user gets with it: its dependencies, and theirs, and nothing else.
  for (const name of closure(Object.keys(own.dependencies))) provide(name);
});
after(() => rmSync(work, { recursive: true }));

function closure(names, known = new Set()) {
  for (const name of names.filter((each) => !known.has(each))) {
    known.add(name);
    closure(Object.keys(JSON.parse(readFileSync(join(client, 'node_modules', name, 'package.json'), 'utf8')).dependencies ?? {}), known);
  }
  return known;
}

function provide(name) {
  mkdirSync(join(work, 'node_modules', name, '..'), { recursive: true });
  symlinkSync(join(client, 'node_modules', name), join(work, 'node_modules', name));
}

function compile(file, ...more) {
  const options = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', '--moduleResolution', 'nodenext', '--types', 'node', '--typeRoots', join(work, 'node_modules/@types')];
  return spawnSync(process.execPath, [join(client, 'node_modules/typescript/bin/tsc'), ...options, ...more, file], { cwd: work, encoding: 'utf8' });
}

test('the generated code is that of the .proto files', () => {
  const made = mkdtempSync(join(work, 'made-'));
  execFileSync(process.execPath, [join(client, 'generate.mjs'), made], { stdio: ['ignore', 'ignore', 'inherit'] });
  assert.deepEqual(read(made), read(join(client, 'src/proto')), 'run clients/node/generate.mjs');
});

test('it has all of what was compiled, its page, and nothing else', () => {
  const compiled = list(join(client, 'src')).flatMap((file) => [`dist/${file.replace('.ts', '.js')}`, `dist/${file.replace('.ts', '.d.ts')}`]);
  assert.deepEqual(list(installed), ['README.md', 'package.json', ...compiled].sort());
});

test('every way in can be gone with what it needs, and no framework', () => {
  const ways = Object.keys(own.exports).filter((each) => !each.endsWith('.json')).map((each) => `session-sidecar${each.slice(1)}`);
  assert.equal(ways.length, 6);
  writeFileSync(join(work, 'program.mjs'), `for (const way of ${JSON.stringify(ways)}) console.log(way, Object.keys(await import(way)).sort().join());\nconst { Sidecar } = await import('session-sidecar');\nconsole.log(new Sidecar({ target: '127.0.0.1:1' }));`);
  const told = execFileSync(process.execPath, ['program.mjs'], { cwd: work, encoding: 'utf8' });
  assert.match(told, /^session-sidecar InvalidRequestError,NotPermittedError,RefusedError,SessionEndedError,SessionUnknownError,Sidecar,SidecarAdmin,SidecarError,SidecarUnreachableError,hintsOf$/m);
  assert.match(told, /^session-sidecar\/ws AGAIN,LATER,OVER,SocketCloser,cookieOf$/m);
  assert.match(told, /^Sidecar\('127.0.0.1:1', tenant ''\)$/m);
});

test('the types hold for a program, and their words are those of the .proto', () => {
  cpSync(join(client, 'tests/types.ts'), join(work, 'types.mts'));
  const proto = (file) => JSON.stringify([`./node_modules/session-sidecar/dist/proto/sessionsidecar/v1/${file}_pb.d.ts`]);
  const paths = `{"session-sidecar/proto": ${proto('session_service')}, "session-sidecar/proto-admin": ${proto('session_admin_service')}}`;
  writeFileSync(join(work, 'tsconfig.json'), `{"compilerOptions": {"noEmit": true, "strict": true, "target": "es2022", "lib": ["es2023"], "module": "nodenext", "types": ["node"], "paths": ${paths}}, "files": ["types.mts"]}`);
  // The package's own types are checked, too: nobody needs skipLibCheck for it.
  const { stdout, status } = spawnSync(process.execPath, [join(client, 'node_modules/typescript/bin/tsc'), '-p', work], { cwd: work, encoding: 'utf8' });
  assert.equal(status, 0, stdout);
});

test('the middleware is well typed to its frameworks', () => {
  for (const name of readdirSync(join(client, 'node_modules')).filter((each) => !each.startsWith('.') && each !== 'session-sidecar')) {
    const scoped = name.startsWith('@') ? readdirSync(join(client, 'node_modules', name)).map((each) => `${name}/${each}`) : [name];
    for (const each of scoped) try { provide(each); } catch (error) { if (error.code !== 'EEXIST') throw error; }
  }
  writeFileSync(join(work, 'web.mts'), `
import express from 'express';
import Fastify from 'fastify';
import { Sidecar, type Live } from 'session-sidecar';
import { sidecarSessions } from 'session-sidecar/express';
import fastifySessions from 'session-sidecar/fastify';
import { SocketCloser } from 'session-sidecar/ws';
import { WebSocketServer } from 'ws';

const sidecar = new Sidecar();
const sessions = sidecarSessions({ sidecar, cookie: { name: 'sid', secure: false }, onEnded: (over, request, response) => response.redirect(\`/login?reason=\${over.kind}&from=\${request.path}\`) });
const app = express().use(sessions).get('/account', sessions.required, (request, response) => { response.json(request.sidecarSession?.expiresIn); });
app.post('/login', async (request, response) => { const session: Live = await sessions.login(request, response, { subject: 'ada' }); response.json(session.sessionRef); });
// @ts-expect-error whose session it is
app.post('/login', (request, response) => sessions.login(request, response, {}));
const site = Fastify();
await site.register(fastifySessions, { sidecar, cookie: 'sid', onEnded: (over, _request, reply) => reply.code(401).send(over.kind) });
site.get('/account', { onRequest: site.sidecarSessions.required }, async (request) => request.sidecarSession?.expiresIn);
const closer = new SocketCloser({ sidecar, warn: (event) => event.kind });
new WebSocketServer({ noServer: true }).on('connection', (socket) => { closer.add(socket, 'id'); });
`);
  const { stdout, status } = compile('web.mts', '--skipLibCheck');
  assert.equal(status, 0, stdout);
});
