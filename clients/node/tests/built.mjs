// Whoever tests the package tests what its sources say now: this compiles them.

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const here = join(import.meta.dirname, '..');
execFileSync(join(here, 'node_modules/.bin/tsc'), { cwd: here, stdio: ['ignore', 2, 2] });
