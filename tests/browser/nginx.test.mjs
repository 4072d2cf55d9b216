// The site of docs/nginx.md: what reaches the application, and what does not.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import * as http from 'node:http';
import { after, before, beforeEach, test } from 'node:test';
import { Site } from './site.mjs';

let site;
before(async () => { site = await Site.start(); });
after(async () => { await site.stop(); });
beforeEach(() => { site.sent.length = 0; });

/** Asks as a browser does that goes to a page, or as a script. Not by `fetch`, which says itself that it is a script. */
async function ask(path, { id, mode = 'navigate', headers = {} } = {}) {
  const cookie = id ? { Cookie: `theme=dark; sid=${id}; lang=en` } : {};
  const request = http.get({ port: site.web, path, headers: { Host: `localhost:${site.web}`, 'Sec-Fetch-Mode': mode, ...cookie, ...headers } });
  const [response] = await once(request, 'response');
  response.setEncoding('utf8');
  let body = '';
  for await (const part of response) body += part;
  return { status: response.statusCode, headers: response.headers, body };
}

const login = (subject = 'ada') => site.run('create', '--subject', subject);

test('the application is told whose session it is, and by nobody else', async () => {
  const headers = { 'X-Session-Ref': 'spoofed', 'X-Session-Subject': 'root', 'X-Forwarded-Uri': '/page.css', 'X-Original-URI': '/page.css' };
  assert.equal((await ask('/app.html', { id: login(), headers })).status, 200);
  const [{ headers: told }] = site.sent;
  assert.equal(told['x-session-subject'], 'ada');
  assert.match(told['x-session-ref'], /^[\w-]{22}$/);
  // A client cannot have another path asked about: without a session it gets no further.
  assert.equal((await ask('/app.html', { headers })).status, 302);
  assert.equal(site.sent.length, 1);
});

test('a person is sent to the login page, a script is told why, and the cookie is taken back', async () => {
  const id = login();
  site.pass('16m');
  const person = await ask('/app.html?tab=2', { id });
  assert.equal(person.status, 302);
  assert.equal(person.headers.location, `${site.origin}/login.html?reason=IDLE_TIMEOUT&next=/app.html%3Ftab%3D2`);
  assert.match(String(person.headers['set-cookie']), /^sid=; Path=\/; Max-Age=0/);
  const script = await ask('/app.html', { id, mode: 'cors' });
  assert.deepEqual([script.status, JSON.parse(script.body)], [401, { error: 'SESSION_OVER', reason: 'IDLE_TIMEOUT' }]);
  assert.match(String(script.headers['set-cookie']), /Max-Age=0/);
  assert.equal(site.sent.length, 0);
});

test('the login page is never refused, and the dead cookie does not get there', async () => {
  const id = login();
  site.pass('16m');
  const page = await ask('/login.html?reason=IDLE_TIMEOUT', { id });
  assert.equal(page.status, 200);
  assert.match(String(page.headers['set-cookie']), /Max-Age=0/);
  assert.equal(site.sent[0].headers.cookie, 'theme=dark; lang=en');
  // With a new id the same person is in at once.
  assert.equal((await ask('/app.html', { id: login() })).status, 200);
  assert.equal((await ask('/login.html', { id: 'short' })).status, 200);
});

test('a prefetch is no activity, a click is', async () => {
  const id = login();
  site.pass('10m');
  await ask('/app.html', { id, headers: { 'Sec-Purpose': 'prefetch' } });
  site.pass('4m');
  await ask('/app.html', { id, headers: { 'Sec-Fetch-User': '?1' } });
  site.pass('14m');
  assert.equal((await ask('/app.html', { id })).status, 200);
  site.pass('10m');
  await ask('/app.html', { id, headers: { 'Sec-Purpose': 'prefetch' } });
  site.pass('6m');
  assert.equal((await ask('/app.html', { id })).status, 302);
});

test('nothing of the door but what pages may ask can be reached from outside', async () => {
  const id = login();
  assert.equal((await ask('/-/session', { id })).status, 200);
  for (const path of ['/-/authz', '/authz', '/-/session/../authz', '/-/session%2f..%2fauthz']) {
    const { status } = await ask(path, { id });
    assert.ok(status === 404 || status === 400, `${path}: ${status}`);
  }
});

test('a header that splits, an id of 8 kB and two ids get nobody in', async () => {
  for (const cookie of ['sid=a\tb', `sid=${'a'.repeat(8000)}`, `sid=${'a'.repeat(40)}; sid=${'b'.repeat(40)}`]) {
    const answer = await ask('/app.html', { headers: { Cookie: cookie } });
    assert.ok([302, 400].includes(answer.status), `${cookie.slice(0, 20)}: ${answer.status}`);
  }
  assert.equal(site.sent.length, 0);
});

test('while the sidecar is away nobody gets in, and all is well when it is back', async () => {
  await site.killSidecar();
  const away = await ask('/app.html', { id: 'a'.repeat(40) });
  assert.deepEqual([away.status, away.headers['retry-after']], [503, '1']);
  await site.startSidecar();
  assert.equal((await ask('/app.html', { id: login() })).status, 200);
});
