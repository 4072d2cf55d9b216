// A gateway before a site: it asks the sidecar before each request, and closes what is open when a session ends. docs/gateway.md says why
// each of these lines is there.

import * as http from 'node:http';
import { resolve } from 'node:path';
import { pipeline } from 'node:stream';
import { Connections } from './connections.mjs';
import { Sidecar, isAway } from './sidecar.mjs';

const { APPLICATION, COOKIE, FAIL, LISTEN, LOGIN_URL, PASSIVE, PUBLIC, SESSION_DOOR, SESSION_PROTOS, SESSION_SIDECAR_TARGET, UNKNOWN } = process.env;
const HOP_BY_HOP = new Set(['connection', 'expect', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'upgrade']);
const TAKEN_BACK = `${COOKIE}=; Path=/; Max-Age=0${COOKIE.startsWith('__') ? '; Secure' : ''}; HttpOnly; SameSite=Lax`;

const sidecar = new Sidecar(SESSION_SIDECAR_TARGET, resolve(import.meta.dirname, SESSION_PROTOS));
const connections = new Connections(sidecar);
// Given up before the application gives them up, which would lose a request.
const agent = new http.Agent({ keepAlive: true, timeout: 4_000 });

/** One path is one path to everybody: what one server decodes or joins and another does not may lead past a public route. */
const isUnambiguous = (path) => !/\/\/|\/\.\.?(\/|$)|[;\\]|%(2e|2f|5c|25|00)/i.test(path);
const isIn = (globs, path) => globs.split(',').some((glob) => (glob.endsWith('/**') ? path.startsWith(glob.slice(0, -2)) : path === glob));
const pathOf = (url) => url.split('?')[0];

/** The session that the request names. Two values of one cookie: nobody knows which one the application would take. */
function named({ cookie = '' }) {
  const pairs = cookie.split(';').map((pair) => pair.trim().split(/\s*=\s*(.*)/s));
  const values = new Set(pairs.filter(([name]) => name === COOKIE).map(([, value]) => value));
  const [id] = values;
  if (!id && values.size < 2) return { error: 'SESSION_MISSING' };
  return values.size > 1 || !/^[!-~]{1,256}$/.test(id) ? { error: 'INVALID' } : { id };
}

/** What the policy's rules decide by. Longer ones than the sidecar takes say nothing. */
function hints({ headers, method, url }) {
  const said = (name, most = 64) => (headers[name]?.length <= most && /^[ -~]*$/.test(headers[name]) ? headers[name] : '');
  return {
    host: said('host', 255).replace(/:\d+$/, ''),
    method,
    path: pathOf(url),
    secFetchUser: said('sec-fetch-user'),
    secFetchMode: said('sec-fetch-mode'),
    secFetchDest: said('sec-fetch-dest'),
    secPurpose: said('sec-purpose'),
  };
}

/** Whether the request may go on, and whose it is. Throws if that cannot be known now. */
async function judge(request) {
  const path = pathOf(request.url);
  const isPublic = path === pathOf(LOGIN_URL) || (isIn(PUBLIC, path) && isUnambiguous(path));
  const { id, error } = named(request.headers);
  if (error) return { goesOn: isPublic, error };
  if (isPublic) return { goesOn: true, ...(await sidecar.check({ sessionId: id })) };
  const passive = isIn(PASSIVE, path);
  const starts = UNKNOWN === 'start';
  const session = await sidecar.touch(id, { hints: hints(request), passive, start: starts && !passive });
  return { goesOn: !session.error || (session.error === 'SESSION_UNKNOWN' && starts && passive), ...session };
}

/** What goes on of a request: of a session nothing but what we say, also to whom `_` is `-`; and not the cookie of one that is over. */
function headersFor({ headers }, session = {}) {
  const isKept = ([name]) => !HOP_BY_HOP.has(name) && (name === 'x-session-sidecar' || !/^x[\W_]session[\W_]/.test(name));
  const kept = Object.fromEntries(Object.entries(headers).filter(isKept));
  if (session.error === 'SESSION_ENDED') {
    const others = kept.cookie.split(';').filter((pair) => pair.split('=')[0].trim() !== COOKIE);
    kept.cookie = others.map((pair) => pair.trim()).join('; ');
  }
  if (session.error) return kept;
  if (session.ref) kept['x-session-ref'] = session.ref;
  if (/^[!-~]+$/.test(session.subject ?? '')) kept['x-session-subject'] = session.subject;
  return kept;
}

/** What the browser is told, beside what the application says. */
function headersBack(session, said = {}) {
  const headers = Object.fromEntries(Object.entries(said).filter(([name]) => !HOP_BY_HOP.has(name) && name !== 'transfer-encoding'));
  if (session.expiresIn) headers['x-session-expires-in'] = session.expiresIn.toFixed(3);
  // Not where the browser has a new one by now: after a Rotate, or by this very answer.
  const cookies = said['set-cookie'] ?? [];
  const isOver = session.error === 'SESSION_ENDED' && session.reason !== 'ROTATED';
  if (isOver && !cookies.some((cookie) => cookie.startsWith(`${COOKIE}=`))) headers['set-cookie'] = [...cookies, TAKEN_BACK];
  return headers;
}

function refuse(request, response, session) {
  const { headers, method, url } = request;
  const back = { ...headersBack(session), 'cache-control': 'no-store' };
  if (session.error === 'UNAVAILABLE') return response.writeHead(503, { ...back, 'retry-after': 1 }).end('For a moment it cannot be told who is logged in.\n');
  const repeatable = method === 'GET' || method === 'HEAD';
  const mode = headers['sec-fetch-mode'];
  const navigates = mode ? mode === 'navigate' : repeatable && (headers.accept ?? '').includes('text/html');
  const query = [];
  if (session.reason) query.push(`reason=${session.reason}`);
  // Only ever a path of this site (a browser takes // and /\ for another host), and what a form sent is gone.
  if (navigates && repeatable && isUnambiguous(pathOf(url))) query.push(`next=${encodeURIComponent(url).replaceAll('%2F', '/')}`);
  const login = LOGIN_URL + (query.length ? (LOGIN_URL.includes('?') ? '&' : '?') + query.join('&') : '');
  if (session.error === 'READ_ONLY_SESSION') response.writeHead(403, { ...back, 'content-type': 'application/json' });
  else if (navigates) return response.writeHead(repeatable ? 302 : 303, { ...back, location: login }).end();
  else response.writeHead(401, { ...back, 'content-type': 'application/json' });
  const end = session.reason && { reason: session.reason };
  response.end(JSON.stringify({ error: session.error, session_ref: session.ref, end, login_url: LOGIN_URL }));
}

/** Sends a request on, and the answer back as it comes. */
function forward(request, response, to, path, session = {}) {
  const { socket } = request;
  const { upgrade } = request.headers;
  const connection = { close: () => socket.destroy(), lasts: false };
  const done = session.ref && !session.error ? connections.add(session, connection) : () => {};
  const headers = headersFor(request, session);
  if (upgrade) {
    Object.assign(headers, { connection: 'upgrade', upgrade });
    // What follows is no body, whatever it says.
    for (const name of ['content-length', 'transfer-encoding']) delete headers[name];
  }
  const [host, port] = to.split(':');
  const beyond = http.request({ host, port, agent, method: request.method, path, headers, setHost: false });
  beyond.on('response', (answer) => {
    connection.lasts = (answer.headers['content-type'] ?? '').startsWith('text/event-stream');
    response.writeHead(answer.statusCode, answer.statusMessage, headersBack(session, answer.headers)).flushHeaders();
    pipeline(answer, response, () => {});
  });
  beyond.on('upgrade', (answer, peer, head) => {
    connection.lasts = true;
    response.writeHead(101, { ...headersBack(session, answer.headers), connection: 'upgrade', upgrade: answer.headers.upgrade }).flushHeaders();
    response.detachSocket(socket);
    socket.once('close', done);
    peer.unshift(head);
    pipeline(socket, peer, () => {});
    pipeline(peer, socket, () => {});
  });
  beyond.on('error', () => {
    if (!response.headersSent) response.writeHead(502).end();
    else if (!response.writableEnded) socket.destroy();
  });
  response.once('close', () => {
    done();
    if (!response.writableFinished) beyond.destroy();
  });
  if (upgrade) beyond.end();
  else request.pipe(beyond);
}

async function serve(request, response) {
  const path = pathOf(request.url);
  if (!/^\/[!"$-~]*$/.test(request.url) || path.length > 2048) return response.writeHead(400).end();
  // What pages may ask, and nothing else of the door. It is no request of the application's.
  const [, asked] = request.url.match(/^\/-(\/session(?:[/?].*)?)$/) ?? [];
  if (asked && isUnambiguous(path)) return forward(request, response, SESSION_DOOR, asked);
  const session = await judge(request).catch((error) => ({ error: 'UNAVAILABLE', goesOn: FAIL === 'open' && isAway(error) }));
  if (request.socket.destroyed) return;
  if (session.goesOn) forward(request, response, APPLICATION, request.url, session);
  else refuse(request, response, session);
}

const server = http.createServer(serve);
server.on('upgrade', (request, socket) => {
  socket.on('error', () => socket.destroy());
  // Through a connection that speaks HTTP/2 (h2c) requests would get to the application that nobody has asked about.
  if (request.headers.upgrade.toLowerCase() !== 'websocket' || request.method !== 'GET') return socket.end('HTTP/1.1 501 Not Implemented\r\nConnection: close\r\n\r\n');
  const response = new http.ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once('finish', () => socket.end());
  serve(request, response);
});
const [address, port] = LISTEN.split(':');
server.listen(port, address);
