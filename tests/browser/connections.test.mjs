// What is open through the example gateway when a session ends: the part that no question before a request can do.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import * as http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Site } from './site.mjs';

/** An application whose answers last: it remembers whom it is connected with, and speaks when the test does. */
function lasting(site) {
  site.beyond = new Map(); // by the name of a connection
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://site');
    if (pathname === '/login.html') return response.end('log in');
    site.beyond.set(searchParams.get('name'), response);
    if (pathname === '/events') response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders();
  });
  server.on('upgrade', (request, socket) => {
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
    [connection.stream] = await once(connection.request, 'response');
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
