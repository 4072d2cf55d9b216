/**
 * Middleware for Express.
 *
 *     const sessions = sidecarSessions({ sidecar: new Sidecar(), cookie: 'sid', loginUrl: '/login' });
 *     app.use(sessions);
 *
 * @packageDocumentation
 */

import type { NextFunction, Request, RequestHandler, Response } from 'express';
import type { HoldingOptions } from './client.js';
import { type Exchange, Guard, type Judged, type SessionsOptions } from './guard.js';
import type { Holding } from './holding.js';
import type { CreateOptions, Ended, Live, Unknown, Unreachable } from './words.js';

export { type CookieOptions, cookieOf, type SessionsOptions } from './guard.js';

declare global {
  namespace Express {
    interface Request {
      /** What the sidecar says of a live session. */
      sidecarSession?: Live | undefined;
      /** How the session of this request has ended, where the request goes on nevertheless. */
      sidecarEnd?: Ended | Unknown | undefined;
      /** Nobody knows, and the request goes on nevertheless. */
      sidecarAway?: Unreachable | undefined;
    }
  }
}

export interface ExpressOptions extends SessionsOptions<Request> {
  /** What happens to a request whose session is over, where it is not public. Default: 401 in JSON, or for a page the way to `loginUrl`. */
  onEnded?: (over: Ended | Unknown, request: Request, response: Response, next: NextFunction) => unknown;
}

/** The middleware, and what handlers do with sessions. */
export interface ExpressSessions extends RequestHandler {
  /** Middleware for what needs a live session: whoever has none is refused. */
  required: RequestHandler;
  /** A person has logged in: their session has a new id, in the cookie (or `sessionId`, if the framework has ids of its own), and both
   * deadlines begin anew. Rejects with RefusedError, and with SidecarUnreachableError whatever the fail policy: nobody is logged in then. */
  login(request: Request, response: Response, options: CreateOptions & { subject: string }): Promise<Live>;
  /** The session goes on under a new id, in the cookie or as `sessionId`. */
  rotate(request: Request, response: Response, sessionId?: string): Promise<Live>;
  /** The person has logged out, and the cookie is taken back. Answers whether the sidecar has ended a session. */
  logout(request: Request, response: Response): Promise<boolean>;
  /** Sidecar.holding, for the session of a request. */
  holding<Result>(request: Request, options: HoldingOptions, work: (hold: Holding) => Result | Promise<Result>): Promise<Result>;
}

const exchangeOf = (request: Request, response?: Response): Exchange<Request> => ({
  request,
  method: request.method,
  url: request.originalUrl,
  headers: request.headers,
  cookies: () => [response?.getHeader('set-cookie') ?? []].flat() as string[],
  setCookies: (cookies) => response?.setHeader('set-cookie', cookies),
  answer(status, headers, body) {
    for (const [name, value] of Object.entries(headers)) response!.setHeader(name, value);
    response!.status(status).end(body);
  },
});

/** Asks the sidecar about each request: once, wherever it stands. Put it before what needs to know. */
export function sidecarSessions(options: ExpressOptions): ExpressSessions {
  const guard = new Guard<Request>(options);
  const known = new WeakMap<Request, Judged>();
  const judge = async (request: Request, response: Response) => {
    const judged = await guard.judge(exchangeOf(request, response));
    known.set(request, judged);
    tell(request, judged);
    return judged;
  };
  const handler = (required: boolean): RequestHandler => (request, response, next) => {
    (async () => {
      const judged = (required && known.get(request)) || (await judge(request, response));
      if (judged.over && options.onEnded && (required || !judged.isPublic)) return options.onEnded(judged.over, request, response, next);
      if (!guard.refuse(exchangeOf(request, response), judged, required)) next();
    })().catch(next);
  };
  const began = (request: Request, session: Live) => {
    known.set(request, { session, isPublic: false });
    tell(request, { session, isPublic: false });
    return session;
  };
  return Object.assign(handler(false), {
    required: handler(true),
    login: async (request: Request, response: Response, login: CreateOptions & { subject: string }) => began(request, await guard.login(exchangeOf(request, response), login)),
    rotate: async (request: Request, response: Response, sessionId?: string) => began(request, await guard.rotate(exchangeOf(request, response), sessionId)),
    async logout(request: Request, response: Response) {
      const ended = await guard.logout(exchangeOf(request, response));
      known.set(request, { isPublic: false });
      tell(request, { isPublic: false });
      return ended;
    },
    holding: <Result>(request: Request, hold: HoldingOptions, work: (hold: Holding) => Result | Promise<Result>) => guard.holding(exchangeOf(request), hold, work),
  });
}

function tell(request: Request, { session, over, away }: Judged) {
  request.sidecarSession = session;
  request.sidecarEnd = over;
  request.sidecarAway = away;
}
