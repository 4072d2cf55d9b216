// The module for pages, in real pages: clients/browser. The requirements are those of the README's first table.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Site } from './site.mjs';

let site, visitor;
before(async () => { site = await Site.start(); });
after(async () => { await site.stop(); });
beforeEach(async () => { visitor = await site.visitor(); });
afterEach(async () => {
  await visitor.context.close();
  assert.deepEqual(visitor.complaints, [], 'no page complains, of the Content-Security-Policy or anything else');
});

const dialog = (page) => page.getByRole('alertdialog');
const stay = (page) => dialog(page).getByRole('button', { name: 'Stay logged in' });
const ended = (page) => page.getByRole('alertdialog', { name: 'You have been logged out' });

/** Waits until the door has been asked for this once more. */
async function asked(page, verb, act) {
  const answer = page.waitForResponse((response) => response.url().includes(`/-/session/${verb}`));
  await act();
  return (await answer).json();
}

/** Waits until the sidecar takes the browser for closed: the session ends after the grace. */
async function endsAsClosed() {
  await site.says(visitor.id, /ends in [^,]* \(PRESENCE\)/);
  site.pass('31s');
  assert.match(visitor.state(), /ENDED .* BROWSER_CLOSED/);
}

/** To the page without the module, where the person reads for a while, and back. */
async function thereAndBack(page, reads = '5m') {
  await page.getByRole('link', { name: 'A page without it' }).click();
  await page.getByRole('heading', { name: 'A page without the module' }).waitFor();
  site.pass(reads);
  await page.getByRole('link', { name: 'Back' }).click();
  await page.getByRole('heading', { name: 'Claim 1207' }).waitFor();
  await visitor.knows(page);
}

test('R4 a person is warned before the end, and stays', async () => {
  const page = await visitor.open();
  await page.getByLabel('What happened').fill('It rained.');
  assert.equal(await dialog(page).count(), 0);
  site.pass('12m');
  await dialog(page).waitFor();
  assert.match(await dialog(page).textContent(), /You will be logged out in (3 minutes|2 minutes \d+ seconds), because/);
  assert.ok(await stay(page).evaluate((button) => button.getRootNode().activeElement === button), 'the focus is on the way out');
  const stayed = await asked(page, 'extend', () => stay(page).click());
  assert.deepEqual([stayed.state, stayed.expires_in], ['ACTIVE', 900]);
  await dialog(page).waitFor({ state: 'hidden' });
  assert.ok(await page.getByLabel('What happened').evaluate((field) => document.activeElement === field), 'it is back where it was');
});

test('R3 the page says why the session is over, and keeps what was typed', async () => {
  const page = await visitor.open();
  await page.getByLabel('What happened').fill('It rained.');
  site.pass('16m');
  await ended(page).waitFor();
  assert.match(await ended(page).textContent(), /Your session ended by inactivity\./);
  const login = ended(page).getByRole('link', { name: 'Log in again' });
  assert.equal(await login.getAttribute('href'), `${site.origin}/login.html?reason=IDLE_TIMEOUT&next=%2Fapp.html`);
  const behind = await ended(page).evaluate((dialog) => getComputedStyle(dialog, '::backdrop').backgroundColor);
  assert.match(behind, /^rgb\(/, 'nothing shows through');
  await page.waitForFunction(() => document.querySelector('session-sidecar').session.state.state !== 'ACTIVE');
  assert.equal(await page.getByLabel('What happened').inputValue(), 'It rained.');
  // The same person logs in elsewhere in this browser: the page goes on with what was typed.
  await visitor.logIn();
  await page.evaluate(() => document.querySelector('session-sidecar').session.refresh());
  await ended(page).waitFor({ state: 'hidden' });
  assert.equal(await page.getByLabel('What happened').inputValue(), 'It rained.');
});

test('R3 a page whose stream comes too late says why all the same', async () => {
  const page = await visitor.context.newPage();
  const asked = new Promise((resolve) => page.route('**/session/events?*', resolve));
  await page.goto(`${site.origin}/app.html`);
  const stream = await asked;
  site.pass('16m');
  await stream.continue();
  await ended(page).getByText('Your session ended by inactivity.').waitFor();
});

test('R3 the cookie of an ended session is taken back, and the login page is no loop', async () => {
  const page = await visitor.open();
  site.pass('16m');
  await ended(page).waitFor();
  while ((await visitor.cookies()).length); // the answer that takes it back is under way
  await ended(page).getByRole('link', { name: 'Log in again' }).click();
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  assert.equal(new URL(page.url()).searchParams.get('next'), '/app.html');
  await visitor.logIn();
  await page.goto(`${site.origin}/app.html`);
  await page.getByRole('heading', { name: 'Claim 1207' }).waitFor();
});

test('two tabs have one stream: both are warned, one extends, both are cleared', async () => {
  const [first, second] = [await visitor.open(), await visitor.open()];
  site.pass('12m');
  await dialog(first).waitFor();
  await dialog(second).waitFor();
  assert.equal(visitor.times('events'), 1, 'one of them hears for both');
  await stay(second).click();
  await dialog(first).waitFor({ state: 'hidden' });
  await dialog(second).waitFor({ state: 'hidden' });
});

test('when the tab that hears for all is closed another one does', async () => {
  const first = await visitor.open();
  const second = await visitor.open();
  const opened = second.waitForRequest((request) => request.url().includes('/-/session/events'));
  await first.close();
  await opened;
  site.pass('12m');
  await dialog(second).waitFor();
});

test('R2 input is reported from when it was; what only a script asks for is none', async () => {
  const page = await visitor.open();
  site.pass('5m');
  const reported = await asked(page, 'activity', () => page.getByLabel('What happened').press('a'));
  assert.ok(reported.expires_in > 14 * 60 + 55, `${reported.expires_in}`);
  // A visible page that asks again and again, and nobody in front of it.
  for (let minute = 0; minute < 15; minute += 5) {
    site.pass('5m');
    assert.equal(await page.evaluate(async () => (await fetch('/poll.txt')).status), minute < 10 ? 200 : 401);
  }
  await ended(page).waitFor();
});

test('while a warning shows, pointer movement is no activity, and a key is', async () => {
  const page = await visitor.open();
  site.pass('12m');
  await dialog(page).waitFor();
  await page.mouse.move(10, 10);
  await page.mouse.move(200, 200, { steps: 5 });
  assert.equal(visitor.times('activity'), 0);
  assert.match(visitor.state(), /EXPIRING/);
  await asked(page, 'activity', () => page.keyboard.press('Shift'));
  await dialog(page).waitFor({ state: 'hidden' });
});

test('with explicit-stay only the button counts, by keyboard alone too', async () => {
  const page = await visitor.open('/explicit.html');
  site.pass('12m');
  await dialog(page).waitFor();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Shift');
  assert.equal(visitor.times('activity'), 0);
  assert.ok(await dialog(page).isVisible());
  await asked(page, 'extend', () => page.keyboard.press('Enter'));
  await dialog(page).waitFor({ state: 'hidden' });
});

test('an end that nobody can put off is said, and can be closed', async () => {
  await visitor.logIn('short');
  const page = await visitor.open();
  site.pass('5m');
  await asked(page, 'activity', () => page.getByLabel('What happened').press('a'));
  site.pass('3m');
  // It was warned of before, half-way.
  await dialog(page).getByText(/in (2 minutes|1 minute \d+ seconds), whatever you do/).first().waitFor();
  await dialog(page).getByRole('button', { name: 'OK' }).click();
  await dialog(page).waitFor({ state: 'hidden' });
  const reports = visitor.times('activity');
  await page.mouse.move(300, 300, { steps: 50 });
  assert.equal(visitor.times('activity'), reports, 'input is reported no more often than before');
  site.pass('2m');
  await ended(page).waitFor();
});

test('R5 long work holds the session, until it is done', async () => {
  const page = await visitor.open();
  const held = await asked(page, 'hold', () => page.evaluate(async () => {
    globalThis.work = await document.querySelector('session-sidecar').session.hold({ purpose: 'an export', ttl: 1200 });
  }));
  // As long as the policy allows: the page pulses in time for that.
  assert.equal(held.granted_ttl, 300);
  site.pass('16m');
  assert.match(visitor.state(), /ACTIVE/);
  await asked(page, 'release', () => page.evaluate(() => globalThis.work.release()));
  site.pass('5m');
  await ended(page).waitFor();
});

/**
 * The page's streams are asked for from now on, and never there. Not by a route: while there is one, all that a page sends as it goes waits for us, and
 * some of it may be lost with the page.
 */
const withoutStreams = (page) => page.addInitScript(() => {
  globalThis.EventSource = class extends EventTarget {
    constructor() {
      super();
      globalThis.asked = true;
    }

    close() {}
  };
});
const asksForStream = (page) => page.waitForFunction(() => globalThis.asked);

test('R1 a closed browser ends the session, after a grace', async () => {
  await visitor.logIn('pages');
  const page = await visitor.open();
  await site.present(visitor.id);
  await page.close({ runBeforeUnload: true });
  await endsAsClosed();
});

test('R1 a page that is loaded anew is another one: closed then, the browser ends the session after the same grace', async () => {
  await visitor.logIn('pages');
  const page = await visitor.open();
  const first = await site.present(visitor.id);
  await page.reload();
  const second = await site.present(visitor.id, first);
  // So is the one that a link leads to.
  await page.getByRole('link', { name: 'A page without it' }).click();
  await page.getByRole('heading', { name: 'A page without the module' }).waitFor();
  await page.goBack();
  await site.present(visitor.id, second);
  await page.close({ runBeforeUnload: true });
  await endsAsClosed();
});

test('R1 a browser that is closed before its page has a stream ends the session after the same grace', async () => {
  await visitor.logIn('pages');
  const page = await visitor.context.newPage();
  await withoutStreams(page);
  await page.goto(`${site.origin}/app.html`);
  await asksForStream(page);
  await page.close({ runBeforeUnload: true });
  await endsAsClosed();
});

test('R1 a page that is closed before it has a stream leaves nothing open of the page before it', async () => {
  await visitor.logIn('pages');
  const page = await visitor.open();
  await site.present(visitor.id);
  await page.getByRole('link', { name: 'A page without it' }).click();
  await page.getByRole('heading', { name: 'A page without the module' }).waitFor();
  await withoutStreams(page);
  await page.getByRole('link', { name: 'Back' }).click();
  await asksForStream(page);
  await page.close({ runBeforeUnload: true });
  await endsAsClosed();
});

test('R1 a page that is left before it hears of its own stream is no longer taken for open once the next one has a stream', async () => {
  await visitor.logIn('pages');
  const page = await visitor.open();
  const first = await site.present(visitor.id);
  await page.getByRole('link', { name: 'A page without it' }).click();
  await page.getByRole('heading', { name: 'A page without the module' }).waitFor();
  const asked = new Promise((resolve) => page.route('**/session/events?*', resolve, { times: 1 }));
  await page.getByRole('link', { name: 'Back' }).click();
  // The sidecar has the request, and the page no answer.
  const url = (await asked).request().url();
  const stream = new AbortController();
  await fetch(url, { headers: { Cookie: `sid=${visitor.id}` }, signal: stream.signal });
  const second = new URL(url).searchParams.get('page');
  await site.says(visitor.id, new RegExp(`hold "tab.${second}"`));
  stream.abort();
  await thereAndBack(page, '1s');
  const third = await site.present(visitor.id, second);
  assert.notEqual(third, first);
});

test('R1 of tabs that are closed together none has a stream afterwards', async () => {
  await visitor.logIn('pages');
  const first = await visitor.open();
  const second = await visitor.open();
  await site.present(visitor.id);
  // It goes, and the first one's lead comes to it before it is gone.
  const opens = second.waitForRequest(/session\/events/).then(() => 'a stream', () => 'none');
  const passedOn = second.evaluate(() => {
    dispatchEvent(new PageTransitionEvent('pagehide'));
    return navigator.locks.request(`session-sidecar ${location.origin}/-/session/`, () => 'the lead is passed on');
  });
  await first.close({ runBeforeUnload: true });
  assert.equal(await Promise.race([opens, passedOn]), 'the lead is passed on');
  await second.close();
  await endsAsClosed();
});

test('R1 from a page with the module to one without and back, nobody is thrown out', async () => {
  await visitor.logIn('pages');
  const page = await visitor.open();
  await site.present(visitor.id);
  await thereAndBack(page);
  site.pass('5m');
  assert.match(visitor.state(), /ACTIVE/);
});

test('R1 nor is who goes on before the page has a stream', async () => {
  await visitor.logIn('pages');
  const page = await visitor.context.newPage();
  await withoutStreams(page);
  await page.goto(`${site.origin}/app.html`);
  await asksForStream(page);
  await thereAndBack(page);
  site.pass('5m');
  assert.match(visitor.state(), /ACTIVE/);
});

test('work ends with its page', async () => {
  const page = await visitor.open();
  await asked(page, 'hold', () => page.evaluate(async () => {
    await document.querySelector('session-sidecar').session.hold({ purpose: 'an export' });
  }));
  assert.match(visitor.state(), /hold "page/);
  await page.close({ runBeforeUnload: true });
  await site.says(visitor.id, /^(?!.*hold)/);
});

test('a laptop that sleeps through the end knows when it wakes', async () => {
  const page = await visitor.open();
  await visitor.context.setOffline(true);
  site.pass('16m');
  await visitor.context.setOffline(false);
  await page.evaluate(() => window.dispatchEvent(new Event('focus')));
  await ended(page).waitFor();
});

test('a tab that is frozen for minutes keeps no other from knowing, and knows when it wakes', async () => {
  const first = await visitor.open();
  const second = await visitor.open('/app.html', { stopped: true });
  const browser = await visitor.context.newCDPSession(first);
  await browser.send('Page.setWebLifecycleState', { state: 'frozen' });
  site.pass('12m');
  await second.clock.fastForward('00:31');
  await dialog(second).waitFor();
  await stay(second).click();
  await dialog(second).waitFor({ state: 'hidden' });
  site.pass('16m');
  await browser.send('Page.setWebLifecycleState', { state: 'active' });
  await ended(first).waitFor();
});

test('a gateway that is restarted while a warning shows costs nobody anything', async () => {
  const page = await visitor.open();
  site.pass('12m');
  await dialog(page).waitFor();
  const again = page.waitForResponse((response) => response.url().includes('/-/session/events') && response.ok());
  await site.restartGateway();
  await asked(page, 'extend', () => stay(page).click());
  await dialog(page).waitFor({ state: 'hidden' });
  await again;
  site.pass('12m');
  await dialog(page).waitFor();
});

test('where there are no locks a page asks now and then', async () => {
  await visitor.context.addInitScript(() => delete Navigator.prototype.locks);
  const page = await visitor.context.newPage();
  await page.clock.install();
  await page.goto(`${site.origin}/app.html`);
  await visitor.knows(page);
  assert.equal(visitor.times('events'), 0);
  site.pass('12m');
  await page.clock.fastForward('00:31');
  await dialog(page).waitFor();
});

test('a sidecar that is away at the end is not taken for the end, but the page is covered', async () => {
  const page = await visitor.context.newPage();
  await page.clock.install();
  await page.goto(`${site.origin}/app.html`);
  await visitor.knows(page);
  await site.killSidecar();
  try {
    await page.clock.fastForward('15:02');
    await ended(page).waitFor();
    assert.match(await ended(page).textContent(), /cannot be reached/);
  } finally {
    await site.startSidecar();
  }
  // The store of this one was its memory: it knows nothing of the session, and says so.
  await page.clock.fastForward('00:06');
  await ended(page).getByRole('link', { name: 'Log in again' }).waitFor();
});

test('a page hears of time that is left at two minutes, one and half a minute, not every second', async () => {
  const page = await visitor.context.newPage();
  await page.clock.install();
  await page.goto(`${site.origin}/app.html`);
  await visitor.knows(page);
  site.pass('12m');
  await dialog(page).waitFor();
  // What it would be told by the sidecar, whose clock stands still.
  await page.route('**/-/session', (route) => route.abort());
  await page.evaluate(() => {
    globalThis.heard = [];
    const told = document.querySelector('session-sidecar').shadowRoot.querySelector('[aria-live=polite]');
    new MutationObserver(() => globalThis.heard.push(told.textContent)).observe(told, { childList: true, characterData: true, subtree: true });
  });
  await page.clock.runFor('02:58');
  const heard = await page.evaluate(() => globalThis.heard);
  assert.deepEqual(heard.map((said) => said.match(/in (.*?),/)[1]), ['2 minutes', '1 minute', '30 seconds']);
});

test('a page of another site can change nothing', async () => {
  const page = await visitor.context.newPage();
  await page.goto(`http://127.0.0.1:${site.web}/login.html`);
  const status = await page.evaluate(async (url) => {
    const tries = { simple: {}, custom: { headers: { 'X-Session-Sidecar': '1' } } };
    const told = {};
    for (const [name, more] of Object.entries(tries)) {
      told[name] = await fetch(url, { method: 'POST', credentials: 'include', ...more }).then((answer) => answer.type, () => 'refused');
    }
    return told;
  }, `${site.origin}/-/session/extend`);
  assert.deepEqual(status, { simple: 'refused', custom: 'refused' });
  visitor.complaints = visitor.complaints.filter((text) => !/CORS policy|Content Security Policy/.test(text));
});
