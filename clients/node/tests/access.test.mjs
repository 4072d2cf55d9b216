// TLS, client certificates and tokens, against a listener for other machines.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { inspect, promisify } from 'node:util';
import { NotPermittedError, Sidecar, SidecarAdmin, SidecarError, SidecarUnreachableError } from 'session-sidecar';
import { client, connect, eventually, freePort, NEVER_ISSUED, PATIENCE, serve, until } from './support.mjs';

const TOKEN = 'dG9rZW4tb2YtdGhlLXNob3A=';
const NEXT = 'dGhlLW5leHQtdG9rZW4tcGxlYXNl';
const NOBODYS = 'YS10b2tlbi1vZi1ub2JvZHk=';
const VERBS = 'verbs=use,issue,end,watch-all,admin';

let home;
const file = (name) => join(home, name);
const written = (name, content) => {
  writeFileSync(file(name), content);
  return file(name);
};
/** As Kubernetes and careful people do it. */
const replaced = (name, content) => renameSync(written(`${name}.new`, content), file(name));

before(() => {
  home = mkdtempSync(join(tmpdir(), 'sidecar-'));
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const openssl = (...words) => execFileSync('openssl', words, { cwd: home, stdio: 'pipe' });
  for (const authority of ['ca', 'other']) {
    openssl('req', '-x509', '-days', '3', '-subj', `/CN=${authority}`, '-keyout', `${authority}.key`, '-out', `${authority}.crt`, ...key);
  }
  for (const [name, names] of [['server', 'DNS:localhost,IP:127.0.0.1'], ['elsewhere', 'DNS:elsewhere.example'], ['shop', 'DNS:shop.example']]) {
    writeFileSync(file('names'), `basicConstraints=CA:FALSE\nsubjectAltName=${names}\n`);
    openssl('req', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`, ...key);
    openssl('x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '3', '-extfile', 'names', '-out', `${name}.crt`);
  }
  writeFileSync(file('token'), `\n${TOKEN}\n${NEXT}\n`);
});
after(() => rmSync(home, { recursive: true }));

/** A sidecar with TLS, and where it is. */
async function serveTls(t, { more = '', name = 'server' } = {}) {
  const process = await serve(t, { tcpQuery: `?${VERBS}&tls-cert-file=${file(`${name}.crt`)}&tls-key-file=${file(`${name}.key`)}${more}` });
  return Object.assign(process, { https: `https://localhost:${process.port}` });
}

const trusting = (more = {}) => ({ tlsCaFile: file('ca.crt'), ...more });
const create = (sidecar) => sidecar.create({ subject: 'ada' });
const used = async (sidecar) => (await sidecar.touch((await create(sidecar)).sessionId)).kind;
async function firstOf(watch) {
  const { value } = await watch.next();
  watch.close();
  return value.kind;
}
const watched = (sidecar) => firstOf(sidecar.watch({ wholeTenant: true }));
function admin(t, target, options = {}) {
  const desk = new SidecarAdmin({ target, deadline: PATIENCE, ...options });
  t.after(() => desk.close());
  return desk;
}

test('calls, watches and the administrators\' verbs go over TLS, to a certificate of the given authority', async (t) => {
  const { https, port } = await serveTls(t);
  for (const target of [https, `${https}/`, `https://127.0.0.1:${port}`]) {
    const sidecar = connect(t, target, trusting());
    assert.equal(await used(sidecar), 'live');
    assert.equal(await watched(sidecar), 'snapshot');
    assert.equal((await admin(t, target, trusting()).stats()).ghostSessionCount, 0);
  }
});

test('a certificate that is not trusted, or for another name, is told as unreachable, at once and with the reason', async (t) => {
  const [sidecar, elsewhere, plain] = [await serveTls(t), await serveTls(t, { name: 'elsewhere' }), await serve(t)];
  const cases = [
    [sidecar.https, { tlsCaFile: file('other.crt') }, /certificate/],
    [sidecar.https, {}, /certificate/],
    [elsewhere.https, trusting(), /altnames/],
    [`https://localhost:${plain.port}`, trusting(), /SSL|socket|connection/i],
    [sidecar.tcp, {}, /./],
  ];
  for (const [target, options, reason] of cases) {
    const client = connect(t, target, options);
    const answer = await client.touch(NEVER_ISSUED);
    assert.deepEqual([answer.kind, answer.code, answer.allowed], ['unreachable', 'UNAVAILABLE', false], target);
    assert.match(answer.message, reason);
    await assert.rejects(create(client), SidecarUnreachableError);
    assert.match(client.logged.join('\n'), /^session-sidecar at \S+ does not answer: UNAVAILABLE: ./);
  }
});

test('the files of TLS are read when a connection is made; while they are of no use, those of before are meant', async (t) => {
  const { https } = await serveTls(t);
  const sidecar = connect(t, https, { tlsCaFile: written('trusted', readFileSync(file('other.crt'))) });
  assert.equal((await sidecar.touch(NEVER_ISSUED)).kind, 'unreachable');
  for (const content of [readFileSync(file('ca.crt')), 'half a file']) {
    replaced('trusted', content);
    sidecar.close();
    assert.equal(await used(sidecar), 'live');
    assert.equal(await watched(sidecar), 'snapshot');
  }
});

test('a sidecar that asks for certificates is shown one', async (t) => {
  const { https } = await serveTls(t, { more: `&client-ca-file=${file('ca.crt')}` });
  const own = trusting({ tlsCertFile: file('shop.crt'), tlsKeyFile: file('shop.key') });
  assert.equal(await used(connect(t, https, own)), 'live');
  assert.equal(await watched(connect(t, https, own)), 'snapshot');
  const { kind, code } = await connect(t, https, trusting()).touch(NEVER_ISSUED);
  assert.deepEqual([kind, code], ['unreachable', 'UNAVAILABLE']);
});

test('the token goes with every call and watch, over TLS, in clear text and over a socket', async (t) => {
  const query = `?${VERBS}&token-file=${file('token')}`;
  const [secured, plain] = [await serveTls(t, { more: `&token-file=${file('token')}` }), await serve(t, { query })];
  for (const [target, options] of [[secured.https, trusting()], [plain.tcp, {}], [`http://${plain.tcp}`, {}], [plain.uds, {}]]) {
    const knows = { ...options, tokenFile: file('token') };
    const sidecar = connect(t, target, knows);
    assert.equal(await used(sidecar), 'live');
    assert.equal(await used(sidecar.withOptions({ deadline: PATIENCE + 1 })), 'live');
    assert.equal(await watched(sidecar), 'snapshot');
    assert.equal((await admin(t, target, knows).stats()).ghostSessionCount, 0);
    for (const refused of [options, { ...options, tokenFile: written('nobodys', NOBODYS) }]) {
      const stranger = connect(t, target, { ...refused, fail: 'open' });
      for (const asks of [() => stranger.touch(NEVER_ISSUED), () => create(stranger), () => watched(stranger), () => admin(t, target, refused).stats()]) {
        await assert.rejects(asks, (error) => error instanceof NotPermittedError && error.code === 'UNAUTHENTICATED' && error.reason === 'CALLER_NOT_AUTHENTICATED');
      }
    }
  }
});

test('who is known and may not do it is told so', async (t) => {
  const { tcp } = await serve(t, { query: `?verbs=use&token-file=${file('token')}` });
  const sidecar = connect(t, tcp, { tokenFile: file('token') });
  for (const asks of [() => create(sidecar), () => watched(sidecar), () => admin(t, tcp, { tokenFile: file('token') }).stats()]) {
    await assert.rejects(asks, (error) => error instanceof NotPermittedError && error.code === 'PERMISSION_DENIED');
  }
});

test('a token that changes is followed, and nobody is kept out', async (t) => {
  const known = written('known', TOKEN);
  const { tcp } = await serve(t, { query: `?${VERBS}&token-file=${known}` });
  const [old, next] = [TOKEN, NEXT].map((token, place) => connect(t, tcp, { tokenFile: written(`fixed${place}`, token) }));
  const own = written('own', `${TOKEN}\n`);
  const sidecar = connect(t, tcp, { tokenFile: own });
  const refuses = (client) => client.check(NEVER_ISSUED).then(() => false, (error) => error.code === 'UNAUTHENTICATED');
  const watch = sidecar.watch({ subject: 'ada' });
  await until(watch, 'snapshotEnd');

  replaced('known', `${TOKEN}\n${NEXT}\n`);
  await eventually(async () => !(await refuses(next)), 'both are valid');
  assert.equal(await used(sidecar), 'live');
  // What is no token changes nothing.
  for (const content of ['', '\n \n', 'no-header-holds-\u0000this', `\u00fc${NEXT}`]) {
    replaced('own', content);
    assert.equal(await used(sidecar), 'live');
  }
  rmSync(own);
  assert.equal(await used(sidecar), 'live');
  written('own', `\n  ${NEXT}\n${TOKEN}\n`);
  assert.equal(await used(sidecar), 'live');

  replaced('known', NEXT);
  await eventually(() => refuses(old), 'the new one alone is valid');
  assert.equal(await used(sidecar), 'live');
  const { sessionId } = await create(sidecar);
  await sidecar.end(sessionId);
  await until(watch, 'ended');
  watch.close();
});

test('what is of no use is told when a client is made, by its name and path', (t) => {
  const [ca, cert, key, none, garbage] = [...['ca.crt', 'shop.crt', 'shop.key', 'none'].map(file), written('garbage', 'SECRETS of the file')];
  const broken = written('broken', '-----BEGIN CERTIFICATE-----\nU0VDUkVUUw==\n-----END CERTIFICATE-----\n');
  const [tls, blank, unheard] = ['https://localhost:1', written('blank', '\n \n'), written('unheard', 'SECRETS\u00fc')];
  const variable = { tlsCaFile: 'SESSION_SIDECAR_TLS_CA_FILE', tlsCertFile: 'SESSION_SIDECAR_TLS_CERT_FILE', tlsKeyFile: 'SESSION_SIDECAR_TLS_KEY_FILE', tokenFile: 'SESSION_SIDECAR_TOKEN_FILE' };
  const cases = [
    [{ tlsCertFile: cert }, ['tlsCertFile', 'tlsKeyFile']],
    [{ tlsKeyFile: key }, ['tlsKeyFile', 'tlsCertFile']],
    [{ tlsCertFile: cert, tlsKeyFile: file('server.key') }, ['tlsCertFile', 'tlsKeyFile', cert, file('server.key')]],
    ...[none, garbage, broken, key, home].map((path) => [{ tlsCaFile: path }, ['tlsCaFile', path]]),
    ...[none, garbage, broken, key].map((path) => [{ tlsCertFile: path, tlsKeyFile: key }, ['tlsCertFile', path]]),
    ...[none, garbage, ca].map((path) => [{ tlsCertFile: cert, tlsKeyFile: path }, ['tlsKeyFile', path]]),
    ...[none, blank, unheard, home].map((path) => [{ tokenFile: path }, ['tokenFile', path]]),
  ];
  const refuses = (options, words) => {
    for (const Client of [Sidecar, SidecarAdmin]) {
      assert.throws(() => new Client(options), (error) => {
        assert.ok(error instanceof SidecarError, inspect(error));
        for (const word of words) assert.ok(error.message.includes(word), `${error.message} does not name ${word}`);
        return !inspect(error).includes('SECRETS');
      });
    }
  };
  t.after(() => Object.values(variable).forEach((name) => delete process.env[name]));
  for (const [options, words] of cases) {
    refuses({ target: tls, ...options }, words);
    for (const [option, path] of Object.entries(options)) process.env[variable[option]] = path;
    refuses({ target: tls }, words.map((word) => variable[word] ?? word));
    for (const option of Object.keys(options)) delete process.env[variable[option]];
  }
  for (const target of [undefined, 'localhost:1', 'http://localhost:1', 'tcp://localhost:1', 'unix:/run/s.sock']) {
    for (const [option, path] of [['tlsCaFile', ca], ['tlsCertFile', cert], ['tlsKeyFile', key]]) refuses({ target, [option]: path }, [option, 'https://']);
  }
  // An option and a variable make a pair; and a variable is not meant where there is an option, nor one of TLS where there is none.
  Object.assign(process.env, { [variable.tlsKeyFile]: key, [variable.tokenFile]: none });
  new Sidecar({ target: tls, tlsCertFile: cert, tokenFile: file('token') }).close();
  process.env[variable.tlsKeyFile] = none;
  new Sidecar({ target: 'localhost:1', tokenFile: file('token') }).close();
});

test('the environment says all of it', async (t) => {
  const { https, tcp } = await serveTls(t, { more: `&client-ca-file=${file('ca.crt')}&token-file=${file('token')}` });
  const plain = await serve(t, { query: `?${VERBS}&token-file=${file('token')}` });
  const program = `import { Sidecar } from 'session-sidecar'; const s = new Sidecar({ deadline: ${PATIENCE} }); console.log(s.target, (await s.check('${NEVER_ISSUED}')).kind);`;
  const tells = async (env) => (await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { env: { PATH: process.env.PATH, ...env }, cwd: client, timeout: PATIENCE })).stdout;
  const token = { SESSION_SIDECAR_TOKEN_FILE: file('token') };
  const own = { SESSION_SIDECAR_TLS_CERT_FILE: file('shop.crt'), SESSION_SIDECAR_TLS_KEY_FILE: file('shop.key') };
  assert.equal(await tells({ SESSION_SIDECAR_TARGET: https, SESSION_SIDECAR_TLS_CA_FILE: file('ca.crt'), ...own, ...token }), `localhost:${tcp.split(':')[1]} unknown\n`);
  assert.equal(await tells({ SESSION_SIDECAR_TARGET: plain.tcp, SESSION_SIDECAR_TLS_CERT_FILE: file('none'), ...token }), `${plain.tcp} unknown\n`);
});

test('the token is in nothing that is shown, logged or thrown', async (t) => {
  const { port, tcp } = await serve(t, { query: `?verbs=use&token-file=${file('token')}` });
  const tokenFile = file('token');
  const [sidecar, stranger, away] = [connect(t, tcp, { tokenFile }), connect(t, tcp, { tokenFile: written('nobodys', NOBODYS) }), connect(t, `127.0.0.1:${await freePort()}`, { tokenFile })];
  const lost = connect(t, `https://localhost:${port}`, trusting({ tokenFile }));
  const told = [sidecar, sidecar.transport, stranger, away, lost, lost.transport, admin(t, tcp, { tokenFile }), sidecar.watch({ wholeTenant: true })];
  for (const client of [sidecar, stranger, away, lost]) {
    for (const asks of [() => client.touch(NEVER_ISSUED), () => create(client), () => client.end(NEVER_ISSUED)]) told.push(await asks().catch((error) => error));
  }
  for (const client of [sidecar, stranger]) told.push(await watched(client).catch((error) => error));
  const shown = told.map((thing) => `${inspect(thing, { depth: 20 })} ${JSON.stringify(thing)} ${String(thing)} ${JSON.stringify({ ...thing })} ${thing.stack ?? ''} ${inspect(thing.cause)}`);
  const everything = [...shown, ...[sidecar, stranger, away, lost].flatMap(({ logged }) => logged)].join('\n');
  assert.match(everything, /CALLER_NOT_AUTHENTICATED/);
  assert.match(everything, /does not answer/);
  for (const token of [TOKEN, NEXT, NOBODYS]) assert.ok(!everything.includes(token));
});
