// A site as people run it: an application behind NGINX, Envoy or the example gateway as docs/ has them, a sidecar, and Chromium. The sidecar's clock is the
// test's: it passes only when a test says so.

import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as http from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';
import { freePort, standingStill } from '../support/process.mjs';
import { gateways } from './gateways.mjs';

const here = import.meta.dirname;
export const repository = resolve(here, '../..');
export const binary = resolve(repository, process.env.SIDECAR_UNDER_TEST ?? 'target/debug/session-sidecar');

const POLICY = `
[policy.default]
idle_timeout = "15m"
absolute_timeout = "2h"
warn_before = ["3m", "1m"]

[policy.pages]
idle_timeout = "15m"
absolute_timeout = "2h"
warn_before = ["3m", "1m"]
presence = { leave_grace = "30s", lost_grace = "20m" }

[policy.short]
idle_timeout = "10m"
absolute_timeout = "10m"
warn_before = ["2m"]

[door]
cookies = ["sid"]
login_url = "/login.html"

[[door.routes]]
path = ["/page.css", "/logout"]
public = true
`;

/** An application of pages: it knows nothing of the sidecar, and remembers what it was sent. */
function pages(site) {
  site.sent = [];
  const kinds = { '.html': 'text/html', '.css': 'text/css', '.txt': 'text/plain' };
  const csp = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'";
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://site');
    site.sent.push({ path: pathname, headers: request.headers });
    let page;
    try { page = readFileSync(join(here, 'site', pathname)); } catch { return response.writeHead(404).end(); }
    const fresh = new URL(request.url, 'http://site').searchParams.get('sets');
    if (fresh) response.setHeader('Set-Cookie', `sid=${fresh}; Path=/`);
    const about = { 'Content-Type': kinds[extname(pathname)], 'Content-Security-Policy': csp, 'Cache-Control': 'no-store' };
    response.writeHead(200, about).end(page);
  }).listen(site.app, '127.0.0.1');
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { login: '/login.html', stop };
}

/** Waits until the process says a line like this; fails if it ends. */
export async function says(child, stream, line) {
  const all = [];
  for await (const said of createInterface({ input: stream })) {
    if (said.includes(line)) return;
    all.push(said);
  }
  throw new Error(`${child.spawnfile} ended before it said ${line}:\n${all.join('\n')}`);
}

export class Site {
  /**
   * `gateway`: nginx, envoy, own (the example of docs/gateway.md) or none. `change` may make its documented configuration another one. `patient`: whether it,
   * or an application that asks the sidecar itself, waits longer than is documented. `flags` of the sidecar: its clock is the test's unless they say otherwise. `ports` that are wanted, if
   * they are free; `browser`: whether there is one.
   */
  static async start({ gateway = 'nginx', change = (conf) => conf, patient = true, policy = POLICY, application = pages, flags = ['--dev'], ports = {}, browser = true } = {}) {
    const site = new Site();
    site.work = mkdtempSync(join(tmpdir(), 'session-site-'));
    site.flags = flags;
    site.patient = patient;
    writeFileSync(join(site.work, 'policy.toml'), policy);
    for (const port of ['api', 'admin', 'door', 'web', 'app']) site[port] = await freePort(ports[port]);
    await site.startSidecar();
    site.application = await application(site);
    if (gateway === 'none') site.web = site.app;
    else {
      site.gateway = new gateways[gateway](site, change, patient);
      await site.startGateway();
    }
    if (browser) {
      site.browser = await chromium.launch({
        executablePath: '/usr/bin/chromium',
        args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
      });
    }
    return site;
  }

  get origin() {
    return `http://localhost:${this.web}`;
  }

  async startSidecar() {
    const options = ['--policy-file', join(this.work, 'policy.toml'), '--listen', `tcp://127.0.0.1:${this.api}`];
    options.push('--admin-listen', `127.0.0.1:${this.admin}`, '--door-listen', `127.0.0.1:${this.door}`);
    this.sidecar = spawn(binary, ['serve', ...this.flags, ...options], { stdio: ['ignore', 'ignore', 'pipe'] });
    await says(this.sidecar, this.sidecar.stderr, ' INFO serving');
    this.sidecar.stderr.resume();
  }

  async startGateway() {
    this.proxy = this.gateway.spawn();
    const until = performance.now() + 60_000;
    for (;;) {
      // It has no word for it: it serves when it answers.
      const answer = await fetch(this.origin + this.application.login, { signal: AbortSignal.timeout(10_000) }).catch((error) => error);
      if (answer.ok) break;
      if (this.proxy.exitCode !== null) throw new Error('the gateway ended');
      if (performance.now() > until) throw new Error(`the gateway does not serve: ${answer.status ?? answer.cause ?? answer}`);
    }
  }

  async restartGateway() {
    const gone = once(this.proxy, 'exit');
    this.proxy.kill('SIGTERM');
    await gone;
    await this.startGateway();
  }

  async killSidecar() {
    const gone = once(this.sidecar, 'exit');
    this.sidecar.kill('SIGKILL');
    await gone;
  }

  /** While `during` runs, the sidecar hangs. */
  standingStill(during) {
    return standingStill(this.sidecar, during);
  }

  async stop() {
    await this.browser?.close();
    for (const child of [this.proxy, this.sidecar]) {
      if (!child || child.exitCode !== null || child.signalCode !== null) continue;
      const gone = once(child, 'exit');
      child.kill('SIGTERM');
      await gone;
    }
    await this.application?.stop();
    rmSync(this.work, { recursive: true, force: true });
  }

  /** What the sidecar's own command line answers. */
  run(command, ...options) {
    const all = [command, '--target', `http://127.0.0.1:${this.api}`, ...options];
    return execFileSync(binary, all, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  }

  /** Writes an id down where the command line finds it. */
  remember(id) {
    const file = join(this.work, 'id');
    writeFileSync(file, id);
    return file;
  }

  /** What the sidecar says of a session; that is no activity. */
  check(id) {
    return this.run('check', '--id-file', this.remember(id));
  }

  /** Waits until the sidecar says this of a session: that a page was closed, say, which nothing here is told of. Answers what matched. */
  async says(id, what) {
    const until = performance.now() + 30_000;
    let said;
    do {
      if (performance.now() > until) throw new Error(`the sidecar never said ${what}, but ${said}`);
      await new Promise(setImmediate);
      said = this.check(id);
    } while (!what.test(said));
    return said.match(what);
  }

  /** Waits until one page holds PRESENCE, and that is not `before`; answers which. */
  async present(id, before = '-') {
    const [, page] = await this.says(id, new RegExp(`^(?!.*hold "tab.*hold "tab).*hold "tab\\.(?!${before}")([^"]+)"`));
    return page;
  }

  /** Time passes for the sidecar. */
  pass(duration) {
    this.run('advance', duration);
  }

  /** A browser of somebody who has just logged in. */
  async visitor({ policy = 'default', ...options } = {}) {
    const context = await this.browser.newContext(options);
    const visitor = new Visitor(this, context);
    await visitor.logIn(policy);
    return visitor;
  }
}

export class Visitor {
  constructor(site, context) {
    this.site = site;
    this.context = context;
    this.asked = []; // what its pages have asked the door, with what they sent
    this.complaints = [];
    context.on('request', (request) => {
      const { pathname } = new URL(request.url());
      if (pathname.startsWith('/-/session')) this.asked.push({ verb: pathname.slice('/-/session/'.length), body: request.postData() });
    });
    context.on('weberror', (problem) => this.complaints.push(String(problem.error())));
    context.on('console', (message) => {
      // A refusal that a test is about is told of too, as a resource that could not be loaded.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) this.complaints.push(message.text());
    });
  }

  async logIn(policy = 'default') {
    this.id = this.site.run('create', '--subject', 'ada', '--policy', policy);
    await this.context.addCookies([{ name: 'sid', value: this.id, url: this.site.origin, httpOnly: true, sameSite: 'Lax' }]);
  }

  /** Opens a page, and waits until its module knows the session, and has a stream if there is no other page to have it. */
  async open(path = '/app.html', { stopped = false } = {}) {
    const page = await this.context.newPage();
    // Its time stands still, so that what it says can be told in advance.
    if (stopped) await page.clock.install();
    const leads = this.context.pages().length === 1;
    const opened = leads ? page.waitForResponse((response) => response.url().includes('/-/session/events') && response.ok()) : null;
    await Promise.all([opened, page.goto(this.site.origin + path).then(() => this.knows(page))]);
    if (stopped) await page.clock.pauseAt((await page.evaluate(() => Date.now())) + 1000);
    return page;
  }

  /** Waits until the page's module, which may not be there yet, knows the session. */
  knows(page) {
    return page.waitForFunction(() => document.querySelector('session-sidecar')?.session?.state.state === 'ACTIVE');
  }

  /** What the sidecar says of the session; that is no activity. */
  state() {
    return this.site.check(this.id);
  }

  async cookies() {
    return (await this.context.cookies(this.site.origin)).map((cookie) => cookie.name);
  }

  times(verb) {
    return this.asked.filter((asked) => asked.verb === verb).length;
  }
}
