// The demo of `./dev run`: a small Django site whose sessions end soon, behind Envoy, behind NGINX, or with the Django package alone. With
// --once Chromium plays a person's visit, in real time, and the demo ends; that is how it is tested.
//
//     node examples/demo/run.mjs [--gateway envoy|nginx|none] [--once]

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { DOOR, django } from '../../tests/browser/django.mjs';
import { Site, binary } from '../../tests/browser/site.mjs';

const POLICY = `
[policy.default]
idle_timeout = "40s"
absolute_timeout = "10m"
warn_before = ["20s", "10s"]
absolute_warn_before = ["1m"]
tombstone_ttl = "14d"
presence = { leave_grace = "5s", lost_grace = "40s" }
${DOOR}`;

const STANDS = {
  envoy: 'behind Envoy: the site itself has not a line of code for it',
  nginx: 'behind NGINX: the site itself has not a line of code for it',
  none: 'with the Django package, and no gateway',
};

const { values } = parseArgs({ options: { gateway: { type: 'string', default: 'envoy' }, once: { type: 'boolean', default: false } } });
const { gateway, once } = values;
if (!(gateway in STANDS)) {
  console.error(`--gateway ${gateway}: there are ${Object.keys(STANDS).join(', ')}`);
  process.exit(64);
}

const site = await Site.start({
  gateway,
  patient: once,
  policy: POLICY,
  application: django(gateway === 'none' ? 'package' : 'plain', 2),
  flags: ['--log-format', 'human'],
  // A visit that is only played needs no usual ports, and may be played beside another one.
  ports: once ? {} : { api: 50151, admin: 50152, door: 50153, ...(gateway === 'none' ? { app: 8080 } : { web: 8080 }) },
  browser: once,
});
const watch = spawn(binary, ['watch', '--target', `http://127.0.0.1:${site.api}`], { stdio: ['ignore', 'pipe', 'inherit'] });
createInterface({ input: watch.stdout }).on('line', (line) => console.log(`  >> ${line}`));

async function stop(code) {
  watch.kill();
  await site.stop();
  process.exit(code);
}
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stop(0));

const to = site.api === 50151 ? '' : ` --target http://127.0.0.1:${site.api}`;
console.log(`
  Open  ${site.origin}  and log in as ada (the password is ada).

  It is a small Django site ${STANDS[gateway]}.
  Its sessions end after 40 s of inactivity, and warn 20 s before. You may:

    wait               you are warned, and can stay; or are logged out, and told why
    open a second tab  both are warned, and one button does for both
    type               that is activity; what you typed is still there after you have logged in again
    look at Dashboard  it asks for news all the time, which is no activity
    build the Report   long work: nobody is thrown out of it
    close the browser  5 s later the session is over

  What the sidecar tells (${gateway === 'none' ? 'the package' : 'a gateway'} hears the same) follows here. From another terminal:

    ${binary} watch${to} --initial-state
    curl -s http://127.0.0.1:${site.admin}/metrics | grep session_sidecar_live

  Ctrl-C stops all of it.
`);

if (once) {
  try {
    await visit();
    await stop(0);
  } catch (error) {
    console.error(error);
    await stop(1);
  }
}

/** What a person sees who does as they are told. */
async function visit() {
  const say = (text) => console.log(`  ${text}`);
  const context = await site.browser.newContext();
  const page = await context.newPage();
  const dialog = page.getByRole('alertdialog');
  page.setDefaultTimeout(60_000);
  const logIn = async () => {
    await page.getByLabel('Name').fill('ada');
    await page.getByLabel('Password').fill('ada');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('heading', { name: 'Good to see you, ada' }).waitFor();
  };
  await page.goto(site.origin);
  await logIn();
  say('ada has logged in');
  await dialog.waitFor();
  say(`she is warned: ${await dialog.locator('p').first().textContent()}`);
  await dialog.getByRole('button', { name: 'Stay logged in' }).click();
  await dialog.waitFor({ state: 'hidden' });
  say('she stays');
  await dialog.getByRole('heading', { name: 'You have been logged out' }).waitFor();
  say(`she does nothing more: ${await dialog.locator('p').first().textContent()}`);
  await dialog.getByRole('link', { name: 'Log in again' }).click();
  const reason = await page.locator('#reason').textContent();
  assert.match(reason, /nothing had happened/);
  say(`the login page says: ${reason}`);
  await logIn();
  say('she has logged in again');
}
