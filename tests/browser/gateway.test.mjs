// The sites of docs/nginx.md, docs/envoy.md and docs/gateway.md: what reaches the application, and what does not.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import * as http from 'node:http';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Site, repository } from './site.mjs';

/** Asks as a browser does that goes to a page, or as a script. Not by `fetch`, which says itself that it is a script. */
async function ask(site, path, { id, mode = 'navigate', headers = {}, method = 'GET' } = {}) {
  const cookie = id ? { Cookie: `theme=dark; sid=${id}; lang=en` } : {};
  const all = { Host: `localhost:${site.web}`, 'Sec-Fetch-Mode': mode, ...cookie, ...headers };
  const request = http.request({ port: site.web, path, method, headers: all, timeout: 30_000 }).end();
  request.on('timeout', () => request.destroy(new Error(`${method} ${path} was not answered`)));
  const [response] = await once(request, 'response');
  response.setEncoding('utf8');
  let body = '';
  for await (const part of response) body += part;
  return { status: response.statusCode, headers: response.headers, body };
}

/** What of an answer to a script does not depend on who gives it: NGINX has words of its own. */
const why = (gateway, body) => (gateway === 'nginx' ? body.reason : body.end.reason);

for (const gateway of ['nginx', 'envoy', 'own']) {
  describe(gateway, () => {
    let site;
    before(async () => { site = await Site.start({ gateway }); });
    after(async () => { await site.stop(); });
    beforeEach(() => { site.sent.length = 0; });
    const login = (subject = 'ada') => site.run('create', '--subject', subject);

    test('the application is told whose session it is, and by nobody else', async () => {
      const headers = { 'X-Session-Ref': 'spoofed', 'X-Session-Subject': 'root', 'X_Session_Subject': 'root', 'X-Forwarded-Uri': '/page.css', 'X-Original-URI': '/page.css' };
      assert.equal((await ask(site, '/app.html', { id: login(), headers })).status, 200);
      const [{ headers: told }] = site.sent;
      assert.equal(told['x-session-subject'], 'ada');
      assert.match(told['x-session-ref'], /^[\w-]{22}$/);
      assert.equal(told['x_session_subject'], undefined);
      // A client cannot have another path asked about: without a session it gets no further.
      assert.equal((await ask(site, '/app.html', { headers })).status, 302);
      assert.equal(site.sent.length, 1);
      assert.equal((await ask(site, '/page.css', { headers })).status, 200);
      assert.ok(!site.sent[1].headers['x-session-subject'], 'on a public page nobody is anybody');
    });

    test('a person is sent to the login page, a script is told why, and the cookie is taken back', async () => {
      const id = login();
      site.pass('16m');
      const person = await ask(site, '/app.html?tab=2', { id });
      assert.equal(person.status, 302);
      assert.equal(person.headers.location.replace(site.origin, ''), '/login.html?reason=IDLE_TIMEOUT&next=/app.html%3Ftab%3D2');
      assert.match(String(person.headers['set-cookie']), /^sid=; Path=\/; Max-Age=0/);
      const script = await ask(site, '/app.html', { id, mode: 'cors' });
      assert.deepEqual([script.status, why(gateway, JSON.parse(script.body))], [401, 'IDLE_TIMEOUT']);
      assert.match(String(script.headers['set-cookie']), /Max-Age=0/);
      assert.equal(script.headers['content-type'], 'application/json');
      assert.equal(site.sent.length, 0);
    });

    test('the login page is never refused, and the dead cookie does not get there', async () => {
      const id = login();
      site.pass('16m');
      const page = await ask(site, '/login.html?reason=IDLE_TIMEOUT', { id });
      assert.equal(page.status, 200);
      assert.match(String(page.headers['set-cookie']), /Max-Age=0/);
      assert.equal(site.sent[0].headers.cookie, 'theme=dark; lang=en');
      // With a new id the same person is in at once.
      assert.equal((await ask(site, '/app.html', { id: login() })).status, 200);
      assert.equal((await ask(site, '/login.html', { id: 'short' })).status, 200);
    });

    test('a cookie that the application sets anew is not taken back with it', async () => {
      const id = login();
      site.pass('16m');
      const fresh = 'n'.repeat(40);
      const page = await ask(site, `/login.html?sets=${fresh}`, { id });
      assert.deepEqual([page.status, page.headers['set-cookie']], [200, [`sid=${fresh}; Path=/`]]);
      assert.equal(site.sent[0].headers.cookie, 'theme=dark; lang=en');
    });

    test('a former id does not have the browser forget the new one', async () => {
      const id = login();
      site.run('rotate', '--id-file', site.remember(id));
      for (const path of ['/login.html', '/app.html']) {
        assert.equal((await ask(site, path, { id })).headers['set-cookie'], undefined, path);
      }
    });

    test('a prefetch is no activity, a click is', async () => {
      const id = login();
      site.pass('10m');
      await ask(site, '/app.html', { id, headers: { 'Sec-Purpose': 'prefetch' } });
      site.pass('4m');
      await ask(site, '/app.html', { id, headers: { 'Sec-Fetch-User': '?1' } });
      site.pass('14m');
      assert.equal((await ask(site, '/app.html', { id })).status, 200);
      site.pass('10m');
      await ask(site, '/app.html', { id, headers: { 'Sec-Purpose': 'prefetch' } });
      site.pass('6m');
      assert.equal((await ask(site, '/app.html', { id })).status, 302);
    });

    test('nothing of the door but what pages may ask can be reached from outside', async () => {
      const id = login();
      assert.equal((await ask(site, '/-/session', { id })).status, 200);
      for (const path of ['/-/authz', '/authz', '/-/session/../authz', '/-/session%2f..%2fauthz']) {
        const { status } = await ask(site, path, { id });
        assert.ok(status === 404 || status === 400, `${path}: ${status}`);
      }
    });

    test('a header that splits, an id of 8 kB and two ids get nobody in', async () => {
      for (const cookie of ['sid=a\tb', `sid=${'a'.repeat(8000)}`, `sid=${'a'.repeat(40)}; sid=${'b'.repeat(40)}`]) {
        const answer = await ask(site, '/app.html', { headers: { Cookie: cookie } });
        assert.ok([302, 400].includes(answer.status), `${cookie.slice(0, 20)}: ${answer.status}`);
      }
      assert.equal(site.sent.length, 0);
    });

    test('what is written into an address splits no header', async () => {
      const id = login();
      site.pass('16m');
      const answer = await ask(site, '/app.html?next=%0d%0aSet-Cookie:%20a=b&x=%E2%80%A8', { id });
      assert.equal(answer.status, 302);
      assert.equal(answer.headers['set-cookie'].length, 1);
      assert.match(answer.headers.location, /next=\/app\.html%3Fnext%3D%250d%250aSet-Cookie/);
      assert.ok(!answer.headers.location.includes(id));
    });

    test('what changes something is a page of this site, and says so', async () => {
      const id = login();
      const own = { 'X-Session-Sidecar': '1' };
      for (const verb of ['extend', 'activity', 'hold', 'release']) {
        for (const headers of [{}, { Origin: site.origin }, { ...own, Origin: 'https://evil.example' }, { ...own, Origin: 'null' }, { ...own, 'Sec-Fetch-Site': 'cross-site' }, { ...own, 'Sec-Fetch-Site': 'same-site' }]) {
          const { status } = await ask(site, `/-/session/${verb}`, { id, method: 'POST', mode: 'cors', headers });
          assert.equal(status, 403, `${verb} ${JSON.stringify(headers)}`);
        }
      }
      const { status } = await ask(site, '/-/session/extend', { id, method: 'POST', mode: 'cors', headers: { ...own, Origin: site.origin } });
      assert.equal(status, 200);
      assert.equal((await ask(site, '/-/session/leave', { id, method: 'POST', headers: { Origin: 'https://evil.example' } })).status, 403);
    });

    test('while the sidecar is away nobody gets in, and all is well when it is back', async () => {
      await site.killSidecar();
      const away = await ask(site, '/app.html', { id: 'a'.repeat(40) });
      assert.equal(away.status, 503);
      assert.equal(site.sent.length, 0);
      await site.startSidecar();
      let back;
      // Envoy connects anew when it likes to.
      do back = await ask(site, '/app.html', { id: login() }); while (back.status === 503);
      assert.equal(back.status, 200);
    });
  });
}

for (const gateway of ['envoy', 'own']) {
  test(`${gateway}: a route that says itself that it is passive is no activity`, async (t) => {
    const site = await Site.start({ gateway });
    t.after(() => site.stop());
    const id = site.run('create', '--subject', 'ada');
    site.pass('10m');
    assert.equal((await ask(site, '/notifications/new', { id })).status, 404, 'it reaches the application, which has no such page');
    site.pass('6m');
    assert.equal((await ask(site, '/app.html', { id })).status, 302);
  });
}

test('envoy: nobody waits for a sidecar that hangs', async (t) => {
  const site = await Site.start({ gateway: 'envoy', patient: false, browser: false });
  t.after(() => site.stop());
  const id = site.run('create', '--subject', 'ada');
  const { status, headers } = await site.standingStill(() => ask(site, '/app.html', { id }));
  assert.deepEqual([status, headers['set-cookie'], site.sent.some(({ path }) => path === '/app.html')], [503, undefined, false]);
});

const STARTS = `
[policy.default]
tombstone_ttl = "14d"

[door]
cookies = ["sid"]
login_url = "/login.html"
unknown = "start"
start = { app_session_age = "14d", max_sessions = 5, rate = 1000 }
`;

for (const gateway of ['nginx', 'envoy']) {
  test(`${gateway}: made-up cookies keep no login out`, async (t) => {
    const site = await Site.start({ gateway, policy: STARTS });
    t.after(() => site.stop());
    let let_in = 0;
    for (let number = 0; number < 300; number++) {
      const { status } = await ask(site, '/app.html', { id: `made-up-${number}-${'x'.repeat(20)}` });
      if (status === 200) let_in++;
      else assert.equal(status, 302);
    }
    assert.equal(let_in, 5, 'as many as may begin here');
    assert.equal((await ask(site, '/app.html', { id: site.run('create', '--subject', 'ada') })).status, 200, 'a real login goes on');
  });
}

test('envoy: a flood of streams is bounded, and costs nobody else anything', async (t) => {
  const site = await Site.start({ gateway: 'envoy' });
  t.after(() => site.stop());
  const id = site.run('create', '--subject', 'ada');
  const open = [];
  t.after(() => open.forEach((response) => response.destroy()));
  const answers = [];
  for (let number = 0; number < 40; number++) {
    const headers = { Host: `localhost:${site.web}`, Cookie: `sid=${id}` };
    const [response] = await once(http.get({ port: site.web, path: `/-/session/events?page=p${number}`, headers, agent: false }), 'response');
    answers.push(response.statusCode);
    open.push(response);
  }
  assert.deepEqual([...new Set(answers)].sort(), [200, 429]);
  assert.equal(answers.filter((status) => status === 200).length, 16);
  assert.equal((await ask(site, '/app.html', { id })).status, 200);
  const other = site.run('create', '--subject', 'grace');
  const headers = { Host: `localhost:${site.web}`, Cookie: `sid=${other}` };
  const [stream] = await once(http.get({ port: site.web, path: '/-/session/events', headers, agent: false }), 'response');
  open.push(stream);
  assert.equal(stream.statusCode, 200, 'another session has streams of its own');
});

/** The documented configurations of those who would rather let pass while the sidecar is away. */
const open = {
  nginx: (conf) => {
    const [, instead] = readFileSync(join(repository, 'docs/nginx.md'), 'utf8').match(/  ```nginx\n(.*?)  ```/s);
    const [own] = instead.match(/proxy_pass.*/s);
    return conf.replace(/(location @unavailable \{\n).*?(?=\n    \})/s, `$1${own}`);
  },
  envoy: (conf) => conf.replace('failure_mode_allow: false', 'failure_mode_allow: true\n                      failure_mode_allow_header_add: true'),
  own: (conf) => conf.replace('FAIL=closed', 'FAIL=open'),
};

for (const gateway of ['nginx', 'envoy', 'own']) {
  test(`${gateway}: who would rather let pass does, and is told by nobody that somebody is somebody`, async (t) => {
    const site = await Site.start({ gateway, change: open[gateway] });
    t.after(() => site.stop());
    await site.killSidecar();
    const { status } = await ask(site, '/app.html', { id: 'a'.repeat(40), headers: { 'X-Session-Subject': 'root', 'X_Session_Ref': 'r' } });
    assert.equal(status, 200);
    const { headers } = site.sent.at(-1);
    assert.deepEqual([headers['x-session-subject'], headers['x_session_ref'], headers['x-session-ref']], [undefined, undefined, undefined]);
    assert.match(headers.cookie, /theme=dark; sid=a+; lang=en/);
    if (gateway === 'envoy') assert.equal(headers['x-envoy-auth-failure-mode-allowed'], 'true');
  });
}
