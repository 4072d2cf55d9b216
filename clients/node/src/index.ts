/**
 * The client of session-sidecar.
 *
 *     import { Sidecar } from 'session-sidecar';
 *
 *     const sidecar = new Sidecar();
 *     const { sessionId } = await sidecar.create({ subject: 'ada' });
 *     const answer = await sidecar.touch(sessionId);
 *     if (!answer.allowed) …
 *
 * `touch` and `check` answer `live`, `ended`, `unknown` or `unreachable`; the other verbs answer, or reject with a SidecarError.
 *
 * @packageDocumentation
 */

export type { ConnectionOptions } from './access.js';
export * from './admin.js';
export { type ClientOptions, type HoldingOptions, type Logger, Sidecar, type SidecarOptions, type WatchOptions } from './client.js';
export {
  InvalidRequestError, NotPermittedError, RefusedError, SessionEndedError, SessionUnknownError, SidecarError, SidecarUnreachableError,
} from './errors.js';
export type { Holding } from './holding.js';
export type { Watch } from './watch.js';
export { hintsOf } from './wire.js';
export type * from './words.js';
