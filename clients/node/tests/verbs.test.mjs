// Every verb, against a real sidecar over either transport and against the fake.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hintsOf, InvalidRequestError, NotPermittedError, RefusedError, SessionEndedError, SessionUnknownError, SidecarAdmin } from 'session-sidecar';
import { advance } from 'session-sidecar/testing';
import { connect, fakeOfDev, NEVER_ISSUED, PATIENCE, serve } from './support.mjs';

const DAY = 86_400_000;

for (const kind of ['tcp', 'uds', 'fake']) {
  describe(kind, () => {
    const either = async (t) => (kind === 'fake' ? fakeOfDev() : connect(t, (await serve(t))[kind]));

    test('a whole life', async (t) => {
      const sidecar = await either(t);
      const created = await sidecar.create({ subject: 'ada', labels: { app: 'shop' }, idleTimeout: 15_000, authenticationLevel: 'aal2' });
      assert.equal(created.sessionId.length, 43);
      const { session } = created;
      assert.deepEqual([session.subject, session.labels, session.authenticationLevel, session.idleTimeout], ['ada', { app: 'shop' }, 'aal2', 15_000]);
      assert.deepEqual([session.status.scope, session.status.limit, session.end], ['MEMORY', 'IDLE', undefined]);
      assert.ok(Math.abs(session.createTime - Date.now()) < DAY);

      const touched = await sidecar.touch(created.sessionId, { activity: 'USER' });
      assert.deepEqual([touched.kind, touched.allowed, touched.counted, touched.result, touched.rule, touched.expiring], ['live', true, true, 'COUNTED', 'declared-user', false]);
      assert.ok(touched.expiresIn > 0 && touched.expiresIn <= 15_000);
      assert.equal((await sidecar.touch(created.sessionId, { activity: 'BACKGROUND' })).result, 'IGNORED');

      await advance(sidecar, 9_000);
      const checked = await sidecar.check(created.sessionId);
      assert.ok(checked.expiring && checked.session.status.state === 'EXPIRING');
      const extended = await sidecar.extend(created.sessionId);
      assert.ok(extended.grantedDuration > 8_000 && extended.clampedBy === undefined);

      const rotated = await sidecar.rotate(created.sessionId, { authenticatedAgo: 0 });
      const { sessionRef } = rotated.session.status;
      assert.deepEqual([rotated.previousEnd.reason, rotated.previousEnd.successorRef], ['ROTATED', sessionRef]);
      const former = await sidecar.touch(created.sessionId);
      assert.deepEqual([former.kind, former.allowed, former.reason, former.successorRef], ['ended', false, 'ROTATED', sessionRef]);

      const ended = await sidecar.end(rotated.sessionId, { reason: 'REVOKED', actorId: 'desk-7', note: 'stolen' });
      assert.deepEqual([ended.endedNow, ended.end.actor], [true, 'ADMIN']);
      assert.equal((await sidecar.end(rotated.sessionId)).endedNow, false);
      const over = await sidecar.touch(rotated.sessionId);
      assert.deepEqual([over.kind, over.reason, over.actor, over.end.actorId, over.end.note, over.allowed], ['ended', 'REVOKED', 'ADMIN', 'desk-7', 'stolen', false]);
      assert.ok(Math.abs(over.endTime - ended.end.endTime) < 10);
      const whole = await sidecar.check({ sessionRef });
      assert.deepEqual([whole.kind, whole.session.end.note], ['ended', 'stolen']);
    });

    test('holds', async (t) => {
      const sidecar = await either(t);
      const { sessionId } = await sidecar.create();
      const held = await sidecar.hold(sessionId, 'report', { ttl: DAY, purpose: 'monthly report' });
      assert.ok(held.created && ['MAX_TTL', 'BUDGET', 'ABSOLUTE'].includes(held.clampedBy) && held.grantedTtl < DAY);
      assert.equal((await sidecar.hold(sessionId, 'report', { ttl: 5_000 })).created, false);
      const [hold] = (await sidecar.check(sessionId)).session.holds;
      assert.deepEqual([hold.holdId, hold.kind, hold.purpose], ['report', 'WORK', 'monthly report']);
      assert.equal((await sidecar.release(sessionId, 'report')).released, true);
      assert.equal((await sidecar.release(sessionId, 'report')).released, false);
    });

    test('many at once have an outcome each', async (t) => {
      const sidecar = await either(t);
      const { sessionId: live } = await sidecar.create();
      const { sessionId: over } = await sidecar.create();
      await sidecar.end(over);
      const touched = await sidecar.touchMany([{ sessionId: live }, { sessionId: over }, { sessionId: 'short' }, { sessionId: NEVER_ISSUED }, { sessionId: live, activity: 'BACKGROUND' }]);
      assert.deepEqual(touched.map((each) => each.kind ?? each.name), ['live', 'ended', 'InvalidRequestError', 'unknown', 'live']);
      assert.deepEqual([touched[1].reason, touched[4].counted], ['LOGOUT', false]);
      const checked = await sidecar.checkMany([over, await sidecar.check(live), NEVER_ISSUED, { sessionRef: 'none' }]);
      assert.deepEqual(checked.map((each) => each.kind ?? each.name), ['ended', 'live', 'unknown', 'InvalidRequestError']);
    });

    test('a session that runs already is adopted, and an id is taken once', async (t) => {
      const sidecar = await either(t);
      const sessionId = 'own-id-of-ada-0123456789';
      const adopted = await sidecar.create({ sessionId, authenticatedAgo: 30_000, idleFor: 5_000 });
      assert.equal(adopted.sessionId, sessionId);
      assert.ok(Math.abs(adopted.session.createTime - adopted.session.authenticationTime - 30_000) <= 1 && adopted.session.status.expiresIn <= 15_000);
      await assert.rejects(sidecar.create({ sessionId }), (error) => error instanceof RefusedError && error.reason === 'SESSION_EXISTS' && error.sessionRef === adopted.session.status.sessionRef);
    });

    test('a request id makes a retry safe', async (t) => {
      const sidecar = await either(t);
      const login = { subject: 'carol', requestId: 'login-of-carol' };
      const first = await sidecar.create(login);
      assert.equal((await sidecar.create(login)).sessionId, first.sessionId);
      await assert.rejects(sidecar.create({ ...login, subject: 'mallory' }), /REQUEST_ID_REUSED/);
      assert.notEqual((await sidecar.create({ subject: 'carol' })).sessionId, first.sessionId);
    });

    test('commands reject with what became of the session', async (t) => {
      const sidecar = await either(t);
      const { sessionId } = await sidecar.create();
      await sidecar.end(sessionId);
      for (const command of [(id) => sidecar.extend(id), (id) => sidecar.rotate(id), (id) => sidecar.hold(id, 'work', { ttl: 5_000 })]) {
        await assert.rejects(command(sessionId), (error) => error instanceof SessionEndedError && error.answer.reason === 'LOGOUT');
        await assert.rejects(command(NEVER_ISSUED), SessionUnknownError);
      }
    });

    test('mistakes are errors, whatever the fail policy', async (t) => {
      const sidecar = (await either(t)).withOptions({ fail: 'open' });
      for (const [call, field] of [
        [() => sidecar.touch('short'), 'session_id'],
        [() => sidecar.touch(''), 'session_id'],
        [() => sidecar.touch('surrogate\udcff-in-the-cookie'), 'session_id'],
        [() => sidecar.create({ sessionId: '' }), 'session_id'],
        [() => sidecar.create({ idleTimeout: DAY }), 'idle_timeout'],
        [() => sidecar.create({ idleTimeout: NaN }), 'idle_timeout'],
        [() => sidecar.checkMany([]), 'sessions'],
        [async () => sidecar.watch({}), 'scope'],
        [() => sidecar.hold(NEVER_ISSUED, 'work', { ttl: 5_000, kind: 'NONE' }), 'kind'],
      ]) await assert.rejects(call(), (error) => error instanceof InvalidRequestError && error.fields.join() === field, String(call));
      for (const call of [() => sidecar.touch(3), () => sidecar.touch({ sessionRef: 'A'.repeat(22) }), () => sidecar.create({ idleTimeout: '15m' }), () => sidecar.touch(NEVER_ISSUED, { hurry: true })]) {
        await assert.rejects(call(), TypeError, String(call));
      }
    });
  });
}

test('another tenant, and what is no sidecar, are not permitted: even a client that fails open does not go on', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp, { tenant: 'somebody-elses', fail: 'open' });
  await assert.rejects(sidecar.touch(NEVER_ISSUED), NotPermittedError);
  assert.equal((await sidecar.withOptions({ tenant: '' }).touch(NEVER_ISSUED)).kind, 'unknown');
  await assert.rejects(connect(t, process.admin, { fail: 'open' }).touch(NEVER_ISSUED), NotPermittedError);
});

test('hints of a request are what the sidecar takes', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const { sessionId } = await sidecar.create();
  const headers = { host: 'shop.example:8000', 'sec-purpose': 'prefetch', 'sec-fetch-dest': 'x'.repeat(65), 'sec-fetch-mode': 'n\xe4vigate' };
  const hints = hintsOf('GET', `/${'a'.repeat(5000)}?q=secret`, headers);
  assert.deepEqual([hints.host, hints.secFetchDest, hints.secFetchMode, hints.path.length], ['shop.example', '', '', 2048]);
  assert.equal((await sidecar.touch(sessionId, { hints })).rule, 'prefetch');
  assert.equal(hintsOf('GET', '/a?q', { host: '[::1]:80' }).host, '[::1]');
});

test('administrators', async (t) => {
  const process = await serve(t, { query: '?verbs=use,issue,end,admin' });
  const sidecar = connect(t, process.tcp);
  const desk = new SidecarAdmin({ target: process.uds });
  t.after(() => desk.close());
  const ids = [];
  for (const device of ['phone', 'laptop', 'laptop']) ids.push((await sidecar.create({ subject: 'vera', labels: { device } })).sessionId);
  const listed = await all(desk.listSessions({ subject: 'vera', pageSize: 2 }));
  assert.equal(new Set(listed.map((session) => session.status.sessionRef)).size, 3);
  assert.equal((await all(desk.listSessions({ labels: { device: 'phone' } }))).length, 1);
  assert.equal((await desk.endSessions({ subject: 'vera', dryRun: true })).matchedCount, 3);
  await sidecar.extend(ids[1]);
  const ended = await desk.endSessions({ subject: 'vera', excepted: [ids[0]], actorId: 'desk-7', note: 'phone was stolen' });
  assert.deepEqual([ended.endedCount, ended.sessionRefs.length], [2, 2]);
  assert.equal((await sidecar.touch(ids[1])).end.note, 'phone was stolen');
  const { explanations: [life], truncated } = await desk.explain(ids[1]);
  assert.deepEqual([life.history.map((entry) => entry.kind), truncated], [['extended', 'ended'], false]);
  assert.ok(life.history[0].grantedDuration >= 0 && life.history[1].end.actorId === 'desk-7' && life.history[0].time instanceof Date);
  assert.equal((await desk.explainSubject('vera', { startTime: new Date(Date.now() - DAY) })).explanations.length, 3);
  await sidecar.hold(ids[0], 'work', { ttl: 5_000, purpose: 'report' });
  const held = (await desk.explain(ids[0])).explanations[0].history.find((entry) => entry.kind === 'holdStarted');
  assert.deepEqual([held.holdKind, held.purpose], ['WORK', 'report']);
  const stats = await desk.stats();
  assert.deepEqual([stats.states.ACTIVE, stats.reasons.REVOKED, stats.workingSessionCount], [1, 2, 1]);
  const { policies: [policy], policyFileProblem } = await desk.listPolicies();
  assert.deepEqual([policy.name, policy.active, policy.idleTimeout, policyFileProblem], ['default', true, 20_000, '']);
  assert.equal(policy.worstCaseDuration, policy.worstCase.reduce((sum, { duration }) => sum + duration, 0));
  for (const [call, field] of [
    [() => all(desk.listSessions({ pageSize: 0 })), 'page_size'],
    [() => all(desk.listSessions({ states: ['NONE'] })), 'states'],
    [() => desk.endSessions({}), 'whole_tenant'],
    [() => desk.explain({ sessionRef: 'none' }), 'session_ref'],
    [() => desk.explainSubject('vera', { startTime: new Date(NaN) }), 'start_time'],
  ]) await assert.rejects(call(), (error) => error instanceof InvalidRequestError && error.fields.join() === field, String(call));
  const stranger = new SidecarAdmin({ target: (await serve(t)).tcp, deadline: PATIENCE });
  t.after(() => stranger.close());
  await assert.rejects(stranger.stats(), NotPermittedError);
});

async function all(pages) {
  const found = [];
  for await (const each of pages) found.push(each);
  return found;
}
