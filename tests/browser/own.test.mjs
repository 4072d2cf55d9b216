// The example gateway of docs/gateway.md: that the page shows it as it is, what gateway.test.mjs cannot ask of all gateways, and what is
// open when a session ends, the part that no question before a request can do.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import * as http from 'node:http';
import * as net from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Connections } from '../../examples/gateway/connections.mjs';
import { freePort } from '../support/process.mjs';
import { Site, repository } from './site.mjs';

const read = (path) => readFileSync(join(repository, path), 'utf8');

test('the page shows the example word by word', () => {
  const files = readdirSync(join(repository, 'examples/gateway')).filter((name) => /\.(mjs|env)$/.test(name));
  const example = files.map((name) => read(`examples/gateway/${name}`));
  const blocks = [...read('docs/gateway.md').matchAll(/^```\w*\n(.*?)^```$/gms)].map(([, block]) => block);
  assert.ok(blocks.length >= 10);
  for (const block of blocks) assert.ok(example.some((text) => text.includes(block)), block);
});

test('it needs what the other tests of Node need', () => {
  const of = (path) => JSON.parse(read(path)).dependencies;
  assert.deepEqual(of('examples/gateway/package.json'), of('tests/conformance/package.json'));
});

test('an end that overtakes the answer of the touch is not lost', () => {
  const connections = new Connections({ watch: () => {} });
  connections.ended('ref', { reason: 'REVOKED' });
  let closed = false;
  connections.add({ ref: 'ref', subject: 'ada' }, { lasts: true, close: () => { closed = true; } });
  assert.ok(closed);
});

/** An application whose answers last: it remembers whom it is connected with, and speaks when the test does. */
function lasting(site) {
  site.beyond = new Map(); // by the name of a connection
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://site');
    if (pathname === '/login.html') return response.end('log in');
    site.beyond.set(searchParams.get('name'), response);
    if (pathname === '/events') response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders();
  });
  site.upgrades = [];
  server.on('upgrade', (request, socket) => {
    site.upgrades.push(request);
    socket.on('error', () => {}).on('end', () => socket.end()).resume();
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    site.beyond.set(new URL(request.url, 'http://site').searchParams.get('name'), socket);
  });
  server.listen(site.app, '127.0.0.1');
  const stop = () => {
    server.close();
    for (const connection of site.beyond.values()) connection.destroy();
    server.closeAllConnections();
  };
  return { login: '/login.html', stop };
}

/** A connection of a browser, as far as it has come. */
class Connection {
  static #count = 0;

  constructor(site, path, id, headers = {}) {
    this.site = site;
    this.name = `connection-${++Connection.#count}`;
    const all = { Host: `localhost:${site.web}`, Cookie: `sid=${id}`, 'Sec-Fetch-Mode': 'cors', ...headers };
    this.request = http.request({ port: site.web, path: `${path}?name=${this.name}`, headers: all, agent: false }).end();
    // A request that is cut off before its answer fails.
    this.closed = new Promise((resolve) => {
      const over = () => resolve('closed');
      this.request.on('error', over);
      this.request.on('response', (response) => response.on('close', over).on('error', over));
      this.request.on('upgrade', (response, socket) => socket.on('close', over).on('error', over));
    });
  }

  static async events(site, id) {
    const connection = new Connection(site, '/events', id);
    [connection.answer] = await once(connection.request, 'response');
    assert.equal(connection.answer.statusCode, 200);
    connection.stream = connection.answer;
    return connection;
  }

  static async socket(site, id) {
    const connection = new Connection(site, '/socket', id, { Connection: 'Upgrade', Upgrade: 'websocket' });
    [, connection.stream] = await once(connection.request, 'upgrade');
    return connection;
  }

  /** A request that the application has, and has not answered. */
  static async poll(site, id) {
    const connection = new Connection(site, '/poll', id);
    while (!connection.beyond) await new Promise(setImmediate);
    return connection;
  }

  get beyond() {
    return this.site.beyond.get(this.name);
  }

  /** The application speaks, and is heard: it is open still. */
  async isOpen() {
    this.beyond.write('hello');
    const [said] = await Promise.race([once(this.stream, 'data'), this.closed.then((closed) => [closed])]);
    assert.equal(String(said), 'hello');
  }
}

describe('what is open through the example gateway', () => {
  let site;
  before(async () => { site = await Site.start({ gateway: 'own', application: lasting }); });
  after(async () => { await site.stop(); });
  const login = (subject = 'ada') => site.run('create', '--subject', subject);
  const end = (id, reason = 'revoked') => site.run('end', '--id-file', site.remember(id), '--reason', reason);
  const rotate = (id, ...options) => site.run('rotate', '--id-file', site.remember(id), ...options);

  test('who is refused is told why, in the way that they can read', async () => {
    const id = login();
    end(id);
    const form = http.request({ port: site.web, path: '/form', method: 'POST', headers: { Cookie: `sid=${id}`, 'Sec-Fetch-Mode': 'navigate' } }).end('a=b');
    const [sent] = await once(form, 'response');
    assert.deepEqual([sent.statusCode, sent.headers.location], [303, '/login.html?reason=REVOKED']);
    const [told] = await once(new Connection(site, '/events', id).request, 'response');
    const { session_ref: ref, ...rest } = JSON.parse((await once(told, 'data'))[0]);
    assert.deepEqual(rest, { error: 'SESSION_ENDED', end: { reason: 'REVOKED' }, login_url: '/login.html' });
    assert.match(ref, /^[\w-]{22}$/);
    const [missing] = await once(http.get({ port: site.web, path: '//evil.example', headers: { 'Sec-Fetch-Mode': 'navigate' } }), 'response');
    assert.deepEqual([missing.statusCode, missing.headers.location], [302, '/login.html']);
  });

  test('the browser is told how long its session lasts', async () => {
    const events = await Connection.events(site, login());
    assert.match(events.answer.headers['x-session-expires-in'], /^(900|899)\.\d{3}$/);
    events.request.destroy();
  });

  test('nobody waits for a sidecar that hangs', async (t) => {
    const own = await Site.start({ gateway: 'own', application: lasting, patient: false, browser: false });
    t.after(() => own.stop());
    const id = own.run('create');
    const [response] = await own.standingStill(() => once(new Connection(own, '/events', id).request, 'response'));
    assert.deepEqual([response.statusCode, response.headers['retry-after'], response.headers['set-cookie']], [503, '1', undefined]);
  });

  for (const kind of ['events', 'socket']) {
    test(`${kind}: closed when the session is revoked, on both sides; not when another one is`, async () => {
      const [id, other] = [login(), login('grace')];
      const [first, second] = [await Connection[kind](site, id), await Connection[kind](site, other)];
      await first.isOpen();
      end(id);
      const gone = once(first.beyond, 'close');
      await first.closed;
      await gone;
      await second.isOpen();
      end(other);
      await second.closed;
    });
  }

  test('nothing but a WebSocket is an upgrade, and no body comes before it', async () => {
    const id = login();
    const h2c = new Connection(site, '/socket', id, { Connection: 'Upgrade', Upgrade: 'h2c' });
    const [refused] = await once(h2c.request, 'response');
    assert.deepEqual([refused.statusCode, h2c.beyond], [501, undefined]);
    const stranger = new Connection(site, '/socket', 'x'.repeat(40), { Connection: 'Upgrade', Upgrade: 'websocket' });
    const [unknown] = await once(stranger.request, 'response');
    assert.deepEqual([unknown.statusCode, stranger.beyond], [401, undefined]);
    const withBody = new Connection(site, '/socket', id, { Connection: 'Upgrade', Upgrade: 'websocket', 'Content-Length': '0' });
    [, withBody.stream] = await once(withBody.request, 'upgrade');
    assert.equal(site.upgrades.at(-1).headers['content-length'], undefined);
    await withBody.isOpen();
    end(id);
    await withBody.closed;
  });

  test('closed when time ends the session, which no request finds out', async () => {
    const socket = await Connection.socket(site, login());
    site.pass('16m');
    await socket.closed;
  });

  test('the answer that tells of the logout gets through; a long poll ends some seconds later', async () => {
    const id = login();
    const [events, logout, poll] = [await Connection.events(site, id), await Connection.poll(site, id), await Connection.poll(site, id)];
    end(id, 'logout');
    await events.closed;
    logout.beyond.end('you are logged out');
    const [response] = await once(logout.request, 'response');
    assert.equal(response.statusCode, 200);
    assert.equal(String((await once(response, 'data'))[0]), 'you are logged out');
    await poll.closed;
  });

  test('a new id ends nothing: what is open ends with the session that goes on', async () => {
    const id = login();
    const [socket, marker] = [await Connection.socket(site, id), await Connection.socket(site, login('grace'))];
    const next = rotate(id);
    const last = rotate(next);
    await socket.isOpen();
    end(last);
    await socket.closed;
    await marker.isOpen();
  });

  test('a new id by a login as somebody else ends what was open before it', async () => {
    const id = login('guest');
    const socket = await Connection.socket(site, id);
    const next = rotate(id, '--subject', 'ada', '--authenticated-ago', '0s');
    await socket.closed;
    await (await Connection.socket(site, next)).isOpen();
  });

  test('a former id gets nobody in, and the new cookie is not taken back', async () => {
    const id = login();
    rotate(id);
    const connection = new Connection(site, '/events', id);
    const [response] = await once(connection.request, 'response');
    assert.deepEqual([response.statusCode, response.headers['set-cookie']], [401, undefined]);
    assert.equal(JSON.parse((await once(response, 'data'))[0]).end.reason, 'ROTATED');
  });

  test('what the sidecar does not know any more after a restart is closed', async () => {
    const socket = await Connection.socket(site, login());
    await site.killSidecar();
    await site.startSidecar();
    await socket.closed;
  });

  test('an end while the gateway is cut off is told when it is back', async (t) => {
    const wires = new Set();
    const port = await freePort();
    let sidecar;
    const wire = net.createServer((here) => {
      const there = net.connect(sidecar, '127.0.0.1');
      for (const [from, to] of [[here, there], [there, here]]) {
        wires.add(from.on('error', () => {}).on('close', () => to.destroy()).pipe(to));
      }
    });
    const connect = async () => { await once(wire.listen(port, '127.0.0.1'), 'listening'); };
    await connect();
    const cut = await Site.start({
      gateway: 'own',
      application: lasting,
      change: (conf) => {
        sidecar = Number(conf.match(/SESSION_SIDECAR_TARGET=127.0.0.1:(\d+)/)[1]);
        return conf.replace(/(SESSION_SIDECAR_TARGET=127.0.0.1:)\d+/, `$1${port}`);
      },
    });
    t.after(async () => {
      await cut.stop();
      wire.close();
    });
    const [id, other] = [cut.run('create'), cut.run('create')];
    const [socket, stays] = [await Connection.socket(cut, id), await Connection.socket(cut, other)];
    wire.close();
    for (const end of wires) end.destroy();
    cut.run('end', '--id-file', cut.remember(id));
    await socket.isOpen();
    await connect();
    await socket.closed;
    await stays.isOpen();
  });

  test('a cookie that the answer itself sets is not taken back with it', async (t) => {
    const own = await Site.start({
      gateway: 'own',
      application: (site) => {
        const server = http.createServer((request, response) => response.setHeader('Set-Cookie', `sid=${'n'.repeat(40)}; Path=/`).end()).listen(site.app, '127.0.0.1');
        return { login: '/login.html', stop: () => server.close() };
      },
    });
    t.after(() => own.stop());
    const id = own.run('create');
    own.run('end', '--id-file', own.remember(id));
    const [response] = await once(new Connection(own, '/login.html', id).request, 'response');
    assert.deepEqual(response.headers['set-cookie'], [`sid=${'n'.repeat(40)}; Path=/`]);
  });
});
