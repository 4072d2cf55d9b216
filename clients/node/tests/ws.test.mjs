// WebSockets, closed when their session ends: real sockets, real sidecars.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectSocket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { advance } from 'session-sidecar/testing';
import { AGAIN, cookieOf, LATER, OVER, SocketCloser } from 'session-sidecar/ws';
import { WebSocket, WebSocketServer } from 'ws';
import { connect, eventually, MINUTE, NEVER_ISSUED, serve } from './support.mjs';

/** A server whose sockets echo, as long as their session lives. */
async function echo(t, sidecar, options = {}) {
  const closer = new SocketCloser({ sidecar, ...options });
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  const heard = [];
  server.on('connection', (socket, request) => {
    socket.on('message', (data) => {
      heard.push(String(data));
      socket.send(`echo ${data}`);
    });
    closer.add(socket, cookieOf(request.headers, 'sid')).then((answer) => answer?.allowed && socket.send('ready'));
  });
  await once(server, 'listening');
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  return { heard, port: server.address().port };
}

/** How often the sidecar was asked what a session is. */
const checks = (process) => process.metric('rpcs_total{method="Check",code="OK"}');

/** A client that keeps what it is told. */
function open({ port }, sessionId) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`, { headers: sessionId === undefined ? {} : { cookie: `other=1; sid=${sessionId}` } });
  const told = [];
  socket.on('message', (data) => told.push(String(data)));
  const closed = once(socket, 'close').then(([code, reason]) => [code, String(reason)]);
  const says = (text) => eventually(() => told.some((each) => each.includes(text)), text);
  const closes = () => eventually(() => socket.readyState === WebSocket.CLOSED, 'it is closed').then(() => closed);
  return { socket, told, closed, closes, says };
}

test('a socket is closed at the end, with the reason, and nobody asks for it', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const server = await echo(t, sidecar);
  const [one, other, revoked] = await Promise.all([1, 2, 3].map(() => sidecar.create({ subject: 'ada' })));
  const sockets = [one, one, other, revoked].map(({ sessionId }) => open(server, sessionId));
  for (const { says, socket } of sockets) {
    await says('ready');
    socket.send('hello');
    await says('echo hello');
  }
  await eventually(async () => (await checks(process)) === 9, 'two for each socket, and one for all when the watch stands');
  await sidecar.end(revoked.sessionId, { reason: 'REVOKED' });
  assert.deepEqual(await sockets[3].closes(), [OVER, 'REVOKED']);
  assert.equal(await checks(process), 9);
  await sidecar.extend(other.sessionId, { wantedDuration: 60_000 });
  await advance(sidecar, 21_000);
  assert.deepEqual(await Promise.all([sockets[0].closed, sockets[1].closed]), [[OVER, 'IDLE_TIMEOUT'], [OVER, 'IDLE_TIMEOUT']]);
  assert.equal(sockets[2].socket.readyState, WebSocket.OPEN, "another session's stays");
});

test('warnings are sent if that is asked for, and their withdrawal', async (t) => {
  const process = await serve(t, { policy: '[policy.default]\nidle_timeout = "20m"\nabsolute_timeout = "2h"\nwarn_before = ["10m"]\n' });
  const sidecar = connect(t, process.tcp);
  const began = performance.now();
  const { sessionId } = await sidecar.create();
  const silent = open(await echo(t, sidecar), sessionId);
  const warned = open(await echo(t, sidecar, { warn: true }), sessionId);
  const own = open(await echo(t, sidecar, { warn: ({ kind }) => `my ${kind}` }), sessionId);
  for (const { says } of [silent, warned, own]) await says('ready');
  // Each has a watch of its own, which tells of nothing that was before it.
  await eventually(async () => (await process.metric('watchers')) === 3, 'they hear of it');
  await advance(sidecar, 11 * MINUTE);
  const took = (performance.now() - began) / 1000;
  await warned.says('session-warning');
  const { expires_in, ...rest } = JSON.parse(warned.told[1]);
  assert.deepEqual(rest, { type: 'session-warning', limit: 'IDLE', can_extend: true });
  // The clock goes from one warning to the next; what it goes by itself is all that may be missing.
  assert.ok(expires_in > 600 - took && expires_in <= 600, `${expires_in} s, after ${took} s`);
  await sidecar.extend(sessionId);
  await warned.says('session-cleared');
  assert.equal(JSON.parse(warned.told[2]).cause, 'EXTENDED');
  await own.says('my cleared');
  assert.deepEqual(silent.told, ['ready']);
});

test('a session that goes on under a new id takes its sockets along', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const server = await echo(t, sidecar);
  let { sessionId } = await sidecar.create();
  const { socket, closed, says } = open(server, sessionId);
  await says('ready');
  for (let time = 0; time < 3; time += 1) ({ sessionId } = await sidecar.rotate(sessionId));
  socket.send('still here');
  await says('echo still here');
  await sidecar.end(sessionId);
  assert.deepEqual(await closed, [OVER, 'LOGOUT']);
});

test('what is over, unknown, or no session at all does not stay open, and is not heard', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const server = await echo(t, sidecar);
  const { sessionId } = await sidecar.create();
  await sidecar.end(sessionId);
  const { sessionId: live } = await sidecar.create();
  const say = ({ socket, closed }) => {
    socket.on('open', () => socket.send('hear me'));
    return closed;
  };
  assert.deepEqual(await say(open(server, sessionId)), [OVER, 'LOGOUT']);
  assert.deepEqual(await say(open(server, NEVER_ISSUED)), [AGAIN, 'UNKNOWN']);
  assert.deepEqual(await say(open(server)), [OVER, 'SESSION_MISSING']);
  assert.deepEqual(await say(open(server, 'no id')), [OVER, 'SESSION_MISSING']);
  const stranger = connect(t, process.tcp, { tenant: 'somebody-elses' });
  assert.deepEqual(await say(open(await echo(t, stranger), live)), [LATER, 'UNAVAILABLE']);
  assert.match(stranger.logged.join(), /a socket was closed, .*CALLER_NOT_ALLOWED/);
  await process.kill();
  assert.deepEqual(await say(open(server, live)), [LATER, 'UNAVAILABLE']);
  assert.deepEqual(server.heard, []);
  const lenient = open(await echo(t, sidecar.withOptions({ fail: 'open' })), live);
  await lenient.says('ready');
});

test('a restart of the sidecar, which forgets its sessions, closes their sockets', async (t) => {
  const first = await serve(t);
  const sidecar = connect(t, first.tcp);
  const { sessionId } = await sidecar.create();
  const { closed, says, socket } = open(await echo(t, sidecar), sessionId);
  await says('ready');
  await first.kill();
  socket.send('meanwhile');
  await says('echo meanwhile');
  await serve(t, { port: first.port });
  assert.deepEqual(await closed, [AGAIN, 'UNKNOWN']);
});

test('a listener that tells of no whole tenant is asked in its place, twice a second', async (t) => {
  const process = await serve(t, { query: '?verbs=use,issue,end,watch-own' });
  const sidecar = connect(t, process.tcp);
  const server = await echo(t, sidecar);
  const { sessionId } = await sidecar.create();
  const { closes, says } = open(server, sessionId);
  await says('ready');
  const within = async (time) => {
    const before = await checks(process);
    await sleep(time);
    return (await checks(process)) - before;
  };
  await eventually(async () => (await within(1_600)) >= 2, 'it is asked twice a second');
  const rotated = await sidecar.rotate(sessionId);
  await sidecar.end(rotated.sessionId, { reason: 'REVOKED' });
  assert.deepEqual(await closes(), [OVER, 'REVOKED']);
});

test('a client that answers no closing handshake is cut off, and not heard any more', async (t) => {
  const sidecar = connect(t, (await serve(t)).tcp);
  const server = await echo(t, sidecar);
  const { sessionId } = await sidecar.create();
  const socket = connectSocket(server.port, '127.0.0.1');
  const ended = once(socket, 'close');
  let told = '';
  socket.on('error', () => {}).on('data', (data) => { told += data.toString('latin1'); });
  socket.write(`GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nCookie: sid=${sessionId}\r\n\r\n`);
  await eventually(() => told.includes('ready'), 'it is open');
  // A masked text frame, with a mask of zeros.
  const frame = Buffer.concat([Buffer.from([0x81, 0x84, 0, 0, 0, 0]), Buffer.from('more')]);
  socket.write(frame);
  await eventually(() => server.heard.length === 1, 'it is heard');
  await sidecar.end(sessionId);
  await eventually(() => told.includes('LOGOUT'), 'the closing frame came');
  socket.write(frame);
  await ended;
  assert.deepEqual(server.heard, ['more']);
});

test('sockets that are gone leave nothing behind', async (t) => {
  const process = await serve(t);
  const sidecar = connect(t, process.tcp);
  const server = await echo(t, sidecar);
  const { sessionId } = await sidecar.create();
  const sockets = Array.from({ length: 20 }, () => open(server, sessionId));
  for (const { says } of sockets) await says('ready');
  await eventually(async () => (await process.metric('watchers')) === 1, 'one watch serves them all');
  for (const { socket } of sockets) socket.terminate();
  await eventually(async () => (await process.metric('watchers')) === 0, 'it is closed with the last one');
  const again = open(server, sessionId);
  await again.says('ready');
  await sidecar.end(sessionId);
  assert.deepEqual(await again.closed, [OVER, 'LOGOUT']);
});
