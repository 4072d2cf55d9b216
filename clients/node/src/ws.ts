/**
 * Closes WebSockets whose session is over.
 *
 *     const closer = new SocketCloser({ sidecar });
 *     server.on('connection', (socket, request) => closer.add(socket, cookieOf(request.headers, 'sid')));
 *
 * @packageDocumentation
 */

import type { WebSocket } from 'ws';
import type { Logger, Sidecar } from './client.js';
import { InvalidRequestError, SidecarError } from './errors.js';
import { Hub, type Told } from './hub.js';
import type { Answer, ClearedEvent, Ended, Unknown, WarningEvent } from './words.js';

export { cookieOf } from './guard.js';

/** The code of a socket that is closed because its session is over. The reason beside it is the end's word. */
export const OVER = 4401;
/** The code of one whose session the sidecar does not know, or has forgotten. */
export const AGAIN = 1012;
/** The code of one that cannot be opened now: nobody knows. */
export const LATER = 1013;

// How long a client has to answer the closing handshake.
const PATIENCE = 500;

export interface SocketCloserOptions {
  sidecar: Sidecar;
  /** Whether warnings, and their withdrawal, are sent: as JSON, or as what this makes of them. Default: no. */
  warn?: boolean | ((event: WarningEvent | ClearedEvent) => string | Buffer);
}

/** Closes WebSockets within a second of the end of their session, with code 4401 and the reason. It follows a session to its new id.
 * Opening a socket, and what goes through it, is no activity. */
export class SocketCloser {
  readonly #hub: Hub;
  readonly #warn: ((event: WarningEvent | ClearedEvent) => string | Buffer) | undefined;
  readonly #failsOpen: boolean;
  readonly #logger: Logger;

  constructor({ sidecar, warn = false }: SocketCloserOptions) {
    this.#hub = new Hub(sidecar);
    this.#failsOpen = sidecar.failsOpen;
    this.#logger = sidecar.outage.logger;
    this.#warn = warn === true ? asJson : warn || undefined;
  }

  /** From now on the socket is closed when the session is over; at once, if it is over already, or if there is none. Until that is
   * known the socket is paused: no message is lost, and none is heard. Answers what is so of the session; undefined if there is none, or
   * if the sidecar does not serve this caller, which is logged. */
  async add(socket: WebSocket, sessionId: string | undefined): Promise<Answer | undefined> {
    const subscription = { tell: (told: Told) => this.#told(socket, told) };
    const forget = () => this.#hub.unsubscribe(subscription);
    socket.once('close', forget);
    socket.pause();
    try {
      const answer = sessionId ? await this.#hub.subscribe(subscription, sessionId) : undefined;
      // It may have been closed meanwhile, which nobody heard.
      if (socket.readyState >= socket.CLOSING) forget();
      else if (!answer) close(socket, OVER, 'SESSION_MISSING');
      else if (answer.kind === 'ended' || answer.kind === 'unknown') over(socket, answer);
      else if (answer.kind === 'unreachable' && !this.#failsOpen) close(socket, LATER, 'UNAVAILABLE');
      return answer;
    } catch (error) {
      // It can be no id: somebody sent something.
      if (error instanceof InvalidRequestError) close(socket, OVER, 'SESSION_MISSING');
      else close(socket, LATER, 'UNAVAILABLE');
      if (!(error instanceof SidecarError)) throw error;
      if (!(error instanceof InvalidRequestError)) this.#logger.warn(`a socket was closed, for nobody can ask whether its session lives: ${error.message}`);
      return undefined;
    } finally {
      socket.resume();
    }
  }

  #told(socket: WebSocket, told: Told) {
    if (told.kind === 'warning' || told.kind === 'cleared') {
      if (this.#warn && socket.readyState === socket.OPEN) socket.send(this.#warn(told));
    } else if (!(told.kind === 'ended' && told.reason === 'ROTATED' && told.successorRef)) {
      over(socket, told);
    }
  }
}

function asJson(event: WarningEvent | ClearedEvent): string {
  const { limit, expiresIn } = event;
  const rest = event.kind === 'warning' ? { can_extend: event.canExtend } : { cause: event.cause };
  return JSON.stringify({ type: `session-${event.kind}`, limit, expires_in: expiresIn / 1000, ...rest });
}

function over(socket: WebSocket, answer: Ended | Unknown) {
  if (answer.kind === 'ended') close(socket, OVER, answer.reason ?? 'ENDED');
  else close(socket, AGAIN, 'UNKNOWN');
}

function close(socket: WebSocket, code: number, reason: string) {
  // What a client still says is not heard, and it cannot put off the end by not answering.
  socket.removeAllListeners('message');
  socket.close(code, reason);
  const timer = setTimeout(() => socket.terminate(), PATIENCE).unref();
  socket.once('close', () => clearTimeout(timer));
}
