// Express and Fastify: the same site in both, the same questions to both, over a real sidecar.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import * as http from 'node:http';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import express from 'express';
import session from 'express-session';
import Fastify from 'fastify';
import { sidecarSessions as expressSessions } from 'session-sidecar/express';
import { sidecarSessions as fastifySessions } from 'session-sidecar/fastify';
import { advance } from 'session-sidecar/testing';
import { connect, freePort, NEVER_ISSUED, serve } from './support.mjs';

const POLICY = `
[policy.default]
idle_timeout = "15m"
absolute_timeout = "2h"
warn_before = ["2m"]

[policy.wall]
passive = true

[policy.single]
max_sessions_per_subject = 1
at_subject_cap = "refuse"
`;
const MINUTE = 60_000;
const OPTIONS = { cookie: 'sid', loginUrl: '/login', public: ['/static/**', '/logout'], passive: ['/poll'] };

/** What a handler knows of the session of a request. */
const known = ({ sidecarSession, sidecarEnd, sidecarAway }) => ({
  ref: sidecarSession?.sessionRef, expiresIn: sidecarSession?.expiresIn, over: sidecarEnd?.kind, reason: sidecarEnd?.reason, away: sidecarAway?.kind,
});

const SITES = {
  express(options) {
    const app = express();
    const sessions = expressSessions(options);
    app.use(sessions);
    const page = (request, response) => response.json(known(request));
    for (const path of ['/', '/poll', '/static/style.css', '/login']) app.get(path, page);
    app.post('/', page);
    app.get('/account', sessions.required, page);
    app.post('/login', async (request, response) => {
      await sessions.login(request, response, request.query);
      page(request, response);
    });
    app.post('/rotate', async (request, response) => {
      await sessions.rotate(request, response);
      page(request, response);
    });
    app.post('/logout', async (request, response) => response.json({ ended: await sessions.logout(request, response), ...known(request) }));
    app.get('/long', async (request, response) => response.json(await sessions.holding(request, { purpose: 'report' }, (hold) => options.work(request, hold))));
    app.use((error, _request, response, _next) => response.status(error.status ?? 500).json({ message: error.message }));
    return async () => {
      const server = app.listen(0, '127.0.0.1');
      await once(server, 'listening');
      return { port: server.address().port, close: () => server.close() };
    };
  },
  fastify(options) {
    const app = Fastify();
    app.register(fastifySessions, options);
    app.register(async (site) => {
      const page = async (request) => known(request);
      for (const path of ['/', '/poll', '/static/style.css', '/login']) site.get(path, page);
      site.post('/', page);
      site.get('/account', { preHandler: (...given) => app.sidecarSessions.required.apply(app, given) }, page);
      site.post('/login', async (request, reply) => {
        await app.sidecarSessions.login(request, reply, request.query);
        return known(request);
      });
      site.post('/rotate', async (request, reply) => {
        await app.sidecarSessions.rotate(request, reply);
        return known(request);
      });
      site.post('/logout', async (request, reply) => ({ ended: await app.sidecarSessions.logout(request, reply), ...known(request) }));
      site.get('/long', async (request) => app.sidecarSessions.holding(request, { purpose: 'report' }, (hold) => options.work(request, hold)));
    });
    return async () => {
      await app.listen({ port: 0, host: '127.0.0.1' });
      return { port: app.server.address().port, close: () => app.close() };
    };
  },
};

/** A browser that keeps cookies. */
class Browser {
  cookies = new Map();

  constructor(port) {
    this.port = port;
  }

  // Not fetch, which says itself what kind of request this is.
  async ask(method, path, { navigates = false, headers = {} } = {}) {
    const cookie = [...this.cookies].map((pair) => pair.join('=')).join('; ');
    const request = http.request({ host: '127.0.0.1', port: this.port, method, path, headers: { ...(cookie && { cookie }), ...(navigates && { 'sec-fetch-mode': 'navigate' }), ...headers } });
    const [answer] = await once(request.end(), 'response');
    this.set = answer.headers['set-cookie'] ?? [];
    for (const each of this.set) {
      const [, name, value] = each.match(/^([^=]+)=([^;]*)/);
      if (value) this.cookies.set(name, value);
      else this.cookies.delete(name);
    }
    const body = await text(answer);
    return { status: answer.statusCode, headers: answer.headers, body: /json/.test(answer.headers['content-type']) ? JSON.parse(body) : body };
  }

  get = (path, options) => this.ask('GET', path, options);
  post = (path, options) => this.ask('POST', path, options);
}

for (const [framework, site] of Object.entries(SITES)) {
  describe(framework, () => {
    async function open(t, more = {}, options = {}) {
      const process = await serve(t, { policy: POLICY });
      const sidecar = connect(t, process.tcp, options);
      const server = await site({ ...OPTIONS, sidecar, ...more })();
      t.after(() => server.close());
      return { process, sidecar, browser: new Browser(server.port), port: server.port };
    }

    test('login, requests that count and requests that do not, the end by inactivity', async (t) => {
      const { sidecar, browser } = await open(t);
      assert.deepEqual((await browser.get('/')).body, {}, 'a stranger');
      const login = await browser.post('/login?subject=ada');
      assert.ok(login.body.ref && login.body.expiresIn > 14 * MINUTE);
      assert.match(browser.set.join('\n'), /^sid=[\w-]{43}; Path=\/; HttpOnly; Secure; SameSite=Lax$/);
      assert.equal((await sidecar.check({ sessionRef: login.body.ref })).session.subject, 'ada');
      await advance(sidecar, 10 * MINUTE);
      assert.ok((await browser.get('/')).body.expiresIn > 14 * MINUTE);
      await advance(sidecar, 10 * MINUTE);
      assert.ok((await browser.get('/poll')).body.expiresIn < 6 * MINUTE, 'a poll is no activity');
      assert.ok((await browser.get('/static/style.css')).body.expiresIn < 6 * MINUTE, 'what is public, neither');
      assert.ok((await browser.get('/', { headers: { 'sec-purpose': 'prefetch' } })).body.expiresIn < 6 * MINUTE, "the browser's own headers are hints");
      await advance(sidecar, 6 * MINUTE);
      const over = await browser.get('/?page=2');
      const { end, ...told } = over.body;
      assert.deepEqual([over.status, told.error, told.session_ref, told.login_url, end.reason], [401, 'SESSION_ENDED', login.body.ref, '/login', 'IDLE_TIMEOUT']);
      assert.match(end.end_time, /^\d{4}-.*Z$/);
      assert.match(told.message, /by inactivity/);
      assert.equal(over.headers['cache-control'], 'no-store');
      assert.match(browser.set.join(), /^sid=; Path=\/; .*Max-Age=0$/, 'the cookie is taken back');
      assert.deepEqual((await browser.get('/')).body, {});
    });

    test('a page is sent to the login page with the reason, which is public', async (t) => {
      const { sidecar, browser } = await open(t);
      for (const [method, path, status, location] of [
        ['get', '/?page=2', 302, '/login?reason=REVOKED&next=/%3Fpage%3D2'],
        ['get', '//elsewhere.example', 302, '/login?reason=REVOKED'],
        ['post', '/', 303, '/login?reason=REVOKED'],
      ]) {
        const { body } = await browser.post('/login?subject=ada');
        const kept = new Map(browser.cookies);
        await sidecar.end(browser.cookies.get('sid'), { reason: 'REVOKED' });
        const answer = await browser[method](path, { navigates: true });
        assert.deepEqual([answer.status, answer.headers['location']], [status, location], path);
        browser.cookies = kept;
        const page = await browser.get('/login', { navigates: true });
        assert.deepEqual([page.status, page.body.over, page.body.reason], [200, 'ended', 'REVOKED'], body.ref);
        assert.equal(browser.cookies.size, 0);
      }
    });

    test('what needs a session refuses strangers, and a cookie that can be no id is nobody', async (t) => {
      const { browser, port } = await open(t);
      assert.deepEqual([(await browser.get('/account')).body.error, (await browser.get('/account')).status], ['SESSION_MISSING', 401]);
      assert.equal((await browser.get('/account', { navigates: true })).headers['location'], '/login?next=/account');
      for (const cookie of ['sid=short', 'sid=one-id-0123456789; sid=other-id-0123456789', 'sid=not%20visible ascii \xe4', 'sid=']) {
        const stranger = await new Browser(port).get('/', { headers: { cookie } });
        assert.deepEqual([stranger.status, stranger.body], [200, {}], cookie);
      }
      const unknown = await new Browser(port).get('/', { headers: { cookie: `sid=${NEVER_ISSUED}` } });
      assert.deepEqual([unknown.status, unknown.body.error], [401, 'SESSION_UNKNOWN']);
      await browser.post('/login?subject=ada');
      assert.equal((await browser.get('/account')).status, 200);
      for (const path of ['/static/../account', '/static/..%2faccount']) {
        await browser.get('/');
        assert.notEqual((await browser.get(path)).body.over, 'ended', 'a path that is read in two ways is not public');
      }
    });

    test('a login gives a new id (no fixation), a rotation goes on, a logout ends', async (t) => {
      const { sidecar, browser, port } = await open(t);
      const ids = [];
      const refs = [];
      for (const path of ['/login?subject=ada', '/login?subject=ada&authenticationLevel=aal2', '/rotate', '/login?subject=bob']) {
        const { body } = await browser.post(path);
        ids.push(browser.cookies.get('sid'));
        refs.push(body.ref);
      }
      assert.equal(new Set(ids).size, 4);
      const lives = await Promise.all(refs.map((sessionRef) => sidecar.check({ sessionRef })));
      assert.deepEqual(lives.map((each) => each.reason), ['ROTATED', 'ROTATED', 'LOGOUT', undefined], 'another person does not go on with a session');
      assert.equal(lives[3].session.subject, 'bob');
      assert.equal((await sidecar.check({ sessionRef: refs[1] })).session.authenticationLevel, 'aal2');
      const fixed = await new Browser(port).get('/', { headers: { cookie: `sid=${ids[0]}` } });
      assert.deepEqual([fixed.status, fixed.body.end.reason, fixed.headers['set-cookie']], [401, 'ROTATED', undefined], 'the browser has a new cookie by now');
      const former = new Browser(port);
      former.cookies.set('sid', ids[1]);
      const out = await browser.post('/logout');
      assert.deepEqual([out.body.ended, out.body.ref, browser.cookies.size], [true, undefined, 0]);
      const over = await sidecar.check({ sessionRef: refs[3] });
      assert.deepEqual([over.reason, over.actor], ['LOGOUT', 'USER']);
      assert.deepEqual((await browser.post('/logout')).body, { ended: false });
      assert.equal((await browser.post('/rotate')).status, 500, 'there is nothing to rotate');
    });

    test('long work holds the session', async (t) => {
      const { sidecar, browser } = await open(t, {
        work: async ({ sidecarSession }, { ended }) => ({ holds: (await sidecar.check(sidecarSession)).session.holds.map((hold) => hold.purpose), ended }),
      });
      const { body: { ref } } = await browser.post('/login?subject=ada');
      assert.deepEqual((await browser.get('/long')).body, { holds: ['report'] });
      assert.deepEqual((await sidecar.check({ sessionRef: ref })).session.holds, []);
    });

    test('a session that is for reading only, and one that a policy does not let begin, are 403', async (t) => {
      const { browser, port } = await open(t);
      await browser.post('/login?subject=wall&policy=wall');
      assert.equal((await browser.get('/')).status, 200);
      const write = await browser.post('/');
      assert.deepEqual([write.status, write.body.error], [403, 'READ_ONLY_SESSION']);
      assert.equal((await new Browser(port).post('/login?subject=one&policy=single')).status, 200);
      const second = new Browser(port);
      assert.equal((await second.post('/login?subject=one&policy=single')).status, 403);
      assert.equal(second.cookies.size, 0);
    });

    test('nobody is logged out while the sidecar is away: 503, or they go on, as the fail policy says', async (t) => {
      for (const fail of ['closed', 'open']) {
        const { process, browser } = await open(t, {}, { fail });
        assert.equal((await browser.post('/login?subject=ada')).status, 200);
        await process.kill();
        const answer = await browser.get('/');
        const page = await browser.get('/account', { navigates: true });
        if (fail === 'closed') {
          assert.deepEqual([answer.status, answer.body.error, answer.headers['retry-after'], page.status], [503, 'UNAVAILABLE', '1', 503]);
          assert.match(page.body, /Please try again/);
        } else {
          assert.deepEqual([answer.status, answer.body, page.status], [200, { away: 'unreachable' }, 200]);
        }
        assert.equal((await browser.get('/static/style.css')).status, 200);
        assert.deepEqual(browser.set, [], 'the cookie stays');
        const login = await browser.post('/login?subject=ada');
        assert.equal(login.status, 503, 'nobody is logged in');
        assert.deepEqual((await browser.post('/logout')).body, { ended: false });
        assert.equal(browser.cookies.size, 0, 'a logout works in any case');
      }
    });

    test('a callback in the place of the usual refusal', async (t) => {
      const { sidecar, browser } = await open(t, {
        onEnded: (over, _request, response, next) => (over.reason === 'LOGOUT' ? next?.() : (response.status ?? response.code).call(response, 418).send({ why: over.reason })),
      });
      await browser.post('/login?subject=ada');
      await sidecar.end(browser.cookies.get('sid'), { reason: 'REVOKED' });
      const answer = await browser.get('/');
      assert.deepEqual([answer.status, answer.body, browser.cookies.size], [418, { why: 'REVOKED' }, 0]);
      await browser.post('/login?subject=ada');
      await sidecar.end(browser.cookies.get('sid'));
      assert.deepEqual((await browser.get('/')).body, { over: 'ended', reason: 'LOGOUT' }, 'it may let the request go on');
    });
  });
}

test("a framework's own ids: express-session, whose sessions are adopted and forgotten", async (t) => {
  const process = await serve(t, { policy: POLICY });
  const sidecar = connect(t, process.tcp);
  const app = express();
  app.use(session({ secret: 'test', name: 'connect.sid', resave: false, saveUninitialized: false }));
  const sessions = expressSessions({
    sidecar, cookie: 'connect.sid', loginUrl: '/login',
    sessionId: (request) => (request.session?.user ? request.sessionID : undefined),
    forget: (request) => new Promise((done) => request.session.destroy(done)),
    adopt: (request) => ({ subject: request.session.user, authenticatedAgo: Date.now() - request.session.since, idleFor: request.session.idle }),
  });
  app.post('/before', (request, response) => {
    Object.assign(request.session, { user: request.query.user, since: Date.now() - 1_000 * request.query.ago, idle: 1_000 * request.query.idle });
    response.end();
  });
  app.use(sessions);
  app.post('/login', (request, response, next) => request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.user = request.query.user;
    return sessions.login(request, response, { subject: request.query.user, sessionId: request.sessionID }).then(() => response.json(known(request)), next);
  }));
  app.post('/fixed', (request, response, next) => sessions.login(request, response, { subject: 'ada', sessionId: request.sessionID }).catch(next));
  app.get('/', (request, response) => response.json({ user: request.session?.user, ...known(request) }));
  app.use((error, _request, response, _next) => response.status(500).json({ message: error.message }));
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const open = () => new Browser(server.address().port);

  const browser = open();
  const { body } = await browser.post('/login?user=ada');
  const again = await browser.post('/login?user=ada');
  assert.equal((await sidecar.check({ sessionRef: body.ref })).successorRef, again.body.ref, 'the session goes on under the id that the framework made');
  assert.match((await browser.post('/fixed')).body.message, /regenerate/);
  await advance(sidecar, 16 * MINUTE);
  const over = await browser.get('/');
  assert.deepEqual([over.status, over.body.end.reason, browser.cookies.size], [401, 'IDLE_TIMEOUT', 0]);

  const running = open();
  await running.post('/before?user=bob&ago=600&idle=60');
  const adopted = await running.get('/');
  assert.equal(adopted.body.user, 'bob');
  const { session: known1 } = await sidecar.check({ sessionRef: adopted.body.ref });
  assert.ok(Math.abs(known1.createTime - known1.authenticationTime - 600_000) < 10_000);
  for (const [query, reason] of [['ago=7201&idle=0', 'ABSOLUTE_TIMEOUT'], ['ago=6000&idle=901', 'IDLE_TIMEOUT']]) {
    const late = open();
    await late.post(`/before?user=eve&${query}`);
    assert.equal((await late.get('/')).body.end.reason, reason);
  }
});

test('a site whose sidecar never was there says so to those who log in', async (t) => {
  const server = await SITES.express({ ...OPTIONS, sidecar: connect(t, `127.0.0.1:${await freePort()}`, { deadline: 250 }) })();
  t.after(() => server.close());
  const browser = new Browser(server.port);
  assert.deepEqual([(await browser.get('/')).status, (await browser.post('/login?subject=ada')).status], [200, 503]);
});
