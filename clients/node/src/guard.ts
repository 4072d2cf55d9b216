// What a web server asks of the sidecar about each request, whatever its framework is called.

import type { IncomingHttpHeaders } from 'node:http';
import type { HoldingOptions, Sidecar } from './client.js';
import { InvalidRequestError, RefusedError, SessionEndedError, SessionUnknownError, SidecarError, SidecarUnreachableError } from './errors.js';
import type { Holding } from './holding.js';
import { hintsOf } from './wire.js';
import type { Answer, CreateOptions, End, Ended, EndReason, Live, Unknown, Unreachable } from './words.js';

export interface CookieOptions {
  name: string;
  /** Default: /. */
  path?: string;
  domain?: string;
  /** Whether it goes over https only. Default: yes. Browsers take http://localhost for https. */
  secure?: boolean;
  /** Default: Lax. */
  sameSite?: 'Strict' | 'Lax' | 'None';
}

export interface SessionsOptions<Request> {
  sidecar: Sidecar;
  /** The cookie that has the session's id: its name, or more. It has no age and goes with the browser. */
  cookie: string | CookieOptions;
  /** The session's id of a request, for a framework that has ids of its own; undefined for one of a stranger. Default: the cookie's value. */
  sessionId?: (request: Request) => string | undefined;
  /** Where people log in; always public. Without it everybody is answered in JSON. */
  loginUrl?: string;
  /** Paths where nobody is refused: exactly this one, or with /** all below it. What comes there is checked, and no activity. */
  public?: readonly string[];
  /** Paths whose requests are no activity: polls, notifications, whatever a page asks for by itself. */
  passive?: readonly string[];
  /** Has the framework forget its own session, for it is over. */
  forget?: (request: Request) => unknown;
  /** How a session that the sidecar does not know begins there, for a site that runs; undefined: it is over. Without it, it is over. */
  adopt?: (request: Request) => CreateOptions | undefined | Promise<CreateOptions | undefined>;
}

/** A request and its answer, in the framework's way. */
export interface Exchange<Request> {
  readonly request: Request;
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** Headers of the answer so far. */
  cookies(): string[];
  setCookies(cookies: string[]): void;
  answer(status: number, headers: Record<string, string>, body: string): void;
}

/** What is so of the session of a request. */
export interface Judged {
  /** The session lives. */
  readonly session?: Live;
  /** The session is over. */
  readonly over?: Ended | Unknown;
  /** Nobody knows. */
  readonly away?: Unreachable;
  /** It is for reading only, and this would be more. */
  readonly readOnly?: RefusedError;
  readonly isPublic: boolean;
}

// The rest of a sentence that begins with "the session has ended", as the sidecar's own door says it.
const WORDS: Partial<Record<EndReason, string>> = {
  IDLE_TIMEOUT: 'by inactivity',
  ABSOLUTE_TIMEOUT: 'because the longest time since login had passed',
  BROWSER_CLOSED: 'because its browser was closed or out of reach',
  LOGOUT: 'by logout',
  REVOKED: 'because it was revoked',
  SUPERSEDED: 'because a newer session of the same person took its place',
  ROTATED: 'under this name only: it was given a new id and goes on',
};

const pathOf = (url: string) => url.split('?', 1)[0]!;
const isIn = (paths: readonly string[], path: string) => paths.some((each) => (each.endsWith('/**') ? path.startsWith(each.slice(0, -2)) : path === each));
/** What one server decodes or joins and another does not may lead past a public path. */
const isUnambiguous = (path: string) => !/\/\/|\/\.\.?(\/|$)|[;\\]|%(2e|2f|5c|25|00)/i.test(path);

/** The value of a cookie. Two values of one name are nobody's: nobody knows which one is meant. */
export function cookieOf(headers: Pick<IncomingHttpHeaders, 'cookie'>, name: string): string | undefined {
  const pairs = (headers.cookie ?? '').split(';').map((pair) => pair.trim().split(/\s*=\s*(.*)/s));
  const values = new Set(pairs.filter(([key]) => key === name).map(([, value]) => value));
  const [value] = values;
  return values.size === 1 && value ? value : undefined;
}

/** The sessions of a site. */
export class Guard<Request extends object> {
  readonly #options: SessionsOptions<Request>;
  readonly #cookie: CookieOptions;
  // The ids of live sessions, by the request that named them. Nobody finds them on a request.
  readonly #live = new WeakMap<object, string>();

  constructor(options: SessionsOptions<Request>) {
    if (!options.sidecar || !options.cookie) throw new TypeError('sidecar and cookie are required');
    this.#options = options;
    this.#cookie = typeof options.cookie === 'string' ? { name: options.cookie } : options.cookie;
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(this.#cookie.name)) throw new TypeError('cookie must be the name of a cookie');
  }

  /** Asks the sidecar. Of a session that is over nothing stays: not the framework's, and not the cookie. */
  async judge(exchange: Exchange<Request>): Promise<Judged> {
    const { loginUrl, public: open = [], passive = [] } = this.#options;
    const { request, method, url, headers } = exchange;
    const path = pathOf(url);
    const isPublic = (loginUrl !== undefined && path === pathOf(loginUrl)) || (isUnambiguous(path) && isIn(open, path));
    const id = this.#idOf(exchange);
    if (id === undefined) return { isPublic };
    const ask = (): Promise<Answer> => {
      if (isPublic) return this.#options.sidecar.check(id);
      const hints = hintsOf(method, url, headers);
      return this.#options.sidecar.touch(id, { hints, ...(isIn(passive, path) && { activity: 'BACKGROUND' as const }) });
    };
    let answer: Answer;
    try {
      answer = await ask();
      if (answer.kind === 'unknown') answer = await this.#adopted(request, id, answer, ask);
    } catch (error) {
      // It can be no id: somebody sent something.
      if (error instanceof InvalidRequestError) return { isPublic };
      if (error instanceof RefusedError && error.reason === 'READ_ONLY_SESSION') return { isPublic, readOnly: error };
      throw error;
    }
    if (answer.kind === 'unreachable') return { isPublic, away: answer };
    if (answer.kind === 'live') {
      this.#live.set(request, id);
      return { isPublic, session: answer };
    }
    await this.#options.forget?.(request);
    // After a Rotate the browser has a new one by now.
    if (!(answer.kind === 'ended' && answer.reason === 'ROTATED')) this.#setCookie(exchange, '', '; Max-Age=0');
    return { isPublic, over: answer };
  }

  /** Refuses a request, unless it may go on. Answers whether it was refused. */
  refuse(exchange: Exchange<Request>, { session, over, away, readOnly, isPublic }: Judged, required = false): boolean {
    if (session || away?.allowed || (isPublic && !required)) return false;
    if (away) this.#refuseForNow(exchange, away);
    else if (readOnly) this.#explain(exchange, 403, 'READ_ONLY_SESSION', 'the session is for reading only');
    else if (over) this.#refuseOver(exchange, over);
    else if (required) this.#refuseOver(exchange);
    else return false;
    return true;
  }

  /** A person has logged in. Their session has a new id, and both deadlines begin anew. */
  async login(exchange: Exchange<Request>, { sessionId, ...options }: CreateOptions & { subject: string }): Promise<Live> {
    const { sidecar, sessionId: own } = this.#options;
    if (own && sessionId === undefined) throw new TypeError('sessionId is required: the id that the framework has given the session for this login');
    const before = this.#live.get(exchange.request);
    if (before !== undefined && before === sessionId) throw new TypeError('sessionId must be a new one at login: have the framework regenerate it first');
    try {
      const made = (before !== undefined && (await this.#goesOn(before, sessionId, options))) || (await sidecar.create({ ...options, ...(sessionId && { sessionId }) }));
      return this.#began(exchange, made.sessionId, made.session.status.sessionRef);
    } catch (error) {
      throw withStatus(error);
    }
  }

  /** The session goes on under a new id. */
  async rotate(exchange: Exchange<Request>, sessionId?: string): Promise<Live> {
    const rotated = await this.#options.sidecar.rotate(this.#id(exchange), sessionId === undefined ? {} : { newSessionId: sessionId });
    return this.#began(exchange, rotated.sessionId, rotated.session.status.sessionRef);
  }

  /** The person has logged out. Works in any case, for the cookie is taken back; answers whether the sidecar has ended the session. */
  async logout(exchange: Exchange<Request>, note = ''): Promise<boolean> {
    const id = this.#live.get(exchange.request) ?? this.#idOf(exchange);
    this.#setCookie(exchange, '', '; Max-Age=0');
    this.#live.delete(exchange.request);
    if (id === undefined) return false;
    try {
      await this.#options.sidecar.end(id, { actor: 'USER', note });
      return true;
    } catch (error) {
      if (error instanceof SessionUnknownError || error instanceof SidecarUnreachableError || error instanceof InvalidRequestError) return false;
      throw error;
    }
  }

  /** Keeps the session of a request alive while some work goes on. */
  async holding<Result>(exchange: Exchange<Request>, options: HoldingOptions, work: (hold: Holding) => Result | Promise<Result>): Promise<Result> {
    return this.#options.sidecar.holding(this.#id(exchange), options, work);
  }

  #idOf({ request, headers }: Exchange<Request>): string | undefined {
    const { sessionId } = this.#options;
    return (sessionId ? sessionId(request) : cookieOf(headers, this.#cookie.name)) || undefined;
  }

  #id({ request }: Exchange<Request>): string {
    const id = this.#live.get(request);
    if (id === undefined) throw new Error('this request has no live session: is the middleware of session-sidecar before this handler?');
    return id;
  }

  /** The former session, under its new id; undefined if it cannot go on as this person's. */
  async #goesOn(before: string, sessionId: string | undefined, { subject, authenticationLevel }: CreateOptions) {
    const { sidecar } = this.#options;
    const known = await sidecar.check(before);
    if (known.kind !== 'live' || !['', subject].includes(known.session!.subject)) {
      if (known.kind === 'live') await sidecar.end(before, { actor: 'USER', note: 'somebody else logged in' });
      return undefined;
    }
    try {
      return await sidecar.rotate(before, { authenticatedAgo: 0, ...(known.session!.subject ? {} : { subject }), ...(authenticationLevel && { authenticationLevel }), ...(sessionId && { newSessionId: sessionId }) });
    } catch (error) {
      if (error instanceof SessionEndedError || error instanceof SessionUnknownError) return undefined;
      throw error;
    }
  }

  async #began(exchange: Exchange<Request>, id: string, sessionRef: string): Promise<Live> {
    const answer = await this.#options.sidecar.check({ sessionRef });
    if (answer.kind === 'unreachable') throw new SidecarUnreachableError(answer);
    if (answer.kind === 'ended') throw new SessionEndedError(answer);
    if (answer.kind === 'unknown') throw new SessionUnknownError(answer);
    this.#live.set(exchange.request, id);
    if (!this.#options.sessionId) this.#setCookie(exchange, id);
    return answer;
  }

  async #adopted(request: Request, sessionId: string, unknown: Unknown, ask: () => Promise<Answer>): Promise<Answer> {
    const options = await this.#options.adopt?.(request);
    if (!options) return unknown;
    try {
      await this.#options.sidecar.create({ ...options, sessionId });
    } catch (error) {
      if (error instanceof SessionEndedError) return error.answer;
      if (error instanceof SidecarUnreachableError) return { ...error.answer, allowed: this.#options.sidecar.failsOpen };
      if (!(error instanceof RefusedError)) throw error;
      if (error.reason === 'ALREADY_PAST_LIMIT') {
        // Its message names the field; it is the only place where it is said which limit that was.
        const reason: EndReason = error.message.includes('authenticated_ago') ? 'ABSOLUTE_TIMEOUT' : 'IDLE_TIMEOUT';
        const end: End = { reason, actor: 'POLICY', actorId: '', note: '', successorRef: '' };
        return { kind: 'ended', allowed: false, sessionRef: unknown.sessionRef, reason, actor: 'POLICY', successorRef: '', end };
      }
      if (error.reason === 'SUBJECT_CAP') return unknown;
      // Else another request of the same session was faster.
      if (error.reason !== 'SESSION_EXISTS') throw error;
    }
    return ask();
  }

  #setCookie(exchange: Exchange<Request>, value: string, more = '') {
    const { name, path = '/', domain, secure = true, sameSite = 'Lax' } = this.#cookie;
    const others = exchange.cookies().filter((each) => !each.startsWith(`${name}=`));
    exchange.setCookies([...others, `${name}=${value}; Path=${path}${domain ? `; Domain=${domain}` : ''}; HttpOnly${secure ? '; Secure' : ''}; SameSite=${sameSite}${more}`]);
  }

  // ---- Refusals, in the form of the sidecar's own door ----

  #refuseForNow(exchange: Exchange<Request>, { retryAfter = 0 }: Unreachable) {
    const after = { 'retry-after': String(Math.max(1, Math.ceil(retryAfter / 1000))) };
    const text = 'For a moment it cannot be told who is logged in. Please try again.';
    if (navigates(exchange)) exchange.answer(503, { ...after, 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }, `${text}\n`);
    else this.#explain(exchange, 503, 'UNAVAILABLE', text, undefined, after);
  }

  #refuseOver(exchange: Exchange<Request>, over?: Ended | Unknown) {
    const { loginUrl } = this.#options;
    const { method, url } = exchange;
    const reason = over?.kind === 'ended' ? over.reason : undefined;
    if (loginUrl !== undefined && navigates(exchange)) {
      const repeatable = method === 'GET' || method === 'HEAD';
      const query = reason ? [`reason=${reason}`] : [];
      // Only ever a path of this site (a browser takes // and /\ for another host), and what a form sent is gone.
      if (repeatable && url.startsWith('/') && isUnambiguous(pathOf(url))) query.push(`next=${encodeURIComponent(url).replaceAll('%2F', '/')}`);
      const location = loginUrl + (query.length ? (loginUrl.includes('?') ? '&' : '?') + query.join('&') : '');
      exchange.answer(repeatable ? 302 : 303, { location, 'cache-control': 'no-store' }, '');
    } else if (!over) {
      this.#explain(exchange, 401, 'SESSION_MISSING', 'there is no session; send the person to the login page');
    } else if (over.kind === 'unknown') {
      this.#explain(exchange, 401, 'SESSION_UNKNOWN', 'the session is not known: it is over; send the person to the login page', over);
    } else {
      const why = reason && WORDS[reason] ? ` ${WORDS[reason]}` : '';
      this.#explain(exchange, 401, 'SESSION_ENDED', `the session has ended${why}; send the person to the login page`, over);
    }
  }

  #explain(exchange: Exchange<Request>, status: number, error: string, message: string, over?: Ended | Unknown, headers: Record<string, string> = {}) {
    const { reason, endTime } = over?.kind === 'ended' ? over : {};
    const told = {
      error,
      message,
      login_url: this.#options.loginUrl,
      session_ref: over?.sessionRef || undefined,
      end: reason && { reason, message: WORDS[reason] ?? '', end_time: endTime },
    };
    exchange.answer(status, { ...headers, 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' }, JSON.stringify(told));
  }
}

/** Whether a person will look at the answer, and not a script. */
function navigates({ headers }: Exchange<never> | Exchange<any>): boolean {
  const mode = headers['sec-fetch-mode'];
  return mode ? mode === 'navigate' : (headers.accept ?? '').includes('text/html');
}

/** What frameworks answer to an error that nobody catches. */
function withStatus(error: unknown) {
  const statusCode = error instanceof SidecarUnreachableError ? 503 : error instanceof RefusedError ? 403 : undefined;
  return error instanceof SidecarError && statusCode ? Object.assign(error, { statusCode, status: statusCode }) : error;
}
