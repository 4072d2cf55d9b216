// Watches that never give up, against real sidecars.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { NotPermittedError, SidecarUnreachableError } from 'session-sidecar';
import { advance } from 'session-sidecar/testing';
import { connect, eventually, freePort, repository, serve, until } from './support.mjs';

const kinds = (events) => events.map((event) => event.kind);

/** Makes a call until it is done, as long as the sidecar says that it cannot know now: on a busy machine the store may be asked twice. */
const untilAvailable = (call) => eventually(() => call().catch((error) => {
  if (!(error instanceof SidecarUnreachableError && error.answer.code === 'UNAVAILABLE')) throw error;
}), 'it is available');

test('it tells a life', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const { sessionId, session } = await sidecar.create({ subject: 'ada', labels: { app: 'shop' } });
  const watch = sidecar.watch({ subject: 'ada' });
  assert.deepEqual(kinds(await until(watch, 'snapshotEnd')), ['snapshot', 'snapshotEnd']);
  assert.ok(watch.connected && watch.resumeToken);
  await advance(sidecar, 11_000);
  const { value: warning } = await watch.next();
  assert.deepEqual([warning.kind, warning.limit, warning.point, warning.canExtend, warning.session.labels.app], ['warning', 'IDLE', 10_000, true, 'shop']);
  assert.ok(warning.expireTime instanceof Date && warning.emitTime < warning.expireTime && warning.expiresIn > 0);
  await sidecar.extend(sessionId);
  const { value: cleared } = await watch.next();
  assert.deepEqual([cleared.kind, cleared.cause, cleared.session.sessionRef], ['cleared', 'EXTENDED', session.status.sessionRef]);
  await advance(sidecar, 21_000);
  const ended = (await until(watch, 'ended')).at(-1);
  assert.deepEqual([ended.end.reason, ended.end.actor], ['IDLE_TIMEOUT', 'POLICY']);
  assert.deepEqual(await watch.return(), { value: undefined, done: true });
  assert.deepEqual(await watch.next(), { value: undefined, done: true });
});

test('by ids and refs, of some kinds only; the id is there and not shown', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const [one, other] = [await sidecar.create(), await sidecar.create()];
  await sidecar.end(other.sessionId);
  const watch = sidecar.watch({ sessions: [one.sessionId, other.session.status], kinds: ['ENDED'] });
  const told = (await until(watch, 'snapshotEnd')).slice(0, -1);
  const of = (created) => told.find((event) => event.session.sessionRef === created.session.status.sessionRef);
  assert.equal(of(one).session.sessionId, one.sessionId);
  assert.deepEqual([of(other).session.sessionId, of(other).end.reason], ['', 'LOGOUT']);
  assert.ok(!`${inspect(told, { depth: 9 })}${JSON.stringify(told)}`.includes(one.sessionId));
  watch.close();
});

test('leaving the loop, or close from elsewhere, ends it and its stream', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  for await (const event of sidecar.watch({ everything: true })) if (event.kind === 'snapshotEnd') break;
  const watch = sidecar.watch({ everything: true });
  await until(watch, 'snapshotEnd');
  const waiting = watch.next();
  setImmediate(() => watch.close());
  assert.ok((await waiting).done);
  const standing = sidecar.watch({ everything: true });
  await until(standing, 'snapshotEnd');
  await eventually(async () => (await process.metric('watchers')) === 1, 'one stands');
  standing.close();
  const away = connect(t, `127.0.0.1:${await freePort()}`).watch({ everything: true });
  setTimeout(() => away.close(), 300);
  assert.ok((await away.next()).done);
  await eventually(async () => (await process.metric('watchers')) === 0, 'the streams are closed');
});

test('mistakes are errors', async (t) => {
  const { tcp } = await serve(t);
  await assert.rejects(connect(t, tcp, { tenant: 'somebody-elses' }).watch({ wholeTenant: true }).next(), NotPermittedError);
});

test('draining is passed on, and the watch goes on at the next sidecar', async (t) => {
  const first = await serve(t);
  const watch = connect(t, first.tcp).watch({ everything: true });
  await until(watch, 'snapshotEnd');
  const [told] = await Promise.all([until(watch, 'draining'), first.stop()]);
  assert.deepEqual(kinds(told), ['draining']);
  await serve(t, { port: first.port });
  assert.deepEqual(kinds(await until(watch, 'snapshotEnd')), ['beginAnew', 'snapshotEnd'], 'memory does not survive a restart, and that is told');
  watch.close();
});

test('kill -9 and restart in memory: OUT_OF_RANGE begins anew, with the initial state', async (t) => {
  const first = await serve(t);
  const sidecar = connect(t, first.tcp);
  const watch = sidecar.watch({ subject: 'ada' });
  await until(watch, 'snapshotEnd');
  await sidecar.create({ subject: 'ada' });
  await first.kill();
  await serve(t, { port: first.port });
  const anew = await until(watch, 'snapshotEnd');
  assert.deepEqual(anew[0], { kind: 'beginAnew', reason: 'RESUME_TOKEN_EXPIRED' });
  assert.equal(anew.at(-1).snapshotCount, 0);
  const { sessionId, session } = await sidecar.create({ subject: 'ada' });
  await sidecar.end(sessionId);
  assert.equal((await until(watch, 'ended')).at(-1).session.sessionRef, session.status.sessionRef);
  watch.close();
  assert.ok(sidecar.logged.some((message) => /a watch was cut off/.test(message)));
});

test('a silent sidecar is left after three heartbeats, and what it says when it goes on is not lost', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const watch = sidecar.watch({ subject: 'ada', heartbeatInterval: 1_000 });
  await until(watch, 'snapshotEnd');
  const heard = until(watch, 'ended');
  await process.standingStill(() => eventually(() => !watch.connected, 'the silence is noticed'));
  const { sessionId } = await sidecar.create({ subject: 'ada' });
  await sidecar.end(sessionId);
  assert.deepEqual(kinds(await heard), ['ended']);
  watch.close();
});

test('kill -9 and restart over a store resumes without a gap', async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'sidecar-'));
  writeFileSync(join(home, 'key'), Buffer.alloc(32, 7), { mode: 0o600 });
  const port = await freePort();
  const redis = spawn(join(repository, '.tools/bin/redis-server'), ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', home]);
  t.after(() => {
    redis.kill('SIGKILL');
    rmSync(home, { recursive: true });
  });
  let output = '';
  redis.stdout.on('data', (data) => { output += data; });
  await eventually(() => output.includes('Ready to accept'), 'Redis is ready');
  const args = ['--store', `redis://127.0.0.1:${port}`, '--store-key-file', join(home, 'key')];
  const [first, second] = [await serve(t, { args }), await serve(t, { args })];
  const elsewhere = connect(t, second.tcp);
  const watch = connect(t, first.tcp).watch({ subject: 'ada' });
  const created = [];
  for (let each = 0; each < 6; each += 1) created.push(await untilAvailable(() => elsewhere.create({ subject: 'ada', requestId: `session-number-${each}-` })));
  const end = ({ sessionId }) => untilAvailable(() => elsewhere.end(sessionId));
  await until(watch, 'snapshotEnd');
  await end(created[0]);
  await until(watch, 'ended');
  await first.kill();
  for (const each of created.slice(1, 5)) await end(each);
  await serve(t, { args, port: first.port });
  await end(created[5]);
  const heard = [];
  while (heard.length < 5) heard.push((await watch.next()).value);
  assert.deepEqual(new Set(kinds(heard)), new Set(['ended']));
  const refs = (all) => all.map(({ session }) => session.sessionRef ?? session.status.sessionRef).sort();
  assert.deepEqual(refs(heard), refs(created.slice(1)), 'each once, none missing');
  watch.close();
});

test('a token goes on in another process of the application', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const before = sidecar.watch({ subject: 'ada' });
  await until(before, 'snapshotEnd');
  before.close();
  const { sessionId } = await sidecar.create({ subject: 'ada' });
  await sidecar.end(sessionId);
  const watch = sidecar.watch({ subject: 'ada', resumeToken: before.resumeToken });
  assert.equal((await watch.next()).value.kind, 'ended');
  watch.close();
  const garbled = sidecar.watch({ subject: 'ada', resumeToken: 'garbled' });
  assert.deepEqual(kinds(await until(garbled, 'snapshotEnd')), ['beginAnew', 'snapshotEnd']);
  garbled.close();
});
