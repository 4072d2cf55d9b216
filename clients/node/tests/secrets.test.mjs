// g15: a session id is in nothing that is shown by accident, no message, no log line and no error.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { SidecarError } from 'session-sidecar';
import { connect, freePort, NEVER_ISSUED, serve, until } from './support.mjs';

const shown = (thing) => `${inspect(thing, { depth: 20 })} ${JSON.stringify(thing)} ${String(thing)} ${JSON.stringify({ ...thing })} ${thing instanceof Error ? `${thing.stack} ${inspect(thing.cause)}` : ''}`;

test('g15: what is shown and logged has refs and no ids', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const created = await sidecar.create({ subject: 'ada' });
  const rotated = await sidecar.rotate(created.sessionId);
  const ids = [created.sessionId, rotated.sessionId, NEVER_ISSUED];
  const watch = sidecar.watch({ sessions: [rotated.sessionId] });
  const told = [created, rotated, sidecar, watch, ...(await until(watch, 'snapshotEnd'))];
  assert.equal(told[4].session.sessionId, rotated.sessionId);
  watch.close();
  await sidecar.holding(rotated.sessionId, {}, (hold) => told.push(hold));
  const away = connect(t, `127.0.0.1:${await freePort()}`);
  const garbled = ids.map((id) => `${id}\udcff`);
  const calls = [
    (id) => sidecar.touch(id), (id) => sidecar.check(id), (id) => sidecar.touchMany([{ sessionId: id }]), (id) => sidecar.checkMany([id]),
    (id) => sidecar.extend(id, { wantedDuration: -1 }), (id) => sidecar.hold(id, 'work', { ttl: -1 }), (id) => sidecar.create({ sessionId: id }),
    (id) => sidecar.withOptions({ tenant: 'other' }).touch(id), (id) => away.touch(id), (id) => away.end(id), (id) => sidecar.end(id),
    (id) => sidecar.release(id, 'work'), async (id) => sidecar.watch({ sessions: [id] }).close(), (id) => sidecar.touch([id]),
    (id) => sidecar.touch(id, { activity: id }), (id) => sidecar.hold(id, 'work', { ttl: id }),
  ];
  let failures = 0;
  for (const call of calls) {
    for (const id of [...ids, ...garbled]) {
      try {
        told.push(await call(id));
      } catch (error) {
        assert.ok(error instanceof SidecarError || error instanceof TypeError, String(error));
        failures += 1;
        told.push(error);
      }
    }
  }
  assert.ok(failures > 50, String(failures));
  const everything = [...told.map(shown), ...sidecar.logged, ...away.logged].join('\n');
  assert.ok(everything.includes(created.session.status.sessionRef), 'the ref is what is shown');
  for (const id of ids) assert.ok(!everything.includes(id));
});
