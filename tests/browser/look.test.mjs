// How the dialog looks and reads: axe-core finds nothing in any of its states. With UPDATE_DOCS=1 the pictures of docs/ are taken anew.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Site, repository } from './site.mjs';

const axe = readFileSync(join(import.meta.dirname, 'node_modules/axe-core/axe.min.js'), 'utf8');
const pictures = join(repository, 'docs/pictures');

let site;
before(async () => { site = await Site.start(); });
after(async () => { await site.stop(); });

const narrow = { viewport: { width: 320, height: 400 }, deviceScaleFactor: 2 }; // 640 pixels at 200 %
const looks = {
  light: { path: '/app.html' },
  dark: { path: '/app.html', colorScheme: 'dark' },
  'right-to-left': { path: '/rtl.html' },
  'zoomed-200': { path: '/app.html', ...narrow },
  'forced-colors': { path: '/app.html', forcedColors: 'active' },
};
const states = {
  warning: ['12m'],
  ended: ['12m', '4m'],
};

for (const [look, { path, ...options }] of Object.entries(looks)) {
  for (const [state, passes] of Object.entries(states)) {
    test(`axe finds nothing: ${state}, ${look}`, async () => {
      const visitor = await site.visitor({ viewport: { width: 800, height: 500 }, reducedMotion: 'reduce', ...options });
      const page = await visitor.open(path, { stopped: true });
      const dialog = page.getByRole('alertdialog');
      for (const passing of passes) site.pass(passing);
      await dialog.waitFor();
      if (state === 'ended') await dialog.getByRole('link', { name: 'Log in again' }).waitFor();
      const wide = await page.evaluate(() => {
        const box = document.querySelector('session-sidecar').shadowRoot.querySelector('dialog');
        const { left, right, top, bottom } = box.getBoundingClientRect();
        return left >= 0 && right <= innerWidth && top >= 0 && bottom <= innerHeight && box.scrollWidth <= box.clientWidth;
      });
      assert.ok(wide, 'all of it can be seen');
      if (process.env.UPDATE_DOCS) {
        mkdirSync(pictures, { recursive: true });
        await page.screenshot({ path: join(pictures, `${state}-${look}.png`) });
      }
      await page.clock.resume(); // axe waits
      // As a function body, for the page's Content-Security-Policy lets no script in.
      const { violations } = await page.evaluate(`(() => { ${axe}\n; return axe.run(); })()`);
      assert.deepEqual(violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html)}`), []);
      await visitor.context.close();
    });
  }
}
