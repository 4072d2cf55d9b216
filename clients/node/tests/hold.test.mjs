// Holds that renew themselves.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { RefusedError, SessionEndedError, SessionUnknownError, SidecarUnreachableError } from 'session-sidecar';
import { advance } from 'session-sidecar/testing';
import { connect, eventually, freePort, NEVER_ISSUED, serve } from './support.mjs';

const holds = async (sidecar, sessionId) => (await sidecar.check(sessionId)).session.holds;

test('a hold lives as long as its work, and answers what that answers', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const { sessionId } = await sidecar.create();
  const answer = await sidecar.holding(sessionId, { purpose: 'monthly report' }, async (hold) => {
    const [live] = await holds(sidecar, sessionId);
    assert.deepEqual([live.holdId, live.purpose, hold.ended, hold.problem], [hold.holdId, 'monthly report', undefined, undefined]);
    hold.throwIfEnded();
    return 7;
  });
  assert.equal(answer, 7);
  assert.deepEqual(await holds(sidecar, sessionId), []);
  await assert.rejects(sidecar.holding(sessionId, {}, () => { throw new RangeError('the work'); }), RangeError);
  assert.deepEqual(await holds(sidecar, sessionId), [], 'released when its work fails, too');
});

test('it is renewed well before it lapses', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const { sessionId } = await sidecar.create();
  await sidecar.holding(sessionId, { ttl: 6_000 }, async () => {
    const [{ startTime, expireTime }] = await holds(sidecar, sessionId);
    // Two pulses, of which the first comes with 4 s to spare.
    const later = await eventually(async () => (await holds(sidecar, sessionId)).find((hold) => hold.expireTime - expireTime > 3_000), 'it is renewed');
    assert.deepEqual(later.startTime, startTime, 'it never lapsed');
  });
});

test('it keeps a session alive that would have ended', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const { sessionId } = await sidecar.create();
  await sidecar.holding(sessionId, { ttl: 60_000 }, async () => {
    await advance(sidecar, 25_000);
    assert.ok((await sidecar.touch(sessionId)).allowed);
  });
  await advance(sidecar, 21_000);
  assert.equal((await sidecar.touch(sessionId)).reason, 'IDLE_TIMEOUT');
});

test('a session that ends meanwhile is told', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const { sessionId } = await sidecar.create();
  const hold = await sidecar.holding(sessionId, { ttl: 300 }, async (hold) => {
    await sidecar.end(sessionId, { note: 'over' });
    await once(hold.signal, 'abort');
    assert.deepEqual([hold.ended.kind, hold.ended.end.note], ['ended', 'over']);
    assert.throws(() => hold.throwIfEnded(), SessionEndedError);
    return hold;
  });
  assert.equal(hold.ended.reason, 'LOGOUT', 'holding itself rejects with nothing: the work is done');
  const again = await sidecar.create();
  const late = await sidecar.holding(again.sessionId, {}, async (each) => {
    await sidecar.end(again.sessionId);
    return each;
  });
  assert.equal(late.ended.kind, 'ended', 'just before the end of the work, too');
});

test('it begins by rejecting with what a hold rejects with', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const never = () => assert.fail('no work without a hold');
  await assert.rejects(sidecar.holding(NEVER_ISSUED, {}, never), SessionUnknownError);
  const { sessionId } = await sidecar.create();
  await assert.rejects(sidecar.holding(sessionId, { kind: 'PRESENCE' }, never), (error) => error instanceof RefusedError && error.reason === 'PRESENCE_OFF');
});

test('a sidecar that is away stops work only if it fails closed', async (t) => {
  const sidecar = connect(t, `127.0.0.1:${await freePort()}`, { deadline: 250 });
  await assert.rejects(sidecar.holding(NEVER_ISSUED, {}, () => assert.fail()), SidecarUnreachableError);
  const problem = await sidecar.withOptions({ fail: 'open' }).holding(NEVER_ISSUED, {}, (hold) => hold.problem);
  assert.ok(problem instanceof SidecarUnreachableError);
});

test('it goes on when the sidecar is back', async (t) => {
  const first = await serve(t);
  const sidecar = connect(t, first.tcp);
  const { sessionId } = await sidecar.create();
  await sidecar.holding(sessionId, { ttl: 300 }, async (hold) => {
    await first.kill();
    await eventually(() => hold.problem, 'the outage is told');
    assert.equal(hold.ended, undefined);
    await serve(t, { port: first.port });
    // In memory mode the sessions are lost with the process, and the work is told that.
    await eventually(() => hold.ended, 'the end is told');
    assert.equal(hold.ended.kind, 'unknown');
  });
});
