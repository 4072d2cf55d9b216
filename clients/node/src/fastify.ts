/**
 * A plugin for Fastify.
 *
 *     await app.register(sidecarSessions, { sidecar: new Sidecar(), cookie: 'sid', loginUrl: '/login' });
 *
 * @packageDocumentation
 */

import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestAsyncHookHandler } from 'fastify';
import type { HoldingOptions } from './client.js';
import { type Exchange, Guard, type Judged, type SessionsOptions } from './guard.js';
import type { Holding } from './holding.js';
import type { CreateOptions, Ended, Live, Unknown, Unreachable } from './words.js';

export { type CookieOptions, cookieOf, type SessionsOptions } from './guard.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** What the sidecar says of a live session. */
    sidecarSession: Live | undefined;
    /** How the session of this request has ended, where the request goes on nevertheless. */
    sidecarEnd: Ended | Unknown | undefined;
    /** Nobody knows, and the request goes on nevertheless. */
    sidecarAway: Unreachable | undefined;
  }
  interface FastifyInstance {
    sidecarSessions: FastifySessions;
  }
}

export interface FastifyOptions extends SessionsOptions<FastifyRequest> {
  /** What happens to a request whose session is over, where it is not public. Default: 401 in JSON, or for a page the way to `loginUrl`.
   * If it sends nothing, the request goes on. */
  onEnded?: (over: Ended | Unknown, request: FastifyRequest, reply: FastifyReply) => unknown;
}

/** What handlers do with sessions: `app.sidecarSessions`. */
export interface FastifySessions {
  /** A hook for routes that need a live session (`onRequest`, `preHandler`): whoever has none is refused. */
  required: onRequestAsyncHookHandler;
  /** A person has logged in: their session has a new id, in the cookie (or `sessionId`, if the framework has ids of its own), and both
   * deadlines begin anew. Rejects with RefusedError, and with SidecarUnreachableError whatever the fail policy: nobody is logged in then. */
  login(request: FastifyRequest, reply: FastifyReply, options: CreateOptions & { subject: string }): Promise<Live>;
  /** The session goes on under a new id, in the cookie or as `sessionId`. */
  rotate(request: FastifyRequest, reply: FastifyReply, sessionId?: string): Promise<Live>;
  /** The person has logged out, and the cookie is taken back. Answers whether the sidecar has ended a session. */
  logout(request: FastifyRequest, reply: FastifyReply): Promise<boolean>;
  /** Sidecar.holding, for the session of a request. */
  holding<Result>(request: FastifyRequest, options: HoldingOptions, work: (hold: Holding) => Result | Promise<Result>): Promise<Result>;
}

const exchangeOf = (request: FastifyRequest, reply?: FastifyReply): Exchange<FastifyRequest> => ({
  request,
  method: request.method,
  url: request.url,
  headers: request.headers,
  cookies: () => [reply?.getHeader('set-cookie') ?? []].flat() as string[],
  setCookies(cookies) {
    // Fastify adds to what is there.
    reply?.removeHeader('set-cookie').header('set-cookie', cookies);
  },
  answer: (status, headers, body) => void reply!.code(status).headers(headers).send(body),
});

/** Asks the sidecar about each request. Register it after what knows the session's id, and before what needs to know. */
export async function sidecarSessions(app: FastifyInstance, options: FastifyOptions): Promise<void> {
  const guard = new Guard<FastifyRequest>(options);
  const known = new WeakMap<FastifyRequest, Judged>();
  const tell = (request: FastifyRequest, judged: Judged) => {
    known.set(request, judged);
    request.sidecarSession = judged.session;
    request.sidecarEnd = judged.over;
    request.sidecarAway = judged.away;
    return judged;
  };
  const hook = (required: boolean): onRequestAsyncHookHandler => async (request, reply) => {
    const judged = (required && known.get(request)) || tell(request, await guard.judge(exchangeOf(request, reply)));
    if (judged.over && options.onEnded && (required || !judged.isPublic)) {
      await options.onEnded(judged.over, request, reply);
      return reply.sent ? reply : undefined;
    }
    return guard.refuse(exchangeOf(request, reply), judged, required) ? reply : undefined;
  };
  const began = (request: FastifyRequest, session: Live) => tell(request, { session, isPublic: false }).session!;
  for (const name of ['sidecarSession', 'sidecarEnd', 'sidecarAway']) app.decorateRequest(name, undefined);
  app.decorate('sidecarSessions', {
    required: hook(true),
    login: async (request, reply, login) => began(request, await guard.login(exchangeOf(request, reply), login)),
    rotate: async (request, reply, sessionId) => began(request, await guard.rotate(exchangeOf(request, reply), sessionId)),
    async logout(request, reply) {
      const ended = await guard.logout(exchangeOf(request, reply));
      tell(request, { isPublic: false });
      return ended;
    },
    holding: (request, hold, work) => guard.holding(exchangeOf(request), hold, work),
  } satisfies FastifySessions);
  app.addHook('onRequest', hook(false));
}

// What fastify-plugin does: it is about the whole application, not only about what is registered within it.
Object.assign(sidecarSessions, { [Symbol.for('skip-override')]: true, [Symbol.for('fastify.display-name')]: 'session-sidecar' });

export default sidecarSessions;
