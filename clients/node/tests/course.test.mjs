// What a watch asks for next, and what it makes of what comes, without clock or network.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidRequestError, NotPermittedError } from 'session-sidecar';
import { failure } from '../dist/errors.js';
import { WatchExpiryRequestSchema, WatchExpiryResponseSchema } from '../dist/proto/sessionsidecar/v1/session_service_pb.js';
import { Course, LONGEST_PAUSE } from '../dist/watch.js';
import { message } from '../dist/wire.js';

const LOST = failure('UNAVAILABLE', 'gone');
const course = (request = {}, random = () => 1) => new Course(message(WatchExpiryRequestSchema, { heartbeatInterval: 1_000, ...request }), () => {}, random);
const told = (resumeToken, what) => message(WatchExpiryResponseSchema, { resumeToken, emitTime: new Date(), ...what });
const SNAPSHOT = { snapshot: { session: { sessionRef: 'a' } } };
const GOES_ON = { snapshot: { session: { sessionRef: 'b' }, predecessorRef: 'a' } };
const END = { snapshotEnd: { snapshotCount: 1 } };
const kinds = (events) => events.map((event) => event.kind);

function begun() {
  const watch = course({ includeInitialState: true });
  watch.request();
  watch.heard(told('t1', SNAPSHOT));
  watch.heard(told('t2', END));
  return watch;
}

test('a token within the initial state is not one to go on from', () => {
  const watch = course({ includeInitialState: true });
  watch.request();
  watch.heard(told('t1', SNAPSHOT));
  assert.equal(watch.resumeToken, '');
  assert.deepEqual(watch.broke(LOST, 1)[0], { kind: 'beginAnew', reason: 'INITIAL_STATE_INCOMPLETE' });
  assert.ok(watch.request().includeInitialState);
});

test('it resumes after the last message that came', () => {
  const watch = begun();
  assert.deepEqual([watch.resumeToken, watch.connected], ['t2', true]);
  assert.deepEqual(watch.heard(told('t3', { heartbeat: {} })), []);
  assert.equal(watch.broke(LOST, 1)[0], undefined);
  const { resumeToken, includeInitialState } = watch.request();
  assert.deepEqual([resumeToken, includeInitialState, watch.connected], ['t3', false, false]);
});

for (const [code, reason, fields] of [['OUT_OF_RANGE', 'RESUME_TOKEN_EXPIRED', []], ['INVALID_ARGUMENT', 'RESUME_TOKEN_INVALID', ['resume_token']]]) {
  test(`a token that is of no use begins anew: ${code}`, () => {
    const watch = begun();
    watch.request();
    assert.deepEqual(watch.broke(failure(code, '', code === 'OUT_OF_RANGE' ? reason : '', { fields }), 1)[0], { kind: 'beginAnew', reason });
    const { resumeToken, includeInitialState } = watch.request();
    assert.deepEqual([resumeToken, includeInitialState], ['', true]);
  });
}

for (const first of [[SNAPSHOT], [GOES_ON, SNAPSHOT], [SNAPSHOT, GOES_ON], []]) {
  test(`an initial state that is told again is announced first: ${first.map((each) => (each === GOES_ON ? 'successor' : 'snapshot'))}`, () => {
    const watch = begun();
    watch.broke(LOST, 1);
    watch.request();
    const heard = [...first, END].flatMap((what, place) => watch.heard(told(`u${place}`, what)));
    assert.deepEqual(heard[0], { kind: 'beginAnew', reason: 'INITIAL_STATE_AGAIN' });
    assert.deepEqual(kinds(heard.slice(1)), [...first.map(() => 'snapshot'), 'snapshotEnd']);
    assert.equal(watch.resumeToken, `u${first.length}`);
  });
}

test('where a session went on is no initial state', () => {
  const watch = course({ resumeToken: 't' });
  watch.request();
  assert.deepEqual(watch.heard(told('u1', GOES_ON)), []);
  assert.equal(watch.resumeToken, 't', 'what was not passed on comes again');
  assert.deepEqual(kinds(watch.heard(told('u2', { heartbeat: {} }))), ['snapshot']);
  assert.deepEqual(kinds(watch.heard(told('u3', GOES_ON))), ['snapshot']);
  assert.equal(watch.resumeToken, 'u3');
});

test('pauses grow to ten seconds, are drawn from all up to that, and are short again after a stream that stood', () => {
  const watch = course();
  assert.deepEqual(Array.from({ length: 9 }, () => watch.broke(LOST, 0)[1]), [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
  assert.equal(watch.broke(LOST, 1)[1], 10_000, 'a sidecar that falls over at once is not helped by haste');
  assert.equal(watch.broke(undefined, LONGEST_PAUSE)[1], 100);
  const drawn = Array.from({ length: 50 }, () => course({}, Math.random).broke(LOST, 0)[1]);
  assert.ok(new Set(drawn).size > 40 && drawn.every((pause) => pause >= 0 && pause <= 100));
  assert.equal(course().broke(failure('UNAVAILABLE', 'away', 'STORE_UNAVAILABLE', { retryAfter: 2_000 }), 0)[1], 2_100, 'the sidecar may ask for more time');
});

test('it does not give up, but for mistakes', () => {
  for (const code of ['UNAVAILABLE', 'INTERNAL', 'CANCELLED', 'UNKNOWN', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED', 'ABORTED']) {
    const watch = course();
    for (let time = 0; time < 2_000; time += 1) watch.broke(failure(code, ''), 0);
  }
  assert.throws(() => course().broke(failure('INVALID_ARGUMENT', '', '', { fields: ['scope'] }), 0), InvalidRequestError);
  for (const code of ['PERMISSION_DENIED', 'UNAUTHENTICATED', 'UNIMPLEMENTED']) assert.throws(() => course().broke(failure(code, ''), 0), NotPermittedError);
});

test('a stream that has outlived its token is followed by one with that of now, whose refusal is the last word', () => {
  const watch = begun();
  assert.equal(watch.broke(failure('UNAUTHENTICATED', ''), 1)[0], undefined);
  assert.equal(watch.request().resumeToken, 't2');
  assert.throws(() => watch.broke(failure('UNAUTHENTICATED', ''), 1), NotPermittedError);
});

test('what a newer sidecar says is passed over, or OTHER', () => {
  assert.deepEqual(course().heard(told('t1', {})), []);
  const ended = told('t1', { ended: { session: { sessionRef: 'a' }, end: {} } });
  Object.assign(ended.message.value.end, { reason: 99, actor: 99 });
  const [{ end }] = course().heard(ended);
  assert.deepEqual([end.reason, end.actor], ['OTHER', 'OTHER']);
});
