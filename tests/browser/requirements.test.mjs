// The five requirements of DESIGN.md section 1, at one and the same Django site: through Envoy, NGINX and the example gateway, where the
// site has not a line of code for it, and through the Django package, with no gateway at all.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { POLICY, django } from './django.mjs';
import { Site } from './site.mjs';

const sites = {
  'through Envoy, without application code': { gateway: 'envoy', application: django('plain') },
  'through NGINX, without application code': { gateway: 'nginx', application: django('plain') },
  'through the example gateway, without application code': { gateway: 'own', application: django('plain'), briefly: true },
  'through the Django package': { gateway: 'none', application: django('package') },
};

/** Somebody at a browser. */
class Person {
  static async at(site, options = {}) {
    const person = new Person();
    person.site = site;
    person.context = await site.browser.newContext(options);
    person.complaints = [];
    person.context.on('weberror', (problem) => person.complaints.push(String(problem.error())));
    person.context.on('console', (message) => {
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) person.complaints.push(message.text());
    });
    return person;
  }

  async logIn(page, name = 'ada') {
    await page.getByLabel('Name').fill(name);
    await page.getByLabel('Password').fill(name);
    await page.getByRole('button', { name: 'Log in' }).click();
  }

  /** The page of somebody who has logged in: its module knows the session, and hears of it. */
  async begin(path = '/') {
    const page = await this.context.newPage();
    await page.goto(this.site.origin + path);
    await this.logIn(page);
    await this.knows(page);
    await this.site.present((await this.cookie()).value);
    return page;
  }

  async open(path) {
    const page = await this.context.newPage();
    await page.goto(this.site.origin + path);
    await this.knows(page);
    return page;
  }

  knows(page, state = 'ACTIVE') {
    return page.waitForFunction((state) => document.querySelector('session-sidecar')?.session?.state.state === state, state);
  }

  async cookie() {
    return (await this.context.cookies(this.site.origin)).find(({ name }) => name === 'sessionid');
  }

  /** What the sidecar says of a session; that is no activity. */
  async state(cookie) {
    return this.site.check((cookie ?? (await this.cookie())).value);
  }
}

const dialog = (page) => page.getByRole('alertdialog');
const reason = (page) => page.locator('#reason');

for (const [how, options] of Object.entries(sites)) {
  describe(how, () => {
    // Each requirement once, for the sake of time: what is in pages is the same everywhere.
    const more = options.briefly ? () => {} : test;
    let site, person;
    before(async () => { site = await Site.start({ ...options, policy: POLICY }); });
    after(async () => { await site.stop(); });
    beforeEach(async () => { person = await Person.at(site); });
    afterEach(async () => {
      await person.context.close();
      assert.deepEqual(person.complaints, []);
    });

    test('R1 the session ends when the browser is closed', async () => {
      const page = await person.begin();
      const cookie = await person.cookie();
      // A reload does not end it, nor does another page.
      const first = await site.present(cookie.value);
      await page.reload();
      await site.present(cookie.value, first);
      site.pass('1m');
      assert.match(await person.state(), /ACTIVE|EXPIRING/);
      await page.close({ runBeforeUnload: true });
      await site.says(cookie.value, /ends in [^,]* \(PRESENCE\)/);
      site.pass('31s');
      assert.match(await person.state(cookie), /ENDED .* BROWSER_CLOSED/);
      // A browser that brings its cookies back when it is started again.
      const again = await person.context.newPage();
      await again.goto(`${site.origin}/report/`);
      assert.equal(new URL(again.url()).pathname, '/login/');
      await reason(again).getByText('the browser was closed').waitFor();
    });

    more('R1 the cookie goes with the browser', async () => {
      await person.begin();
      const cookie = await person.cookie();
      assert.deepEqual([cookie.expires, cookie.httpOnly], [-1, true]);
    });

    test('R2 it ends after inactivity: a visible page that asks all the time is none, nor is a prefetch; a click is', async () => {
      const page = await person.begin();
      site.pass('10m');
      await page.getByRole('link', { name: 'Dashboard' }).click();
      await page.waitForURL('**/dashboard/');
      await person.knows(page);
      site.pass('10m');
      assert.match(await person.state(), /ACTIVE/, 'the click was 10 minutes ago');
      const polled = () => page.waitForResponse(/news/);
      await polled();
      const prefetched = page.waitForResponse(/report/);
      await page.evaluate(() => fetch('/report/', { headers: { 'Sec-Purpose': 'prefetch', Purpose: 'prefetch' } }));
      await prefetched;
      const cookie = await person.cookie();
      site.pass('3m');
      await polled();
      await dialog(page).waitFor();
      assert.match(await person.state(cookie), /EXPIRING/);
      site.pass('2m');
      await dialog(page).getByText('inactivity').first().waitFor();
      assert.match(await person.state(cookie), /ENDED .* IDLE_TIMEOUT/);
    });

    test('R3 who is logged out is told so, and why; who never was is not', async () => {
      const stranger = await Person.at(site);
      const never = await stranger.context.newPage();
      await never.goto(`${site.origin}/report/`);
      assert.equal(new URL(never.url()).pathname, '/login/');
      assert.equal(await reason(never).count(), 0);
      await stranger.context.close();
      // Nothing of this needs the module.
      await person.context.close();
      person = await Person.at(site, { javaScriptEnabled: false });
      const page = await person.context.newPage();
      await page.goto(`${site.origin}/`);
      await person.logIn(page);
      const cookie = await person.cookie();
      site.pass('16m');
      await page.goto(`${site.origin}/report/?year=2026`);
      assert.equal(new URL(page.url()).pathname, '/login/');
      await reason(page).getByText('nothing had happened').waitFor();
      assert.ok(!(await person.cookie()) || (await person.cookie()).value !== cookie.value, 'the dead cookie is taken back');
      assert.ok(!page.url().includes(cookie.value));
    });

    more('after an idle end the same person logs in again in the same browser: no loop, a new id', async () => {
      const page = await person.begin();
      const first = await person.cookie();
      site.pass('16m');
      await dialog(page).getByRole('link', { name: /log in/i }).click();
      await page.waitForURL(/\/login\//);
      await reason(page).waitFor();
      // The site sends whoever is logged in away from its login page (redirect_authenticated_user).
      await page.goto(`${site.origin}/login/`);
      assert.equal(new URL(page.url()).pathname, '/login/');
      await person.logIn(page);
      await page.getByRole('heading', { name: 'Good to see you' }).waitFor();
      await person.knows(page);
      const second = await person.cookie();
      assert.notEqual(second.value, first.value);
      assert.match(await person.state(), /ACTIVE/);
      await page.goto(`${site.origin}/login/`);
      assert.equal(new URL(page.url()).pathname, '/', 'now it does');
    });

    test('R4 a person is warned before the end, and stays; and is warned again', async () => {
      const page = await person.begin();
      site.pass('12m');
      await dialog(page).waitFor();
      assert.match(await person.state(), /EXPIRING/);
      await dialog(page).getByRole('button', { name: /stay/i }).click();
      await dialog(page).waitFor({ state: 'hidden' });
      assert.match(await person.state(), /ACTIVE/);
      site.pass('12m');
      await dialog(page).waitFor();
      const events = await page.locator('#timeline li').evaluateAll((all) => all.map((item) => item.dataset.event));
      assert.deepEqual(events.reverse(), ['warning', 'cleared', 'warning']);
    });

    more('R4 two tabs: both are warned, one extends, both go on', async () => {
      const first = await person.begin();
      const second = await person.open('/report/');
      site.pass('12m');
      await dialog(first).waitFor();
      await dialog(second).waitFor();
      await dialog(second).getByRole('button', { name: /stay/i }).click();
      await dialog(first).waitFor({ state: 'hidden' });
      await dialog(second).waitFor({ state: 'hidden' });
    });

    test('R5 long work in the browser does not time out', async () => {
      const page = await person.begin('/report/');
      const held = page.waitForResponse((response) => response.url().endsWith('/session/hold') && response.ok());
      await page.getByLabel('How long').fill('60');
      await page.getByRole('button', { name: 'Build it' }).click();
      assert.ok((await (await held).json()).granted_ttl >= 60);
      site.pass('16m');
      assert.match(await person.state(), /ACTIVE|EXPIRING/, 'nothing was asked for 16 minutes, and the work goes on');
    });

    more('a fetch of a session that is over is answered 401, and told why', async () => {
      const page = await person.begin('/report/');
      await page.evaluate(() => document.querySelector('session-sidecar').remove()); // who takes the cookie back itself, otherwise
      site.run('end', '--id-file', site.remember((await person.cookie()).value), '--reason', 'revoked');
      const told = await page.evaluate(async () => {
        const answer = await fetch('/dashboard/news/');
        return [answer.status, answer.headers.get('content-type'), await answer.text()];
      });
      assert.deepEqual(told.slice(0, 2), [401, 'application/json']);
      assert.match(told[2], /REVOKED/);
    });

    more('a page that is open when the session is revoked says why', async () => {
      const page = await person.begin('/dashboard/');
      site.run('end', '--id-file', site.remember((await person.cookie()).value), '--reason', 'revoked');
      await dialog(page).getByText('because it was revoked').first().waitFor();
    });
  });
}
