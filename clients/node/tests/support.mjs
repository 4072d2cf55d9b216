// A session-sidecar process under test, and what the tests share.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Sidecar } from 'session-sidecar';
import { FakeSidecar } from 'session-sidecar/fake';
import { freePort, standingStill } from '../../../tests/support/process.mjs';

export { freePort };

export const client = join(import.meta.dirname, '..');
export const repository = resolve(client, '../..');
export const binary = resolve(repository, process.env.SIDECAR_UNDER_TEST ?? 'target/debug/session-sidecar');
export const NEVER_ISSUED = 'an-id-that-was-never-issued';
// For calls that are not about deadlines, and for what should happen at once. Only a failing test waits as long.
export const PATIENCE = 30_000;
export const MINUTE = 60_000;

/** Polls until the condition holds, and answers its value. */
export async function eventually(condition, what) {
  const until = Date.now() + PATIENCE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < until, `waited in vain: ${what}`);
    await sleep(10);
  }
}

const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(SESSION_SIDECAR_|RUST_LOG)/.test(name)));

/** `session-sidecar serve`, on a TCP port, where another may follow it, and a socket; it is killed when the test `t` is over. `tcpQuery`: of the port alone. */
export async function serve(t, { query = '', tcpQuery = query, port, args = ['--dev'], policy } = {}) {
  const home = mkdtempSync(join(tmpdir(), 'sidecar-'));
  if (policy) writeFileSync(join(home, 'policy.toml'), policy);
  const listen = ['--listen', `tcp://127.0.0.1:${port ?? await freePort()}${tcpQuery}`, '--listen', `unix://${home}/socket${query}`, '--admin-listen', '127.0.0.1:0'];
  const child = spawn(binary, ['serve', '--log-format', 'human', ...args, ...(policy ? ['--policy-file', join(home, 'policy.toml')] : []), ...listen], {
    env: environment, stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output += data; });
  const exited = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
    rmSync(home, { recursive: true });
    assert.doesNotMatch(output, /panicked/);
  });
  await eventually(() => {
    assert.equal(child.exitCode, null, output);
    return / INFO serving$/m.test(output);
  }, 'the sidecar is ready');
  const [, tcp] = output.match(/listening endpoint=tcp:\/\/(\S+)/);
  const [, admin] = output.match(/listening for admin endpoint=http:\/\/(\S+)/);
  return {
    child, tcp, admin, uds: `unix:${home}/socket`, port: Number(tcp.split(':')[1]),
    /** A metric, by its name and labels. */
    async metric(name) {
      const lines = (await (await fetch(`http://${admin}/metrics`)).text()).split('\n');
      return Number(lines.find((line) => line.startsWith(`session_sidecar_${name} `)).split(' ')[1]);
    },
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
    async stop() {
      child.kill('SIGTERM');
      await exited;
    },
    /** While `during` runs, it hangs. */
    standingStill: (during) => standingStill(child, during),
  };
}

/** A client that keeps what it would log. */
export function connect(t, target, options = {}) {
  const logged = [];
  const sidecar = new Sidecar({ target, deadline: PATIENCE, logger: { warn: (message) => logged.push(message) }, ...options });
  t.after(() => sidecar.close());
  return Object.assign(sidecar, { logged });
}

/** With the policy of `serve --dev`. */
export const fakeOfDev = () => new FakeSidecar({ policy: { idle_timeout: '20s', absolute_timeout: '10m', warn_before: ['10s', '5s'], absolute_warn_before: ['1m', '20s'] } });

/** The events of a watch up to one of this kind. */
export async function until(watch, kind) {
  const told = [];
  const late = setTimeout(() => watch.close(), PATIENCE);
  for (;;) {
    const { value, done } = await watch.next();
    assert.ok(!done, `waited in vain for ${kind}, after ${told.map((event) => event.kind)}`);
    told.push(value);
    if (value.kind === kind) break;
  }
  clearTimeout(late);
  return told;
}
