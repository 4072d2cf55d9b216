// When nobody knows: deadlines, the fail policy, and coming back.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer as createHttp2Server } from 'node:http2';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectSocket, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Sidecar, SidecarUnreachableError } from 'session-sidecar';
import { client, connect, eventually, freePort, NEVER_ISSUED, serve } from './support.mjs';

const HASTY = { deadline: 250 };

for (const fail of ['closed', 'open']) {
  test(`the fail policy decides questions, and commands reject: ${fail}`, async (t) => {
    const sidecar = connect(t, `127.0.0.1:${await freePort()}`, { fail });
    const answers = [
      await sidecar.touch(NEVER_ISSUED),
      await sidecar.check(NEVER_ISSUED),
      ...(await sidecar.touchMany([{ sessionId: NEVER_ISSUED }, { sessionId: NEVER_ISSUED }])),
      ...(await sidecar.checkMany([NEVER_ISSUED, { sessionRef: 'A'.repeat(22) }])),
    ];
    assert.equal(answers.length, 6);
    for (const { kind, allowed } of answers) assert.deepEqual([kind, allowed], ['unreachable', fail === 'open']);
    for (const command of [
      () => sidecar.create(), () => sidecar.extend(NEVER_ISSUED), () => sidecar.rotate(NEVER_ISSUED), () => sidecar.end(NEVER_ISSUED),
      () => sidecar.hold(NEVER_ISSUED, 'work', { ttl: 5_000 }), () => sidecar.release(NEVER_ISSUED, 'work'),
    ]) await assert.rejects(command(), SidecarUnreachableError);
  });
}

test('an ended or unknown session is never allowed', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp, { fail: 'open' });
  const { sessionId } = await sidecar.create();
  await sidecar.end(sessionId);
  for (const [id, expected] of [[sessionId, 'ended'], [NEVER_ISSUED, 'unknown']]) {
    for (const { kind, allowed } of [await sidecar.touch(id), await sidecar.check(id)]) assert.deepEqual([kind, allowed], [expected, false]);
  }
});

test('a black hole costs the deadline and no more', async (t) => {
  const sockets = [];
  const hole = createServer((socket) => sockets.push(socket.on('error', () => {}))).listen(0, '127.0.0.1');
  await once(hole, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    hole.close();
  });
  const sidecar = connect(t, `127.0.0.1:${hole.address().port}`, { deadline: undefined });
  const began = performance.now();
  const answer = await sidecar.touch(NEVER_ISSUED);
  const took = performance.now() - began;
  assert.deepEqual([answer.kind, answer.code], ['unreachable', 'DEADLINE_EXCEEDED']);
  assert.ok(took > 200 && took < 5_000, `${took} ms`);
});

test('a sidecar that stands still costs the deadline, and goes on over the same connection', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const { sessionId } = await sidecar.create();
  const answer = await process.standingStill(() => sidecar.withOptions(HASTY).touch(sessionId));
  assert.deepEqual([answer.kind, answer.code, answer.allowed], ['unreachable', 'DEADLINE_EXCEEDED', false]);
  assert.equal((await sidecar.touch(sessionId)).kind, 'live');
});

test('an answer that is there already counts, after the program has kept the event loop busy for longer than the deadline', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const { sessionId } = await sidecar.create();
  let asked;
  await process.standingStill(() => {
    asked = sidecar.withOptions(HASTY).touch(sessionId);
    return eventually(() => waitsToBeRead(process.port) > 0, 'the question is with the sidecar');
  });
  // It answers meanwhile.
  for (const until = performance.now() + 400; performance.now() < until;);
  assert.equal((await asked).kind, 'live');
});

/** How many bytes have come to a port that its program has not read. */
function waitsToBeRead(port) {
  const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1, -1).map((row) => row.trim().split(/\s+/));
  const own = rows.filter(([, local, , state]) => state === '01' && Number.parseInt(local.split(':')[1], 16) === port);
  return own.reduce((sum, [, , , , queues]) => sum + Number.parseInt(queues.split(':')[1], 16), 0);
}

test('a sidecar that comes back is found, and the outage is logged once, without ids', async (t) => {
  const first = await serve(t);
  const sidecar = connect(t, first.tcp);
  const { sessionId } = await sidecar.create();
  await first.kill();
  for (let call = 0; call < 5; call += 1) assert.equal((await sidecar.withOptions(HASTY).touch(sessionId)).kind, 'unreachable');
  await serve(t, { port: first.port });
  const found = await eventually(async () => {
    const answer = await sidecar.touch(sessionId);
    return answer.kind !== 'unreachable' && answer;
  }, 'it is found again');
  assert.equal(found.kind, 'unknown', 'memory is lost with the process');
  assert.equal(sidecar.logged.length, 2);
  assert.match(sidecar.logged[0], /does not answer/);
  assert.match(sidecar.logged[1], /answers again/);
  assert.ok(!sidecar.logged.join().includes(sessionId));
});

test('a restart between two calls is not noticed', async (t) => {
  const first = await serve(t);
  const sidecar = connect(t, first.tcp);
  await sidecar.create();
  await first.kill();
  await serve(t, { port: first.port });
  const { sessionId } = await sidecar.create();
  assert.equal((await sidecar.check(sessionId)).kind, 'live');
  assert.deepEqual(sidecar.logged, []);
});

/** Goes between a client and a sidecar. After `cut()`, the next call is passed on, and its connection is closed before the answer comes. */
async function cutsOff(t, port) {
  let isToCut = false;
  const proxy = createServer((from) => {
    const to = connectSocket(port, '127.0.0.1');
    for (const socket of [from, to]) socket.on('error', () => {});
    to.on('data', (data) => from.write(data));
    from.on('data', (data) => {
      to.write(data);
      if (!isToCut || !beginsACall(data)) return;
      isToCut = false;
      from.destroy();
    });
    from.on('close', () => to.end());
    to.on('close', () => from.destroy());
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  t.after(() => proxy.close());
  return { target: `127.0.0.1:${proxy.address().port}`, cut: () => { isToCut = true; } };
}

/** Whether a HEADERS frame of HTTP/2 is among these; others, such as WINDOW_UPDATE, come at any time. */
function beginsACall(data) {
  for (let place = data.indexOf('PRI * HTTP/2.0') === 0 ? 24 : 0; place + 9 <= data.length; place += 9 + data.readUIntBE(place, 3)) if (data[place + 3] === 1) return true;
  return false;
}

test('a call whose connection is cut is made again, and nothing is done twice by that', async (t) => {
  const process = await serve(t);
  const { target, cut } = await cutsOff(t, process.port);
  const sidecar = connect(t, target);
  const direct = connect(t, process.tcp);
  await sidecar.touch(NEVER_ISSUED);
  cut();
  const { sessionId } = await sidecar.create({ subject: 'ada' });
  const watch = direct.watch({ subject: 'ada' });
  assert.equal((await watch.next()).value.session.subject, 'ada');
  assert.equal((await watch.next()).value.snapshotCount, 1, 'one session began');
  watch.close();
  cut();
  await sidecar.extend(sessionId);
  assert.equal((await direct.check(sessionId)).session.extensions, 1);
  cut();
  assert.ok((await sidecar.end(sessionId, { note: 'over' })).endedNow);
  const work = await sidecar.create();
  await sidecar.hold(work.sessionId, 'work', { ttl: 5_000 });
  cut();
  await assert.rejects(sidecar.release(work.sessionId, 'work'), SidecarUnreachableError, 'a second Release would say that there was none');
});

test('over a Unix socket the :authority is a valid one', async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'sidecar-'));
  t.after(() => rmSync(home, { recursive: true }));
  const asked = [];
  const server = createHttp2Server().on('stream', (stream, headers) => {
    asked.push(headers[':authority']);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '12' }, { endStream: true });
  }).listen(join(home, 'socket'));
  await once(server, 'listening');
  t.after(() => server.close());
  const sidecar = connect(t, `unix:${home}/socket`);
  await assert.rejects(sidecar.touch(NEVER_ISSUED), /UNIMPLEMENTED/);
  sidecar.close();
  assert.deepEqual(asked, ['localhost']);
});

test('the target is what the environment says, and proxies are not for the sidecar', async (t) => {
  const { tcp } = await serve(t);
  const program = "import { Sidecar } from 'session-sidecar'; const s = new Sidecar({ deadline: 20000 }); console.log(s.target, (await s.check('an-id-that-was-never-issued')).kind);";
  const env = { PATH: process.env.PATH, SESSION_SIDECAR_TARGET: `tcp://${tcp}/`, http_proxy: 'http://127.0.0.1:1', grpc_proxy: 'http://127.0.0.1:1' };
  // It ends by itself: an idle connection keeps no program alive.
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { env, cwd: client, timeout: 30_000 });
  assert.equal(stdout, `${tcp} unknown\n`);
  assert.throws(() => new Sidecar({ fail: 'ajar' }), TypeError);
  assert.throws(() => new Sidecar({ deadline: 0 }), TypeError);
});
