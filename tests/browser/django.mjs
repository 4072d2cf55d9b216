// The example site of clients/django as an application: with its package, or behind a gateway, where it knows nothing of the sidecar.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { repository, says } from './site.mjs';

const clients = join(repository, 'clients');
const python = join(repository, '.tools/venv/bin/python');

/** What the policy file says of the site's requests. */
export const DOOR = `
[door]
cookies = ["sessionid"]
login_url = "/login/"
unknown = "start"
start = { app_session_age = "14d" }

[[door.routes]]
path = "/static/**"
public = true

[[door.routes]]
path = "/dashboard/news/"
passive = true
`;

export const POLICY = `
[policy.default]
idle_timeout = "15m"
absolute_timeout = "2h"
warn_before = ["3m", "1m"]
tombstone_ttl = "14d"
presence = { leave_grace = "30s", lost_grace = "20m" }
${DOOR}`;

/** `mode`: package or plain. `poll`: how many seconds its dashboard waits before it asks again. */
export const django = (mode, poll = 0.05) => async (site) => {
  const paths = [join(clients, 'django/example'), ...(mode === 'package' ? [join(clients, 'django/src'), join(clients, 'python/src')] : [])];
  const env = {
    ...process.env,
    PYTHONPATH: paths.join(':'),
    DJANGO_SETTINGS_MODULE: 'notebook.settings',
    SITE_MODE: mode,
    SITE_DATABASE: join(site.work, 'site.sqlite3'),
    SITE_POLL_SECONDS: String(poll),
    // A busy machine may stop everything for longer than the 250 ms that a call has.
    SITE_DEADLINE_SECONDS: site.patient ? '20' : '0.25',
    SESSION_SIDECAR_TARGET: `127.0.0.1:${site.api}`,
  };
  const prepared = spawnSync(python, ['-m', 'django', 'prepare'], { env, encoding: 'utf8' });
  if (prepared.status !== 0) throw new Error(prepared.stderr);
  const options = ['-m', 'uvicorn', '--host', '127.0.0.1', '--port', site.app, '--timeout-graceful-shutdown', '1', 'notebook.asgi:application'];
  const server = spawn(python, options.map(String), { env, stdio: ['ignore', 'ignore', 'pipe'] });
  await says(server, server.stderr, 'Uvicorn running');
  server.stderr.resume();
  const stop = async () => {
    const gone = once(server, 'exit');
    server.kill('SIGKILL');
    await gone;
  };
  return { login: '/login/', stop };
};
