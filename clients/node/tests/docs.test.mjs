// The examples of the docs hold when they are run beside a real sidecar; those that serve are asked.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { client, PATIENCE, repository, serve } from './support.mjs';

const examples = ['docs/node.md', 'clients/node/README.md', 'README.md'].flatMap((page) =>
  [...readFileSync(join(repository, page), 'utf8').matchAll(/^```js\n(.*?)^```/gms)].map(([, program], place) => ({ name: `${page} ${place + 1}`, program })));

// Within the package, so that its own name and those of what the examples import beside it are found.
const work = join(client, 'tests/.examples');
before(() => mkdirSync(work, { recursive: true }));
after(() => rmSync(work, { recursive: true }));

async function run(t, name, program) {
  const sidecar = await serve(t, { query: '?verbs=use,issue,end,watch-all,admin' });
  const file = join(work, `${name.replaceAll(/\W/g, '-')}.mjs`);
  writeFileSync(file, program);
  const env = { PATH: process.env.PATH, SESSION_SIDECAR_TARGET: sidecar.uds, SIDECAR_ADMIN_TARGET: sidecar.tcp };
  const child = spawn(process.execPath, [file], { env, timeout: PATIENCE });
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  assert.equal(code, 0, stdout + stderr);
  return stdout;
}

test('there are examples', () => assert.ok(examples.length >= 10));

const SERVED = `
const { once } = await import('node:events');
const cookies = new Map();
async function ask(method, path, body) {
  const cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
  const answer = await fetch('http://127.0.0.1:' + port + path, { method, redirect: 'manual', headers: { cookie }, ...(body && { body: new URLSearchParams(body) }) });
  for (const each of answer.headers.getSetCookie()) cookies.set(...each.match(/^([^=]+)=([^;]*)/).slice(1));
  console.log(method, path, answer.status, await answer.text());
}
`;
const DRIVEN = {
  express: `const server = app.listen(0, '127.0.0.1'); await once(server, 'listening'); const { port } = server.address();
    await ask('GET', '/login'); await ask('POST', '/login', 'user=ada'); await ask('GET', '/account'); await ask('GET', '/report'); await ask('POST', '/logout'); await ask('GET', '/account'); process.exit();`,
  'express-session': `const server = app.listen(0, '127.0.0.1'); await once(server, 'listening'); const { port } = server.address();
    await ask('POST', '/login', 'user=ada'); await ask('GET', '/account'); process.exit();`,
  fastify: `await app.listen({ port: 0, host: '127.0.0.1' }); const { port } = app.server.address();
    await ask('POST', '/login'); await ask('GET', '/account'); await ask('POST', '/logout'); await ask('GET', '/account'); process.exit();`,
  ws: `const { WebSocket } = await import('ws'); server.listen(0, '127.0.0.1'); await once(server, 'listening');
    const sidecar = new Sidecar(); const { sessionId } = await sidecar.create();
    const socket = new WebSocket('ws://127.0.0.1:' + server.address().port, { headers: { cookie: 'sid=' + sessionId } }); await once(socket, 'open');
    socket.send('hello'); console.log(String((await once(socket, 'message'))[0])); await sidecar.end(sessionId); const [code, reason] = await once(socket, 'close'); console.log(code, String(reason)); process.exit();`,
};
const EXPECTED = {
  express: [/GET \/login 200 <form/, /POST \/login 302/, /GET \/account 200 Logged in for/, /GET \/report 200 done/, /POST \/logout 302/, /GET \/account 401 .*SESSION_MISSING/],
  'express-session': [/POST \/login 302/, /GET \/account 404/],
  fastify: [/POST \/login 200 \{"sessionRef":"[\w-]{22}"\}/, /GET \/account 200 \{"expiresIn":\d/, /POST \/logout 200 \{"ended":true\}/, /GET \/account 401/],
  ws: [/^hello$/m, /4401 LOGOUT/],
};
const kindOf = (program) => (program.includes('express-session') ? 'express-session' : ['express', 'fastify', 'ws'].find((kind) => program.includes(`session-sidecar/${kind}'`)));

for (const { name, program } of examples) {
  test(name, async (t) => {
    const kind = kindOf(program);
    const told = await run(t, name, kind ? program + SERVED + DRIVEN[kind] : program);
    for (const expected of kind ? EXPECTED[kind] : []) assert.match(told, expected);
    if (program.includes('switch (answer.kind)')) assert.match(told, /^go on; \d+.* ms are left\n\d+(\.\d+)?\nfalse\n$/);
    if (name.startsWith('README')) assert.match(told, /^true \{\n +kind: 'live',/);
    if (name.includes('node/README')) assert.match(told, /^it lives for \d+(\.\d+)? ms\n\{\n +kind: 'ended',/);
  });
}
