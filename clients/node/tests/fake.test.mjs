// The fake: what the scenario and the comparison with the program do not show.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { InvalidRequestError, NotPermittedError, SessionEndedError } from 'session-sidecar';
import { FakeSidecar } from 'session-sidecar/fake';
import { advance } from 'session-sidecar/testing';
import { parse } from 'smol-toml';
import { glob, span } from '../dist/fake/policy.js';
import { MINUTE, repository, until } from './support.mjs';

const kinds = (events) => events.map((event) => event.kind);

test('its policy is the one that a new user meets', async () => {
  const sidecar = new FakeSidecar();
  const { sessionId } = await sidecar.create({ subject: 'ada' });
  await advance(sidecar, 12.9 * MINUTE);
  assert.equal((await sidecar.check(sessionId)).expiring, false);
  await advance(sidecar, 0.1 * MINUTE);
  const { expiring, expiresIn } = await sidecar.check(sessionId);
  assert.deepEqual([expiring, expiresIn], [true, 2 * MINUTE]);
  await advance(sidecar, 2 * MINUTE);
  assert.equal((await sidecar.touch(sessionId)).reason, 'IDLE_TIMEOUT');
  await advance(sidecar, 24 * 60 * MINUTE);
  assert.equal((await sidecar.touch(sessionId)).kind, 'unknown');
});

test('all happens at its own time, however far the clock goes', async () => {
  const sidecar = new FakeSidecar({ policy: { idle_timeout: 10 * MINUTE, warn_before: ['2m', '1m'], absolute_timeout: '30m' } });
  const { session: { createTime } } = await sidecar.create({ subject: 'ada' });
  const watch = sidecar.watch({ subject: 'ada', initialState: false });
  assert.deepEqual(kinds(await watch.told()), ['snapshotEnd']);
  await sidecar.advance(48 * 60 * MINUTE);
  const told = (await watch.told()).map(({ kind, emitTime }) => [kind, (emitTime - createTime) / MINUTE]);
  assert.deepEqual(told, [['warning', 8], ['warning', 9], ['ended', 10]]);
  await assert.rejects(sidecar.advance(-1), /only goes forward/);
});

test('policies of a file', async () => {
  const { policy: policies } = parse(readFileSync(join(repository, 'tests/conformance/policy.toml'), 'utf8'));
  const sidecar = new FakeSidecar({ policies });
  assert.equal((await sidecar.create({ policy: 'shift' })).session.absoluteTimeout, 30 * MINUTE);
  const { session: wall } = await sidecar.create({ policy: 'wall' });
  assert.deepEqual([wall.status.readOnly, wall.idleTimeout], [true, undefined]);
  const preset = new FakeSidecar({ policy: { preset: 'owasp-high-value', min_id_length: 16 } });
  const { session } = await preset.create({ subject: 'ada' });
  assert.deepEqual([session.idleTimeout, session.absoluteTimeout], [5 * MINUTE, 240 * MINUTE]);
});

test('keys of a policy that are no keys are refused', () => {
  for (const [policy, problem] of [
    [{ idle_timout: '15m' }, /no key idle_timout/],
    [{ idle_timeout: '15 minuets' }, /idle_timeout must be/],
    [{ idle_timeout: '1d' }, /at most absolute_timeout/],
    [{ idle_timeout: '15m', passive: true }, /passive/],
    [{ preset: 'nist' }, /no preset nist/],
    [{ work_hold: { budgt: '1m' } }, /work_hold must be/],
    [{ rules: [{ name: 'a', verdict: 'count', pth: '/' }] }, /a rule has/],
  ]) assert.throws(() => new FakeSidecar({ policy }), (error) => error instanceof TypeError && problem.test(error.message), String(problem));
  assert.throws(() => new FakeSidecar({ policy: { revision: 1 }, policies: {} }), TypeError);
});

test('durations and globs are written as in a policy file', () => {
  for (const [text, minutes] of [['90s', 1.5], ['1h 30m', 90], ['1h30m', 90], ['2days', 2880], ['500ms', 1 / 120], ['1w', 10_080]]) assert.equal(span('key', text), minutes * MINUTE);
  for (const [pattern, matched, others] of [
    ['/api/*/poll', ['/api/a/poll'], ['/api/a/b/poll', '/api/poll', '/x/api/a/poll']],
    ['/app/**', ['/app/', '/app/a', '/app/a/b'], ['/app', '/apple']],
    ['/**/beat', ['/beat', '/a/beat', '/a/b/beat'], ['beat', '/a/heartbeat']],
    ['**', ['/', '/a/b', 'a'], []],
    ['/{shop,blog}/?', ['/shop/a', '/blog/b'], ['/shop/', '/shop/ab', '/wiki/a']],
    ['/[a-c]x[!0-9]', ['/axz', '/bxy'], ['/dxz', '/ax1', '/ax/']],
    ['/a.b+c', ['/a.b+c'], ['/aXb+c', '/a.bbc']],
    ['*.example.com', ['a.example.com'], ['example.com']],
  ]) assert.deepEqual([...matched, ...others].filter((text) => glob([pattern]).test(text)), matched, pattern);
});

test("a hold is renewed by the fake's clock", async () => {
  const sidecar = new FakeSidecar({ policy: { idle_timeout: '15m', work_hold: { budget: '3h' } } });
  const { sessionId } = await sidecar.create();
  await sidecar.holding(sessionId, { purpose: 'report' }, async (hold) => {
    await sidecar.advance(120 * MINUTE);
    assert.ok((await sidecar.touch(sessionId, { activity: 'BACKGROUND' })).allowed && !hold.ended);
    await sidecar.end(sessionId);
    await sidecar.advance(MINUTE);
    assert.deepEqual([hold.ended.reason, hold.signal.aborted], ['LOGOUT', true]);
    assert.throws(() => hold.throwIfEnded(), SessionEndedError);
  });
});

test('release of the last hold ends a session whose browser is long gone', async () => {
  const sidecar = new FakeSidecar({ policy: { idle_timeout: '15m', presence: { lost_grace: '1m' } } });
  const { sessionId } = await sidecar.create();
  await sidecar.hold(sessionId, 'tab', { kind: 'PRESENCE', ttl: MINUTE });
  await sidecar.hold(sessionId, 'work', { ttl: 5 * MINUTE });
  await sidecar.advance(4 * MINUTE);
  assert.ok((await sidecar.release(sessionId, 'work')).released);
  assert.equal((await sidecar.touch(sessionId)).reason, 'BROWSER_CLOSED');
});

test('a watch waits as a real one does, and goes on from its token, but not from that of another fake', async () => {
  const sidecar = new FakeSidecar();
  const { sessionId } = await sidecar.create();
  const watch = sidecar.watch({ everything: true });
  const ended = until(watch, 'ended');
  setImmediate(() => sidecar.end(sessionId));
  assert.deepEqual(kinds(await ended), ['snapshot', 'snapshotEnd', 'ended']);
  const waiting = watch.next();
  watch.close();
  assert.ok((await waiting).done);

  const first = sidecar.watch({ wholeTenant: true });
  assert.deepEqual(kinds(await first.told()), ['snapshotEnd']);
  first.close();
  await sidecar.end((await sidecar.create()).sessionId);
  const { resumeToken } = first;
  assert.deepEqual(kinds(await sidecar.watch({ wholeTenant: true, resumeToken }).told()), ['ended']);
  const anew = await new FakeSidecar().watch({ wholeTenant: true, resumeToken }).told();
  assert.deepEqual([anew[0], anew[1].kind], [{ kind: 'beginAnew', reason: 'RESUME_TOKEN_EXPIRED' }, 'snapshotEnd']);
  await assert.rejects(sidecar.watch({ wholeTenant: true, heartbeatInterval: 0 }).told(), InvalidRequestError);
  const other = sidecar.watch({ everything: true });
  await other.told();
  sidecar.drain();
  assert.deepEqual(kinds(await other.told()), ['draining']);
  assert.deepEqual(await other.told(), []);
});

test('administrators, tenants, and what is not there', async () => {
  const sidecar = new FakeSidecar({ tenants: ['', 'shop'] });
  const ids = [];
  for (let each = 0; each < 3; each += 1) ids.push((await sidecar.create({ subject: 'vera' })).sessionId);
  const desk = sidecar.admin();
  const listed = [];
  for await (const session of desk.listSessions({ subject: 'vera', pageSize: 2 })) listed.push(session);
  assert.equal(listed.length, 3);
  assert.equal((await desk.endSessions({ subject: 'vera', excepted: [ids[0]], note: 'stolen' })).endedCount, 2);
  assert.deepEqual([(await sidecar.touch(ids[1])).end.note, (await sidecar.touch(ids[0])).allowed], ['stolen', true]);
  await assert.rejects(desk.explain(ids[0]), (error) => error instanceof NotPermittedError && /keeps no histories/.test(error.message));
  const shop = sidecar.withOptions({ tenant: 'shop' });
  assert.equal((await shop.check(listed[0].status)).kind, 'unknown');
  await assert.rejects(sidecar.withOptions({ tenant: 'blog' }).create(), NotPermittedError);
});

test('no id is shown or kept', async () => {
  const sidecar = new FakeSidecar();
  const { sessionId } = await sidecar.create({ subject: 'ada' });
  await sidecar.extend(sessionId, { requestId: 'stay-1' });
  const { session } = await sidecar.rotate(sessionId, { requestId: 'rotation-1' });
  const { server } = sidecar;
  const kept = inspect([server.refs().map((ref) => server.find(ref)), server.log, sidecar], { depth: 20, showHidden: true });
  assert.ok(kept.includes(session.status.sessionRef) && !kept.includes(sessionId));
});
