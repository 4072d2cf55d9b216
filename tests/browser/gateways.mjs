// The gateways that stand before the site, each as its page in docs/ has it, but for the ports; and for its patience with the sidecar, unless a test
// is about that: a busy machine may stall for longer than is documented.

import { spawn } from 'node:child_process';
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const repository = resolve(import.meta.dirname, '../..');

/** A text of the file, which has all that is to be another. */
function changed(file, text, changes) {
  return Object.entries(changes).reduce((text, [theirs, ours]) => {
    if (!text.includes(theirs)) throw new Error(`${file} has no ${theirs}`);
    return text.replaceAll(theirs, ours);
  }, text);
}

/** The configuration of a page, with other ports. */
function documented(page, language, ports) {
  const [, conf] = readFileSync(join(repository, 'docs', page), 'utf8').match(new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, 's'));
  return changed(`docs/${page}`, conf, ports);
}

class Nginx {
  constructor(site, change) {
    this.work = site.work;
    const ports = { 'listen 80': `listen 127.0.0.1:${site.web}`, '127.0.0.1:50153': `127.0.0.1:${site.door}`, '127.0.0.1:8000': `127.0.0.1:${site.app}` };
    writeFileSync(join(site.work, 'site.conf'), change(documented('nginx.md', 'nginx', ports)));
    const around = readFileSync(join(import.meta.dirname, 'nginx.conf'), 'utf8');
    writeFileSync(join(site.work, 'nginx.conf'), around.replaceAll('WORK', site.work));
  }

  spawn() {
    const options = ['-p', this.work, '-e', 'stderr', '-c', join(this.work, 'nginx.conf')];
    return spawn(join(repository, '.tools/bin/nginx'), options, { stdio: 'inherit' });
  }
}

class Envoy {
  constructor(site, change, patient) {
    this.file = join(site.work, 'envoy.yaml');
    const at = (port) => `127.0.0.1, port_value: ${port} }`;
    const ports = { '0.0.0.0, port_value: 80 }': at(site.web), [at(50151)]: at(site.api), [at(50153)]: at(site.door), [at(8000)]: at(site.app) };
    const patience = patient && { 'timeout: 0.25s': 'timeout: 20s' };
    writeFileSync(this.file, change(documented('envoy.md', 'yaml', { ...ports, ...patience })));
  }

  spawn() {
    const options = ['-c', this.file, '--use-dynamic-base-id', '--concurrency', '1', '--log-level', 'error'];
    return spawn(join(repository, '.tools/venv/bin/envoy'), options, { stdio: 'inherit' });
  }
}

/** The example of docs/gateway.md, copied as its users copy it. What the others are told by the policy file it is told by settings of its own. */
class Own {
  constructor(site, change, patient) {
    this.work = join(site.work, 'gateway');
    cpSync(join(repository, 'examples/gateway'), this.work, { recursive: true });
    symlinkSync(join(repository, 'tests/conformance/node_modules'), join(this.work, 'node_modules'));
    const asks = join(this.work, 'sidecar.mjs');
    if (patient) writeFileSync(asks, changed(asks, readFileSync(asks, 'utf8'), { 'PATIENCE = 250;': 'PATIENCE = 20_000;' }));
    const at = (port) => `127.0.0.1:${port}`;
    const ports = { '0.0.0.0:80\n': `${at(site.web)}\n`, [at(50151)]: at(site.api), [at(50153)]: at(site.door), [at(8000)]: at(site.app) };
    let conf = documented('gateway.md', 'ini', { ...ports, '../../proto': join(repository, 'proto') });
    const [door, ...routes] = readFileSync(join(site.work, 'policy.toml'), 'utf8').split('[door]')[1].split('[[door.routes]]');
    const set = (key, value) => { conf = conf.replace(new RegExp(`^${key}=.*`, 'm'), `${key}=${value}`); };
    set('COOKIE', door.match(/cookies = \["(.*?)"\]/)[1]);
    set('LOGIN_URL', door.match(/login_url = "(.*?)"/)[1]);
    if (door.includes('unknown = "start"')) set('UNKNOWN', 'start');
    for (const route of routes) {
      const key = route.includes('public = true') ? 'PUBLIC' : 'PASSIVE';
      const paths = route.match(/path = (.*)/)[1].replace(/[[\]" ]/g, '');
      conf = conf.replace(new RegExp(`^${key}=`, 'm'), `${key}=${paths},`);
    }
    writeFileSync(join(this.work, 'gateway.env'), change(conf));
  }

  spawn() {
    // What is set already would win over the file.
    return spawn(process.execPath, ['--env-file=gateway.env', 'gateway.mjs'], { cwd: this.work, env: {}, stdio: 'inherit' });
  }
}

export const gateways = { nginx: Nginx, envoy: Envoy, own: Own };
