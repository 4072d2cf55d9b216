// Runs all tests of this folder, one after the other: each file has a site of its own. What hangs has failed. The last line is `N passed, N failed`.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

const files = process.argv.slice(2);
const all = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.test.mjs'));
const tests = run({ files: (files.length ? files : all).map((name) => join(import.meta.dirname, name)), concurrency: 1, timeout: 900_000 });
let [passed, failed] = [0, 0];
const counts = (event) => event.details?.type !== 'suite';
tests.on('test:pass', (event) => { if (counts(event)) event.skip || event.todo ? failed++ : passed++; });
tests.on('test:fail', (event) => { if (counts(event)) failed++; });
tests.on('end', () => {
  // Behind what the reporter has to say.
  setImmediate(() => {
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = failed || !passed ? 1 : 0;
  });
});
tests.compose(spec).pipe(process.stdout);
